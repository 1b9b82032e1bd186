"""Control sockets: orders, reports, and the sessions' descriptors between processes.

The only room that sends or receives descriptors (SCM_RIGHTS).  A descriptor in
flight is safe: the kernel keeps the connection until somebody takes it or both
ends of the control socket are gone.  What readers get wrong: being sent is not
being seated.  Nobody may trust a send; `seated` in the scoreboard is the receipt,
and who sent keeps a dup until he reads it there (law 6).

Owner:   send() never takes the descriptor: the caller still has to close it.
         receive() gives every descriptor to the caller.
Failure: send() never blocks and says what became of it.  A receiver that is out
         of descriptors loses one silently (MSG_CTRUNC): such a message is dropped
         here, and the supervisor sends again what is not seated.
Format:  one packet a message: version, kind, slot, generation, value, then text.
"""

import array
import enum
import errno
import os
import socket
import struct
import sys
from typing import NamedTuple

VERSION = 1
TEXT_LIMIT = 120_000  # a session with a full ring, in hex
_HEADER = struct.Struct("=BBxxIQQ")
_ROOM_FOR_FDS = socket.CMSG_SPACE(4 * array.array("i").itemsize)
_PACKETS = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM


class Kind(enum.IntEnum):
    """What a message says.  Orders in the imperative, reports in the past tense."""

    # supervisor -> worker or acceptor; worker -> worker; acceptor -> worker
    HANDOFF = 1  # this session is yours; with its descriptor
    DRAIN = 2  # give your sessions to the others
    GIVE = 3  # give `value` sessions to the worker in `slot`
    STOP = 4  # end your sessions, whole, and leave
    KEPT = 5  # to the acceptor: the dup is safe, go on
    REBALANCE = 6  # serve again, after a DRAIN
    RELOAD = 7  # to the acceptor: read the bans again
    KICK = 9  # end the session in `slot`
    SUPERSEDE = 10  # the same: its member has logged in again with its token
    # to the supervisor
    READY = 32  # my loop runs
    KEEP = 33  # keep this dup; with a descriptor
    CLOSED = 34  # a session is closing: close the dup, free the slot
    UNSENT = 35  # could not hand off this session: look at it
    STOPPED = 36  # what STOP asked for is done
    # between pools
    SESSION = 65  # text: a session's record; with its descriptor
    LISTENER = 66  # with a listening socket
    TAKEN = 67  # the answer to both
    # between an administrator and the supervisor
    ASK, ANSWER = 72, 73  # text: JSON


class Message(NamedTuple):
    """One packet.  `fd` is -1 if none came with it; else it is the receiver's."""

    kind: int
    slot: int = 0
    generation: int = 0
    value: int = 0
    text: bytes = b""
    fd: int = -1


class Sent(enum.Enum):
    """What became of a send."""

    SENT = 1
    FULL = 2  # its queue is full or too many descriptors are in flight: later
    GONE = 3  # nobody will ever receive there


def pair() -> tuple[socket.socket, socket.socket]:
    """A control socket's two ends, both non-blocking."""
    ends = socket.socketpair(socket.AF_UNIX, _PACKETS)
    for end in ends:
        end.setblocking(False)
    return ends


def send(control: socket.socket, message: Message, fd: int = -1) -> Sent:
    """Send a message, with `fd` if there is one.  `fd` stays open and the caller's."""
    rights = []
    if fd >= 0:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    header = _HEADER.pack(VERSION, *message[:4])
    try:
        control.sendmsg([header, message.text], rights, socket.MSG_DONTWAIT)
    except (BlockingIOError, ConnectionError) as err:
        return Sent.FULL if isinstance(err, BlockingIOError) else Sent.GONE
    except OSError as err:
        if err.errno in (errno.ENOBUFS, errno.ETOOMANYREFS, errno.EMSGSIZE):
            return Sent.FULL
        if err.errno in (errno.ENOTCONN, errno.EPIPE):
            return Sent.GONE
        raise
    return Sent.SENT


def receive(control: socket.socket, text_limit: int = 256) -> Message | None:
    """The next message; None if the other end is gone.  BlockingIOError if none is there.

    Not socket.recv_fds(): it drops its flags argument (cpython gh-107898), so the
    descriptor would arrive inheritable.
    """
    while True:
        try:
            data, ancillary, flags, _ = control.recvmsg(
                _HEADER.size + text_limit, _ROOM_FOR_FDS, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return None
        if not data:
            return None
        fds = array.array("i")
        for level, kind, body in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(body[: len(body) - len(body) % fds.itemsize])
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or len(fds) > 1:
            for fd in fds:
                os.close(fd)
            continue
        if len(data) < _HEADER.size or data[0] != VERSION:
            for fd in fds:
                os.close(fd)
            raise ValueError(f"no control message of version {VERSION}")
        _, *words = _HEADER.unpack_from(data)
        kind, slot, generation, value = words
        fd = fds[0] if fds else -1
        return Message(kind, slot, generation, value, data[_HEADER.size :], fd)


def receive_all(
    control: socket.socket, limit: int = 256, text_limit: int = 256
) -> tuple[list[Message], bool]:
    """(what has come, whether the other end is gone)."""
    messages: list[Message] = []
    while len(messages) < limit:
        try:
            message = receive(control, text_limit)
        except BlockingIOError:
            return messages, False
        if message is None:
            return messages, True
        messages.append(message)
    return messages, False
