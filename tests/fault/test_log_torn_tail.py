"""A log that ends in the middle of something: only that is cut off, and it is saved."""

import pytest

from papaya_pool import chatlog

GOOD = (
    b"1\t2026-11-22T20:00:00.000Z\tann\tone\n"
    b"2\t2026-11-22T20:00:00.001Z\tbob\ttwo\n"
)
NEXT = "3\t2026-11-22T20:00:00.002Z\tОльга\tтри\n".encode()


def recover(tmp_path, content):
    path = tmp_path / "room.log"
    path.write_bytes(content)
    return path, chatlog.recover(path)


@pytest.mark.parametrize("size", range(len(NEXT)))
def test_a_line_torn_at_any_byte_is_cut_off_and_saved(tmp_path, size):
    path, found = recover(tmp_path, GOOD + NEXT[:size])
    assert found[:2] == (2, len(GOOD))
    assert found.torn_bytes == size
    assert path.read_bytes() == GOOD
    saved = list(tmp_path.glob("room.log.torn-*"))
    assert [one.read_bytes() for one in saved] == ([NEXT[:size]] if size else [])
    assert chatlog.recover(path) == found._replace(torn_bytes=0)


@pytest.mark.parametrize("size", range(1, len(GOOD)))
def test_of_a_torn_append_of_many_lines_the_whole_ones_are_kept(tmp_path, size):
    path, found = recover(tmp_path, GOOD[:size])
    whole = GOOD[:size].count(b"\n")
    assert found.seq == whole
    assert path.read_bytes() == b"".join(GOOD.splitlines(keepends=True)[:whole])


@pytest.mark.parametrize(
    "torn",
    [
        *[b"\0" * 4096, b"\0" * 100 + b"\n", NEXT[:20] + b"\0" * 50 + b"\n", b"\xff\xfe"],
        *[b"3\n", b"\n", b"\n\n\n", b"junk\njunk\n"],
    ],
)
def test_what_a_disk_may_leave_behind_the_last_good_line_is_cut_off(tmp_path, torn):
    path, found = recover(tmp_path, GOOD + torn)
    assert (found.seq, path.read_bytes()) == (2, GOOD)
    assert found.torn_bytes == len(torn)


def test_no_log_and_an_empty_log_are_logs(tmp_path):
    path = tmp_path / "room.log"
    assert chatlog.recover(path) == (0, 0, 0, 0)
    assert path.read_bytes() == b""
    assert chatlog.recover(path) == (0, 0, 0, 0)


@pytest.mark.parametrize("torn", [b"", NEXT[:17]])
def test_a_log_longer_than_what_a_start_looks_at(tmp_path, torn):
    line = b"%d\t2026-11-22T20:00:00.000Z\tann\t" + b"x" * 3000 + b"\n"
    whole = b"".join(line % seq for seq in range(1, 701))
    assert len(whole) > 2 * chatlog.CHECKED_BYTES - 60_000
    path, found = recover(tmp_path, whole + torn)
    assert found[:2] == (700, len(whole))
    assert found.torn_bytes == len(torn)
    assert path.read_bytes() == whole


def test_a_pool_starts_on_it_and_goes_on_counting(start_pool, tmp_path):
    state = tmp_path / "st"
    state.mkdir(mode=0o700)
    (state / "room.log").write_bytes(GOOD + NEXT[:30])
    pool = start_pool(state_dir=state)
    assert pool.events("torn-tail-cut")[0]["bytes"] == "30"
    with pool.join(since=0) as member:
        assert member.head == 2
        member.say("three")
        member.read_count(3)
    assert pool.texts() == ["one", "two", "three"]
