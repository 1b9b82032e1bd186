"""Golden bytes: what version 1 wrote and said must be understood for ever."""

import hashlib
import os

import pytest

from papaya_pool import chatlog, dialects, errors, records

LOG = (
    b"1\t2026-11-22T20:00:00.000Z\talice\thello, world\n"
    b"2\t2026-11-22T20:00:00.000Z\tbob\ttabs\tare\tkept\n"
    + "3\t2026-11-22T20:00:00.001Z\tОльга\tпривет ☃ 🎉\n".encode()
    + b"4\t2026-11-22T23:59:59.999Z\tanonymous\tno name: given\n"
    b"5\t2026-11-23T00:00:00.000Z\tx\t" + b"y" * 4096 + b"\n"
)
CLASSIC = (
    b"alice: hello, world\nbob: tabs\tare\tkept\n"
    + "Ольга: привет ☃ 🎉\n".encode()
    + b"anonymous: no name: given\nx: "
    + b"y" * 4092
    + b"\n"
)
KEY = b"00112233445566778899aabbccddeeff" * 4
HELLO = b"PAPAYA/2 alice " + b"c1" * 16 + b" since=41"
ANSWER = b"PAPAYA/2 " + b"5e" * 16
CLIENT_PROOF = b"4ebd6c98165b12862561ce1f739ab6a828390aef3be5eb8741b364813ad587a4"
SERVER_PROOF = b"ef8f55e327461a0223d0112aa14b5a620819e2ba712def0f27c5ab745680ba6f"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "room.log"
    path.write_bytes(LOG)
    return path


@pytest.fixture
def log(path):
    opened = chatlog.ChatLog(path, writable=False)
    yield opened
    opened.close()


def test_the_log_opens(path):
    assert chatlog.recover(path) == (5, len(LOG), 1795392000000, 0)
    assert path.read_bytes() == LOG


def test_its_lines_are_its_records():
    lines = LOG.splitlines(keepends=True)
    again = [
        records.stored(r.seq, r.time.encode(), r.name.encode(), [r.text.encode()])
        for r in map(records.parse, lines)
    ]
    assert b"".join(line for [line] in again) == LOG


def test_its_classic_rendering():
    assert records.rendered(LOG) == CLASSIC


def test_a_seq_is_found(log):
    ends = [0]
    for line in LOG.splitlines(keepends=True):
        ends.append(ends[-1] + len(line))
    assert [log.offset_behind(seq, len(LOG)) for seq in range(6)] == ends
    assert log.offset_behind(99, len(LOG)) == len(LOG)


def test_whole_lines_are_read_and_none_behind_the_end(log):
    assert log.read_lines(0, len(LOG), 1 << 20) == LOG
    first = LOG.index(b"\n") + 1
    assert log.read_lines(0, len(LOG), first) == LOG[:first]
    assert log.read_lines(0, len(LOG), first + 5) == LOG[:first]
    assert log.read_lines(first, len(LOG) - 1, 1 << 20).endswith(b"given\n")


@pytest.mark.parametrize("count", [1, 2, 7, 1000, 20_000])
def test_any_seq_is_found_in_a_log_of_any_size(tmp_path, count):
    path, ends, lines = tmp_path / "long.log", [0], []
    for seq in range(1, count + 1):
        text = b"x" * ((seq * 7919) % (4096 if seq % 97 == 0 else 60) + 1)
        [line] = records.stored(seq, b"2026-11-22T20:00:00.000Z", b"al", [text])
        lines.append(line)
        ends.append(ends[-1] + len(line))
    path.write_bytes(b"".join(lines) + b"a torn ta")
    log = chatlog.ChatLog(path, writable=False)
    try:
        for seq in {0, 1, count // 3, count // 2, count - 1, count}:
            assert log.offset_behind(seq, ends[-1]) == ends[seq]
    finally:
        log.close()


def test_a_log_that_was_overwritten_is_no_log(tmp_path):
    path = tmp_path / "bad.log"
    path.write_bytes(b"no record at all\n" * 4000)
    log = chatlog.ChatLog(path, writable=False)
    try:
        with pytest.raises(errors.LogCorrupt):
            log.offset_behind(3, os.path.getsize(path))
    finally:
        log.close()


def test_the_proofs():
    # Computed once with openssl from the design's words, not with this code.
    secret = dialects.proof_key(KEY)
    assert secret == hashlib.sha256(KEY).hexdigest().encode()
    assert dialects.client_proof(secret, HELLO, ANSWER) == CLIENT_PROOF
    assert dialects.server_proof(secret, HELLO, ANSWER) == SERVER_PROOF


def test_the_line_after_which_a_client_is_in():
    assert dialects.ok_line(b"f0" * 32, 41, "0123456789abcdef") == (
        b"OK " + b"f0" * 32 + b" head=41 log=0123456789abcdef\n"
    )
    assert dialects.ok_line(b"f0", 0, "0123", 7).endswith(b" head=0 log=0123 taken=7\n")
    assert dialects.ok_line(b"f0", 0, "0123", "?").endswith(b" log=0123 taken=?\n")
