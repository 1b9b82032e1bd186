"""What text looks like on a terminal: made harmless, and measured in columns.

Nothing that another member says may move the cursor, hide or reorder other text
or look like a line of its own, so everything that is shown goes through
`harmless` first.  Its result has only characters of one or two columns, each
followed by at most MARKS marks of none.

Not here: what a message may hold.  The log keeps it as it was said, and so does
         --json; only what is shown is changed.
"""

import unicodedata

MARKS = 2  # after NFC that is what real scripts need, and too low for a tower
TAB = "    "
UNKNOWN = "\N{REPLACEMENT CHARACTER}"

_FILLERS = frozenset("\u115f\u1160\u3164\uffa0")  # letters that show nothing
_JOINERS = frozenset("\u200c\u200d")
_TONES = range(0x1F3FB, 0x1F400)  # skin tones: terminals disagree on their columns


def harmless(text: str) -> str:
    """The text as it may be shown to a terminal."""
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = MARKS  # none before the first base: it would change what stands there
    text = unicodedata.normalize("NFC", text)
    for here, char in enumerate(text):
        kind = unicodedata.category(char)
        if kind in ("Mn", "Me", "Mc"):
            if _is_selector(char):
                continue
            marks += 1
            if marks <= MARKS:
                shown.append(char)
        elif char in _JOINERS:
            if shown and _joins(text[here - 1 : here], text[here + 1 : here + 2]):
                shown.append(char)
        else:
            base = _base(char, kind)
            shown.append(base)
            # A space takes no marks: they would stand on nothing.
            marks = marks if not base else MARKS if base.isspace() else 0
    return "".join(shown)


def _base(char: str, kind: str) -> str:
    if char == "\t":
        return TAB
    if kind in ("Zs", "Zl", "Zp"):
        return " "
    if kind in ("Cn", "Co", "Cs"):
        return UNKNOWN  # a terminal and we could not agree on its columns
    if kind in ("Cc", "Cf") or char in _FILLERS or ord(char) in _TONES:
        return ""
    return char


def _is_selector(char: str) -> bool:
    code = ord(char)
    return 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF or code == 0x34F


def _joins(before: str, after: str) -> bool:
    """Between letters a joiner changes their shape (Persian, Hindi).."""
    return all(c and unicodedata.category(c)[0] in "LM" for c in (before, after))


def width(char: str) -> int:
    """The columns of one character that `harmless` left."""
    if " " <= char <= "~":
        return 1
    kind = unicodedata.category(char)
    if kind in ("Mn", "Me") or char in _JOINERS:
        return 0
    # Conjoining jamo after the first are drawn into the syllable before them.
    if "\u1160" <= char <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(map(width, text))


def clusters(text: str) -> list[str]:
    """The text in pieces that are never parted: a base and what has no column."""
    if text.isascii():
        return list(text)
    pieces: list[str] = []
    for char in text:
        if pieces and width(char) == 0:
            pieces[-1] += char
        else:
            pieces.append(char)
    return pieces


def cut(text: str, room: int) -> str:
    """As much of the text as fits into `room` columns."""
    if text.isascii():
        return text[: max(room, 0)]
    taken = []
    for piece in clusters(text):
        room -= columns(piece)
        if room < 0:
            break
        taken.append(piece)
    return "".join(taken)


def wrap(text: str, room: int) -> list[str]:
    """The text in rows of at most `room` columns, parted at spaces where it can be.

    Beside a wide character it can be parted anywhere: such scripts have no spaces.
    Rows have no trailing space.  A character that is wider than the room is
    replaced; otherwise a room of one column could never be filled.
    """
    rows: list[str] = []
    row, used, gap = "", 0, -1  # gap: where in `row` the last space stands
    wide_before = False
    for piece in clusters(text):
        size = columns(piece)
        if size > room:
            piece, size = "?", 1
        if used + size > room:
            if piece == " ":
                rows.append(row)
                row, used, gap = "", 0, -1
                continue
            if size == 2 or wide_before or gap <= 0:
                gap = len(row)
            rows.append(row[:gap])
            row = row[gap:].removeprefix(" ")
            used, gap = columns(row), -1
        if piece == " ":
            gap = len(row)
        row += piece
        used += size
        wide_before = size == 2
    if row.strip() or not rows:
        rows.append(row)
    return [row.rstrip() for row in rows]
