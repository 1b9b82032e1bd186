"""The log: one file, appended under flock, never changed below its tail.

flock belongs to the open file description, and fork shares it: a lock that was
taken before a fork excludes neither side.  So every process opens the log
itself, after its fork, and a process that forks opens it for one use and closes
it again (law 3).  The ancestor got this wrong and tore its messages.

Owner:   only the holder of the exclusive lock appends or cuts.  Other programs
         may take part (`flock -s room.log cp room.log backup`); their lock
         delays messages and nothing else.
Order:   lock, look at the head, write, publish, unlock.
Failure: nobody blocks for the lock: it is tried.  A failed write raises OSError
         and leaves what it wrote; the caller cuts it back.
Format:  see records.py.  seq is the first column and dense, so a seq is found
         by bisecting the file: there is no index that could be wrong.
"""

import calendar
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from papaya_pool import errors, records

CHECKED_BYTES = 1 << 20  # what a start looks at, from the end
_TRIES_S = (0.00002, 0.00005, 0.0001, 0.0002, 0.0003)
_PROBE = 16384  # more than three of the longest lines


class ChatLog:
    """One process's own opening of the log."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        flags = os.O_RDWR if writable else os.O_RDONLY
        self.fd = os.open(path, flags | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.fd)

    def try_exclusive(self) -> bool:
        """Take LOCK_EX; False if somebody keeps the log locked for a millisecond."""
        return self._try(fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        """Take LOCK_SH, for one bounded read; False as try_exclusive()."""
        return self._try(fcntl.LOCK_SH)

    def unlock(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def _try(self, kind: int) -> bool:
        for pause_s in _TRIES_S:
            try:
                fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                # A worker of ours holds it for some tens of µs; another program,
                # for who knows how long, and must not hold up anybody's loop.
                time.sleep(pause_s)
        return False

    # --- under LOCK_EX ---

    def append(self, data: bytes, tail: int) -> None:
        """Write `data` behind `tail`.  After an OSError some of it may stand there."""
        done = 0
        while done < len(data):
            done += _write(self.fd, data[done:] if done else data, tail + done)

    def cut(self, tail: int) -> bool:
        """Make `tail` the end of the file again; whether anything stood behind it.

        Raises LogCorrupt if the file is shorter: somebody else cut what was published.
        """
        size = os.fstat(self.fd).st_size
        if size < tail:
            raise errors.LogCorrupt(f"room.log has {size} bytes, {tail} were published")
        if size > tail:
            os.ftruncate(self.fd, tail)
        return size > tail

    def sync(self) -> None:
        """Wait until everything written is on disk."""
        os.fdatasync(self.fd)

    # --- below the tail, where bytes never change: no lock needed ---

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def read_lines(self, offset: int, end: int, limit: int) -> bytes:
        """Whole lines from `offset`, at most `limit` bytes of them, none behind `end`."""
        data = os.pread(self.fd, min(end - offset, limit), offset)
        if data.endswith(b"\n"):
            return data
        return data[: data.rfind(b"\n") + 1]

    def offset_behind(self, seq: int, tail: int) -> int:
        """The offset at which line `seq` + 1 begins, or would.  O(log size)."""
        low, high = 0, tail  # both at the beginning of a line; the answer lies between
        while high - low > _PROBE:
            # Half of what is left is longer than any line, so one begins there.
            middle = (low + high) // 2
            data = os.pread(self.fd, _PROBE // 2, middle)
            begin = data.index(b"\n") + 1
            if _seq(data[begin:]) > seq:
                high = middle + begin
            else:
                low = middle + begin
        return self._scan(low, high, seq)

    def _scan(self, low: int, high: int, seq: int) -> int:
        while low < high:
            data = os.pread(self.fd, min(high - low, 1 << 16), low)
            for line in data.split(b"\n")[:-1]:
                if _seq(line) > seq:
                    return low
                low += len(line) + 1
        return low


def _seq(line: bytes) -> int:
    try:
        return int(line[: line.index(b"\t")])
    except ValueError as err:
        raise errors.LogCorrupt(f"room.log: no record: {line[:40]!r}") from err


def _write(fd: int, data: bytes, offset: int) -> int:
    """A seam: tests kill the process in the middle of it."""
    return os.pwrite(fd, data, offset)


def sync(path: Path) -> None:
    """Wait until a log is on disk, for who does not have it open.  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


# --- a cold start --------------------------------------------------------------------


class Recovered(NamedTuple):
    """What stands whole at the end of the log."""

    seq: int
    tail: int
    time_ms: int
    torn_bytes: int  # what was cut off and saved beside the log


def recover(path: Path) -> Recovered:
    """Find the head of a log that no process has open, and cut a torn tail.

    A write that was cut short by a crash leaves a beginning of something behind
    the last whole record, and nothing good after that.  Only this is repaired.
    Bad bytes *before* a good record are damage of another kind; raises
    LogCorrupt, and the log stays as it is.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        begin = max(0, size - CHECKED_BYTES)
        data = os.pread(fd, size - begin, begin)
        skipped = data.find(b"\n") + 1 if begin else 0
        last, good = _last_good(data[skipped:], begin + skipped, at_start=not begin)
        tail = begin + skipped + good
        if begin and last is None:
            raise errors.LogCorrupt(_complaint(path, tail))
        if tail < size:
            _save_torn(path, tail, data[tail - begin :])
            os.ftruncate(fd, tail)
            os.fsync(fd)
    finally:
        os.close(fd)
    if last is None:
        return Recovered(0, 0, 0, size)
    return Recovered(last.seq, tail, time_ms(last.time), size - tail)


def _last_good(
    data: bytes, offset: int, *, at_start: bool
) -> tuple[records.Record | None, int]:
    """(the last record before any damage, bytes up to its end).  LogCorrupt, see recover."""
    last, good = None, 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines[:-1]):
        record = _record(line)
        expected = last.seq + 1 if last else 1 if at_start else None
        if record is None or expected not in (None, record.seq):
            if any(_record(later) for later in lines[number if record else number + 1 : -1]):
                raise errors.LogCorrupt(_complaint(Path("room.log"), offset + good))
            break
        last, good = record, good + len(line) + 1
    return last, good


def _record(line: bytes) -> records.Record | None:
    with contextlib.suppress(ValueError):
        return records.parse(line)
    return None


def _complaint(path: Path, offset: int) -> str:
    return (
        f"{path.name} is damaged at byte {offset}, before good lines; nothing was "
        f"changed; `papaya-ctl salvage` writes its valid lines to a new log"
    )


def _save_torn(path: Path, tail: int, torn: bytes) -> None:
    with open(path.with_name(f"{path.name}.torn-{tail}"), "wb", opener=_private) as file:
        file.write(torn)
        file.flush()
        os.fsync(file.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def time_ms(stamp: str) -> int:
    """Milliseconds since the epoch of a record's time."""
    whole = calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))
    return whole * 1000 + int(stamp[20:23])
