"""What was said and is not yet known to be in the log.

A line comes back as a message of ours with the same text.  That is evidence,
not proof: another client may use our name and say the same.  `taken=` of a
later login is proof, so lines stay here for a while after they came back, and
the proof wins over the evidence.

Format:  lines are numbered as the server counts them under our token: the
         first of `_lines` is number `_base`.  Left to right they are seen,
         then sent, then not yet sent on this connection.
Order:   joined() first on each connection; only then unsent().
Not here: empty or too long lines.  The caller keeps them away, otherwise the
         server's count and ours would still agree, but nothing would come back.
"""

import re
from dataclasses import dataclass

from papaya_pool import records

NEVER = 1 << 63  # above every seq: a line that was not sent cannot have come back
KEEP = 1000  # lines kept after they came back, should `taken` know better

_REMOVED = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def sayable(raw: bytes) -> bytes:
    """The text as the server will store it, so that it comes back as it was sent."""
    return _REMOVED.sub("", raw.decode("utf-8", "replace")).encode()


@dataclass(slots=True)
class _Line:
    text: bytes
    floor: int = NEVER  # the head when it was sent: it comes back with a later seq


class Outbox:
    def __init__(self, name: str, *, classic: bool = False) -> None:
        self._name = records.folded(name)
        self._prefix = name.encode() + b": " if classic else b""
        # A classic server can lose a line; the next ones come back all the same.
        self._in_order = not classic
        self._lines: list[_Line] = []
        self._base = 0
        self._seen = 0
        self._sent = 0
        self._ever_sent = False
        self._unsettled = False  # lines were sent, and the server has forgotten

    @property
    def pending(self) -> list[str]:
        """What was said and has not come back, in order."""
        return [line.text.decode() for line in self._lines[self._seen :]]

    @property
    def pending_count(self) -> int:
        return len(self._lines) - self._seen

    @property
    def all_sent(self) -> bool:
        """On this connection, so far as they have to be."""
        return self._sent == len(self._lines)

    @property
    def settled(self) -> bool:
        return not self._unsettled

    def say(self, text: bytes) -> None:
        self._lines.append(_Line(text))

    def joined(self, taken: int | None) -> None:
        """A connection is there; `taken` lines of our token were dealt with."""
        if self._unsettled or (taken is None and self._ever_sent):
            # A token that is new to the server counts from 0, also if we were cut
            # off again before anything was sent under it.
            self._unsettled = True
            self._sent = len(self._lines)
        elif taken is not None:
            dealt_with = min(max(taken - self._base, 0), len(self._lines))
            self._seen = self._sent = dealt_with

    def give_up_sent(self) -> int:
        """Count what was sent and did not come back as dealt with, somehow."""
        count = self._sent - self._seen
        self._seen = self._sent
        return count

    def settle(self) -> None:
        """The log has been read up to the head: what is not seen is not in it."""
        if self._unsettled:
            self._unsettled = False
            self._sent = self._seen
            self._base = -self._seen

    def unsent(self, head: int, size_bytes: int = 1 << 16) -> bytes:
        """The next lines to send, now taken to be sent."""
        if self._unsettled:
            return b""
        begin, room = self._sent, size_bytes
        while self._sent < len(self._lines) and room > 0:
            line = self._lines[self._sent]
            line.floor = head
            room -= len(line.text) + 1
            self._sent += 1
        self._ever_sent = self._ever_sent or self._sent > begin
        lines = self._lines[begin : self._sent]
        return b"".join(self._prefix + line.text + b"\n" for line in lines)

    def came(self, record: records.Record) -> bool:
        """A message has arrived: is it the next of our own?"""
        if self._seen == self._sent or records.folded(record.name) != self._name:
            return False
        text = record.text.encode()
        end = self._seen + 1 if self._in_order else self._sent
        for at in range(self._seen, end):
            line = self._lines[at]
            if record.seq > line.floor and text == line.text:
                break
        else:
            return False
        self._lines.insert(self._seen, self._lines.pop(at))
        self._seen += 1
        if self._seen > 2 * KEEP:
            self._forget(KEEP)
        return True

    def _forget(self, count: int) -> None:
        del self._lines[:count]
        self._base += count
        self._seen -= count
        self._sent -= count
