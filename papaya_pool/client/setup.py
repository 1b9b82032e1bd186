"""`papaya-chat join`: from an invitation to a saved room, without a manual.

The invitation holds the key, so it is asked for without echo and never taken from
argv, where every user of the machine could read it.  It is tried before it is
saved, so that what is saved has worked once.

Failure: ConfigFault, and EOFError or KeyboardInterrupt if the person gives up.
"""

import getpass
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from papaya_pool import records
from papaya_pool.client import config


def read_invitation() -> config.Room:
    """From the terminal without echo, or the first line of stdin."""
    if sys.stdin is not None and sys.stdin.isatty():
        return config.understand_invitation(getpass.getpass("Invitation (not shown): "))
    line = b""
    # Byte by byte: the lines after it are to be said.
    while not line.endswith(b"\n") and (byte := os.read(0, 1)) and len(line) < 4096:
        line += byte
    return config.understand_invitation(line.decode("utf-8", "replace"))


def ask_name(default: str) -> str:
    """Who to be in the room."""
    while True:
        name = _ask(f"Your name [{default}]: ") or default
        if records.is_name(name):
            return name
        print("A name has 1 to 32 letters, digits and _.- (no spaces).")


def offer_to_save(directory: Path, room: config.Room) -> str:
    """Save it under a name that the person gives; "" if they do not want to."""
    while name := _ask("Save this room as (Enter: do not save): "):
        fault = config.can_be_saved(directory, name)
        if not fault:
            save(directory, name, room)
            return name
        print(f"{fault[0].upper()}{fault[1:]}.")
    return ""


def save(directory: Path, name: str, room: config.Room) -> None:
    config.save_room(directory, name, room)
    print(f"Saved: from now on, papaya-chat {name}", file=sys.stderr)


def join(
    directory: Path,
    asked: config.Room,
    save_as: str,
    works: Callable[[config.Room], int],
) -> tuple[config.Room, int]:
    """The room and 0, or the exit code of why it cannot be joined.

    `asked` is what the command line says of it.
    """
    if save_as and (fault := config.can_be_saved(directory, save_as)):
        raise config.ConfigFault(fault)
    interactive = sys.stdin is not None and sys.stdin.isatty()
    invited = read_invitation()
    room = replace(asked, host=invited.host, port=invited.port, key=invited.key)
    if interactive and not room.name:
        room = replace(room, name=ask_name(login_name() or "guest"))
    room = replace(room, name=room.name or login_name())
    if exit_code := works(room):
        return room, exit_code
    if save_as:
        save(directory, save_as, room)
    elif interactive:
        offer_to_save(directory, room)
    return room, 0


def login_name() -> str:
    """This user's name as far as it can be one here; "" if nothing is left."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        return ""
    return "".join(c for c in name if records.is_name(c))[: records.NAME_CHARS]


def _ask(question: str) -> str:
    return input(question).strip()
