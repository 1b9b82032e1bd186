"""How busy the room was before anybody looked: the log, bisected by its times.

The log is sorted by seq and by time, both stand at the front of every line, so the
newest seq at any moment is some twenty small reads away, however long the log is.

Owner:   nobody's; reads below the published tail, where bytes never change, so no
         lock is needed (law 3).
Failure: a log that cannot be read, or is not one, tells nothing; it is no error.
"""

import calendar
import os
import time
from collections.abc import Sequence
from pathlib import Path

_LINE_BYTES = 4400  # more than the longest line has
_LOOK_BYTES = 1024


def seqs_at(log: Path, tail: int, times_ms: Sequence[int]) -> list[tuple[int, int]]:
    """(time, newest seq then) for each of `times_ms`, which ascend."""
    try:
        fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        found, begin, seq = [], 0, 0
        for time_ms in times_ms:
            begin, seq = _bisect(fd, begin, seq, tail, time_ms)
            found.append((time_ms, seq))
        return found
    except (OSError, ValueError):
        return []
    finally:
        os.close(fd)


def _bisect(fd: int, low: int, seq: int, tail: int, time_ms: int) -> tuple[int, int]:
    """The last line that is not later: (the offset behind its start, its seq).

    `low` is where to begin, behind the start of a line whose seq is `seq`.
    """
    high = tail
    while low < high:
        middle = (low + high) // 2
        line = _line_from(fd, middle, tail)
        if line is None or line[2] > time_ms:
            high = middle
        else:
            low, seq = line[0] + 1, line[1]
    return low, seq


def _line_from(fd: int, offset: int, tail: int) -> tuple[int, int, int] | None:
    """The first line that begins at `offset` or behind it: (where, seq, time)."""
    at, data = max(0, offset - 1), b""
    if offset:
        while (end := data.find(b"\n")) < 0:
            more = os.pread(fd, min(_LOOK_BYTES, tail - at - len(data)), at + len(data))
            if not more or len(data) > _LINE_BYTES:
                return None
            data += more
        at += end + 1
    if at >= tail:
        return None
    fields = os.pread(fd, min(64, tail - at), at).split(b"\t", 2)
    return at, int(fields[0]), _milliseconds(fields[1].decode("ascii"))


def _milliseconds(stamp: str) -> int:
    """2026-11-22T20:00:00.123Z -> since 1970.  Raises ValueError."""
    whole = calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))
    return 1000 * whole + int(stamp[20:23])
