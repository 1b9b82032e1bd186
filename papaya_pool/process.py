"""What each of our processes does first, and how each of them speaks to the log.

Order:   close_others() before anything else after a fork.  A descriptor that was
         inherited by accident keeps a dead process's lock, or a departed member's
         connection, alive (law 3).
Format:  log lines are `key=value` with identity first; people grep them, and tests
         match on `event=`.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterable

from papaya_pool.scoreboard import ROLES, ProcessSlot

LEVELS = ("debug", "info", "warning", "error")


def role(slot: ProcessSlot, workers: int) -> str:
    """`w0`, `w1`, ... or the role's name, as `ps` shows it behind `papaya:`."""
    if slot.number < workers:
        return f"w{slot.number}"
    return ROLES[slot.number - workers]


def name(comm: str) -> None:
    """Show as `comm` in ps, top and /proc.  At most 15 characters are shown."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(comm)


def close_others(keep: Iterable[int]) -> None:
    """Close every descriptor but stdin, stdout, stderr and `keep`."""
    begin = 3
    for fd in sorted(set(keep)):
        if fd >= begin:
            os.closerange(begin, fd)
            begin = fd + 1
    os.closerange(begin, os.sysconf("SC_OPEN_MAX"))


def log_line(slot: ProcessSlot, **words: object) -> None:
    """One line on stderr about the process in `slot`.  None values are left out."""
    identity = {"slot": slot.number, "gen": slot.generation, "pid": slot.pid}
    emit({**identity, **words})


def emit(words: dict[str, object]) -> None:
    """One line on stderr.  Whoever reads it must not be able to stop the pool."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    pairs = [f"{k}={_quoted(str(v))}" for k, v in words.items() if v is not None]
    line = f"time={stamp}Z {' '.join(pairs)}\n"
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), line.encode("utf-8", "replace"))


def _quoted(value: str) -> str:
    """A value that can be split off again, and that cannot drive a terminal."""
    if value and value.isprintable() and not set(value) & set(' "=\\'):
        return value
    safe = value.encode("unicode_escape").decode("ascii").replace('"', "'")
    return f'"{safe}"'


