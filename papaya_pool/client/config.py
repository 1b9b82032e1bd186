"""Where the key, the port and the saved rooms come from.

A key is password-equivalent: it is read from a file that only its owner can
read, or typed without echo, and never stands in argv or in the environment.

Failure: `ConfigFault`, its text one line for a person.
"""

import os
import re
from pathlib import Path

from papaya_pool import errors, settings

_KEY = re.compile(r"[0-9a-fA-F]{128}")


class ConfigFault(Exception):
    def __init__(self, text: str, exit_code: int = errors.EX_USAGE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


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
