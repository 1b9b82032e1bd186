"""The pool's processes, as their parent: forking, reaping, asking the hung, killing.

The only room that forks and waits.  What is to be done is decided in children.py;
this does it.

Owner:   of the first line of every process slot.
Order:   a slot is filled again only after its process was reaped, and its control
         socket read to the end.
Failure: a fork that fails is tried again a second later; nobody is disconnected
         because there was no memory for a moment.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import ForkProcess
from typing import NamedTuple

from papaya_pool import children, errors, handoff, poller, process
from papaya_pool import scoreboard as sb
from papaya_pool.children import Act, Child, Kill, Place
from papaya_pool.process import Seat

_STACK_S = 0.2  # for a hung process to say where it hangs
_RETRY_S = 1.0
_MEMORY_BYTES = 4 << 30  # beyond the block: more is a bug, and exit 70 instead of OOM


class Life(NamedTuple):
    """What a child is to be: the descriptors it keeps, and its main."""

    keep: list[int]
    main: Callable[[], int]


class Death(NamedTuple):
    """A reaped process.  `exit_code` is negative for a signal."""

    slot: sb.ProcessSlot
    place: Place
    child: Child
    exit_code: int


class Crew:
    """Every process slot but the supervisor's own."""

    def __init__(
        self,
        board: sb.Scoreboard,
        events: poller.Poller,
        seats: Callable[[sb.ProcessSlot, int], list[Seat]],
        life: Callable[[int, int, socket.socket, list[Seat]], Life],
        deadline_s: float,
    ) -> None:
        self.board, self._deadline_s = board, deadline_s
        self.places = [Place(slot.number) for slot in board.processes]
        self.places[-1].wanted = False  # our own
        self.workers = self.places[: board.worker_count]
        self.acceptor, self.syncer = self.places[board.worker_count :][:2]
        self.controls: dict[int, socket.socket] = {}  # by slot: our end
        self._forked: dict[int, ForkProcess] = {}  # by slot
        self._kill_at: dict[int, float] = {}  # by slot: hung, and asked where
        self._events, self._seats, self._life = events, seats, life

    # --- who there is ---

    def living(self) -> list[Place]:
        return [place for place in self.places if place.child]

    def incarnations(self) -> set[int]:
        return {place.child.incarnation for place in self.places if place.child}

    def is_complete(self) -> bool:
        """Whether everybody who is wanted is there, and ready."""
        wanted = [place for place in self.places if place.wanted]
        return all(place.child and place.child.ready for place in wanted)

    def decide(self, now: float) -> list[Act]:
        """What is to be done, by what every process promised last."""
        for place in self.living():
            deadline_ns = self.board.processes[place.slot].deadline_ns
            assert place.child
            place.child.deadline_s = deadline_ns / 1e9 if deadline_ns else None
        return children.decide(self.places, now)

    def next_s(self) -> Iterator[float]:
        """Monotonic times at which there will be something to do."""
        yield from self._kill_at.values()
        spawn = children.next_spawn_s(self.places)
        if spawn is not None:
            yield spawn

    # --- forking ---

    def spawn(self, place: Place, now: float) -> bool:
        """Fill an empty slot; a worker's with every session whose owner is dead.

        False if it could not be: then those sessions are nobody's again.
        """
        slot = self.board.processes[place.slot]
        try:
            self._spawn(place, slot, now)
        except OSError as err:  # no memory, no pids, no descriptors: later
            place.not_before_s = now + _RETRY_S
            process.log_line(slot, event="cannot-fork", reason=err)
            return False
        return True

    def _spawn(self, place: Place, slot: sb.ProcessSlot, now: float) -> None:
        incarnation = self.board.new_incarnation()
        takes = place in self.workers and not place.drained
        seats = self._seats(slot, incarnation) if takes else []
        slot.incarnation = incarnation
        slot.generation += 1
        slot.state, slot.started_ms = sb.STARTING, time.time_ns() // 1_000_000
        slot.waiting = slot.in_hand = slot.sessions = slot.lag = 0
        # Else one that hangs before its first turn would never be late.
        promises = place in self.workers or place is self.acceptor
        slot.deadline_ns = int((now + self._deadline_s) * 1e9) if promises else 0
        ours, theirs = handoff.pair()
        life = self._life(place.slot, incarnation, theirs, seats)
        memory = len(self.board.octets) + _MEMORY_BYTES
        child = multiprocessing.get_context("fork").Process(
            target=_live, args=(life, memory), daemon=False
        )
        child.start()
        assert child.pid
        theirs.close()
        slot.pid = child.pid
        place.child = Child(child.pid, incarnation)
        self._forked[place.slot] = child
        self.controls[place.slot] = ours
        self._events.register(ours.fileno(), poller.IN)

    # --- the dead, and the hung ---

    def reap(self, now: float, heed: Callable[[int], None]) -> Iterator[Death]:
        """Everybody who died, after `heed` has read what they said while they lived."""
        for number, child in list(self._forked.items()):
            if child.exitcode is None:
                continue
            heed(number)
            control = self.controls.pop(number)
            self._events.unregister(control.fileno())
            control.close()
            self._forked.pop(number)
            self._kill_at.pop(number, None)
            place, slot = self.places[number], self.board.processes[number]
            gone = children.reaped(place, child.exitcode, now)
            death = Death(slot, place, gone, child.exitcode)
            child.close()
            yield death

    def ask_where(self, act: Kill, now: float) -> None:
        """Ask a hung process for the stack of every thread, and end it soon after."""
        slot = self.board.processes[act.slot]
        role = process.role(slot, self.board.worker_count)
        process.log_line(slot, event="late", action="kill", role=role)
        self._kill_at[act.slot] = now + _STACK_S
        for number in (process.STACK_SIGNAL, signal.SIGCONT):
            os.kill(act.pid, number)

    def kill_overdue(self, now: float) -> None:
        for slot, kill_at in list(self._kill_at.items()):
            if now >= kill_at:
                self.kill(self.places[slot])

    def kill(self, place: Place) -> None:
        self._kill_at.pop(place.slot, None)
        if place.child:
            os.kill(place.child.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill everybody, and wait until they are gone."""
        for place in self.living():
            self.kill(place)
        for child in self._forked.values():
            child.join()


# --- in the child --------------------------------------------------------------------


def _live(life: Life, memory_bytes: int) -> None:
    """A child's whole life.  Its exit code says how it ended (errors.py)."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Only the supervisor is asked to end, and tells; also where a whole group is.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    _close_others(life.keep)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    try:
        exit_code = life.main()
    except Exception as err:  # a bug: whatever it is, somebody else goes on
        import traceback  # only the dying need it

        process.emit({"event": "bug", "pid": os.getpid(), "error": repr(err)})
        traceback.print_exc()
        exit_code = errors.EX_SOFTWARE
    os._exit(exit_code)


def _close_others(keep: Iterable[int]) -> None:
    """Close every descriptor but stdin, stdout, stderr and `keep` (law 3).

    One that was inherited by accident keeps a dead process's lock, or a departed
    member's connection, alive.
    """
    begin = 3
    for fd in sorted(set(keep)):
        if fd >= begin:
            os.closerange(begin, fd)
            begin = fd + 1
    os.closerange(begin, os.sysconf("SC_OPEN_MAX"))
