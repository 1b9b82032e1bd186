"""The input line: text, a cursor, and what was typed before.

The cursor stands between clusters (a base and its marks), never inside one, so no
key can tear an accent off its letter.

Not here: what Enter means (view.py), and how wide anything is (paint.py).
"""

import re
from collections.abc import Callable

from papaya_pool.client import cells

HISTORY_LIMIT = 500

_WORD_LEFT = re.compile(r"\w+\W*$|\W+$")
_WORD_RIGHT = re.compile(r"^\W*\w+|^\W+")
_BLANK_LEFT = re.compile(r"\S+\s*$|\s+$")


class Editor:
    def __init__(self) -> None:
        self.before = ""  # left of the cursor
        self.after = ""
        self._killed = ""
        self._history: list[str] = []
        self._at = 0  # where in the history; its end is the line being typed
        self._draft = ""
        self._keys: dict[str, Callable[[], object]] = {
            "left": lambda: self._move(len(_last(self.before))),
            "right": lambda: self._move(-len(_first(self.after))),
            "ctrl-b": lambda: self._move(len(_last(self.before))),
            "ctrl-f": lambda: self._move(-len(_first(self.after))),
            "home": lambda: self._move(len(self.before)),
            "end": lambda: self._move(-len(self.after)),
            "ctrl-a": lambda: self._move(len(self.before)),
            "ctrl-e": lambda: self._move(-len(self.after)),
            "alt-b": lambda: self._move(_span(_WORD_LEFT, self.before)),
            "alt-f": lambda: self._move(-_span(_WORD_RIGHT, self.after)),
            "backspace": lambda: self._rub_out(len(_last(self.before))),
            "delete": lambda: self._rub_out(-len(_first(self.after))),
            "ctrl-d": lambda: self._rub_out(-len(_first(self.after))),
            "ctrl-u": lambda: self._kill(len(self.before)),
            "ctrl-k": lambda: self._kill(-len(self.after)),
            "ctrl-w": lambda: self._kill(_span(_BLANK_LEFT, self.before)),
            "alt-backspace": lambda: self._kill(_span(_WORD_LEFT, self.before)),
            "alt-d": lambda: self._kill(-_span(_WORD_RIGHT, self.after)),
            "ctrl-y": lambda: self.insert(self._killed),
            "up": lambda: self._recall(-1),
            "down": lambda: self._recall(1),
            "ctrl-p": lambda: self._recall(-1),
            "ctrl-n": lambda: self._recall(1),
        }
        for held in ("ctrl-", "alt-"):
            self._keys[held + "left"] = self._keys["alt-b"]
            self._keys[held + "right"] = self._keys["alt-f"]

    @property
    def text(self) -> str:
        return self.before + self.after

    def key(self, name: str) -> bool:
        """Whether the key means anything here."""
        act = self._keys.get(name)
        if act:
            act()
        return act is not None

    def insert(self, text: str) -> None:
        self.before += text

    def replace(self, before: str, after: str = "") -> None:
        self.before, self.after = before, after

    def accept(self) -> str:
        """The line, taken out and remembered."""
        text = self.text
        if text and self._history[-1:] != [text]:
            self._history = [*self._history, text][-HISTORY_LIMIT:]
        self._at = len(self._history)
        self._draft = ""
        self.replace("")
        return text

    def _move(self, left: int) -> None:
        text, at = self.text, len(self.before) - left
        self.before, self.after = text[:at], text[at:]

    def _rub_out(self, left: int) -> str:
        if left >= 0:
            gone = self.before[len(self.before) - left :]
            self.before = self.before[: len(self.before) - left]
        else:
            gone, self.after = self.after[:-left], self.after[-left:]
        return gone

    def _kill(self, left: int) -> None:
        self._killed = self._rub_out(left) or self._killed

    def _recall(self, step: int) -> None:
        if not 0 <= self._at + step <= len(self._history):
            return
        if self._at == len(self._history):
            self._draft = self.text
        self._at += step
        lines = [*self._history, self._draft]
        self.replace(lines[self._at])


def _last(text: str) -> str:
    return cells.clusters(text)[-1] if text else ""


def _first(text: str) -> str:
    return cells.clusters(text)[0] if text else ""


def _span(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return len(found[0]) if found else 0
