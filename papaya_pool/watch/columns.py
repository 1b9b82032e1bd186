"""The two tables as data: for each column what it shows, and what it sorts by.

Format:  every figure fits its column, however large: short() and its like never
         give more than five characters.  Names and addresses are cut.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from papaya_pool.client import cells

UNKNOWN = "-"


class Column(NamedTuple):
    title: str
    width: int
    rank: int  # the highest goes first when the screen is too narrow
    show: Callable[[Any], str]
    sort: Callable[[Any], Any]  # None sorts last
    is_text: bool = False  # to the left, and sorts upwards
    most: int = 0  # it may grow so far to hold what is in it


# --- figures in five characters ------------------------------------------------------


def short(figure: float | None) -> str:
    """1234 -> 1234, 12345 -> 12.3k, 1234567 -> 1.23M"""
    return UNKNOWN if figure is None else _scaled(figure, 10000, 1000, "kMGTPE")


def size(size_bytes: float | None) -> str:
    """2000 -> 2000, 5000 -> 4.9K, 12345678 -> 11.8M"""
    return UNKNOWN if size_bytes is None else _scaled(size_bytes, 10000, 1024, "KMGTPE")


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


def percent(share: float | None) -> str:
    if share is None:
        return UNKNOWN
    return f"{share:.1f}" if share < 999.95 else short(share)


def duration(seconds: float | None) -> str:
    """7s, 3m12, 2h05, 4d03, 812d"""
    if seconds is None:
        return UNKNOWN
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    for step, most, name in ((60, 3600, "m"), (3600, 86400, "h"), (86400, 8640000, "d")):
        if whole < most:
            smaller = {"m": 1, "h": 60, "d": 3600}[name]
            return f"{whole // step}{name}{whole % step // smaller:02}"
    return f"{min(whole // 86400, 9999)}d"


def _deadline(process: Any) -> str:
    if process.deadline_s is None or not process.pid:
        return UNKNOWN
    if process.waiting:
        return "lock"
    if process.deadline_s < 0:
        return f"-{duration(-process.deadline_s)}"
    return f"{process.deadline_s:.1f}s" if process.deadline_s < 100 else duration(process.deadline_s)


def _kilo(bytes_per_s: float | None) -> str:
    return short(None if bytes_per_s is None else bytes_per_s / 1000)


def _if_there(show: Callable[[Any], str]) -> Callable[[Any], str]:
    """Of an empty slot only what outlives its process is shown."""
    return lambda row: show(row) if row.now.pid else UNKNOWN


def _if_worker(show: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda row: show(row) if row.now.role == "worker" else UNKNOWN


# --- the tables ----------------------------------------------------------------------

PROCESSES: tuple[Column, ...] = (
    Column("SLOT", 4, 0, lambda r: str(r.now.slot), lambda r: -r.now.slot),
    Column("ROLE", 10, 7, lambda r: r.now.role, lambda r: r.now.role, True),
    Column("PID", 3, 10, _if_there(lambda r: str(r.now.pid)), lambda r: r.now.pid, False, 10),
    Column("GEN", 3, 17, lambda r: short(r.now.generation), lambda r: r.now.generation),
    Column("STATE", 8, 1, lambda r: r.now.state, lambda r: r.now.state, True),
    Column("CPU%", 5, 2, lambda r: percent(r.cpu_percent), lambda r: r.cpu_percent),
    Column("PSS", 5, 5, lambda r: size(r.now.pss_bytes), lambda r: r.now.pss_bytes),
    Column("USS", 5, 13, lambda r: size(r.now.uss_bytes), lambda r: r.now.uss_bytes),
    Column("SESS", 5, 4, _if_worker(lambda r: short(r.now.sessions)), lambda r: r.now.sessions),
    Column("IN/S", 5, 8, _if_worker(lambda r: short(r.messages_per_s)), lambda r: r.messages_per_s),
    Column("OUT/S", 5, 6, _if_worker(lambda r: short(r.deliveries_per_s)), lambda r: r.deliveries_per_s),
    Column("kB/S", 5, 12, _if_worker(lambda r: _kilo(r.bytes_per_s)), lambda r: r.bytes_per_s),
    Column("LAG", 5, 3, _if_worker(lambda r: size(r.now.lag_bytes)), lambda r: r.now.lag_bytes),
    Column("CTXSW/S", 7, 15, lambda r: short(r.switches_per_s), lambda r: r.switches_per_s),
    Column("FDS", 4, 16, lambda r: short(r.now.descriptors), lambda r: r.now.descriptors),
    Column("RESPAWNS", 8, 11, lambda r: short(r.now.respawns), lambda r: r.now.respawns),
    Column("AGE", 5, 14, lambda r: duration(r.now.age_s), lambda r: r.now.age_s),
    Column("DEADLINE", 8, 9, lambda r: _deadline(r.now), lambda r: -(r.now.deadline_s or 0)),
    Column("RSS", 5, 18, lambda r: size(r.now.rss_bytes), lambda r: r.now.rss_bytes),
)

CLIENTS: tuple[Column, ...] = (
    Column("NAME", 8, 0, lambda r: r.now.name, lambda r: r.now.name.casefold(), True, 24),
    Column("ADDR", 11, 10, lambda r: r.now.address, lambda r: r.now.address, True, 47),
    Column("DIALECT", 7, 12, lambda r: r.now.dialect, lambda r: r.now.dialect, True),
    Column("WORKER", 6, 6, lambda r: _worker(r.now), lambda r: _by_worker(r.now)),
    Column("IN/S", 5, 4, lambda r: short(r.messages_per_s), lambda r: r.messages_per_s),
    Column("OUT/S", 5, 5, lambda r: short(r.deliveries_per_s), lambda r: r.deliveries_per_s),
    Column("kB/S", 5, 7, lambda r: _kilo(r.bytes_per_s), lambda r: r.bytes_per_s),
    Column("LAG", 5, 1, lambda r: size(r.now.lag_bytes), lambda r: r.now.lag_bytes),
    Column("UNACKED", 7, 9, lambda r: size(r.now.unacked_bytes), lambda r: r.now.unacked_bytes),
    Column("CPU-MS/S", 8, 3, lambda r: short(r.cpu_ms_per_s), lambda r: r.cpu_ms_per_s),
    Column("IDLE", 5, 2, lambda r: duration(r.now.idle_s), lambda r: r.now.idle_s),
    Column("AGE", 5, 8, lambda r: duration(r.now.age_s), lambda r: r.now.age_s),
    Column("MOVES", 5, 11, lambda r: short(r.now.moves), lambda r: r.now.moves),
)


def _worker(client: Any) -> str:
    return UNKNOWN if client.worker is None else str(client.worker)


def _by_worker(client: Any) -> int | None:
    return None if client.worker is None else -client.worker


# --- which of them, how wide ---------------------------------------------------------


class Placed(NamedTuple):
    """A column, and the room that it has on this screen."""

    column: Column
    width: int


def fit(
    columns: Sequence[Column], rows: Sequence[Any], room: int, shift: int, sorted_by: str
) -> list[Placed]:
    """The columns that fit into `room`, each with the width that it gets.

    Those that rank highest; with a `shift` all from there on, as they stand.
    """
    # A name can be cut, a number cannot.
    columns = [
        c if c.is_text or not c.most else c._replace(width=_longest(c, rows)) for c in columns
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


def shown(column: Column, row: Any) -> str:
    """A cell's text.  A member's name may hold anything that a terminal would obey."""
    text = column.show(row)
    return text if text.isascii() and text.isprintable() else cells.harmless(text)


def padded(text: str, width: int, *, is_text: bool) -> str:
    """Exactly `width` columns of a terminal, which are not characters."""
    text = cells.cut(text, width)
    gap = " " * (width - cells.columns(text))
    return text + gap if is_text else gap + text
