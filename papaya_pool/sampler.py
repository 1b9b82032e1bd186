"""One look at a pool: the scoreboard, and what the kernel says of its processes.

It asks no process anything (law 12), so it works while every one of them is hung,
and a figure is as old as its writer's last store: a worker's counters are those of
this moment, a client's are written about once a second.  What can be known more
exactly than that is computed: who is up to date has been sent what its worker has.

Owner:   nobody's.  The block is mapped read-only and never unlinked; who watches
         cannot disturb (gh-82300: see scoreboard.look).
Failure: NoPool where no pool lives, NotPermitted where the block may not be read.
         What permissions hide of a process is None, and `hidden` names it.
Not here: rates.  They take two looks; see watch/figures.py.
"""

import sys
import time
from pathlib import Path
from typing import ClassVar, NamedTuple

import psutil  # type: ignore[import-untyped]

from papaya_pool import clientele, errors, pulse
from papaya_pool import scoreboard as sb
from papaya_pool.room import Room

COSTLY_ROUNDS = 3  # what is dearer than all the rest is read in turns
UNSEEN_STATE = "dead"  # the slot has a process, the kernel has not


class NoPool(errors.PoolFault):
    """No pool lives in that state directory."""

    exit_code: ClassVar[int] = errors.EX_UNAVAILABLE


class NotPermitted(errors.PoolFault):
    """The pool is somebody else's, and its block may not even be read."""

    exit_code: ClassVar[int] = errors.EX_NOPERM


class Process(NamedTuple):
    """One process slot.  Counters count for the slot, over all that were in it."""

    slot: int
    role: str  # worker, acceptor, syncer, supervisor
    pid: int  # 0: the slot is empty
    generation: int
    state: str  # as the scoreboard says, or: late, frozen, dead
    age_s: float | None
    deadline_s: float | None  # from now on; negative: it is late
    waiting: bool  # for the log's lock, so not hung
    sessions: int
    in_hand: int | None  # the session whose input it is reading at this moment
    messages_in: int
    bytes_in: int
    deliveries: int
    bytes_out: int
    lag_bytes: int
    lock_wait_s: float
    moves_in: int
    moves_out: int
    torn: int
    admitted: int
    refused: int
    cpu_s: float | None  # of this generation
    context_switches: int | None
    rss_bytes: int | None
    pss_bytes: int | None
    uss_bytes: int | None
    descriptors: int | None

    @property
    def respawns(self) -> int:
        return max(0, self.generation - 1)


class Snapshot(NamedTuple):
    """A pool at one moment."""

    at_s: float  # monotonic
    time_ms: int  # since 1970
    state_dir: str
    log_id: str
    port: int
    uptime_s: float
    head_seq: int
    log_bytes: int
    log_refused: bool  # the disk did not take the last append: senders wait
    max_clients: int
    processes: tuple[Process, ...]
    clients: tuple[clientele.Client, ...]
    hidden: tuple[str, ...]  # what permissions do not let us see

    @property
    def workers(self) -> tuple[Process, ...]:
        return tuple(p for p in self.processes if p.role == "worker")

    @property
    def worst_lag_bytes(self) -> int:
        return max((p.lag_bytes for p in self.workers), default=0)


class Sampler:
    """Looks at the pool of one state directory, also when another takes its place."""

    def __init__(self, state_dir: Path) -> None:
        """Raises NoPool and NotPermitted."""
        self._room = Room(state_dir)
        self._known: dict[int, psutil.Process] = {}  # by pid
        self._costly: dict[int, _Costly] = {}  # by pid
        self._unacked: dict[str, int] | None = None
        self._texts: clientele.Texts = {}
        self._round = 0
        self._board = self._look()

    def sample(self, *, whole: bool = False, unacked: bool = False) -> Snapshot:
        """One look.  `whole`: also what is read in turns; `unacked`: /proc/net too.

        Raises NoPool and NotPermitted: the pool may have gone, or be another's now.
        """
        if self._room_scoreboard() != self._board.name:
            self._board = self._look()
            self._texts.clear()
        if len(self._known) > 2 * len(self._board.processes):  # most of them dead
            self._known.clear()
        board, self._round = self._board, self._round + 1
        hidden: set[str] = set()
        if unacked and (whole or not self._unacked or self._round % COSTLY_ROUNDS == 0):
            pid = next((slot.pid for slot in board.processes if slot.pid), 0)
            self._unacked = clientele.unacked(pid, board.words[sb.H_PORT])
        head, now_s, now_ms = (
            board.head(),
            time.monotonic(),
            time.time_ns() // 1_000_000,
        )
        processes = tuple(
            self._process(slot, head, now_s, now_ms, whole, hidden)
            for slot in board.processes
        )
        if not any(p.pid and p.state != UNSEEN_STATE for p in processes):
            raise NoPool(f"no pool in {self._room.dir}: its processes are gone")
        return Snapshot(
            at_s=now_s,
            time_ms=now_ms,
            state_dir=str(self._room.dir),
            log_id=board.log_id,
            port=board.words[sb.H_PORT],
            uptime_s=_since(board.words[sb.H_STARTED_MS], now_ms) or 0.0,
            head_seq=head.seq,
            log_bytes=head.tail,
            log_refused=bool(board.words[sb.H_REFUSED]),
            max_clients=board.session_count,
            processes=processes,
            clients=tuple(
                clientele.clients(board, head, now_ms, self._unacked, self._texts)
            ),
            hidden=tuple(sorted(hidden)),
        )

    def past(self, steps: int, step_s: int) -> list[tuple[int, int]]:
        """(time, newest seq then) at the ends of the last steps, as the log says."""
        now_ms = time.time_ns() // 1_000_000
        last = now_ms // (1000 * step_s)
        ends_ms = [1000 * step_s * step for step in range(last - steps, last + 1)]
        return pulse.seqs_at(self._room.log, self._board.head().tail, ends_ms)

    # --- finding it ---

    def _room_scoreboard(self) -> str:
        try:
            name = self._room.scoreboard()
        except PermissionError as err:
            raise NotPermitted(f"{self._room.dir}: {err.strerror}") from err
        except OSError as err:  # a file where a directory should be, a name too long
            raise NoPool(f"no pool in {self._room.dir}: {err.strerror}") from err
        if not name or "/" in name or "\0" in name:
            raise NoPool(f"no pool in {self._room.dir}")
        return name

    def _look(self) -> sb.Scoreboard:
        name = self._room_scoreboard()
        try:
            return sb.look(name)
        except PermissionError as err:
            raise NotPermitted(f"{sb.SHM}/{name}: {err.strerror}") from err
        except (OSError, ValueError) as err:
            raise NoPool(
                f"no pool in {self._room.dir}: its scoreboard is gone"
            ) from err

    # --- one process ---

    def _process(
        self,
        slot: sb.ProcessSlot,
        head: sb.Head,
        now_s: float,
        now_ms: int,
        whole: bool,
        hidden: set[str],
    ) -> Process:
        is_worker = slot.number < self._board.worker_count
        pid, in_hand, seen = slot.pid, slot.in_hand, _NOTHING
        deadline_s = slot.deadline_ns / 1e9 - now_s if slot.deadline_ns else None
        costly = _HIDDEN
        if pid:
            seen = self._seen(pid, hidden)
            in_turn = whole or (self._round + slot.number) % COSTLY_ROUNDS == 0
            if seen.alive and (in_turn or pid not in self._costly):
                self._costly[pid] = _costly(self._known.get(pid), hidden)
            costly = self._costly.get(pid, _HIDDEN) if seen.alive else _HIDDEN
        return Process(
            slot=slot.number,
            role="worker"
            if is_worker
            else sb.ROLES[slot.number - self._board.worker_count],
            pid=pid,
            generation=slot.generation,
            state=_state(slot, pid, seen, deadline_s),
            age_s=_since(slot.started_ms, now_ms) if pid else None,
            deadline_s=deadline_s,
            waiting=bool(slot.waiting),
            sessions=slot.sessions,
            in_hand=in_hand - 1 if in_hand else None,
            messages_in=slot.messages,
            bytes_in=slot.bytes_in,
            deliveries=slot.deliveries,
            bytes_out=slot.bytes_out,
            lag_bytes=clientele.lag_of(slot, slot.lag, head)
            if is_worker and slot.sessions
            else 0,
            lock_wait_s=slot.lock_ns / 1e9,
            moves_in=slot.moves_in,
            moves_out=slot.moves_out,
            torn=slot.torn,
            admitted=slot.admitted,
            refused=slot.refused,
            cpu_s=seen.cpu_s,
            context_switches=seen.context_switches,
            **costly._asdict(),
        )

    def _seen(self, pid: int, hidden: set[str]) -> "_Seen":
        """What the kernel says of a process, at the price of two small reads."""
        try:
            process = self._known.get(pid)
            if process is None or not process.is_running():
                self._costly.pop(pid, None)
                process = psutil.Process(pid)
                if sys.platform == "linux" and not process.name().startswith("papaya:"):
                    return _NOTHING  # the number has gone to a stranger
                self._known[pid] = process
            with process.oneshot():
                status, times = process.status(), process.cpu_times()
                switches = process.num_ctx_switches()
        except psutil.NoSuchProcess:
            # /proc may be mounted so that other people's processes are not in it.
            if not psutil.pid_exists(pid):
                return _NOTHING
            hidden.add("processes")
            return _Seen(True, "", None, None)
        except psutil.AccessDenied:
            hidden.add("CPU CTXSW")
            return _Seen(True, "", None, None)
        if status == psutil.STATUS_ZOMBIE:
            return _NOTHING
        count = switches.voluntary + switches.involuntary
        return _Seen(True, status, times.user + times.system, count)


class _Seen(NamedTuple):
    alive: bool
    status: str
    cpu_s: float | None
    context_switches: int | None


class _Costly(NamedTuple):
    rss_bytes: int | None
    pss_bytes: int | None
    uss_bytes: int | None
    descriptors: int | None


_NOTHING = _Seen(False, "", None, None)
_HIDDEN = _Costly(None, None, None, None)


def _costly(process: psutil.Process | None, hidden: set[str]) -> _Costly:
    """Memory that is shared out fairly, and open descriptors: for its owner."""
    if process is None:
        return _HIDDEN
    rss = pss = uss = descriptors = None
    try:
        rss = process.memory_info().rss
        full = process.memory_full_info()
        pss, uss = getattr(full, "pss", None), getattr(full, "uss", None)
    except psutil.AccessDenied:
        hidden.add("PSS USS")
    except psutil.NoSuchProcess:
        return _HIDDEN
    try:
        descriptors = process.num_fds()
    except psutil.AccessDenied:
        hidden.add("FDS")
    except psutil.NoSuchProcess:
        return _HIDDEN
    return _Costly(rss, pss, uss, descriptors)


def _state(
    slot: sb.ProcessSlot, pid: int, seen: _Seen, deadline_s: float | None
) -> str:
    state = sb.STATES[slot.state] if slot.state < len(sb.STATES) else "unknown"
    if not pid or slot.state == sb.EMPTY:
        return sb.STATES[sb.EMPTY]
    if not seen.alive:
        return UNSEEN_STATE
    if deadline_s is not None and deadline_s < 0 and not slot.waiting:
        return "late"
    if seen.status == psutil.STATUS_STOPPED:
        return "frozen"  # somebody's SIGSTOP; late, when it goes on
    return state


def _since(then_ms: int, now_ms: int) -> float | None:
    """Seconds since; the clock may have been set back meanwhile."""
    return max(0, now_ms - then_ms) / 1000 if then_ms else None
