"""The client's half of a login and of a live stream: bytes in, effects out."""

import hashlib
import hmac

import pytest

from papaya_pool.client import link
from papaya_pool.client.link import Broken, Joined, Lines, Link, Refused, Send

KEY = link.secret("ab" * 64)
HELLO = "PAPAYA/2 ann " + "0" * 32 + " last=0"
SERVER = b"PAPAYA/2 " + b"5e" * 16
RECORD = b"1\t2026-11-22T20:00:00.000Z\tann\thi"


def signed(who, extra=b""):
    text = b"papaya/2 " + who + b"\n" + HELLO.encode() + b"\n" + SERVER + b"\n" + extra
    return hmac.new(KEY, text, hashlib.sha256).hexdigest().encode()


def ok(proof=None, rest=b" head=7 log=0123456789abcdef"):
    return b"OK " + (proof or signed(b"server")) + rest + b"\n"


def conversation(data, size=None):
    """What comes of the server's bytes, all at once or `size` at a time."""
    client = Link(KEY, HELLO)
    effects = client.begin()
    for at in range(0, len(data), size or len(data)):
        effects += client.receive(data[at : at + (size or len(data))])
    return client, effects


def test_k_is_the_hex_of_the_keys_hash():
    assert link.secret("ab" * 64) == hashlib.sha256(b"ab" * 64).hexdigest().encode()


@pytest.mark.parametrize("size", [None, 1, 2, 3, 7, 64])
def test_a_login_is_the_same_however_the_bytes_are_cut(size):
    data = SERVER + b"\n" + ok() + RECORD + b"\n" + RECORD + b"\n"
    client, effects = conversation(data, size)
    lines = [line for e in effects if isinstance(e, Lines) for line in e.lines]
    assert effects[:3] == [
        Send(HELLO.encode() + b"\n"),
        Send(signed(b"client") + b"\n"),
        Joined(7, "0123456789abcdef", None),
    ]
    assert lines == [RECORD, RECORD]
    assert client.state == link.LIVE


@pytest.mark.parametrize(
    ("rest", "taken"), [(b" taken=12", 12), (b" taken=?", None), (b" taken=0 new=1", 0)]
)
def test_taken_is_how_many_lines_the_server_dealt_with(rest, taken):
    answer = ok(rest=b" head=7 log=0123456789abcdef" + rest)
    _, effects = conversation(SERVER + b"\n" + answer)
    assert effects[-1] == Joined(7, "0123456789abcdef", taken)


def test_the_servers_certificate_is_in_both_proofs():
    bound = b"server-cert-sha256 " + hashlib.sha256(b"DER").hexdigest().encode() + b"\n"
    client = Link(KEY, HELLO, b"DER")
    client.begin()
    assert client.receive(SERVER + b"\n") == [Send(signed(b"client", bound) + b"\n")]
    plain = Link(KEY, HELLO, b"DER")
    plain.receive(SERVER + b"\n" + ok())  # signed without it: a man in the middle
    assert plain.state == link.OVER
    client.receive(ok(signed(b"server", bound)))
    assert client.state == link.LIVE


def test_a_server_that_does_not_know_the_key_is_not_believed():
    client, effects = conversation(SERVER + b"\n" + ok(b"0" * 64) + RECORD + b"\n")
    assert [type(e) for e in effects] == [Send, Send, Refused]
    assert effects[-1].code == link.UNPROVEN
    assert client.receive(b"more\n") == []


@pytest.mark.parametrize("before", [b"", SERVER + b"\n", SERVER + b"\n" + ok()])
def test_err_is_the_last_word_in_every_state(before):
    client, effects = conversation(before + b"ERR kicked by the admin\n")
    assert effects[-1] == Refused("kicked", "by the admin")
    assert client.state == link.OVER
    assert client.receive_end() == []


def test_what_was_said_before_the_last_word_is_shown():
    data = SERVER + b"\n" + ok() + RECORD + b"\nERR closing\n"
    assert conversation(data)[1][-2:] == [Lines([RECORD]), Refused("closing", "")]


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"PAPAYA/2 short\n",
        b"x" * 600,
    ],
)
def test_who_is_no_pool_is_told_from_a_pool_that_stumbles(data):
    assert conversation(data)[1][-1] == Broken(link.NO_POOL, hopeless=True)


@pytest.mark.parametrize("answer", [b"OK\n", b"OK 0 head=1\n", b"hello\n", b"y" * 600])
def test_an_answer_that_makes_no_sense_ends_it(answer):
    effect = conversation(SERVER + b"\n" + answer)[1][-1]
    assert isinstance(effect, Broken)


def test_an_endless_line_is_no_log():
    effect = conversation(SERVER + b"\n" + ok() + b"z" * 9000)[1][-1]
    assert isinstance(effect, Broken)


@pytest.mark.parametrize("before", [b"", SERVER + b"\n", SERVER + b"\n" + ok()])
def test_the_end_of_the_stream_is_told_once(before):
    client, _ = conversation(before) if before else (Link(KEY, HELLO), [])
    assert [type(e) for e in client.receive_end()] == [Broken]
    assert client.receive_end() == []
