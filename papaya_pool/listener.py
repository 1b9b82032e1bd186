"""The listening sockets: made before the fork, accepted from by one process.

What a member's socket must be like is set here, once: Linux hands options of the
listener to every socket that it accepts.

Failure: accept() has two kinds of errors: of one connection (it went away while
         it waited: nothing to do) and of this process (no descriptors left).  The
         second leaves the connection in the queue and the listener readable, so
         a loop that only tries again spins; see Door.turn_away.
"""

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Sequence

from papaya_pool import errors

BACKLOG = 4096
NOTSENT_LOWAT_BYTES = 16384
_NOTSENT_LOWAT = 25  # TCP_NOTSENT_LOWAT of Linux
_OF_THE_PROCESS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class OutOfDescriptors(Exception):
    """A connection waits and this process cannot take it."""


def bind(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Listen on every host, all on one port.  Raises CannotCreate."""
    listeners: list[socket.socket] = []
    try:
        for host in hosts:
            bound_port = listeners[0].getsockname()[1] if listeners else port
            listeners.append(_listen(host, bound_port))
    except OSError as err:
        for listener in listeners:
            listener.close()
        reason = "in use" if err.errno == errno.EADDRINUSE else err.strerror
        raise errors.CannotCreate(f"cannot listen on {host} port {port}: {reason}") from err
    return listeners


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except UnicodeError as err:  # a label of a name is empty or too long
        raise OSError(errno.EINVAL, "no such name") from err
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for_members(listener)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def for_members(conn: socket.socket) -> None:
    """What accepted sockets inherit from their listener."""
    # Otherwise a small message waits up to 40 ms for the ACK of the one before.
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Otherwise one urgent byte is missing from the stream and shifts every count.
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    if sys.platform == "linux":
        # Otherwise a member that never reads pins megabytes of kernel memory.
        conn.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)


def accept(listener: socket.socket) -> tuple[socket.socket, str] | None:
    """The next connection and its address, or None.  Raises OutOfDescriptors."""
    try:
        conn, address = listener.accept()
    except OSError as err:
        if err.errno in _OF_THE_PROCESS:
            raise OutOfDescriptors from err
        return None  # nobody waits, or who waited went away
    conn.setblocking(False)
    host, port = address[:2]
    return conn, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Reserve:
    """One descriptor kept for the moment when there are none.

    With it a connection that cannot be served can still be taken and closed, which
    tells the client and empties the queue.
    """

    def __init__(self) -> None:
        self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def turn_away(self, listener: socket.socket, words: bytes) -> None:
        """Take one waiting connection, tell it `words`, and close it."""
        os.close(self._fd)
        with contextlib.suppress(OSError):
            conn, _ = listener.accept()
            with conn:
                conn.setblocking(False)
                conn.send(words)
        self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
