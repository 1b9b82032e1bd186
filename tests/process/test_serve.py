"""A room as its members see it."""

import secrets
import select
import socket
import time

import pytest
from harness import (
    ClassicMember,
    Member,
    Record,
    Refused,
    Wire,
    check_streams,
    proof,
    read_all,
    rendered,
    until,
)


def fill(pool, count, name="past"):
    """Put that many messages into the log."""
    with pool.join(name, last=0) as member:
        member.say(*(f"{name} {n}" for n in range(1, count + 1)))
        member.read_count(count)


# --- both dialects -------------------------------------------------------------------


def test_what_one_says_all_hear_also_the_one(pool):
    with pool.join("ann", last=0) as ann, pool.join("bob", last=0) as bob:
        with pool.join_classic() as carol:
            ann.say("hello")
            read_all([ann, bob, carol], lambda member: member.count() == 1)
            carol.say("höi")
            read_all([ann, bob, carol], lambda member: member.count() == 2)
            assert carol.lines() == ["ann: hello", "carol: höi"]
            check_streams(pool.log, [ann, bob, carol])
    assert pool.texts() == ["hello", "höi"]


def test_a_record_carries_seq_time_name_and_text(pool):
    before_s = time.time()
    with pool.join("Ольга", last=0) as member:
        member.say("привет\tмир")
        member.read_count(1)
        [record] = member.records()
    assert (record.seq, record.name, record.text) == (1, "Ольга", "привет\tмир")
    said_s = time.strptime(record.time[:19], "%Y-%m-%dT%H:%M:%S")
    assert time.gmtime(before_s - 1) <= said_s <= time.gmtime(time.time() + 1)


def test_a_classic_member_gets_the_last_seven_and_then_every_one(pool):
    fill(pool, 30)
    with pool.join_classic() as carol:
        assert carol.read_count(7) == [f"past: past {n}" for n in range(24, 31)]
        carol.say("new")
        assert carol.read_count(8)[7] == "carol: new"


def test_of_a_short_past_a_classic_member_gets_all(pool):
    fill(pool, 3)
    with pool.join_classic() as carol:
        assert carol.read_count(3) == ["past: past 1", "past: past 2", "past: past 3"]


def test_each_send_of_new_lines_ends_with_a_nul_as_the_original_client_needs(pool):
    fill(pool, 2)
    with pool.join_classic() as carol:
        carol.read_count(2)
        assert carol.received == b"past: past 1\npast: past 2\n"
        carol.say("one")
        carol.read_count(3)
        carol.say("two", "three")
        carol.read_count(5)
        assert carol.received[26:].startswith(b"carol: one\0carol: two")
        assert carol.received.endswith(b"carol: three\0")


def test_classic_lines_name_who_says_them_and_else_nobody(pool):
    with pool.join_classic() as carol:
        carol.send(b"dave: a\nno name\n: b\ntwo words: c\ndave: \ndave: d\r\n")
        carol.read_count(5)
    said = [(r.name, r.text) for r in map(Record.of, pool.log.splitlines(keepends=True))]
    assert said == [
        *[("dave", "a"), ("anonymous", "no name"), ("anonymous", ": b")],
        *[("anonymous", "two words: c"), ("dave", "d")],
    ]


@pytest.mark.parametrize(
    ("how", "first"),
    [
        ({"since": 0}, 1),
        ({"since": 60}, 61),
        ({"since": 149}, 150),
        ({"since": 150}, 151),
        ({"last": 0}, 151),
        ({"last": 1}, 150),
        ({"last": 99999}, 1),
        ({}, 51),
    ],
)
def test_a_member_reads_on_from_where_it_asks(pool, how, first):
    fill(pool, 150)
    with pool.join(**how) as member:
        assert member.head == 150
        member.say("new")
        member.read_text("new")
        assert [r.seq for r in member.records()] == list(range(first, 152))
        assert pool.log.endswith(member.stream)


def test_since_beyond_the_head_is_refused(pool):
    fill(pool, 3)
    with pytest.raises(Refused, match="since"):
        pool.join(since=4)
    with pool.join(since=3) as member:
        assert member.head == 3


def test_many_may_have_one_name(pool):
    with pool.join("ann", last=0) as one, pool.join("ann", last=0) as other:
        one.say("1")
        read_all([one, other], lambda member: member.count() == 1)
        other.say("2")
        read_all([one, other], lambda member: member.count() == 2)


# --- segments ------------------------------------------------------------------------


def test_a_key_in_two_segments_with_the_first_line_behind_it(pool):
    with Wire(pool.port) as wire:
        wire.send(pool.key[:50])
        assert not select.select([wire], [], [], 0.1)[0]
        wire.send(pool.key[50:] + b"dave: hi\ndave: he")
        wire.read_until(lambda: wire.received == b"dave: hi\0")
        wire.send(b"re\n")
        wire.read_until(lambda: wire.received == b"dave: hi\0dave: here\0")


def test_a_login_one_byte_a_segment(pool):
    hello = b"PAPAYA/2 ann " + secrets.token_hex(16).encode() + b" last=0"
    with Wire(pool.port) as wire:
        for byte in hello + b"\n":
            wire.send(bytes([byte]))
        theirs = wire.read_line()
        for byte in proof(pool.key, b"client", hello, theirs) + b"\nfirst\nsec":
            wire.send(bytes([byte]))
        wire.read_until(lambda: wire.received.endswith(b"\tann\tfirst\n"))
        wire.send(b"ond\n")
        wire.read_until(lambda: wire.received.endswith(b"\tann\tsecond\n"))
    assert pool.texts() == ["first", "second"]


def test_messages_in_the_segment_of_the_proof_are_said(pool):
    hello = b"PAPAYA/2 ann " + secrets.token_hex(16).encode() + b" last=0"
    with Wire(pool.port) as wire:
        wire.send(hello + b"\n")
        answer = proof(pool.key, b"client", hello, wire.read_line())
        wire.send(answer + b"\n" + b"".join(b"%d\n" % n for n in range(150)))
        wire.read_until(lambda: wire.received.endswith(b"\tann\t149\n"))
    assert pool.texts() == [str(n) for n in range(150)]


def test_one_send_of_200_messages_arrives_whole(pool):
    texts = [f"{n} {'x' * (n % 90)}" for n in range(200)]
    with pool.join("ann", last=0) as ann, pool.join_classic() as carol:
        ann.say(*texts)
        assert ann.read_count(200) == texts
        assert carol.read_count(200) == [f"ann: {text}" for text in texts]


def test_a_line_in_many_segments_is_one_message(pool):
    with pool.join("ann", last=0) as ann:
        for piece in (b"he", b"l", b"lo wor", b"ld\nnext\n"):
            ann.send(piece)
        assert ann.read_count(2) == ["hello world", "next"]


# --- the limits of a line ------------------------------------------------------------


def test_a_line_of_4096_bytes_is_a_message(pool):
    with pool.join("ann", last=0) as ann, pool.join_classic() as carol:
        ann.send(b"x" * 4096 + b"\r\n" + "é".encode() * 2048 + b"\n")
        assert ann.read_count(2) == ["x" * 4096, "é" * 2048]
        carol.read_count(2)
        assert carol.stream == rendered(pool.log)


def test_a_line_of_4097_bytes_is_refused_and_those_before_it_are_said(pool):
    with pool.join("ann", last=0) as ann, pool.join("bob", last=0) as bob:
        ann.say("before")
        ann.read_count(1)
        ann.send(b"x" * 4097 + b"\nafter\n")
        ann.read_to_end()
        assert ann.received.endswith(b"before\nERR too-long a line has at most 4096 bytes\n")
        bob.say("mine")
        bob.read_count(2)
    assert pool.texts() == ["before", "mine"]


def test_lines_of_which_nothing_is_left_are_no_messages(pool):
    with pool.join("ann", last=0) as ann:
        ann.send(b"\n\r\n\x1b\n\x01ping\nfirst\n\n\xe2\x80\xa8\nsecond\n")
        assert ann.read_count(2) == ["first", "second"]
    assert pool.texts() == ["first", "second"]


# --- ends ----------------------------------------------------------------------------


def test_who_half_closes_gets_everything_up_to_then_and_the_end(pool):
    with pool.join("ann", last=0) as ann, pool.join_classic() as carol:
        ann.send("".join(f"{n}\n" for n in range(1000)).encode() + b"no newline")
        ann.half_close()
        assert ann.read_to_end() == "fin"
        assert ann.texts() == [str(n) for n in range(1000)]
        assert ann.stream == pool.log
        carol.say("bye")
        carol.half_close()
        assert carol.read_to_end() == "fin"
        assert carol.lines()[-1] == "carol: bye"
    until(lambda: pool.sessions() == 0)


def test_who_half_closes_at_once_gets_the_past_it_asked_for(pool):
    fill(pool, 5000)
    with pool.join("ann", since=0) as ann:
        ann.half_close()
        assert ann.read_to_end() == "fin"
        assert ann.stream == pool.log


def test_a_last_line_without_its_newline_is_no_message(pool):
    with pool.join("ann", last=0) as ann, pool.join("bob", last=0) as bob:
        ann.send(b"whole\nhalf a li")
        ann.close()
        bob.read_count(1)
        until(lambda: pool.sessions() == 1)
        bob.say("end")
        assert bob.read_count(2) == ["whole", "end"]


def test_who_sends_and_closes_at_once_has_said_it(pool):
    for n in range(20):
        with pool.join(f"m{n}", last=0) as member:
            member.say(f"from {n}")
    until(lambda: len(pool.texts()) == 20)
    assert sorted(pool.texts()) == sorted(f"from {n}" for n in range(20))


def test_slots_are_used_again_and_none_is_lost(start_pool):
    pool = start_pool("--max-clients", "8")
    for _ in range(10):
        members = [until(lambda: admitted(pool)) for _ in range(8)]
        with pytest.raises(Refused, match="full"):
            pool.join()
        for n, member in enumerate(members):
            (member.close, member.reset, member.half_close)[n % 3]()
        for member in members:
            member.close()
    until(lambda: pool.sessions() == 0)


def admitted(pool):
    try:
        return pool.join(last=0)
    except Refused as refused:
        assert refused.args == ("full",)
        return None


# --- many ----------------------------------------------------------------------------


def test_20_senders_x_100_arrive_once_and_in_order(pool):
    """Each at its own pace; the ancestor needs one more message to wake a reader."""
    senders = [pool.join(f"s{n}", last=0) for n in range(20)]
    readers = [pool.join("r", last=0), pool.join_classic(), *senders]
    try:
        for round_ in range(20):
            for sender in senders:
                first = 5 * round_
                sender.say(*(f"{sender.name} {n}" for n in range(first, first + 5)))
        read_all(readers, lambda member: member.count() == 2000)
        check_streams(pool.log, readers)
        texts = pool.texts()
        for sender in senders:
            said = [text for text in texts if text.startswith(f"{sender.name} ")]
            assert said == [f"{sender.name} {n}" for n in range(100)]
    finally:
        for member in readers:
            member.close()


def test_a_thousand_log_in(start_pool):
    pool = start_pool(workers=2)
    with pool.join("first", last=0) as first:
        first.say("now")
        first.read_count(1)
    members = [
        ClassicMember(pool.port, pool.key) if n % 2 else Member(pool.port, pool.key, last=1)
        for n in range(1000)
    ]
    try:
        read_all(members, lambda member: member.count() == 1, within=30)
        assert pool.sessions() == 1000
        loads = [slot.sessions for slot in pool.board().workers]
        assert abs(loads[0] - loads[1]) <= 100, loads
        members[0].say("all of you")
        read_all(members, lambda member: member.count() == 2, within=30)
        check_streams(pool.log, members)
    finally:
        for member in members:
            member.close()
    until(lambda: pool.sessions() == 0, within=20)


def test_who_does_not_read_holds_up_nobody_and_gets_everything(pool):
    lazy = [pool.join("lazy", last=0, rcvbuf=4096), pool.join_classic(rcvbuf=4096)]
    with pool.join("ann", last=0) as ann:
        for _ in range(5):
            ann.say(*["x" * 4000] * 100)
            ann.read_count(ann.count() + 1)
        ann.read_count(500)
        read_all(lazy, lambda member: member.count() == 500, within=20)
        check_streams(pool.log, [ann, *lazy])
    for member in lazy:
        member.close()


def test_a_slow_reader_may_leave_in_the_middle(pool):
    with pool.join("ann", last=0) as ann:
        for leave in ("close", "reset", "half_close"):
            lazy = pool.join("lazy", last=0, rcvbuf=4096)
            ann.say(*["y" * 4000] * 200)
            ann.read_count(ann.count() + 1)
            getattr(lazy, leave)()
            if leave == "half_close":
                assert lazy.read_to_end() == "fin"
                assert lazy.stream in pool.log
            lazy.close()
        ann.read_count(600)
        until(lambda: pool.sessions() == 1)


# --- more than one address -----------------------------------------------------------


def test_two_addresses_are_one_room(start_pool):
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    pool = start_pool("--host", "127.0.0.1", "::1")
    with pool.join("ann", last=0) as ann:
        with Member(pool.port, pool.key, "bob", last=0, host="::1") as bob:
            bob.say("over there")
            ann.read_text("over there")
