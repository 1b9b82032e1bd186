"""What can be asked of a log without a pool: print, verify, salvage.

Owner:   nobody's: it reads.  Salvage writes a new file, never the log itself.
Failure: damage is said with its byte offset; nothing is guessed.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from papaya_pool import records


class Verdict(NamedTuple):
    """What a whole log came to."""

    records: int
    size_bytes: int
    bad_at: int | None  # offset of the first line that is no record, or out of order
    torn_bytes: int  # behind the last whole line


class Salvaged(NamedTuple):
    """What was saved, and what was not."""

    records: int
    dropped_lines: int
    path: Path


def verify(path: Path) -> Verdict:
    """Read every line.  Raises OSError."""
    seq = offset = 0
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return Verdict(seq, offset, None, len(line))
            try:
                record = records.parse(line)
            except ValueError:
                return Verdict(seq, offset, offset, 0)
            if record.seq != seq + 1:
                return Verdict(seq, offset, offset, 0)
            seq, offset = record.seq, offset + len(line)
    return Verdict(seq, offset, None, 0)


def salvage(path: Path) -> Salvaged:
    """Write the valid lines, numbered anew from 1, to a file beside the log.

    Raises OSError, FileExistsError among them: an earlier salvage is not replaced.
    """
    to = path.with_name(path.name + ".salvaged")
    seq = dropped = 0
    fd = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(path, "rb") as damaged, open(fd, "wb") as whole:
        for line in damaged:
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("torn")
                records.parse(line)
            except ValueError:
                dropped += 1
                continue
            seq += 1
            whole.write(b"%d\t%b" % (seq, line.partition(b"\t")[2]))
        whole.flush()
        os.fsync(whole.fileno())
    return Salvaged(seq, dropped, to)


def lines(path: Path, first: int, last: int | None, text: str) -> Iterator[bytes]:
    """Lines with seq `first` to `last` that contain `text`.  Raises OSError."""
    wanted = text.encode()
    with open(path, "rb") as file:
        for line in file:
            seq = int(line.partition(b"\t")[0] or b"0") if line[:1].isdigit() else 0
            if last is not None and seq > last:
                return
            if seq >= first and line.endswith(b"\n") and wanted in line:
                yield line
