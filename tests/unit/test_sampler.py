"""What an onlooker makes of a scoreboard and a log, without any process."""

import random
import struct
import time

import psutil
import pytest

from papaya_pool import clientele, pulse, sampler
from papaya_pool import scoreboard as sb
from papaya_pool.scoreboard import Head

NOW_MS = 1_795_388_400_000


@pytest.fixture
def board():
    """A block with two workers and four sessions, in ordinary memory."""
    octets = bytearray(sb.block_bytes(2, 4, 64))
    struct.pack_into("=4Q", octets, 0, sb.MAGIC, 2, 4, 64)
    board = sb.Scoreboard(memoryview(octets), "papaya-unit")
    for slot in board.workers:
        slot.incarnation, slot.pid = 7 + slot.number, 4000 + slot.number
        slot.state, slot.position = sb.SERVING, 1000
    return board


def seat(board, number, name="ann", **words):
    slot = board.session(number)
    slot.name, slot.address, slot.state = name, f"127.0.0.1:{4000 + number}", sb.LIVE
    slot.generation, slot.owner, slot.seated = 3, 7, 7
    slot.since_ms, slot.input_ms = NOW_MS - 60_000, NOW_MS - 2_000
    for word, value in words.items():
        setattr(slot, word, value)
    return slot


def clients(board, tail=1000, unsent=None):
    return list(clientele.clients(board, Head(10, tail, NOW_MS), NOW_MS, unsent, {}))


# --- members -------------------------------------------------------------------------


def test_only_live_sessions_are_members(board):
    for number, state in enumerate((sb.FREE, sb.CLAIMED, sb.LIVE, sb.CLOSING)):
        seat(board, number, f"m{number}", state=state)
    (member,) = clients(board)
    assert (member.name, member.session, member.generation) == ("m2", 2, 3)
    assert (member.worker, member.idle_s, member.age_s) == (0, 2.0, 60.0)


def test_a_member_whose_worker_died_has_none(board):
    seat(board, 0, owner=99)
    assert clients(board)[0].worker is None


def test_the_lag_of_who_is_in_step_is_that_of_the_worker_at_this_moment(board):
    seat(board, 0)
    assert clients(board, tail=1000)[0].lag_bytes == 0
    assert clients(board, tail=1700)[0].lag_bytes == 700


def test_the_lag_of_who_is_behind_is_what_was_written_down(board):
    seat(board, 0, lag=5000)
    assert clients(board, tail=1700)[0].lag_bytes == 5000


def test_a_worker_without_a_position_tells_no_lag(board):
    seat(board, 0)
    board.workers[0].position = 0
    assert clients(board, tail=1700)[0].lag_bytes == 0


def test_what_a_native_member_was_sent_follows_its_workers_position(board):
    seat(board, 0, start=400, written_before=42, preamble_size=120, bytes_out=500)
    assert clients(board)[0].bytes_out == 42 + 120 + 600
    board.session(0).lag = 1  # behind: only what was written down is sure
    assert clients(board)[0].bytes_out == 500
    board.session(0).lag, board.session(0).seated = 0, 6  # on its way between workers
    assert clients(board)[0].bytes_out == 500


def test_what_a_classic_member_in_step_was_sent_follows_its_workers_check(board):
    slot = seat(board, 0, dialect=sb.CLASSIC, bytes_out=30)
    board.workers[0].set_check(1000, 900)
    slot.step_in(-100)
    assert clients(board)[0].bytes_out == 800
    slot.set_check(1000, 800)
    assert clients(board)[0].bytes_out == 30


def test_a_clock_that_was_set_back_makes_no_negative_age(board):
    seat(board, 0, since_ms=NOW_MS + 5000, input_ms=NOW_MS + 5000)
    assert (clients(board)[0].age_s, clients(board)[0].idle_s) == (0, 0)


def test_unacknowledged_bytes_are_found_by_address(board):
    seat(board, 0)
    seat(board, 1)
    found = clients(board, unsent={"127.0.0.1:4001": 99})
    assert [member.unacked_bytes for member in found] == [None, 99]
    assert clients(board)[1].unacked_bytes is None


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("0100007F:A371", "127.0.0.1:41841"),
        ("00000000000000000000000001000000:0050", "[::1]:80"),
        ("B80D0120000000000000000001000000:FFFF", "[2001:db8::1]:65535"),
    ],
)
def test_the_kernels_addresses_are_read_as_the_listener_writes_them(field, address):
    if struct.pack("=H", 1) == struct.pack("<H", 1):  # the kernel's words are native
        assert clientele._address(field) == address


def test_a_kernel_without_that_table_tells_nothing():
    assert clientele.unacked(0, 7722) is None


# --- states --------------------------------------------------------------------------

RUNS = sampler._Seen(True, psutil.STATUS_SLEEPING, 1.0, 5)
STOPPED = sampler._Seen(True, psutil.STATUS_STOPPED, 1.0, 5)


@pytest.mark.parametrize(
    ("words", "seen", "deadline_s", "shown"),
    [
        ({}, RUNS, 3.0, "serving"),
        ({}, RUNS, None, "serving"),
        ({"state": sb.DRAINING}, RUNS, 3.0, "draining"),
        ({"state": 77}, RUNS, 3.0, "unknown"),
        ({"state": sb.EMPTY}, RUNS, 3.0, "empty"),
        ({"pid": 0}, sampler._NOTHING, None, "empty"),
        ({}, sampler._NOTHING, 3.0, "dead"),
        ({}, RUNS, -0.1, "late"),
        ({}, STOPPED, -0.1, "late"),
        ({}, STOPPED, 3.0, "frozen"),
        ({"waiting": 1}, RUNS, -0.1, "serving"),  # somebody else holds the log
    ],
)
def test_a_state_is_what_the_scoreboard_says_unless_the_kernel_knows_better(
    board, words, seen, deadline_s, shown
):
    slot = board.workers[0]
    for word, value in words.items():
        setattr(slot, word, value)
    assert sampler._state(slot, slot.pid, seen, deadline_s) == shown


class Hidden:
    """A process of which permissions hide what they hide of other people's."""

    def memory_info(self):
        return psutil.Process().memory_info()

    def memory_full_info(self):
        raise psutil.AccessDenied

    num_fds = memory_full_info


def test_what_permissions_hide_is_none_and_named():
    hidden = set()
    costly = sampler._costly(Hidden(), hidden)
    assert costly.rss_bytes and costly[1:] == (None, None, None)
    assert hidden == {"PSS USS", "FDS"}


def test_a_directory_without_a_pool_has_none(tmp_path):
    with pytest.raises(sampler.NoPool) as fault:
        sampler.Sampler(tmp_path)
    assert fault.value.exit_code == 69
    (tmp_path / "scoreboard").write_bytes(b"\xff\n")
    with pytest.raises(sampler.NoPool):
        sampler.Sampler(tmp_path)


# --- the log's pulse -----------------------------------------------------------------


def stamp(time_ms):
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms // 1000))
    return f"{whole}.{time_ms % 1000:03d}Z"


@pytest.mark.parametrize("seed", range(8))
def test_the_newest_seq_at_any_time_is_found_by_bisecting(tmp_path, seed):
    chance = random.Random(seed)
    times, time_ms = [], NOW_MS
    for _ in range(chance.choice([1, 2, 50, 400])):
        time_ms += chance.choice([0, 0, 1, 7, 1000, 60_000])
        times.append(time_ms)
    lines = [
        f"{seq}\t{stamp(time_ms)}\tann\t{'é' * chance.choice([1, 30, 2000])}\n".encode()
        for seq, time_ms in enumerate(times, 1)
    ]
    log = tmp_path / "room.log"
    log.write_bytes(b"".join(lines) + b"not published, not even a li")
    tail = sum(map(len, lines))
    wanted = sorted(
        chance.randrange(NOW_MS - 5000, times[-1] + 5000) for _ in range(50)
    )
    wanted = sorted(wanted + times[:20])
    expected = [(t, sum(1 for one in times if one <= t)) for t in wanted]
    assert pulse.seqs_at(log, tail, wanted) == expected


def test_a_log_that_tells_nothing_is_no_error(tmp_path):
    log = tmp_path / "room.log"
    assert pulse.seqs_at(log, 100, [NOW_MS]) == []
    log.write_bytes(b"")
    assert pulse.seqs_at(log, 0, [NOW_MS]) == [(NOW_MS, 0)]
    for damage in (b"\0" * 9000, b"a\tb\tc\td\n" * 50, b"1\t2026\tx\ty\n" * 50):
        log.write_bytes(damage)
        assert pulse.seqs_at(log, len(damage), [NOW_MS]) in ([], [(NOW_MS, 0)])
