"""control.sock: where an administrator asks, and an orphan hands over.

Owner:   the supervisor listens; only its own user and root may speak (the kernel
         says who is at the other end).
Order:   one question, one answer, on a connection of its own.  The supervisor
         answers at once and never waits: what takes time is seen in the scoreboard.
Format:  packets of handoff.py; a question is JSON {"words": [...]}, an answer JSON
         with "ok" and, if not, "error".
"""

import contextlib
import json
import os
import select
import socket
import struct
from typing import Any

from papaya_pool import handoff, room
from papaya_pool.handoff import Kind, Message

_TIMEOUT_S = 5.0


class Desk:
    """The supervisor's end."""

    def __init__(self, where: room.Room) -> None:
        where.control.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        room.control_address(where, self.listener, "bind")
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.callers: dict[int, tuple[socket.socket, str]] = {}  # by fd: who it is

    def accept(self) -> int | None:
        """Let one caller in; its fd.  None if nobody may come, or nobody is there."""
        try:
            caller, _ = self.listener.accept()
        except OSError:
            return None
        pid, uid = _who(caller)
        if uid not in (0, os.getuid()):
            caller.close()
            return None
        caller.setblocking(False)
        self.callers[caller.fileno()] = caller, f"uid={uid} pid={pid}"
        return caller.fileno()

    def hear(self, fd: int) -> tuple[list[Message], bool]:
        """(what a caller says, whether it has gone)."""
        return handoff.receive_all(self.callers[fd][0], 16, handoff.TEXT_LIMIT)

    def answer(self, fd: int, message: Message) -> None:
        if fd in self.callers:
            handoff.send(self.callers[fd][0], message)

    def dismiss(self, fd: int) -> None:
        self.callers.pop(fd)[0].close()

    def close(self) -> None:
        for fd in list(self.callers):
            self.dismiss(fd)
        self.listener.close()


def _who(caller: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process at the other end."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # not Linux: the directory's mode is what keeps others out
        return 0, os.getuid()
    pid, uid, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, option, 12))
    return pid, uid


def ask(where: room.Room, words: list[str]) -> dict[str, Any]:
    """Ask a pool's supervisor.  Raises OSError if none is there or it does not answer."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as control:
        room.control_address(where, control, "connect")
        handoff.send(control, Message(Kind.ASK, text=json.dumps({"words": words}).encode()))
        poll = select.poll()
        poll.register(control, select.POLLIN)
        if not poll.poll(_TIMEOUT_S * 1000):
            raise TimeoutError("the supervisor does not answer")
        answer = handoff.receive(control, handoff.TEXT_LIMIT)
    if answer is None:
        raise ConnectionResetError("the supervisor went away")
    return dict(json.loads(answer.text))
