"""Answers to questions: who is here, and what was said (PAPAYA/2-WHO, PAPAYA/2-LOG).

On a connection of its own, so that a live stream stays nothing but the log.  An
answer ends with `END <count>`; without it, it is not whole.

Owner:   the acceptor, which turns it by send() whenever its socket has room.
Failure: who does not read is sent away by the acceptor's clock.
"""

import os
from dataclasses import dataclass

from papaya_pool import chatlog, records
from papaya_pool import scoreboard as sb

_AT_ONCE_BYTES = 1 << 18


@dataclass(slots=True)
class Answer:
    """What is still to be sent: `text`, then the log from `offset` to `end`, then `after`."""

    text: bytes
    offset: int
    end: int
    after: bytes

    def send(self, fd: int, log: chatlog.ChatLog) -> bool:
        """Send what fits; whether that was all.  Raises OSError."""
        if self.text:
            self.text = self.text[os.write(fd, self.text) :]
        elif self.offset < self.end:
            size = min(self.end - self.offset, _AT_ONCE_BYTES)
            self.offset += os.sendfile(fd, log.fd, self.offset, size)
        else:
            self.after = self.after[os.write(fd, self.after) :]
        return not (self.text or self.offset < self.end or self.after)


def who(ok: bytes, board: sb.Scoreboard) -> Answer:
    """A line a session: name, dialect, since when."""
    lines = [
        b"%b\t%b\t%b\n"
        % (
            slot.name.encode() or records.ANONYMOUS,
            sb.DIALECTS[slot.dialect].encode(),
            records.stamp(slot.since_ms),
        )
        for slot in board.sessions()
        if slot.state == sb.LIVE
    ]
    return Answer(ok + b"".join(lines), 0, 0, b"END %d\n" % len(lines))


def said(
    ok: bytes, head: sb.Head, log: chatlog.ChatLog, first: int, to: int
) -> Answer:
    """The log's lines from seq `first` to `to`, both included.  Raises LogCorrupt."""
    first, to = max(1, first), min(to, head.seq)
    if first > to:
        return Answer(ok, 0, 0, b"END 0\n")
    begin = log.offset_behind(first - 1, head.tail)
    end = log.offset_behind(to, head.tail)
    return Answer(ok, begin, end, b"END %d\n" % (to - first + 1))
