"""The supervisor's half of every session: a dup of its socket, and whose it is.

A TCP connection lives as long as somebody holds it open.  The keeper holds each
member's, so a worker can be killed at any instruction and nobody is disconnected;
and because it alone deals, nobody is ever served by two.

Owner:   of `owner` in a slot whose owner was *seen* dead, and of freeing slots.
Order:   close the dup, then free the slot.  A slot that was free while its dup was
         open would let one member hear another (law 10).
Failure: it looks at states and not at events (law 6).  A handoff that was lost is
         sent again; one that arrives twice is ignored by who has it already.
"""

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator

from papaya_pool import handoff, records, takeover
from papaya_pool import scoreboard as sb
from papaya_pool.handoff import Kind, Message, Sent
from papaya_pool.process import Seat

_AT_FAULT_TWICE = 2


class Keeper:
    """Every session of the pool, as the supervisor sees it."""

    def __init__(
        self,
        board: sb.Scoreboard,
        inboxes: list[tuple[socket.socket, socket.socket]],
        living: Callable[[], set[int]],
    ) -> None:
        self._board, self._inboxes = board, inboxes
        self._living = living  # the incarnations that were not seen dead
        self._kept: dict[int, tuple[int, int]] = {}  # by slot: generation, dup
        self._adopted: set[int] = set()  # inodes of the sockets from an old pool
        self.unsure = False  # whether some inbox was full: look() again soon
        self._given: Counter[int] = Counter()  # by worker: adopted sessions

    # --- keeping and freeing ---

    def keep(self, message: Message) -> bool:
        """Keep the dup of a session that is being admitted.  Consumes its fd."""
        session = self._session(message)
        if session is None or session.state != sb.CLAIMED:
            os.close(message.fd)
            return False
        self._kept[message.slot] = message.generation, message.fd
        return True

    def closed(self, message: Message) -> None:
        """A session's owner is done with it."""
        session = self._session(message)
        if session and session.state == sb.CLOSING:
            self.free(session)

    def free(self, session: sb.SessionSlot) -> None:
        """Close our dup, and with it the connection; then the slot is free."""
        _, fd = self._kept.pop(session.number, (0, -1))
        if fd >= 0:
            with contextlib.suppress(OSError), socket.socket(fileno=fd) as conn:
                conn.shutdown(socket.SHUT_RDWR)
        if session.token and session.state != sb.CLAIMED:
            taken = session.taken_before + session.lines_taken
            name = records.name_hash(session.name)
            self._board.remember(session.token, name, taken, time.time_ns() // 1_000_000)
        session.state = sb.FREE

    def free_claimed(self) -> None:
        """The acceptor died: what it had not made live yet comes to nothing."""
        for session in self._board.sessions():
            unkept = session.number not in self._kept
            if session.state == sb.CLAIMED or (session.state == sb.CLOSING and unkept):
                self.free(session)

    def dups(self) -> dict[int, tuple[int, int]]:
        """By slot: generation, dup.  They stay the keeper's."""
        return dict(self._kept)

    def free_all(self) -> None:
        for number in list(self._kept):
            self.free(self._board.session(number))

    # --- dealing ---

    def orphans(self) -> Iterator[sb.SessionSlot]:
        """Live sessions whose owner is dead and whose dup we keep."""
        living = self._living()
        for session in self._astir():
            if session.state == sb.LIVE and session.owner not in living:
                yield session

    def _astir(self) -> Iterator[sb.SessionSlot]:
        """Sessions with which something is going on, of all that we keep.

        In plain words and no objects: this looks at everybody, every second.
        """
        words, first, size = self._board.words, self._board.session(0).base, sb.SESSION_WORDS
        living = self._living()
        for number in list(self._kept):
            base = first + number * size
            owner = words[base + sb.S_OWNER]
            at_rest = words[base] == sb.LIVE and words[base + sb.S_SEATED] == owner
            if not at_rest or owner not in living:
                yield self._board.session(number)

    def deal_to(self, slot: sb.ProcessSlot, incarnation: int) -> list[Seat]:
        """Give a worker that is about to be forked all orphans; it inherits the dups."""
        seats = []
        for session in self.orphans():
            session.seated = 0
            session.owner = incarnation
            session.moves += 1
            generation, fd = self._kept[session.number]
            seats.append(Seat(session.number, generation, fd))
        return seats

    def deal(self) -> None:
        """Give the orphans to the living, the idlest first."""
        load = {slot.number: slot.sessions for slot in self._serving()}
        for session in list(self.orphans()) if load else []:
            number = min(load, key=lambda n: load[n])
            load[number] += 1
            self._give(session, self._board.workers[number])

    def hand_off(self, message: Message) -> None:
        """Send a session again whose owner could not be sent it."""
        session = self._session(message)
        if session and session.state == sb.LIVE and session.seated != session.owner:
            self._send(session)

    def look(self) -> None:
        """Look at every state, whatever was or was not reported."""
        self.unsure = False
        for session in self._astir():
            if session.state == sb.CLOSING:
                self.free(session)
            elif session.state == sb.LIVE and session.seated != session.owner:
                self._send(session)

    def _serving(self) -> list[sb.ProcessSlot]:
        return [slot for slot in self._board.workers if slot.state == sb.SERVING]

    def _give(self, session: sb.SessionSlot, slot: sb.ProcessSlot) -> None:
        # In this order: a stale handoff may let `owner` seat it at any moment.
        session.seated = 0
        session.owner = slot.incarnation
        session.moves += 1
        self._send(session)

    def _send(self, session: sb.SessionSlot) -> None:
        slot = self._board.owner_of(session.owner)
        if slot and session.number in self._kept:
            generation, fd = self._kept[session.number]
            message = Message(Kind.HANDOFF, session.number, generation)
            outcome = handoff.send(self._inboxes[slot.number][1], message, fd)
            self.unsure |= outcome is Sent.FULL

    def _session(self, message: Message) -> sb.SessionSlot | None:
        if message.slot >= self._board.session_count:
            return None
        session = self._board.session(message.slot)
        return session if session.generation == message.generation else None

    # --- after a death ---

    def bury(self, slot: sb.ProcessSlot, at_fault: bool) -> sb.SessionSlot | None:
        """Note what a worker's death means for its sessions; the one quarantined.

        `at_fault`: it can have been the input's fault.  Then the session in hand is
        tried once more, alone; if that kills its worker too, without any progress
        in between, it is closed (law 13).
        """
        for session in self.orphans():
            if session.owner == slot.incarnation:
                session.step_out(*slot.check())
        in_hand, slot.in_hand = slot.in_hand, 0
        if not at_fault or not in_hand:
            return None
        session = self._board.session(in_hand - 1)
        if session.state != sb.LIVE or session.owner != slot.incarnation:
            return None
        moved = session.input_taken != session.death_taken
        session.deaths = 1 if moved or not session.deaths else session.deaths + 1
        session.death_taken = session.input_taken
        session.alone = 1
        if session.deaths < _AT_FAULT_TWICE:
            return None
        self.free(session)
        return session

    # --- from another pool ---

    def adopt(self, record: bytes, fd: int) -> bool:
        """Give a session of an old pool a slot and a worker here.  Consumes `fd`.

        False if nobody can serve it now.  Before there is an acceptor: only one may
        claim slots.  Raises ValueError for a record that cannot be understood.
        """
        inode = os.fstat(fd).st_ino
        if inode in self._adopted:  # its old worker had no answer from our predecessor
            os.close(fd)
            return True
        serving = self._serving()
        session = self._board.claim() if serving else None
        if session is None:
            os.close(fd)
            return False
        try:
            takeover.unpack(record, session, self._board)
        except (ValueError, LookupError, TypeError, AttributeError):
            session.state = sb.FREE
            os.close(fd)
            raise
        self._adopted.add(inode)
        self._kept[session.number] = session.generation, fd
        worker = min(serving, key=lambda slot: self._given[slot.number])
        self._given[worker.number] += 1
        session.owner = worker.incarnation
        session.state = sb.LIVE
        self._send(session)
        return True
