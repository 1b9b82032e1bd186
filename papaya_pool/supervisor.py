"""The supervisor: it forks, reaps, respawns, and keeps a dup of every member's socket.

It never parses a byte that came from the network, and it never waits for another
process.  Members do not need it from one message to the next: if it dies, workers
chat on with them, and the next supervisor takes them over.

Owner:   of the first line of every process slot; of every session slot whose owner
         was *seen* dead; of freeing (law 10: nobody else ever frees a slot).
Order:   before it acts on a death it reads the dead one's control socket to the
         end: what stands there was said by the living.
Failure: it looks at states and not at events (law 6): at every death, report and
         second it deals each live slot whose owner is dead, and sends again what
         is not seated.  So a lost message is late, never lost.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from multiprocessing.context import ForkProcess

from papaya_pool import (
    acceptor,
    chatlog,
    children,
    commit,
    errors,
    handoff,
    latch,
    listener,
    poller,
    process,
    syncer,
    worker,
)
from papaya_pool import scoreboard as sb
from papaya_pool.children import Child, GiveUp, Kill, Place, Spawn
from papaya_pool.handoff import Kind, Message
from papaya_pool.process import Pool, Seat
from papaya_pool.room import Room
from papaya_pool.settings import Settings

_DEFAULT_CLIENTS = 10_000
_SPARE_FDS = 64
_TICK_S = 1.0
_STOP_GRACE_S = 1.3  # beyond what a worker takes to end its sessions
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)


class Supervisor:
    """The pool, from its first fork to its last reap."""

    def __init__(self, settings: Settings, room: Room) -> None:
        self._settings, self._room = settings, room
        self._key = room.key()
        self._listeners = listener.bind(settings.hosts, settings.port)
        self._board = self._cold_start()
        inboxes = [handoff.pair() for _ in range(settings.workers)]
        self._latch = latch.make(settings.workers, settings.portable)
        self._pool = Pool(settings, room, self._board, self._latch, inboxes)
        self._places = [Place(slot.number) for slot in self._board.processes]
        self._places[-1].wanted = False  # our own
        self._places[self._syncer].wanted = settings.fsync == "interval"
        self._forked: dict[int, ForkProcess] = {}  # by slot
        self._controls: dict[int, socket.socket] = {}  # by slot: our end
        self._keeper: dict[int, tuple[int, int]] = {}  # by slot: generation, dup
        self._unsettled = False
        self._announced = False
        self._stop_at: float | None = None
        self._events = poller.make(settings.portable)
        self._wakeup = self._catch_signals()
        self._board.supervisor.pid = os.getpid()
        self._board.supervisor.state = sb.SERVING
        self._board.supervisor.started_ms = _now_ms()

    @property
    def _acceptor(self) -> int:
        return self._settings.workers + sb.ACCEPTOR

    @property
    def _syncer(self) -> int:
        return self._settings.workers + sb.SYNCER

    # --- before fork, inherited by both ---

    def _cold_start(self) -> sb.Scoreboard:
        """A block of our own, its head found at the end of the log."""
        settings, room = self._settings, self._room
        _remove_stale_block(room)
        found = chatlog.recover(room.log)
        renew = room.lost_its_cache() and settings.fsync != "always"
        log_id = room.log_id(renew)
        sessions = _session_count(settings)
        board = sb.Scoreboard.create(settings.workers, sessions, settings.ring_bytes)
        board.publish(found.seq, found.tail, found.time_ms)
        board.log_id = log_id
        board.words[sb.H_STARTED_MS] = _now_ms()
        board.words[sb.H_PORT] = port = self._listeners[0].getsockname()[1]
        room.note_running()
        room.announce(port, board.name)
        if found.torn_bytes:
            process.emit({"event": "torn-tail-cut", "bytes": found.torn_bytes})
        if renew:
            process.emit({"event": "log-renamed", "log": log_id})
        return board

    def _catch_signals(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        self._events.register(ours.fileno(), poller.IN)
        self._signalled = theirs
        return ours

    # --- in the supervisor ---

    def run(self) -> int:
        """Until a signal asks for the end; the exit code.  Raises PoolFault."""
        gc.collect()
        gc.freeze()  # else the first collection in a child unshares every page
        try:
            next_tick = 0.0
            while True:
                now = time.monotonic()
                self._act(now)
                if self._stop_at is not None and not self._living():
                    return errors.EX_OK
                if now >= next_tick:
                    next_tick = now + _TICK_S
                    self._tick()
                for fd, _ in self._events.poll(self._pause(now, next_tick)):
                    if fd == self._wakeup.fileno():
                        self._signals()
                    else:
                        self._reports(fd)
                self._reap(time.monotonic())
        finally:
            self._leave()

    def _pause(self, now: float, next_tick: float) -> float:
        until = [next_tick]
        spawn = children.next_spawn_s(self._places)
        if spawn is not None and self._stop_at is None:
            until.append(spawn)
        if self._stop_at is not None:
            until.append(self._stop_at)
        if self._unsettled:
            until.append(now + 0.05)
        return max(0.0, min(until) - now)

    def _act(self, now: float) -> None:
        if self._stop_at is not None:
            if now >= self._stop_at:
                self._kill_all()
                self._stop_at = now + _TICK_S
            return
        for place in self._places:
            if place.child:
                slot = self._board.processes[place.slot]
                deadline_ns = slot.deadline_ns
                place.child.deadline_s = deadline_ns / 1e9 if deadline_ns else None
                place.child.waiting = bool(slot.waiting)
        for act in children.decide(self._places, now):
            if isinstance(act, GiveUp):
                raise errors.CannotBoot(f"{act.why}; see the lines above")
            if isinstance(act, Spawn):
                self._spawn(self._places[act.slot])
            elif isinstance(act, Kill):
                slot = self._board.processes[act.slot]
                process.log_line(slot, event="late", action="kill", reason=act.why)
                os.kill(act.pid, signal.SIGKILL)
        if not self._announced and all(p.child and p.child.ready for p in self._wanted()):
            self._announce()

    def _wanted(self) -> list[Place]:
        return [place for place in self._places if place.wanted]

    def _living(self) -> list[Place]:
        return [place for place in self._places if place.child]

    def _announce(self) -> None:
        self._announced = True
        host, port = self._listeners[0].getsockname()[:2]
        words = f"host={host} port={port} pid={os.getpid()} workers={self._settings.workers}"
        print(f"papaya-pool ready {words}", flush=True)

    # --- forking ---

    def _spawn(self, place: Place) -> None:
        slot = self._board.processes[place.slot]
        incarnation = self._board.new_incarnation()
        slot.incarnation = incarnation
        slot.generation += 1
        slot.state, slot.started_ms = sb.STARTING, _now_ms()
        slot.deadline_ns = slot.waiting = slot.in_hand = slot.sessions = slot.lag = 0
        ours, theirs = handoff.pair()
        seats = self._deal_to(slot) if place.slot < self._settings.workers else []
        life = self._life(place.slot, incarnation, theirs, seats)
        child = multiprocessing.get_context("fork").Process(target=life, daemon=False)
        child.start()
        assert child.pid
        theirs.close()
        slot.pid = child.pid
        place.child = Child(child.pid, incarnation)
        self._forked[place.slot] = child
        self._controls[place.slot] = ours
        self._events.register(ours.fileno(), poller.IN)

    def _life(
        self, number: int, incarnation: int, control: socket.socket, seats: list[Seat]
    ) -> Callable[[], None]:
        """What the child in a slot does: its main, and the descriptors it keeps."""
        pool, settings = self._pool, self._settings
        keep = [control.fileno()]
        if number < settings.workers:
            keep += [other[1].fileno() for other in pool.inboxes]
            keep += [pool.inboxes[number][0].fileno(), *self._latch.fds()]
            keep += [seat.fd for seat in seats]
            return lambda: _live(
                keep, lambda: worker.main(pool, number, incarnation, control, seats)
            )
        if number == self._acceptor:
            keep += [other[1].fileno() for other in pool.inboxes]
            keep += [one.fileno() for one in self._listeners]
            return lambda: _live(
                keep, lambda: acceptor.main(pool, control, self._listeners, self._key)
            )
        return lambda: _live(keep, lambda: syncer.main(pool, control))

    # --- reaping ---

    def _reap(self, now: float) -> None:
        for number, child in list(self._forked.items()):
            if child.exitcode is None:
                continue
            # What the dead one said while it lived comes first.
            self._reports(self._controls[number].fileno())
            self._bury(number, child.exitcode, now)

    def _bury(self, number: int, exit_code: int, now: float) -> None:
        control = self._controls.pop(number)
        self._events.unregister(control.fileno())
        control.close()
        self._forked.pop(number).close()
        place, slot = self._places[number], self._board.processes[number]
        early = place.child is not None and not place.child.ready
        children.reaped(place, exit_code, now)
        name = signal.Signals(-exit_code).name if exit_code < 0 else None
        process.log_line(
            slot,
            event="reaped",
            role=process.role(slot, self._settings.workers),
            signal=name,
            exit=exit_code if exit_code >= 0 else None,
            early="yes" if early else None,
            sessions=slot.sessions,
            action="respawn" if place.wanted and self._stop_at is None else "none",
        )
        slot.state, slot.pid, slot.deadline_ns = sb.EMPTY, 0, 0
        for session in self._orphans():
            if session.owner == slot.incarnation:
                session.step_out(*slot.check())
        if number == self._acceptor:
            self._free_claimed()
        self._unsettled |= number < self._settings.workers
        self._settle()
        self._latch.set()  # it may have died between its publish and this
        if place.wanted and self._stop_at is None and now < place.not_before_s:
            self._deal()

    def _settle(self) -> None:
        """Finish what a dead holder left, if the log's lock is to be had (law 4)."""
        if not self._unsettled:
            return
        log = chatlog.ChatLog(self._room.log, writable=True)
        try:
            if not log.try_exclusive():
                return  # who has it settles, or we do, later
            if self._board.words[sb.H_HOLDER]:
                commit.settle(self._board, log, self._board.head())
                self._board.words[sb.H_HOLDER] = 0
            log.unlock()
            self._unsettled = False
        finally:
            log.close()

    # --- sessions: keeping, dealing, freeing ---

    def _deal_to(self, slot: sb.ProcessSlot) -> list[Seat]:
        """Give a new worker every session whose owner is dead; it inherits the dups."""
        seats = []
        for session in self._orphans():
            session.owner, session.seated = slot.incarnation, 0
            session.moves += 1
            generation, fd = self._keeper[session.number]
            seats.append(Seat(session.number, generation, fd))
        return seats

    def _orphans(self) -> list[sb.SessionSlot]:
        """Live sessions whose owner is dead and whose dup we keep."""
        living = {place.child.incarnation for place in self._places if place.child}
        slots = [self._board.session(number) for number in self._keeper]
        return [s for s in slots if s.state == sb.LIVE and s.owner not in living]

    def _deal(self) -> None:
        """Give sessions whose owner is dead to the living, the idlest first."""
        serving = [slot for slot in self._board.workers if slot.state == sb.SERVING]
        if not serving:
            return  # the next one that is forked inherits them
        load = {slot.number: slot.sessions for slot in serving}
        for session in self._orphans():
            number = min(load, key=lambda n: load[n])
            load[number] += 1
            session.owner = self._board.workers[number].incarnation
            session.seated = 0
            session.moves += 1
            self._hand_off(session)

    def _hand_off(self, session: sb.SessionSlot) -> None:
        slot = self._board.owner_of(session.owner)
        if slot is None:
            return
        generation, fd = self._keeper[session.number]
        message = Message(Kind.HANDOFF, session.number, generation)
        handoff.send(self._pool.inboxes[slot.number][1], message, fd)

    def _tick(self) -> None:
        """Look at every state, whatever was or was not reported."""
        self._settle()
        if self._stop_at is None and all(p.child for p in self._wanted()):
            self._deal()
        for number, (generation, _) in list(self._keeper.items()):
            session = self._board.session(number)
            if session.state == sb.CLOSING:
                self._free(session)
            elif session.state == sb.LIVE and session.seated != session.owner:
                self._hand_off(session)

    def _free(self, session: sb.SessionSlot) -> None:
        """Close our dup, and with it the connection; then the slot is free (law 10)."""
        _, fd = self._keeper.pop(session.number, (0, -1))
        if fd >= 0:
            with contextlib.suppress(OSError), socket.socket(fileno=fd) as conn:
                conn.shutdown(socket.SHUT_RDWR)
        session.state = sb.FREE

    def _free_claimed(self) -> None:
        """The acceptor died: what it had not made live yet comes to nothing."""
        for session in self._board.sessions():
            if session.state == sb.CLAIMED:
                self._free(session)

    # --- what comes in ---

    def _reports(self, fd: int) -> None:
        for number, control in list(self._controls.items()):
            if control.fileno() != fd:
                continue
            gone = False
            while not gone:
                messages, gone = handoff.receive_all(control)
                for message in messages:
                    self._heed(number, message)
                gone = gone or not messages

    def _heed(self, number: int, message: Message) -> None:
        place, slot = self._places[number], self._board.processes[number]
        session = None
        if message.slot < self._board.session_count:
            session = self._board.session(message.slot)
        if message.kind == Kind.READY:
            slot.state = sb.SERVING
            if place.child:
                place.child.ready = True
        elif message.kind == Kind.KEEP and session and message.fd >= 0:
            self._keep(session, message, self._controls[number])
        elif message.kind == Kind.CLOSED and session:
            if session.generation == message.generation and session.state == sb.CLOSING:
                self._free(session)
        elif message.kind == Kind.UNSENT and session and session.state == sb.LIVE:
            self._hand_off(session)

    def _keep(
        self, session: sb.SessionSlot, message: Message, control: socket.socket
    ) -> None:
        """Keep a dup of a session that is being admitted, and say so."""
        stale = session.generation != message.generation or session.state != sb.CLAIMED
        if stale:
            os.close(message.fd)
            return
        self._keeper[session.number] = message.generation, message.fd
        handoff.send(control, Message(Kind.KEPT, session.number, message.generation))

    def _signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._wakeup.recv(4096):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._stop()

    # --- the end ---

    def _stop(self) -> None:
        now = time.monotonic()
        if self._stop_at is not None:
            self._stop_at = now  # asked twice: at once
            return
        self._stop_at = now + self._settings.stop_s + _STOP_GRACE_S
        process.log_line(self._board.supervisor, event="stopping")
        for place in self._living():
            if place.slot < self._settings.workers:
                handoff.send(self._controls[place.slot], Message(Kind.STOP))
            elif place.child:
                os.kill(place.child.pid, signal.SIGKILL)  # nothing of theirs to lose

    def _kill_all(self) -> None:
        for place in self._living():
            if place.child:
                os.kill(place.child.pid, signal.SIGKILL)

    def _leave(self) -> None:
        """Leave nothing behind but the room: no process, no block, no socket."""
        self._kill_all()
        for child in self._forked.values():
            child.join()
        for number in list(self._keeper):
            self._free(self._board.session(number))
        self._settle()
        if self._settings.fsync != "never":
            _sync(self._room)
        signal.set_wakeup_fd(-1)
        self._room.leave()
        self._board.unlink()


# --- in the child --------------------------------------------------------------------


def _live(keep: Iterable[int], main: Callable[[], int]) -> None:
    """A child's whole life.  Its exit code says how it ended (errors.py)."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    process.close_others(keep)
    try:
        exit_code = main()
    except Exception as err:  # a bug: whatever it is, somebody else goes on
        import traceback  # only the dying need it

        process.emit({"event": "bug", "pid": os.getpid(), "error": repr(err)})
        traceback.print_exc()
        exit_code = errors.EX_SOFTWARE
    os._exit(exit_code)


# --- before the first fork -----------------------------------------------------------


def _session_count(settings: Settings) -> int:
    """How many may be in at once: as asked for, or what this machine has room for."""
    fds = os.sysconf("SC_OPEN_MAX") - _SPARE_FDS // 2 - 4 * settings.workers
    each = sb.block_bytes(1, 1, settings.ring_bytes) - sb.block_bytes(1, 0, settings.ring_bytes)
    if settings.max_clients is not None:
        return settings.max_clients
    return max(1, min(_DEFAULT_CLIENTS, fds, sb.free_bytes() // 2 // each))


def _remove_stale_block(room: Room) -> None:
    name = room.scoreboard()
    if name and name.startswith("papaya-") and "/" not in name:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{sb.SHM}/{name}")


def _sync(room: Room) -> None:
    with contextlib.suppress(OSError):
        log = chatlog.ChatLog(room.log, writable=True)
        try:
            log.sync()
        finally:
            log.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


