"""Members are moved between workers, alive, and do not notice."""

import json

import pytest
from harness import PORTABLE, check_streams, read_all, until

SIZE = 24


@pytest.fixture
def crowd(start_pool):
    """(pool of four workers, members of both dialects, some that read slowly)."""
    pool = start_pool(workers=4)
    members = []
    for n in range(SIZE):
        small = {"rcvbuf": 4096} if n % 5 == 0 else {}
        if n % 2:
            members.append(pool.join_classic(name=f"c{n}", **small))
        else:
            members.append(pool.join(f"m{n}", last=0, **small))
    until(lambda: pool.sessions() == SIZE)
    yield pool, members
    for member in members:
        member.close()


def loads(pool):
    return [slot.sessions for slot in pool.board().workers]


def done(pool, *words):
    code, said = pool.ctl(*words)
    assert code == 0, said
    return said


def talk(members, said, rounds=1):
    for _ in range(rounds):
        for member in members:
            member.say(f"message {len(said)}")
            said.append(f"message {len(said)}")


def heard(pool, members, said):
    read_all(members, lambda member: member.count() == len(said), within=20)
    assert sorted(pool.texts()) == sorted(said)
    check_streams(pool.log, members)


def test_drained_and_rebalanced_under_load_nobody_loses_a_byte(crowd):
    pool, members = crowd
    said = []
    for _ in range(2):
        for worker in range(4):
            talk(members, said, 3)
            done(pool, "drain", worker)
            assert loads(pool)[worker] == 0
            talk(members, said, 3)
            done(pool, "rebalance")
            talk(members, said, 1)
            until(lambda: max(loads(pool)) - min(loads(pool)) <= 1)
    heard(pool, members, said)
    assert not pool.events("reaped")


def test_a_drained_worker_gets_nobody_until_the_rebalance(crowd):
    pool, members = crowd
    done(pool, "drain", "w1")
    more = [pool.join(f"late{n}", last=0) for n in range(8)]
    members += more
    until(lambda: sum(loads(pool)) == SIZE + 8)
    assert loads(pool)[1] == 0
    done(pool, "rebalance")
    until(lambda: max(loads(pool)) - min(loads(pool)) <= 1)
    assert sum(loads(pool)) == SIZE + 8


def test_all_but_one_can_be_drained_and_the_last_cannot(crowd):
    pool, members = crowd
    said = []
    for worker in (0, 1, 2):
        done(pool, "drain", worker)
    assert loads(pool) == [0, 0, 0, SIZE]
    assert pool.ctl("drain", 3)[0] == 1
    talk(members, said)
    heard(pool, members, said)


@pytest.mark.skipif(PORTABLE, reason="this path cannot resume a dead worker's connections")
def test_workers_killed_while_members_move(crowd):
    pool, members = crowd
    said = []
    for n in range(8):
        talk(members, said, 2)
        worker = n % 4
        pool.kill(f"w{(worker + n // 4) % 4}")  # at first the giver, then a taker
        done(pool, "drain", worker)
        talk(members, said, 1)
        pool.kill(f"w{(worker + 1) % 4}")
        done(pool, "rebalance")
    heard(pool, members, said)


@pytest.mark.skipif(PORTABLE, reason="this path cannot resume a dead worker's connections")
def test_all_workers_recycled_one_by_one(crowd):
    pool, members = crowd
    said = []
    before = pool.worker_pids()
    talk(members, said, 2)
    done(pool, "recycle")
    talk(members, said, 2)
    heard(pool, members, said)
    assert not set(before) & set(pool.worker_pids())


def test_a_kicked_member_is_told_so_and_the_others_stay(crowd):
    pool, members = crowd
    said = []
    talk(members, said)
    heard(pool, members, said)
    done(pool, "kick", "m2")
    [kicked] = [member for member in members if member.name == "m2"]
    kicked.read_to_end()
    assert kicked.received.endswith(b"ERR kicked by the administrator\n")
    members.remove(kicked)
    kicked.close()
    talk(members, said)
    heard(pool, members, said)


def test_who_is_in_can_be_asked(crowd):
    pool, _ = crowd
    answer = json.loads(done(pool, "--json", "who"))
    text = json.dumps(answer)
    assert '"m0"' in text
    assert text.count("classic") >= SIZE // 2


def test_a_paused_door_lets_nobody_in_and_members_chat_on(crowd):
    pool, members = crowd
    said = []
    done(pool, "pause")
    with pytest.raises(ConnectionRefusedError):
        pool.join("late")
    talk(members, said)
    heard(pool, members, said)
    done(pool, "resume")
    members.append(until(lambda: pool.join("late", since=0)))
    talk(members, said)
    heard(pool, members, said)
