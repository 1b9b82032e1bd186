"""What a typed line means, and what Tab makes of it.  Pure.

A line is a message unless it begins with a slash; `//x` says `/x`.  A command that
is not known says so and sends nothing, so that a typo never reaches the room.
"""

from dataclasses import dataclass

HELP = {
    "help": ("", "what there is to say and to press"),
    "who": ("", "who is here"),
    "me": ("TEXT", "say what you do"),
    "quit": ("", "leave"),
    "search": ("TEXT", "find older messages; without TEXT the next one"),
    "clear": ("", "empty the screen; PgUp brings everything back"),
    "last": ("N", "go to the last N messages"),
    "since": ("SEQ", "go to what came after message SEQ"),
    "reconnect": ("", "drop the connection and make a new one"),
}
KEYS_HELP = (
    "PgUp PgDn wheel: scroll - Tab: complete - Up Down: lines typed before",
    "Ctrl-A E K U W Y, Alt-B F: edit - Ctrl-L: repaint - Shift and mouse: select",
    "Ctrl-C: clear the line, then leave",
)


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    rest: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Mistake:
    text: str


def understand(line: str) -> Say | Command | Mistake:
    if not line.startswith("/"):
        return Say(line)
    if line.startswith("//"):
        return Say(line[1:])
    name, _, rest = line[1:].partition(" ")
    rest = rest.strip()
    name = name.lower()
    if name not in HELP:
        return Mistake(f"/{name} is no command (/help lists them); nothing was sent")
    wants, _ = HELP[name]
    if name == "me":
        return Say(f"/me {rest}") if rest else Mistake("/me TEXT")
    if wants in ("N", "SEQ"):
        if not (rest.isascii() and rest.isdigit() and len(rest) < 19):
            return Mistake(f"/{name} {wants}: a number")
        return Command(name, rest, int(rest))
    if rest and not wants:
        return Mistake(f"/{name} takes nothing after it; nothing was sent")
    return Command(name, rest)


def help_lines() -> list[str]:
    rows = []
    for name, (wants, words) in HELP.items():
        rows.append(f"/{name} {wants}".ljust(16) + words)
    return [*rows, *KEYS_HELP]


def completions(before: str, names: list[str]) -> list[str]:
    """What could stand left of the cursor instead, best first."""
    head, gap, word = before.rpartition(" ")
    if word.startswith("/") and not gap:
        return [f"/{name} " for name in HELP if name.startswith(word[1:])]
    if not word:
        return []
    tail = " " if gap else ": "
    fits = [name for name in names if name.casefold().startswith(word.casefold())]
    return [head + gap + name + tail for name in fits]
