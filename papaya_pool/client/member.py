"""One person in one room, over as many connections as it takes.  No I/O, no clock.

A connection is nothing here: what lasts is the position in the log (which log,
and the last seq that was shown) and the outbox.  Each connection begins with
`request()`, and each effect of its link is given to `take()`.

Order:   request(), Joined, Lines ..., and lost() at its end however it ended.
         unsent() is empty until Joined, and while the outbox is unsettled.
Failure: `Over` is the end of the program with its exit code; everything else
         leads to another connection, also a seq that is missing.
Not here: sockets, back-off in seconds that really pass (driver.py).
"""

from dataclasses import dataclass, replace

from papaya_pool import errors, records
from papaya_pool.client import link, outbox

PATIENCE_S = 60.0
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 15.0
# Connections that took our lines and closed, and none came back: a server that dies
# looks like that a few times, one that drops our lines looks like that for ever.
FRUITLESS_LIMIT = 30
AGAIN = frozenset({"full", "rate", "busy", "timeout", "closing"})
WORDS = {
    "auth": "wrong key",
    "name": "this name cannot be used",
    "banned": "banned from this room",
    "kicked": "kicked from this room",
    "version": "the server speaks another version",
}


@dataclass(frozen=True, slots=True)
class Up:
    """Joined; what was missed is on its way, up to `head`."""

    head: int


@dataclass(frozen=True, slots=True)
class Arrived:
    records: list[records.Record]


@dataclass(frozen=True, slots=True)
class Afresh:
    """The log is another one now: what was shown before does not belong to it."""

    text: str


@dataclass(frozen=True, slots=True)
class Warn:
    """Something that the person should read once."""

    text: str


@dataclass(frozen=True, slots=True)
class Down:
    """No connection; the next try comes in `delay_s`."""

    reason: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class Over:
    exit_code: int
    reason: str
    unsent: str = ""  # what a person must know of what they said

    @property
    def text(self) -> str:
        return self.reason + self.unsent


Event = Up | Arrived | Afresh | Warn | Down | Over


@dataclass(frozen=True, slots=True)
class Profile:
    """Who joins, and how."""

    name: str
    past: str  # "last=100", "since=7": asked for once, and again in another log
    token: str
    patience_s: float | None = PATIENCE_S  # None: never give up once joined
    classic: bool = False

    @property
    def text_limit(self) -> int:
        """Bytes of one line; in classic the name goes with it, and a NUL comes back."""
        if self.classic:
            return records.RENDER_LIMIT - len(self.name.encode()) - 2
        return records.LINE_LIMIT


class AnotherLog(ValueError):
    """What the server has now is not the log that our position belongs to."""


class Member:
    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.outbox = outbox.Outbox(profile.name, classic=profile.classic)
        self.given_up = 0  # lines that a classic server may have lost
        self.position = 0  # the last seq that was shown, or the one before the first
        self.head = 0
        self.ever_joined = False
        self.log: str | None = None  # which log `position` belongs to
        self._tokens = True  # until the server says that it knows no session=
        self._joined = self._begun = False
        self._attempts = 0
        self._fruitless = 0
        self._before = (0, 0)

    # --- before a connection ---------------------------------------------------------

    def request(self, nonce: str) -> str:
        """The first line of the next connection."""
        past = self.profile.past if self.log is None else f"since={self.position}"
        words = ["PAPAYA/2", self.profile.name, nonce, past]
        if self._tokens:
            words.append(f"session={self.profile.token}")
        return " ".join(words)

    # --- on a connection -------------------------------------------------------------

    def take(self, effect: link.Joined | link.Lines) -> list[Event]:
        """Raises ValueError if what came cannot be the next part of our log."""
        if isinstance(effect, link.Joined):
            return self._take_joined(effect)
        return self._take_lines(effect.lines)

    def unsent(self) -> bytes:
        return self.outbox.unsent(self.head) if self._joined else b""

    def _take_joined(self, joined: link.Joined) -> list[Event]:
        if self.log not in (None, joined.log):
            self._start_afresh()
            raise AnotherLog("the server has another log now: starting afresh")
        if self.log is None:
            self.position = first_position(self.profile.past, joined.head)
            self._begun = self.profile.past.startswith("since=")
        else:
            self._begun = True
        self.log, self.head = joined.log, joined.head
        self._joined = self.ever_joined = True
        self._attempts = 0
        if self.profile.classic:
            return [Up(joined.head), *self._give_up_sent()]
        self.outbox.joined(joined.taken)
        self._settle_at_head()
        return [Up(joined.head)]

    def _give_up_sent(self) -> list[Event]:
        """Classic has no way to ask what arrived, and twice is worse than a note."""
        count = self.outbox.give_up_sent()
        self.given_up += count
        return [Warn(f"{count_lines(count)} may not have arrived")] if count else []

    def _take_lines(self, lines: list[bytes]) -> list[Event]:
        fresh = []
        for line in lines:
            record = records.parse(line)
            if not self._begun:
                # The last N are counted a moment before or after `head` is read.
                self._begun, self.position = True, record.seq - 1
            if record.seq <= self.position:
                continue
            if record.seq != self.position + 1:
                raise ValueError(f"seq {record.seq} came after {self.position}")
            self.position = record.seq
            self.outbox.came(record)
            fresh.append(record)
        self._settle_at_head()
        return [Arrived(fresh)] if fresh else []

    def _settle_at_head(self) -> None:
        if self.position >= self.head:
            self.outbox.settle()

    def _start_afresh(self) -> None:
        self.log = None

    # --- after a connection ----------------------------------------------------------

    def refused(
        self, code: str, words: str, waited_s: float, roll: float
    ) -> list[Event]:
        """The server said no.  `waited_s` is how long there was no connection."""
        if code in AGAIN:
            reason = f"the server is not ready: {words or code}"
            return self.lost(reason, waited_s, roll)
        if code == "syntax" and self._tokens:
            self._tokens = False
            self._joined = False
            return [Down("the server knows no session=", 0.0)]
        if code == "since" and self.log is not None:
            self._start_afresh()
            self.profile = replace(self.profile, past="last=100")
            text = "the server's log is shorter now: starting afresh"
            return [Afresh(text), *self.lost(text, waited_s, roll)]
        reason = WORDS.get(code, "")
        said = words if words and words != reason else ""
        text = "refused: " + (" - ".join(filter(None, [reason, said])) or code)
        return [Over(errors.EX_NOPERM, text, self.unsent_words())]

    def lost(self, reason: str, waited_s: float, roll: float) -> list[Event]:
        """The connection is gone, or did not come to be; `roll` is in 0..1."""
        self._joined = False
        patience = self.profile.patience_s
        if not self.ever_joined:
            patience = PATIENCE_S if patience is None else patience
        if patience is not None and waited_s >= patience:
            return [Over(errors.EX_UNAVAILABLE, reason, self.unsent_words())]
        delay = backoff(self._attempts, roll)
        if patience is not None:
            delay = min(delay, max(patience - waited_s, 0.0))
        self._attempts += 1
        return [Down(reason, delay)]

    def drained(self) -> bool:
        """The server closed after our half-close: is everything dealt with, and seen?

        `taken` can say that a line is in the log before it has come back; then it is
        at or below `head`.
        """
        dealt_with = self.outbox.pending_count == 0 and self.outbox.settled
        return dealt_with and self.position >= self.head

    def leaving(self) -> Over:
        """Everything was dealt with."""
        if self.given_up:
            text = f"{count_lines(self.given_up)} may not have arrived"
            return Over(errors.EX_UNAVAILABLE, text)
        return Over(errors.EX_OK, "")

    def not_back(self) -> Over:
        text = f"{count_lines(self.outbox.pending_count)} did not come back"
        return Over(errors.EX_UNAVAILABLE, text)

    def fruitless(self) -> Over | None:
        """It was not drained: an Over if that keeps happening without progress."""
        now = (self.outbox.pending_count, self.position)
        self._fruitless = self._fruitless + 1 if now == self._before else 1
        self._before = now
        return None if self._fruitless < FRUITLESS_LIMIT else self.not_back()

    def over_again(self, over: Over) -> Over:
        """The same end, after more was found that was not sent."""
        return replace(over, unsent=self.unsent_words())

    def unsent_words(self) -> str:
        """What a person must know who is told that it is over."""
        pending = self.outbox.pending_count
        if not pending:
            return ""
        return f"; {count_lines(pending)} {'was' if pending == 1 else 'were'} not sent"


def count_lines(count: int) -> str:
    return f"{count} line{'' if count == 1 else 's'}"


def first_position(past: str, head: int) -> int:
    """The seq before the first that the server will send."""
    kind, _, number = past.partition("=")
    if kind == "since":
        return int(number)
    return max(head - int(number or 100), 0)


def backoff(attempts: int, roll: float) -> float:
    """Seconds to wait: doubling, and spread, or a whole room comes back at once."""
    longest = min(FIRST_DELAY_S * (1 << min(attempts, 10)), LONGEST_DELAY_S)
    return longest * (0.5 + roll / 2)
