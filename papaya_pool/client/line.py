"""Line mode: messages to stdout, lines from stdin, for pipes, bots and cron.

`echo hi | papaya-chat` is a reliable send: after the end of input it
half-closes, and it is done when the server, having sent everything up to its
tail, closes too and every line has come back.  A server that dies at that
moment closes as well, so the end of the stream alone proves nothing.

Failure: stdout that nobody reads any more ends the printing, not the sending of
         what a pipe still has to say.
Format:  `HH:MM:SS name: text` in local time, or with --json one object a line
         (ASCII, so that nothing in it can drive a terminal).
"""

import json
import os
import selectors
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from papaya_pool import errors, records
from papaya_pool.client import cells, driver, member, outbox

INPUT, READ_SIZE = 0, 1 << 16
EX_IOERR = 74
COUNT_READS = 1000  # of what will not be sent any more; `yes` never ends
IN_FLIGHT_LIMIT = 10_000  # lines sent that have not come back: read no further


@dataclass(frozen=True, slots=True)
class Options:
    json: bool = False
    follow: bool = False  # stay after the end of input
    quiet: bool = False  # print no messages
    texts: tuple[str, ...] = ()  # to send instead of what stdin says
    no_input: bool = False  # join, and leave again


def rendered(record: records.Record, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(record._asdict())
    local = datetime.fromisoformat(record.time).astimezone()
    name, text = cells.harmless(record.name), cells.harmless(record.text)
    return f"{local:%H:%M:%S} {name}: {text}"


def complain(text: str) -> None:
    """One line on stderr, and nothing in it that a terminal would obey."""
    if sys.stderr is not None:  # otherwise it would go to stdout
        print(f"papaya-chat: {cells.harmless(text)}", file=sys.stderr, flush=True)


class LineMode:
    def __init__(
        self, selector: selectors.BaseSelector, drive: driver.Driver, options: Options
    ) -> None:
        self._selector, self._driver, self._options = selector, drive, options
        self._piece = b""
        self._reading = self._printing = False
        self._input_ended = False
        self._number = 0  # of the line of input
        self._exit_code = errors.EX_OK  # of what went wrong on our side
        self._down = False

    def run(self) -> int:
        """The exit code.  Blocks until it is over."""
        self._printing = not self._options.quiet
        if self._options.texts:
            for text in self._options.texts:
                self._take(os.fsencode(text) + b"\n")
            self._end_input()
        elif self._options.no_input or sys.stdin is None:  # `papaya-chat <&-`
            self._end_input()
        over = self._show(self._driver.start(time.monotonic()))
        while over is None:
            self._watch_input()
            timeout = self._driver.timeout(time.monotonic())
            for key, mask in self._selector.select(timeout):
                if key.data is not self._driver:
                    self._read_input()
                elif over is None:
                    over = self._show(self._driver.handle(mask, time.monotonic()))
            if over is None:
                over = self._show(self._driver.tick(time.monotonic()))
        if over.exit_code and self._driver.member.ever_joined and not self._input_ended:
            self._count_the_rest()
            over = self._driver.member.over_again(over)
        if over.text:
            complain(over.text + self._nothing_sent(over))
        return over.exit_code or self._exit_code

    def _count_the_rest(self) -> None:
        """Take in what stands ready on stdin: it was not sent either."""
        with selectors.SelectSelector() as ready:
            ready.register(INPUT, selectors.EVENT_READ)
            for _ in range(COUNT_READS):
                if self._input_ended or not ready.select(0):
                    return
                self._read_input()

    def _nothing_sent(self, over: member.Over) -> str:
        """Input that was not even read was not sent either."""
        who = self._driver.member
        unread = not who.ever_joined and not who.outbox.pending_count
        return "; nothing was sent" if over.exit_code and unread else ""

    def interrupted(self) -> None:
        """Ctrl-C: say what it cost, if it cost anything."""
        pending = self._driver.member.outbox.pending_count
        if pending:
            came = f"{member.count_lines(pending)} had not come back"
            complain(f"interrupted; {came}")

    # --- in ---------------------------------------------------------------------------

    def _watch_input(self) -> None:
        """Read no more than can be sent: a long file would all be in memory."""
        box = self._driver.member.outbox
        wanted = (
            not self._input_ended
            and self._driver.member.ever_joined
            and not self._driver.congested
            and box.pending_count < IN_FLIGHT_LIMIT
        )
        if wanted and not self._reading:
            self._selector.register(INPUT, selectors.EVENT_READ, self)
        elif self._reading and not wanted:
            self._selector.unregister(INPUT)
        self._reading = wanted

    def _read_input(self) -> None:
        try:
            data = os.read(INPUT, READ_SIZE)
        except BlockingIOError:
            return  # somebody else shares our stdin and made it non-blocking
        except OSError as err:
            complain(f"stdin: {err.strerror}")
            data = b""
        if data:
            self._take(data)
            return
        if self._piece:
            self._take(b"\n")
        self._end_input()

    def _end_input(self) -> None:
        self._input_ended = True
        if not self._options.follow:
            self._driver.finish(time.monotonic())

    def _take(self, data: bytes) -> None:
        *lines, self._piece = (self._piece + data).split(b"\n")
        for raw in lines:
            self._number += 1
            text = outbox.sayable(raw)
            limit = self._driver.member.profile.text_limit
            if len(text) > limit:
                self._exit_code = errors.EX_USAGE
                size = f"{len(text)} bytes, more than {limit}"
                complain(f"line {self._number} has {size}: not sent")
            elif text:
                self._driver.queue(text)
        self._driver.flush()

    # --- out --------------------------------------------------------------------------

    def _show(self, events: Iterable[member.Event]) -> member.Over | None:
        for event in events:
            match event:
                case member.Arrived(fresh):
                    self._print(fresh)
                case member.Afresh(text) | member.Warn(text):
                    complain(text)
                case member.Down(reason, delay_s):
                    if not self._down and delay_s and self._driver.member.ever_joined:
                        complain(f"{reason}; trying again")
                        self._down = True
                case member.Up():
                    if self._down:
                        complain("connected again")
                    self._down = False
                case member.Over():
                    return event
        return None

    def _print(self, fresh: list[records.Record]) -> None:
        if not self._printing or sys.stdout is None:
            return
        as_json = self._options.json
        lines = [rendered(record, as_json=as_json) + "\n" for record in fresh]
        try:
            sys.stdout.write("".join(lines))
            sys.stdout.flush()
        except OSError as err:
            if not isinstance(err, BrokenPipeError):
                complain(f"stdout: {err.strerror}")
                self._exit_code = EX_IOERR
            # Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._printing = False
            if self._options.follow or sys.stdin is None or sys.stdin.isatty():
                self._input_ended = True
                self._driver.finish(time.monotonic())
