"""What a terminal sends, as keys: bytes in, keys out, no I/O.

Read by hand and not with curses, whose getch knows neither pastes nor whether the
window has the focus, and waits by itself for the rest of an escape sequence.
A key is its name ("left", "ctrl-a", "alt-b"), `Text` that was typed, or `Paste`.

Order:   feed() with what was read; flush() when nothing followed for a moment,
         since only silence tells the Escape key from the start of a sequence.
"""

import codecs
import re
from dataclasses import dataclass

PASTE_LIMIT = 1 << 20
FLUSH_AFTER_S = 0.05

_BEGIN, _END = b"\x1b[200~", b"\x1b[201~"
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~])")
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?")
_MOUSE = re.compile(rb"\x1b\[<(\d+);\d+;\d+[Mm]")

_FINAL = {
    b"A": "up", b"B": "down", b"C": "right", b"D": "left", b"H": "home", b"F": "end",
    b"Z": "back-tab", b"I": "focus-in", b"O": "focus-out", b"M": "enter",
}  # fmt: skip
_TILDE = {
    b"1": "home", b"7": "home", b"4": "end", b"8": "end", b"3": "delete",
    b"5": "page-up", b"6": "page-down",
}  # fmt: skip
_CONTROL = {
    b"\r": "enter", b"\n": "enter", b"\t": "tab", b"\x7f": "backspace",
    b"\x08": "backspace", b"\x00": "ctrl-space",
}  # fmt: skip
_HELD = ((4, "ctrl-"), (2, "alt-"), (1, "shift-"))
_WHEEL = {64: "wheel-up", 65: "wheel-down"}


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Paste:
    text: str


Key = str | Text | Paste


class Keys:
    def __init__(self) -> None:
        self._piece = b""
        self._pasting = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def unfinished(self) -> bool:
        """Whether flush() is to be called if nothing follows."""
        return bool(self._piece) and not self._pasting

    def feed(self, data: bytes) -> list[Key]:
        self._piece += data
        keys: list[Key] = []
        while self._piece:
            found = self._paste() if self._pasting else self._next()
            if found is None:
                break
            if found != "":
                keys.append(found)
        return keys

    def flush(self) -> list[Key]:
        """Nothing followed: what looked like the start of a sequence was none."""
        if not self.unfinished:
            return []
        self._piece = b""
        return ["escape"]

    def _next(self) -> Key | None:
        """The next key; "" for nothing that has a name, None if more must come."""
        piece = self._piece
        if piece[:1] == b"\x1b":
            return self._escape()
        if piece[0] < 32 or piece[0] == 127:
            self._piece = piece[1:]
            return _CONTROL.get(piece[:1]) or f"ctrl-{chr(piece[0] + 96)}"
        end = next((n for n, c in enumerate(piece) if c < 32 or c == 127), len(piece))
        self._piece = piece[end:]
        text = self._decoder.decode(piece[:end], final=end < len(piece))
        return Text(text) if text else ""

    def _escape(self) -> Key | None:
        piece = self._piece
        if piece.startswith(_BEGIN):
            self._piece, self._pasting = piece[len(_BEGIN) :], True
            return ""
        if found := _SEQUENCE.match(piece):
            self._piece = piece[found.end() :]
            return _named(found[0])
        if _UNFINISHED.fullmatch(piece):
            return None
        # Escape and one character is Alt; anything else was the Escape key.
        is_alt = piece[1:2].isalnum() or piece[1:2] in (b"\x7f", b"\r", b"<", b">")
        size = 2 if is_alt else 1
        self._piece = piece[size:]
        if size == 1:
            return "escape"
        last = piece[1:2]
        return "alt-" + (_CONTROL.get(last) or last.decode("ascii"))

    def _paste(self) -> Key | None:
        pasted, end, rest = self._piece.partition(_END)
        if not end and len(pasted) < PASTE_LIMIT:
            return None
        self._piece, self._pasting = rest, False
        text = pasted.decode("utf-8", "replace")
        return Paste(text.replace("\r\n", "\n").replace("\r", "\n"))


def _named(sequence: bytes) -> str:
    if mouse := _MOUSE.fullmatch(sequence):
        return _WHEEL.get(int(mouse[1]) & ~0x1C, "")
    first, *modifiers = sequence[2:-1].split(b";")
    last = sequence[-1:]
    name = _TILDE.get(first, "") if last == b"~" else _FINAL.get(last, "")
    if not name or not modifiers or not modifiers[0].isdigit():
        return name
    flags = int(modifiers[0]) - 1
    return "".join(word for bit, word in _HELD if flags & bit) + name
