"""The client's own floors: a room imports only from those before it in the list."""

import ast
from pathlib import Path

import pytest

CLIENT = Path(__file__).resolve().parents[2] / "papaya_pool" / "client"

FLOORS = [
    {"link", "outbox", "cells", "keys", "config"},
    {"classic", "editor", "commands", "setup"},
    {"member", "timeline", "dial"},
    {"driver", "view"},
    {"ask", "paint"},
    {"line", "terminal"},
    {"screen"},
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
IMPURE = {"config", "setup", "dial", "driver", "ask", "line", "terminal", "screen"}
TOUCHES = {"os", "socket", "selectors", "sys", "time", "signal", "secrets", "curses"}


def imported(source):
    """Yield ("client", room), ("pool", room) or ("library", name)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (("library", alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package, _, room = (node.module or "").partition("papaya_pool.client")
            if node.module == "papaya_pool.client":
                yield from (("client", alias.name) for alias in node.names)
            elif not package and room:
                yield "client", room[1:]
            elif node.module == "papaya_pool":
                yield from (("pool", alias.name) for alias in node.names)
            else:
                yield "library", node.module


def faults(name, source):
    for kind, other in imported(source):
        if kind == "client" and FLOOR_OF[other] >= FLOOR_OF[name]:
            yield f"{name} imports {other}, which is not below it"
        if kind == "pool" and other not in ("errors", "records", "settings"):
            yield f"{name} may not know about {other}"
        if kind == "library" and other in TOUCHES and name not in IMPURE:
            yield f"{name} is pure and may not use {other}"


@pytest.mark.parametrize("path", sorted(CLIENT.glob("[!_]*.py")), ids=lambda p: p.stem)
def test_a_room_keeps_to_its_floor(path):
    assert path.stem in FLOOR_OF, f"{path.stem} is on no floor: add it to FLOORS"
    assert list(faults(path.stem, path.read_text())) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("link", "from papaya_pool.client import cells"),
        ("view", "from papaya_pool.client.screen import ScreenMode"),
        ("line", "from papaya_pool import scoreboard"),
        ("paint", "import curses"),
        ("member", "import time"),
    ],
)
def test_the_rule_can_fail(name, source):
    assert list(faults(name, source))
