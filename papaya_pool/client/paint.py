"""The whole screen as text with named styles.  No curses, so a test can read it.

From top to bottom: messages, and lines not sent yet; one row of status; the line
being typed.  A window too low for that keeps the last of them.
"""

from dataclasses import dataclass

from papaya_pool import records
from papaya_pool.client import cells
from papaya_pool.client.timeline import Item, Row, Span, item_rows
from papaya_pool.client.view import View


@dataclass(frozen=True, slots=True)
class Frame:
    rows: list[Row]  # as many as the window has; none wider than it
    cursor: tuple[int, int]  # row, column

    def text(self) -> list[str]:
        return ["".join(text for text, _ in row) for row in self.rows]


def paint(view: View, height: int, width: int) -> Frame:
    typed, column = input_row(view, width)
    rows: list[Row] = []
    if height > 1:
        below = 2 if height > 3 else 1
        rows = message_rows(view, height - below, width)
        rows = [()] * (height - below - len(rows)) + rows
        if below == 2:
            rows.append(status_row(view, width))
    rows.append(typed)
    return Frame([fitted(row, width) for row in rows], (height - 1, column))


def message_rows(view: View, height: int, width: int) -> list[Row]:
    line = view.timeline
    waiting: list[Row] = []
    if line.follows and view.pending:
        when = view.clock()
        for text in view.pending[-height:]:
            shown = cells.harmless(text)
            waiting += item_rows(Item(-1, when, view.me, shown, "pending"), width)
        waiting = waiting[-height:]
    rows = line.screenful(height - len(waiting)) + waiting
    return [highlighted(row, line.found) for row in rows] if line.found else rows


def highlighted(row: Row, found: str) -> Row:
    """Mark what was searched for, where it stands within one row's text."""
    spans: list[Span] = []
    for text, style in row:
        at = records.folded(text).find(found) if style in ("text", "mention") else -1
        # Folding can change the length; then the place is not known, and not marked.
        if at < 0 or len(records.folded(text)) != len(text):
            spans.append((text, style))
            continue
        end = at + len(found)
        spans += [(text[:at], style), (text[at:end], "found"), (text[end:], style)]
    return tuple(span for span in spans if span[0])


def status_row(view: View, width: int) -> Row:
    is_well = view.state == "connected"
    words = [f" {view.room}", *([view.state] if is_well else [])]
    if view.pending:
        words.append(f"{len(view.pending)} not sent")
    if view.unread:
        words.append(f"{view.unread} unread")
    if not view.timeline.follows:
        words.append("scrolled back")
    if view.fetching:
        words.append("fetching")
    if is_well and view.members is not None:
        words.append(f"{view.members} here")
    if is_well and view.lag_s is not None:
        words.append(f"lag {view.lag_s * 1000:.0f} ms")
    if not is_well:  # long: its own end is what a narrow window may cut off
        words.append(view.state)
    text = cells.cut(f" {view.hint}" if view.hint else " | ".join(words), width)
    style = "status" if is_well else "status-bad"
    return ((text + " " * (width - cells.columns(text)), style),)


def input_row(view: View, width: int) -> tuple[Row, int]:
    """The line being typed, moved so that the cursor is in the window."""
    if view.question:
        text = cells.cut(view.question, width - 1)
        return ((text, "question"),), cells.columns(text)
    prompt = cells.cut(f"[{cells.harmless(view.me)}] ", width) if width >= 40 else ""
    room = width - cells.columns(prompt)
    near = 4 * width + 64  # a pasted megabyte is not measured for every key
    before = cells.harmless(view.editor.before[-near:])
    after = cells.harmless(view.editor.after[:near])
    pieces = cells.clusters(before)
    used = cells.columns(before)
    hidden = 0
    while pieces and used - hidden >= room:
        hidden += cells.columns(pieces.pop(0))
    before = "".join(pieces)
    column = cells.columns(before)
    text = before + cells.cut(after, room - column)
    row = tuple(span for span in ((prompt, "prompt"), (text, "typed")) if span[0])
    return row, min(cells.columns(prompt) + column, max(width - 1, 0))


def fitted(row: Row, width: int) -> Row:
    """The row cut to the window: nothing may ever be drawn beyond it."""
    spans: list[Span] = []
    for text, style in row:
        text = cells.cut(text, width)
        width -= cells.columns(text)
        if text:
            spans.append((text, style))
    return tuple(spans)
