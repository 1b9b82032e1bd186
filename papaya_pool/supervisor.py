"""The supervisor: it forks, reaps and respawns, and it keeps every member's socket.

It never parses a byte that came from the network, and it never waits for another
process.  Members do not need it from one message to the next: if it dies, workers
chat on with them, and the next supervisor takes them over.

Owner:   of the first line of every process slot, and of the listening sockets.
Order:   before it acts on a death it reads the dead one's control socket to the
         end: what stands there was said by the living.
Failure: a process that dies before it is ready is tried again, later each time; a
         pool whose processes cannot boot stops and says why, instead of looping.
Not here: sessions (keeper.py), what administrators ask for (office.py), judgement
         about processes (children.py).
"""

import contextlib
import gc
import multiprocessing
import os
import resource
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
    control,
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
from papaya_pool.children import Child, GiveUp, Kill, Place, Spawn
from papaya_pool.handoff import Kind, Message
from papaya_pool.process import Pool, Seat
from papaya_pool.room import Room
from papaya_pool.settings import Settings

_DEFAULT_CLIENTS = 10_000
_SPARE_FDS = 32
_TICK_S = 1.0
_SOON_S = 0.02
_STOP_GRACE_S = 1.3  # beyond what a worker takes to end its sessions
_STACK_S = 0.2  # for a hung process to say where it hangs
_TAKE_OVER_S = 5.0  # for an old pool's processes to hand over
_MEMORY_BYTES = 4 << 30  # beyond the block: more is a bug, and exit 70 instead of OOM
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
_INPUT_MAY_DO = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, errors.EX_SOFTWARE}


class Supervisor:
    """The pool, from its first fork to its last reap."""

    def __init__(self, settings: Settings, room: Room) -> None:
        self.settings, self.room = settings, room
        self._key = room.key()
        self._inherited = upgrade.Inherited.from_environ(os.environ)
        self._listeners = self._inherited.listeners()
        self._old = takeover.find(room)
        self._old_until = 0.0  # for whose processes we wait no longer
        self._owns_log = False  # from when `leave` may take away what names the pool
        if not self._old and not self._listeners:
            self._listeners = listener.bind(settings.hosts, settings.port)
        head_of = self._old[0] if self._old else None
        self.board = sb.Scoreboard.create(*_size(settings, head_of))
        try:
            self._prepare()
        except BaseException:
            self.board.unlink()
            raise

    def _prepare(self) -> None:
        """Everything between the block and the first fork."""
        settings, room = self.settings, self.room
        if not self._old:
            self._cold_start()
        inboxes = [handoff.pair() for _ in range(settings.workers)]
        self._latch = latch.make(settings.workers, settings.portable)
        self._pool = Pool(settings, room, self.board, self._latch, inboxes)
        self.keeper = keeper.Keeper(self.board, inboxes, self._living_incarnations)
        self.places = [Place(slot.number) for slot in self.board.processes]
        self.places[-1].wanted = False  # our own
        self.places[self.acceptor_slot].wanted = not self._old
        self.places[self.acceptor_slot + 1].wanted = settings.fsync == "interval"
        self._forked: dict[int, ForkProcess] = {}  # by slot
        self.controls: dict[int, socket.socket] = {}  # by slot: our end
        self._kill_at: dict[int, float] = {}  # by slot: hung, and asked where
        self._unsettled = False
        self._announced = False
        self._stop_at: float | None = None
        self._events = poller.make(settings.portable)
        self._wakeup = self._catch_signals()
        self._desk = control.Desk(room)
        self._events.register(self._desk.listener.fileno(), poller.IN)
        self.office = office.Office(self)
        ours = self.board.supervisor
        ours.pid, ours.state, ours.started_ms = os.getpid(), sb.SERVING, _now_ms()

    @property
    def acceptor_slot(self) -> int:
        return self.settings.workers + sb.ACCEPTOR

    # --- before fork, inherited by both ---

    def _cold_start(self) -> None:
        """Find the head at the end of the log."""
        settings, room = self.settings, self.room
        _remove_stale_block(room)
        is_new = not room.log.exists()
        found = chatlog.recover(room.log)
        renew = is_new or (room.lost_its_cache() and settings.fsync != "always")
        log_id = room.log_id(renew)
        self.board.publish(found.seq, found.tail, found.time_ms)
        self.board.log_id = log_id
        self._open_room(self.board)
        if found.torn_bytes:
            process.emit({"event": "torn-tail-cut", "bytes": found.torn_bytes})
        if renew and not is_new:
            process.emit({"event": "log-renamed", "log": log_id})

    def _open_room(self, board: sb.Scoreboard) -> None:
        """From here on the log's head is in our block, and our name at the door."""
        self._owns_log = True
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
            if self._stop_at is not None and not self.living():
                return
            if now >= next_tick:
                next_tick = now + _TICK_S
                self._tick(now)
            elif self.keeper.unsure:
                self.keeper.look()
            if self._old:
                self._take_over(now)
            for fd, _ in self._events.poll(self._pause(now, next_tick)):
                self._heed(fd)
            self._reap(time.monotonic())

    def _pause(self, now: float, next_tick: float) -> float:
        until = [next_tick, *self._kill_at.values()]
        spawn = children.next_spawn_s(self.places)
        if spawn is not None and self._stop_at is None:
            until.append(spawn)
        if self._stop_at is not None:
            until.append(self._stop_at)
        if self._unsettled or self._old or self.office.busy or self.keeper.unsure:
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
            for slot, end in list(self.controls.items()):
                if end.fileno() == fd:
                    self._heed_reports(slot)

    def _act(self, now: float) -> None:
        for slot, kill_at in list(self._kill_at.items()):
            if now >= kill_at:
                self._kill(slot)
        if self._stop_at is not None:
            if now >= self._stop_at:
                for place in self.living():
                    self._kill(place.slot)
                self._stop_at = now + _TICK_S
            return
        for place in self.places:
            if place.child:
                deadline_ns = self.board.processes[place.slot].deadline_ns
                place.child.deadline_s = deadline_ns / 1e9 if deadline_ns else None
        for act in children.decide(self.places, now):
            if isinstance(act, GiveUp):
                raise errors.CannotBoot(f"{act.why}; see the lines above")
            if isinstance(act, Spawn):
                self._try_spawn(self.places[act.slot], now)
            elif isinstance(act, Kill):
                self._kill_hung(act, now)
        self.office.go_on()
        if not self._announced and all(p.child and p.child.ready for p in self._wanted()):
            self._announce()

    def _wanted(self) -> list[Place]:
        return [place for place in self.places if place.wanted]

    def living(self) -> list[Place]:
        return [place for place in self.places if place.child]

    def _living_incarnations(self) -> set[int]:
        return {place.child.incarnation for place in self.places if place.child}

    def _announce(self) -> None:
        if self._old or not self._listeners:
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

    # --- forking ---

    def _try_spawn(self, place: Place, now: float) -> None:
        try:
            self._spawn(place)
        except OSError as err:  # no memory, no pids, no descriptors: later
            place.not_before_s = now + _TICK_S
            slot = self.board.processes[place.slot]
            process.log_line(slot, event="cannot-fork", reason=err)

    def _spawn(self, place: Place) -> None:
        slot = self.board.processes[place.slot]
        incarnation = self.board.new_incarnation()
        is_worker = place.slot < self.settings.workers
        takes = is_worker and not place.drained
        seats = self.keeper.deal_to(slot, incarnation) if takes else []
        slot.incarnation = incarnation
        slot.generation += 1
        slot.state, slot.started_ms = sb.STARTING, _now_ms()
        slot.deadline_ns = slot.waiting = slot.in_hand = slot.sessions = slot.lag = 0
        ours, theirs = handoff.pair()
        life = self._life(place.slot, incarnation, theirs, seats)
        child = multiprocessing.get_context("fork").Process(target=life, daemon=False)
        child.start()
        assert child.pid
        theirs.close()
        slot.pid = child.pid
        place.child = Child(child.pid, incarnation)
        self._forked[place.slot] = child
        self.controls[place.slot] = ours
        self._events.register(ours.fileno(), poller.IN)

    def _life(
        self, number: int, incarnation: int, theirs: socket.socket, seats: list[Seat]
    ) -> Callable[[], None]:
        """What the child in a slot does: its main, and the descriptors it keeps."""
        pool, memory = self._pool, len(self.board.octets) + _MEMORY_BYTES
        inboxes = [other[1].fileno() for other in pool.inboxes]
        keep = [theirs.fileno(), *inboxes]
        if number < self.settings.workers:
            keep += [pool.inboxes[number][0].fileno(), *self._latch.fds()]
            keep += [seat.fd for seat in seats]
            return lambda: _live(
                keep, memory, lambda: worker.main(pool, number, incarnation, theirs, seats)
            )
        if number == self.acceptor_slot:
            keep += [one.fileno() for one in self._listeners]
            return lambda: _live(
                keep, memory, lambda: acceptor.main(pool, theirs, self._listeners, self._key)
            )
        return lambda: _live(keep, memory, lambda: syncer.main(pool, theirs))

    # --- the dead, and the hung ---

    def _reap(self, now: float) -> None:
        for number, child in list(self._forked.items()):
            if child.exitcode is not None:
                # What the dead one said while it lived comes first.
                self._heed_reports(number)
                self._bury(number, child.exitcode, now)
        if self._inherited.upgraded:
            takeover.reap(self._inherited.old_children)

    def _bury(self, number: int, exit_code: int, now: float) -> None:
        end = self.controls.pop(number)
        self._events.unregister(end.fileno())
        end.close()
        self._forked.pop(number).close()
        self._kill_at.pop(number, None)
        place, slot = self.places[number], self.board.processes[number]
        child = children.reaped(place, exit_code, now)
        stays = not place.wanted or self._stop_at is not None
        process.log_line(
            slot,
            event="reaped",
            role=process.role(slot, self.settings.workers),
            signal=signal.Signals(-exit_code).name if exit_code < 0 else None,
            exit=exit_code if exit_code >= 0 else None,
            early=None if child.ready else "yes",
            sessions=slot.sessions,
            action="none" if stays else "respawn",
        )
        slot.state, slot.pid, slot.deadline_ns = sb.EMPTY, 0, 0
        if number == self.acceptor_slot:
            self.keeper.free_claimed()
        if exit_code == errors.LogCorrupt.exit_code:
            raise errors.LogCorrupt("room.log is damaged; see the lines above")
        if number < self.settings.workers:
            self._after_a_worker(slot, child.late or exit_code in _INPUT_MAY_DO)
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
        log = chatlog.ChatLog(self.room.log, writable=True)
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

    def _kill_hung(self, act: Kill, now: float) -> None:
        """Ask a hung process for the stack of every thread, and end it soon after."""
        slot = self.board.processes[act.slot]
        process.log_line(slot, event="late", action="kill", role=self.role(slot))
        self._kill_at[act.slot] = now + _STACK_S
        for number in (worker.STACK_SIGNAL, signal.SIGCONT):
            os.kill(act.pid, number)

    def _kill(self, number: int) -> None:
        self._kill_at.pop(number, None)
        child = self.places[number].child
        if child:
            os.kill(child.pid, signal.SIGKILL)

    def role(self, slot: sb.ProcessSlot) -> str:
        return process.role(slot, self.settings.workers)

    def _tick(self, now: float) -> None:
        """Look at every state, whatever was or was not reported."""
        if self._unsettled:
            self._settle()
        if self._stop_at is None:
            if all(p.child for p in self.places if p.wanted and not p.drained):
                self.keeper.deal()
            self.keeper.look()
        for slot in self.board.workers:
            if slot.state == sb.DRAINING and not slot.sessions:
                slot.state = sb.DRAINED

    # --- what comes in ---

    def _heed_reports(self, number: int) -> None:
        more = True
        while more:
            messages, _ = handoff.receive_all(self.controls[number])
            more = bool(messages)
            for message in messages:
                self._heed_report(number, message)

    def _heed_report(self, number: int, message: Message) -> None:
        place, slot = self.places[number], self.board.processes[number]
        if message.kind == Kind.READY and place.child:
            place.child.ready = True
            slot.state = sb.DRAINED if place.drained else sb.SERVING
        elif message.kind == Kind.KEEP and message.fd >= 0:
            if self.keeper.keep(message):
                handoff.send(self.controls[number], message._replace(kind=Kind.KEPT, fd=-1))
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
        taken = False
        if message.fd >= 0 and self._is_its_turn(message.text):
            if message.kind == Kind.SESSION:
                taken = self.keeper.adopt(message.text, message.fd)
            elif message.kind == Kind.LISTENER:
                taken = self._inherit_listener(message.fd)
            self._old_until = time.monotonic() + _TAKE_OVER_S
        elif message.fd >= 0:
            os.close(message.fd)
        return Message(Kind.TAKEN, message.slot) if taken else None

    def _is_its_turn(self, record: bytes) -> bool:
        """Whether to take from this orphan now: newest pools first, ours must be open.

        A predecessor that died while it took over may have passed a session on to
        its own worker without having said so to the old one.  Who served it last
        knows where it stands.
        """
        living = [old.name for old in self._old if takeover.living(old)]
        return self._owns_log and takeover.block_of(record) in living[:1]

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

    def _inherit_listener(self, fd: int) -> bool:
        if self._inherited.upgraded:
            os.close(fd)  # we have it already
        else:
            self._listeners.append(socket.socket(fileno=fd))
        return True

    def _take_over(self, now: float) -> None:
        """Go one step on with taking an old pool's sessions over; never waits."""
        if not self._owns_log:
            workers = self.places[: self.settings.workers]
            if not all(place.child and place.child.ready for place in workers):
                return
            if not self._move_head(self._old[0]):
                return
            self._old_until = now + _TAKE_OVER_S
        if any(takeover.living(old) for old in self._old) and now < self._old_until:
            return
        for old in self._old:
            takeover.end(old)
        self._old = []
        if not self._listeners:
            port = self.board.words[sb.H_PORT] or self.settings.port
            self._listeners = listener.bind(self.settings.hosts, port)
        for one in self._listeners:
            one.setblocking(False)
        self.places[self.acceptor_slot].wanted = True
        process.log_line(self.board.supervisor, event="took-over")

    def _move_head(self, old: sb.Scoreboard) -> bool:
        log = chatlog.ChatLog(self.room.log, writable=True)
        try:
            if not takeover.move_head(old, self.board, log):
                return False
        finally:
            log.close()
        self.board.words[sb.H_PORT] = old.words[sb.H_PORT]
        self._open_room(self.board)
        return True

    def read_key(self) -> None:
        """Read the key again; a new acceptor knows it.  Raises BadConfig."""
        self._key = self.room.key()
        self._kill(self.acceptor_slot)

    # --- the door ---

    def close_door(self) -> None:
        """Refuse new connections at once: the port is closed, for every process."""
        self.places[self.acceptor_slot].wanted = False
        self._kill(self.acceptor_slot)
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
        self.places[self.acceptor_slot].wanted = True

    def become(self, program: list[str]) -> None:
        """Run other code under this pid (upgrade).  Returns only if that failed."""
        old_children = [place.child.pid for place in self.living() if place.child]
        upgrade.hand_down(self.room.held_fd, self._listeners, old_children)
        # The new code has no handlers yet; a signal would end it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            os.execv(program[0], program)
        except OSError as err:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            upgrade.take_back(self.room.held_fd, self._listeners)
            process.log_line(self.board.supervisor, event="upgrade-failed", reason=err)

    # --- the end ---

    def _stop(self) -> None:
        now = time.monotonic()
        if self._stop_at is not None:
            self._stop_at = now  # asked twice: at once
            return
        self._stop_at = now + self.settings.stop_s + _STOP_GRACE_S
        process.log_line(self.board.supervisor, event="stopping")
        for place in self.living():
            if place.slot < self.settings.workers:
                handoff.send(self.controls[place.slot], Message(Kind.STOP))
            else:
                self._kill(place.slot)  # nothing of theirs to lose

    def _leave(self) -> None:
        """Leave nothing behind but the room: no process, no block, no socket."""
        for place in self.living():
            self._kill(place.slot)
        for child in self._forked.values():
            child.join()
        self._desk.close()
        if self._owns_log or self._stop_at is not None:
            for old in self._old:  # else they chat on, as if we had not come
                takeover.end(old)
        if self._owns_log:
            self.keeper.free_all()
            with contextlib.suppress(errors.LogCorrupt):
                self._settle()
            if self.settings.fsync != "never":
                _sync(self.room)
            self.room.leave()
        signal.set_wakeup_fd(-1)
        self.board.unlink()


# --- in the child --------------------------------------------------------------------


def _live(keep: Iterable[int], memory: int, main: Callable[[], int]) -> None:
    """A child's whole life.  Its exit code says how it ended (errors.py)."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Only the supervisor is asked to end, and tells; also where a whole group is.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    process.close_others(keep)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        exit_code = main()
    except Exception as err:  # a bug: whatever it is, somebody else goes on
        import traceback  # only the dying need it

        process.emit({"event": "bug", "pid": os.getpid(), "error": repr(err)})
        traceback.print_exc()
        exit_code = errors.EX_SOFTWARE
    os._exit(exit_code)


# --- before the first fork -----------------------------------------------------------


def _size(settings: Settings, old: sb.Scoreboard | None = None) -> tuple[int, int, int]:
    """(workers, sessions, ring bytes) of a block for this machine."""
    one = sb.block_bytes(1, 1, settings.ring_bytes) - sb.block_bytes(1, 0, settings.ring_bytes)
    sessions = settings.max_clients or min(_DEFAULT_CLIENTS, sb.free_bytes() // 2 // one)
    # Each member costs the supervisor a descriptor, and it must not run out.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_FDS - 4 * settings.workers
    if limit < 1:
        raise errors.CannotCreate("too few descriptors: raise the limit (ulimit -n)")
    if settings.max_clients and sessions > limit:
        process.emit({"event": "max-clients-lowered", "to": limit, "by": "ulimit -n"})
    sessions = max(1, min(sessions, limit))
    if old:
        sessions = max(sessions, old.session_count)
    return settings.workers, sessions, settings.ring_bytes


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

