"""What the person chose to see, and what a key does to it.

Keys are as people know them from htop.  No curses: a key is its name, and press()
says what must happen next; the one loop in screen.py does it.

Order:   settle() after every press and every new figures, before paint().  A cursor
         stays on its row, not on its line: otherwise k could kick whoever was sorted
         there a moment ago.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from papaya_pool.watch import columns
from papaya_pool.watch.columns import CLIENTS, PROCESSES, Column
from papaya_pool.watch.figures import ClientRow, Figures, Row

ESC, ENTER, BACKSPACE = "esc", "enter", "backspace"


class Next(enum.Enum):
    """What a key asks of the loop."""

    NOTHING = 1
    REDRAW = 2
    RESAMPLE = 3
    ACT = 4  # do what `View.agreed` says
    QUIT = 5


@dataclass
class Table:
    """One of the two tables, as it is looked at now."""

    columns: Sequence[Column]
    sort: str
    inverted: bool = False
    shift: int = 0
    cursor: int = 0  # a line of the sorted and filtered rows
    first: int = 0  # the line at the top of the screen
    on: tuple[int, int] | None = None  # the key of the row under the cursor
    tagged: set[tuple[int, int]] = field(default_factory=set)


@dataclass
class View:
    """Everything that is not in the figures."""

    readonly: bool = False
    on_clients: bool = False
    processes: Table = field(default_factory=lambda: Table(PROCESSES, "SLOT"))
    clients: Table = field(default_factory=lambda: Table(CLIENTS, "LAG"))
    filter: str = ""
    typing: bool = False  # the filter, at this moment
    paused: bool = False
    help: bool = False
    message: str = ""  # stands in the last line until the next key
    question: str = ""
    asked: list[list[str]] = field(default_factory=list)  # words to papaya-ctl's door
    agreed: list[list[str]] = field(default_factory=list)
    page: int = 1  # lines of the table that fit on the screen
    width: int = 80

    @property
    def table(self) -> Table:
        return self.clients if self.on_clients else self.processes

    def rows(self, figures: Figures) -> list[Any]:
        """Filtered and sorted."""
        rows: Sequence[Row] = figures.clients if self.on_clients else figures.processes
        if self.filter:
            wanted = self.filter.casefold()
            rows = [row for row in rows if wanted in _searched(row)]
        table = self.table
        by = next(c for c in table.columns if c.title == table.sort)
        rows = columns.order(table.columns[0], rows)  # where `by` cannot decide
        return columns.order(by, rows, inverted=table.inverted)

    def settle(self, rows: Sequence[Any]) -> None:
        """Find the cursor's row again, and keep it on the screen."""
        table = self.table
        for at, row in enumerate(rows):
            if row.key == table.on:
                table.cursor = at
                break
        table.cursor = max(0, min(table.cursor, len(rows) - 1))
        table.on = rows[table.cursor].key if rows else None
        table.tagged &= {row.key for row in rows}
        highest = max(0, len(rows) - self.page)
        lowest = table.cursor - self.page + 1
        table.first = max(lowest, min(table.first, table.cursor, highest), 0)


def _searched(row: Row) -> str:
    now = row.now
    if isinstance(row, ClientRow):
        return f"{row.now.name} {row.now.address} {row.now.dialect}".casefold()
    return f"{row.now.role} {row.now.state} {now.pid}".casefold()  # type: ignore[union-attr]


def press(view: View, key: str, rows: Sequence[Any]) -> Next:
    """What a key does, and what must happen next."""
    view.message = ""
    if view.question:
        return _answer(view, key)
    if view.typing:
        return _type(view, key)
    if view.help:
        view.help = False
        return Next.QUIT if key in ("q", "f10") else Next.REDRAW
    if key in _MOVES:
        table = view.table
        to = _MOVES[key](table.cursor, view.page, len(rows))
        table.cursor = max(0, min(len(rows) - 1, to))
        table.on = rows[table.cursor].key if rows else None
        return Next.REDRAW
    act = _KEYS.get(key)
    return act(view, rows) if act else Next.NOTHING


_MOVES: dict[str, Callable[[int, int, int], int]] = {
    "up": lambda at, page, count: at - 1,
    "down": lambda at, page, count: at + 1,
    "pageup": lambda at, page, count: at - page,
    "pagedown": lambda at, page, count: at + page,
    "home": lambda at, page, count: 0,
    "end": lambda at, page, count: count - 1,
}


# --- while something is asked or typed -----------------------------------------------


def _answer(view: View, key: str) -> Next:
    view.question = ""
    agreed = key in ("y", "Y")
    view.agreed, view.asked = (view.asked if agreed else []), []
    view.message = "" if agreed else "nothing was done"
    return Next.ACT if agreed else Next.REDRAW


def _type(view: View, key: str) -> Next:
    if key == ENTER:
        view.typing = False
    elif key == ESC:
        view.typing, view.filter = False, ""
    elif key == BACKSPACE:
        view.filter = view.filter[:-1]
    elif len(key) == 1 and key.isprintable():
        view.filter += key
    return Next.REDRAW


# --- keys ----------------------------------------------------------------------------


def _quit(view: View, rows: Sequence[Any]) -> Next:
    return Next.QUIT


def _help(view: View, rows: Sequence[Any]) -> Next:
    view.help = True
    return Next.REDRAW


def _clients(view: View, rows: Sequence[Any]) -> Next:
    view.on_clients = not view.on_clients
    return Next.RESAMPLE


def _pause(view: View, rows: Sequence[Any]) -> Next:
    view.paused = not view.paused
    return Next.REDRAW if view.paused else Next.RESAMPLE


def _filter(view: View, rows: Sequence[Any]) -> Next:
    view.typing = True
    return Next.REDRAW


def _unfilter(view: View, rows: Sequence[Any]) -> Next:
    view.filter = ""
    return Next.REDRAW


def _tag(view: View, rows: Sequence[Any]) -> Next:
    if rows:
        view.table.tagged ^= {rows[view.table.cursor].key}
    return press(view, "down", rows)


def _untag(view: View, rows: Sequence[Any]) -> Next:
    view.table.tagged.clear()
    return Next.REDRAW


def _invert(view: View, rows: Sequence[Any]) -> Next:
    view.table.inverted = not view.table.inverted
    return Next.REDRAW


def _sort_by(process_title: str, client_title: str) -> Any:
    def act(view: View, rows: Sequence[Any]) -> Next:
        title = client_title if view.on_clients else process_title
        view.table.sort, view.table.inverted = title, False
        return Next.REDRAW

    return act


def _sort_beside(step: int) -> Any:
    def act(view: View, rows: Sequence[Any]) -> Next:
        table = view.table
        titles = [column.title for column in table.columns]
        at = titles.index(table.sort) + step
        table.sort = titles[max(0, min(at, len(titles) - 1))]
        return Next.REDRAW

    return act


def _shift(step: int) -> Any:
    def act(view: View, rows: Sequence[Any]) -> Next:
        table = view.table
        last = columns.last_shift(table.columns, view.width)
        table.shift = max(0, min(table.shift + step, last))
        return Next.REDRAW

    return act


# --- what changes the pool: asked first ----------------------------------------------


def _chosen(view: View, rows: Sequence[Any]) -> list[Any]:
    """The tagged rows; if none is, the one under the cursor."""
    tagged = [row for row in rows if row.key in view.table.tagged]
    return tagged or list(rows[view.table.cursor :][:1])


def _drain(view: View, rows: Sequence[Any]) -> Next:
    if view.on_clients:
        return _say(view, "d drains a worker: c shows them")
    workers = [row.now for row in _chosen(view, rows) if row.now.role == "worker"]
    if not workers:
        return _say(view, "only a worker can be drained")
    if all(worker.state in ("draining", "drained") for worker in workers):
        return _ask(view, "Let every worker serve again?", [["rebalance"]])
    names = ", ".join(f"w{worker.slot}" for worker in workers[:4])
    names += f" and {len(workers) - 4} more" if len(workers) > 4 else ""
    return _ask(view, f"Drain {names}?", [["drain", str(w.slot)] for w in workers])


def _kick(view: View, rows: Sequence[Any]) -> Next:
    if not view.on_clients:
        return _say(view, "k kicks a client: c shows them")
    clients = [row.now for row in _chosen(view, rows)]
    if not clients:
        return _say(view, "nobody is there to be kicked")
    who = f"{clients[0].name} at {clients[0].address}"
    if len(clients) > 1:
        who = f"{len(clients)} clients, {clients[0].name} first"
    words = [["kick", str(c.session), str(c.generation)] for c in clients]
    return _ask(view, f"Kick {who}?", words)


def _ask(view: View, question: str, words: list[list[str]]) -> Next:
    if view.readonly:
        return _say(view, "not with --readonly")
    view.question, view.asked = question, words
    return Next.REDRAW


def _say(view: View, message: str) -> Next:
    view.message = message
    return Next.REDRAW


_KEYS = {
    **dict.fromkeys(("q", "Q", "f10"), _quit),
    **dict.fromkeys(("h", "?", "f1"), _help),
    **dict.fromkeys(("p", "Z"), _pause),
    **dict.fromkeys(("c", "tab"), _clients),
    **dict.fromkeys(("/", "f4", "\\"), _filter),
    ESC: _unfilter,
    " ": _tag,
    "U": _untag,
    "I": _invert,
    "P": _sort_by("CPU%", "CPU-MS/S"),
    "M": _sort_by("PSS", "UNACKED"),
    "L": _sort_by("LAG", "LAG"),
    "N": _sort_by("SLOT", "NAME"),
    "<": _sort_beside(-1),
    ">": _sort_beside(1),
    "left": _shift(-1),
    "right": _shift(1),
    "d": _drain,
    "k": _kick,
    "f9": _kick,
    "resize": lambda view, rows: Next.REDRAW,
}
