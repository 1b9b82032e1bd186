"""The two tables as data: for each column what it shows, and what it sorts by.

Format:  every figure fits its column, however large: short() and its like never
         give more than five characters.  Names and addresses are cut.
"""

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from papaya_pool.client import cells

UNKNOWN = "-"


class Column(NamedTuple):
    title: str
    width: int
    rank: int  # the highest goes first when the screen is too narrow
    value: Callable[[Any], Any]  # of a row; None is unknown, and sorts last
    show: Callable[[Any], str]
    is_text: bool = False  # stands to the left, and may be cut
    rises: bool = False  # sorts the least first, as texts do
    most: int = 0  # it may grow so far to hold what is in it


# --- figures in five characters ------------------------------------------------------


def short(figure: float) -> str:
    """1234 -> 1234, 12345 -> 12.3k, 1234567 -> 1.23M"""
    return _scaled(figure, 10000, 1000, "kMGTPE")


def size(size_bytes: float) -> str:
    """2000 -> 2000, 5000 -> 4.9K, 12345678 -> 11.8M"""
    return _scaled(size_bytes, 10000, 1024, "KMGTPE")


def _scaled(figure: float, plain_below: int, base: int, units: str) -> str:
    if 0 < figure < 9.95 and figure != int(figure):
        return f"{figure:.1f}"
    if figure < plain_below - 0.5:
        return f"{figure:.0f}"
    for unit in units:
        figure /= base
        if figure < 99.95:
            return f"{figure:.1f}{unit}"
        if figure < base - 0.5:
            return f"{figure:.0f}{unit}"
    return "huge"


def percent(share: float) -> str:
    return f"{share:.1f}" if share < 999.95 else short(share)


def duration(seconds: float) -> str:
    """7s, 3m12, 2h05, 4d03, 812d"""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}"
    if whole < 8640000:
        return f"{whole // 86400}d{whole % 86400 // 3600:02}"
    return f"{min(whole // 86400, 9999)}d"


def until(seconds: float) -> str:
    """4.9s, or how long ago it should have been: -12s"""
    if seconds == math.inf:
        return "lock"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    return f"{seconds:.1f}s" if seconds < 99.95 else duration(seconds)


def kilo(bytes_per_s: float) -> str:
    return short(bytes_per_s / 1000)


# --- the tables ----------------------------------------------------------------------


def _of_worker(name: str) -> Callable[[Any], Any]:
    """A figure that only workers have."""
    value = attrgetter(name)
    return lambda row: value(row) if row.now.role == "worker" else None


def _deadline(row: Any) -> float | None:
    """None: it promised nothing; endless while it waits for the log's lock."""
    if row.now.deadline_s is None or not row.now.pid:
        return None
    return math.inf if row.now.waiting else float(row.now.deadline_s)


PROCESSES: tuple[Column, ...] = (
    Column("SLOT", 4, 0, attrgetter("now.slot"), str, rises=True),
    Column("ROLE", 10, 7, attrgetter("now.role"), str, is_text=True),
    Column("PID", 3, 10, lambda row: row.now.pid or None, str, most=10),
    Column("GEN", 3, 17, attrgetter("now.generation"), short),
    Column("STATE", 8, 1, attrgetter("now.state"), str, is_text=True),
    Column("CPU%", 5, 2, attrgetter("cpu_percent"), percent),
    Column("PSS", 5, 5, attrgetter("now.pss_bytes"), size),
    Column("USS", 5, 13, attrgetter("now.uss_bytes"), size),
    Column("SESS", 5, 4, _of_worker("now.sessions"), short),
    Column("IN/S", 5, 8, _of_worker("messages_per_s"), short),
    Column("OUT/S", 5, 6, _of_worker("deliveries_per_s"), short),
    Column("kB/S", 5, 12, _of_worker("bytes_per_s"), kilo),
    Column("LAG", 5, 3, _of_worker("now.lag_bytes"), size),
    Column("CTXSW/S", 7, 15, attrgetter("switches_per_s"), short),
    Column("FDS", 4, 16, attrgetter("now.descriptors"), short),
    Column("RESPAWNS", 8, 11, attrgetter("now.respawns"), short),
    Column("AGE", 5, 14, attrgetter("now.age_s"), duration),
    Column("DEADLINE", 8, 9, _deadline, until, rises=True),
    Column("RSS", 5, 18, attrgetter("now.rss_bytes"), size),
)

CLIENTS: tuple[Column, ...] = (
    Column("NAME", 8, 0, attrgetter("now.name"), str, is_text=True, most=24),
    Column("ADDR", 11, 10, attrgetter("now.address"), str, is_text=True, most=47),
    Column("DIALECT", 7, 12, attrgetter("now.dialect"), str, is_text=True),
    Column("WORKER", 6, 6, attrgetter("now.worker"), str, rises=True),
    Column("IN/S", 5, 4, attrgetter("messages_per_s"), short),
    Column("OUT/S", 5, 5, attrgetter("deliveries_per_s"), short),
    Column("kB/S", 5, 7, attrgetter("bytes_per_s"), kilo),
    Column("LAG", 5, 1, attrgetter("now.lag_bytes"), size),
    Column("UNACKED", 7, 9, attrgetter("now.unacked_bytes"), size),
    Column("CPU-MS/S", 8, 3, attrgetter("cpu_ms_per_s"), short),
    Column("IDLE", 5, 2, attrgetter("now.idle_s"), duration),
    Column("AGE", 5, 8, attrgetter("now.age_s"), duration),
    Column("MOVES", 5, 11, attrgetter("now.moves"), short),
)


# --- which of them, how wide ---------------------------------------------------------


class Placed(NamedTuple):
    """A column, and the room that it has on this screen."""

    column: Column
    width: int


def fit(
    columns: Sequence[Column],
    rows: Sequence[Any],
    room: int,
    shift: int,
    sorted_by: str,
) -> list[Placed]:
    """The columns that fit into `room`, each with the width that it gets.

    Those that rank highest; with a `shift` all from there on, as they stand.
    """
    # A name can be cut, a number cannot.
    columns = [
        c if c.is_text or not c.most else c._replace(width=_longest(c, rows))
        for c in columns
    ]
    first, *others = columns
    wanted = [first, *others[max(0, shift - 1) :]]
    while shift and len(wanted) > 1 and _width(wanted) > room:
        wanted.pop()
    while len(wanted) > 1 and _width(wanted) > room:
        wanted.remove(max(wanted, key=lambda c: -1 if c.title == sorted_by else c.rank))
    spare = room - _width(wanted)
    placed = []
    for column in wanted:
        more = 0
        if column.most and spare > 0:
            more = min(_longest(column, rows) - column.width, spare)
            spare -= more
        placed.append(Placed(column, column.width + more))
    return placed


def _longest(column: Column, rows: Sequence[Any]) -> int:
    """The room that would do for everything in a column."""
    longest = max((cells.columns(shown(column, row)) for row in rows), default=0)
    return max(column.width, min(longest, column.most))


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width + 1 for column in columns) - 1


def last_shift(columns: Sequence[Column], room: int) -> int:
    """The shift at which the last column has come in; 0 if all of them fit."""
    if _width(columns) <= room:
        return 0
    for shift in range(1, len(columns)):
        if _width([columns[0], *columns[shift:]]) <= room:
            return shift
    return len(columns) - 1


def known(show: Callable[[Any], str], value: Any) -> str:
    """A figure as text, also where there is none."""
    return UNKNOWN if value is None else show(value)


def shown(column: Column, row: Any) -> str:
    """A cell's text.  A member's name may hold anything that a terminal would obey."""
    text = known(column.show, column.value(row))
    return text if text.isascii() and text.isprintable() else cells.harmless(text)


def padded(text: str, placed: Placed) -> str:
    """Exactly as many columns of a terminal, which are not characters, as it has."""
    text = cells.cut(text, placed.width)
    gap = " " * (placed.width - cells.columns(text))
    return text + gap if placed.column.is_text else gap + text


def order(column: Column, rows: Sequence[Any], *, inverted: bool = False) -> list[Any]:
    """Sorted by a column; what has no figure comes last, whichever way."""
    value = column.value
    there = [row for row in rows if value(row) is not None]
    if column.is_text:
        there.sort(key=lambda row: value(row).casefold(), reverse=inverted)
    else:
        there.sort(key=value, reverse=column.rises == inverted)
    return there + [row for row in rows if value(row) is None]
