"""Taking an old pool over, step by step, from the supervisor's loop.

Order:   our workers are ready; the log's head moves to our block (takeover.py); the
         old processes come one by one and hand over; only then an acceptor starts,
         so that slots are claimed by one process at a time.
Failure: an old process that is not heard of for five seconds is killed.  If a
         predecessor died while it took over, several pools hand over: the newest
         first, since who served a member last knows where it stands.
"""

import os
import socket
import time

from papaya_pool import chatlog, keeper, takeover
from papaya_pool import scoreboard as sb
from papaya_pool.handoff import Kind, Message
from papaya_pool.room import Room

_PATIENCE_S = 5.0


class Succession:
    """The old pools, newest first; none if there is nobody to take over from."""

    def __init__(self, room: Room, dups: dict[int, tuple[int, int]]) -> None:
        self.old = takeover.find(room)
        self._dups = dups  # of the newest old pool's members, after an upgrade
        self.listeners: list[socket.socket] = []  # that the old acceptor handed over
        self._room = room
        self._has_head = False
        self._until_s = 0.0  # for whose processes we wait no longer

    @property
    def under_way(self) -> bool:
        return bool(self.old)

    def take_head(self, board: sb.Scoreboard) -> bool:
        """Make ours the head of the log, once.  False while its lock is not to be had."""
        log = chatlog.ChatLog(self._room.log, writable=True)
        try:
            self._has_head = takeover.move_head(self.old[0], board, log)
        finally:
            log.close()
        board.words[sb.H_PORT] = self.old[0].words[sb.H_PORT]
        self._until_s = time.monotonic() + _PATIENCE_S
        for old in self.old:
            takeover.wake(old)
        return self._has_head

    def take(self, message: Message, sessions: keeper.Keeper) -> Message | None:
        """What an orphan hands over; the answer, or None: not now, come again."""
        taken = False
        if message.fd >= 0 and self._is_its_turn(message.text):
            if message.kind == Kind.SESSION:
                taken = sessions.adopt(message.text, message.fd)
                if taken and message.slot in self._dups:
                    os.close(self._dups.pop(message.slot)[1])
            elif message.kind == Kind.LISTENER:
                self.listeners.append(socket.socket(fileno=message.fd))
                taken = True
            self._until_s = time.monotonic() + _PATIENCE_S
        elif message.fd >= 0:
            os.close(message.fd)
        return Message(Kind.TAKEN, message.slot) if taken else None

    def _is_its_turn(self, record: bytes) -> bool:
        living = [old.name for old in self.old if takeover.living(old)]
        return self._has_head and takeover.block_of(record) in living[:1]

    def take_from_the_dead(self, sessions: keeper.Keeper) -> None:
        """Adopt what an old worker cannot hand over: it died, and we have the dups.

        Its members' streams stand still, so the kernel's counts are exact.
        """
        if not self._dups or not self.old or not self._has_head:
            return
        old = self.old[0]
        living = {slot.incarnation for slot in old.workers if takeover.is_alive(slot.pid)}
        for number, (generation, fd) in list(self._dups.items()):
            slot = old.session(number)
            theirs = slot.state == sb.LIVE and slot.generation == generation
            if theirs and slot.owner in living:
                continue
            if theirs and not sessions.adopt(takeover.pack_dead(old, slot, fd), fd):
                continue
            if not theirs:
                os.close(fd)
            del self._dups[number]

    def is_over(self, now: float) -> bool:
        """Whether nobody is left who has something to hand over."""
        waits = any(takeover.living(old) for old in self.old) and now < self._until_s
        return self._has_head and not waits

    def end(self) -> None:
        """Kill what is left of the old pools."""
        for old in self.old:
            takeover.end(old)

    def forget(self) -> None:
        """There is no old pool any more."""
        for _, fd in self._dups.values():
            os.close(fd)
        self._dups, self.old = {}, []
