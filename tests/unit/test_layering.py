"""The house rule: a module may import only from floors below its own.

The tables are the architecture.  To move a module, move its name here first.  A
family of rooms (a package in papaya_pool/) stands on one floor under one name,
unless one of its rooms is named by itself; within the family anyone may call anyone.
"""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
HOUSE = TESTS.parent / "papaya_pool"

FLOORS = [
    {"errors"},
    {"records", "settings", "children"},
    {"dialects"},  # up to here: pure, no I/O, no clock
    {  # one kernel object each
        *{"scoreboard", "latch", "handoff", "chatlog", "wirecount", "listener"},
        *{"poller", "room"},
    },
    {  # one member's connection; what every process does first; asking; new code
        *{"session", "process", "control", "upgrade", "logbook", "bans"},
    },
    {  # many sessions at once; the other side
        *{"commit", "delivery", "moves", "answers", "client", "clientele", "pulse"},
    },
    {"takeover", "office", "sampler", "crew", "capacity"},  # between pools; what administrators ask
    {"acceptor", "worker", "syncer", "keeper"},  # one process's loop; whose sessions
    {"succession", "watch"},  # taking an old pool over; a screen
    {"supervisor"},
    {"top", "chat", "ctl", "__main__"},  # programs
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}

# Rooms that must stay ignorant of the rest, however low it lies.
ONLY = {
    "client": {"client", "errors", "records", "settings", "dialects"},
    "chat": {"client", "errors", "records", "settings", "room"},
    "clientele": {"scoreboard"},
    "pulse": set(),
    "sampler": {"errors", "scoreboard", "room", "clientele", "pulse"},
    "watch": {"watch", "errors", "client", "clientele", "sampler"},
    "top": {"errors", "settings", "room", "sampler", "watch", "control"},
}

# A library, or one call of it -> the only rooms with a key to it.
KEYS = {
    "array": {"handoff"},
    "curses": {"top", "watch", "chat", "client"},
    "fcntl": {"chatlog", "room", "wirecount"},
    "fcntl.flock": {"chatlog"},
    "fcntl.ioctl": {"wirecount"},
    "fcntl.lockf": {"room"},
    "mmap": {"scoreboard"},
    "multiprocessing": {"scoreboard", "crew"},
    "multiprocessing.shared_memory": {"scoreboard"},
    "psutil": {"sampler"},
    "select": {"poller", "latch", "process", "control", "takeover"},
    "selectors": {"poller", "client", "chat", "ctl"},
    "signal": {
        *{"supervisor", "crew", "takeover", "process", "upgrade"},
        *{"__main__", "top", "chat", "ctl", "client"},
    },
    "socket.SCM_RIGHTS": {"handoff"},
    "os._exit": {"crew", "__main__"},
    "os.eventfd": {"latch"},
    "os.fork": {"crew"},
    "os.kill": {"crew", "takeover", "upgrade"},
    "os.sendfile": {"answers", "delivery"},
    "os.wait": {"crew"},
    "os.waitid": {"crew"},
    "os.waitpid": {"crew", "takeover"},
    "asyncio": set(),
    "concurrent": set(),
    "marshal": set(),
    "os.killpg": set(),
    "pickle": set(),
    "random": set(),
    "socket.recv_fds": set(),  # drops its flags: cpython gh-107898
    "socket.send_fds": set(),
    "threading": set(),
}

PURE_BELOW = 3
PURE_MAY_NOT = {
    "logging",
    "multiprocessing",
    "os",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "sys",
}

TOLD_THE_TIME_BELOW = 5  # so that a test can be any hour
CLOCK = {
    f"time.{call}{unit}"
    for call in ("time", "monotonic", "perf_counter", "clock_gettime")
    for unit in ("", "_ns")
} | {"time.sleep", "time.localtime", "datetime.now", "datetime.utcnow"}

# Rooms with a reason.
UNLESS = {
    "settings": {"os"},  # to count the CPUs
    "chatlog": {"time.sleep"},  # between two short tries for the lock
}


def used(tree, package):
    """Yield each thing a file reaches for: 'fcntl', 'os.fork', '.session'.

    `package` is where the file lies: '' or a family.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (local(alias.name) for alias in node.names)
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = local(node.module or "")
            if node.level:
                home = ["", package] if package and node.level == 1 else [""]
                base = ".".join([*home, *filter(None, [node.module])])
            yield base
            yield base.partition(".")[0]
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def local(module):
    """'papaya_pool.session' -> '.session', and 'os' -> 'os'."""
    head, dot, room = module.partition(".")
    return dot + room if head == "papaya_pool" else module


def family(room):
    return room.partition(".")[0]


def floor_of(room):
    """None: no room of ours."""
    return FLOOR_OF.get(room, FLOOR_OF.get(family(room)))


def faults(name, source, is_package=False):
    floor = floor_of(name)
    package = name if is_package else name.rpartition(".")[0]
    for thing in sorted(set(used(ast.parse(source), package))):
        other = thing[1:] if thing.startswith(".") else ""
        if floor_of(other) is not None and family(other) != family(name):
            if floor_of(other) >= floor:
                yield f"{name} (floor {floor}) imports {other} ({floor_of(other)})"
            if family(other) not in ONLY.get(family(name), {family(other)}):
                yield f"{name} may not know about {other}"
        if thing in KEYS and not KEYS[thing] & {name, family(name)}:
            yield f"{name} has no key to {thing}"
        if thing in UNLESS.get(name, set()):
            continue
        if floor < PURE_BELOW and thing in PURE_MAY_NOT:
            yield f"{name} is pure and may not use {thing}"
        if floor < TOLD_THE_TIME_BELOW and thing in CLOCK:
            yield f"{name} is told the time and may not use {thing}"


def rooms():
    for path in sorted(HOUSE.rglob("*.py")):
        *families, stem = path.relative_to(HOUSE).with_suffix("").parts
        name = ".".join([*families, stem] if stem != "__init__" else families)
        if name:
            yield pytest.param(name, path, id=name)


@pytest.mark.parametrize(("name", "path"), list(rooms()))
def test_a_room_keeps_to_its_floor(name, path):
    assert floor_of(name) is not None, f"{name} is on no floor: add it to FLOORS"
    assert list(faults(name, path.read_text(), path.stem == "__init__")) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("dialects", "import os"),
        ("dialects", "import socket"),
        ("settings", "import socket"),
        ("latch", "from . import session"),
        ("latch", "from .session import Session"),
        ("latch", "from papaya_pool import session"),
        ("latch", "from papaya_pool.session import Session"),
        ("latch", "import papaya_pool.session"),
        ("latch", "from papaya_pool.client import link"),
        ("latch", "from papaya_pool import chatlog"),
        ("chatlog", "from .latch import Latch"),
        ("worker", "import os\nos.fork()"),
        ("worker", "from os import fork"),
        ("worker", "import multiprocessing.shared_memory"),
        ("latch", "import fcntl"),
        ("room", "import fcntl\nfcntl.flock(1, 2)"),
        ("top", "import psutil"),
        ("top", "from . import supervisor"),
        ("scoreboard", "def f():\n    import threading"),
        ("chatlog", "import time\ntime.time()"),
        ("chatlog", "from time import monotonic"),
        ("chatlog", "from datetime import datetime\ndatetime.now()"),
        ("client.link", "from papaya_pool import chatlog"),
        ("client.link", "from .. import chatlog"),
        ("client.link", "from ..worker import run"),
        ("client.link", "import array"),
    ],
)
def test_the_rule_can_fail(name, source):
    assert list(faults(name, source))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("latch", "from papaya_pool import errors"),
        ("latch", "from papaya_pool import __version__"),
        ("latch", "import time\ntime.gmtime()"),
        ("worker", "import time\ntime.monotonic()"),
        ("client.link", "from . import outbox"),
        ("client.link", "from ..records import is_name"),
        ("client.link", "from papaya_pool.client import outbox"),
        ("client.dial", "import selectors"),
        ("chat", "from papaya_pool.client import link"),
    ],
)
def test_the_rule_allows_what_it_should(name, source):
    assert list(faults(name, source)) == []


def test_only_an_until_sleeps():
    """Only an until() does, between two looks; whoever else sleeps guesses."""
    guilty = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("*.py")
        if "time.sleep" in used(ast.parse(path.read_text()), "")
    }
    assert guilty <= {"harness.py", "standin.py"}
