"""Sessions on their way from this worker to another (law 6).

To give: stop polling, store `owner`, send.  What was sent may still be lost, so our
dup of the socket stays open until `seated` says that somebody has it.

Owner:   one worker, of the dups in here.
Failure: who cannot send tells the supervisor, which has a dup of its own and sends
         again.  An orphan has no supervisor, and sends again itself.
"""

import os
import socket
from collections.abc import Iterator

from papaya_pool import handoff
from papaya_pool import scoreboard as sb
from papaya_pool.handoff import Kind, Message, Sent
from papaya_pool.session import Session


class Moves:
    """What this worker has given away and may still have to look after."""

    def __init__(
        self, board: sb.Scoreboard, inboxes: list[tuple[socket.socket, socket.socket]]
    ) -> None:
        self._board, self._inboxes = board, inboxes
        self._given: dict[int, tuple[int, int]] = {}  # by slot: generation, our dup

    def give(self, member: Session, peer: sb.ProcessSlot) -> bool:
        """Make `peer` the owner of a session that we no longer serve, and send it.

        Consumes the session's descriptor.  False if it could not be sent now.
        """
        member.slot.moves += 1
        member.slot.owner = peer.incarnation
        if member.number in self._given:  # it came back meanwhile
            os.close(self._given[member.number][1])
        self._given[member.number] = member.generation, member.fd
        return self._send(member.number, member.generation, member.fd)

    def drop_seated(self, send_again: bool) -> None:
        """Close our dups of sessions that somebody else holds now."""
        for number, (generation, fd) in list(self._given.items()):
            slot = self._board.session(number)
            gone = slot.generation != generation or slot.state != sb.LIVE
            if gone or slot.seated == slot.owner:
                os.close(fd)
                del self._given[number]
            elif send_again:
                self._send(number, generation, fd)

    def unseated(self) -> Iterator[tuple[sb.SessionSlot, int]]:
        """Sessions that nobody took, with our dup; who asks for the next has taken it."""
        for number, (generation, fd) in list(self._given.items()):
            slot = self._board.session(number)
            if slot.generation == generation and slot.seated != slot.owner:
                yield slot, fd
                del self._given[number]

    def _send(self, number: int, generation: int, fd: int) -> bool:
        owner = self._board.owner_of(self._board.session(number).owner)
        if owner is None:
            return False
        message = Message(Kind.HANDOFF, number, generation)
        return handoff.send(self._inboxes[owner.number][1], message, fd) is Sent.SENT


def spread(count: int, board: sb.Scoreboard) -> list[tuple[int, int]]:
    """(worker, how many): `count` sessions for those who serve, the idlest first."""
    load = {slot.number: slot.sessions for slot in board.workers if slot.state == sb.SERVING}
    share = dict.fromkeys(load, 0)
    for _ in range(count if load else 0):
        number = min(load, key=lambda n: load[n])
        load[number] += 1
        share[number] += 1
    return [(number, many) for number, many in share.items() if many]
