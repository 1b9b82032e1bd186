"""Member, link and wire on one selector: what a mode (pipes, screen) turns by hand.

There is no loop in here, and no clock but for the classic dialect's messages, which
have no time of their own.  The mode sleeps in its selector for
`timeout(now)`, and calls `handle()` when the wire's key is ready and `tick()`
always.  Between these calls nothing is due, so an idle client does not wake up.

Order:   start(), then handle() and tick(); every one returns events, and after
         an `Over` there are no more.
Failure: a connection's faults become `Down` or `Over`; nothing raises.
"""

import secrets
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from papaya_pool import errors, records, settings
from papaya_pool.client import classic, dial, link, member

LOGIN_DEADLINE_S = 10.0
CLASSIC_PAST_S = 2.0  # to hear the last messages from a server that says no end
BACKLOG_LIMIT = 1 << 18  # bytes for the wire that the kernel did not take yet
SYSTEM = secrets.SystemRandom()


@dataclass(frozen=True, slots=True)
class Target:
    """Which server, and how to speak to it."""

    host: str
    port: int
    key: str = field(repr=False)
    plain: bool = False  # never TLS

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Driver:
    def __init__(
        self,
        selector: selectors.BaseSelector,
        target: Target,
        who: member.Member,
        roll: Callable[[], float] = SYSTEM.random,
    ) -> None:
        self.target, self.member = target, who
        self._selector, self._roll = selector, roll
        self._key = link.secret(target.key)
        self.tls = not (target.plain or settings.is_loopback(target.host))
        self._wire: dial.Wire | None = None
        self._watched: object | None = None
        self._link: link.Link | classic.ClassicLink | None = None
        self._past = classic.Past(lambda: records.stamp(time.time_ns() // 10**6))
        self._next_try: float | None = None
        self._deadline: float | None = None
        self._lost_at: float | None = None
        self._input_ended = self._said_any = False
        self._give_up_at: float | None = None
        self._over = False

    @property
    def joined(self) -> bool:
        return self._link is not None and self._link.state == link.LIVE

    @property
    def congested(self) -> bool:
        """The server takes nothing more just now: read no more input."""
        return self._wire is not None and self._wire.backlog() > BACKLOG_LIMIT

    # --- what the mode calls ---------------------------------------------------------

    def start(self, now: float) -> list[member.Event]:
        self._lost_at = now
        return self._connect(now)

    def timeout(self, now: float) -> float | None:
        times = (self._next_try, self._deadline, self._give_up_at)
        due = [t for t in times if t is not None]
        return max(min(due) - now, 0.0) if due else None

    def tick(self, now: float) -> list[member.Event]:
        if self._next_try is not None and now >= self._next_try:
            self._next_try = None
            return self._watch(self._connect(now))
        if self._deadline is not None and now >= self._deadline:
            return self._watch(self._lost("the server does not answer", now))
        if self._input_ended and self.member.profile.classic:
            return self._leave_classic(now)
        return []

    def _leave_classic(self, now: float) -> list[member.Event]:
        """All is back, or nothing more will come: such a server may never close."""
        late = self._give_up_at is not None and now >= self._give_up_at
        back = self.member.drained()
        if not (late or (back and self._said_any and self.joined)):
            return []
        self._drop()
        return [self.member.leaving() if back else self.member.not_back()]

    def handle(self, mask: int, now: float) -> list[member.Event]:
        """The wire's key is ready."""
        if self._wire is None:
            return []
        return self._watch(self._handle(self._wire, mask, now))

    def say(self, text: bytes) -> None:
        """One line, not empty and within the limit; it leaves when it can."""
        self.queue(text)
        self.flush()

    def queue(self, text: bytes) -> None:
        """As say(), of many: flush() after the last of them."""
        self._said_any = True
        self.member.outbox.say(text)

    def flush(self) -> None:
        """Give the wire what may be sent now, and half-close after the last of it."""
        wire = self._wire
        if wire is None or not self.joined:
            return
        while wire.backlog() < BACKLOG_LIMIT and (lines := self.member.unsent()):
            wire.send(lines)
        if self._input_ended and self._may_half_close():
            wire.shut_write()
        self._watch([])

    def _may_half_close(self) -> bool:
        """All was sent.  A classic server forgets us then: all must have come back."""
        box = self.member.outbox
        if self.member.profile.classic:
            return not box.pending_count
        return box.settled and box.all_sent

    def finish(self, now: float) -> None:
        """Nothing more will be said: leave once everything has come back."""
        self._input_ended = True
        profile = self.member.profile
        if profile.classic and profile.patience_s is not None:
            wait_s = profile.patience_s if self._said_any else CLASSIC_PAST_S
            self._give_up_at = now + wait_s
        self.flush()

    def reconnect(self, now: float) -> list[member.Event]:
        """Try now, whatever there is."""
        self._drop()
        self._next_try = None
        self._lost_at = now
        return self._watch(self._connect(now))

    def close(self) -> None:
        self._over = True
        self._next_try = None
        self._drop()

    # --- a connection ----------------------------------------------------------------

    def _connect(self, now: float) -> list[member.Event]:
        self._deadline = now + LOGIN_DEADLINE_S
        try:
            self._wire = dial.Wire(self.target.host, self.target.port, tls=self.tls)
        except OSError as err:
            return self._unreachable(err, now)
        return self._watch([])

    def _handle(self, wire: dial.Wire, mask: int, now: float) -> list[member.Event]:
        if wire.state != dial.READY:
            try:
                data = wire.handle(mask)
            except OSError as err:
                return self._unreachable(err, now)
            if wire.state == dial.READY:
                self._link = self._new_link(wire)
                return self._perform(self._link.begin(), now)
            elif data == b"":
                return self._unreachable(OSError("it closed the connection"), now)
            return []
        try:
            data = wire.handle(mask)
        except OSError as err:
            return self._lost(f"connection lost ({err.strerror or err})", now)
        if data is None or self._link is None:
            self.flush()
            return []
        if data:
            return self._perform(self._link.receive(data), now)
        return self._ended(now)

    def _new_link(self, wire: dial.Wire) -> link.Link | classic.ClassicLink:
        if self.member.profile.classic:
            return classic.ClassicLink(self.target.key, self._past)
        request = self.member.request(secrets.token_hex(16))
        return link.Link(self._key, request, wire.certificate)

    def _perform(self, effects: list[link.Effect], now: float) -> list[member.Event]:
        events: list[member.Event] = []
        for effect in effects:
            match effect:
                case link.Send(data):
                    assert self._wire
                    self._wire.send(data)
                case link.Refused(code, words):
                    return events + self._refused(code, words, now)
                case link.Broken(reason, hopeless):
                    if hopeless and not self.member.ever_joined:
                        self._drop()
                        text = f"{self.target}: {reason}"
                        return [member.Over(errors.EX_UNAVAILABLE, text)]
                    return events + self._lost(reason, now)
                case _:
                    try:
                        events += self.member.take(effect)
                    except member.AnotherLog as err:
                        events.append(member.Afresh(str(err)))
                        return events + self._lost("another log", now)
                    except ValueError as err:
                        return events + self._lost(str(err), now)
                    if isinstance(effect, link.Joined):
                        self._deadline = self._lost_at = None
        self.flush()
        return events

    def _ended(self, now: float) -> list[member.Event]:
        """End of file.  After our half-close it may be the end that we wait for."""
        assert self._wire and self._link
        if self.joined and self._wire.is_shut:
            if self.member.drained():
                return [self.member.leaving()]
            if over := self.member.fruitless():
                return [over]
        return self._perform(self._link.receive_end(), now)

    # --- its end ---------------------------------------------------------------------

    def _unreachable(self, err: OSError, now: float) -> list[member.Event]:
        reason = f"no server at {self.target} ({err.strerror or err})"
        if self.member.ever_joined:
            return self._lost(reason, now)
        self._drop()
        unsent = self.member.unsent_words()
        return [member.Over(errors.EX_UNAVAILABLE, reason, unsent)]

    def _refused(self, code: str, words: str, now: float) -> list[member.Event]:
        if code == "tls" and not self.tls and not self.target.plain:
            self.tls = True
            self._drop()
            return self._connect(now)
        waited, roll = self._begin_waiting(now), self._roll()
        return self._wait(self.member.refused(code, words, waited, roll), now)

    def _lost(self, reason: str, now: float) -> list[member.Event]:
        waited = self._begin_waiting(now)
        return self._wait(self.member.lost(reason, waited, self._roll()), now)

    def _begin_waiting(self, now: float) -> float:
        self._drop()
        if self._lost_at is None:
            self._lost_at = now
        return now - self._lost_at

    def _wait(self, events: list[member.Event], now: float) -> list[member.Event]:
        for event in events:
            if isinstance(event, member.Down):
                self._next_try = now + event.delay_s
        return events

    def _drop(self) -> None:
        if self._wire is not None:
            if self._watched is not None:
                self._selector.unregister(self._watched)  # type: ignore[arg-type]
                self._watched = None
            self._wire.close()
        self._wire = self._link = self._deadline = None

    def _watch(self, events: list[member.Event]) -> list[member.Event]:
        """Keep the selector's view of the wire up to date."""
        if self._wire is None or self._over:
            return events
        sock, wants = self._wire.sock, self._wire.interest()
        if self._watched is sock:
            self._selector.modify(sock, wants, self)
            return events
        if self._watched is not None:
            # The address before this one failed, and its socket is closed.
            self._selector.unregister(self._watched)  # type: ignore[arg-type]
        self._selector.register(sock, wants, self)
        self._watched = sock
        return events
