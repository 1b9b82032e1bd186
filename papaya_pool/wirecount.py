"""How much a TCP connection has really been sent, and has really given up to be read.

The kernel knows both to the byte, also after the process that wrote and read was
killed, so a successor asks it instead of trusting a note that was written before
or after the fact.  (`bytes_sent - bytes_retrans + notsent` looks the same on
loopback and is wrong where packets are dropped.)

Order:   only after the old holder was *seen* dead: who writes meanwhile moves the
         count.  INFO, ioctl, INFO, again until both INFOs agree.
Failure: after a reset both are meaningless, and a reset after a FIN looks like a
         plain one: see `is_over`.
Not here: systems without TCP_INFO in Linux's layout; `works` says whether.
"""

import contextlib
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Iterator
from typing import NamedTuple

# include/net/tcp_states.h
_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _TIME_WAIT, _CLOSE = 1, 4, 5, 6, 7
_CLOSE_WAIT, _LAST_ACK, _CLOSING = 8, 9, 11
_OUR_FIN = frozenset({_FIN_WAIT1, _FIN_WAIT2, _CLOSING, _LAST_ACK, _TIME_WAIT})
_THEIR_FIN = frozenset({_CLOSE_WAIT, _LAST_ACK, _CLOSING, _TIME_WAIT, _CLOSE})
_BYTES_ACKED_AT, _BYTES_RECEIVED_AT, _INFO_BYTES = 120, 128, 136


class Count(NamedTuple):
    """Bytes of one connection since it was accepted."""

    written: int  # that the kernel took from user space
    consumed: int  # that user space took from the kernel
    is_over: bool  # reset or closed by both: neither count can be believed
    fin_sent: bool  # somebody shut our direction down


def works(portable: bool) -> bool:
    return sys.platform == "linux" and not portable


@contextlib.contextmanager
def borrowed(fd: int) -> Iterator[socket.socket]:
    """A socket object for a descriptor that somebody else goes on owning."""
    conn = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        yield conn
    finally:
        conn.detach()


def count(fd: int) -> Count:
    """Ask the kernel.  Exact while nobody reads or writes at this moment."""
    with borrowed(fd) as conn:
        while True:
            state, acked, received = _info(conn)
            queued, unread = _ioctl(fd, termios.TIOCOUTQ), _ioctl(fd, termios.FIONREAD)
            if _info(conn) == (state, acked, received):
                break
    return Count(
        written=acked + queued - (state in _OUR_FIN),
        consumed=received - unread - (state in _THEIR_FIN),
        is_over=state in (_CLOSE, _TIME_WAIT),
        fin_sent=state in _OUR_FIN,
    )


def is_whole(fd: int, read: int) -> bool:
    """Whether `read` is all that ever came on a connection that is over."""
    with borrowed(fd) as conn:
        received = _info(conn)[2]
    return read in (received, received - 1)  # a FIN counts as a byte


def _info(conn: socket.socket) -> tuple[int, int, int]:
    info = conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    acked, received = struct.unpack_from("=QQ", info, _BYTES_ACKED_AT)
    return info[0], acked, received


def _ioctl(fd: int, request: int) -> int:
    answer = bytearray(4)
    fcntl.ioctl(fd, request, answer)
    return int(struct.unpack("=i", answer)[0])
