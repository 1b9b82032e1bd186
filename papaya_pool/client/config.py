"""Where the key, the port and the saved rooms come from.

A key is password-equivalent: it is read from a file that only its owner can
read, or typed without echo, and never stands in argv or in the environment.

Format:  config.toml has a table for each saved room,
             [rooms.work]
             host = "127.0.0.1"
             port = 7722
             name = "ann"
             key-file = "work.key"   # beside it, or absolute; mode 0600
         and is only ever appended to, so that what a person wrote stays.
Failure: `ConfigFault`, its text one line for a person.
"""

import contextlib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from papaya_pool import errors, records, settings

INVITATION = "papaya://"
RESERVED = frozenset({"join"})

_KEY = re.compile(r"[0-9a-fA-F]{128}")
_ROOM_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_INVITATION = re.compile(
    r"papaya://(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]/:\s]+))"  # an address or a name
    r":([0-9]{1,5})/([0-9a-fA-F]{128})/?"
)
_LOG_ID = re.compile(r"[0-9a-f]{16}")


class ConfigFault(Exception):
    def __init__(self, text: str, exit_code: int = errors.EX_USAGE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Room:
    """Where to join, as it was saved or as an invitation says."""

    host: str
    port: int
    key: str = field(repr=False)
    name: str = ""
    plain: bool = False
    dialect: str = "native"


# --- the pool on this machine --------------------------------------------------------


def read_key(path: Path) -> str:
    """The key in a file.  Raises ConfigFault if others could have read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            digits = file.read(4096).decode("latin-1").strip()
    except OSError as err:
        raise ConfigFault(f"key file {path}: {err.strerror}") from err
    if mode & 0o077:
        raise ConfigFault(f"key file {path} is open to others: chmod 600 it")
    if not _KEY.fullmatch(digits):
        raise ConfigFault(f"key file {path} must hold exactly 128 hex digits")
    return digits


def pool_key(state_dir: Path) -> str:
    """The key of the pool on this machine."""
    path = state_dir / "key"
    if not path.exists():
        raise ConfigFault(
            f"no pool has its state in {state_dir}: start papaya-pool, "
            "or give --key-file, or say papaya-chat join",
            errors.EX_UNAVAILABLE,
        )
    return read_key(path)


def pool_port(state_dir: Path) -> int:
    """The port of the pool on this machine, or the usual one."""
    try:
        words = (state_dir / "port").read_text("ascii", "replace").split()
    except OSError:
        return settings.PORT
    if len(words) != 1 or not words[0].isdigit():
        return settings.PORT
    return int(words[0])


# --- invitations ---------------------------------------------------------------------


def understand_invitation(text: str) -> Room:
    """Raises ConfigFault; what was typed is not repeated, as it holds a key."""
    found = _INVITATION.fullmatch(text.strip())
    if not found or not 1 <= int(found[3]) <= 65535:
        raise ConfigFault("that is no invitation: it reads papaya://HOST:PORT/KEY")
    host = found[1] or found[2]
    if found[1]:
        try:
            ipaddress.ip_address(host)
        except ValueError as err:
            raise ConfigFault("the invitation's address is none") from err
    return Room(host, int(found[3]), found[4])


# --- saved rooms ---------------------------------------------------------------------


def config_dir(environ: Mapping[str, str]) -> Path:
    return _xdg(environ, "XDG_CONFIG_HOME", ".config")


def _xdg(environ: Mapping[str, str], variable: str, under_home: str) -> Path:
    given = environ.get(variable, "")
    if given.startswith("/"):  # the specification: ignore a relative one
        return Path(given, "papaya-chat")
    if home := environ.get("HOME", ""):
        return Path(home, under_home, "papaya-chat")
    raise ConfigFault("$HOME is not set: rooms can be neither saved nor found")


def load_room(directory: Path, name: str) -> Room:
    """A saved room, with its key."""
    table = _tables(directory).get(name)
    if table is None:
        saved = ", ".join(sorted(_tables(directory)))
        saved = saved or "none; papaya-chat join saves one"
        raise ConfigFault(f"no room {name!r} is saved (saved: {saved})")
    where = f"{directory / 'config.toml'}, room {name}"
    known = {"host": str, "port": int, "name": str, "key-file": str,
             "plain": bool, "dialect": str}  # fmt: skip
    for word, value in table.items():
        if type(value) is not known.get(word):
            raise ConfigFault(f"{where}: {word} is not known, or not of that kind")
    if missing := {"host", "key-file"} - set(table):
        raise ConfigFault(f"{where}: {min(missing)} is missing")
    if table.get("dialect", "native") not in ("native", "classic"):
        raise ConfigFault(f"{where}: dialect is native or classic")
    if not 1 <= table.get("port", settings.PORT) <= 65535:
        raise ConfigFault(f"{where}: port is from 1 to 65535")
    if "name" in table and not records.is_name(table["name"]):
        raise ConfigFault(f"{where}: name cannot be one")
    return Room(
        table["host"],
        table.get("port", settings.PORT),
        read_key(directory / Path(table["key-file"]).expanduser()),
        table.get("name", ""),
        table.get("plain", False),
        table.get("dialect", "native"),
    )


def can_be_saved(directory: Path, name: str) -> str:
    """Why not, or nothing."""
    if not _ROOM_NAME.fullmatch(name) or name in RESERVED:
        return "a room's name has 1 to 32 letters, digits, _ and -"
    if name in _tables(directory) or (directory / f"{name}.key").exists():
        return f"a room {name} is saved already"
    return ""


def save_room(directory: Path, name: str, room: Room) -> None:
    """Append it to config.toml, its key in a file of its own."""
    if fault := can_be_saved(directory, name):
        raise ConfigFault(fault)
    rows = [
        f"[rooms.{name}]",
        f"host = {_quoted(room.host)}",
        f"port = {room.port}",
        *([f"name = {_quoted(room.name)}"] if room.name else []),
        f'key-file = "{name}.key"',
        *(["plain = true"] if room.plain else []),
        *(['dialect = "classic"'] if room.dialect == "classic" else []),
    ]
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(directory / f"{name}.key", room.key + "\n", os.O_EXCL)
        config = directory / "config.toml"
        gap = "\n" if config.exists() and config.stat().st_size else ""
        _write(config, gap + "\n".join(rows) + "\n", os.O_APPEND)
    except OSError as err:
        raise ConfigFault(f"{err.filename}: {err.strerror}") from err


def _tables(directory: Path) -> dict[str, dict[str, Any]]:
    path = directory / "config.toml"
    try:
        with path.open("rb") as file:
            rooms = tomllib.load(file).get("rooms", {})
    except FileNotFoundError:
        return {}
    except OSError as err:
        raise ConfigFault(f"{path}: {err.strerror}") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigFault(f"{path}: {err}") from err
    tables = [*rooms.values()] if isinstance(rooms, dict) else [rooms]
    if not all(isinstance(table, dict) for table in tables):
        raise ConfigFault(f"{path}: rooms must be tables, as [rooms.work]")
    return dict(rooms)


def _quoted(text: str) -> str:
    return json.dumps(text)  # a JSON string of printable text is a TOML string


def _write(path: Path, text: str, how: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)


# --- how far a person has read -------------------------------------------------------


class Reads:
    """The last seq seen in each log, so that the next session marks what is new.

    A hint: if it cannot be read or written, nothing is marked.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._dir = _xdg(environ, "XDG_STATE_HOME", ".local/state")

    def last(self, log: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((self._dir / f"read-{log}").read_text("ascii"))
        return 0

    def note(self, log: str, seq: int) -> None:
        if not _LOG_ID.fullmatch(log):
            return
        with contextlib.suppress(OSError):
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self._dir / f"read-{log}", f"{seq}\n", os.O_TRUNC)
