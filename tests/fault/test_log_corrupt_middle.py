"""Damage before good lines is never repaired: the pool refuses to start, and says so."""

import pytest
from harness import until

from papaya_pool import chatlog, errors

LINES = [b"%d\t2026-11-22T20:00:00.000Z\tann\ttext %d\n" % (n, n) for n in range(1, 31)]
DAMAGED = {
    "no record": b"what is this\n",
    "nothing": b"\n",
    "zeros": b"\0" * 40 + b"\n",
    "a seq too many": LINES[15] + LINES[15],
    "a seq too few": b"",
    "no text": b"16\t2026-11-22T20:00:00.000Z\tann\t\n",
    "no UTF-8": b"16\t2026-11-22T20:00:00.000Z\tann\t\xff\n",
    "a changed digit": b"26\t2026-11-22T20:00:00.000Z\tann\ttext 16\n",
    "no time": b"16\tyesterday\tann\ttext 16\n",
}


@pytest.fixture(params=DAMAGED)
def path(request, tmp_path):
    state = tmp_path / "st"
    state.mkdir(mode=0o700)
    path = state / "room.log"
    path.write_bytes(b"".join([*LINES[:15], DAMAGED[request.param], *LINES[16:]]))
    return path


def test_it_is_seen_and_nothing_is_changed(path):
    before = path.read_bytes()
    with pytest.raises(errors.LogCorrupt, match=r"damaged at byte \d+, before good lines"):
        chatlog.recover(path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["room.log"]


def test_a_pool_refuses_to_start_on_it_with_78(start_pool, path):
    before = path.read_bytes()
    pool = start_pool(state_dir=path.parent, ready=False)
    pool.expected = ["^papaya-pool: room.log is damaged at byte "]
    assert pool.wait() == 78
    assert path.read_bytes() == before
    assert "papaya-ctl salvage" in pool.stderr
    assert pool.stdout == ""
    assert not list(path.parent.glob("*.torn-*"))


def test_a_log_that_begins_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "room.log"
    path.write_bytes(b"".join(LINES[4:]))
    with pytest.raises(errors.LogCorrupt):
        chatlog.recover(path)


def test_damage_deep_in_a_long_log_does_not_keep_it_from_starting(tmp_path):
    """A start looks at the last MiB; papaya-ctl verify looks at everything."""
    path = tmp_path / "room.log"
    line = b"%d\t2026-11-22T20:00:00.000Z\tann\t" + b"x" * 3000 + b"\n"
    whole = [line % seq for seq in range(1, 801)]
    whole[3] = b"damage\n"
    path.write_bytes(b"".join(whole))
    assert chatlog.recover(path).seq == 800


def test_a_log_of_which_the_checked_end_is_all_bad_is_refused(tmp_path):
    path = tmp_path / "room.log"
    content = b"".join(LINES) + b"x" * (chatlog.CHECKED_BYTES + 10) + b"\n"
    path.write_bytes(content)
    with pytest.raises(errors.LogCorrupt):
        chatlog.recover(path)
    assert path.read_bytes() == content


def test_a_log_that_somebody_cuts_short_under_a_pool_stops_it_unrepaired(start_pool):
    """Not a fault of a worker, so no respawning helps; not ours to repair either."""
    pool = start_pool()
    pool.expected = ["^papaya-pool: room.log"]
    with pool.join("ann", last=0) as ann:
        ann.say("one", "two", "three")
        ann.read_count(3)
        content = pool.log[:-20]
        pool.log_path.write_bytes(content)
        ann.say("four")
        assert pool.wait() == 78
        assert ann.read_to_end()
    assert pool.log == content
    until(lambda: pool.stderr.count("papaya-pool: room.log") == 1)
