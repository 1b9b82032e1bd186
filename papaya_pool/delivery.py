"""What members are sent: the log, from where each of them is.

Members who were sent everything up to the worker's position are *in step*: what
comes next is read once, rendered once a dialect, and written to all of them.  Who
cannot take all of it *falls behind* and is served from the log, with sendfile,
whenever its socket has room, until it has caught up.  So a member that reads
slowly costs an offset, and a member that never reads costs nothing.

Order:   look at the head after the latch was re-armed; LOCK_SH for one bounded
         read a publish, never while sending (law 3).  Bytes below the tail never
         change, so those who are behind need no lock.
Failure: a connection that breaks is marked and taken out; its input is still read
         to the end by the worker.
"""

import enum
import os
import time
from collections.abc import Callable

from papaya_pool import chatlog, errors, poller, records
from papaya_pool.scoreboard import (
    CLASSIC,
    NATIVE,
    P_BYTES_OUT,
    P_DELIVERIES,
    P_POSITION,
    S_BYTES_OUT,
    S_CPU_NS,
    S_INPUT_READ,
    S_LAG,
    Head,
    ProcessSlot,
    Scoreboard,
)
from papaya_pool.session import Session

_INPUT_WEIGHT = 20  # a byte that came costs about that many that go
_CATCH_UP_BYTES = 1 << 18  # sent to one member before the others' turn
_RENDERED_BYTES = 1 << 20  # of classic renderings kept for those just behind


class Outcome(enum.Enum):
    """How far a look at the head came."""

    DONE = 1  # members in step have everything
    MORE = 2  # there is another batch
    LOCKED = 3  # somebody else has the log locked


class Delivery:
    """One worker's members and what they are sent."""

    def __init__(
        self,
        board: Scoreboard,
        process: ProcessSlot,
        log: chatlog.ChatLog,
        events: poller.Poller,
        batch_bytes: int,
    ) -> None:
        head = board.head()
        self.position, self.seq = head.tail, head.seq
        self.in_step: tuple[dict[int, Session], dict[int, Session]] = ({}, {})
        self.behind: dict[int, Session] = {}
        self.finished: list[Session] = []  # have all that they are to get
        self._ahead: list[Session] = []  # begin where this worker has not come to yet
        self._rendered_bytes = 0  # what a classic member in step was sent in all
        self._renderings: dict[int, tuple[int, bytes]] = {}
        self._board, self._process, self._log = board, process, log
        self._events, self._batch_bytes = events, batch_bytes
        self._stale = True  # the figures in the slots
        self._cpu_ns = time.process_time_ns()
        process.position = self.position

    # --- who is where ---

    @property
    def has_members(self) -> bool:
        return bool(any(self.in_step) or self.behind or self._ahead)

    def join(self, session: Session) -> None:
        """Begin to send to a session that was just seated."""
        if not self.has_members:
            self._skip_to(self._board.head())
        session.fell_at = self.seq
        self._stale = True
        self._place(session)

    def _skip_to(self, head: Head) -> None:
        self.position, self.seq = head.tail, head.seq
        self._process.position = self.position

    def finish_at(self, session: Session, end: int) -> None:
        """Send a session what there is up to `end`, and then nothing more."""
        self.leave(session)
        session.end_at = end
        self._place(session)

    def _place(self, session: Session) -> None:
        """Put a session that is in no set where it belongs now."""
        rest = session.unsent or session.skip
        if session.broken or (
            not rest and session.end_at is not None and session.offset >= session.end_at
        ):
            self.finished.append(session)
        elif not rest and session.end_at is None and session.offset >= self.position:
            if session.offset > self.position:
                self._ahead.append(session)
                self.watch(session, session.mask & ~poller.OUT)
            else:
                self._step_in(session)
        else:
            self.behind[session.fd] = session
            self.watch(session, session.mask | poller.OUT)

    def _step_in(self, session: Session) -> None:
        if session.dialect == CLASSIC:
            self._process.set_check(self.position, self._rendered_bytes)
            session.delta = self.written(session) - self._rendered_bytes
            session.slot.step_in(session.delta)
        self.in_step[session.dialect][session.fd] = session
        self.watch(session, session.mask & ~poller.OUT)
        words, base = self._process.words, self._process.base
        words[base + P_DELIVERIES] += max(0, self.seq - session.fell_at)

    def leave(self, session: Session) -> int:
        """Stop sending to a session; return what it was written, in all."""
        written = self.written(session)
        if self.in_step[session.dialect].pop(session.fd, None):
            session.offset, session.skip = self.position, 0
            session.fell_at = self.seq
            if session.dialect == CLASSIC:
                session.slot.set_check(self.position, written)
        elif not self.behind.pop(session.fd, None) and session in self._ahead:
            self._ahead.remove(session)
        return written

    def written(self, session: Session) -> int:
        """What the kernel took for a session since it was accepted, by our books."""
        if session.fd in self.in_step[session.dialect]:
            if session.dialect == CLASSIC:
                written: int = self._rendered_bytes + session.delta
            else:
                written = self.position - session.origin
        elif session.dialect == CLASSIC:
            written = session.slot.check()[1] + session.skip
        else:
            written = session.offset - session.origin - len(session.unsent)
        return written

    def account(self) -> None:
        """Write down where everybody is, and what they cost, for papaya-top.

        CPU time is shared out by the bytes that went to a member and, weighing
        more since each is parsed, formatted and stored, those that came from it.
        """
        if not self._stale and not self.behind:
            return
        self._stale = bool(self.behind)
        tail, worst = self._board.head().tail, 0
        shares: list[tuple[Session, int]] = []
        for members in (*self.in_step, self.behind):
            for session in members.values():
                at = session.offset if members is self.behind else self.position
                words, base = session.words, session.base
                written = self.written(session)
                new_out = written - words[base + S_BYTES_OUT]
                new_in = words[base + S_INPUT_READ] - session.counted_in
                shares.append((session, max(0, new_out) + _INPUT_WEIGHT * new_in))
                session.counted_in += new_in
                words[base + S_BYTES_OUT] = written
                words[base + S_LAG] = tail - min(at, tail)
                worst = max(worst, tail - at)
        self._process.lag = max(0, worst)
        cpu_ns = time.process_time_ns()
        unit = (cpu_ns - self._cpu_ns) / max(1, sum(share for _, share in shares))
        self._cpu_ns = cpu_ns
        for session, share in shares:
            session.words[session.base + S_CPU_NS] += int(share * unit)

    def watch(self, session: Session, mask: int) -> None:
        if mask != session.mask:
            session.mask = mask
            self._events.modify(session.fd, mask or poller.QUIET)

    # --- to those in step ---

    def deliver(self) -> Outcome:
        """Send what is new, at most one batch."""
        head = self._board.head()
        begin = self.position
        if head.tail == begin:
            return Outcome.DONE
        if not self.has_members:
            self._skip_to(head)
            return Outcome.DONE
        if not self._log.try_shared():
            return Outcome.LOCKED
        head = self._board.head()  # again: where stores are reordered, only the lock orders them
        data = self._log.read_lines(begin, head.tail, self._batch_bytes)
        self._log.unlock()
        if not data:
            raise errors.LogCorrupt(f"room.log ends before {head.tail}, which was published")
        self.position = begin + len(data)
        self._stale = True
        count = data.count(b"\n")
        self.seq += count
        words, base = self._process.words, self._process.base
        native, classic = self.in_step
        words[base + P_DELIVERIES] += count * (len(native) + len(classic))
        if native:
            short = _write_all(native, data)
            for fd, sent in short:
                self._fall_behind(native.pop(fd), begin + max(sent, 0), 0, sent)
            words[base + P_BYTES_OUT] += len(data) * len(native)
        if classic:
            payload = records.closed_with_nul(records.rendered(data))
            self._remember(begin, payload)
            for fd, sent in _write_all(classic, payload):
                session = classic.pop(fd)
                session.slot.set_check(begin, self._rendered_bytes + session.delta)
                self._fall_behind(session, begin, max(sent, 0), sent)
            self._rendered_bytes += len(payload)
            self._process.set_check(self.position, self._rendered_bytes)
            words[base + P_BYTES_OUT] += len(payload) * len(classic)
        words[base + P_POSITION] = self.position
        if self._ahead:
            waiting, self._ahead = self._ahead, []
            for session in waiting:
                self._place(session)
        return Outcome.MORE if self.position < head.tail else Outcome.DONE

    def _fall_behind(self, session: Session, offset: int, skip: int, sent: int) -> None:
        session.offset, session.skip = offset, skip
        session.fell_at = self.seq
        self._process.words[self._process.base + P_BYTES_OUT] += max(sent, 0)
        session.broken = sent < 0
        self._place(session)

    # --- to those behind ---

    def pump(self, session: Session) -> None:
        """Send to one who was behind, as its socket has room again."""
        if session.fd not in self.behind:
            return
        limit = self.position if session.end_at is None else session.end_at
        limit = min(limit, self._board.head().tail)
        try:
            if session.unsent:
                sent = os.write(session.fd, session.unsent)
                session.unsent = session.unsent[sent:]
            elif session.dialect == NATIVE:
                sent = self._catch_up(session, limit)
            else:
                sent = self._catch_up_classic(session, limit)
        except BlockingIOError:
            return
        except OSError:  # reset, timed out: nothing more can be sent
            session.broken, sent = True, 0
        self._process.words[self._process.base + P_BYTES_OUT] += sent
        at_limit = session.offset >= limit and not session.unsent and not session.skip
        if at_limit or session.broken:
            del self.behind[session.fd]
            self._place(session)

    def _catch_up(self, session: Session, limit: int) -> int:
        if session.offset >= limit:
            return 0
        size = min(limit - session.offset, _CATCH_UP_BYTES)
        sent = os.sendfile(session.fd, self._log.fd, session.offset, size)
        session.offset += sent
        return sent

    def _catch_up_classic(self, session: Session, limit: int) -> int:
        if session.offset >= limit:
            return 0
        end, payload = self._rendering(session.offset, limit, session.slot.history_end)
        while session.skip >= len(payload):  # a successor begins at a checkpoint
            session.skip -= len(payload)
            self._pass(session, end, len(payload))
            if session.offset >= limit:
                return 0
            end, payload = self._rendering(
                session.offset, limit, session.slot.history_end
            )
        sent = os.write(session.fd, memoryview(payload)[session.skip :])
        session.skip += sent
        if session.skip == len(payload):
            session.skip = 0
            self._pass(session, end, len(payload))
        return sent

    def _pass(self, session: Session, end: int, size_bytes: int) -> None:
        session.offset = end
        session.slot.set_check(end, session.slot.check()[1] + size_bytes)

    def _rendering(
        self, offset: int, limit: int, history_end: int = 0
    ) -> tuple[int, bytes]:
        """(offset behind it, classic rendering) of a batch that begins at `offset`."""
        in_history = offset < history_end
        if not in_history and offset in self._renderings:
            end, payload = self._renderings[offset]
            if end <= limit:
                return end, payload
        stop = min(limit, history_end) if in_history else limit
        # Stop where a rendering that we have goes on, else every member that fell
        # behind at a place of its own would need renderings of its own for ever.
        stop = min([stop, *(o for o in self._renderings if offset < o < stop)])
        lines = self._log.read_lines(offset, stop, self._batch_bytes)
        end, payload = offset + len(lines), records.rendered(lines)
        if in_history:
            return end, payload
        return self._remember(offset, records.closed_with_nul(payload), end)

    def _remember(self, offset: int, payload: bytes, end: int = -1) -> tuple[int, bytes]:
        rendering = (self.position if end < 0 else end), payload
        kept = self._renderings
        kept.pop(offset, None)
        kept[offset] = rendering
        while len(kept) > 1 and sum(len(p) for _, p in kept.values()) > _RENDERED_BYTES:
            del kept[next(iter(kept))]
        return rendering


def _write_all(
    members: dict[int, Session], payload: bytes, write: Callable[[int, bytes], int] = os.write
) -> list[tuple[int, int]]:
    """Write `payload` to every member: (fd, bytes taken, -1 if broken) of the others."""
    short: list[tuple[int, int]] = []
    size = len(payload)
    fds = iter(members)
    fd = -1
    while True:
        try:
            for fd in fds:
                sent = write(fd, payload)
                if sent != size:
                    short.append((fd, sent))
            return short
        except BlockingIOError:
            short.append((fd, 0))
        except OSError:  # reset, timed out: nothing more can be sent
            short.append((fd, -1))
