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


def figures(before: Snapshot | None, now: Snapshot) -> Figures:
    """What happened between two looks.  `before` is None at the first."""
    if before is not None and before.log_id + str(before.port) != now.log_id + str(now.port):
        before = None  # another pool's
    window_s = now.at_s - before.at_s if before else 0.0
    if window_s <= 0:
        before, window_s = None, 0.0
    earlier = {p.slot: p for p in before.processes} if before else {}
    rows = [_process_row(earlier.get(p.slot), p, window_s) for p in now.processes]
    mean_line = _mean_line(before, now)
    known = {(c.session, c.generation): c for c in before.clients} if before else {}
    clients = [
        _client_row(known.get((c.session, c.generation)), c, window_s, mean_line)
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
        messages_per_s=_rate(before.head_seq, now.head_seq, window_s) if before else None,
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
    before: Client | None, now: Client, window_s: float, mean_line: float
) -> ClientRow:
    if before is None:
        return ClientRow(now, None, None, None, None)
    sent = _rate(before.bytes_out, now.bytes_out, window_s)
    return ClientRow(
        now,
        messages_per_s=_rate(before.messages_in, now.messages_in, window_s),
        deliveries_per_s=sent / mean_line if mean_line else 0.0,
        bytes_per_s=sent,
        cpu_ms_per_s=1000 * _rate(before.cpu_s, now.cpu_s, window_s),
    )


def _mean_line(before: Snapshot | None, now: Snapshot) -> float:
    """Bytes in a line of the log, of those that came in the window if any did.

    Nobody counts the lines that one client is sent; its bytes tell well enough.
    """
    if before and now.head_seq > before.head_seq:
        return (now.log_bytes - before.log_bytes) / (now.head_seq - before.head_seq)
    return now.log_bytes / now.head_seq if now.head_seq else 0.0


def _rate(before: float, now: float, window_s: float) -> float:
    return max(0.0, now - before) / window_s


def _known_rate(before: float | None, now: float | None, window_s: float) -> float | None:
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
