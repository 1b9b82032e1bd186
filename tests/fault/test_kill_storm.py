"""kill -9 all day long: members of both dialects, some of them slow, lose nothing."""

import os
import random

import pytest
from harness import PORTABLE, ClassicMember, Member, check_streams, read_all, until

pytestmark = pytest.mark.skipif(
    PORTABLE, reason="this path cannot resume a dead worker's connections"
)


def crowd(pool, size):
    """Half of each dialect, every third with a small window and in no hurry."""
    members = []
    for n in range(size):
        small = {"rcvbuf": 4096} if n % 3 == 0 else {}
        if n % 2:
            members.append(ClassicMember(pool.port, pool.key, name=f"c{n}", **small))
        else:
            members.append(Member(pool.port, pool.key, f"m{n}", last=0, **small))
    until(lambda: pool.sessions() == size)
    return members


def storm(pool, members, kills, seed, roles):
    """Everybody talks while processes are killed; everything must be heard."""
    rng = random.Random(seed)
    print(f"seed={seed}")
    said = []
    lazy = [member for n, member in enumerate(members) if n % 3 == 0]
    busy = [member for n, member in enumerate(members) if n % 3]
    for kill in range(kills):
        for member in rng.sample(members, len(members) // 2):
            text = f"{len(said)} {member.name} {'x' * rng.choice((1, 10, 500, 3000))}"
            member.say(text)
            said.append(text)
        if kill % 4 == 0:
            read_all(busy, lambda member: member.count() >= len(said) // 2)
        # Not waiting for its successor: the next one may die before this one is back.
        role = rng.choice(roles)
        if role in pool.pids():
            pool.kill(role)
    for text in ("the end", "the very end"):
        members[0].say(text)
        said.append(text)
    read_all([*busy, *lazy], lambda member: member.count() >= len(said), within=30)
    assert sorted(pool.texts()) == sorted(said)
    check_streams(pool.log, members)
    for member in members:
        mine = [t for t in pool.texts() if t.split()[1] == member.name]
        assert mine == [t for t in said if t.split()[1] == member.name]
        member.close()
    until(lambda: pool.sessions() == 0, within=10)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_workers_killed_under_load_with_thirty_members(start_pool, workers):
    pool = start_pool(workers=workers)
    roles = [f"w{n}" for n in range(workers)]
    storm(pool, crowd(pool, 30), kills=40, seed=workers, roles=roles)


def test_workers_acceptor_and_syncer_killed_in_any_order(start_pool):
    pool = start_pool(workers=2)
    storm(pool, crowd(pool, 12), 30, seed=4, roles=["w0", "w1", "acceptor", "syncer"])


def test_a_storm_of_kills_quarantines_nobody_and_leaks_nothing(start_pool):
    pool = start_pool(workers=2)
    members = crowd(pool, 6)
    pool.kill_and_wait("w0")
    before = descriptors(pool)
    for n in range(25):
        members[n % 6].say(f"message {n}")
        pool.kill_and_wait(f"w{n % 2}")
    read_all(members, lambda member: member.count() == 25)
    assert not pool.events("quarantined")
    assert descriptors(pool) <= before + 1
    check_streams(pool.log, members)
    for member in members:
        member.close()
    until(lambda: pool.sessions() == 0)
    assert descriptors(pool) <= before - 5


def descriptors(pool):
    return len(os.listdir(f"/proc/{pool.pid}/fd"))


@pytest.mark.soak
@pytest.mark.parametrize("workers", [2, 8])
def test_a_thousand_kills(start_pool, workers):
    pool = start_pool(workers=workers)
    roles = [f"w{n}" for n in range(workers)]
    storm(pool, crowd(pool, 60), 1000, seed=random.randrange(1 << 30), roles=roles)
