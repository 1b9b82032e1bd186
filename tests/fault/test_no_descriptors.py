"""Out of descriptors: strangers are told, members chat on, and nothing spins."""

import resource
import time

import pytest
from harness import PORTABLE, ClassicMember, Refused, Wire, check_streams, read_all, until


def test_200_who_try_at_a_limit_of_64_are_told_and_cost_little(start_pool):
    pool = start_pool(limits={"NOFILE": 64}, settings={"login_deadline_s": 2.0})
    members = [pool.join("ann", last=0), pool.join_classic(), pool.join("bob", last=0)]
    wires = []
    try:
        for _ in range(200):
            wires.append(Wire(pool.port))
        told = time.monotonic()
        used = pool.cpu_s()
        for n in range(20):
            members[n % 3].say(f"message {n}")
            read_all(members, lambda member, n=n: member.count() == n + 1)
        until(lambda: time.monotonic() > told + 1.0)
        # A loop that spins would have used all of a second; this is a bound, no measure.
        assert pool.cpu_s() - used < 0.5
        told = [wire for wire in wires if wire.read() and wire.received]
        assert all(wire.received.startswith((b"ERR full ", b"ERR timeout ")) for wire in told)
        for wire in wires:
            wire.close()
        members.append(until(lambda: admitted(pool), within=10))
        members[-1].say("let in again")
        for member in members:
            member.read_text("let in again")
        check_streams(pool.log, members)
    finally:
        for one in (*members, *wires):
            one.close()


def admitted(pool):
    try:
        return pool.join("late", last=0)
    except (Refused, ConnectionError, AssertionError):
        return None


def test_as_many_as_fit_are_let_in_and_the_rest_told(start_pool):
    pool = start_pool("--max-clients", "1000", limits={"NOFILE": 64})
    members = []
    try:
        with pytest.raises(Refused, match="full|busy"):
            for n in range(100):
                members.append(pool.join(f"m{n}", last=0))
        assert len(members) >= 10
        members[0].say("to all of you")
        read_all(members, lambda member: member.count() == 1)
    finally:
        for member in members:
            member.close()


def test_a_worker_killed_at_the_limit_is_replaced_all_the_same(start_pool):
    pool = start_pool(limits={"NOFILE": 64})
    members = []
    try:
        with pytest.raises(Refused):
            for n in range(100):
                members.append(pool.join(f"m{n}", last=0))
        for role in ("w0", "w1", "acceptor"):
            pool.kill_and_wait(role)
        if PORTABLE:  # the members of the dead are gone there
            with until(lambda: admitted(pool)) as member:
                member.say("on")
                member.read_text("on")
        else:
            members[0].say("on")
            read_all(members, lambda member: member.count() == 1)
            check_streams(pool.log, members)
    finally:
        for member in members:
            member.close()


def test_a_worker_without_descriptors_gets_its_members_later(start_pool):
    """A handoff that it cannot take is lost silently (MSG_CTRUNC), and sent again."""
    pool = start_pool(workers=1)
    with pool.join("ann", last=0) as ann, ClassicMember(pool.port, b"") as carol:
        [worker] = pool.worker_pids()
        limit = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (1, limit[1]))
        carol.send(pool.key)
        until(lambda: pool.sessions() == 2)
        ann.say("one")
        ann.read_count(1)
        assert not carol.read()
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limit)
        carol.say("two")
        ann.read_count(2)
        carol.read_until(lambda: b"carol: two" in carol.stream)
