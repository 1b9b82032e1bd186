"""The terminal: the only room with curses in it, and only for drawing.

A row that is not plain ASCII is drawn cluster by cluster, each at the column that
cells.py gave it.  Curses has its own opinion of widths (the C library's); where
they differ one row looks odd, otherwise everything right of it would shift.

Owner:   open() takes the terminal and close() gives it back as it was; whoever
         calls open() must reach close(), also after an exception.
Not here: reading keys (keys.py; screen.py reads the bytes).
"""

import codecs
import contextlib
import curses
import locale
import os
import signal
import sys
import zlib
from collections.abc import Mapping

from papaya_pool.client import cells
from papaya_pool.client.paint import Frame

# Focus events, bracketed paste, and the wheel (buttons, in SGR form).
_ON = "\x1b[?1004h\x1b[?2004h\x1b[?1000h\x1b[?1006h"
_OFF = "\x1b[?1006l\x1b[?1000l\x1b[?2004l\x1b[?1004l"

_NAMES_256 = (
    33, 39, 45, 49, 77, 113, 141, 147, 167, 173, 178, 180, 204, 208, 212, 220,
)  # fmt: skip
_NAMES_8 = (curses.COLOR_CYAN, curses.COLOR_GREEN, curses.COLOR_YELLOW,
            curses.COLOR_MAGENTA, curses.COLOR_BLUE, curses.COLOR_RED)  # fmt: skip

_PLAIN = {
    "time": curses.A_DIM,
    "text": curses.A_NORMAL,
    "typed": curses.A_NORMAL,
    "prompt": curses.A_BOLD,
    "note": curses.A_DIM,
    "pending": curses.A_DIM,
    "day": curses.A_DIM,
    "mark": curses.A_BOLD,
    "mention": curses.A_BOLD,
    "found": curses.A_REVERSE,
    "status": curses.A_REVERSE,
    "status-bad": curses.A_REVERSE | curses.A_BOLD,
    "question": curses.A_REVERSE,
}
_COLOURED = {
    "mention": curses.COLOR_YELLOW,
    "mark": curses.COLOR_RED,
    "note": curses.COLOR_CYAN,
    "status-bad": curses.COLOR_RED,
}


def name_colour(name: str, count: int) -> int:
    """The same for a name everywhere and always: hash() would change every time."""
    return zlib.crc32(name.encode()) % count


def choose_locale() -> str:
    """Take the user's locale for curses; the name of its encoding.

    The C locale would have every letter beyond ASCII come out wrong, on terminals
    that nearly all speak UTF-8: it is left for C.UTF-8, as Python itself does.
    """
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, "")
    if locale.setlocale(locale.LC_CTYPE) in ("C", "POSIX"):
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    try:
        return codecs.lookup(locale.nl_langinfo(locale.CODESET)).name
    except LookupError:
        return "ascii"


class Terminal:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._colours = not environ.get("NO_COLOR")
        self._names: list[int] = []
        self._styles: dict[str, int] = dict(_PLAIN)
        self._drawn: Frame | None = None
        self._encoding = "ascii"

    def open(self) -> None:
        """Raises curses.error if the terminal cannot do what a screen needs."""
        self._encoding = choose_locale()
        self._screen = curses.initscr()
        curses.noecho()
        curses.raw()
        curses.nonl()
        curses.typeahead(-1)  # otherwise it looks at our input while it draws
        self._screen.leaveok(False)
        self._screen.scrollok(False)
        self._screen.idlok(False)
        self._screen.idcok(False)  # shifted cells would go wrong at wide characters
        if self._colours:
            self._choose_colours()
        self._say(_ON)

    def close(self) -> None:
        self._say(_OFF)
        curses.endwin()

    def size(self) -> tuple[int, int]:
        rows, columns = self._screen.getmaxyx()
        return rows, columns

    def resized(self) -> None:
        """The window has another size now."""
        size = os.get_terminal_size(sys.stdout.fileno())
        curses.resizeterm(max(size.lines, 1), max(size.columns, 1))
        self._drawn = None

    def repaint(self) -> None:
        """Trust nothing that is on the screen."""
        self._screen.clearok(True)
        self._drawn = None

    def beep(self) -> None:
        curses.beep()

    def suspend(self) -> None:
        """Stop, as Ctrl-Z does to other programs, and come back by `fg`."""
        self.close()
        signal.raise_signal(signal.SIGTSTP)
        self._screen.refresh()
        curses.raw()
        self._say(_ON)
        self.resized()
        self.repaint()

    def draw(self, frame: Frame) -> None:
        if frame == self._drawn:
            return
        before = self._drawn.rows if self._drawn else []
        for y, row in enumerate(frame.rows):
            if y < len(before) and before[y] == row:
                continue
            self._screen.move(y, 0)
            self._screen.clrtoeol()
            x = 0
            for text, style in row:
                self._put(y, x, text, self._attribute(style))
                x += cells.columns(text)
        rows, columns = self.size()
        y, x = frame.cursor
        self._screen.move(min(y, rows - 1), min(x, columns - 1))
        self._screen.refresh()
        self._drawn = frame

    def _put(self, y: int, x: int, text: str, attribute: int) -> None:
        pieces = [text] if text.isascii() else cells.clusters(text)
        for piece in pieces:
            size = cells.columns(piece)
            with contextlib.suppress(curses.error):
                # The last cell of the window is drawn, but the cursor cannot follow.
                self._screen.addstr(y, x, self._sayable(piece, size), attribute)
            x += size

    def _sayable(self, piece: str, size: int) -> str:
        """What the locale cannot say, in as many columns."""
        if self._encoding == "utf-8" or piece.isascii():
            return piece
        try:
            piece.encode(self._encoding)
        except UnicodeEncodeError:
            return "?" * size
        return piece

    def _attribute(self, style: str) -> int:
        if style.startswith("name:"):
            if not self._names:
                return curses.A_BOLD
            return self._names[name_colour(style[5:], len(self._names))]
        return self._styles.get(style, curses.A_NORMAL)

    def _choose_colours(self) -> None:
        try:
            curses.start_color()
            curses.use_default_colors()
        except curses.error:
            return
        if curses.COLORS < 8 or curses.COLOR_PAIRS < 32:
            return
        pair = 0
        for style, colour in _COLOURED.items():
            pair += 1
            curses.init_pair(pair, colour, -1)
            self._styles[style] = curses.color_pair(pair) | _PLAIN[style]
        many = curses.COLORS >= 256
        for colour in _NAMES_256 if many else _NAMES_8:
            pair += 1
            curses.init_pair(pair, colour, -1)
            self._names.append(curses.color_pair(pair))

    @staticmethod
    def _say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
