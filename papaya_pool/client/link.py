"""One connection as a client sees it: bytes in, effects out, no I/O.

The thing to get right: nothing but our half of the login leaves before the
server has proved that it knows the key.  `Send` effects come out of this room
only during the login; what a member says is the caller's to send after `Joined`.

Order:   GREETING --server's line--> PROOF --OK--> LIVE --end of file--> OVER;
         ERR or nonsense in any state leads to OVER.  The table is `_ON_LINE`.
Failure: `Refused` carries the server's code; `Broken` says what was wrong with
         the connection.  Both are last words: later bytes are ignored.
Not here: which line to begin with (member.py), sockets (dial.py).
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass

LOGIN_LIMIT = 512
STREAM_LIMIT = 8192  # longer than the longest line of a log: this is no log
NO_POOL = "what answers there is no papaya-pool"
UNPROVEN_WORDS = "the server could not prove that it knows the key"
UNPROVEN = "unproven"  # our own code, beside the server's: it failed its proof

GREETING, PROOF, LIVE, OVER = "greeting", "proof", "live", "over"

_GREETING = re.compile(rb"PAPAYA/2 [0-9a-f]{32}")
_OK = re.compile(
    rb"OK ([0-9a-f]{64}) head=([0-9]{1,19}) log=([0-9a-f]{16})"
    rb"(?: taken=([0-9]+|\?))?(?: .*)?"
)
_ERR = re.compile(rb"ERR ([a-z-]{1,32})(?: (.*))?")


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Joined:
    head: int
    log: str
    taken: int | None  # None: the server does not know this token, or no tokens


@dataclass(frozen=True, slots=True)
class Lines:
    lines: list[bytes]


@dataclass(frozen=True, slots=True)
class Refused:
    code: str
    words: str


@dataclass(frozen=True, slots=True)
class Broken:
    reason: str
    hopeless: bool = False  # whoever answers there is no papaya-pool


Effect = Send | Joined | Lines | Refused | Broken


def secret(key: str) -> bytes:
    """K of the wire: what both proofs are made with."""
    return hashlib.sha256(key.encode()).hexdigest().encode()


def proof(key: bytes, who: str, lines: list[bytes]) -> bytes:
    """The hex of one half's HMAC over the login lines that both have seen."""
    signed = b"papaya/2 %b\n%b\n" % (who.encode(), b"\n".join(lines))
    return hmac.new(key, signed, hashlib.sha256).hexdigest().encode()


class Link:
    """The native dialect.  `certificate` is the server's, in DER, under TLS."""

    def __init__(
        self, key: bytes, request: str, certificate: bytes | None = None
    ) -> None:
        self.state = GREETING
        self._key = key
        self._signed = [request.encode()]
        self._certificate = certificate
        self._piece = b""
        self._on_line: dict[str, Callable[[bytes], list[Effect]]] = {
            GREETING: self._greeted,
            PROOF: self._proven,
        }

    def begin(self) -> list[Effect]:
        return [Send(self._signed[0] + b"\n")]

    def receive(self, data: bytes) -> list[Effect]:
        effects: list[Effect] = []
        self._piece += data
        while self.state in self._on_line and b"\n" in self._piece:
            line, _, self._piece = self._piece.partition(b"\n")
            effects += self._login_line(line.removesuffix(b"\r"))
        if self.state == LIVE:
            effects += self._live()
        elif self.state != OVER and len(self._piece) > LOGIN_LIMIT:
            effects += self._break(NO_POOL, hopeless=True)
        return effects

    def receive_end(self) -> list[Effect]:
        """The other side has closed.  After our own half-close that is no fault."""
        if self.state == OVER:
            return []
        if self.state == LIVE:
            return self._break("the server closed the connection")
        return self._break("the connection closed during the login")

    def _login_line(self, line: bytes) -> list[Effect]:
        if line.startswith(b"ERR "):
            return self._refuse(line)
        return self._on_line[self.state](line)

    def _greeted(self, line: bytes) -> list[Effect]:
        if not _GREETING.fullmatch(line):
            return self._break(NO_POOL, hopeless=True)
        self._signed.append(line)
        if self._certificate is not None:
            digest = hashlib.sha256(self._certificate).hexdigest()
            self._signed.append(b"server-cert-sha256 %b" % digest.encode())
        self.state = PROOF
        return [Send(proof(self._key, "client", self._signed) + b"\n")]

    def _proven(self, line: bytes) -> list[Effect]:
        found = _OK.fullmatch(line)
        if not found:
            return self._break("the server's answer to the login makes no sense")
        theirs, head, log, taken = found.groups()
        ours = proof(self._key, "server", self._signed)
        if not hmac.compare_digest(theirs, ours):
            self.state = OVER
            return [Refused(UNPROVEN, UNPROVEN_WORDS)]
        self.state = LIVE
        count = None if taken in (None, b"?") else int(taken)
        return [Joined(int(head), log.decode(), count)]

    def _live(self) -> list[Effect]:
        whole, newline, self._piece = self._piece.rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        # Law 7: ERR only as the very last bytes, and no log line begins like it.
        last = lines.pop() if lines and lines[-1].startswith(b"ERR ") else None
        effects: list[Effect] = [Lines(lines)] if lines else []
        if last is not None:
            effects += self._refuse(last)
        elif len(self._piece) > STREAM_LIMIT:
            effects += self._break("the server sends what is no log")
        return effects

    def _refuse(self, line: bytes) -> list[Effect]:
        self.state = OVER
        found = _ERR.fullmatch(line)
        if not found:
            return [Broken("the server's answer makes no sense")]
        code, words = found.groups()
        return [Refused(code.decode(), (words or b"").decode("utf-8", "replace"))]

    def _break(self, reason: str, *, hopeless: bool = False) -> list[Effect]:
        self.state = OVER
        return [Broken(reason, hopeless)]
