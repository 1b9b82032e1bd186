"""The shared block: the head of the log, a slot a process, a slot a session.

This is not a cache that can be rebuilt.  Beside the log and the kernel it is the
third truth: what was read from a member and is not in the log yet stands in its
ring here and nowhere else, so that any process can go on with it (laws 4 to 10).

Format:  one array of unsigned 64-bit words, native order, every field in one
         aligned word: such a store is seen whole or not at all, while one that
         crosses a cache line tears (tests/fault/test_torn_counter.py).
Owner:   PROTOCOLS.md has a line for every field: who writes it, under what, and
         what a stale read costs.  One writer for each field at a time.
Order:   publish() fills the triple that nobody reads, then stores one word.
Not here: SharedMemory(name=...) to attach.  Before Python 3.13 the process that
         attaches unlinks the block when it exits (cpython gh-82300); look()
         maps the file instead, and only to read.
"""

import contextlib
import mmap
import os
import secrets
import struct
from collections.abc import Iterator
from multiprocessing import shared_memory
from typing import NamedTuple, Self

from papaya_pool import errors

MAGIC = int.from_bytes(b"papaya02", "little")
SHM = "/dev/shm"
PAGE = 4096

# --- words of the head ---------------------------------------------------------------
(H_MAGIC, H_WORKERS, H_SESSIONS, H_RING, H_STARTED_MS, H_INCARNATIONS, H_PORT) = range(7)
H_N, H_HOLDER, H_REFUSED = 8, 9, 10  # the disk did not take the last append
H_TOKENS = 11  # how many tokens were remembered in all
H_TRIPLE = 16  # and 24: (seq, tail, time_ms), each in a cache line of its own
H_MOVED_TO, H_LOG_ID, H_MOVED_FROM = 256, 320, 384  # texts: byte offsets

# --- words of a process slot ---------------------------------------------------------
# The first line is the supervisor's, the others are the process's own.
(P_PID, P_INCARNATION, P_GENERATION, P_STATE, P_STARTED_MS) = range(5)
(P_DEADLINE_NS, P_WAITING, P_SESSIONS, P_IN_HAND, P_POSITION, P_LAG) = range(8, 14)
(P_MESSAGES, P_LINES, P_BYTES_IN, P_DELIVERIES, P_BYTES_OUT, P_LOCK_NS) = range(16, 22)
(P_MOVES_IN, P_MOVES_OUT, P_TORN, P_ADMITTED, P_REFUSED) = range(22, 27)
P_CHECK_N, P_CHECK = 32, 33  # and 35: (position, rendered bytes) of classic in step
PROCESS_WORDS = 40

EMPTY, STARTING, SERVING, DRAINING, DRAINED, STOPPING = range(6)
STATES = ("empty", "starting", "serving", "draining", "drained", "stopping")

# Roles behind the workers' slots, in this order.
ACCEPTOR, SYNCER, SUPERVISOR = range(3)
ROLES = ("acceptor", "syncer", "supervisor")

# --- words of a session slot ---------------------------------------------------------
(S_STATE, S_GENERATION, S_OWNER, S_SEATED) = range(4)
(S_DIALECT, S_WRITTEN_BEFORE, S_START, S_HISTORY_END, S_PREAMBLE_SIZE) = range(4, 9)
(S_INPUT_READ, S_INPUT_TAKEN, S_LINES_TAKEN) = range(9, 12)
(S_PENDING_POSITION, S_PENDING_LINES, S_PENDING_SEQ) = range(12, 15)
(S_ENDING, S_EXACT, S_WRITTEN) = range(15, 18)
S_CHECK_N, S_CHECK = 19, 20  # S_CHECK and S_CHECK + 2: (offset, written)
(S_SINCE_MS, S_INPUT_MS, S_MOVES, S_CPU_NS, S_MESSAGES) = range(24, 29)
(S_DEATHS, S_DEATH_TAKEN, S_ALONE, S_BYTES_OUT, S_LAG) = range(29, 34)
S_IN_STEP, S_DELTA, S_TAKEN_BEFORE = 34, 35, 36
SESSION_WORDS = 80
NAME_AT, ADDRESS_AT, TOKEN_AT, PREAMBLE_AT = 320, 384, 448, 480
PREAMBLE_BYTES = SESSION_WORDS * 8 - PREAMBLE_AT

# --- a remembered token: 32 hex digits, then three words ---
TOKEN_BYTES = 56
_TOKEN = struct.Struct("=32sQQQ")  # token, name, lines taken, when it was forgotten
TOKEN_LIFE_MS = 600_000

FREE, CLAIMED, LIVE, CLOSING = range(4)
NATIVE, CLASSIC = range(2)
DIALECTS = ("native", "classic")


class Head(NamedTuple):
    """What is published: the last seq, the offset behind its line, its time."""

    seq: int
    tail: int
    time_ms: int


def _word(at: int) -> property:
    """A field of a slot, as an attribute, for code that is not counted in µs."""

    def load(slot: "ProcessSlot | SessionSlot") -> int:
        return slot.words[slot.base + at]

    def store(slot: "ProcessSlot | SessionSlot", value: int) -> None:
        slot.words[slot.base + at] = value

    return property(load, store)


def _pair(words: memoryview, at: int) -> tuple[int, int]:
    """Two words that change as one: a number, then two pairs, see _publish_pair()."""
    pair = at + 1 + 2 * (words[at] & 1)
    return words[pair], words[pair + 1]


def _publish_pair(words: memoryview, at: int, first: int, second: int) -> None:
    """Published as the head is, so that no successor sees half of a change."""
    n = words[at] + 1
    pair = at + 1 + 2 * (n & 1)
    words[pair], words[pair + 1] = first, second
    words[at] = n


class ProcessSlot:
    """One process's words."""

    __slots__ = ("base", "number", "words")

    pid, incarnation, generation = _word(P_PID), _word(P_INCARNATION), _word(P_GENERATION)
    state, started_ms = _word(P_STATE), _word(P_STARTED_MS)
    deadline_ns, waiting = _word(P_DEADLINE_NS), _word(P_WAITING)
    sessions, in_hand = _word(P_SESSIONS), _word(P_IN_HAND)
    position, lag = _word(P_POSITION), _word(P_LAG)
    messages, lines, bytes_in = _word(P_MESSAGES), _word(P_LINES), _word(P_BYTES_IN)
    deliveries, bytes_out = _word(P_DELIVERIES), _word(P_BYTES_OUT)
    lock_ns, torn = _word(P_LOCK_NS), _word(P_TORN)
    moves_in, moves_out = _word(P_MOVES_IN), _word(P_MOVES_OUT)
    admitted, refused = _word(P_ADMITTED), _word(P_REFUSED)

    def __init__(self, words: memoryview, base: int, number: int) -> None:
        self.words, self.base, self.number = words, base, number

    def check(self) -> tuple[int, int]:
        """(position, rendered bytes) to which classic members in step were sent."""
        return _pair(self.words, self.base + P_CHECK_N)

    def set_check(self, position: int, rendered_bytes: int) -> None:
        _publish_pair(self.words, self.base + P_CHECK_N, position, rendered_bytes)


class SessionSlot:
    """One session's words and texts."""

    __slots__ = ("base", "number", "octets", "words")

    state, generation = _word(S_STATE), _word(S_GENERATION)
    owner, seated = _word(S_OWNER), _word(S_SEATED)
    dialect, written_before = _word(S_DIALECT), _word(S_WRITTEN_BEFORE)
    start, history_end = _word(S_START), _word(S_HISTORY_END)
    preamble_size = _word(S_PREAMBLE_SIZE)
    input_read, input_taken = _word(S_INPUT_READ), _word(S_INPUT_TAKEN)
    lines_taken, pending_seq = _word(S_LINES_TAKEN), _word(S_PENDING_SEQ)
    pending_position, pending_lines = _word(S_PENDING_POSITION), _word(S_PENDING_LINES)
    ending, exact = _word(S_ENDING), _word(S_EXACT)
    written = _word(S_WRITTEN)
    since_ms, input_ms, moves = _word(S_SINCE_MS), _word(S_INPUT_MS), _word(S_MOVES)
    cpu_ns, messages = _word(S_CPU_NS), _word(S_MESSAGES)
    deaths, death_taken, alone = _word(S_DEATHS), _word(S_DEATH_TAKEN), _word(S_ALONE)
    bytes_out, lag = _word(S_BYTES_OUT), _word(S_LAG)
    taken_before = _word(S_TAKEN_BEFORE)

    def __init__(
        self, words: memoryview, octets: memoryview, base: int, number: int
    ) -> None:
        self.words, self.octets, self.base, self.number = words, octets, base, number

    @property
    def name(self) -> str:
        return self._text(NAME_AT, 64).decode("utf-8", "replace")

    @name.setter
    def name(self, name: str) -> None:
        self._put(NAME_AT, 64, name.encode())

    @property
    def address(self) -> str:
        return self._text(ADDRESS_AT, 64).decode("ascii", "replace")

    @address.setter
    def address(self, address: str) -> None:
        self._put(ADDRESS_AT, 64, address.encode()[:64])

    @property
    def token(self) -> bytes:
        return self._text(TOKEN_AT, 32)

    @token.setter
    def token(self, token: bytes) -> None:
        self._put(TOKEN_AT, 32, token)

    @property
    def preamble(self) -> bytes:
        at = self.base * 8 + PREAMBLE_AT
        return bytes(self.octets[at : at + self.preamble_size])

    @preamble.setter
    def preamble(self, preamble: bytes) -> None:
        self._put(PREAMBLE_AT, PREAMBLE_BYTES, preamble)
        self.preamble_size = len(preamble)

    def check(self) -> tuple[int, int]:
        """The classic checkpoint: (log offset at a line's end, written there)."""
        return _pair(self.words, self.base + S_CHECK_N)

    def set_check(self, offset: int, written: int) -> None:
        """Move the checkpoint; a session that was in step is no longer."""
        _publish_pair(self.words, self.base + S_CHECK_N, offset, written)
        self.words[self.base + S_IN_STEP] = 0

    def step_in(self, delta: int) -> None:
        """From now on the worker's own check, plus `delta`, is this session's."""
        self.words[self.base + S_DELTA] = delta % (1 << 64)
        self.words[self.base + S_IN_STEP] = 1

    def step_out(self, position: int, rendered_bytes: int) -> None:
        """Make the checkpoint the session's own again, if it was its worker's."""
        if self.words[self.base + S_IN_STEP]:
            delta = self.words[self.base + S_DELTA]
            self.set_check(position, (rendered_bytes + delta) % (1 << 64))

    def clear(self) -> None:
        """Forget everything but the generation.  For who claims a free slot."""
        for at in range(self.base + S_OWNER, self.base + SESSION_WORDS):
            self.words[at] = 0

    def _text(self, at: int, size: int) -> bytes:
        at += self.base * 8
        return bytes(self.octets[at : at + size]).rstrip(b"\0")

    def _put(self, at: int, size: int, text: bytes) -> None:
        at += self.base * 8
        self.octets[at : at + size] = text.ljust(size, b"\0")


class Scoreboard:
    """The whole block, made once by the supervisor and inherited by all."""

    def __init__(self, octets: memoryview, name: str, keep: object = None) -> None:
        self.octets, self.name, self._keep = octets, name, keep
        self.words = octets.cast("Q")
        self.worker_count = self.words[H_WORKERS]
        self.session_count = self.words[H_SESSIONS]
        self.ring_bytes = self.words[H_RING]
        self._next_slot = 0  # where this process looks for a free one
        self._sessions_at = (PAGE + _processes_bytes(self.worker_count)) // 8
        self._tokens_at = self._sessions_at * 8 + self.session_count * SESSION_WORDS * 8
        self._rings_at = _rings_at(self.worker_count, self.session_count)
        processes = self.worker_count + len(ROLES)
        self.processes = [self._process(n) for n in range(processes)]
        self.workers = self.processes[: self.worker_count]
        self.acceptor, self.syncer, self.supervisor = self.processes[-3:]

    @classmethod
    def create(cls, room: int, workers: int, sessions: int, ring_bytes: int) -> Self:
        """Make a new block for a room.  Raises CannotCreate where /dev/shm is too small."""
        size = block_bytes(workers, sessions, ring_bytes)
        if free_bytes() < size:
            raise errors.CannotCreate(
                f"{SHM} has {free_bytes() >> 20} MiB free and {sessions} sessions "
                f"need {size >> 20} MiB: lower --max-clients"
            )
        name = f"{prefix(room)}{secrets.token_hex(6)}"
        with _untracked():
            block = shared_memory.SharedMemory(name, create=True, size=size)
        assert block.buf is not None
        head = (MAGIC, workers, sessions, ring_bytes)
        struct.pack_into(f"={len(head)}Q", block.buf, 0, *head)
        return cls(block.buf, name, block)

    def unlink(self) -> None:
        """Take the block's name away, and our own view of it.  Who made it, at the end."""
        assert isinstance(self._keep, shared_memory.SharedMemory)
        with contextlib.suppress(FileNotFoundError), _untracked():
            self._keep.unlink()
        self.words.release()  # else the block complains of it when it is closed
        self._keep.close()

    # --- the head ---

    def head(self) -> Head:
        """What is published now.  Never torn: a triple is filled while unread."""
        words = self.words
        while True:
            n = words[H_N]
            at = H_TRIPLE + 8 * (n & 1)
            triple = Head(words[at], words[at + 1], words[at + 2])
            if words[H_N] == n:
                return triple

    def publish(self, seq: int, tail: int, time_ms: int) -> None:
        """Announce that the log's lines up to `seq` stand.  Hold the log's lock."""
        words = self.words
        n = words[H_N] + 1
        at = H_TRIPLE + 8 * (n & 1)
        words[at], words[at + 1], words[at + 2] = seq, tail, time_ms
        words[H_N] = n  # the append happens here, at this one store (law 4)

    @property
    def moved_to(self) -> str:
        if not self.octets[H_MOVED_TO]:
            return ""
        return bytes(self.octets[H_MOVED_TO : H_MOVED_TO + 64]).rstrip(b"\0").decode()

    @moved_to.setter
    def moved_to(self, name: str) -> None:
        text = name.encode().ljust(64, b"\0")
        self.octets[H_MOVED_TO + 1 : H_MOVED_TO + 64] = text[1:]
        self.octets[H_MOVED_TO] = text[0]  # last: what readers look at

    @property
    def moved_from(self) -> str:
        """The block whose head this one's was, or nothing."""
        at = H_MOVED_FROM
        return bytes(self.octets[at : at + 64]).rstrip(b"\0").decode()

    @moved_from.setter
    def moved_from(self, name: str) -> None:
        self.octets[H_MOVED_FROM : H_MOVED_FROM + 64] = name.encode().ljust(64, b"\0")

    @property
    def log_id(self) -> str:
        return bytes(self.octets[H_LOG_ID : H_LOG_ID + 16]).rstrip(b"\0").decode()

    @log_id.setter
    def log_id(self, log_id: str) -> None:
        self.octets[H_LOG_ID : H_LOG_ID + 16] = log_id.encode()[:16].ljust(16, b"\0")

    def new_incarnation(self) -> int:
        """A number that no process of this block had before.  Supervisor only."""
        self.words[H_INCARNATIONS] += 1
        return self.words[H_INCARNATIONS]

    # --- tokens: how many lines of a session were dealt with, after it is gone ---

    def remember(self, token: bytes, name: int, taken: int, now_ms: int) -> None:
        """Note what a session with a token came to.  Supervisor only, before it frees.

        The table holds twice as many as there are slots; the oldest is forgotten.
        """
        at = self.words[H_TOKENS] % (2 * self.session_count)
        entry = (token, name, taken, now_ms + TOKEN_LIFE_MS)
        _TOKEN.pack_into(self.octets, self._tokens_at + at * TOKEN_BYTES, *entry)
        self.words[H_TOKENS] += 1

    def recall(self, token: bytes, name: int, now_ms: int) -> int | None:
        """How many lines of a remembered token were dealt with; None if it is unknown."""
        table = self.octets[self._tokens_at :][: 2 * self.session_count * TOKEN_BYTES]
        found: int | None = None  # of several entries the last, which has the most
        at, raw = -1, bytes(table)
        while (at := raw.find(token, at + 1)) >= 0:
            _, of_name, taken, forgotten_ms = _TOKEN.unpack_from(raw, at)
            if at % TOKEN_BYTES == 0 and of_name == name and forgotten_ms > now_ms:
                found = max(found or 0, taken)
        return found

    def inherit_tokens(self, old: Self) -> None:
        """Know what another pool's block remembers."""
        for at in range(min(old.words[H_TOKENS], 2 * old.session_count)):
            entry = _TOKEN.unpack_from(old.octets, old._tokens_at + at * TOKEN_BYTES)
            self.remember(entry[0], entry[1], entry[2], entry[3] - TOKEN_LIFE_MS)

    # --- slots ---

    def _process(self, number: int) -> ProcessSlot:
        return ProcessSlot(self.words, PAGE // 8 + number * PROCESS_WORDS, number)

    def session(self, number: int) -> SessionSlot:
        base = self._sessions_at + number * SESSION_WORDS
        return SessionSlot(self.words, self.octets, base, number)

    def claim(self) -> SessionSlot | None:
        """A free slot, claimed under a new generation; None if every slot is taken.

        By the acceptor, or before there is one: never by two at once.
        """
        for step in range(self.session_count):
            slot = self.session((self._next_slot + step) % self.session_count)
            if slot.state == FREE:
                self._next_slot = (slot.number + 1) % self.session_count
                slot.generation += 1
                slot.clear()
                slot.state = CLAIMED
                return slot
        return None

    def sessions(self) -> Iterator[SessionSlot]:
        """Every slot that is not free, without making objects for those that are."""
        words, base = self.words, self._sessions_at
        for number in range(self.session_count):
            if words[base + number * SESSION_WORDS]:
                yield self.session(number)

    def pending(self) -> Iterator[SessionSlot]:
        """Every slot whose input stands in an append that nobody settled yet."""
        words, base = self.words, self._sessions_at + S_PENDING_SEQ
        for number in range(self.session_count):
            if words[base + number * SESSION_WORDS]:
                yield self.session(number)

    def ring(self, number: int) -> memoryview:
        """The ring in which byte o of the session's stream stands at o % size."""
        at = self._rings_at + number * self.ring_bytes
        return self.octets[at : at + self.ring_bytes]

    def owner_of(self, incarnation: int) -> ProcessSlot | None:
        """The slot whose process has that incarnation, if one has."""
        for slot in self.workers:
            if slot.incarnation == incarnation:
                return slot
        return None


# --- sizes, and the block's file -----------------------------------------------------


def _processes_bytes(workers: int) -> int:
    return (workers + len(ROLES)) * PROCESS_WORDS * 8


def _rings_at(workers: int, sessions: int) -> int:
    each = SESSION_WORDS * 8 + 2 * TOKEN_BYTES
    end = PAGE + _processes_bytes(workers) + sessions * each
    return -(-end // PAGE) * PAGE


def prefix(room: int) -> str:
    """How the names of all blocks of a room begin; `room` is its directory's inode."""
    return f"papaya-{room:x}-"


def sweep(room: int, keep: list[str]) -> None:
    """Take away what dead pools of a room left.  Who holds the room's `pid` only."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(SHM):
            if name.startswith(prefix(room)) and name not in keep:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{SHM}/{name}")


def block_bytes(workers: int, sessions: int, ring_bytes: int) -> int:
    return _rings_at(workers, sessions) + sessions * ring_bytes


def free_bytes() -> int:
    """What is free for shared memory; a touched page beyond it would be SIGBUS."""
    try:
        space = os.statvfs(SHM)
    except FileNotFoundError:  # not Linux: no such limit
        return 1 << 40
    return space.f_bavail * space.f_frsize


def look(name: str, writable: bool = False) -> Scoreboard:
    """Map a block by name.  Raises FileNotFoundError, or ValueError if it is none.

    Read-only unless told: who watches a pool cannot disturb it (law 12).
    """
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    fd = os.open(f"{SHM}/{name}", os.O_RDWR if writable else os.O_RDONLY)
    try:
        mapping = mmap.mmap(fd, 0, access=access)
    finally:
        os.close(fd)
    if len(mapping) < PAGE or struct.unpack_from("=Q", mapping)[0] != MAGIC:
        raise ValueError(f"{name} is no scoreboard of this version")
    return Scoreboard(memoryview(mapping), name, mapping)


class _NoTracker:
    """Stands in for multiprocessing's resource tracker, which would start a process."""

    def register(self, name: str, kind: str) -> None: ...

    def unregister(self, name: str, kind: str) -> None: ...


@contextlib.contextmanager
def _untracked() -> Iterator[None]:
    """What Python 3.13 calls track=False: the block's life is the supervisor's word."""
    tracker = shared_memory.resource_tracker  # type: ignore[attr-defined]
    shared_memory.resource_tracker = _NoTracker()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        shared_memory.resource_tracker = tracker  # type: ignore[attr-defined]
