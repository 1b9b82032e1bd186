"""One worker: an event loop over its members, the latch, its inbox and its orders.

A turn of the loop gathers what members have sent, appends all of it under one
lock, and sends what is new.  Nothing in here may be needed after a SIGKILL: what
must survive stands in the log, in the kernel or in the scoreboard, at every
instruction, and a successor goes on from there.

Owner:   the sessions whose `owner` is this incarnation; it alone reads, writes and
         ends them (law 6).
Order:   re-arm, look, sleep; and never longer than a second (law 5).
Failure: SessionFault ends one session.  Anything else ends this process with exit
         code 70, and its sessions go on elsewhere.
"""

import contextlib
import faulthandler
import os
import socket
import time
from collections.abc import Iterable, Iterator

from papaya_pool import (
    chatlog,
    commit,
    delivery,
    errors,
    handoff,
    moves,
    poller,
    process,
    session,
    takeover,
    wirecount,
)
from papaya_pool import scoreboard as sb
from papaya_pool.handoff import Kind, Message
from papaya_pool.process import Pool, Seat
from papaya_pool.scoreboard import LIVE, P_DEADLINE_NS, P_IN_HAND, P_WAITING
from papaya_pool.session import Session

_TICK_S = 1.0
_ORPHAN_TICK_S = 0.05
_ENDING_PAUSE_S = 0.05
_GIVING_PAUSE_S = 0.002
_GIVEN_A_TURN = 64  # their inboxes hold 278 descriptors
_LOCKED_PAUSE_S = 0.02
_BUSY = poller.IN | poller.OUT


# --- in the worker -------------------------------------------------------------------


class Worker:
    """The state of one worker process."""

    def __init__(self, pool: Pool, number: int, incarnation: int, control: socket.socket):
        self._pool, self._board = pool, pool.board
        self.process = pool.board.workers[number]
        self._number, self._incarnation = number, incarnation
        self._control, self._inbox = control, pool.inboxes[number][0]
        settings = pool.settings
        self._log = chatlog.ChatLog(pool.room.log, writable=True)
        self._events = poller.make(settings.portable)
        self._commit = commit.Committer(
            pool.board, self.process, self._log, pool.latch, sync=settings.fsync == "always"
        )
        self._delivery = delivery.Delivery(
            pool.board, self.process, self._log, self._events, settings.batch_bytes
        )
        self._sessions: dict[int, Session] = {}  # by fd
        self._fed: dict[int, Session] = {}  # have input that may hold whole lines
        self._ending: dict[int, Session] = {}  # told that it is over; input discarded
        self._moves = moves.Moves(pool.board, pool.inboxes)
        self._dismissed: dict[int, Session] = {}  # for a fault; get the rest and the ERR
        self._to_give: list[tuple[int, int]] = []  # (worker, how many)
        self._alone: list[Session] = []  # handled by themselves: law 13
        self._packed: set[int] = set()  # of an orphan: stopped, to be handed over
        self._orphaned = False
        self._stop_at: float | None = None
        self._next_tick = 0.0
        self._locked_out_ns = 0  # since when the log's lock is not to be had
        self._deadline_ns = int(settings.worker_deadline_s * 1e9)
        self._exact_counts = wirecount.works(settings.portable)
        self._latch_fd, mask = pool.latch.source(number)
        self._events.register(self._latch_fd, mask)
        self._events.register(self._inbox.fileno(), poller.IN)
        self._events.register(control.fileno(), poller.IN)

    def run(self) -> int:
        """Serve until told to stop; the exit code."""
        words, base = self.process.words, self.process.base
        sessions, fed, work = self._sessions, self._fed, self._delivery
        backoff_s = pause = 0.0
        ready = False
        while True:
            events = self._events.poll(pause)
            now = time.monotonic()
            words[base + P_DEADLINE_NS] = int(now * 1e9) + self._deadline_ns
            for fd, event in events:
                member = sessions.get(fd)
                if member is None:
                    self._other(fd)
                    continue
                if event & poller.OUT:
                    work.pump(member)
                if event & ~poller.OUT:
                    self._read(member, event)
            blocked = bool(fed) and not self._append()
            outcome = work.deliver()
            if work.finished:
                self._finish()
            if self._alone:
                self._try_alone()
            if self._to_give and not self._orphaned:
                self._give_some()
            if now >= self._next_tick:
                self._tick(now)
                if self._orphaned and self._is_over():
                    return errors.EX_OK
            if self._ending or self._dismissed:
                self._close_overdue(now)
            if self._stop_at is not None and (not sessions or now >= self._stop_at):
                return self._leave()
            if outcome is delivery.Outcome.MORE:
                pause = 0.0
            elif blocked or outcome is delivery.Outcome.LOCKED:
                pause = backoff_s = min(max(0.001, backoff_s * 2), _LOCKED_PAUSE_S)
            else:
                backoff_s, pause = 0.0, self._pause(now)
            words[base + P_WAITING] = backoff_s > 0
            if not ready:  # a whole turn went well
                ready = True
                self._report(Message(Kind.READY, self._number, self._incarnation))

    def _pause(self, now: float) -> float:
        if self._ending or self._dismissed or self._stop_at is not None:
            return _ENDING_PAUSE_S
        if self._to_give:
            return _GIVING_PAUSE_S
        return max(0.0, self._next_tick - now)

    # --- input ---

    def _read(self, member: Session, event: int) -> None:
        if member.fd in self._ending:
            self._discard(member)
        elif member.eof:
            # It went away while we were still sending, or while its lines wait.
            if event & ~_BUSY and member.fd not in self._fed:
                member.broken = True
                self._delivery.leave(member)
                self._delivery.finished.append(member)
        else:
            words = self.process.words
            words[self.process.base + P_IN_HAND] = member.number + 1
            if member.feed() or member.eof:
                self._fed[member.fd] = member
            words[self.process.base + P_IN_HAND] = 0

    def _append(self) -> bool:
        """Put everything gathered into the log; False if that has to wait."""
        try:
            batch = self._commit.commit(self._fed.values())
        except commit.Refused:
            batch = None
        except commit.Moved:
            self._next_tick = 0.0  # hand over at once
            batch = None
        if batch is None:
            self._locked_out_ns = self._locked_out_ns or time.monotonic_ns()
            self._hold_back()
            return False
        if self._locked_out_ns:
            self.process.lock_ns += time.monotonic_ns() - self._locked_out_ns
            self._locked_out_ns = 0
        fed = list(self._fed.values())
        self._fed.clear()
        self._took(fed, batch)
        return True

    def _took(self, fed: list[Session], batch: list[session.Prepared]) -> None:
        now_ms = time.time_ns() // 1_000_000
        for prepared in batch:
            member = prepared.session
            member.slot.input_ms = now_ms
            member.fault = member.fault or prepared.fault
        for member in fed:
            if member.fault:
                self._dismiss(member)
            elif self._stop_at is not None and not member.eof and member.feed():
                self._fed[member.fd] = member  # until nothing that it said is left
            elif member.eof or self._stop_at is not None:
                self._no_more_input(member)
            elif not member.mask & poller.IN:
                self._delivery.watch(member, member.mask | poller.IN)

    def _hold_back(self) -> None:
        """The log cannot be written now: senders whose rings are full have to wait."""
        for member in self._fed.values():
            if member.is_full or member.eof:
                self._delivery.watch(member, member.mask & ~poller.IN)

    def _no_more_input(self, member: Session) -> None:
        """A half-close: it gets everything up to the tail of this moment, then FIN."""
        self._delivery.watch(member, member.mask & ~poller.IN)
        if member.broken:
            self._delivery.leave(member)
            self._delivery.finished.append(member)
        elif member.end_at is None:
            self._delivery.finish_at(member, self._board.head().tail)

    # --- ends ---

    def _finish(self) -> None:
        finished, self._delivery.finished = self._delivery.finished, []
        for member in finished:
            if member.fd not in self._sessions or member.fd in self._ending:
                continue
            if member.fd in self._fed:  # its lines first (law 10); the log is locked
                self._delivery.finished.append(member)
                continue
            if member.broken and not member.eof:
                # What it sent before it broke is still read, to the end (law 8).
                self._delivery.watch(member, member.mask & ~poller.OUT)
            else:
                self._end(member)

    def _dismiss(self, member: Session) -> None:
        """End a session for a fault: it gets what there is, and why as the last words."""
        member.ended_s = time.monotonic() + self._pool.settings.ending_s
        self._dismissed[member.fd] = member
        self._delivery.watch(member, member.mask & ~poller.IN)
        self._delivery.finish_at(member, self._board.head().tail)

    def _end(self, member: Session) -> None:
        """Begin to end a session whose whole lines are in the log (law 10)."""
        written = self._delivery.leave(member)
        member.slot.bytes_out = written
        member.slot.ending = 1
        self._dismissed.pop(member.fd, None)
        at_line_end = not (member.skip or member.unsent or member.broken)
        if member.fault and at_line_end and member.offset == member.end_at:
            with contextlib.suppress(OSError):
                os.write(member.fd, member.fault.wire())
        member.shut()
        if member.eof or member.broken:
            self._close(member)
        else:
            # Unread input would turn the close into a reset, and eat the last lines.
            member.ended_s = time.monotonic() + self._pool.settings.ending_s
            self._ending[member.fd] = member
            self._delivery.watch(member, poller.IN)

    def _discard(self, member: Session) -> None:
        try:
            if os.read(member.fd, 65536):  # once a turn: others have their turn, too
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(member)

    def _close(self, member: Session) -> None:
        self._ending.pop(member.fd, None)
        self._dismissed.pop(member.fd, None)
        self._fed.pop(member.fd, None)
        del self._sessions[member.fd]
        self._events.unregister(member.fd)
        member.slot.state = sb.CLOSING
        member.close()
        self.process.sessions = len(self._sessions)
        self._report(Message(Kind.CLOSED, member.number, member.generation))

    # --- sessions that come and go ---

    def take_seat(self, number: int, generation: int, fd: int) -> None:
        """Seat a session if it is ours (law 6).  Consumes `fd`."""
        slot = self._board.session(number)
        if (
            slot.state != LIVE
            or slot.generation != generation
            or slot.owner != self._incarnation
            or slot.seated == self._incarnation
        ):
            os.close(fd)
            return
        slot.seated = self._incarnation
        member = session.seat(self._board, slot, fd, self._exact_counts)
        self._sessions[fd] = member
        self.process.sessions = len(self._sessions)
        self.process.moves_in += 1
        member.mask = poller.IN
        self._events.register(fd, poller.IN)
        if slot.ending:
            self._end(member)
            return
        self._delivery.join(member)
        if slot.alone:
            self._alone.append(member)
            self._delivery.watch(member, poller.QUIET)
            return
        self._fed[fd] = member  # its ring may hold whole lines already
        if member.broken and not member.eof:
            member.read_what_is_left()

    def _try_alone(self) -> None:
        """A session whose input may have killed a worker: nobody else dies with it."""
        member = self._alone[0]
        if self._sessions.get(member.fd) is not member or member.fd in self._ending:
            self._alone.pop(0)  # given away, or ended
            return
        self.process.in_hand = member.number + 1
        member.feed()
        try:
            batch = self._commit.commit([member])
        except (commit.Refused, commit.Moved):
            batch = None
        self.process.in_hand = 0
        if batch is None:
            return  # the log cannot be written now: later
        self._alone.pop(0)
        if member.slot.input_taken != member.slot.death_taken:
            member.slot.alone = 0
        self._delivery.watch(member, member.mask & poller.OUT | poller.IN)
        self._fed[member.fd] = member

    def _give(self, member: Session, peer: int) -> bool:
        """Hand a session to another worker; whether it could be sent now."""
        written = self._delivery.leave(member)
        self._events.unregister(member.fd)
        del self._sessions[member.fd]
        self._fed.pop(member.fd, None)
        self.process.sessions = len(self._sessions)
        self.process.moves_out += 1
        session.note_position(member, written)
        sent = self._moves.give(member, self._board.workers[peer])
        if not sent:
            self._report(Message(Kind.UNSENT, member.number, member.generation))
        return sent

    def _give_some(self) -> None:
        """Give as many as an inbox takes in a turn; the rest in the next."""
        peer, count = self._to_give.pop(0)
        busy = self._ending.keys() | self._dismissed.keys()
        able = [m for m in self._sessions.values() if m.fd not in busy]
        now = able[: min(count, _GIVEN_A_TURN)]
        sent = sum(self._give(member, peer) for member in now)
        if len(now) == sent < count and len(able) > sent:
            self._to_give.append((peer, count - sent))

    # --- everything that is no member ---

    def _other(self, fd: int) -> None:
        if fd == self._latch_fd:
            self._pool.latch.rearm(self._number)
        elif fd == self._inbox.fileno():
            self._take_from_inbox()
        elif fd == self._control.fileno():
            self._obey()

    def _take_from_inbox(self) -> None:
        for message in handoff.receive_all(self._inbox)[0]:
            if message.kind == Kind.HANDOFF and message.fd >= 0:
                self.take_seat(message.slot, message.generation, message.fd)
            elif message.kind == Kind.SUPERSEDE:
                self._supersede(message)

    def _obey(self) -> None:
        messages, gone = handoff.receive_all(self._control)
        for message in messages:
            if message.kind == Kind.STOP:
                self._stop()
            elif message.kind == Kind.DRAIN:
                self._next_tick = 0.0
            elif message.kind == Kind.GIVE:
                self._to_give.append((message.slot, message.value))
            elif message.kind == Kind.KICK:
                self._kick(message)
        if gone:  # the supervisor died; members chat on (design: the processes)
            self._events.unregister(self._control.fileno())
            self._orphaned = True
            self._next_tick = 0.0

    def _kick(self, message: Message) -> None:
        member = self._member(message)
        if member:
            code = message.text.decode("ascii", "replace")
            member.fault = errors.SessionFault(code, "by the administrator")
            self._fed[member.fd] = member  # its whole lines first

    def _supersede(self, message: Message) -> None:
        """Nothing more of this connection counts, once its whole lines are appended."""
        member = self._member(message)
        if member:
            member.eof = member.broken = True
            self._delivery.leave(member)
            self._fed[member.fd] = member

    def _member(self, message: Message) -> Session | None:
        for member in self._sessions.values():
            if (member.number, member.generation) == (message.slot, message.generation):
                return None if member.fd in self._ending else member
        return None

    def _is_over(self) -> bool:
        """Whether an orphan has nothing left to do."""
        if self._board.moved_to:
            return self._hand_over()
        if self._sessions or not takeover.was_never_head(self._board):
            return False
        # Our supervisor died while it took over: the log was never ours.
        takeover.forget(self._board)
        return True

    def _hand_over(self) -> bool:
        """Give every session to the pool that has taken over (law 11)."""
        try:
            farewell = takeover.Farewell(self._pool.room, self._board)
        except OSError:
            return False
        return farewell.give_sessions(self._packed_up())

    def _packed_up(self) -> Iterator[tuple[sb.SessionSlot, memoryview, int]]:
        """What is to be handed over.  Once packed, a session is not served again."""
        self._take_from_inbox()
        for fd, member in list(self._sessions.items()):
            if fd in self._ending:
                self._close(member)
                continue
            if fd not in self._packed:  # else a new supervisor died before it took it
                self._packed.add(fd)
                session.note_position(member, self._delivery.leave(member))
                self._events.unregister(fd)
            yield member.slot, member.ring, fd
            del self._sessions[fd]
        for slot, fd in self._moves.unseated():
            yield slot, self._board.ring(slot.number), fd

    def _stop(self) -> None:
        """What members have said is read and appended; then each gets it, and the end."""
        self._stop_at = time.monotonic() + self._pool.settings.stop_s
        for fd, member in self._sessions.items():
            if fd not in self._ending:
                self._fed[fd] = member

    def _tick(self, now: float) -> None:
        self._next_tick = now + (_ORPHAN_TICK_S if self._orphaned else _TICK_S)
        if self.process.state in (sb.DRAINING, sb.DRAINED) and not self._to_give:
            self._to_give += moves.spread(len(self._sessions), self._board)
        self._delivery.account()
        self._moves.drop_seated(send_again=self._orphaned)

    def _close_overdue(self, now: float) -> None:
        for member in list(self._dismissed.values()):
            if now >= member.ended_s:
                self._end(member)
        for member in list(self._ending.values()):
            if now >= member.ended_s:
                self._close(member)

    def _leave(self) -> int:
        if self._fed:
            self._append()
        for member in list(self._sessions.values()):
            self._delivery.leave(member)
            self._close(member)
        self._delivery.account()
        self._report(Message(Kind.STOPPED))
        return errors.EX_OK

    def _report(self, message: Message) -> None:
        """Tell the supervisor.  If that fails, what it sees in the slots is enough."""
        handoff.send(self._control, message)


def main(
    pool: Pool, number: int, incarnation: int, control: socket.socket, seats: Iterable[Seat]
) -> int:
    """A worker's life, after the fork.  Returns its exit code."""
    faulthandler.register(process.STACK_SIGNAL, all_threads=True)
    # The supervisor stores it too, but may die before it does.
    pool.board.workers[number].pid = os.getpid()
    process.name(f"papaya:w{number}")
    try:
        worker = Worker(pool, number, incarnation, control)
    except OSError as err:
        process.log_line(pool.board.workers[number], event="cannot-boot", reason=err)
        return errors.EX_BOOT
    for seat in seats:
        worker.take_seat(*seat)
    try:
        return worker.run()
    except errors.LogCorrupt as fault:
        process.log_line(worker.process, event="log-damaged", reason=fault)
        return fault.exit_code
