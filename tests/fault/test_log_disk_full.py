"""A disk that takes no more: senders wait, readers read on, nothing is lost or torn.

The limit on a file's size stands in for the disk.  It can be lowered and raised while
the pool runs, and write() then fails as on a full disk: first short, then not at all.
"""

import resource

import pytest
from harness import check_streams, read_all, until


class Disk:
    """The workers' limit on the size of a file."""

    def __init__(self, pool):
        self._pool = pool

    def fill(self, room_bytes):
        self._set(len(self._pool.log) + room_bytes)

    def free(self):
        self._set(resource.RLIM_INFINITY)

    def _set(self, size):
        for pid in [self._pool.pid, *self._pool.worker_pids()]:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def pool(start_pool):
    return start_pool(settings={"stop_s": 0.5})


BEFORE = ["before" * 500] * 20


@pytest.fixture
def disk(pool):
    # stderr is a file, too, and must not be the one that is full.
    with pool.join("past", last=0) as past:
        past.say(*BEFORE)
        past.read_count(len(BEFORE))
    full = Disk(pool)
    yield full
    if pool.process is not None:
        full.free()


@pytest.mark.parametrize("room_bytes", [0, 1, 41, 42, 43, 100, 5000])
def test_what_does_not_fit_waits_and_is_said_later(pool, disk, room_bytes):
    members = [pool.join("ann", last=0), pool.join("bob", last=0), pool.join_classic()]
    ann, bob, carol = members
    try:
        carol.read_count(7)
        disk.fill(room_bytes)
        for n in range(200):
            ann.say(f"ann {n}")
            carol.say(f"carol {n}")
        until(lambda: pool.events("log-refused"))
        whole = pool.log
        with pool.join("late", since=0) as late:
            late.read_until(lambda: late.stream.startswith(whole[: whole.rfind(b"\n") + 1]))
            assert len(late.stream) <= len(whole)
        disk.free()
        read_all(members, lambda member: b"ann 199" in member.stream)
        read_all(members, lambda member: b"carol 199" in member.stream)
        check_streams(pool.log, members)
        said = [f"{who} {n}" for n in range(200) for who in ("ann", "carol")]
        assert sorted(pool.texts()[len(BEFORE) :]) == sorted(said)
        until(lambda: pool.events("log-resumed"))
        assert len(pool.events("log-refused")) == len(pool.events("log-resumed")) == 1
    finally:
        for member in members:
            member.close()


def test_it_fills_up_again_and_again(pool, disk):
    with pool.join("ann", last=0) as ann:
        for n in range(10):
            disk.fill(n)
            ann.say(f"message {n}")
            until(lambda n=n: len(pool.events("log-refused")) == n + 1)
            disk.free()
            ann.read_count(n + 1)
        assert pool.texts()[len(BEFORE) :] == [f"message {n}" for n in range(10)]


def test_who_leaves_while_the_disk_is_full_has_said_it_all_the_same(pool, disk):
    with pool.join("bob", last=0) as bob:
        disk.fill(3)
        for leave in ("close", "reset", "half_close"):
            ann = pool.join("ann", last=0)
            ann.say(f"then {leave}")
            until(lambda: pool.events("log-refused"))
            until(lambda: taken_in(pool))
            getattr(ann, leave)()
            ann.close()
        disk.free()
        assert sorted(bob.read_count(3)) == ["then close", "then half_close", "then reset"]
        until(lambda: pool.sessions() == 1)


def taken_in(pool):
    """Whether what was sent has been read from every socket into its ring."""
    return all(s.input_read > s.input_taken for s in pool.board().sessions() if s.name == "ann")


def test_a_stop_while_the_disk_is_full_leaves_no_half_line(pool, disk):
    with pool.join("ann", last=0) as ann:
        ann.say("kept")
        ann.read_count(1)
        disk.fill(10)
        ann.say("may be lost")
        until(lambda: pool.events("log-refused"))
        pool.stop()
    assert pool.texts() == [*BEFORE, "kept"]
    pool.start()
    with pool.join("ann", since=len(BEFORE)) as ann:
        ann.say("next")
        assert ann.read_count(2) == ["kept", "next"]


def test_senders_are_held_back_and_take_no_memory(pool, disk):
    with pool.join("ann", last=0) as ann, pool.join("bob", last=0) as bob:
        disk.fill(0)
        ann.conn.settimeout(0.3)
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                ann.say(f"{sent} {'x' * 1000}")
                sent += 1
        # The last line may have gone in part: it is no message until its newline comes.
        disk.free()
        bob.read_until(lambda: bob.count() >= sent, within=20)
    assert pool.texts()[len(BEFORE) : len(BEFORE) + sent] == [f"{n} {'x' * 1000}" for n in range(sent)]
