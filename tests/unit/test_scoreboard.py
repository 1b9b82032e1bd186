"""The shared block's layout, and what its two-part changes leave half done."""

import os

import pytest

from papaya_pool import errors
from papaya_pool import scoreboard as sb


@pytest.fixture
def board():
    made = sb.Scoreboard.create(1, workers=3, sessions=5, ring_bytes=8192)
    yield made
    made.unlink()


def constants(prefix, but=()):
    values = {n: v for n, v in vars(sb).items() if n.startswith(prefix) and n not in but}
    assert len(values) > 3
    return values


def spans(words, pairs=(), texts=()):
    """{name: the byte offsets that it covers}"""
    found = {name: range(8 * at, 8 * at + 8) for name, at in words.items()}
    found |= {name: range(8 * at, 8 * at + 32) for name, at in pairs}
    return found | {name: range(at, at + size) for name, at, size in texts}


def overlaps(fields):
    names = sorted(fields)
    return [
        (one, other)
        for n, one in enumerate(names)
        for other in names[n + 1 :]
        if set(fields[one]) & set(fields[other])
    ]


SESSION = spans(
    constants("S_", but={"S_CHECK"}),
    pairs=[("S_CHECK", sb.S_CHECK)],
    texts=[
        ("name", sb.NAME_AT, 64),
        ("address", sb.ADDRESS_AT, 64),
        ("token", sb.TOKEN_AT, 32),
        ("preamble", sb.PREAMBLE_AT, sb.PREAMBLE_BYTES),
    ],
)


def test_fields_of_a_session_slot_do_not_overlap():
    assert overlaps(SESSION) == []
    assert max(max(field) for field in SESSION.values()) < 8 * sb.SESSION_WORDS


def test_fields_of_a_process_slot_do_not_overlap():
    fields = spans(constants("P_", but={"P_CHECK"}), pairs=[("P_CHECK", sb.P_CHECK)])
    assert overlaps(fields) == []
    assert max(max(field) for field in fields.values()) < 8 * sb.PROCESS_WORDS


def test_fields_of_the_head_do_not_overlap():
    words = constants("H_", but={"H_TRIPLE", "H_MOVED_TO", "H_LOG_ID", "H_MOVED_FROM"})
    triples = [("one", sb.H_TRIPLE), ("other", sb.H_TRIPLE + 8)]
    texts = [("moved", sb.H_MOVED_TO, 64), ("log", sb.H_LOG_ID, 16), ("from", sb.H_MOVED_FROM, 64)]
    fields = spans(words, triples, texts)
    assert overlaps(fields) == []
    assert max(max(field) for field in fields.values()) < sb.PAGE


def test_an_overlap_would_be_found():
    assert overlaps({"a": range(8), "b": range(7, 9), "c": range(9, 10)}) == [("a", "b")]


def test_the_two_triples_of_the_head_share_no_cache_line():
    assert sb.H_TRIPLE * 8 % 64 == 0
    assert (sb.H_TRIPLE + 8) * 8 // 64 != sb.H_TRIPLE * 8 // 64


def test_the_longest_ok_line_fits_a_preamble():
    ok = b"OK " + b"f" * 64 + b" head=%d log=" % (2**63) + b"f" * 16 + b" taken=%d\n" % (2**63)
    assert len(ok) <= sb.PREAMBLE_BYTES


def test_slots_and_rings_lie_apart_and_within_the_block(board):
    for process in board.processes:
        process.words[process.base + sb.PROCESS_WORDS - 1] = 1 << 8 | process.number
    for number in range(5):
        slot = board.session(number)
        slot.words[slot.base] = slot.words[slot.base + sb.SESSION_WORDS - 1] = 2 << 8 | number
        board.ring(number)[:] = bytes([number + 1]) * 8192
    for process in board.processes:
        assert process.words[process.base + sb.PROCESS_WORDS - 1] == 1 << 8 | process.number
    for number in range(5):
        slot = board.session(number)
        assert slot.words[slot.base] == 2 << 8 | number
        assert bytes(board.ring(number)) == bytes([number + 1]) * 8192
    assert board.words[sb.H_MAGIC] == sb.MAGIC


def test_the_head_is_what_was_published_last(board):
    assert board.head() == (0, 0, 0)
    for seq in (1, 2, 7):
        board.publish(seq, seq * 100, seq * 1000)
        assert board.head() == (seq, seq * 100, seq * 1000)


@pytest.mark.parametrize("stored", range(4))
def test_a_publisher_killed_between_two_stores_has_published_nothing(board, stored):
    board.publish(1, 10, 100)
    n, triple = board.words[sb.H_N] + 1, (2, 20, 200)
    at = sb.H_TRIPLE + 8 * (n & 1)
    for step in range(stored):
        board.words[at + step % 3] = triple[step % 3]
    assert board.head() == (1, 10, 100)
    board.publish(2, 20, 200)
    assert board.head() == (2, 20, 200)


@pytest.mark.parametrize("stored", range(3))
def test_a_checkpoint_half_changed_is_the_one_before(board, stored):
    slot = board.session(1)
    slot.set_check(10, 100)
    n = slot.words[slot.base + sb.S_CHECK_N] + 1
    at = slot.base + sb.S_CHECK + 2 * (n & 1)
    for step, value in enumerate((20, 200)[:stored]):
        slot.words[at + step] = value
    assert slot.check() == (10, 100)
    slot.set_check(20, 200)
    assert slot.check() == (20, 200)


@pytest.mark.parametrize("delta", [0, 5, -5])
def test_in_step_the_workers_checkpoint_is_the_sessions(board, delta):
    slot = board.session(0)
    slot.set_check(10, 50)
    slot.step_in(delta)
    slot.step_out(700, 900)
    assert slot.check() == (700, 900 + delta)
    slot.step_out(1, 1)  # no longer in step: nothing changes
    assert slot.check() == (700, 900 + delta)


def test_a_cleared_slot_keeps_its_generation_alone(board):
    slot = board.session(2)
    slot.generation, slot.name, slot.token, slot.pending_seq = 9, "ålice", b"70" * 16, 4
    slot.preamble = b"OK\n"
    slot.clear()
    assert (slot.generation, slot.name, slot.pending_seq, slot.preamble) == (9, "", 0, b"")
    assert list(board.pending()) == []


def test_sessions_and_pending_are_those_in_use(board):
    board.session(1).state = sb.LIVE
    board.session(4).state = sb.CLOSING
    board.session(4).pending_seq = 3
    assert [slot.number for slot in board.sessions()] == [1, 4]
    assert [slot.number for slot in board.pending()] == [4]


def test_an_owner_is_found_by_incarnation_among_the_workers(board):
    board.workers[2].incarnation = 77
    assert board.owner_of(77).number == 2
    assert board.owner_of(78) is None


def test_a_look_sees_what_is_stored_and_cannot_store(board):
    seen = sb.look(board.name)
    board.publish(3, 30, 300)
    assert seen.head() == (3, 30, 300)
    assert seen.worker_count == 3
    with pytest.raises(TypeError):
        seen.words[sb.H_N] = 9
    assert os.path.exists(f"{sb.SHM}/{board.name}")


def test_a_file_that_is_no_scoreboard_is_not_taken_for_one(tmp_path, monkeypatch):
    (tmp_path / "papaya-x").write_bytes(b"\0" * 8192)
    monkeypatch.setattr(sb, "SHM", str(tmp_path))
    with pytest.raises(ValueError, match="no scoreboard"):
        sb.look("papaya-x")
    with pytest.raises(FileNotFoundError):
        sb.look("papaya-y")


def test_a_block_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(sb, "free_bytes", lambda: 1 << 20)
    with pytest.raises(errors.CannotCreate, match="--max-clients"):
        sb.Scoreboard.create(1, workers=1, sessions=1000, ring_bytes=8192)
