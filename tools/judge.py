"""Whether every member got the log and the log got everything that members sent.

The independent half of tools/chaos: it reads room.log and what came out of the
sockets, and shares no code with papaya_pool.  It judges while the pool runs, and
that works because of one promise (law 2): what any member has received is
published, so those bytes of the file never change again.  Hence it reads the log
only as far as somebody has received it; beyond that, a dead worker's unfinished
append may stand there and be cut off later.

Order:   Log.read_to() before anything is compared with what it read.
Failure: a fault is counted under one of FAULTS with its first example in words; a
         stream is judged up to its first fault, because everything behind that
         is wrong as well.
"""

import os
import re
import tempfile
from array import array
from collections import Counter

FAULTS = ("lost", "doubled", "torn", "out of order")
RENDERED_LIMIT = 4095  # bytes of a classic line; its terminator is one more
_EXAMPLES = 4  # of a kind
_NEARBY = 1 << 16  # where a wrong line is looked for
_LINE = re.compile(
    rb"([1-9][0-9]*)\t(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)\t([^\t\n]+)\t([^\n]+)"
)
_FILLER = ("The quick brown papaya jumps over the lazy pool; ñandú, 木瓜, €. " * 80).encode()


def said(member, count, seed=0):
    """The text of a member's message number `count`: any size, and never the same."""
    mix = (member * 2654435761 + count * 40503 + seed * 97) & 0xFFFFFFFF
    mix = (mix ^ mix >> 15) * 0x2C1B3C6D & 0xFFFFFFFF
    kind = mix >> 24
    size = 24 + mix % 160
    if kind == 0:
        size = 4000 + mix % 80  # near the limit
    elif kind < 6:
        size = 200 + mix % 1800
    head = b"%d %d " % (member, count)
    return head + _FILLER[len(head) : size].decode("utf-8", "ignore").encode() + b"!"


class Log:
    """room.log as somebody from outside reads it."""

    def __init__(self, path, faults, seed=0):
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._copy = tempfile.TemporaryFile(dir=os.path.dirname(path))
        self._faults, self._seed = faults, seed
        self.offset = self.rendered = 0  # read up to here; and what classic makes of it
        self.ends = array("Q", [0])  # by seq: the offset behind that line
        self.rendered_ends = array("Q", [0])
        self.next = Counter()  # by member: the count of its next message
        self._missing = {}  # by member: counts that were jumped over
        self._when = b""
        self.long_runs = 0

    def close(self):
        os.close(self._fd)
        self._copy.close()

    @property
    def seq(self):
        return len(self.ends) - 1

    def size(self):
        return os.fstat(self._fd).st_size

    def bytes_at(self, offset, size):
        return os.pread(self._fd, size, offset)

    def rendered_at(self, offset, size):
        return os.pread(self._copy.fileno(), size, offset)

    def read_to(self, offset):
        """Judge the lines up to `offset`, which somebody has received."""
        while self.offset < offset:
            data = os.pread(self._fd, min(offset - self.offset, 1 << 20), self.offset)
            whole = data.rfind(b"\n") + 1
            if not whole:
                return  # the offset lies within a line
            self._judge(data[:whole])

    def read_to_seq(self, seq):
        """The same, but up to a message that somebody was told is there."""
        while self.seq < seq and self._read_one():
            pass

    def read_to_rendered(self, size):
        """The same, but what was received is so many bytes of the rendering."""
        while self.rendered < size and self._read_one():
            pass

    def _read_one(self):
        line, _, more = os.pread(self._fd, 8192, self.offset).partition(b"\n")
        if not _:
            return False
        self._judge(line + b"\n")
        return True

    def _judge(self, data):
        out = []
        for line in data.split(b"\n")[:-1]:
            self.offset += len(line) + 1
            self.ends.append(self.offset)
            found = _LINE.fullmatch(line)
            if not found:
                self._faults.add("torn", f"line {self.seq} of the log is {line[:100]!r}")
                rendering = line[:RENDERED_LIMIT]
            else:
                seq, when, name, text = found.groups()
                if int(seq) != self.seq:
                    self._faults.add("torn", f"line {self.seq} of the log has seq {seq}")
                if when < self._when:
                    self._faults.add("out of order", f"time runs back at seq {seq}")
                self._when = when
                self._attribute(name, text)
                rendering = _cut(name + b": " + text)
            self.rendered += len(rendering) + 1
            self.rendered_ends.append(self.rendered)
            out.append(rendering)
        out.append(b"")
        os.write(self._copy.fileno(), b"\n".join(out))

    def _attribute(self, name, text):
        member, count = _whose(text)
        if name != b"m%d" % member or text != said(member, count, self._seed):
            self._faults.add("torn", f"seq {self.seq} says {name!r} {text[:100]!r}")
            return
        expected = self.next[member]
        if count == expected:
            self.next[member] = count + 1
        elif count > expected:
            self._missing.setdefault(member, set()).update(range(expected, count))
            self.next[member] = count + 1
        elif count in self._missing.get(member, ()):
            self._missing[member].discard(count)
            self._faults.add("out of order", f"seq {self.seq} is m{member}'s {count}")
        else:
            self._faults.add("doubled", f"seq {self.seq} is m{member}'s {count} again")

    def judge_sent(self, member, count):
        """At the end: whether all of a member's `count` lines are in the log."""
        lost = self._missing.get(member, set()) | set(range(self.next[member], count))
        if lost:
            first, last = min(lost), max(lost)
            words = f"m{member} sent {count} lines, not in the log: {first} to {last}"
            self._faults.add("lost", words, len(lost))
        if self.next[member] > count:
            extra = self.next[member] - count
            self._faults.add("doubled", f"m{member} sent {count}, {extra} more came")


def _cut(line):
    if len(line) <= RENDERED_LIMIT:
        return line
    return line[:RENDERED_LIMIT].decode("utf-8", "ignore").encode()


def _whose(text):
    words = text.split(b" ", 2)
    if len(words) == 3 and words[0].isdigit() and words[1].isdigit():
        return int(words[0]), int(words[1])
    return -1, -1


class Faults:
    """What was wrong: how often, and the first examples in words."""

    def __init__(self):
        self.count, self._shown = Counter(), Counter()
        self.examples = []

    def add(self, kind, words, times=1):
        self.count[kind] += times
        self._shown[kind] += 1
        if self._shown[kind] <= _EXAMPLES:
            self.examples.append(f"{kind}: {words}")


class NativeStream:
    """What one native member received: the log's own bytes from its start on."""

    def __init__(self, log, faults, who, since):
        log.read_to_seq(since)
        self._log, self._faults, self._who = log, faults, who
        self.at = log.ends[min(since, log.seq)]  # how far it has the log
        self.deliveries, self.broken = 0, False

    def feed(self, data):
        if self.broken:
            return
        expected = self._log.bytes_at(self.at, len(data))
        if expected != data:
            self.broken = True
            _explain(self._faults, self._who, data, expected, self.at, self._log.bytes_at)
            return
        self.at += len(data)
        self.deliveries += data.count(b"\n")
        self._log.read_to(self.at)

    def lacks(self):
        """Bytes of the log that it does not have."""
        return self._log.size() - self.at


class ClassicStream:
    """What one classic member received: rendered lines, some ended with NUL."""

    def __init__(self, log, faults, who, seq_before):
        self._log, self._faults, self._who = log, faults, who
        self._seq_before = seq_before  # the log's last seq before it logged in
        self._opening = b""
        self.at = None  # how far it has the rendering; None before its first line
        self.deliveries, self.broken = 0, False
        self._since_nul = None  # the history has none

    def feed(self, data):
        if self.broken:
            return
        self._measure(data)
        data = data.replace(b"\0", b"\n")
        if self.at is None:
            data = self._opening = self._opening + data
            if b"\n" not in data:
                return
            self.at = self._begin(data[: data.index(b"\n") + 1])
            if self.at is None:
                self.broken = True
                self._faults.add("torn", f"{self._who} begins with {data[:100]!r}")
                return
        self._log.read_to_rendered(self.at + len(data))
        expected = self._log.rendered_at(self.at, len(data))
        if expected != data:
            self.broken = True
            _explain(
                self._faults, self._who, data, expected, self.at, self._log.rendered_at
            )
            return
        self.at += len(data)
        self.deliveries += data.count(b"\n")

    def _begin(self, line):
        """Where the stream starts: at most seven lines before it logged in, or later."""
        seq = max(0, self._seq_before - 7)
        while True:
            self._log.read_to_seq(seq + 1)
            if seq >= self._log.seq:
                return None
            at = self._log.rendered_ends[seq]
            if self._log.rendered_at(at, len(line)) == line:
                return at
            seq += 1

    def _measure(self, data):
        """The original client prints up to a NUL and reads 4096 bytes at a time."""
        first, *runs = data.split(b"\0")
        if self._since_nul is not None:
            self._since_nul += len(first)
        for run in runs:
            self._log.long_runs += (self._since_nul or 0) > RENDERED_LIMIT
            self._since_nul = len(run)

    def lacks(self):
        return self._log.rendered - self.at if self.at is not None else -1


def _explain(faults, who, data, expected, at, read):
    """Name the first difference between what came at `at` and what should have.

    `read` reads the right stream; where in it the first wrong line stands, if it
    does, tells what happened.
    """
    same = next(
        (n for n, (a, b) in enumerate(zip(data, expected, strict=False)) if a != b),
        min(len(data), len(expected)),
    )
    first_at = max(0, at - _NEARBY)
    nearby = read(first_at, 2 * _NEARBY + len(data))
    came = nearby[: at - first_at] + data  # all that came lately
    wrong = at - first_at + same
    begin = came.rfind(b"\n", 0, wrong) + 1
    line = came[begin : came.find(b"\n", wrong) + 1]
    found = (b"\n" + nearby).find(b"\n" + line) if line else -1
    if not nearby[wrong:]:
        kind = "doubled"  # more than there is
    else:
        kind = "torn" if found < 0 else "doubled" if found < begin else "lost"
    wanted = nearby[begin : begin + 120]
    faults.add(kind, f"{who} got {came[begin : begin + 120]!r} and not {wanted!r}")
