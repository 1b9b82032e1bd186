"""A worker that is stopped, or waits: the one is replaced, the other is left alone."""

import fcntl
import signal
import time

import pytest
from harness import PORTABLE, check_streams, read_all, until

needs_exact_counts = pytest.mark.skipif(
    PORTABLE, reason="this path cannot resume a dead worker's connections"
)

STACK = ["^Current thread ", "^Thread ", "^  File ", "^$"]


@needs_exact_counts
def test_a_stopped_worker_says_where_it_is_and_its_members_go_on(start_pool):
    pool = start_pool(settings={"worker_deadline_s": 1.5})
    pool.expected = STACK
    members = [pool.join(f"m{n}", last=0) for n in range(4)] + [pool.join_classic()]
    try:
        pid = pool.kill("w0", signal.SIGSTOP)
        for n, member in enumerate(members):
            member.say(f"message {n}")
        pool.replaced("w0", pid)
        read_all(members, lambda member: member.count() == 5)
        check_streams(pool.log, members)
        assert pool.events("late")[0]["role"] == "w0"
        assert "worker.py" in pool.stderr  # the stack
        assert not pool.events("quarantined")
    finally:
        for member in members:
            member.close()


def test_those_of_another_worker_notice_nothing(start_pool):
    pool = start_pool()
    one, other = pool.join("ann", last=0), pool.join("bob", last=0)
    with one, other:
        owners = {slot.incarnation: slot.number for slot in pool.board().workers}
        held = {s.name: owners[s.owner] for s in pool.board().sessions()}
        assert held["ann"] != held["bob"]
        pool.kill(f"w{held['ann']}", signal.SIGSTOP)
        for n in range(100):
            other.say(f"message {n}")
        other.read_count(100)
        pool.kill(f"w{held['ann']}", signal.SIGCONT)
        one.read_count(100)
        check_streams(pool.log, [one, other])


@pytest.mark.parametrize("kind", [fcntl.LOCK_EX, fcntl.LOCK_SH], ids=["flock -x", "flock -s"])
def test_somebody_elses_lock_delays_messages_and_nothing_else(start_pool, kind):
    """Longer than a deadline: nobody is killed, all are admitted, nothing is lost."""
    pool = start_pool(settings={"worker_deadline_s": 1.5})
    members = [pool.join(f"m{n}", last=0) for n in range(4)] + [pool.join_classic()]
    try:
        members[0].say("before")
        read_all(members, lambda member: member.count() == 1)
        pids = pool.pids()
        with open(pool.log_path) as log:
            fcntl.flock(log, kind)
            for member in members:
                member.say(*(f"{member.name} {n}" for n in range(100)))
            until(lambda: all(s.input_read > s.input_taken for s in pool.board().sessions()))
            late = pool.join("late", since=0)
            members.append(late)
            waited = time.monotonic() + 2.0
            until(lambda: time.monotonic() > waited)
            assert pool.texts() == ["before"]
            assert pool.pids() == pids
        read_all(members, lambda member: member.count() == 501)
        check_streams(pool.log, members)
        for member in members[:-1]:
            said = [t for t in pool.texts() if t.startswith(f"{member.name} ")]
            assert said == [f"{member.name} {n}" for n in range(100)]
    finally:
        for member in members:
            member.close()


def test_who_leaves_while_the_log_is_locked_has_said_it_all_the_same(pool):
    with pool.join("bob", last=0) as bob:
        with open(pool.log_path) as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            for leave in ("close", "reset", "half_close"):
                with pool.join("ann", last=0) as ann:
                    ann.say(f"then {leave}")
                    until(lambda: all_read(pool))
                    getattr(ann, leave)()
        bob.read_count(3)
        assert {"then close", "then reset", "then half_close"} == set(bob.texts())
        until(lambda: pool.sessions() == 1)


def all_read(pool):
    return all(s.input_read > s.input_taken for s in pool.board().sessions() if s.name == "ann")


@needs_exact_counts
def test_all_workers_stopped_at_once_are_replaced(start_pool):
    pool = start_pool(settings={"worker_deadline_s": 1.5})
    pool.expected = STACK
    with pool.join("ann", last=0) as ann, pool.join("bob", last=0) as bob:
        pids = pool.pids()
        for role in ("w0", "w1"):
            pool.kill(role, signal.SIGSTOP)
        ann.say("from ann")
        bob.say("from bob")
        for role in ("w0", "w1"):
            pool.replaced(role, pids[role])
        assert sorted(ann.read_count(2)) == ["from ann", "from bob"]
        bob.read_count(2)
        check_streams(pool.log, [ann, bob])
