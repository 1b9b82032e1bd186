"""The classic dialect as a link: a newline may be a NUL, and seven lines come again."""

import pytest

from papaya_pool.client import link
from papaya_pool.client.classic import ClassicLink, Past

KEY = "ab" * 64


def stamp():
    return b"2026-11-22T20:00:00.000Z"


def heard(client, data):
    effects = client.receive(data)
    return [line.split(b"\t", 2)[2] for e in effects for line in e.lines]


def test_the_key_goes_first_and_there_is_no_answer_to_wait_for():
    client = ClassicLink(KEY, Past(stamp))
    assert client.begin() == [link.Send(KEY.encode()), link.Joined(0, "classic", None)]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_newline_that_comes_as_a_nul_is_one(size):
    client = ClassicLink(KEY, Past(stamp))
    client.begin()
    data = b"ann: one\nbob: two: three\0no name here\n\0"
    got = []
    for at in range(0, len(data), size):
        got += heard(client, data[at : at + size])
    assert got == [b"ann\tone", b"bob\ttwo: three", b"anonymous\tno name here"]


def test_the_last_seven_that_come_again_are_not_shown_again():
    past = Past(stamp)
    first = ClassicLink(KEY, past)
    first.begin()
    heard(first, b"".join(b"a: %d\n" % n for n in range(10)))
    again = ClassicLink(KEY, past)
    assert again.begin()[1] == link.Joined(10, "classic", None)
    assert heard(again, b"".join(b"a: %d\n" % n for n in range(5, 12))) == [
        b"a\t10",
        b"a\t11",
    ]
    assert past.seq == 12


def test_new_messages_after_a_long_absence_are_all_shown():
    past = Past(stamp)
    first = ClassicLink(KEY, past)
    first.begin()
    heard(first, b"a: 1\na: 2\n")
    again = ClassicLink(KEY, past)
    again.begin()
    assert heard(again, b"b: 1\na: 2\n") == [b"b\t1", b"a\t2"]


def test_a_close_without_a_word_is_a_refusal():
    client = ClassicLink(KEY, Past(stamp))
    client.begin()
    (effect,) = client.receive_end()
    assert effect.code == "auth"
    assert client.receive(b"late\n") == client.receive_end() == []


def test_a_pool_that_does_not_speak_it_says_so():
    client = ClassicLink(KEY, Past(stamp))
    client.begin()
    effect = client.receive(b"ERR version not allowed: here\n")[0]
    assert effect == link.Refused("version", "not allowed: here")


def test_control_bytes_do_not_get_through():
    client = ClassicLink(KEY, Past(stamp))
    client.begin()
    assert heard(client, b"a: \x1b[2Jx\r\n") == [b"a\t[2Jx"]
