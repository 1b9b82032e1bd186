"""An append: from the members' rings into the log, exactly once (laws 2, 4 and 8).

The obvious way, write and then note it, loses or doubles a message when its
process dies between the two.  Here every step leaves a state that the next holder
of the lock can finish, because one aligned store decides: what is published has
happened, all else has not.

Order:   lock; settle what a dead holder left; note who holds; mark every session
         (pending_position, pending_lines, pending_seq); write; publish; move the
         sessions' input_taken; clear the marks; clear the holder; unlock; set the
         latch.  PROTOCOLS.md has a row for a death after each of them.
Owner:   the holder of LOCK_EX.
Failure: what the disk refuses is cut back and Refused is raised with the senders'
         input still in their rings; nothing is lost, and it is tried again.
Format:  pending_seq is stored plus one, so that 0 means none in an empty log too.
"""

import time
from collections.abc import Iterable

from papaya_pool import chatlog, process, records
from papaya_pool.latch import Latch
from papaya_pool.scoreboard import (
    H_HOLDER,
    H_MOVED_TO,
    H_N,
    H_REFUSED,
    P_BYTES_IN,
    P_IN_HAND,
    P_MESSAGES,
    S_INPUT_TAKEN,
    S_LINES_TAKEN,
    S_MESSAGES,
    S_PENDING_LINES,
    S_PENDING_POSITION,
    S_PENDING_SEQ,
    Head,
    ProcessSlot,
    Scoreboard,
)
from papaya_pool.session import Prepared, Session


class Refused(Exception):
    """The disk did not take the append.  The log is as it was before."""


class Moved(Exception):
    """Another pool has the log's head now (law 11)."""


class Committer:
    """One worker's hand on the log."""

    def __init__(
        self,
        board: Scoreboard,
        slot: ProcessSlot,
        log: chatlog.ChatLog,
        latch: Latch,
        *,
        sync: bool,
    ) -> None:
        self._board, self._process, self._log = board, slot, log
        self._latch, self._sync = latch, sync

    def commit(self, sessions: Iterable[Session]) -> list[Prepared] | None:
        """Append what `sessions` have.  None if somebody else has the log locked.

        Raises Refused, and Moved.  Any other exception is a bug: the process must
        die without another step, and the next holder settles what it left.
        """
        batch = self._prepared(sessions)
        if not batch:
            return []
        words = self._board.words
        if not words[H_N] or not self._log.try_exclusive():
            return None  # without a head there is no log to append to (law 11)
        head = self._begin()
        batch = [_fresh(p) for p in batch]
        data, seq, time_ms = _encoded(batch, head)
        for p in batch:
            base = p.session.base
            words[base + S_PENDING_POSITION] = p.position
            words[base + S_PENDING_LINES] = words[base + S_LINES_TAKEN] + p.lines
            words[base + S_PENDING_SEQ] = seq + 1
        if data:
            self._write(batch, data, head)
            self._board.publish(seq, head.tail + len(data), time_ms)
        for p in batch:
            base = p.session.base
            words[base + S_INPUT_TAKEN] = p.position
            words[base + S_LINES_TAKEN] = words[base + S_PENDING_LINES]
            words[base + S_PENDING_SEQ] = 0
        words[H_HOLDER] = 0
        self._log.unlock()
        if data:
            self._latch.set()
        self._count(batch, seq - head.seq, len(data))
        return batch

    def _prepared(self, sessions: Iterable[Session]) -> list[Prepared]:
        words, in_hand = self._board.words, self._process.base + P_IN_HAND
        batch = []
        for session in sessions:
            words[in_hand] = session.number + 1  # who is to blame if this kills us
            prepared = session.prepare()
            if prepared:
                batch.append(prepared)
        words[in_hand] = 0
        return batch

    def _begin(self) -> Head:
        """The first steps under the lock; nothing of ours is pending yet."""
        board = self._board
        if board.octets[H_MOVED_TO]:
            self._log.unlock()
            raise Moved(board.moved_to)
        head = board.head()
        if board.words[H_HOLDER]:
            self._process.torn += settle(board, self._log, head)
        else:
            # Nobody died here, but somebody outside may have written to the file.
            self._log.cut(head.tail)
        board.words[H_HOLDER] = self._process.number + 1
        return head

    def _write(self, batch: list[Prepared], data: bytes, head: Head) -> None:
        words = self._board.words
        try:
            self._log.append(data, head.tail)
            if self._sync:
                self._process.deadline_ns = 0  # a disk may take as long as it takes
                self._log.sync()
        except OSError as err:
            self._log.cut(head.tail)
            for p in batch:
                words[p.session.base + S_PENDING_SEQ] = 0
            self._say_once(refused=True, reason=err.strerror)
            words[H_HOLDER] = 0
            self._log.unlock()
            raise Refused(err.strerror) from err
        self._say_once(refused=False)

    def _say_once(self, refused: bool, reason: str | None = None) -> None:
        """One line when the disk begins to refuse, one when it ends, for all workers."""
        words = self._board.words
        if bool(words[H_REFUSED]) != refused:
            words[H_REFUSED] = refused
            event = "log-refused" if refused else "log-resumed"
            process.log_line(self._process, event=event, reason=reason)

    def _count(self, batch: list[Prepared], messages: int, size_bytes: int) -> None:
        words, base = self._board.words, self._process.base
        words[base + P_MESSAGES] += messages
        words[base + P_BYTES_IN] += sum(p.position - p.taken for p in batch)
        for p in batch:
            words[p.session.base + S_MESSAGES] += sum(len(texts) for _, texts in p.runs)


def settle(board: Scoreboard, log: chatlog.ChatLog, head: Head) -> int:
    """Finish what a dead holder left, whoever owns the sessions now.  Under LOCK_EX.

    Leaves `holder` as it is: until the last slot is settled, that number is what
    tells the next one, should this process die here too.  Returns 1 if an
    unfinished append was cut off.
    """
    torn = log.cut(head.tail)
    for slot in board.pending():
        if slot.pending_seq - 1 <= head.seq:
            slot.input_taken = slot.pending_position
            slot.lines_taken = slot.pending_lines
        slot.pending_seq = 0
    return int(torn)


def _fresh(p: Prepared) -> Prepared:
    """`p`, or its like if settling moved its session meanwhile."""
    session = p.session
    if session.words[session.base + S_INPUT_TAKEN] == p.taken:
        return p
    taken = session.words[session.base + S_INPUT_TAKEN]
    return session.prepare() or Prepared(session, taken, taken, 0, [], None)


def _encoded(batch: list[Prepared], head: Head) -> tuple[bytes, int, int]:
    """(the lines to append, the last seq, the time they carry)."""
    time_ms = max(time.time_ns() // 1_000_000, head.time_ms)
    when = records.stamp(time_ms)
    parts: list[bytes] = []
    seq = head.seq
    for p in batch:
        for name, texts in p.runs:
            parts += records.stored(seq + 1, when, name, texts)
            seq += len(texts)
    return b"".join(parts), seq, time_ms

