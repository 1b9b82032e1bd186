"""The same figures for scripts: a table, JSON, and Prometheus' text exposition.

Format:  the keys of --json and the names of --prometheus are an interface: they may
         grow, but what is there keeps its name and its unit.  Counters are totals
         since the pool's start.  null is what cannot be known, and never 0.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from papaya_pool.client import cells
from papaya_pool.sampler import Process, Snapshot
from papaya_pool.watch import columns, paint
from papaya_pool.watch.figures import ClientRow, Figures, ProcessRow
from papaya_pool.watch.view import View

HEADER_COLUMNS = 132

# --- a table -------------------------------------------------------------------------


def table(figures: Figures, view: View, width: int) -> str:
    """All rows, however many, under the header.  Never wider than `width`."""
    rows = view.rows(figures)
    chosen = view.table
    # Nothing may be left out of what a script reads, unless it was asked to.
    placed = columns.fit(chosen.columns, rows, width, 0, chosen.sort)
    header = paint.header(
        figures, [], view, 3, min(width, HEADER_COLUMNS), unicode=False
    )
    lines = paint.plain(header)
    lines.append(" ".join(columns.padded(p.column.title, p) for p in placed))
    for row in rows:
        shown = [columns.padded(columns.shown(p.column, row), p) for p in placed]
        lines.append(" ".join(shown))
    return "".join(
        cells.cut(line, width).rstrip() + "\n" for line in lines if line.strip()
    )


# --- JSON ----------------------------------------------------------------------------


def as_json(figures: Figures) -> str:
    """One object on one line."""
    return json.dumps(as_object(figures), separators=(",", ":")) + "\n"


def as_object(figures: Figures) -> dict[str, Any]:
    now = figures.now
    return {
        "window_s": round(figures.window_s, 6),
        "time_ms": now.time_ms,
        "state_dir": now.state_dir,
        "log_id": now.log_id,
        "port": now.port,
        "uptime_s": now.uptime_s,
        "head_seq": now.head_seq,
        "members": len(now.clients),
        "max_clients": now.max_clients,
        "messages_in": sum(p.messages_in for p in now.processes),
        "deliveries": sum(p.deliveries for p in now.processes),
        "bytes_in": sum(p.bytes_in for p in now.processes),
        "bytes_out": sum(p.bytes_out for p in now.processes),
        "log_bytes": now.log_bytes,
        "log_refused": now.log_refused,
        "worst_lag_bytes": now.worst_lag_bytes,
        "lock_wait_s": sum(p.lock_wait_s for p in now.processes),
        "messages_per_s": _rounded(figures.messages_per_s),
        "deliveries_per_s": _rounded(figures.deliveries_per_s),
        "bytes_out_per_s": _rounded(figures.bytes_per_s),
        "hidden": list(now.hidden),
        # As on the screen: the acceptor and the others are rows too; `role` tells.
        "workers": [_process_object(row) for row in figures.processes],
        "clients": [_client_object(row) for row in figures.clients],
    }


def _process_object(row: ProcessRow) -> dict[str, Any]:
    now = row.now
    return {
        "slot": now.slot,
        "role": now.role,
        "pid": now.pid or None,
        "gen": now.generation,
        "state": now.state,
        "cpu_percent": _rounded(row.cpu_percent),
        "pss_bytes": now.pss_bytes,
        "uss_bytes": now.uss_bytes,
        "rss_bytes": now.rss_bytes,
        "sessions": now.sessions,
        "messages_in": now.messages_in,
        "deliveries": now.deliveries,
        "bytes_in": now.bytes_in,
        "bytes_out": now.bytes_out,
        "lag_bytes": now.lag_bytes,
        "lock_wait_s": now.lock_wait_s,
        "respawns": now.respawns,
        "age_s": now.age_s,
        "deadline_s": _rounded(now.deadline_s),
        "waits_for_lock": now.waiting,
        "cpu_s": now.cpu_s,
        "context_switches": now.context_switches,
        "fds": now.descriptors,
        "moves_in": now.moves_in,
        "moves_out": now.moves_out,
        "admitted": now.admitted,
        "refused": now.refused,
    }


def _client_object(row: ClientRow) -> dict[str, Any]:
    now = row.now
    return {
        "session": now.session,
        "name": now.name,
        "address": now.address,
        "dialect": now.dialect,
        "worker": now.worker,
        "messages_in": now.messages_in,
        "bytes_in": now.bytes_in,
        "bytes_out": now.bytes_out,
        "lag_bytes": now.lag_bytes,
        "unacked_bytes": now.unacked_bytes,
        "cpu_ms": round(1000 * now.cpu_s, 3),
        "idle_s": now.idle_s,
        "age_s": now.age_s,
        "moves": now.moves,
    }


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 3)


# --- Prometheus ----------------------------------------------------------------------
# Counters live by slot, so no respawn sets them back.  What lives by process instead
# (its CPU time) is told apart by its generation.  Names of members are no labels: they
# would make a series for everybody who was ever there.

Metric = tuple[str, str, str, Callable[[Process], float | None]]

_OF_POOL: tuple[tuple[str, str, str, Callable[[Snapshot], float]], ...] = (
    (
        "head_seq",
        "counter",
        "Sequence number of the newest message",
        lambda s: s.head_seq,
    ),
    ("log_bytes", "counter", "Published bytes in the log", lambda s: s.log_bytes),
    (
        "log_refused",
        "gauge",
        "1 while the disk takes no messages",
        lambda s: s.log_refused,
    ),
    ("members", "gauge", "Live sessions", lambda s: len(s.clients)),
    (
        "members_limit",
        "gauge",
        "Sessions that there is room for",
        lambda s: s.max_clients,
    ),
    (
        "worst_lag_bytes",
        "gauge",
        "How far the hindmost is behind",
        lambda s: s.worst_lag_bytes,
    ),
    ("uptime_seconds", "gauge", "Since the pool's start", lambda s: s.uptime_s),
)
_OF_WORKER: tuple[Metric, ...] = (
    (
        "messages_in_total",
        "counter",
        "Messages taken from members",
        lambda p: p.messages_in,
    ),
    ("deliveries_total", "counter", "Messages sent to members", lambda p: p.deliveries),
    ("bytes_in_total", "counter", "Bytes of lines taken", lambda p: p.bytes_in),
    ("bytes_out_total", "counter", "Bytes sent to members", lambda p: p.bytes_out),
    (
        "lock_wait_seconds_total",
        "counter",
        "Waited for the log",
        lambda p: p.lock_wait_s,
    ),
    ("moves_in_total", "counter", "Sessions seated", lambda p: p.moves_in),
    ("moves_out_total", "counter", "Sessions handed on", lambda p: p.moves_out),
    ("sessions", "gauge", "Sessions served now", lambda p: p.sessions),
    ("lag_bytes", "gauge", "How far its hindmost is behind", lambda p: p.lag_bytes),
)
_OF_PROCESS: tuple[Metric, ...] = (
    (
        "respawns_total",
        "counter",
        "Times the slot was filled again",
        lambda p: p.respawns,
    ),
    ("up", "gauge", "1 if it lives and is not late", lambda p: _is_up(p)),
    ("late", "gauge", "1 if it is past its deadline", lambda p: p.state == "late"),
    ("pss_bytes", "gauge", "Memory, shared out", lambda p: p.pss_bytes),
    ("uss_bytes", "gauge", "Memory that nobody shares", lambda p: p.uss_bytes),
    ("rss_bytes", "gauge", "Memory, shared or not", lambda p: p.rss_bytes),
    ("fds", "gauge", "Open descriptors", lambda p: p.descriptors),
)


def _is_up(process: Process) -> bool:
    return process.state not in ("empty", "late", "dead", "frozen")


def prometheus(now: Snapshot) -> str:
    return "".join(line + "\n" for line in _exposition(now))


def _exposition(now: Snapshot) -> Iterator[str]:
    for name, kind, words, of_pool in _OF_POOL:
        yield from _about(f"papaya_{name}", kind, words)
        yield f"papaya_{name} {_value(of_pool(now))}"
    acceptor = next((p for p in now.processes if p.role == "acceptor"), None)
    if acceptor:
        for name, words, count in (
            ("admitted", "Sessions admitted", acceptor.admitted),
            ("refused", "Logins refused", acceptor.refused),
        ):
            yield from _about(f"papaya_{name}_total", "counter", words)
            yield f"papaya_{name}_total {count}"
    for prefix, metrics, some in (
        ("worker", _OF_WORKER, now.workers),
        ("process", _OF_PROCESS, now.processes),
    ):
        for name, kind, words, of_process in metrics:
            yield from _about(f"papaya_{prefix}_{name}", kind, words)
            for process in some:
                value = of_process(process)
                if value is not None:
                    labels = _labels(process)
                    yield f"papaya_{prefix}_{name}{{{labels}}} {_value(value)}"
    yield from _about(
        "papaya_process_cpu_seconds_total", "counter", "CPU time of a process"
    )
    for process in now.processes:
        if process.cpu_s is not None:
            labels = f'{_labels(process)},generation="{process.generation}"'
            seconds = _value(process.cpu_s)
            yield f"papaya_process_cpu_seconds_total{{{labels}}} {seconds}"


def _about(name: str, kind: str, words: str) -> tuple[str, str]:
    return f"# HELP {name} {words}.", f"# TYPE {name} {kind}"


def _labels(process: Process) -> str:
    return f'slot="{process.slot}",role="{process.role}"'


def _value(figure: float) -> str:
    return str(int(figure)) if figure == int(figure) else repr(round(figure, 6))
