"""The classic dialect: what the original papayaChat speaks, as a link.

It has no seq, no time and no answer to the login, so this room makes them up: it
counts what comes, and turns each line into the line that a native server would
have sent.  Who reads on from there knows no difference but three: nothing older
than the last seven messages can be had, a line that was cut off on its way is
given up instead of sent twice, and the key goes over the wire in clear.

Format:  128 digits of key, no newline; then `name: text` both ways.  A newline
         that the server ends a send with comes as a NUL.
Failure: a wrong key is a close without words, and so a guess.
"""

from collections import deque
from collections.abc import Callable

from papaya_pool import records
from papaya_pool.client import link

LOG = "classic"
SHOWN_AGAIN = 7  # messages that the server sends to whoever comes
SILENCE = "the server closed without a word: a wrong key, or it is not papayaChat"


class Past:
    """What lasts from one connection to the next."""

    def __init__(self, stamp: Callable[[], bytes]) -> None:
        self.stamp = stamp
        self.seq = 0
        self.recent: deque[bytes] = deque(maxlen=SHOWN_AGAIN)


class ClassicLink:
    def __init__(self, key: str, past: Past) -> None:
        self.state = link.GREETING
        self._key, self._past = key.encode(), past
        self._piece = b""
        self._heard = False
        # What we have already, if the server begins with it: its first line may
        # be any of ours, so each of them begins a candidate.
        recent = list(past.recent)
        self._candidates = [recent[n:] for n in range(len(recent))]

    def begin(self) -> list[link.Effect]:
        """The key, and what we may do at once: there is no answer to wait for."""
        self.state = link.LIVE
        return [link.Send(self._key), link.Joined(self._past.seq, LOG, None)]

    def receive(self, data: bytes) -> list[link.Effect]:
        if self.state != link.LIVE:
            return []
        self._piece += data.replace(b"\0", b"\n")
        whole, newline, self._piece = self._piece.rpartition(b"\n")
        lines = [line for line in whole.split(b"\n") if line] if newline else []
        if lines and not self._heard and lines[0].startswith(b"ERR "):
            self.state = link.OVER
            code, _, words = lines[0][4:].decode("utf-8", "replace").partition(" ")
            return [link.Refused(code, words)]
        self._heard = self._heard or bool(lines)
        fresh = [self._stored(line) for line in lines if not self._is_known(line)]
        return [link.Lines(fresh)] if fresh else []

    def receive_end(self) -> list[link.Effect]:
        if self.state == link.OVER:
            return []
        self.state = link.OVER
        if not self._heard and not self._past.seq:
            return [link.Refused("auth", SILENCE)]
        return [link.Broken("the server closed the connection")]

    def _is_known(self, line: bytes) -> bool:
        """Whether this is one of the last seven that we were sent before."""
        self._candidates = [c[1:] for c in self._candidates if c and c[0] == line]
        return bool(self._candidates)

    def _stored(self, line: bytes) -> bytes:
        self._past.seq += 1
        self._past.recent.append(line)
        shown = line.translate(None, _CONTROLS).decode("utf-8", "replace")
        name, colon, text = shown.partition(": ")
        if not colon or not text or not records.is_name(name):
            name, text = records.ANONYMOUS.decode(), shown or " "
        parts = (self._past.stamp(), name.encode(), text.encode())
        return b"%d\t%b\t%b\t%b" % (self._past.seq, *parts)


_CONTROLS = bytes(c for c in range(32) if c != 9) + b"\x7f"
