"""kill -9 of a worker at every line of what it does with input, log and output.

Each row of the crash table that a worker's death leads to has a test named after it;
behind them one test a function goes through all of its lines, so that a step that is
added later is killed at, too.  Members of both dialects, on both workers, must have
every message once, and stay connected.
"""

import inspect
import time

import pytest
from harness import PORTABLE, ClassicMember, check_streams, in_session, read_all, until
from seams import find, lines_of

needs_exact_counts = pytest.mark.skipif(
    PORTABLE, reason="this path cannot resume a dead worker's connections"
)

APPEND = "commit.Committer.commit"
ROWS = {  # the crash table: what it did last -> the line that it did not come to
    "asleep": ("worker.Worker._read", "words = self.process.words"),
    "between read and input_read": ("session.Session.feed", "self.read = read + size"),
    "between input_read and append": ("worker.Worker._append", "batch = self._commit"),
    "with the lock, before holder": ("commit.Committer._begin", "head = board.head()"),
    "with holder, before pending": (APPEND, "batch = [_fresh(p)"),
    "in the middle of pending": (APPEND, "words[base + S_PENDING_SEQ] = seq + 1"),
    "between pending and write": ("chatlog.ChatLog.append", "done = 0"),
    "between write and publish": ("scoreboard.Scoreboard.publish", "words = self.words"),
    "in the middle of publish": ("scoreboard.Scoreboard.publish", "words[H_N] = n"),
    "between publish and input_taken": (APPEND, "words[base + S_INPUT_TAKEN] ="),
    "between input_taken and pending = 0": (APPEND, "words[base + S_PENDING_SEQ] = 0"),
    "between pending = 0 and holder = 0": (APPEND, "words[H_HOLDER] = 0"),
    "between holder = 0 and unlock": (APPEND, "self._log.unlock()"),
    "between unlock and latch": (APPEND, "self._latch.set()"),
    "after the latch": (APPEND, "self._count("),
    "between latch and delivery": ("delivery.Delivery.deliver", "begin = self.position"),
    "with the shared lock": ("chatlog.ChatLog.read_lines", "data = "),
    "between two members' sends": ("delivery._write_all", "if sent != size"),
    "between native and classic": ("delivery.Delivery.deliver", "payload = "),
    "between sends and checkpoint": (
        "delivery.Delivery.deliver",
        "self._rendered_bytes += len(payload)",
    ),
}
FUNCTIONS = [
    *["worker.Worker._read", "session.Session.feed", "session.Session.prepare"],
    *["worker.Worker._append", APPEND, "commit.Committer._prepared"],
    *["commit.Committer._begin", "commit.Committer._write", "commit._encoded"],
    *["chatlog.ChatLog.append", "chatlog.ChatLog.cut", "scoreboard.Scoreboard.publish"],
    *["worker.Worker._took", "delivery.Delivery.deliver", "delivery._write_all"],
]


class Room:
    """Members of both dialects on both workers, and what was said so far."""

    def __init__(self, pool):
        self.pool = pool
        until(lambda: pool.sessions() == 0)
        self.before, self.deaths = len(pool.texts()), len(pool.events("reaped"))
        self.members = [pool.join(f"m{n}", last=0) for n in range(4)]
        self.members += [pool.join_classic(name=f"c{n}") for n in range(4)]
        until(lambda: pool.sessions() == len(self.members))
        self.said = []

    def say(self, rounds=1):
        for member in self.members * rounds:
            text = f"message {len(self.said)}"
            member.say(text)
            self.said.append(text)

    def hear(self):
        read_all(self.members, lambda member: self.heard(member) >= len(self.said))

    def heard(self, member):
        """How many of the messages that were said here; a classic one has seven more."""
        of_the_past = min(7, self.before) if isinstance(member, ClassicMember) else 0
        return member.count() - of_the_past

    def check(self):
        self.say()
        self.hear()
        assert sorted(self.pool.texts()[self.before :]) == sorted(self.said)
        check_streams(self.pool.log, self.members)

    def close(self):
        for member in self.members:
            member.close()


@pytest.fixture(scope="module")
def shared_pool(start_shared_pool):
    """One pool for every line: what one test left wrong the next one would see."""
    names = {*FUNCTIONS, *(name for name, _ in ROWS.values())}
    return start_shared_pool(seam=f"lines:{','.join(sorted(names))}")


@pytest.fixture
def shared_room(shared_pool):
    one = Room(shared_pool)
    yield one
    one.close()


@pytest.fixture
def room(start_pool):
    rooms = []

    def open_room(seam, **how):
        rooms.append(Room(start_pool(seam=seam, **how)))
        return rooms[-1]

    yield open_room
    for one in rooms:
        one.close()


def line_with(name, words):
    source, first = inspect.getsourcelines(find(name))
    lines = [n for n, text in enumerate(source, first) if text.strip().startswith(words)]
    assert lines, f"{name} has no line {words!r} any more"
    return lines[0]


def kill_at(room, name, line, patience_s=0.5):
    """Talk until a process has died there; whether one did."""
    pool = room.pool
    before = pool.pids()
    pool.arm(function=name, line=line)
    room.say()
    deadline = time.monotonic() + patience_s
    while pool.armed and time.monotonic() < deadline:
        room.hear()
        room.say()
    died = not pool.armed
    pool.disarm()
    room.hear()
    if died:
        # Its successor must serve before the next one dies: two faults are another test.
        until(lambda: served(pool, before))
    return died


def served(pool, before):
    now = pool.pids()
    new = [role for role in ("w0", "w1") if now.get(role) not in (None, before[role])]
    slots = {slot.pid: slot for slot in pool.board().workers}
    return new and all(
        now.get(role) in slots and slots[now[role]].state == 2 for role in ("w0", "w1")
    )


@needs_exact_counts
@pytest.mark.parametrize("row", ROWS)
def test_a_worker_killed(shared_room, row):
    name, words = ROWS[row]
    assert kill_at(shared_room, name, line_with(name, words), patience_s=5)
    shared_room.check()


@needs_exact_counts
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_worker_killed_at_any_line_of(shared_room, name):
    lines = lines_of(name)
    killed = [line for line in lines if kill_at(shared_room, name, line, 0.1)]
    assert len(killed) * 3 >= len(lines), (killed, lines)
    shared_room.check()
    assert len(shared_room.pool.events("reaped")) == shared_room.deaths + len(killed)


@needs_exact_counts
def test_a_worker_killed_in_the_middle_of_write_at_any_byte(room):
    here = room("torn:")
    for size in [*range(80), 100, 150, 200]:
        before = here.pool.pids()
        here.pool.arm(bytes=size)
        here.say()
        until(lambda: not here.pool.armed)
        here.hear()
        until(lambda before=before: served(here.pool, before))
    here.check()


@needs_exact_counts
def test_a_worker_killed_in_the_middle_of_a_long_write(room):
    here = room("torn:")
    for size in (1, 4095, 4096, 4097, 8191, 8192, 12288):
        before = here.pool.pids()
        for member in here.members[:4]:
            member.say(*["x" * 2000] * 5)
        here.pool.arm(bytes=size)
        here.say()
        until(lambda: not here.pool.armed)
        until(lambda before=before: served(here.pool, before))
    texts = ["x" * 2000] * 140
    read_all(here.members, lambda member: member.count() == 140 + len(here.said))
    assert sorted(here.pool.texts()) == sorted(here.said + texts)
    check_streams(here.pool.log, here.members)


@needs_exact_counts
def test_both_workers_killed_one_after_the_other_again_and_again(room):
    here = room(None)
    for n in range(30):
        here.say()
        here.pool.kill_and_wait(f"w{n % 2}")
    here.hear()
    here.check()


@needs_exact_counts
def test_all_workers_killed_at_once(room):
    here = room(None, workers=4)
    for _ in range(5):
        here.say()
        pids = {role: here.pool.kill(role) for role in ("w0", "w1", "w2", "w3")}
        here.say()
        for role, pid in pids.items():
            here.pool.replaced(role, pid)
        here.hear()
    here.check()


@needs_exact_counts
def test_a_worker_killed_between_two_starts_of_its_successors(room):
    """Killed again and again before it can serve: later each time, but it comes back."""
    here = room(None)
    for _ in range(10):
        pids = here.pool.pids()
        here.pool.kill("w0")
        until(lambda pids=pids: here.pool.pids().get("w0") not in (None, pids["w0"]))
    here.say()
    here.hear()
    here.check()


def test_where_counts_are_not_exact_a_dead_workers_members_end_and_the_log_stands(
    start_pool,
):
    """What was said whole is in the log at most once, and who comes back reads on."""
    pool = start_pool(env={"PAPAYA_PORTABLE": "1"})
    for n in range(10):
        with pool.join("ann", last=0) as ann, pool.join_classic() as carol:
            ann.say(f"{n} ann")
            carol.say(f"{n} carol")
            read_all([ann, carol], lambda member: member.count() >= 2)
            seq = ann.records()[-1].seq
            pids = pool.worker_pids()
            for role in ("w0", "w1"):
                pool.kill(role)
            assert (ann.read_to_end(), carol.read_to_end()) == ("fin", "fin")
            until(lambda pids=pids: not set(in_session(pool.pid)) & set(pids))
        with pool.join("ann", since=seq) as ann:
            ann.say(f"{n} again")
            ann.read_text(f"{n} again")
    said = [f"{n} {who}" for n in range(10) for who in ("ann", "carol", "again")]
    assert sorted(pool.texts()) == sorted(said)
