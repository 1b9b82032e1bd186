"""Two looks at a pool make a rate: what changed, over the time between them.

A figure that cannot be known is None and never 0: the process was not there at the
first look, or somebody's permissions hide it.
"""

from collections import deque
from typing import NamedTuple

from papaya_pool.clientele import Client
from papaya_pool.sampler import Process, Snapshot

CELL_S = 5  # what one cell of the sparkline stands for
CELLS = 60
SLOW_S = 5.0  # over which a client's CPU time is averaged


class ProcessRow(NamedTuple):
    now: Process
    cpu_percent: float | None
    messages_per_s: float | None
    deliveries_per_s: float | None
    bytes_per_s: float | None
    switches_per_s: float | None

    @property
    def key(self) -> tuple[int, int]:
        """The same row in the next figures, whoever is in the slot then."""
        return self.now.slot, 0


class ClientRow(NamedTuple):
    now: Client
    messages_per_s: float | None
    deliveries_per_s: float | None
    bytes_per_s: float | None
    cpu_ms_per_s: float | None

    @property
    def key(self) -> tuple[int, int]:
        return self.now.session, self.now.generation


Row = ProcessRow | ClientRow


class Figures(NamedTuple):
    """One screenful of knowledge."""

    now: Snapshot
    window_s: float
    processes: list[ProcessRow]
    clients: list[ClientRow]
    messages_per_s: float | None
    deliveries_per_s: float | None
    bytes_per_s: float | None
    lock_wait: float | None  # seconds waited for the log's lock a second, by all


class Looks:
    """The looks of the last seconds, and what each new one makes with them."""

    def __init__(self) -> None:
        self._looks: deque[Snapshot] = deque()

    def add(self, now: Snapshot) -> Figures:
        looks = self._looks
        if looks and not _is_later(looks[-1], now):
            looks.clear()
        while len(looks) > 1 and now.at_s - looks[0].at_s > SLOW_S:
            looks.popleft()
        made = figures(looks[-1] if looks else None, now, looks[0] if looks else None)
        looks.append(now)
        return made

    @property
    def newest(self) -> Snapshot | None:
        return self._looks[-1] if self._looks else None


def _is_later(before: Snapshot, now: Snapshot) -> bool:
    """Whether both are looks at the same pool."""
    same = (before.log_id, before.port) == (now.log_id, now.port)
    return same and before.at_s < now.at_s


def figures(
    before: Snapshot | None, now: Snapshot, long_before: Snapshot | None = None
) -> Figures:
    """What happened between two looks.  `before` is None at the first.

    `long_before` is for what is written only once a second: in a window that short
    it would be there twice or not at all.
    """
    window_s = now.at_s - before.at_s if before else 0.0
    earlier = {p.slot: p for p in before.processes} if before else {}
    rows = [_process_row(earlier.get(p.slot), p, window_s) for p in now.processes]
    mean_line = _mean_line(before, now)
    known = {(c.session, c.generation): c for c in before.clients} if before else {}
    costs = _costs(long_before, now)
    clients = [
        _client_row(known.get((c.session, c.generation)), c, window_s, mean_line, costs)
        for c in now.clients
    ]
    waited = [
        _rate(earlier[p.slot].lock_wait_s, p.lock_wait_s, window_s)
        for p in now.processes
        if p.slot in earlier
    ]
    return Figures(
        now=now,
        window_s=window_s,
        processes=rows,
        clients=clients,
        messages_per_s=_rate(before.head_seq, now.head_seq, window_s)
        if before
        else None,
        deliveries_per_s=_total([row.deliveries_per_s for row in rows]),
        bytes_per_s=_total([row.bytes_per_s for row in rows]),
        lock_wait=_total(waited),
    )


def _process_row(before: Process | None, now: Process, window_s: float) -> ProcessRow:
    if before is None:
        return ProcessRow(now, None, None, None, None, None)
    cpu = switches = None
    if before.pid == now.pid and before.generation == now.generation:
        cpu = _known_rate(before.cpu_s, now.cpu_s, window_s)
        switches = _known_rate(before.context_switches, now.context_switches, window_s)
    return ProcessRow(
        now,
        cpu_percent=None if cpu is None else 100 * cpu,
        messages_per_s=_rate(before.messages_in, now.messages_in, window_s),
        deliveries_per_s=_rate(before.deliveries, now.deliveries, window_s),
        bytes_per_s=_rate(before.bytes_out, now.bytes_out, window_s),
        switches_per_s=switches,
    )


def _client_row(
    before: Client | None,
    now: Client,
    window_s: float,
    mean_line: float,
    costs: dict[tuple[int, int], float],
) -> ClientRow:
    cpu = costs.get((now.session, now.generation))
    if before is None:
        return ClientRow(now, None, None, None, cpu)
    sent = _rate(before.bytes_out, now.bytes_out, window_s)
    return ClientRow(
        now,
        messages_per_s=_rate(before.messages_in, now.messages_in, window_s),
        deliveries_per_s=sent / mean_line if mean_line else 0.0,
        bytes_per_s=sent,
        cpu_ms_per_s=cpu,
    )


def _costs(before: Snapshot | None, now: Snapshot) -> dict[tuple[int, int], float]:
    """CPU-ms a second, by session; since it came where the window is too short."""
    window_s = now.at_s - before.at_s if before else 0.0
    known: dict[tuple[int, int], float] = {}
    if before and window_s >= SLOW_S / 2:
        known = {(c.session, c.generation): c.cpu_s for c in before.clients}
    costs = {}
    for c in now.clients:
        key = c.session, c.generation
        if key in known:
            costs[key] = 1000 * _rate(known[key], c.cpu_s, window_s)
        elif c.age_s >= 1:
            costs[key] = 1000 * c.cpu_s / c.age_s
    return costs


def _mean_line(before: Snapshot | None, now: Snapshot) -> float:
    """Bytes in a line of the log, of those that came in the window if any did.

    Nobody counts the lines that one client is sent; its bytes tell well enough.
    """
    if before and now.head_seq > before.head_seq:
        return (now.log_bytes - before.log_bytes) / (now.head_seq - before.head_seq)
    return now.log_bytes / now.head_seq if now.head_seq else 0.0


def _rate(before: float, now: float, window_s: float) -> float:
    return max(0.0, now - before) / window_s


def _known_rate(
    before: float | None, now: float | None, window_s: float
) -> float | None:
    if before is None or now is None:
        return None
    return _rate(before, now, window_s)


def _total(rates: list[float | None] | list[float]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None


class History:
    """Messages a second in the last minutes, a cell for every few seconds."""

    def __init__(self, cells: int = CELLS, cell_s: int = CELL_S) -> None:
        self._cells, self._cell_s = cells, cell_s
        self._ends: deque[int] = deque(maxlen=cells + 1)  # seq at each cell's end
        self._last: tuple[int, int] | None = None

    def note(self, time_ms: int, seq: int) -> None:
        """The newest seq at a time.  Times run forwards; else it begins again."""
        step_ms = 1000 * self._cell_s
        then_ms, had = self._last or (time_ms, seq)
        if time_ms < then_ms or seq < had:
            self._ends.clear()
            then_ms, had = time_ms, seq
        self._last = time_ms, seq
        if time_ms == then_ms:
            if time_ms % step_ms == 0 and not self._ends:
                self._ends.append(seq)
            return
        # What came since the last look came evenly, for all that we know.
        first = max(then_ms // step_ms + 1, time_ms // step_ms - self._cells)
        for end_ms in range(first * step_ms, time_ms + 1, step_ms):
            share = (seq - had) * (end_ms - then_ms) // (time_ms - then_ms)
            self._ends.append(had + share)

    def rates(self) -> list[float]:
        """Of whole cells, the oldest first."""
        seqs = list(self._ends)
        return [(b - a) / self._cell_s for a, b in zip(seqs, seqs[1:], strict=False)]
