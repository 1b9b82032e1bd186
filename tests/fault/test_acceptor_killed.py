"""The acceptor may die at any moment: members notice nothing, strangers try again."""

import signal

import pytest
from harness import ClassicMember, Member, Refused, check_streams, read_all, until
from seams import lines_of

ADMISSION = [
    *["acceptor.Acceptor._admit", "acceptor.Acceptor._send_to_keep"],
    *["acceptor.Acceptor._fill", "acceptor.Acceptor._obey", "acceptor.Acceptor._seat"],
    *["acceptor.Acceptor._least_loaded", "acceptor.Acceptor._drop_seated"],
    "scoreboard.Scoreboard.claim",
]


def test_members_do_not_notice(pool):
    with pool.join("ann", last=0) as ann, pool.join_classic() as carol:
        for n in range(10):
            ann.say(f"ann {n}")
            pool.kill_and_wait("acceptor")
            carol.say(f"carol {n}")
        read_all([ann, carol], lambda member: member.count() == 20)
        check_streams(pool.log, [ann, carol])


def test_who_waits_in_the_listeners_queue_is_let_in_by_the_next_one(pool):
    pid = pool.kill("acceptor", signal.SIGSTOP)
    waiting = [ClassicMember(pool.port, pool.key, name=f"c{n}") for n in range(50)]
    try:
        for member in waiting:
            member.say("hello")
        pool.kill("acceptor")
        pool.replaced("acceptor", pid)
        read_all(waiting, lambda member: member.count() == 50)
        check_streams(pool.log, waiting)
    finally:
        for member in waiting:
            member.close()


def test_one_that_hangs_is_replaced(start_pool):
    pool = start_pool(settings={"worker_deadline_s": 1.5})
    with pool.join("ann", last=0) as ann:
        pid = pool.kill("acceptor", signal.SIGSTOP)
        ann.say("meanwhile")
        ann.read_count(1)
        pool.replaced("acceptor", pid)
        with pool.join("bob", last=0) as bob:
            bob.say("in again")
            ann.read_text("in again")


@pytest.mark.parametrize("name", ADMISSION)
def test_an_acceptor_killed_at_any_line_of(start_pool, name):
    """Who got an OK is in and stays in; who got none may try again; no slot is lost."""
    pool = start_pool("--max-clients", "4", seam=f"lines:{name}")
    with pool.join("ann", last=0) as ann:
        said = killed = 0
        for line in lines_of(name):
            pid = until(lambda: pool.pids().get("acceptor"))
            pool.arm(function=name, line=line)
            for _ in range(2):
                with until(lambda: join(pool), within=10) as member:
                    member.say(f"message {said}")
                    said += 1
                    member.read_count(1)
            if not pool.armed:
                killed += 1
                pool.replaced("acceptor", pid)
            pool.disarm()
        ann.read_count(said)
        assert killed * 3 >= len(lines_of(name)), (killed, lines_of(name))
        until(lambda: pool.sessions() == 1)
        # Every place but ann's is free again.
        members = [until(lambda: join(pool), within=10) for _ in range(3)]
        for member in members:
            member.close()
        assert pool.texts() == [f"message {n}" for n in range(said)]


def join(pool):
    try:
        return Member(pool.port, pool.key, "bob", last=0)
    except (AssertionError, ConnectionError, Refused):
        return None
