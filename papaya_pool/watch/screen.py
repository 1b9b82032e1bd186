"""papaya-top's screen: curses, and the one loop that draws.

Owner:   show() takes the terminal and gives it back, however it ends.
Failure: a pool that goes away is no error here: the screen says so and waits for it
         to come back, because that is when somebody looks.
"""

import contextlib
import curses
import time
from collections.abc import Callable, Mapping
from typing import Any

from papaya_pool import errors
from papaya_pool.client import cells, terminal
from papaya_pool.sampler import Sampler
from papaya_pool.watch import paint, view
from papaya_pool.watch.figures import CELL_S, CELLS, Figures, History, Looks
from papaya_pool.watch.view import Next, View

Act = Callable[[list[str]], str]  # words to the pool's door -> what came of it

_NAMES = {
    curses.KEY_UP: "up", curses.KEY_DOWN: "down", curses.KEY_LEFT: "left",
    curses.KEY_RIGHT: "right", curses.KEY_PPAGE: "pageup", curses.KEY_NPAGE: "pagedown",
    curses.KEY_HOME: "home", curses.KEY_END: "end", curses.KEY_RESIZE: "resize",
    curses.KEY_F1: "f1", curses.KEY_F4: "f4", curses.KEY_F9: "f9",
    curses.KEY_F10: "f10",
    curses.KEY_BACKSPACE: "backspace", curses.KEY_ENTER: "enter",
    "\x7f": "backspace", "\b": "backspace", "\n": "enter", "\r": "enter",
    "\x1b": "esc", "\t": "tab", "\x0c": "redraw",
}  # fmt: skip

_PLAIN = {
    "head": curses.A_BOLD, "value": curses.A_BOLD, "dim": curses.A_DIM,
    "title": curses.A_REVERSE, "sorted": curses.A_REVERSE | curses.A_BOLD,
    "cursor": curses.A_REVERSE, "tagged": curses.A_BOLD | curses.A_UNDERLINE,
    "tagged-cursor": curses.A_REVERSE | curses.A_BOLD | curses.A_UNDERLINE,
    "warn": curses.A_BOLD, "bad": curses.A_BOLD | curses.A_UNDERLINE,
    "ask": curses.A_REVERSE,
}  # fmt: skip
_COLOURED = {  # foreground, background, attribute
    "warn": (curses.COLOR_YELLOW, -1, 0),
    "bad": (curses.COLOR_RED, -1, curses.A_BOLD),
    "value": (curses.COLOR_CYAN, -1, curses.A_BOLD),
    "title": (curses.COLOR_BLACK, curses.COLOR_GREEN, 0),
    "sorted": (curses.COLOR_BLACK, curses.COLOR_CYAN, 0),
    "cursor": (curses.COLOR_BLACK, curses.COLOR_CYAN, 0),
    "tagged": (curses.COLOR_YELLOW, -1, curses.A_BOLD),
    "tagged-cursor": (curses.COLOR_BLACK, curses.COLOR_YELLOW, 0),
    "ask": (curses.COLOR_BLACK, curses.COLOR_YELLOW, 0),
}


def show(
    sampler: Sampler, chosen: View, delay_s: float, act: Act, env: Mapping[str, str]
) -> int:
    """Until the person quits; the exit code.  Raises curses.error."""
    encoding = terminal.choose_locale()
    curses.set_escdelay(25)
    screen = curses.initscr()
    try:
        curses.noecho()
        curses.cbreak()
        screen.keypad(True)
        screen.idcok(False)  # lines are rewritten, not edited: every terminal can that
        curses.curs_set(0) if curses.tigetstr("civis") else None
        return Screen(
            screen, sampler, chosen, delay_s, act, _styles(env), encoding
        ).run()
    except KeyboardInterrupt:
        return errors.EX_OK
    finally:
        screen.keypad(False)
        curses.endwin()


class Screen:
    """What is on the screen, and when the next look at the pool is due."""

    def __init__(
        self,
        screen: "curses.window",
        sampler: Sampler,
        chosen: View,
        delay_s: float,
        act: Act,
        styles: Mapping[str, int],
        encoding: str,
    ) -> None:
        self._screen, self._sampler, self._view = screen, sampler, chosen
        self._delay_s, self._act, self._styles = delay_s, act, styles
        self._history = History()
        for time_ms, seq in sampler.past(CELLS, CELL_S):
            self._history.note(time_ms, seq)
        self._looks = Looks()
        self._figures: Figures | None = None
        self._rows: list[Any] = []
        self._drawn: list[paint.Line] = []
        self._encoding = encoding
        self._unicode = _can_show(paint.sparkline([1.0, 2.0]), encoding)

    def run(self) -> int:
        next_look = time.monotonic()
        while True:
            if not self._view.paused and time.monotonic() >= next_look:
                self._look()
                # The first rates should not wait for a whole delay.
                first = self._figures is not None and not self._figures.window_s
                next_look = time.monotonic() + (
                    min(0.3, self._delay_s) if first else self._delay_s
                )
            self._draw()
            pause_s = next_look - time.monotonic()
            self._screen.timeout(
                -1 if self._view.paused else max(1, int(1000 * pause_s))
            )
            then = self._press()
            if then is Next.QUIT:
                return errors.EX_OK
            if then is Next.ACT:
                self._do()
            if then in (Next.RESAMPLE, Next.ACT):
                self._look()
                next_look = time.monotonic() + self._delay_s

    def _look(self) -> None:
        try:
            now = self._sampler.sample(unacked=self._view.on_clients)
        except errors.PoolFault as fault:
            self._figures, self._rows = None, []
            self._view.message = f"{fault}: waiting for it (q quits)"
            return
        if self._figures is None:
            self._view.message = ""
        before = self._looks.newest
        if self._figures and before and now.at_s - before.at_s < 0.05:
            return  # a key was held down; so short a window tells nothing
        self._figures = self._looks.add(now)
        self._history.note(now.time_ms, now.head_seq)

    def _press(self) -> Next:
        try:
            key = self._screen.get_wch()
        except curses.error:  # nobody pressed one in time
            return Next.NOTHING
        name = _NAMES.get(key, key)
        if name == view.ESC and self._swallow():
            return Next.NOTHING
        if name == "redraw":
            self._screen.clear()
            self._drawn = []
            return Next.REDRAW
        if name == "resize":
            self._drawn = []
            self._screen.erase()
        return (
            view.press(self._view, name, self._rows)
            if isinstance(name, str)
            else Next.NOTHING
        )

    def _swallow(self) -> bool:
        """Whether this is no Esc but a sequence that curses does not know; it is taken.

        Otherwise its last letter would be a key, and one of them kicks.
        """
        self._screen.timeout(0)
        try:
            key = self._screen.get_wch()
        except curses.error:  # nothing comes behind it
            return False
        if key not in ("[", "O"):
            curses.unget_wch(key)
            return False
        with contextlib.suppress(curses.error):
            while not ("@" <= str(self._screen.get_wch()) <= "~"):
                pass
        return True

    def _do(self) -> None:
        """What was agreed to, one after the other, until one fails."""
        agreed, self._view.agreed = self._view.agreed, []
        for words in agreed:
            self._view.message = self._act(words)
        self._view.table.tagged.clear()

    # --- drawing ---

    def _draw(self) -> None:
        height, width = self._screen.getmaxyx()
        self._rows = self._view.rows(self._figures) if self._figures else []
        paint.settle(self._view, self._rows, height, width)
        lines = paint.paint(
            self._figures, self._history.rates(), self._view, self._rows,
            height, width, self._unicode,
        )  # fmt: skip
        lines += [[] for _ in range(height - len(lines))]
        for y, line in enumerate(lines):
            if y >= len(self._drawn) or self._drawn[y] != line:
                self._draw_line(y, line)
        self._drawn = lines
        self._screen.refresh()

    def _draw_line(self, y: int, line: paint.Line) -> None:
        self._screen.move(y, 0)
        self._screen.clrtoeol()
        x = 0
        for text, style in line:
            # Each cluster where cells.py says: curses may think otherwise of widths,
            # and then everything to the right would shift.
            for piece in [text] if text.isascii() else cells.clusters(text):
                self._put(y, x, piece, self._styles.get(style, curses.A_NORMAL))
                x += cells.columns(piece)

    def _put(self, y: int, x: int, piece: str, attribute: int) -> None:
        if not _can_show(piece, self._encoding):
            piece = "?" * cells.columns(piece)
        # At the last cell it is drawn, only the cursor cannot follow.
        with contextlib.suppress(curses.error):
            self._screen.addstr(y, x, piece, attribute)


def _can_show(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeError:
        return False
    return True


def _styles(env: Mapping[str, str]) -> dict[str, int]:
    """What each style looks like here; attributes alone where there is no colour."""
    styles = {"": curses.A_NORMAL, **_PLAIN}
    if env.get("NO_COLOR") or not curses.has_colors():
        return styles
    curses.start_color()
    curses.use_default_colors()
    for number, (style, (front, back, attribute)) in enumerate(_COLOURED.items(), 1):
        curses.init_pair(number, front, back)
        styles[style] = curses.color_pair(number) | attribute
    return styles
