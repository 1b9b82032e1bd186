"""papaya-top: see what a pool and its members cost, live or for scripts.

It only ever looks (law 12).  What d and k change, they ask for at the pool's control
socket, as papaya-ctl does, and only after a question.

Format:  --json and --prometheus are interfaces, see watch/report.py.
Failure: exit codes: 0; 2 a mistake on the command line; 69 no pool there, or no
         psutil; 77 the pool is somebody else's and shows nothing.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from papaya_pool import __version__, control, errors
from papaya_pool.room import Room
from papaya_pool.settings import Parser, find_state_dir, number

try:
    from papaya_pool.sampler import Sampler
    from papaya_pool.watch import report
    from papaya_pool.watch.columns import CLIENTS, PROCESSES
    from papaya_pool.watch.figures import Looks
    from papaya_pool.watch.view import View
except ModuleNotFoundError as err:  # a clone, with nothing installed
    if err.name != "psutil":
        raise
    print("papaya-top: needs psutil: python3 -m pip install psutil", file=sys.stderr)
    sys.exit(errors.EX_UNAVAILABLE)

DELAY_S = 1.0
ONCE_DELAY_S = 0.4  # --once and --json answer within a second
WIDE = 1000

_DESCRIPTION = """\
Live per-worker and per-client view of a papaya-pool on this machine.  It asks no
process anything: it works also when every one of them hangs.
"""

_EPILOG = """\
keys: h shows them.

exit codes:
  0   as asked
  2   a mistake on the command line
  69  no pool there, or no psutil to look with
  77  not permitted to look at it
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Look at a pool.  Returns the exit code."""
    options = parser()
    given = options.parse_args(sys.argv[1:] if argv is None else list(argv))
    view = _view(options, given)
    try:
        state_dir = find_state_dir(given.state_dir, os.environ)
    except errors.UsageFault as fault:
        options.error(str(fault))
    try:
        sampler = Sampler(state_dir)
        if given.once or given.json or given.prometheus or given.batch:
            return _report(sampler, given, view)
        sampler.sample()  # a pool that is not there is no screen
        return _show(options, sampler, given, view, state_dir)
    except errors.PoolFault as fault:
        print(f"papaya-top: {fault}", file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        return errors.EX_OK
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.EX_OK


# --- for scripts ---------------------------------------------------------------------


def _report(sampler: Sampler, given: argparse.Namespace, view: View) -> int:
    delay_s = given.delay or (DELAY_S if given.batch else ONCE_DELAY_S)
    left = given.count if given.batch else 1
    # A name may have characters that this locale has not.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    looks, due = Looks(), time.monotonic()
    # Counters need no window: what Prometheus asks for is there at once.
    if not given.prometheus:
        looks.add(sampler.sample(whole=True))
        due += delay_s
    while left is None or left > 0:
        time.sleep(max(0.0, due - time.monotonic()))
        due += delay_s
        unacked = given.json or view.on_clients
        now = sampler.sample(whole=not given.batch, unacked=unacked)
        if given.prometheus:
            text = report.prometheus(now)
        elif given.json:
            text = report.as_json(looks.add(now))
        else:
            text = report.table(looks.add(now), view, _width())
            text += "\n" if given.batch else ""
        sys.stdout.write(text)
        sys.stdout.flush()
        left = None if left is None else left - 1
    return errors.EX_OK


def _width() -> int:
    """A terminal's, or $COLUMNS; a pipe has room for everything."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return max(1, shutil.get_terminal_size().columns)
    return WIDE


# --- on a screen ---------------------------------------------------------------------


def _show(
    parser: Parser,
    sampler: Sampler,
    given: argparse.Namespace,
    view: View,
    state_dir: Path,
) -> int:
    import curses  # not on every machine, and scripts do without

    from papaya_pool.watch import screen

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        parser.error("this is no terminal: --once, --batch or --json")
    for what in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(what, _leave)
    try:
        return screen.show(
            sampler,
            view,
            given.delay or DELAY_S,
            lambda words: _act(state_dir, words),
            os.environ,
        )
    except curses.error as err:
        parser.error(
            f"this terminal cannot show a screen ({err}): --once, --batch or --json"
        )


def _leave(number: int, frame: object) -> None:
    """Through every `finally`, so that the terminal is given back."""
    raise SystemExit(128 + number)


def _act(state_dir: Path, words: list[str]) -> str:
    """Ask the pool to do something; a line that says what came of it."""
    try:
        answer = control.ask(Room(state_dir), words)
    except (OSError, ValueError) as err:
        return f"{' '.join(words)}: {err}"
    if not answer.get("ok"):
        return f"{' '.join(words)}: {answer.get('error')}"
    return f"{' '.join(words)}: done"


# --- the command line ----------------------------------------------------------------


def _view(parser: Parser, given: argparse.Namespace) -> View:
    view = View(
        readonly=given.readonly, on_clients=given.clients, filter=given.filter or ""
    )
    if given.count is not None and not given.batch:
        parser.error("-n is for --batch")
    if given.sort:
        titles = [column.title for column in view.table.columns]
        if given.sort.upper() not in [title.upper() for title in titles]:
            parser.error(f"--sort {given.sort}: it has the columns {' '.join(titles)}")
        view.table.sort = next(t for t in titles if t.upper() == given.sort.upper())
    return view


def _seconds(text: str) -> float:
    whole, _, rest = text.partition(".")
    digits = whole + rest
    if (
        digits.isascii()
        and digits.isdigit()
        and len(digits) < 9
        and 0.1 <= float(text) <= 3600
    ):
        return float(text)
    raise argparse.ArgumentTypeError(
        f"{text!r} is no number of seconds from 0.1 to 3600"
    )


def parser() -> Parser:
    """Also what the shell completion and the man page are made from."""
    options = Parser(
        prog="papaya-top",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--version", action="version", version=f"%(prog)s {__version__}")
    add(
        "--state-dir",
        metavar="DIR",
        help="the pool's (default: as papaya-pool finds it)",
    )
    mode = options.add_mutually_exclusive_group()
    mode.add_argument("--once", action="store_true", help="print one table and leave")
    mode.add_argument(
        "--batch", "-b", action="store_true", help="print a table every -d seconds"
    )
    form = options.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="one object a line instead of a table"
    )
    form.add_argument(
        "--prometheus", action="store_true", help="Prometheus' text exposition"
    )
    add(
        "-n",
        dest="count",
        metavar="N",
        type=number(1, 10**9),
        help="so many, with --batch",
    )
    add(
        "-d",
        "--delay",
        metavar="SECONDS",
        type=_seconds,
        help=f"between two looks (default: {DELAY_S:g}; at once {ONCE_DELAY_S:g})",
    )
    add("--clients", action="store_true", help="begin with the clients")
    add(
        "--sort",
        metavar="COLUMN",
        help=f"of workers: {', '.join(c.title for c in PROCESSES)}; "
        f"of clients: {', '.join(c.title for c in CLIENTS)}".replace("%", "%%"),
    )
    add(
        "--filter",
        metavar="TEXT",
        help="only rows with this in name, address, role or state",
    )
    add("--readonly", action="store_true", help="no drain and no kick")
    return options


if __name__ == "__main__":
    sys.exit(main())
