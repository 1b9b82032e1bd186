"""What was said, as rows of a given width, and which of them are on the screen.

The screen hangs on its bottom row: it either follows what arrives, or is anchored
to a row of one item, which then stays where it is whatever arrives below it, is
fetched above it, or however the window is resized.

Format:  a row is a tuple of (text, style); the styles are named, not coloured.
Not here: the log itself.  Messages are a window on it, `oldest` to the newest,
         without a gap; notes of our own stand between them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from papaya_pool import records
from papaya_pool.client import cells

ITEM_LIMIT = 20_000  # in memory; older ones can be fetched again
NAME_COLUMN = 10
WIDE = 50  # columns from which names have a column of their own

Span = tuple[str, str]
Row = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """A message, a note (seq 0), or what has no seq yet (-1).  All of it harmless."""

    seq: int
    when: datetime
    name: str
    text: str
    style: str = "text"


def message(record: records.Record, me: str) -> Item:
    when = datetime.fromisoformat(record.time).astimezone()
    text = cells.harmless(record.text)
    own = records.folded(record.name) == records.folded(me)
    style = "text" if own or not mentions(record.text, me) else "mention"
    return Item(record.seq, when, cells.harmless(record.name), text, style)


def mentions(text: str, name: str) -> bool:
    """Whether the name stands in the text as a word of its own."""
    text, name = records.folded(text), records.folded(name)
    at = text.find(name)
    while at >= 0:
        around = text[at - 1 : at] + text[at + len(name) : at + len(name) + 1]
        if not any(c.isalnum() or c == "_" for c in around):
            return True
        at = text.find(name, at + 1)
    return False


class Timeline:
    def __init__(self) -> None:
        self.items: list[Item] = []
        self.oldest = 0  # the seq of the first message; 0: there is none yet
        self.mark = 0  # the seq of the first message that is unread; 0: none
        self.found = ""  # what was searched for, folded
        self.found_seq = 0
        self._anchor: tuple[int, int] | None = None  # item, rows of it that are below
        self._width = 80
        self.height = 24
        self._cache: dict[Item, list[Row]] = {}

    @property
    def follows(self) -> bool:
        return self._anchor is None

    def resize(self, height: int, width: int) -> None:
        if width != self._width:
            self._cache.clear()
            if self._anchor is not None:
                self._anchor = (self._anchor[0], 0)
        self.height, self._width = max(height, 1), max(width, 1)

    # --- what is there ---------------------------------------------------------------

    def add(self, items: Iterable[Item]) -> None:
        new = list(items)
        self.items += new
        if not self.oldest:
            self.oldest = next((item.seq for item in new if item.seq), 0)
        if self.follows and len(self.items) > ITEM_LIMIT * 1.1:
            del self.items[:-ITEM_LIMIT]
            self.oldest = next((item.seq for item in self.items if item.seq), 0)

    def prepend(self, items: list[Item]) -> None:
        """Older messages, up to the one before `oldest`."""
        items = [item for item in items if item.seq < self.oldest or not self.oldest]
        if not items:
            return
        self.items[:0] = items
        self.oldest = items[0].seq
        if self._anchor is not None:
            self._anchor = (self._anchor[0] + len(items), self._anchor[1])

    def clear(self, next_seq: int) -> None:
        """Forget what is shown; it can be fetched again from below `next_seq`."""
        self.items.clear()
        self.oldest, self._anchor = next_seq, None

    # --- where the screen is ---------------------------------------------------------

    def follow(self) -> None:
        self._anchor = None

    def scroll(self, rows: int) -> None:
        """Towards older rows, or newer ones if `rows` is negative."""
        if not self.items:
            return
        at, below = self._anchor or (len(self.items) - 1, 0)
        below += rows
        while below >= (size := len(self.rows(at))) and at > 0:
            below -= size
            at -= 1
        while below < 0 and at < len(self.items) - 1:
            at += 1
            below += len(self.rows(at))
        self._hang(max((at, -max(below, 0)), self._highest()))

    def show(self, index: int) -> None:
        """Scroll so that an item is in the middle, as near as there are rows."""
        self._hang((index, 0))
        self.scroll(-(self.height // 2))

    def show_top(self, index: int) -> None:
        """Scroll so that an item's first row is the top one."""
        self._hang((index, 0))
        self.scroll(len(self.rows(index)) - self.height)

    def index_of(self, seq: int) -> int | None:
        """Of the first message with this seq or a later one."""
        seq = max(seq, 1)
        return next((n for n, i in enumerate(self.items) if i.seq >= seq), None)

    def rows_above(self, enough: int) -> int:
        """How many rows there are above the screen; counted up to `enough`."""
        at, below = self._anchor or (len(self.items) - 1, 0)
        count = -self.height - below
        while at >= 0 and count < enough:
            count += len(self.rows(at))
            at -= 1
        return count

    def search(self, text: str) -> int | None:
        """The nearest message above the last find, or the bottom, that has it."""
        folded = records.folded(text)
        last = len(self.items)
        if folded == self.found and self.found_seq:
            last = self.index_of(self.found_seq) or 0
        self.found = folded
        for index in range(last - 1, -1, -1):
            item = self.items[index]
            if item.seq and folded in records.folded(f"{item.name} {item.text}"):
                self.found_seq = item.seq
                return index
        return None

    def _hang(self, position: tuple[int, int]) -> None:
        at, above = position
        is_last = at >= len(self.items) - 1 and above == 0
        self._anchor = None if is_last else (at, -above)

    def _highest(self) -> tuple[int, int]:
        """The position at which the first row of all is the top one."""
        room = self.height
        for at in range(len(self.items)):
            room -= len(self.rows(at))
            if room <= 0:
                return (at, room)
        return (len(self.items) - 1, 0)

    # --- rows ------------------------------------------------------------------------

    def screenful(self, height: int) -> list[Row]:
        """The rows on the screen, at most `height` of them."""
        at, below = self._anchor or (len(self.items) - 1, 0)
        rows: list[Row] = []
        while at >= 0 and len(rows) < height:
            piece = self.rows(at)
            piece = piece[: max(len(piece) - below, 0)] if below else piece
            rows[:0] = piece
            below = 0
            at -= 1
        return rows[-height:] if height > 0 else []

    def rows(self, index: int) -> list[Row]:
        """One item's rows, with the day and the mark that stand before it."""
        item = self.items[index]
        rows = self._cache.get(item)
        if rows is None:
            if len(self._cache) > 4000:
                self._cache.clear()
            rows = self._cache[item] = item_rows(item, self._width)
        before = self.items[index - 1].when.date() if index else None
        lead: list[Row] = []
        if item.when.date() != before:
            lead.append(rule(_day(item.when.date()), self._width, "day"))
        if item.seq and item.seq == self.mark:
            lead.append(rule("unread", self._width, "mark"))
        return lead + rows if lead else rows


def _day(day: date) -> str:
    return f"{day:%A} {day.isoformat()}"


def rule(text: str, width: int, style: str) -> Row:
    """A line across the screen with some words in it."""
    if width < len(text) + 8:
        return ((cells.cut(text, width), style),)
    side = (width - len(text) - 2) // 2
    rest = width - len(text) - 2 - side
    return (("─" * side + f" {text} " + "─" * rest, style),)


def item_rows(item: Item, width: int) -> list[Row]:
    """A message or a note, wrapped.

    Only the first row of a message begins in the first column, so that no text can
    be wrapped into what looks like another message.
    """
    clock = f"{item.when:%H:%M} " if item.seq >= 0 else "--:-- "
    clock = clock if width >= 30 else ""
    head, style = _head(item, width - len(clock))
    indent = len(clock) + cells.columns(head)
    if indent > width // 2:
        indent = min(2, width - 1)
    text = item.text
    if item.seq and text.startswith("/me "):
        text = text[4:]
    first_room = max(width - len(clock) - cells.columns(head), 0)
    first, rest = _wrap(text, first_room, width - indent)
    text_style = item.style
    rows: list[Row] = [((clock, "time"), (head, style), (first, text_style))]
    rows += [((" " * indent, "text"), (row, text_style)) for row in rest]
    return [tuple(span for span in row if span[0]) for row in rows]


def _head(item: Item, room: int) -> Span:
    """The name and what parts it from the text."""
    if not item.seq:
        return ("-- ", "note") if room >= 12 else ("", "note")
    style = f"name:{item.name}"
    if item.text.startswith("/me "):
        return cells.cut(f"* {item.name}", room - 1) + " ", style
    if room >= WIDE:
        name = cells.cut(item.name, room // 2)
        return " " * (NAME_COLUMN - cells.columns(name)) + name + "  ", style
    if room < 4:
        return "", style
    return cells.cut(f"{item.name}:", room - 1) + " ", style


def _wrap(text: str, first_room: int, room: int) -> tuple[str, list[str]]:
    """The first row, which may have less room than the others, and the others."""
    room = max(room, 1)
    if first_room == room:
        first, *rest = cells.wrap(text, room)
        return first, rest
    if first_room < 8:
        return "", cells.wrap(text, room)
    begin = cells.wrap(text, first_room)[0]
    remainder = text[len(begin) :].lstrip(" ")
    return begin, cells.wrap(remainder, room) if remainder else []
