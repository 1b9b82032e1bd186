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
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from papaya_pool import chatlog, commit, handoff, room, wirecount
from papaya_pool import scoreboard as sb
from papaya_pool.handoff import Kind, Message, Sent

VERSION = 1
_PATIENCE_S = 10.0

_WORDS = (
    "dialect written_before start history_end input_read input_taken lines_taken "
    "written since_ms input_ms moves cpu_ns messages deaths death_taken alone "
    "ending bytes_out taken_before"
).split()


# --- a session as a record -----------------------------------------------------------


def pack(session: sb.SessionSlot, ring: memoryview, block: str) -> bytes:
    """Everything that another pool needs to go on.  Its owner only, after it stopped."""
    size = len(ring)
    unread = bytes(ring[at % size] for at in range(session.input_taken, session.input_read))
    record: dict[str, Any] = {word: getattr(session, word) for word in _WORDS}
    record["version"], record["block"] = VERSION, block
    record["exact"] = session.exact
    record["check"] = session.check()
    record["name"], record["address"] = session.name, session.address
    record["token"] = session.token.hex()
    record["preamble"], record["unread"] = session.preamble.hex(), unread.hex()
    return json.dumps(record).encode()


def pack_dead(old: sb.Scoreboard, session: sb.SessionSlot, fd: int) -> bytes:
    """The same for a session whose owner is dead: what it did not say, the kernel knows."""
    for slot in old.workers:
        if slot.incarnation == session.owner:
            session.step_out(*slot.check())
    count = wirecount.count(fd)
    if not session.exact and not count.is_over:
        session.input_read = count.consumed
    return pack(session, old.ring(session.number), old.name)


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
    session.exact = fields["exact"]


# --- in the new supervisor -----------------------------------------------------------


def find(where: room.Room) -> list[sb.Scoreboard]:
    """Blocks of old pools, if any of their processes lives.  The log's head is first.

    There are several if a supervisor died while it took over: then some of the
    processes before it have not handed over yet.
    """
    named = _look(where.scoreboard())
    chain = [named] if named else []
    while chain and chain[0].moved_to and (newer := _look(chain[0].moved_to)):
        chain.insert(0, newer)
    while chain and (older := _look(chain[-1].moved_from)):
        chain.append(older)
    return chain if any(living(board) for board in chain) else []


def _look(name: str | None) -> sb.Scoreboard | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        if name and "/" not in name:
            return sb.look(name, writable=True)
    return None


def living(board: sb.Scoreboard) -> list[int]:
    """The pids of a block's processes that have something to hand over and still run."""
    pids = [slot.pid for slot in (*board.workers, board.acceptor) if slot.pid]
    return [pid for pid in pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
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
    new.log_id, new.moved_from = old.log_id, old.name
    new.inherit_tokens(old)
    new.publish(*head)
    old.moved_to = new.name
    log.unlock()
    return True


def wake(board: sb.Scoreboard) -> None:
    """Let processes that somebody stopped go on: they are to hand over now."""
    for pid in living(board):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def end(board: sb.Scoreboard) -> None:
    """Kill what is left of an old pool, and take its block's name away."""
    for pid in [*living(board), *filter(is_alive, [board.syncer.pid])]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    forget(board)


def reap(pids: list[int]) -> None:
    """Reap old processes that were forked by this pid, before it became other code."""
    for pid in list(pids):
        try:
            done = os.waitpid(pid, os.WNOHANG)[0]
        except ChildProcessError:
            done = pid
        if done:
            pids.remove(pid)


def block_of(record: bytes) -> str:
    """Which pool a record comes from.  Raises ValueError if it is none."""
    return str(json.loads(record)["block"])


# --- in an orphan --------------------------------------------------------------------


def was_never_head(board: sb.Scoreboard) -> bool:
    """Whether the pool of a block died before the log's head was moved to it."""
    if not board.words[sb.H_N]:
        return True
    older = _look(board.moved_from)  # taken away by who took over from it
    return bool(older and older.moved_to != board.name)


def forget(board: sb.Scoreboard) -> None:
    """Take the name of a block away that nobody will ever need."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{sb.SHM}/{board.name}")


class Farewell:
    """An orphan's way to hand over what it has.  It blocks: it has nothing else to do."""

    def __init__(self, where: room.Room, board: sb.Scoreboard) -> None:
        """Raises OSError while nobody listens."""
        self._block = board.name
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            room.control_address(where, self._control, "connect")
        except OSError:
            self._control.close()
            raise
        self._control.setblocking(False)

    def give_sessions(self, sessions: Iterable[tuple[sb.SessionSlot, memoryview, int]]) -> bool:
        """Hand over (slot, ring, fd), each until it was taken.  Closes what was taken."""
        return all(
            self._give(slot.number, pack(slot, ring, self._block), fd)
            for slot, ring, fd in sessions
        )

    def give_listeners(self, listeners: Iterable[socket.socket]) -> bool:
        message = Message(Kind.LISTENER, text=json.dumps({"block": self._block}).encode())
        return all(self._say(message, one.fileno()) for one in listeners)

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
        return bool(poll.poll(_PATIENCE_S * 1000))
