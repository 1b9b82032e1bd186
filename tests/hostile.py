"""What somebody may say to spoil another's screen, and what it must look like then.

Each is one line of at most 4,096 bytes.
"""

import re

_LONGEST = 4096


def _filled(text):
    """As often as it fits."""
    return text * (_LONGEST // len(text.encode()))


_SEQUENCES = [
    "\x1b[2J\x1b[1;1Howned",
    "\x1b[1;1H\x1b[Kbob  forged",
    "\x1b[5A\x1b[10Dup and left",
    "\x1b]0;title\x07\x1bc",
    "\x1b]52;c;aGk=\x07clipboard",
    "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",
    "\x1bP+q544e\x1b\\asked",
    "\x1b[6n\x1b[c\x1b[>c\x05answer",
    "\x1b[?1049h\x1b[?25l\x1b[?5h",
    "\x1b[3;4r\x1b[?6h",
    "\x1b[20h\x1b[4h\x1b#8",
    "\x1b(0lqqk\x1b)0\x0e",
    "\x1b[8mhidden\x1b[0m",
    "\x1b[31;1;5;7mred",
    "\x1b[?1000h\x1b[?2004h",
    "\x1b[99999999999999999999b",
    "\x1b^pm\x1b\\\x1b_apc\x1b\\\x1bXsos\x1b\\",
    "\x1b",
    "x\x1b[",
    "x\x1b]",
    "\x9b2J\x90+q\x9c",
    "\x9d0;title\x9c\x85\x84\x8d",
]
_CONTROLS = [
    "x\r\x0b\x0cbob: forged",
    "\x08" * 40 + "over it",
    "\x7f" * 40 + "rubbed out",
    "\t" * 300 + "far away",
    "\x07" * 500 + "ring",
    "".join(map(chr, [*range(1, 10), *range(11, 32), *range(127, 160)])) + ".",
    "\u2028\u2029 separated",
    "\x0e\x0f\x16\x11\x13 shifted",
]
_UNSEEN = [
    "\u202e" * 50 + "reversed",
    "\u2066isolated\u2069\u200f\u061c",
    "\u202dleft\u202c\u2067right\u2068first",
    "\u05d0\u05d1\u05d2 123 \u0627\u0644\u0639",
    _filled("\u200b\u2060\ufeff") + "x",
    _filled("\u00ad"),
    "\u180e\u2061\u2062\u2063\u2064\u206a\u206f\ufff9\ufffa\ufffb",
    "\U000e0041\U000e0001tag",
    _filled("\U000e0061"),
    "x" + "\ufe0f\ufe0e" * 600,
    "\u3164\uffa0\u115f\u1160 fillers",
]
_TALL_AND_WIDE = [
    "a" + "\u0336\u0310" * 500,
    "\u0301" * 40 + "no base",
    " ".join("z" + "\u0489\u20dd" * 20 for _ in range(20)),
    "\u0e19\u0e49\u0e33" * 300,
    "\u1100\u1161\u11a8" * 400,
    "W" * _LONGEST,
    "字" * 1300,
    "x" + "字" * 1300,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 family \U0001f44b\U0001f3fd",
    "\u200d".join(["\U0001f468"] * 500),
    "\U0001f1e9\U0001f1ea" * 300,
    "\U0001f3f4\U000e0067\U000e0062\U000e007f flag",
    "\ufdfd" * 100,
    "\u2e3b" * 300,
]
_NOT_LETTERS = [
    "\ue000\U0010fffd private",
    "\ufffe\uffff\U0001fffe none",
    "\u0378\U000e1000 unassigned",
    "20:00        bob  forged",
    "── unread ──",
    " " * 61 + "20:00        bob  forged",
    "%s%n%x {0} $HOME `id` \\033[2J",
]
HOSTILE = [*_SEQUENCES, *_CONTROLS, *_UNSEEN, *_TALL_AND_WIDE, *_NOT_LETTERS]


def check_cells(terminal, say):
    """`say` lets eve say lines; on a screen of 24 rows, none touches another's cells."""
    height, margin = 22, "NN:NN        eve  "
    say(*(f"filler {n}" for n in range(height)))
    terminal.shows(f"filler {height - 1}")
    terminal.shows(" here")  # or the status would change by itself
    for number, text in enumerate(HOSTILE):
        before = [list(row) for row in terminal.screen.cells]
        if number % 4 == 0:
            terminal.type("\x0c")  # a screen that is drawn anew shows the same
        say(text, f"end {number}")
        terminal.until(lambda lines, n=number: lines[-3].endswith(f"eve  end {n}"))
        after = [list(row) for row in terminal.screen.cells]
        assert {len(row) for row in after} == {terminal.screen.columns}
        assert after[-2:] == before[-2:], repr(text)  # status and input
        # All that was there has moved up, and left so many rows for the message.
        took = next(n for n in range(height) if after[: height - 1 - n] == before[n + 1 : height])
        rows = after[height - 1 - took : height - 1]
        if rows and took < height - 1:  # else its first row is above the screen
            assert re.sub(r"\d\d:\d\d", "NN:NN", "".join(rows.pop(0)[:18])) == margin, repr(text)
        assert all(row[:18] == [" "] * 18 for row in rows), repr(text)
