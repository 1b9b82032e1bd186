"""One pool takes all sessions over from another (law 11): after a death, or an upgrade.

Two supervisors of one log is what must never be; a supervisor that was killed
leaves workers that chat on; and the next one may run other code.  So nothing of
the old pool's memory is shared: each old process connects to the new
`control.sock`, sends every session as a versioned record with its socket, and
leaves when all of them were taken.

Order:   the new pool starts its workers; takes LOCK_EX, settles the old block,
         copies its head, names itself in the old head's `moved_to`, unlocks.  From
         then on nobody can append through the old head, and who sees `moved_to`
         hands over.  Copying after naming would leave a log without a head.
Owner:   a session is its old worker's until the new supervisor answered TAKEN.
Failure: an old process that does not come within the time for it is killed.
Format:  a record is JSON with its version; texts are hex.  In the block, the head's
         page and the words that `unpack` and commit.settle() use never move.
"""

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from papaya_pool import chatlog, commit, handoff, room
from papaya_pool import scoreboard as sb
from papaya_pool.handoff import Kind, Message, Sent

VERSION = 1
_PATIENCE_S = 10.0

_WORDS = (
    "dialect written_before start history_end input_read input_taken lines_taken "
    "written since_ms input_ms moves cpu_ns messages deaths death_taken alone "
    "ending bytes_out"
).split()


# --- a session as a record -----------------------------------------------------------


def pack(session: sb.SessionSlot, ring: memoryview) -> bytes:
    """Everything that another pool needs to go on.  Its owner only, after it stopped."""
    size = len(ring)
    unread = bytes(ring[at % size] for at in range(session.input_taken, session.input_read))
    record: dict[str, Any] = {word: getattr(session, word) for word in _WORDS}
    record["version"] = VERSION
    record["check"] = session.check()
    record["name"], record["address"] = session.name, session.address
    record["token"] = session.token.hex()
    record["preamble"], record["unread"] = session.preamble.hex(), unread.hex()
    return json.dumps(record).encode()


def unpack(record: bytes, session: sb.SessionSlot, board: sb.Scoreboard) -> None:
    """Fill a claimed slot.  Raises ValueError for a record of an unknown version."""
    fields = json.loads(record)
    if fields["version"] != VERSION:
        raise ValueError(f"session record of version {fields['version']}")
    for word in _WORDS:
        setattr(session, word, fields[word])
    session.set_check(*fields["check"])
    session.name, session.address = fields["name"], fields["address"]
    session.token = bytes.fromhex(fields["token"])
    session.preamble = bytes.fromhex(fields["preamble"])
    ring, size = board.ring(session.number), board.ring_bytes
    for at, byte in enumerate(bytes.fromhex(fields["unread"]), session.input_taken):
        ring[at % size] = byte
    session.exact = 1


# --- in the new supervisor -----------------------------------------------------------


def find(where: room.Room) -> sb.Scoreboard | None:
    """The block of a pool that still has living processes, if there is one."""
    name, board = where.scoreboard(), None
    while name and "/" not in name:
        try:
            board = sb.look(name, writable=True)
        except (FileNotFoundError, ValueError):
            return None
        name = board.moved_to
    return board if board and living(board) else None


def living(board: sb.Scoreboard) -> list[int]:
    """The pids of a block's processes that have something to hand over and still run."""
    pids = [slot.pid for slot in (*board.workers, board.acceptor) if slot.pid]
    return [pid for pid in pids if _is_ours(pid)]


def _is_ours(pid: int) -> bool:
    """Whether a pid is a living process of a pool: it may have been given again."""
    try:
        comm = Path(f"/proc/{pid}/comm").read_text()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return comm.startswith("papaya:") and state not in "ZX"


def move_head(old: sb.Scoreboard, new: sb.Scoreboard, log: chatlog.ChatLog) -> bool:
    """Make `new` the log's head.  False if the log's lock is not to be had now."""
    if not log.try_exclusive():
        return False
    head = old.head()
    if old.words[sb.H_HOLDER]:
        commit.settle(old, log, head)
        old.words[sb.H_HOLDER] = 0
    new.log_id = old.log_id
    new.publish(*head)
    old.moved_to = new.name
    log.unlock()
    return True


def end(board: sb.Scoreboard) -> None:
    """Kill what is left of an old pool, and take its block's name away."""
    for pid in [*living(board), *filter(_is_ours, [board.syncer.pid])]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{sb.SHM}/{board.name}")


def reap(pids: list[int]) -> None:
    """Reap old processes that were forked by this pid, before it became other code."""
    for pid in list(pids):
        try:
            done = os.waitpid(pid, os.WNOHANG)[0]
        except ChildProcessError:
            done = pid
        if done:
            pids.remove(pid)


# --- in an orphan --------------------------------------------------------------------


class Farewell:
    """An orphan's way to hand over what it has.  It blocks: it has nothing else to do."""

    def __init__(self, where: room.Room) -> None:
        """Raises OSError while nobody listens."""
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            room.control_address(where, self._control, "connect")
        except OSError:
            self._control.close()
            raise
        self._control.setblocking(False)
        self._until = time.monotonic() + _PATIENCE_S

    def give_sessions(self, sessions: Iterable[tuple[sb.SessionSlot, memoryview, int]]) -> bool:
        """Hand over (slot, ring, fd), each until it was taken.  Closes what was taken."""
        return all(self._give(slot.number, pack(slot, ring), fd) for slot, ring, fd in sessions)

    def give_listeners(self, listeners: Iterable[socket.socket]) -> bool:
        return all(self._say(Message(Kind.LISTENER), one.fileno()) for one in listeners)

    def _give(self, number: int, record: bytes, fd: int) -> bool:
        message = Message(Kind.SESSION, number, text=record)
        if not self._say(message, fd):
            return False
        os.close(fd)
        return True

    def _say(self, message: Message, fd: int) -> bool:
        while handoff.send(self._control, message, fd) is Sent.FULL:
            if not self._wait(select.POLLOUT):
                return False
        while self._wait(select.POLLIN):
            with contextlib.suppress(BlockingIOError):
                answer = handoff.receive(self._control)
                return answer is not None and answer.kind == Kind.TAKEN
        return False

    def _wait(self, event: int) -> bool:
        poll = select.poll()
        poll.register(self._control, event)
        return bool(poll.poll(max(0.0, self._until - time.monotonic()) * 1000))
