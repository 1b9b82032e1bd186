"""The supervisor: it watches over the processes, and keeps every member's socket.

It never parses a byte that came from the network, and it never waits for another
process.  Members do not need it from one message to the next: if it dies, workers
chat on with them, and the next supervisor takes them over.

Owner:   of the listening sockets.
Order:   before it acts on a death it reads the dead one's control socket to the
         end: what stands there was said by the living.
Failure: a process that dies before it is ready is tried again, later each time; a
         pool whose processes cannot boot stops and says why, instead of looping.
Not here: forking and killing (crew.py), sessions (keeper.py), what administrators
         ask for (office.py), judgement about processes (children.py).
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import time

from papaya_pool import (
    acceptor,
    capacity,
    chatlog,
    commit,
    control,
    crew,
    errors,
    handoff,
    keeper,
    latch,
    listener,
    office,
    poller,
    process,
    syncer,
    takeover,
    upgrade,
    worker,
)
from papaya_pool import scoreboard as sb
from papaya_pool.children import GiveUp, Kill, Spawn
from papaya_pool.crew import Death, Life
from papaya_pool.handoff import Kind, Message
from papaya_pool.process import Pool, Seat
from papaya_pool.room import Room
from papaya_pool.settings import Settings
from papaya_pool.succession import Succession

_TICK_S = 1.0
_SOON_S = 0.02
_STOP_GRACE_S = 1.3  # beyond what a worker takes to end its sessions
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
_INPUT_MAY_DO = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, errors.EX_SOFTWARE}


class Supervisor:
    """The pool, from its first fork to its last reap."""

    def __init__(self, settings: Settings, room: Room) -> None:
        self.settings, self.room = settings, room
        self._key = room.key()
        self._inherited = upgrade.Inherited.from_environ(os.environ)
        self._listeners = self._inherited.listeners()
        self._succession = Succession(room, self._inherited.dups)
        self._owns_log = False  # from when `leave` may take away what names the pool
        if not self._succession.under_way and not self._listeners:
            self._listeners = listener.bind(settings.hosts, settings.port)
        inode, old = os.stat(room.dir).st_ino, self._succession.old
        sb.sweep(inode, keep=[board.name for board in old])
        count = capacity.sessions(settings, old)
        self.board = sb.Scoreboard.create(
            inode, settings.workers, count, settings.ring_bytes
        )
        try:
            self._prepare()
        except BaseException:
            self.board.unlink()
            raise

    def _prepare(self) -> None:
        """Everything between the block and the first fork."""
        settings, room = self.settings, self.room
        if not self._succession.under_way:
            self._cold_start()
        inboxes = [handoff.pair() for _ in range(settings.workers)]
        self._latch = latch.make(settings.workers, settings.portable)
        self._pool = Pool(settings, room, self.board, self._latch, inboxes)
        self._events = poller.make(settings.portable)
        self.crew = crew.Crew(
            self.board, self._events, self._seats, self._life, settings.worker_deadline_s
        )
        self.crew.acceptor.wanted = not self._succession.under_way
        self.crew.syncer.wanted = settings.fsync == "interval"
        self.keeper = keeper.Keeper(self.board, inboxes, self.crew.incarnations)
        self._unsettled = False
        self._announced = False
        self._stop_at: float | None = None
        self._wakeup = self._catch_signals()
        self._desk = control.Desk(room)
        self._events.register(self._desk.listener.fileno(), poller.IN)
        self.office = office.Office(self, self.crew)
        ours = self.board.supervisor
        ours.pid, ours.state, ours.started_ms = os.getpid(), sb.SERVING, _now_ms()

    # --- before fork, inherited by both ---

    def _cold_start(self) -> None:
        """Find the head at the end of the log."""
        settings, room = self.settings, self.room
        is_new = not room.log.exists()
        found = chatlog.recover(room.log)
        renew = is_new or (room.lost_its_cache() and settings.fsync != "always")
        log_id = room.log_id(renew)
        self.board.publish(found.seq, found.tail, found.time_ms)
        self.board.log_id = log_id
        self._open_room()
        if found.torn_bytes:
            process.emit({"event": "torn-tail-cut", "bytes": found.torn_bytes})
        if renew and not is_new:
            process.emit({"event": "log-renamed", "log": log_id})

    def _open_room(self) -> None:
        """From here on the log's head is in our block, and our name at the door."""
        self._owns_log, board = True, self.board
        board.words[sb.H_STARTED_MS] = _now_ms()
        if self._listeners:
            board.words[sb.H_PORT] = self._listeners[0].getsockname()[1]
        self.room.note_running()
        self.room.announce(board.words[sb.H_PORT], board.name)

    def _catch_signals(self) -> socket.socket:
        ours, self._signalled = socket.socketpair()
        for end in (ours, self._signalled):
            end.setblocking(False)
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        self._events.register(ours.fileno(), poller.IN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # see become()
        return ours

    # --- in the supervisor ---

    def run(self) -> int:
        """Until a signal asks for the end; the exit code.  Raises PoolFault."""
        gc.collect()
        gc.freeze()  # else the first collection in a child unshares every page
        try:
            self._watch()
        except errors.PoolFault:
            self._leave()
            raise
        # Any other exception is a bug, and this process's alone: it must not take
        # everybody with it.  The next supervisor takes over.
        self._leave()
        return errors.EX_OK

    def _watch(self) -> None:
        next_tick = 0.0
        while True:
            now = time.monotonic()
            deadline_s = now + self.settings.worker_deadline_s
            self.board.supervisor.deadline_ns = int(deadline_s * 1e9)
            self._act(now)
            if self._stop_at is not None and not self.crew.living():
                return
            if now >= next_tick:
                next_tick = now + _TICK_S
                self._tick(now)
            elif self.keeper.unsure:
                self.keeper.look()
            if self._succession.under_way:
                self._take_over(now)
            for fd, _ in self._events.poll(self._pause(now, next_tick)):
                self._heed(fd)
            now = time.monotonic()
            for death in self.crew.reap(now, self._heed_reports):
                self._bury(death, now)
            takeover.reap(self._inherited.old_children)

    def _pause(self, now: float, next_tick: float) -> float:
        until = [next_tick]
        if self._stop_at is None:
            until += self.crew.next_s()
        else:
            until.append(self._stop_at)
        hurry = self._unsettled or self.office.busy or self.keeper.unsure
        if hurry or self._succession.under_way:
            until.append(now + _SOON_S)
        return max(0.0, min(until) - now)

    def _heed(self, fd: int) -> None:
        if fd == self._wakeup.fileno():
            self._heed_signals()
        elif fd == self._desk.listener.fileno():
            caller = self._desk.accept()
            if caller is not None:
                self._events.register(caller, poller.IN)
        elif fd in self._desk.callers:
            self._heed_caller(fd)
        else:
            for slot, end in list(self.crew.controls.items()):
                if end.fileno() == fd:
                    self._heed_reports(slot)

    def _act(self, now: float) -> None:
        self.crew.kill_overdue(now)
        if self._stop_at is not None:
            if now >= self._stop_at:
                for place in self.crew.living():
                    self.crew.kill(place)
                self._stop_at = now + _TICK_S
            return
        for act in self.crew.decide(now):
            if isinstance(act, GiveUp):
                raise errors.CannotBoot(f"{act.why}; see the lines above")
            if isinstance(act, Spawn):
                if not self.crew.spawn(self.crew.places[act.slot], now):
                    self.keeper.deal()
            elif isinstance(act, Kill):
                self.crew.ask_where(act, now)
        self.office.go_on()
        if not self._announced and self.crew.is_complete():
            self._announce()

    def _announce(self) -> None:
        if self._succession.under_way or not self._listeners:
            return
        self._announced = True
        host, port = self._listeners[0].getsockname()[:2]
        words = f"host={host} port={port} pid={os.getpid()} workers={self.settings.workers}"
        if self.settings.trial:
            self._stop()
        elif self._inherited.upgraded:
            process.log_line(self.board.supervisor, event="upgraded")
        else:
            print(f"papaya-pool ready {words}", flush=True)
            if self.room.is_new:
                self._invite(host, port)

    def _invite(self, host: str, port: int) -> None:
        """A new room: say how others get in, but no secret to a log."""
        if os.isatty(2):
            invitation = f"papaya://{host}:{port}/{self._key.decode()}"
            sys.stderr.write(f"invite others: papaya-chat join, and paste {invitation}\n")
        else:
            hint = "papaya-ctl invite prints what lets others in"
            process.log_line(self.board.supervisor, event="new-room", hint=hint)

    def _seats(self, slot: sb.ProcessSlot, incarnation: int) -> list[Seat]:
        return self.keeper.deal_to(slot, incarnation)

    def _life(
        self, number: int, incarnation: int, theirs: socket.socket, seats: list[Seat]
    ) -> Life:
        """What the child in a slot does: the descriptors it keeps, and its main."""
        pool = self._pool
        keep = [theirs.fileno(), *(other[1].fileno() for other in pool.inboxes)]
        if number < self.settings.workers:
            keep += [pool.inboxes[number][0].fileno(), *self._latch.fds()]
            keep += [seat.fd for seat in seats]
            return Life(
                keep, lambda: worker.main(pool, number, incarnation, theirs, seats)
            )
        if number == self.crew.acceptor.slot:
            keep += [one.fileno() for one in self._listeners]
            return Life(
                keep, lambda: acceptor.main(pool, theirs, self._listeners, self._key)
            )
        return Life(keep, lambda: syncer.main(pool, theirs))

    # --- deaths ---

    def _bury(self, death: Death, now: float) -> None:
        slot, place = death.slot, death.place
        stays = not place.wanted or self._stop_at is not None
        by_signal = death.exit_code < 0
        process.log_line(
            slot,
            event="reaped",
            role=process.role(slot, self.settings.workers),
            signal=signal.Signals(-death.exit_code).name if by_signal else None,
            exit=None if by_signal else death.exit_code,
            early=None if death.child.ready else "yes",
            sessions=slot.sessions,
            action="none" if stays else "respawn",
        )
        slot.state, slot.pid, slot.deadline_ns = sb.EMPTY, 0, 0
        if place is self.crew.acceptor:
            self.keeper.free_claimed()
            self.keeper.look()  # it may have died between `live` and its handoff
        if death.exit_code == errors.LogCorrupt.exit_code:
            raise errors.LogCorrupt("room.log is damaged; see the lines above")
        if self.settings.trial and not stays:
            raise errors.CannotBoot(f"a process died with exit code {death.exit_code}")
        if place in self.crew.workers:
            at_fault = death.child.late or death.exit_code in _INPUT_MAY_DO
            self._after_a_worker(slot, at_fault)
        if stays or place.drained or now < place.not_before_s:
            self.keeper.deal()

    def _after_a_worker(self, slot: sb.ProcessSlot, at_fault: bool) -> None:
        lost = self.keeper.bury(slot, at_fault)
        if lost:
            process.log_line(
                slot, event="quarantined", session=lost.number, name=lost.name,
                address=lost.address,
            )  # fmt: skip
        self._unsettled = True
        self._settle()
        self._latch.set()  # it may have died between its publish and this

    def _settle(self) -> None:
        """Finish what a dead holder left, if the log's lock is to be had (law 4)."""
        try:
            log = chatlog.ChatLog(self.room.log, writable=True)
        except OSError as err:  # no descriptors, or no log: later
            process.log_line(self.board.supervisor, event="cannot-settle", reason=err)
            return
        try:
            if not log.try_exclusive():
                return  # who has it settles, or we do, later
            if self.board.words[sb.H_HOLDER] and not self.board.moved_to:
                commit.settle(self.board, log, self.board.head())
                self.board.words[sb.H_HOLDER] = 0
            log.unlock()
            self._unsettled = False
        finally:
            log.close()

    def _tick(self, now: float) -> None:
        """Look at every state, whatever was or was not reported."""
        if self._unsettled:
            self._settle()
        if self._stop_at is None:
            if all(p.child for p in self.crew.workers if not p.drained):
                self.keeper.deal()
            self.keeper.look()
        for slot in self.board.workers:
            if slot.state == sb.DRAINING and not slot.sessions:
                slot.state = sb.DRAINED

    # --- what comes in ---

    def _heed_reports(self, number: int) -> None:
        more = True
        while more:
            messages, _ = handoff.receive_all(self.crew.controls[number])
            more = bool(messages)
            for message in messages:
                self._heed_report(number, message)

    def _heed_report(self, number: int, message: Message) -> None:
        place, slot = self.crew.places[number], self.board.processes[number]
        if message.kind == Kind.READY and place.child:
            place.child.ready = True
            slot.state = sb.DRAINED if place.drained else sb.SERVING
        elif message.kind == Kind.KEEP and message.fd >= 0:
            if self.keeper.keep(message):
                kept = message._replace(kind=Kind.KEPT, fd=-1)
                handoff.send(self.crew.controls[number], kept)
        elif message.kind == Kind.CLOSED:
            self.keeper.closed(message)
        elif message.kind == Kind.UNSENT:
            self.keeper.hand_off(message)

    def _heed_caller(self, fd: int) -> None:
        try:
            messages, gone = self._desk.hear(fd)
            for message in messages:
                answer = self._answer(fd, message)
                if answer is None:
                    gone = True
                    break
                self._desk.answer(fd, answer)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
            process.log_line(
                self.board.supervisor, event="not-understood", error=repr(err)[:200]
            )
            gone = True
        if gone:
            self._events.unregister(fd)
            self._desk.dismiss(fd)

    def _answer(self, fd: int, message: Message) -> Message | None:
        """The answer to an administrator or an orphan; None: not now, come again."""
        if message.kind == Kind.ASK:
            who = self._desk.callers[fd][1]
            return Message(Kind.ANSWER, text=self.office.ask(message.text, who))
        return self._succession.take(message, self.keeper)

    def _heed_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._wakeup.recv(4096):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._stop()
                elif number == signal.SIGUSR2:
                    self.office.upgrade("signal")
                elif number == signal.SIGHUP:
                    self.office.reload("signal")

    # --- from an old pool ---

    def _take_over(self, now: float) -> None:
        """Go one step on; never waits."""
        succession = self._succession
        if not self._owns_log:
            ready = all(place.child and place.child.ready for place in self.crew.workers)
            if not ready or not succession.take_head(self.board):
                return
            self._open_room()
        succession.take_from_the_dead(self.keeper)
        if not succession.is_over(now):
            return
        succession.end()
        succession.take_from_the_dead(self.keeper)
        succession.forget()
        self._listeners = self._listeners or succession.listeners
        self.open_door()
        process.log_line(self.board.supervisor, event="took-over")

    def read_key(self) -> None:
        """Read the key again; a new acceptor knows it.  Raises BadConfig."""
        self._key = self.room.key()
        self.crew.kill(self.crew.acceptor)

    # --- the door ---

    def close_door(self) -> None:
        """Refuse new connections at once: the port is closed, for every process."""
        self.crew.acceptor.wanted = False
        self.crew.kill(self.crew.acceptor)
        for one in self._listeners:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._listeners = []

    def open_door(self) -> None:
        """Listen again, on the same port.  Raises CannotCreate."""
        if not self._listeners:
            port = self.board.words[sb.H_PORT]
            self._listeners = listener.bind(self.settings.hosts, port)
        for one in self._listeners:
            one.setblocking(False)
        self.crew.acceptor.wanted = True

    def become(self, program: list[str]) -> None:
        """Run other code under this pid (upgrade).  Returns only if that failed."""
        old_children = [place.child.pid for place in self.crew.living() if place.child]
        handed = upgrade.HandDown(
            self.room.held_fd, self._listeners, old_children, self.keeper.dups()
        )
        why = handed.exec(program, _SIGNALS)
        process.log_line(self.board.supervisor, event="upgrade-failed", reason=why)

    # --- the end ---

    def _stop(self) -> None:
        now = time.monotonic()
        if self._stop_at is not None:
            self._stop_at = now  # asked twice: at once
            return
        self._stop_at = now + self.settings.stop_s + _STOP_GRACE_S
        process.log_line(self.board.supervisor, event="stopping")
        for place in self.crew.living():
            if place in self.crew.workers:
                handoff.send(self.crew.controls[place.slot], Message(Kind.STOP))
            else:
                self.crew.kill(place)  # nothing of theirs to lose

    def _leave(self) -> None:
        """Leave nothing behind but the room: no process, no block, no socket."""
        self.crew.end()
        self._desk.close()
        if self._owns_log or self._stop_at is not None:
            self._succession.end()  # else they chat on, as if we had not come
            self._succession.forget()
        if self._owns_log:
            self.keeper.free_all()
            with contextlib.suppress(errors.LogCorrupt):
                self._settle()
            if self.settings.fsync != "never":
                with contextlib.suppress(OSError):
                    chatlog.sync(self.room.log)
            self.room.leave()
        signal.set_wakeup_fd(-1)
        self.board.unlink()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
