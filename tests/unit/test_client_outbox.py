"""What was said is sent once: the outbox against a server that is cut at random."""

import random

import pytest

from papaya_pool import records
from papaya_pool.client.outbox import KEEP, Outbox, sayable

WHEN = "2026-11-22T20:00:00.000Z"


def record(seq, text, name="ann"):
    return records.Record(seq, WHEN, name, text)


def test_a_line_is_pending_until_it_comes_back():
    box = Outbox("ann")
    box.say(b"hi")
    box.joined(None)
    assert box.unsent(head=5) == b"hi\n"
    assert box.pending == ["hi"]
    assert not box.came(record(5, "hi"))  # said before we sent it
    assert not box.came(record(6, "hi", "bob"))
    assert not box.came(record(7, "ho"))
    assert box.came(record(8, "hi", "ANN"))
    assert box.pending == []


def test_what_the_server_dealt_with_is_not_sent_again():
    box = Outbox("ann")
    box.joined(None)
    for text in (b"a", b"b", b"c"):
        box.say(text)
    assert box.unsent(0) == b"a\nb\nc\n"
    box.joined(2)
    assert box.unsent(9) == b"c\n"
    assert not box.came(record(8, "c"))  # another's, from before this connection
    assert box.came(record(10, "c"))


def test_the_servers_count_wins_over_a_message_that_looked_like_ours():
    box = Outbox("ann")
    box.joined(None)
    box.say(b"hi")
    box.unsent(0)
    assert box.came(record(1, "hi"))  # said by another client of the same name
    box.joined(0)
    assert box.unsent(1) == b"hi\n"


def test_a_server_that_forgot_gets_what_is_not_in_the_log():
    box = Outbox("ann")
    box.joined(None)
    for text in (b"a", b"b", b"c"):
        box.say(text)
    box.unsent(0)
    box.joined(None)
    assert not box.settled
    assert box.unsent(9) == b""  # not before the log was read up to its head
    assert box.came(record(3, "a"))
    box.settle()
    assert box.unsent(3) == b"b\nc\n"
    box.came(record(4, "b"))
    box.joined(1)  # it counts from 0 again: "b" is its first
    assert box.unsent(4) == b"c\n"


def test_being_cut_off_while_it_is_unsettled_changes_nothing():
    box = Outbox("ann")
    box.joined(None)
    box.say(b"a")
    box.unsent(0)
    box.joined(None)
    box.say(b"later")
    box.joined(0)  # the token is known now, with no line under it
    assert box.came(record(1, "a"))
    assert not box.came(record(2, "later"))  # never sent: somebody else's
    box.settle()
    assert box.unsent(2) == b"later\n"


def test_classic_gives_up_what_was_cut_off_and_finds_lines_out_of_order():
    box = Outbox("ann", classic=True)
    for text in (b"a", b"b", b"c"):
        box.say(text)
    assert box.unsent(0) == b"ann: a\nann: b\nann: c\n"
    assert box.came(record(1, "b"))
    assert box.pending == ["a", "c"]
    assert box.give_up_sent() == 2
    box.say(b"d")
    assert box.unsent(1) == b"ann: d\n"


def test_lines_that_came_back_are_forgotten_in_the_end():
    box = Outbox("ann")
    box.joined(None)
    for n in range(5 * KEEP):
        box.say(b"%d" % n)
        box.unsent(n)
        assert box.came(record(n + 1, str(n)))
    assert len(box._lines) <= 2 * KEEP
    box.joined(5 * KEEP)
    box.say(b"next")
    assert box.unsent(5 * KEEP) == b"next\n"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain\ttab", b"plain\ttab"),
        (b"\x1b[31mred\x07\r", b"[31mred"),
        (b"\xff\xfe", b"\xef\xbf\xbd\xef\xbf\xbd"),
        (b"a\xc2\x9bb\xe2\x80\xa8c", b"abc"),
        (b"\r", b""),
    ],
)
def test_what_is_sent_is_what_the_server_would_have_made_of_it(raw, text):
    assert sayable(raw) == text
    assert records.take(text + b"\n").texts == ([text] if text else [])


class Server:
    """A pool's memory of one member: its log, and the count under its token."""

    def __init__(self):
        self.log, self.taken, self.queue = [], None, b""

    def receive(self, data):
        self.queue += data
        whole, _, self.queue = self.queue.rpartition(b"\n")
        for line in whole.split(b"\n") if whole else []:
            self.taken = (self.taken or 0) + 1
            self.log.append(line.decode())


@pytest.mark.parametrize("seed", range(150))
def test_cut_anywhere_every_line_is_in_the_log_once(seed):
    """Also with lines of the same words, and a server that forgets its tokens."""
    dice = random.Random(seed)
    server, box, position = Server(), Outbox("ann"), 0
    said = [f"line {dice.randrange(6)}-{n}" for n in range(30)]
    to_say = list(said)
    while to_say or box.pending_count:
        forgets = dice.random() < 0.2
        taken, server.queue = (None if forgets else server.taken), b""
        if forgets or server.taken is None:
            server.taken = 0
        box.joined(taken)
        head = len(server.log)
        for _ in range(dice.randrange(8)):  # this connection's life
            while position < len(server.log) and dice.random() < 0.8:
                position += 1
                box.came(record(position, server.log[position - 1]))
            if position >= head:
                box.settle()
            if to_say and dice.random() < 0.5:
                box.say(to_say.pop(0).encode())
            data = box.unsent(head)
            kept = len(data) if dice.random() < 0.6 else dice.randrange(len(data) + 1)
            server.receive(data[:kept])
            if kept < len(data):
                break  # cut, in the middle of a line or between two
    assert server.log == said


def test_all_is_sent_only_when_the_last_line_has_left():
    box = Outbox("ann")
    box.joined(None)
    for _ in range(3):
        box.say(b"x" * 100)
    assert not box.all_sent
    assert len(box.unsent(0, size_bytes=150)) == 202
    assert not box.all_sent
    box.unsent(0)
    assert box.all_sent
