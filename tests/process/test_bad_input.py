"""Everything that a stranger or a member can do wrong, and a bystander who notices nothing.

Each closes one connection with clear words and no more (issue 3).  Two bystanders, one
of each dialect, chat before, meanwhile and after, and must have every message.
"""

import contextlib
import secrets
import socket

import pytest
from harness import Refused, Wire, check_streams, proof, read_all, until

KEY_DIGITS = 128
NONCE = "c1" * 16


@pytest.fixture(scope="module")
def pool(start_shared_pool):
    """One for all: what one test does to it the next one's bystanders would notice."""
    return start_shared_pool(settings={"login_deadline_s": 1.0})


@pytest.fixture
def chatting(pool):
    """Bystanders; at the end they must have lost nothing."""
    until(lambda: pool.sessions() == 0)
    before = len(pool.texts())
    members = [pool.join("ann", last=0), pool.join_classic(), pool.join("bob", last=0)]

    class Chat:
        said = 0

        def go_on(self):
            for member in members:
                member.say(f"{member.name} {self.said}")
                self.said += 1

        def check(self):
            self.go_on()
            for member in members:
                member.say(f"the end of {before}, says {member.name}")

            def ended(member):
                return member.stream.count(b"the end of %d, says " % before) == 3

            read_all(members, ended)
            check_streams(pool.log, members)
            texts = [text.split() for text in pool.texts()[before:]]
            said = {name: [] for name in ("ann", "bob", "carol")}
            for name, number in (text for text in texts if text[:1] and text[0] in said):
                said[name].append(int(number))
            assert all(numbers == sorted(set(numbers)) for numbers in said.values())
            assert sum(map(len, said.values())) == self.said

    chat = Chat()
    chat.go_on()
    yield chat
    try:
        chat.check()
    finally:
        for member in members:
            member.close()


def answer_to(pool, *segments, act=None):
    """What a stranger is told who says just this, up to the end."""
    with Wire(pool.port) as wire:
        for segment in segments:
            try:
                wire.send(segment)
            except ConnectionError:
                break
        if act:
            act(wire)
        wire.read_to_end()
        return bytes(wire.received)


# --- strangers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "syntax"),
        (b"hello?\n", "syntax"),
        (b"\n", "syntax"),
        (b"\x00" * 600, "syntax"),
        (b"\xff" * 600, "syntax"),
        (b"\x1b[2J", "syntax"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "version"),
        (b"PAPAYA/1 ann\n", "version"),
        (b"PAPAYA/3 ann\n", "version"),
        (b"PAPAYA/20 ann\n", "version"),
        (b"PAPAYA/2\n", "syntax"),
        (b"PAPAYA/2 ann\n", "syntax"),
        (f"PAPAYA/2 ann {NONCE[1:]}\n".encode(), "syntax"),
        (f"PAPAYA/2  ann {NONCE}\n".encode(), "syntax"),
        (f"PAPAYA/2 ann {NONCE} since=1 last=1\n".encode(), "syntax"),
        (f"PAPAYA/2 ann {NONCE} since=-1\n".encode(), "syntax"),
        (f"PAPAYA/2 ann {NONCE} since=\n".encode(), "syntax"),
        (f"PAPAYA/2 ann {NONCE} last=1e3\n".encode(), "syntax"),
        (f"PAPAYA/2 ann {NONCE} session=abc\n".encode(), "syntax"),
        (f"PAPAYA/2 ann {NONCE} colour=red\n".encode(), "syntax"),
        (f"PAPAYA/2 a:n {NONCE}\n".encode(), "name"),
        (f"PAPAYA/2 a\tn {NONCE}\n".encode(), "name"),
        (f"PAPAYA/2 a\x1b[31m {NONCE}\n".encode(), "name"),
        (f"PAPAYA/2 {'n' * 33} {NONCE}\n".encode(), "name"),
        (f"PAPAYA/2 {'李' * 22} {NONCE}\n".encode(), "name"),
        (b"PAPAYA/2 a\xff " + NONCE.encode() + b"\n", "name"),
        (b"PAPAYA/2 ann " + b"x" * 600, "too-long"),
        (b"PAPAYA/2 ann " + b"x" * 600 + b"\n", "too-long"),
    ],
)
def test_no_login_is_answered_with_why(pool, chatting, said, code):
    answer = answer_to(pool, said)
    assert answer.startswith(b"ERR " + code.encode() + b" "), answer
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    assert answer[:-1].decode("ascii").isprintable()


def test_a_wrong_proof_is_refused(pool, chatting):
    hello = f"PAPAYA/2 ann {NONCE}".encode()
    for wrong in (b"", b"0" * 64, b"0" * 63, b"x" * 64, b"\xff\x00", b"f" * 500):
        with Wire(pool.port) as wire:
            wire.send(hello + b"\n")
            wire.read_line()
            wire.send(wrong + b"\n")
            wire.read_to_end()
            assert wire.received.startswith(b"ERR auth "), wire
    with pytest.raises(Refused, match="auth"):
        type(pool).join(_WithKey(pool, b"ab" * 64))


class _WithKey:
    def __init__(self, pool, key):
        self.port, self.key = pool.port, key


def test_a_proof_for_another_login_is_none(pool, chatting):
    """Who listened to one login cannot use it for the next."""
    hello = f"PAPAYA/2 ann {NONCE}".encode()
    with Wire(pool.port) as one, Wire(pool.port) as other:
        one.send(hello + b"\n")
        other.send(hello + b"\n")
        theirs = one.read_line(), other.read_line()
        assert theirs[0] != theirs[1]
        other.send(proof(pool.key, b"client", hello, theirs[0]) + b"\n")
        other.read_to_end()
        assert other.received.startswith(b"ERR auth ")
        one.send(proof(pool.key, b"server", hello, theirs[0]) + b"\n")
        one.read_to_end()
        assert one.received.startswith(b"ERR auth ")


@pytest.mark.parametrize("size", [1, 127])
def test_a_short_key_and_then_silence_times_out(pool, chatting, size):
    assert answer_to(pool, pool.key[:size]).startswith(b"ERR timeout ")


@pytest.mark.parametrize("said", [b"", b"PAPAYA", f"PAPAYA/2 ann {NONCE}\n".encode()])
def test_silence_times_out(pool, chatting, said):
    assert b"ERR timeout " in answer_to(pool, said)


def test_a_wrong_key_is_a_close_without_words(pool, chatting):
    wrong = b"0" * KEY_DIGITS if pool.key[:1] != b"0" else b"1" * KEY_DIGITS
    assert answer_to(pool, wrong) == b""
    assert answer_to(pool, pool.key[:127] + b"x") == b""
    assert answer_to(pool, pool.key[:60] + b"\n") == b""


@pytest.mark.parametrize("size", [0, 1, 60, 128])
@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
def test_a_stranger_may_leave_at_any_moment(pool, chatting, leave, size):
    with Wire(pool.port) as wire:
        wire.send(pool.key[:size])
        getattr(wire, leave)()
        if leave == "half_close":
            wire.read_to_end()
    chatting.go_on()


def test_two_thousand_who_say_nothing_keep_nobody_out(pool, chatting):
    silent = []
    try:
        for _ in range(2000):
            conn = socket.socket()
            conn.setblocking(False)
            conn.connect_ex(("127.0.0.1", pool.port))
            silent.append(conn)
        chatting.go_on()
        with pool.join("late", last=0) as late:
            late.say("late but in")
            late.read_text("late but in")
    finally:
        for conn in silent:
            conn.close()


def test_more_clients_than_allowed_are_told_so(start_pool):
    pool = start_pool("--max-clients", "2")
    with pool.join("ann", last=0) as ann, pool.join_classic():
        for _ in range(5):
            with pytest.raises(Refused, match="full"):
                pool.join("more")
        assert answer_to(pool, pool.key).startswith(b"ERR full ")
        ann.say("alone")
        ann.read_count(1)
    until(lambda: pool.sessions() == 0)
    pool.join("now").close()


# --- members -------------------------------------------------------------------------




@pytest.mark.parametrize("dialect", ["native", "classic"])
def test_5000_bytes_without_a_newline_close_the_one_who_sent_them(pool, chatting, dialect):
    member = pool.join("mallory", last=0) if dialect == "native" else pool.join_classic()
    with member:
        if dialect == "classic":  # who is still behind is closed without words (law 7)
            member.read_count(min(7, len(pool.texts())))
        member.send(b"x" * 5000)
        member.read_to_end()
        assert member.received.endswith(b"ERR too-long a line has at most 4096 bytes\n")


def test_a_gigabyte_without_a_newline_ends_the_one_who_sent_it(pool, chatting):
    """It is not kept, and not read to its end: what comes in the last second is dropped."""
    piece = b"x" * (1 << 20)
    with pool.join("mallory", last=0) as member:
        with contextlib.suppress(ConnectionError):
            for _ in range(1024):
                member.send(piece)
        until(lambda: pool.sessions() == 3)
    assert all(len(text) < 1000 for text in pool.texts())


def test_one_byte_a_segment_is_a_message_all_the_same(pool, chatting):
    with pool.join("slow", last=0) as member:
        for byte in "one höi ☃\n".encode():
            member.send(bytes([byte]))
        member.read_text("one höi ☃")


@pytest.mark.parametrize("dialect", ["native", "classic"])
def test_an_urgent_byte_is_a_byte_like_others(pool, chatting, dialect):
    member = pool.join("urgent", last=0) if dialect == "native" else pool.join_classic()
    prefix = b"" if dialect == "native" else b"carol: "
    with member:
        member.send(prefix + b"be")
        member.conn.send(b"f", socket.MSG_OOB)
        member.send(b"ore\n")
        member.read_text("before")
        member.conn.send(prefix + b"end\n", socket.MSG_OOB)
        member.read_text("end")


def test_bytes_that_are_no_text_drive_no_terminal(pool, chatting):
    hostile = bytes(b for b in range(256) if b not in b"\n") * 3
    with pool.join("mallory", last=0) as member:
        member.send(b"\xff\xfe\n" + b"a" + hostile + b"\n\x1b]0;title\x07\nx\x1b[2Jy\n")
        member.send(b"done\n")
        member.read_text("done")
    log = pool.log.decode()
    assert not {c for c in log if (c < " " and c not in "\t\n") or "\x7f" <= c <= "\x9f"}
    assert "x[2Jy" in log


@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
@pytest.mark.parametrize("said", [b"", b"half a li", b"whole\nhalf", b"x" * 4000])
def test_a_member_may_leave_at_any_moment(pool, chatting, leave, said):
    with pool.join("mallory", last=0) as member:
        member.send(said)
        getattr(member, leave)()
        if leave == "half_close":
            assert member.read_to_end() == "fin"
    until(lambda: pool.sessions() == 3)
    assert not any("half" in text for text in pool.texts())


def test_a_member_who_leaves_while_others_write_to_it(pool, chatting):
    for n in range(20):
        member = pool.join("mallory", since=0)
        chatting.go_on()
        (member.reset if n % 2 else member.close)()
        chatting.go_on()
    until(lambda: pool.sessions() == 3)


def test_a_login_that_is_cut_anywhere_leaves_no_slot_behind(pool, chatting):
    hello = f"PAPAYA/2 mallory {secrets.token_hex(16)}".encode()
    for cut in range(0, 70, 3):
        with Wire(pool.port) as wire:
            wire.send(hello + b"\n")
            answer = proof(pool.key, b"client", hello, wire.read_line()) + b"\nhi\n"
            wire.send(answer[:cut])
            wire.reset()
    until(lambda: pool.sessions() == 3)


def test_a_megabyte_of_empty_lines_is_nothing(pool, chatting):
    with pool.join("mallory", last=0) as member:
        for _ in range(16):
            member.send(b"\n" * 65536)
        member.say("end of nothing")
        member.read_text("end of nothing")


def test_all_of_it_at_once(pool, chatting):
    """Twenty of each, while the bystanders go on."""
    wires = []
    try:
        for n in range(20):
            for said in (b"nonsense\n", pool.key[:77], b"PAPAYA/2 x\n", b"\x16\x03\x01"):
                wire = Wire(pool.port)
                wires.append(wire)
                wire.send(said)
            member = pool.join(f"m{n}", last=0)
            wires.append(member)
            member.send(b"y" * 5000 if n % 2 else b"good line\nhalf")
            chatting.go_on()
        for wire in wires:
            wire.reset()
    finally:
        for wire in wires:
            wire.close()
    until(lambda: pool.sessions() == 3)


def test_what_is_said_on_stderr_about_all_this_drives_no_terminal_either(pool, chatting):
    before = len(pool.events("refused"))
    answer_to(pool, b"\x1b[2J\nevent=ready\n")
    answer_to(pool, "PAPAYA/2 \x1b[31m\u202e x\n".encode())
    assert len(pool.events("refused")) == before + 2
    assert pool.stderr.replace("\n", "").isprintable()
