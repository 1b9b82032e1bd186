"""What an administrator asks of a running pool, and what comes of it.

Every question is answered at once; what takes longer goes on step by step from
the supervisor's loop, and is seen in the scoreboard.

Owner:   runs in the supervisor.
Order:   one recycling and one upgrade at a time; a second one is refused.
Failure: a question that makes no sense is answered with why, and changes nothing.
Format:  control.py.
"""

import json
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from papaya_pool import bans, errors, handoff, process, upgrade
from papaya_pool import scoreboard as sb
from papaya_pool.children import Place
from papaya_pool.handoff import Kind, Message, Sent
from papaya_pool.room import Room


class Refused(Exception):
    """What was asked for cannot be."""


class Processes(Protocol):
    """What the office needs of the crew."""

    board: sb.Scoreboard
    places: list[Place]
    controls: dict[int, socket.socket]

    def kill(self, place: Place) -> None: ...


class House(Protocol):
    """What the office needs of the supervisor."""

    room: Room

    def open_door(self) -> None: ...

    def close_door(self) -> None: ...

    def read_key(self) -> None: ...

    def become(self, program: list[str]) -> None: ...


class Office:
    """The verbs of papaya-ctl that the supervisor carries out."""

    def __init__(self, house: House, crew: Processes) -> None:
        self._house, self._crew, self._board = house, crew, crew.board
        self._bans = bans.Bans(house.room.bans)
        self._bans.load()
        self._trial: upgrade.Trial | None = None
        self._trial_until = 0.0
        self._trial_failed = ""  # why the last one did
        self._to_recycle: list[int] = []  # workers, the next one first
        self._recycling: tuple[int, int] | None = None  # (worker, its old pid)
        self._verbs: dict[str, Callable[..., dict[str, Any]]] = {
            "drain": self._drain,
            "rebalance": self._rebalance,
            "pause": self._pause,
            "resume": self._resume,
            "recycle": self._recycle,
            "kick": self._kick,
            "ban": self._ban,
            "unban": self._unban,
            "bans": self._list_bans,
            "upgrade": self._upgrade,
            "upgraded": self._upgraded,
            "reload": self._reload,
        }

    @property
    def busy(self) -> bool:
        """Whether something is under way that wants looking after."""
        return bool(self._trial or self._to_recycle or self._recycling)

    def ask(self, question: bytes, who: str) -> bytes:
        """Carry out what is asked; the answer."""
        try:
            asked = [str(word) for word in json.loads(question)["words"]]
            answer: dict[str, Any] = self._verbs[asked[0]](*asked[1:])
        except Refused as err:
            answer = {"ok": False, "error": str(err)}
        except (LookupError, TypeError, ValueError):
            answer, asked = {"ok": False, "error": "not understood"}, []
        if asked[:1] != ["upgraded"]:  # asked again and again, and changes nothing
            process.log_line(
                self._board.supervisor, event="asked", what=" ".join(asked), by=who,
                error=answer.get("error"),
            )  # fmt: skip
        return json.dumps(answer).encode()

    def go_on(self) -> None:
        """One step of whatever is under way."""
        if self._trial:
            self._judge_trial()
        if self._recycling and self._is_replaced(*self._recycling):
            self._recycling = None
        if self._to_recycle and not self._recycling:
            self._replace(self._to_recycle.pop(0))

    # --- sessions ---

    def _drain(self, worker: str) -> dict[str, Any]:
        number = self._worker(worker)
        others = [s for s in self._board.workers if s.number != number]
        if not any(slot.state == sb.SERVING for slot in others):
            raise Refused("no other worker serves")
        self._crew.places[number].drained = True
        self._board.workers[number].state = sb.DRAINING
        if number in self._crew.controls:
            handoff.send(self._crew.controls[number], Message(Kind.DRAIN))
        return {"ok": True, "worker": number}

    def _rebalance(self) -> dict[str, Any]:
        for place in self._crew.places[: len(self._board.workers)]:
            place.drained = False
            if place.child and place.child.ready:
                self._board.workers[place.slot].state = sb.SERVING
        serving = [s for s in self._board.workers if s.state == sb.SERVING]
        moves = shares([slot.sessions for slot in serving])
        for giver, taker, count in moves:
            order = Message(Kind.GIVE, serving[taker].number, value=count)
            handoff.send(self._crew.controls[serving[giver].number], order)
        return {"ok": True, "moves": sum(count for _, _, count in moves)}

    def _ban(self, what: str, duration: str = "") -> dict[str, Any]:
        """Keep a name, an address or a network out; who is in is shown the door."""
        now_ms = time.time_ns() // 1_000_000
        try:
            until_ms = now_ms + bans.seconds(duration) * 1000 if duration else 0
            self._bans.add(what, until_ms)
        except (ValueError, errors.PoolFault) as err:
            raise Refused(str(err)) from err
        self._tell_acceptor()
        ended = 0
        for session in self._board.sessions():
            if self._bans.keeps_out(session.name, session.address, now_ms):
                ended += self._show_out(session, b"banned")
        return {"ok": True, "ended": ended}

    def _unban(self, what: str) -> dict[str, Any]:
        try:
            known = self._bans.remove(what)
        except (ValueError, errors.PoolFault) as err:
            raise Refused(str(err)) from err
        if not known:
            raise Refused(f"{what} is not banned")
        self._tell_acceptor()
        return {"ok": True}

    def _list_bans(self) -> dict[str, Any]:
        return {"ok": True, "bans": self._bans.listed(time.time_ns() // 1_000_000)}

    def _tell_acceptor(self) -> None:
        control = self._crew.controls.get(len(self._board.workers) + sb.ACCEPTOR)
        if control:
            handoff.send(control, Message(Kind.RELOAD))

    def _show_out(self, session: sb.SessionSlot, code: bytes) -> bool:
        owner = self._board.owner_of(session.owner)
        if session.state != sb.LIVE or not owner:
            return False
        order = Message(Kind.KICK, session.number, session.generation, text=code)
        return handoff.send(self._crew.controls[owner.number], order) is Sent.SENT

    def _kick(self, number: str, generation: str = "") -> dict[str, Any]:
        if not 0 <= int(number) < self._board.session_count:
            raise Refused("no such session")
        session = self._board.session(int(number))
        stale = generation and session.generation != int(generation)
        if stale or not self._show_out(session, b"kicked"):
            raise Refused("no such session")
        return {"ok": True}

    # --- the door ---

    def _pause(self) -> dict[str, Any]:
        self._house.close_door()
        return {"ok": True}

    def _resume(self) -> dict[str, Any]:
        try:
            self._house.open_door()
        except errors.CannotCreate as err:
            raise Refused(str(err)) from err
        return {"ok": True}

    # --- processes ---

    def _recycle(self, worker: str | None = None) -> dict[str, Any]:
        if self._to_recycle or self._recycling:
            raise Refused("a recycling is under way")
        count = len(self._board.workers)
        self._to_recycle = [self._worker(worker)] if worker else list(range(count))
        return {"ok": True, "workers": len(self._to_recycle)}

    def _replace(self, number: int) -> None:
        """A replacement is a death that was asked for: the same act (crash-only)."""
        child = self._crew.places[number].child
        if child:
            self._recycling = number, child.pid
            self._crew.kill(self._crew.places[number])

    def _is_replaced(self, number: int, old_pid: int) -> bool:
        child = self._crew.places[number].child
        return bool(child and child.ready and child.pid != old_pid)

    def _upgrade(self) -> dict[str, Any]:
        self.upgrade("papaya-ctl")
        return {"ok": True, "block": self._board.name}

    def _upgraded(self) -> dict[str, Any]:
        """How an upgrade goes: the block's name changes when it is done."""
        trial = bool(self._trial)
        return {"ok": True, "block": self._board.name, "trial": trial,
                "refused": self._trial_failed}  # fmt: skip

    def upgrade(self, by: str) -> None:
        """Try the code that is on disk now, and become it if it works."""
        if self._trial:
            return
        process.log_line(self._board.supervisor, event="trial", by=by)
        self._trial_failed = ""
        self._trial = upgrade.Trial()
        self._trial_until = time.monotonic() + upgrade.TRIAL_S

    def _judge_trial(self) -> None:
        assert self._trial
        verdict = self._trial.verdict()
        if verdict is None and time.monotonic() < self._trial_until:
            return
        self._trial.close()
        self._trial = None
        if verdict == "" and sb.free_bytes() < len(self._board.octets):
            verdict = f"{sb.SHM} has no room for a second block"
        if verdict == "":
            self._house.become(upgrade.program())
            return
        self._trial_failed = why = verdict or f"not ready within {upgrade.TRIAL_S:.0f} s"
        process.log_line(self._board.supervisor, event="upgrade-refused", reason=why)

    def _reload(self) -> dict[str, Any]:
        self.reload("papaya-ctl")
        return {"ok": True}

    def reload(self, by: str) -> None:
        """Read the key again; who is in stays in."""
        try:
            self._house.read_key()
        except errors.PoolFault as err:
            process.log_line(self._board.supervisor, event="reload-refused", reason=err)
        else:
            process.log_line(self._board.supervisor, event="reloaded", by=by)

    def _worker(self, word: str) -> int:
        number = int(str(word).removeprefix("w"))
        if not 0 <= number < len(self._board.workers):
            raise Refused(f"no worker {number}: there are {len(self._board.workers)}")
        return number


def shares(counts: list[int]) -> list[tuple[int, int, int]]:
    """Moves (from, to, how many) after which no two counts differ by more than 1."""
    if not counts:
        return []
    least, extra = divmod(sum(counts), len(counts))
    fullest = sorted(range(len(counts)), key=lambda n: -counts[n])
    over = {n: counts[n] - least - (rank < extra) for rank, n in enumerate(fullest)}
    moves: list[tuple[int, int, int]] = []
    takers = [n for n in over if over[n] < 0]
    for giver in (n for n in over if over[n] > 0):
        while over[giver] > 0:
            taker = next(n for n in takers if over[n] < 0)
            count = min(over[giver], -over[taker])
            over[giver] -= count
            over[taker] += count
            moves.append((giver, taker, count))
    return moves
