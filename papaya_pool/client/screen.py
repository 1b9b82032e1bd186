"""The full screen: one loop that turns the driver, the questions and the keys.

The screen is opened only once we have joined, so that a wrong port or key is a
line on an ordinary terminal.  From then on a lost connection is never the end.

Order:   everything that is ready is handled, then the screen is drawn once: at
         once after a key, and at most FRAMES times a second for what arrives.
Failure: `run` gives the terminal back before it returns or raises.
"""

import collections
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from datetime import datetime

from papaya_pool import errors
from papaya_pool.client import ask, config, driver, keys, line
from papaya_pool.client import member, paint, terminal, view

FRAME_S = 1 / 25
INPUT, READ_SIZE = 0, 1 << 16
WHO_AGAIN_S = 60.0  # asked again when something arrives, never by a clock


def who_is_here(names: list[str]) -> str:
    """A name once, and how often it is here; of very many the first hundred."""
    counts = sorted(collections.Counter(names).items())
    words = [name if count == 1 else f"{name} ({count})" for name, count in counts]
    more = f" and {len(words) - 100} more" if len(words) > 100 else ""
    return f"{len(names)} here: {', '.join(words[:100])}{more}"


class ScreenMode:
    def __init__(
        self,
        selector: selectors.BaseSelector,
        drive: driver.Driver,
        term: terminal.Terminal,
        room: str,
        reads: config.Reads | None = None,
    ) -> None:
        self._selector, self._driver, self._terminal = selector, drive, term
        me = drive.member.profile.name
        limit = drive.member.profile.text_limit
        clock = lambda: datetime.now().astimezone()  # noqa: E731 - one line, one use
        self._view = view.View(me, room, clock, limit)
        self._keys = keys.Keys()
        self._reads = reads
        self._asks: list[ask.Ask] = []
        self._open = False
        self._dirty = False
        self._drawn_at = self._who_at = self._fed_at = float("-inf")
        self._said_at: float | None = None
        self._answers_who = not drive.member.profile.classic
        self._asked_for_who = False
        self._signals: list[int] = []
        self._over: member.Over | None = None

    def run(self) -> int:
        """The exit code.  Blocks until the person leaves."""
        waker, woken = socket.socketpair()
        for sock in (waker, woken):
            sock.setblocking(False)
        self._selector.register(woken, selectors.EVENT_READ, woken)
        before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        caught = (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        handlers = {n: signal.signal(n, self._note_signal) for n in caught}
        try:
            return self._loop(woken)
        finally:
            if self._open:
                self._terminal.close()
            if self._reads and self._driver.member.log:
                self._reads.note(self._driver.member.log, self._view.newest)
            for asking in self._asks:
                asking.close()
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._selector.unregister(woken)
            waker.close()
            woken.close()

    def _note_signal(self, number: int, _frame: object) -> None:
        self._signals.append(number)

    def _loop(self, woken: socket.socket) -> int:
        now = time.monotonic()
        self._take(self._driver.start(now), now)
        while self._over is None:
            for key, mask in self._selector.select(self._timeout(time.monotonic())):
                self._handle(key.data, mask, woken)
            now = time.monotonic()
            self._tick(now)
            if self._dirty and self._open and now >= self._drawn_at + FRAME_S:
                self._draw(now)
        return self._leave(self._over)

    def _leave(self, over: member.Over) -> int:
        if self._open:
            self._terminal.close()
            self._open = False
        if over.text:
            line.complain(over.text)
        return over.exit_code

    def _timeout(self, now: float) -> float | None:
        due = [asking.deadline for asking in self._asks]
        if self._dirty and self._open:
            due.append(self._drawn_at + FRAME_S)
        if self._keys.unfinished:
            due.append(self._fed_at + keys.FLUSH_AFTER_S)
        waits = [max(at - now, 0.0) for at in due]
        drive = self._driver.timeout(now)
        return min([*waits, *([] if drive is None else [drive])], default=None)

    def _handle(self, what: object, mask: int, woken: socket.socket) -> None:
        now = time.monotonic()
        if what is self._driver:
            self._take(self._driver.handle(mask, now), now)
        elif isinstance(what, ask.Ask):
            what.handle(mask)
            self._dirty = True
        elif what is woken:
            woken.recv(READ_SIZE)
        else:
            self._read_keys(now)

    def _tick(self, now: float) -> None:
        self._take(self._driver.tick(now), now)
        for asking in self._asks:
            asking.tick(now)
        for asking in [asking for asking in self._asks if asking.done]:
            self._asks.remove(asking)
            self._answered(asking, now)
        if self._keys.unfinished and now >= self._fed_at + keys.FLUSH_AFTER_S:
            self._press(self._keys.flush(), now)
        while self._signals:
            self._obey(self._signals.pop(0))

    def _obey(self, number: int) -> None:
        if number == signal.SIGWINCH:
            if self._open:
                self._terminal.resized()
                self._view.resize(*self._terminal.size())
                self._dirty, self._drawn_at = True, float("-inf")
            return
        self._end(128 + number, "")

    def _end(self, exit_code: int, text: str) -> None:
        self._over = self._over or member.Over(exit_code, text)

    # --- what the server says --------------------------------------------------------

    def _take(self, events: list[member.Event], now: float) -> None:
        for event in events:
            self._dirty = True
            match event:
                case member.Up(head):
                    self._joined(head, now)
                case member.Arrived(fresh):
                    head = self._driver.member.head
                    self._do(self._view.arrived(fresh, head), now)
                    self._measure_lag(now)
                    if now - self._who_at > WHO_AGAIN_S:
                        self._ask_who(now)
                case member.Afresh(text):
                    self._view.afresh()
                    self._view.note(text)
                case member.Warn(text):
                    self._view.note(text)
                case member.Down(reason, delay_s):
                    self._down(reason, delay_s)
                case member.Over():
                    self._over = event

    def _joined(self, head: int, now: float) -> None:
        if not self._open:
            self._terminal.open()
            self._open = True
            self._view.resize(*self._terminal.size())
            self._selector.register(INPUT, selectors.EVENT_READ, self)
            if self._reads and self._driver.member.log:
                self._view.last_read = self._reads.last(self._driver.member.log)
        self._view.joined(head)
        self._ask_who(now)

    def _down(self, reason: str, delay_s: float) -> None:
        if not delay_s:
            return
        if not self._open and self._view.state == "connecting":
            line.complain(f"{reason}; trying again")
        self._view.state = f"trying again: {reason}"

    def _measure_lag(self, now: float) -> None:
        """From the first line said to the moment when nothing is pending."""
        if self._said_at is not None and not self._driver.member.outbox.pending_count:
            self._view.lag_s = now - self._said_at
            self._said_at = None

    # --- what we ask -----------------------------------------------------------------

    def _ask_who(self, now: float) -> None:
        if self._answers_who:
            self._who_at = now
            self._ask(ask.Wanted(), now)

    def _ask(self, wanted: ask.Wanted, now: float, *, by_joining: bool = False) -> None:
        name = self._driver.member.profile.name
        self._asks.append(
            ask.Ask(
                self._selector,
                self._driver.target,
                name,
                wanted,
                now,
                tls=self._driver.tls,
                by_joining=by_joining,
            )
        )

    def _answered(self, asking: ask.Ask, now: float) -> None:
        self._dirty = True
        if not asking.wanted.last:
            self._answered_who(asking)
        elif asking.unanswered:
            self._ask(asking.wanted, now, by_joining=True)
        elif asking.failed:
            self._view.fetch_failed(asking.failed)
        else:
            try:
                older = asking.records()
            except ValueError as err:
                self._view.fetch_failed(str(err))
                return
            self._do(self._view.fetched(older), now)

    def _answered_who(self, asking: ask.Ask) -> None:
        if asking.failed:
            self._answers_who = not asking.unanswered
            if self._asked_for_who:
                self._view.note(f"who is here is not known: {asking.failed}")
        else:
            self._view.here(asking.names())
            if self._asked_for_who:
                self._view.note(who_is_here(asking.names()))
        self._asked_for_who = False

    # --- what the person does --------------------------------------------------------

    def _read_keys(self, now: float) -> None:
        try:
            data = os.read(INPUT, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # the terminal has gone away
            self._end(128 + signal.SIGHUP, "")
            return
        self._fed_at = now
        self._press(self._keys.feed(data), now)

    def _press(self, pressed: list[keys.Key], now: float) -> None:
        for key in pressed:
            self._view.pending = self._driver.member.outbox.pending
            self._do(self._view.key(key), now)
        self._dirty, self._drawn_at = True, float("-inf")

    def _do(self, actions: list[view.Action], now: float) -> None:
        for action in actions:
            match action:
                case view.Say(text):
                    self._said_at = self._said_at or now
                    self._driver.say(text)
                case view.Fetch(first, last):
                    self._ask(ask.Wanted(first, last, self._driver.member.log), now)
                case view.Do("quit"):
                    words = self._driver.member.unsent_words().removeprefix("; ")
                    code = errors.EX_UNAVAILABLE if words else errors.EX_OK
                    self._end(code, words)
                case view.Do(what):
                    self._acts[what](self, now)

    def _who(self, now: float) -> None:
        if self._driver.member.profile.classic:
            self._view.note("a classic server does not say who is here")
            return
        self._asked_for_who = self._answers_who = True
        self._ask_who(now)

    def _reconnect(self, now: float) -> None:
        self._view.state = "connecting"
        self._take(self._driver.reconnect(now), now)

    def _suspend(self, _now: float) -> None:
        self._terminal.suspend()
        self._view.resize(*self._terminal.size())

    _acts: dict[str, Callable[["ScreenMode", float], None]] = {
        "who": _who,
        "reconnect": _reconnect,
        "suspend": _suspend,
        "repaint": lambda self, _now: self._terminal.repaint(),
        "beep": lambda self, _now: self._terminal.beep(),
    }

    def _draw(self, now: float) -> None:
        self._view.pending = self._driver.member.outbox.pending
        self._terminal.draw(paint.paint(self._view, *self._terminal.size()))
        self._dirty, self._drawn_at = False, now
