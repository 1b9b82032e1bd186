"""papaya-chat: the program.  A thin parser, then line mode or the full screen.

Failure: whatever goes wrong is one line on stderr and an exit code (design
         section 7); a traceback is a bug.
"""

import argparse
import dataclasses
import os
import secrets
import selectors
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from papaya_pool import __version__, errors, records, settings
from papaya_pool.client import config, driver, line, member, setup

EX_INTERRUPTED = 128 + signal.SIGINT
SEQ_LIMIT = 2**63 - 1

_DESCRIPTION = """\
Chat from a terminal, or from a pipe: `echo hi | papaya-chat` sends a line and
leaves once it is in the log.  `papaya-chat join` asks for an invitation and can
save the room; `papaya-chat ROOM` joins it again.  Without ROOM it joins the pool
that runs on this machine.
"""

_EPILOG = """\
exit codes:
  0   all sent, and seen to come back
  2   a mistake on the command line, or a line that is too long to be sent
  69  no server, or lost for too long (says how many lines were not sent)
  74  the messages could not be written to stdout
  77  refused
  130 interrupted (says how many lines had not come back)
"""


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    # A locale that cannot say it must not end the program.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        room, exit_code = _room(options)
        return exit_code or _chat(options, room)
    except config.ConfigFault as fault:
        line.complain(str(fault))
        return fault.exit_code
    except errors.UsageFault as fault:
        line.complain(str(fault))
        return errors.EX_USAGE
    except (KeyboardInterrupt, EOFError):
        print(file=sys.stderr)
        return EX_INTERRUPTED


def _chat(options: argparse.Namespace, room: config.Room) -> int:
    if wants_screen(options):
        return _screen_mode(options, room)
    mode = line.Options(
        json=options.json,
        follow=options.follow,
        quiet=options.quiet,
        texts=tuple(options.send),
    )
    return _line_mode(room, _profile(options, room), mode)


def wants_screen(options: argparse.Namespace) -> bool:
    """Whether a person sits there, and asked for nothing that needs line mode."""
    asked = options.line or options.json or options.follow or options.quiet
    if asked or options.send:
        return False
    if not all(f is not None and f.isatty() for f in (sys.stdin, sys.stdout)):
        return False
    return _can_draw()


def _can_draw() -> bool:
    """Whether this terminal can put a cursor anywhere, and this Python knows how."""
    try:
        import curses

        curses.setupterm()
    except (ImportError, curses.error):
        return False
    return curses.tigetstr("cup") is not None


def _line_mode(room: config.Room, profile: member.Profile, mode: line.Options) -> int:
    with selectors.SelectSelector() as selector:  # epoll takes no regular file
        drive = driver.Driver(selector, _target(room), member.Member(profile))
        run = line.LineMode(selector, drive, mode)
        try:
            return run.run()
        except KeyboardInterrupt:
            run.interrupted()
            return EX_INTERRUPTED
        finally:
            drive.close()


def _screen_mode(options: argparse.Namespace, room: config.Room) -> int:
    import curses  # a Python without it still has line mode

    from papaya_pool.client import screen, terminal

    profile = dataclasses.replace(_profile(options, room), patience_s=None)
    title = str(_target(room)) if options.room in (None, "join") else options.room
    with selectors.SelectSelector() as selector:
        drive = driver.Driver(selector, _target(room), member.Member(profile))
        term = terminal.Terminal(os.environ)
        reads = config.Reads(os.environ)
        try:
            return screen.ScreenMode(selector, drive, term, title, reads).run()
        except curses.error as err:
            line.complain(f"this terminal cannot show it ({err}); try --line")
            return errors.EX_UNAVAILABLE
        finally:
            drive.close()


# --- what was asked for --------------------------------------------------------------


def _room(options: argparse.Namespace) -> tuple[config.Room, int]:
    """Where to join and 0, or an exit code if that did not work."""
    dialect = options.dialect or "native"
    if options.room == "join":
        return setup.join(
            config.config_dir(os.environ),
            config.Room("", 0, "", options.name or "", options.plain, dialect),
            options.save_as or "",
            _try_out,
        )
    if options.room is None:
        return _pool_here(options), 0
    room = config.load_room(config.config_dir(os.environ), options.room)
    return dataclasses.replace(
        room,
        host=options.host or room.host,
        port=options.port or room.port,
        key=config.read_key(Path(options.key_file)) if options.key_file else room.key,
        plain=options.plain or room.plain,
        dialect=options.dialect or room.dialect,
    ), 0


def _pool_here(options: argparse.Namespace) -> config.Room:
    here = options.state_dir is not None or options.host is None
    state_dir = None
    if options.key_file is None or (options.port is None and here):
        state_dir = settings.find_state_dir(options.state_dir, os.environ)
    if options.key_file is not None:
        key = config.read_key(Path(options.key_file))
    else:
        assert state_dir is not None
        key = config.pool_key(state_dir)
    port = options.port
    if port is None:
        port = config.pool_port(state_dir) if state_dir and here else settings.PORT
    host = options.host or settings.HOST
    dialect = options.dialect or "native"
    return config.Room(host, port, key, plain=options.plain, dialect=dialect)


def _try_out(room: config.Room) -> int:
    """Join and leave: the exit code, and why on stderr."""
    token, is_classic = secrets.token_hex(16), room.dialect == "classic"
    profile = member.Profile(room.name, "last=0", token, 10.0, is_classic)
    return _line_mode(room, profile, line.Options(quiet=True, no_input=True))


def _target(room: config.Room) -> driver.Target:
    is_classic = room.dialect == "classic"
    if is_classic and not (room.plain or settings.is_loopback(room.host)):
        raise config.ConfigFault(
            "classic says the key in clear to everybody on the way: "
            "add --plain if that is meant"
        )
    return driver.Target(room.host, room.port, room.key, plain=room.plain or is_classic)


def _profile(options: argparse.Namespace, room: config.Room) -> member.Profile:
    if options.since is not None:
        past = f"since={options.since}"
    elif options.last is not None:
        past = f"last={options.last}"
    else:
        typed = sys.stdin is not None and sys.stdin.isatty() and not options.send
        past = "last=100" if typed else "last=0"
    name = options.name or room.name or setup.login_name()
    if not name:
        raise config.ConfigFault("this user has no name: give --name")
    token, is_classic = secrets.token_hex(16), room.dialect == "classic"
    return member.Profile(name, past, token, options.patience, is_classic)


def _name(text: str) -> str:
    if not records.is_name(text):
        raise argparse.ArgumentTypeError(
            "a name has 1 to 32 letters, digits and _.- (and at most 64 bytes)"
        )
    return text


def _room_name(text: str) -> str:
    if text.startswith(config.INVITATION):
        # Not repeated, and too late for this time: the list of processes has it.
        raise argparse.ArgumentTypeError(
            "an invitation holds a key, and others can read a command line: "
            "say papaya-chat join"
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


def parser() -> settings.Parser:
    """Also what the shell completion and the man page are made from."""
    options = settings.Parser(
        prog="papaya-chat",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--version", action="version", version=f"%(prog)s {__version__}")
    add(
        "room",
        metavar="ROOM",
        nargs="?",
        type=_room_name,
        help="a saved room, or the word join",
    )
    add("--name", metavar="NAME", type=_name, help="your name (default: your login)")
    _add_where(options)
    _add_what(options)
    return options


def _add_where(options: argparse.ArgumentParser) -> None:
    add = options.add_argument
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
    add(
        "--dialect",
        choices=("native", "classic"),
        help="classic talks to an original papayaChat (default: native)",
    )
    add("--save-as", metavar="ROOM", help="with join: save the room under this name")


def _add_what(options: argparse.ArgumentParser) -> None:
    add = options.add_argument
    past = options.add_mutually_exclusive_group()
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


if __name__ == "__main__":
    sys.exit(main())
