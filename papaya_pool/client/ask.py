"""One question (who is here, what was said) on a connection of its own.

So a live stream stays nothing but the log, and an answer that was cut short is
known by its missing END.  A server that answers no questions (`ERR syntax`) can
still be asked what was said, by joining for a moment (`by_joining`).

Owner:   whoever made the Ask turns it by handle() and tick() until `done`, which
         has closed its wire; close() ends it early.
"""

import secrets
import selectors
from dataclasses import dataclass

from papaya_pool import records
from papaya_pool.client import dial, link
from papaya_pool.client.driver import Target

DEADLINE_S = 15.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """`who`, or the messages from `first` to `last`."""

    first: int = 0
    last: int = 0
    log: str | None = None  # which log is meant; another one has other messages

    def request(self, name: str, nonce: str, *, by_joining: bool) -> str:
        if by_joining:
            return f"PAPAYA/2 {name} {nonce} since={self.first - 1}"
        if self.last:
            return f"PAPAYA/2-LOG {name} {nonce} from={self.first} to={self.last}"
        return f"PAPAYA/2-WHO {name} {nonce}"


class Ask:
    def __init__(
        self,
        selector: selectors.BaseSelector,
        target: Target,
        name: str,
        wanted: Wanted,
        now: float,
        *,
        tls: bool = False,
        by_joining: bool = False,
    ) -> None:
        self.wanted = wanted
        self.done = False
        self.failed = ""  # why, once done without an answer
        self.lines: list[bytes] = []
        self.unanswered = False  # the server does not know such questions
        self.deadline = now + DEADLINE_S
        self._selector, self._by_joining = selector, by_joining
        self._key = link.secret(target.key)
        nonce = secrets.token_hex(16)
        self._request = wanted.request(name, nonce, by_joining=by_joining)
        self._link: link.Link | None = None
        self._watched: object | None = None
        self._wire: dial.Wire | None = None
        try:
            self._wire = dial.Wire(target.host, target.port, tls=tls)
        except OSError as err:
            self._finish(err.strerror or str(err))
        self._watch()

    def records(self) -> list[records.Record]:
        """The answer to what was said.  Raises ValueError if it is no log."""
        return [records.parse(line) for line in self.lines]

    def names(self) -> list[str]:
        """The answer to who is here, a name once for each of its sessions."""
        return [line.split(b"\t")[0].decode("utf-8", "replace") for line in self.lines]

    def close(self) -> None:
        if self._watched is not None:
            self._selector.unregister(self._watched)  # type: ignore[arg-type]
            self._watched = None
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self.done = True

    def tick(self, now: float) -> None:
        if not self.done and now >= self.deadline:
            self._finish("the server does not answer")

    def handle(self, mask: int) -> None:
        if self._wire is None:
            return
        try:
            self._turn(self._wire, mask)
        except OSError as err:
            self._finish(err.strerror or str(err))
        self._watch()

    def _turn(self, wire: dial.Wire, mask: int) -> None:
        data = wire.handle(mask)
        if self._link is None:
            if wire.state == dial.READY:
                self._link = link.Link(self._key, self._request, wire.certificate)
                self._perform(self._link.begin())
            elif data == b"":
                self._finish("the server closed the connection")
            return
        if data is not None:
            effects = self._link.receive(data) if data else self._link.receive_end()
            self._perform(effects)

    def _perform(self, effects: list[link.Effect]) -> None:
        for effect in effects:
            match effect:
                case link.Send(data):
                    if self._wire is not None:
                        self._wire.send(data)
                case link.Joined(_, log, _) if self.wanted.log not in (None, log):
                    self._finish("the server has another log now")
                case link.Lines(lines):
                    self._take(lines)
                case link.Refused(code, words):
                    self.unanswered = code == "syntax" and not self._by_joining
                    self._finish(words or code)
                case link.Broken(reason):
                    self._finish(reason)
            if self.done:
                return

    def _take(self, lines: list[bytes]) -> None:
        if not self._by_joining and lines[-1].startswith(b"END "):
            count = lines.pop()[4:]
            self.lines += lines
            whole = count == b"%d" % len(self.lines)
            self._finish("" if whole else "the answer is not whole")
            return
        self.lines += lines
        size = self.wanted.last - self.wanted.first + 1
        if self._by_joining and len(self.lines) >= size:
            del self.lines[size:]
            self._finish("")

    def _finish(self, failed: str) -> None:
        self.failed = failed
        if failed:
            self.lines.clear()
        self.close()

    def _watch(self) -> None:
        if self._wire is None:
            return
        sock, wants = self._wire.sock, self._wire.interest()
        if self._watched is sock:
            self._selector.modify(sock, wants, self)
            return
        if self._watched is not None:
            self._selector.unregister(self._watched)  # type: ignore[arg-type]
        self._selector.register(sock, wants, self)
        self._watched = sock
