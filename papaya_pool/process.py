"""What each of our processes inherits, is called, and says on stderr.

Format:  log lines are `key=value` with identity first; people grep them, and tests
         match on `event=`.
"""

import contextlib
import os
import select
import signal
import socket
import time
from typing import NamedTuple

from papaya_pool.latch import Latch
from papaya_pool.room import Room
from papaya_pool.scoreboard import ROLES, ProcessSlot, Scoreboard
from papaya_pool.settings import Settings


STACK_SIGNAL = signal.SIGUSR1  # who gets it says where it hangs

# --- before fork, inherited by all ---------------------------------------------------


class Pool(NamedTuple):
    """What every process of a pool inherits.  Each closes what it does not need."""

    settings: Settings
    room: Room
    board: Scoreboard
    latch: Latch
    inboxes: list[tuple[socket.socket, socket.socket]]  # a worker's: (its end, ours)


class Seat(NamedTuple):
    """A dead worker's session, inherited by its successor with the supervisor's dup."""

    slot: int
    generation: int
    fd: int


# --- after it ------------------------------------------------------------------------


def role(slot: ProcessSlot, workers: int) -> str:
    """`w0`, `w1`, ... or the role's name, as `ps` shows it behind `papaya:`."""
    if slot.number < workers:
        return f"w{slot.number}"
    return ROLES[slot.number - workers]


def name(comm: str) -> None:
    """Show as `comm` in ps, top and /proc.  At most 15 characters are shown."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(comm)


def log_line(slot: ProcessSlot, **words: object) -> None:
    """One line on stderr about the process in `slot`.  None values are left out."""
    identity = {"slot": slot.number, "gen": slot.generation, "pid": slot.pid}
    emit({**identity, **words})


def emit(words: dict[str, object]) -> None:
    """One line on stderr, or none: who reads it too slowly must not stop the pool."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    pairs = [f"{k}={_quoted(str(v))}" for k, v in words.items() if v is not None]
    line = f"time={stamp}Z {' '.join(pairs)}\n"
    with contextlib.suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if poll.poll(0):  # a pipe then has room for PIPE_BUF bytes
            os.write(2, line.encode("utf-8", "replace")[:4096])


def _quoted(value: str) -> str:
    """A value that can be split off again, and that cannot drive a terminal."""
    if value and value.isprintable() and not set(value) & set(' "=\\'):
        return value
    safe = value.encode("unicode_escape").decode("ascii").replace('"', "'")
    return f'"{safe}"'


