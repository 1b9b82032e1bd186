"""One member's connection, in the worker that owns it now.

A session is an offset into the log and a ring of unread input.  Both live outside
this process (the kernel's counters, the scoreboard), so this object can be made
again by any worker at any time: see `seat`.  What readers get wrong: nothing here
is a buffer of output.  The log is.

Owner:   the worker whose incarnation stands in the slot's `owner` (law 6).
Order:   input is read straight into the ring, then `input_read` is stored.  A
         buffer of ours in between would die with the process (law 8).
Not here: what is sent to members who are up to date; see delivery.py.
"""

import contextlib
import os
import socket
from typing import NamedTuple

from papaya_pool import errors, records, wirecount
from papaya_pool.scoreboard import (
    CLASSIC,
    NATIVE,
    S_INPUT_READ,
    S_INPUT_TAKEN,
    Scoreboard,
    SessionSlot,
)


class Prepared(NamedTuple):
    """What a session has for the log: parsed before the lock, checked under it."""

    session: "Session"
    taken: int  # `input_taken` that this was parsed from
    position: int  # `input_taken` when it is in the log
    lines: int
    runs: list[tuple[bytes, list[bytes]]]  # (name, texts), in order
    fault: errors.SessionFault | None  # what is wrong with the line behind them


class Session:
    """A seated session.  All offsets are bytes; `offset` and `end_at` are the log's."""

    __slots__ = (
        "base", "broken", "counted_in", "delta", "dialect", "end_at", "ended_s", "eof", "fault",
        "fd", "fell_at", "generation", "mask", "name", "number", "offset", "origin",
        "read", "ring", "ring_bytes", "skip", "slot", "unsent", "words",
    )  # fmt: skip

    def __init__(self, board: Scoreboard, slot: SessionSlot, fd: int) -> None:
        self.fd, self.slot, self.number = fd, slot, slot.number
        self.generation, self.dialect = slot.generation, slot.dialect
        self.words, self.base = slot.words, slot.base
        self.ring, self.ring_bytes = board.ring(slot.number), board.ring_bytes
        self.name = slot.name.encode()
        self.read = self.counted_in = slot.input_read
        # In native, log offset = origin + bytes written: the kernel's own cursor.
        self.origin = slot.start - slot.written_before - slot.preamble_size
        self.offset = slot.start  # in classic always at the beginning of a line
        self.skip = 0  # classic: bytes of the rendering from `offset` on already sent
        self.delta = 0  # classic, in step: written - what the step was sent
        self.unsent = b""  # of the preamble
        self.end_at: int | None = None  # send up to here, then end
        self.fell_at = 0  # seq up to which deliveries were counted
        self.mask = 0  # what the poller watches
        self.eof = False  # nothing more will come
        self.broken = False  # nothing more can be sent
        self.fault: errors.SessionFault | None = None
        self.ended_s = 0.0  # when input is no longer waited for

    # --- input ---

    def feed(self) -> bool:
        """Read once into the ring; whether anything came.  Sets `eof` at the end."""
        read = self.read
        room = self.ring_bytes - (read - self.words[self.base + S_INPUT_TAKEN])
        at = read % self.ring_bytes
        if at + room <= self.ring_bytes:
            views = [self.ring[at : at + room]]
        else:
            views = [self.ring[at:], self.ring[: at + room - self.ring_bytes]]
        try:
            size = os.readv(self.fd, views)
        except BlockingIOError:
            return False
        except OSError:  # reset, timed out, unreachable: what was queued was read before
            self.broken = True
            size = 0
        if not size and room:
            self.eof = True
            return False
        self.read = read + size
        self.words[self.base + S_INPUT_READ] = self.read
        return size > 0

    def read_what_is_left(self) -> None:
        """Of a connection that was reset: everything, or nothing if there is a hole.

        Its last owner may have died after it read and before it said so, and after
        a reset the kernel cannot tell.  What follows such a hole is torn.
        """
        known = self.read
        while self.feed():
            pass
        if not self.is_full and not wirecount.is_whole(self.fd, self.read):
            self.read = self.slot.input_read = known

    @property
    def is_full(self) -> bool:
        """Whether the ring has no room: its input waits in the kernel, unread."""
        unread: int = self.read - self.words[self.base + S_INPUT_TAKEN]
        return unread >= self.ring_bytes

    def prepare(self) -> Prepared | None:
        """The whole lines that are in the ring and not in the log; None if none are."""
        taken = self.words[self.base + S_INPUT_TAKEN]
        data = self._between(taken, self.read)
        end = data.rfind(b"\n") + 1
        got = records.take(data[:end])
        fault = None
        if got.size_bytes < end or records.is_too_long(data[end:]):
            fault = errors.SessionFault("too-long", "a line has at most 4096 bytes")
        if not got.lines and not fault:
            return None
        runs = [(self.name, got.texts)]
        if self.dialect == CLASSIC:
            runs = records.spoken(got.texts)
        return Prepared(self, taken, taken + got.size_bytes, got.lines, runs, fault)

    def _between(self, begin: int, end: int) -> bytes:
        size = self.ring_bytes
        at, to = begin % size, end % size
        if begin == end:
            return b""
        if at < to:
            return bytes(self.ring[at:to])
        return bytes(self.ring[at:]) + bytes(self.ring[:to])

    # --- output ---

    def shut(self) -> None:
        """Say that nothing more comes.  What was written still arrives."""
        with contextlib.suppress(OSError), wirecount.borrowed(self.fd) as conn:
            conn.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Give the descriptor up, and the connection with it.

        The supervisor's dup would keep a merely closed connection open.
        """
        with contextlib.suppress(OSError), wirecount.borrowed(self.fd) as conn:
            conn.shutdown(socket.SHUT_RDWR)
        os.close(self.fd)


def seat(board: Scoreboard, slot: SessionSlot, fd: int, exact_counts: bool) -> Session:
    """Go on with a session at the exact byte.  Its owner only, after storing `seated`.

    A giver that lives wrote down where it stopped (`exact`).  After one that died
    only the kernel knows; where it cannot tell (`exact_counts` is False) the
    session is marked broken, and ends when its input is in the log.
    """
    session = Session(board, slot, fd)
    written = slot.written
    if not slot.exact:
        if exact_counts:
            count = wirecount.count(fd)
            written, session.broken = count.written, count.is_over
            if not count.is_over:  # else the owner's last word is the best there is
                session.read = slot.input_read = count.consumed
            if count.fin_sent:
                slot.ending = 1
        else:  # what else it sent cannot be told from what was read already
            session.broken = session.eof = True
    slot.exact = 0
    done = written - slot.written_before
    if done < slot.preamble_size:
        session.unsent = slot.preamble[max(0, done) :]
    elif session.dialect == NATIVE:
        session.offset = session.origin + written
    else:
        session.offset, at_check = slot.check()
        session.skip = written - at_check
    return session


def note_position(session: Session, written: int) -> None:
    """Write down where a session is to be gone on with, for its next owner."""
    session.slot.written = written
    session.slot.exact = 1
