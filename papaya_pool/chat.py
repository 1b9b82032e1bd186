"""papaya-chat: the program.  A thin parser, then line mode or the full screen.

Failure: whatever goes wrong is one line on stderr and an exit code (design
         section 7); a traceback is a bug.
"""

import argparse
import dataclasses
import getpass
import locale
import os
import secrets
import selectors
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from papaya_pool import __version__, errors, records, settings
from papaya_pool.client import config, driver, line, member

EX_INTERRUPTED = 128 + signal.SIGINT
SEQ_LIMIT = 2**63 - 1

_DESCRIPTION = """\
Chat from a terminal, or from a pipe: `echo hi | papaya-chat` sends a line and
leaves once it is in the log.
"""

_EPILOG = """\
exit codes:
  0   all sent, and seen to come back
  2   a mistake on the command line, or a line that is too long to be sent
  69  no server, or lost for too long (says how many lines were not sent)
  77  refused
"""


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        target, profile = _target(options), _profile(options)
    except (config.ConfigFault, errors.UsageFault) as fault:
        line.complain(str(fault))
        return getattr(fault, "exit_code", errors.EX_USAGE)
    if wants_screen(options):
        return _screen_mode(target, profile)
    return _line_mode(options, target, profile)


def wants_screen(options: argparse.Namespace) -> bool:
    """Whether a person sits there, and asked for nothing that needs line mode."""
    asked = options.line or options.json or options.follow or options.quiet
    if asked or options.send or os.environ.get("TERM", "dumb") in ("dumb", ""):
        return False
    return all(f is not None and f.isatty() for f in (sys.stdin, sys.stdout))


def _screen_mode(target: driver.Target, profile: member.Profile) -> int:
    import curses  # a Python without it still has line mode

    from papaya_pool.client import screen, terminal

    locale.setlocale(locale.LC_ALL, "")
    profile = dataclasses.replace(profile, patience_s=None)
    with selectors.SelectSelector() as selector:
        drive = driver.Driver(selector, target, member.Member(profile))
        term = terminal.Terminal(os.environ)
        try:
            return screen.ScreenMode(selector, drive, term, str(target)).run()
        except curses.error as err:
            line.complain(f"this terminal cannot show it ({err}); try --line")
            return errors.EX_UNAVAILABLE
        finally:
            drive.close()


def _line_mode(
    options: argparse.Namespace, target: driver.Target, profile: member.Profile
) -> int:
    # A locale that cannot say it must not end the program.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="replace")  # type: ignore[union-attr]
    with selectors.SelectSelector() as selector:  # epoll takes no regular file
        drive = driver.Driver(selector, target, member.Member(profile))
        mode = line.LineMode(
            selector,
            drive,
            line.Options(
                json=options.json,
                follow=options.follow,
                quiet=options.quiet,
                texts=tuple(options.send),
            ),
        )
        try:
            return mode.run()
        except KeyboardInterrupt:
            mode.interrupted()
            return EX_INTERRUPTED
        finally:
            drive.close()


# --- what was asked for --------------------------------------------------------------


def _target(options: argparse.Namespace) -> driver.Target:
    environ: Mapping[str, str] = os.environ
    here = options.state_dir is not None or options.host is None
    state_dir = None
    if options.key_file is None or (options.port is None and here):
        state_dir = settings.find_state_dir(options.state_dir, environ)
    if options.key_file is not None:
        key = config.read_key(Path(options.key_file))
    else:
        assert state_dir is not None
        key = config.pool_key(state_dir)
    port = options.port
    if port is None:
        port = config.pool_port(state_dir) if state_dir and here else settings.PORT
    host = options.host or settings.HOST
    return driver.Target(host, port, key, plain=options.plain)


def _profile(options: argparse.Namespace) -> member.Profile:
    if options.since is not None:
        past = f"since={options.since}"
    elif options.last is not None:
        past = f"last={options.last}"
    else:
        typed = sys.stdin is not None and sys.stdin.isatty() and not options.send
        past = "last=100" if typed else "last=0"
    name = _login_name() if options.name is None else options.name
    return member.Profile(name, past, secrets.token_hex(16), options.patience)


def _login_name() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = ""
    name = "".join(c for c in name if records.is_name(c))[: records.NAME_CHARS]
    if not name:
        raise config.ConfigFault("this user has no name: give --name")
    return name


def _name(text: str) -> str:
    if not records.is_name(text):
        raise argparse.ArgumentTypeError(
            "a name has 1 to 32 letters, digits and _.- (and at most 64 bytes)"
        )
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _host(text: str) -> str:
    host = text.removeprefix("[").removesuffix("]")
    if not host:
        raise argparse.ArgumentTypeError("must not be empty")
    return host


def _parser() -> settings.Parser:
    parser = settings.Parser(
        prog="papaya-chat",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"%(prog)s {__version__}")
    add("--name", metavar="NAME", type=_name, help="your name (default: your login)")
    add("--host", metavar="ADDR", type=_host, help="default: this machine")
    add(
        "--port",
        metavar="PORT",
        type=settings.number(1, 65535),
        help="default: that of the pool here, else 7722",
    )
    add("--key-file", metavar="FILE", help="128 hex digits, readable by you alone")
    add("--state-dir", metavar="DIR", help="of a pool here: gives key and port")
    add("--plain", action="store_true", help="no TLS, also beyond this machine")
    past = parser.add_mutually_exclusive_group()
    past.add_argument(
        "--since",
        metavar="SEQ",
        type=settings.number(0, SEQ_LIMIT),
        help="begin after this message; 0 is everything",
    )
    past.add_argument(
        "--last",
        metavar="N",
        type=settings.number(0, SEQ_LIMIT),
        help="begin with the last N messages (default: 100 on a terminal, else 0)",
    )
    add(
        "--send",
        metavar="TEXT",
        action="append",
        default=[],
        help="send this instead of what stdin says; may be repeated",
    )
    add("--line", action="store_true", help="line mode, also on a terminal")
    add("--json", action="store_true", help="one object a message: seq time name text")
    add("--follow", action="store_true", help="stay after the end of input")
    add("--quiet", action="store_true", help="print no messages")
    add(
        "--patience",
        metavar="SECONDS",
        type=_seconds,
        default=member.PATIENCE_S,
        help="give a lost server up after so long (default: 60)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
