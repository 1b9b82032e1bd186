"""What a person asked for: argv and environment become one frozen value.

Nothing is read or made here.  That a directory can be written, a port bound or a
key file understood shows only when somebody tries, and is another error with
another exit code; here a mistake is one line on stderr and exit code 2.

The limits at the end of Settings are no options.  They are fields so that a test
can make them small enough to hit.

Not here: the environment.  It is an argument, so that a test can be a stranger's
machine.
"""

import argparse
import dataclasses
import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from papaya_pool import __version__
from papaya_pool.errors import EX_USAGE, UsageFault

HOST, PORT = "127.0.0.1", 7722
FSYNC_MODES = ("never", "interval", "always")
LOG_LEVELS = ("debug", "info", "warning", "error")
WORKERS_LIMIT = 1024
CLIENTS_LIMIT = 1_000_000

_DESCRIPTION = """\
A chat server for the command line: a supervisor, an acceptor and a fixed pool
of workers that share one append-only log.  Runs in the foreground, logs to
stderr, and prints one line on stdout once it is ready.
"""

_EPILOG = """\
signals to the supervisor:
  TERM, INT  drain and leave; a second one leaves at once

exit codes:
  0   stopped as asked
  2   a mistake on the command line
  70  a bug, or workers that cannot boot
  73  port taken, directory not writable, /dev/shm too small, live pool there
  78  bad key file, bad configuration, damaged log
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One pool, as asked for.  max_clients is None until /dev/shm was looked at."""

    workers: int
    hosts: tuple[str, ...]
    port: int
    state_dir: Path
    key_file: Path | None = None
    max_clients: int | None = None
    fsync: str = "interval"
    plain: bool = False
    classic: bool = False
    log_level: str = "info"
    portable: bool = False
    trial: bool = False  # stop as soon as it is ready

    ring_bytes: int = 8192
    login_deadline_s: float = 5.0
    worker_deadline_s: float = 5.0
    batch_bytes: int = 262144
    fsync_interval_s: float = 1.0
    ending_s: float = 1.0
    stop_s: float = 3.0
    strangers: int = 4096  # logins under way


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line and not a page of usage before it."""

    def error(self, message: str) -> NoReturn:
        # What was typed may hold newlines and escapes; a terminal gets neither.
        line = "".join(c if c.isprintable() else " " for c in message)
        self.exit(EX_USAGE, f"{self.prog}: {line} (--help lists the options)\n")


def parse_argv(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Raises SystemExit: 2 after a mistake, 0 after --help and --version."""
    options = parser()
    given = options.parse_args(list(argv))
    # One address given twice must not find its own port taken.
    hosts = tuple(dict.fromkeys(given.host or [HOST]))
    if not given.plain:
        for host in hosts:
            if not is_loopback(host):
                options.error(
                    f"--host {host} is not loopback: what is said there crosses "
                    "the network in clear; add --plain if that is meant"
                )
    try:
        state_dir = find_state_dir(given.state_dir, environ)
    except UsageFault as fault:
        options.error(str(fault))
    return Settings(
        workers=given.workers or _cpus(),
        hosts=hosts,
        port=given.port,
        state_dir=state_dir,
        key_file=given.key_file and Path(given.key_file),
        max_clients=given.max_clients,
        fsync=given.fsync,
        plain=given.plain,
        classic=given.classic,
        log_level=given.log_level,
        portable=is_portable(environ),
    )


def for_trial(asked: Settings, where: str) -> Settings:
    """A whole pool, but small and out of everybody's way: to see whether code works."""
    return dataclasses.replace(
        asked, state_dir=Path(where, "state"), key_file=None, hosts=(HOST,), port=0,
        workers=1, max_clients=4, trial=True,
    )  # fmt: skip


def find_state_dir(given: str | None, environ: Mapping[str, str]) -> Path:
    """Where a pool's files are, for each of the four programs.

    Raises UsageFault if nothing says where.
    """
    if given is not None:
        if not given:
            raise UsageFault("--state-dir is empty")
        return Path(given)
    if by_systemd := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(by_systemd)
    # The XDG specification: a relative path in it is to be ignored.
    by_xdg = environ.get("XDG_STATE_HOME", "")
    if by_xdg.startswith("/"):
        return Path(by_xdg, "papaya-pool")
    if home := environ.get("HOME", ""):
        return Path(home, ".local", "state", "papaya-pool")
    raise UsageFault("$HOME is not set: say where with --state-dir")


def is_portable(environ: Mapping[str, str]) -> bool:
    """Whether to do without what only Linux has, also where it is there."""
    return environ.get("PAPAYA_PORTABLE", "") not in ("", "0")


def is_loopback(host: str) -> bool:
    """Whether only this machine can come from, or get to, `host`.

    A name is not looked up: but for localhost, it may be anywhere.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return (mapped or address).is_loopback


def _cpus() -> int:
    """The CPUs that this process may use, which in a container may be fewer."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), WORKERS_LIMIT)
    return min(os.cpu_count() or 1, WORKERS_LIMIT)


def number(least: int, most: int) -> Callable[[str], int]:
    """An argparse type: a decimal from `least` to `most`, and nothing else."""

    def parse(text: str) -> int:
        # Not int() alone: it takes 1_000, a padded 8 and the digits of any script.
        short = text.isascii() and text.isdigit() and len(text) <= 20
        if short and least <= int(text) <= most:
            return int(text)
        words = f"{text!r} is no number from {least} to {most}"
        raise argparse.ArgumentTypeError(words)

    return parse


def _filled(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _host(text: str) -> str:
    return _filled(text.removeprefix("[").removesuffix("]"))


def parser() -> Parser:
    """Also what the shell completion and the man page are made from."""
    options = Parser(
        prog="papaya-pool",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--version", action="version", version=f"%(prog)s {__version__}")
    add(
        "--workers",
        metavar="N",
        type=number(1, WORKERS_LIMIT),
        help="how many processes serve members (default: one for each CPU)",
    )
    add(
        "--host",
        metavar="ADDR",
        nargs="+",
        action="extend",
        type=_host,
        help=f"addresses to listen at (default: {HOST}); beyond loopback needs --plain",
    )
    add(
        "--port",
        metavar="PORT",
        type=number(0, 65535),
        default=PORT,
        help="0 picks a free one (default: %(default)s)",
    )
    add(
        "--state-dir",
        metavar="DIR",
        help="where log, key and the rest are kept (default: $STATE_DIRECTORY, else "
        "papaya-pool in $XDG_STATE_HOME, else ~/.local/state/papaya-pool)",
    )
    add(
        "--key-file",
        metavar="FILE",
        type=_filled,
        help="the 128 hex digits that let people in (default: key in the state "
        "directory, made on the first start)",
    )
    add(
        "--max-clients",
        metavar="N",
        type=number(1, CLIENTS_LIMIT),
        help="how many may be in at once (default: 10000, or what fits in half of "
        "the free /dev/shm)",
    )
    add(
        "--fsync",
        metavar="MODE",
        choices=FSYNC_MODES,
        default="interval",
        help="when messages are forced to disk: never; interval, once a second; "
        "always, before anybody sees them (default: %(default)s)",
    )
    add(
        "--plain",
        action="store_true",
        help="allow addresses beyond loopback, though all that is said crosses the "
        "network in clear",
    )
    add(
        "--classic",
        action="store_true",
        help="allow the classic dialect beyond loopback, though it sends the key "
        "itself in clear",
    )
    add(
        "--log-level",
        metavar="LEVEL",
        choices=LOG_LEVELS,
        default="info",
        help=f"{', '.join(LOG_LEVELS)} (default: %(default)s)",
    )
    return options
