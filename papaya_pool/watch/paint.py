"""The screen as text first: lines of (text, style), for curses or for a test.

Every line is at most `width` columns of a terminal wide and there are at most
`height` of them, from 1x1 up.  What a small screen has no room for goes in this
order: hints, the header's later figures, columns by their rank.
"""

import time
from collections.abc import Sequence
from typing import Any

from papaya_pool.client import cells
from papaya_pool.sampler import Snapshot
from papaya_pool.watch import columns
from papaya_pool.watch.columns import Placed, known, short, size
from papaya_pool.watch.figures import CELL_S, ClientRow, Figures
from papaya_pool.watch.view import View

Span = tuple[str, str]
Line = list[Span]

# Styles are names here; screen.py knows what they look like.
STATE_STYLES = {
    "serving": "", "empty": "dim", "starting": "dim", "draining": "warn",
    "drained": "warn", "stopping": "warn", "frozen": "warn", "late": "bad",
    "dead": "bad",
}  # fmt: skip
BEHIND_BYTES = 1 << 16  # a client's lag that is more than what is on its way to it

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=oO#@"

HINTS = (
    "F1 help  c clients/workers  / filter  Space tag  d drain  k kick  p pause  q quit"
)
READONLY_HINTS = (
    "F1 help  c clients/workers  / filter  Space tag  p pause  q quit  (readonly)"
)

HELP = """\
papaya-top: what a pool and its members cost, without asking them.

 q F10     quit                  up down PgUp PgDn Home End
 h ? F1    this help                       move the cursor
 c Tab     clients or workers    left right
 p Z       pause, go on                    other columns
 / F4 \\    filter by name, address, role or state
 Esc       no filter
 P M L N   sort by CPU, memory, lag, name (or slot)
 < >       sort by the column beside
 I         the other way round
 Space U   tag a row, untag all
 d         drain a worker: its members move to others; again: let it serve
 k F9      kick a client

Workers: CPU% of one core; PSS is memory with what is shared shared out, USS what
a worker's end would free, RSS counts all that is shared in full; IN/S messages
from members, OUT/S to members; LAG bytes that the hindmost member has not been
sent; DEADLINE when the supervisor will take it for hung; lock: it waits for the
log.  late: past its deadline; frozen: stopped by a signal; dead: not reaped yet.
Clients: UNACKED bytes sent and not acknowledged; CPU-MS/S what it costs its
worker, over 5 s; IDLE since it last said something; MOVES from worker to worker."""


def paint(
    figures: Figures | None,
    rates: Sequence[float],
    view: View,
    rows: Sequence[Any],
    height: int,
    width: int,
    unicode: bool = True,
) -> list[Line]:
    """The whole screen.  No curses, so a test can read it."""
    if view.help:
        lines = [[(text, "")] for text in HELP.splitlines()]
    elif figures is None:
        lines = [[(view.message or "no pool", "bad")]]
    else:
        lines = header(figures, rates, view, _header_height(height), width, unicode)
        placed = columns.fit(
            view.table.columns, rows, width, view.table.shift, view.table.sort
        )
        if height > 2:
            lines.append(_titles(view, placed, width))
        lines += _table(view, rows, placed, _page(height), width)
    if height > 4 or view.question or view.typing:
        free = height - 1
        lines = lines[:free] + [[] for _ in range(free - len(lines))]
        lines.append(_last_line(figures, view, rows, width))
    return [_cut(line, width) for line in lines[:height]]


def plain(lines: Sequence[Line]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def _header_height(height: int) -> int:
    return 4 if height >= 16 else 3 if height >= 12 else 2 if height >= 8 else 1


def _page(height: int) -> int:
    return max(0, height - _header_height(height) - (height > 2) - (height > 4))


def settle(view: View, rows: Sequence[Any], height: int, width: int) -> None:
    """Tell the view how much fits, and let it keep its cursor there."""
    view.page, view.width = max(1, _page(height)), width
    view.settle(rows)


# --- the header ----------------------------------------------------------------------


def header(
    figures: Figures,
    rates: Sequence[float],
    view: View,
    height: int,
    width: int,
    unicode: bool,
) -> list[Line]:
    """What is true of the pool as a whole, the most telling first."""
    now = figures.now
    lines: list[Line] = []
    if height > 1:
        lines.append(_first_line(now, view, width))
    lines += _flowed(_items(figures), height - len(lines) - (height > 3), width)
    if height > 3:
        lines.append(_spark_line(rates, width, unicode))
    return lines


def _first_line(now: Snapshot, view: View, width: int) -> Line:
    up = columns.duration(now.uptime_s)
    left = f"papaya-top  port {now.port}  up {up}  {now.state_dir}"
    clock = time.strftime("%H:%M:%S", time.localtime(now.time_ms / 1000))
    right = "PAUSED" if view.paused else clock
    left = cells.cut(cells.harmless(left), max(0, width - len(right) - 1))
    gap = " " * max(1, width - cells.columns(left) - len(right))
    return [(left, "head"), (gap, ""), (right, "warn" if view.paused else "dim")]


def _items(figures: Figures) -> list[Line]:
    now = figures.now
    items: list[Line] = []
    if now.hidden:
        items.append([(f"hidden from you: {' '.join(now.hidden)}", "warn")])
    bad = [
        row.now for row in figures.processes if STATE_STYLES.get(row.now.state) == "bad"
    ]
    if bad:
        names = " ".join(
            p.role if p.role != "worker" else f"w{p.slot}" for p in bad[:4]
        )
        more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
        items.append(
            [(f"{' and '.join(sorted({p.state for p in bad}))}: {names}{more}", "bad")]
        )
    if now.log_refused:
        items.append([("the disk takes no messages: senders wait", "bad")])
    lock = figures.lock_wait
    worst = now.worst_lag_bytes
    items += [
        _item("in", f"{known(short, figures.messages_per_s)}/s"),
        _item("out", f"{known(short, figures.deliveries_per_s)}/s"),
        _item("members", f"{len(now.clients)} of {now.max_clients}"),
        _item("worst lag", size(worst), "warn" if worst > BEHIND_BYTES else "value"),
        _item("sent", f"{known(size, figures.bytes_per_s)}B/s"),
        _item("head", str(now.head_seq)),
        _item("log", f"{size(now.log_bytes)}B"),
        _item(
            "lock wait",
            known("{:.0f} ms/s".format, None if lock is None else 1000 * lock),
        ),
        _item("room", now.log_id),
    ]
    return items


def _item(name: str, figure: str, style: str = "value") -> Line:
    return [(f"{name} ", "dim"), (figure, style)]


def _flowed(items: Sequence[Line], height: int, width: int) -> list[Line]:
    """The items one behind the other, in lines; those that find no room stay away."""
    lines: list[Line] = [[]]
    room = width
    for item in items:
        need = _columns(item)
        if lines[-1] and need + 3 > room:
            if len(lines) == height:
                break
            lines.append([])
            room = width
        if lines[-1]:
            lines[-1].append(("   ", ""))
            room -= 3
        lines[-1] += item
        room -= need
    return lines + [[] for _ in range(height - len(lines))]


def _spark_line(rates: Sequence[float], width: int, unicode: bool) -> Line:
    peak = max(rates, default=0.0)
    right = f" {short(peak)}/s at most"
    room = max(0, width - len(right) - 9)
    shown = list(rates)[-room:] if room else []
    left = f"{columns.duration(len(shown) * CELL_S)} ".rjust(7)
    return [(left, "dim"), (sparkline(shown, unicode), "value"), (right, "dim")]


def sparkline(rates: Sequence[float], unicode: bool = True) -> str:
    """A bar for each rate; nothing at all is a space."""
    bars, peak = _BARS if unicode else _ASCII_BARS, max(rates, default=0.0)
    steps = len(bars) - 1
    return "".join(
        bars[round(rate / peak * steps)] if rate > 0 else " " for rate in rates
    )


# --- the table -----------------------------------------------------------------------


def _titles(view: View, placed: Sequence[Placed], width: int) -> Line:
    line: Line = []
    for one in placed:
        title = one.column.title
        style = "sorted" if title == view.table.sort else "title"
        if line:
            line.append((" ", "title"))
        line.append((columns.padded(title, one), style))
    line.append((" " * max(0, width - _columns(line)), "title"))
    return line


def _table(
    view: View, rows: Sequence[Any], placed: Sequence[Placed], height: int, width: int
) -> list[Line]:
    table, lines = view.table, list[Line]()
    for at in range(table.first, min(table.first + height, len(rows))):
        row = rows[at]
        shown = [columns.padded(columns.shown(p.column, row), p) for p in placed]
        text = " ".join(shown)
        style = "cursor" if at == table.cursor else row_style(row)
        if row.key in table.tagged:
            style = "tagged-cursor" if at == table.cursor else "tagged"
        lines.append([(text + " " * max(0, width - cells.columns(text)), style)])
    if not rows and height:
        what = "clients" if view.on_clients else "processes"
        like = f" like {cells.harmless(view.filter)!r}" if view.filter else ""
        lines.append([(f"no {what}{like}", "dim")])
    return lines


def row_style(row: Any) -> str:
    if isinstance(row, ClientRow):
        if row.now.worker is None:
            return "bad"
        return "warn" if row.now.lag_bytes > BEHIND_BYTES else ""
    return STATE_STYLES.get(row.now.state, "warn")


# --- the last line -------------------------------------------------------------------


def _last_line(
    figures: Figures | None, view: View, rows: Sequence[Any], width: int
) -> Line:
    if view.question:
        tail = " y/n"
        text = cells.cut(cells.harmless(view.question), max(0, width - len(tail)))
        return [(text, "ask"), (tail, "ask")]
    if view.typing:
        return [
            ("/", "ask"),
            (_end_of(cells.harmless(view.filter), width - 2), ""),
            ("_", "ask"),
        ]
    if view.message:
        return [(cells.harmless(view.message), "warn")]
    if view.help:
        return [("any key goes back", "dim")]
    left = READONLY_HINTS if view.readonly else HINTS
    if view.filter:
        left = f"/{cells.harmless(view.filter)}  (Esc: all)"
    right = f"{view.table.cursor + 1 if rows else 0}/{len(rows)}"
    if figures is None:
        right = ""
    left = cells.cut(left, max(0, width - len(right) - 1))
    return [
        (left, "dim"),
        (" " * (width - cells.columns(left) - len(right)), ""),
        (right, "dim"),
    ]


def _end_of(text: str, room: int) -> str:
    pieces = cells.clusters(text)
    while pieces and cells.columns("".join(pieces)) > room:
        pieces.pop(0)
    return "".join(pieces)


def _columns(line: Line) -> int:
    return sum(cells.columns(text) for text, _ in line)


def _cut(line: Line, width: int) -> Line:
    room, kept = width, list[Span]()
    for text, style in line:
        text = cells.cut(text, room)
        room -= cells.columns(text)
        if text:
            kept.append((text, style))
    return kept
