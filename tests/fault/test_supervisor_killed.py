"""The supervisor may die: members chat on, and the next one takes everybody over."""

import signal
import socket

import pytest
from harness import check_streams, read_all, until


@pytest.fixture
def crowd(pool):
    members = [pool.join(f"m{n}", last=0) for n in range(4)]
    members += [pool.join_classic(name=f"c{n}") for n in range(4)]
    members.append(pool.join("slow", last=0, rcvbuf=4096))
    until(lambda: pool.sessions() == len(members))
    yield pool, members
    for member in members:
        member.close()


def talk(members, said, rounds=1):
    for _ in range(rounds):
        for member in members:
            member.say(f"message {len(said)}")
            said.append(f"message {len(said)}")


def heard(pool, members, said):
    read_all(members, lambda member: member.count() == len(said), within=20)
    assert sorted(pool.texts()) == sorted(said)
    check_streams(pool.log, members)


def kill_supervisor(pool):
    pool.kill("super")
    pool.process.wait()


def test_members_chat_on_without_it(crowd):
    pool, members = crowd
    said = []
    kill_supervisor(pool)
    talk(members, said, 20)
    heard(pool, members, said)
    pool.take_over()


def test_the_next_one_takes_all_sessions_over_and_the_port(crowd):
    pool, members = crowd
    said, port = [], pool.port
    for _ in range(3):
        talk(members, said, 3)
        kill_supervisor(pool)
        talk(members, said, 3)
        pool.take_over()
        assert pool.port == port
        talk(members, said, 3)
        heard(pool, members, said)
        until(lambda: not pool.orphans())
        assert pool.sessions() == len(members)
    with pool.join("late", since=0) as late:
        late.read_count(len(said))


def test_who_comes_while_there_is_none_is_let_in_by_the_next(crowd):
    pool, members = crowd
    said = ["hello"]
    kill_supervisor(pool)
    wires = [socket.create_connection(("127.0.0.1", pool.port)) for _ in range(5)]
    pool.take_over()
    for wire in wires:
        wire.close()
    late = until(lambda: pool.join("late", last=0))
    members.append(late)
    late.say("hello")
    talk(members, said)
    heard(pool, members, said)


def test_a_slow_reader_in_the_middle_of_a_backlog_is_taken_over_at_the_exact_byte(crowd):
    pool, members = crowd
    slow = pool.join("slower", last=0, rcvbuf=4096)
    carol = pool.join_classic(rcvbuf=4096)
    with slow, carol:
        said = [f"{n} {'x' * 3000}" for n in range(300)]
        for text in said:
            members[0].say(text)
        read_all([members[0]], lambda member: member.count() == 300)
        kill_supervisor(pool)
        pool.take_over()
        members += [slow, carol]
        heard(pool, members, said)


def test_half_a_line_before_and_half_after_are_one_message(crowd):
    pool, members = crowd
    members[0].send(b"half and ")
    kill_supervisor(pool)
    pool.take_over()
    members[0].send(b"half\n")
    heard(pool, members, ["half and half"])


def test_all_of_it_killed_at_once_is_a_cold_start(crowd):
    """More than two faults at once: members come back, and what was said stands."""
    pool, members = crowd
    said = []
    talk(members, said)
    heard(pool, members, said)
    pool.end()
    for member in members:
        member.read_to_end()
    pool.start()
    texts = pool.texts()
    assert sorted(texts) == sorted(said)
    with pool.join("back", since=5) as back:
        assert back.read_count(len(said) - 5) == texts[5:]


def test_a_hung_supervisor_hangs_nobody(crowd):
    pool, members = crowd
    said = []
    pool.kill("super", signal.SIGSTOP)
    talk(members, said, 20)
    heard(pool, members, said)
    pool.kill("super", signal.SIGCONT)


def test_orphans_can_be_stopped_by_a_start_and_a_stop(crowd):
    pool, members = crowd
    kill_supervisor(pool)
    pool.take_over()
    pool.stop()
    for member in members:
        assert member.read_to_end() == "fin"
