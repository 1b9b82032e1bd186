"""A terminal to look at: the real program under a pty, and what its screen shows.

An emulator of the part of xterm that curses uses, cell by cell, so that a test can
compare screens, and see that a hostile message touched no cell but its own.  A
sequence that it does not know is a failure: it is what a terminal would obey.
"""

import codecs
import fcntl
import os
import pty
import re
import selectors
import struct
import subprocess
import sys
import termios
import time
import unicodedata

_SEQUENCE = re.compile(r"\x1b(?:\[([?>]?)([0-9;]*)([@-~])|([()])(.)|([=>78MDEc]))")


# Not pty.fork(): with threads about (standin.py) it may deadlock in the child.
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Screen:
    def __init__(self, rows, columns):
        self.resize(rows, columns)
        self.y = self.x = 0
        self.bells = 0
        self.modes = set()
        self._piece = ""

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        self.top, self.bottom = 0, rows - 1

    def lines(self):
        return ["".join(row).rstrip() for row in self.cells]

    def feed(self, text):
        self._piece += text
        while self._piece:
            char = self._piece[0]
            if char == "\x1b":
                found = _SEQUENCE.match(self._piece)
                if not found:
                    assert len(self._piece) < 40, f"unknown: {self._piece!r}"
                    return
                self._piece = self._piece[found.end() :]
                self._obey(*found.groups())
            else:
                self._piece = self._piece[1:]
                self._put(char)

    def _put(self, char):
        if char == "\r":
            self.x = 0
        elif char == "\n":
            if self.y == self.bottom:
                self._scroll(self.top, 1)
            else:
                self.y = min(self.y + 1, self.rows - 1)
        elif char in "\x0e\x0f":
            pass  # character sets
        elif char == "\b":
            self.x = max(self.x - 1, 0)
        elif char == "\t":
            self.x = min(self.x // 8 * 8 + 8, self.columns - 1)
        elif char == "\x07":
            self.bells += 1
        else:
            self._print(char)

    def _print(self, char):
        kind = unicodedata.category(char)
        assert kind not in ("Cc", "Cn", "Co", "Cs"), repr(char)
        if kind in ("Mn", "Me", "Cf"):
            self.cells[self.y][max(self.x - 1, 0)] += char
            return
        size = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if self.x + size > self.columns:
            self.x = 0
            self._put("\n")
        self.cells[self.y][self.x] = char
        if size == 2:
            self.cells[self.y][self.x + 1] = ""
        self.x += size

    def _obey(self, private, numbers, final, *others):
        if not final:
            if others[-1] == "D":
                self._put("\n")
            elif others[-1] == "M" and self.y == self.top:
                self._scroll(self.top, -1)
            else:
                assert others[-1] in (None, *"=>78"), f"unknown: {others}"
            return  # character sets and keypad modes: nothing to see
        values = [int(n) if n else 0 for n in numbers.split(";")]
        first = values[0] or 1
        if private:
            change = self.modes.add if final == "h" else self.modes.discard
            for value in values:
                change(value)
        elif final in "Hf":
            column = values[1] if len(values) > 1 else 1
            self.y, self.x = first - 1, (column or 1) - 1
        elif final == "d":
            self.y = first - 1
        elif final == "G":
            self.x = first - 1
        elif final in "ABCD":
            self.y += {"A": -first, "B": first}.get(final, 0)
            self.x += {"C": first, "D": -first}.get(final, 0)
        elif final == "J":
            self._erase_screen(values[0])
        elif final == "K":
            begin, end = ((self.x, None), (0, self.x + 1), (0, None))[values[0]]
            self._blank(self.y, begin, self.columns if end is None else end)
        elif final == "X":
            self._blank(self.y, self.x, min(self.x + first, self.columns))
        elif final == "b":
            char = self.cells[self.y][self.x - 1]
            for _ in range(first):
                self._print(char)
        elif final == "r":
            whole = len(values) < 2
            self.top = 0 if whole else first - 1
            self.bottom = self.rows - 1 if whole else values[1] - 1
            self.y = self.x = 0
        elif final in "ST":
            self._scroll(self.top, first if final == "S" else -first)
        elif final in "LM":
            self._scroll(self.y, first if final == "M" else -first)
        else:
            assert final in "mlht", f"unknown: {private}{numbers}{final}"

    def _scroll(self, top, count):
        """Move the rows from `top` to the region's bottom up by `count`."""
        region = self.cells[top : self.bottom + 1]
        new = [[" "] * self.columns for _ in range(min(abs(count), len(region)))]
        region = region[count:] + new if count > 0 else new + region[:count]
        self.cells[top : self.bottom + 1] = region

    def _erase_screen(self, how):
        if how == 0:
            self._blank(self.y, self.x, self.columns)
        for y in range(self.y + 1 if how == 0 else 0, self.rows):
            self._blank(y, 0, self.columns)

    def _blank(self, y, begin, end):
        self.cells[y][begin:end] = [" "] * (end - begin)


class Terminal:
    """A program in a pty of its own; `close` ends it."""

    def __init__(self, argv, env, rows=24, columns=80):
        self.screen = Screen(rows, columns)
        self.exit_code = None
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._fd, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-ISc", _TAKE_TERMINAL, *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
        )
        os.close(slave)
        self.pid = self._process.pid
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._fd, selectors.EVENT_READ)

    def type(self, text):
        os.write(self._fd, text.encode())

    def resize(self, rows, columns):
        self.read(0.05)
        self.screen.resize(rows, columns)
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, size)

    def read(self, within_s=0.0):
        """Show what the program writes until nothing comes for a moment."""
        while self._selector.select(within_s):
            try:
                data = os.read(self._fd, 1 << 16)
            except OSError:
                return False
            if not data:
                return False
            self.screen.feed(self._decoder.decode(data))
        return True

    def until(self, condition, within=10.0):
        """Wait until the screen's lines fulfil the condition; returns them."""
        deadline = time.monotonic() + within
        while True:
            going_on = self.read(0.02)
            lines = self.screen.lines()
            if condition(lines):
                return lines
            picture = "\n".join(lines)
            assert going_on, f"the program has ended:\n{picture}"
            assert time.monotonic() < deadline, f"not shown:\n{picture}"

    def shows(self, text, within=10.0):
        return self.until(lambda lines: any(text in line for line in lines), within)

    def ends(self, within=10.0):
        """Its exit code."""
        deadline = time.monotonic() + within
        while self.exit_code is None:
            assert time.monotonic() < deadline, "\n".join(self.screen.lines())
            self.read(0.02)
            self.exit_code = self._process.poll()
        self.read()
        return self.exit_code

    def close(self):
        self._process.kill()
        self.exit_code = self._process.wait()
        self._selector.close()
        os.close(self._fd)
