"""The acceptor: the only process that strangers can reach.

It accepts, logs in, gives a session slot and hands the socket to a worker.  Flood
it, pause it or kill it: members do not notice, because none of them is here.

Order:   admission (law 10): claim a slot, write its fields, a dup to the supervisor
         and its acknowledgement, `owner`, live, hand off.  Sooner, and a death in
         between loses a session that was told it is in.
Owner:   of a slot from `claimed` until it stores `owner`.
Failure: a stranger's mistake closes one connection.  Without a supervisor nobody
         is admitted: connections wait in the listener's queue until there is one.
Not here: writing.  The acceptor's opening of the log is read-only.
"""

import contextlib
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Literal

from papaya_pool import (
    answers,
    bans,
    chatlog,
    dialects,
    errors,
    handoff,
    listener,
    poller,
    process,
    records,
    takeover,
)
from papaya_pool import scoreboard as sb
from papaya_pool.answers import Answer
from papaya_pool.dialects import Admit, Login, Refuse, Send
from papaya_pool.handoff import Kind, Message, Sent
from papaya_pool.process import Pool
from papaya_pool.settings import is_loopback

_HISTORY_LINES = 7  # what the original server sends first
_ACCEPTED_A_TURN = 64
_KEPT_AT_ONCE = 128  # dups in flight; a queue holds some 278
_READ_BYTES = 1024
_TICK_S = 1.0
_SHORT_S = 0.02
_ANSWER_S = 60.0  # for reading an answer


@dataclass(slots=True)
class Stranger:
    """A connection that has not been admitted."""

    conn: socket.socket
    address: str
    login: Login
    deadline_s: float
    said: int = 0  # bytes that we wrote to it
    answer: Answer | None = None  # to a question, on its way
    admit: Admit | None = None  # waits for an earlier session of its own to end
    earlier: tuple[int, int] = (0, 0)  # that one's slot and generation
    taken: int | Literal["?"] | None = None  # lines of its token that were dealt with


class Acceptor:
    """The state of the acceptor's process."""

    def __init__(
        self, pool: Pool, control: socket.socket, listeners: list[socket.socket], key: bytes
    ) -> None:
        self._pool, self._board, self._control = pool, pool.board, control
        self._slot = pool.board.acceptor
        self._log = chatlog.ChatLog(pool.room.log, writable=False)
        self._key, self._proof_key = key, dialects.proof_key(key)
        self._listeners = {one.fileno(): one for one in listeners}
        self._strangers: dict[int, Stranger] = {}  # by fd, oldest first
        self._successors: dict[int, Stranger] = {}  # by fd: log in again with a token
        self._tokens = {
            slot.token: slot.number for slot in pool.board.sessions() if slot.token
        }
        self._to_keep: dict[int, Stranger] = {}  # by slot, claimed
        self._claimed: dict[int, Stranger] = {}  # by slot, sent to the supervisor
        self._handed: dict[int, tuple[int, int, socket.socket]] = {}
        self._unsure = [0] * pool.board.worker_count  # handed to it, not seated yet
        self._returned: list[int] = []  # slots given back, and not told yet
        self._bans = bans.Bans(pool.room.bans)
        self._read_bans()
        self._reserve = listener.Reserve()
        self._events = poller.make(pool.settings.portable)
        self._events.register(control.fileno(), poller.IN)
        self._open = False
        self._orphaned = False

    def run(self) -> int:
        """Admit strangers for as long as there is a supervisor to keep their dups."""
        next_tick = 0.0
        while True:
            self._open_door(
                not self._orphaned and len(self._strangers) < self._pool.settings.strangers
            )
            soon = self._handed or self._orphaned or self._successors
            pause = _SHORT_S if soon else _TICK_S
            events = self._events.poll(pause)
            now = time.monotonic()
            self._slot.deadline_ns = int((now + self._pool.settings.worker_deadline_s) * 1e9)
            for fd, _ in events:
                if fd in self._strangers:
                    self._attend(self._strangers[fd])
                elif fd in self._listeners:
                    self._accept(self._listeners[fd], now)
                elif fd == self._control.fileno():
                    self._obey()
            if self._handed:
                self._drop_seated()
            if self._successors:
                self._succeed()
            if now >= next_tick:
                next_tick = now + _TICK_S
                self._send_away_overdue(now)
            if self._orphaned and self._board.moved_to and self._hand_over():
                return errors.EX_OK

    def _read_bans(self) -> None:
        try:
            self._bans.load()
        except errors.BadConfig as err:
            process.log_line(self._slot, event="bans-unread", reason=err)

    def _is_banned(self, name: str, address: str) -> bool:
        return self._bans.keeps_out(name, address, time.time_ns() // 1_000_000)

    # --- strangers ---

    def _open_door(self, wanted: bool) -> None:
        if wanted != self._open:
            self._open = wanted
            for fd in self._listeners:
                if wanted:
                    self._events.register(fd, poller.IN)
                else:
                    self._events.unregister(fd)

    def _accept(self, door: socket.socket, now: float) -> None:
        for _ in range(_ACCEPTED_A_TURN):
            try:
                accepted = listener.accept(door)
            except listener.OutOfDescriptors:
                full = errors.SessionFault("full", "no descriptors left, try again later")
                self._reserve.turn_away(door, full.wire())
                self._slot.refused += 1
                return
            if accepted is None:
                return
            conn, address = accepted
            login = Login(
                key_digits=self._key,
                proof_key=self._proof_key,
                server_nonce=secrets.token_hex(16).encode(),
                classic_allowed=self._pool.settings.classic or is_loopback(conn.getsockname()[0]),
            )
            deadline = now + self._pool.settings.login_deadline_s
            stranger = Stranger(conn, address, login, deadline)
            self._strangers[conn.fileno()] = stranger
            self._events.register(conn.fileno(), poller.IN)
            if self._is_banned("", address):
                self._refuse(stranger, "banned", "this address is banned here")
                continue
            self._hear(stranger)  # the first bytes are often there already

    def _attend(self, stranger: Stranger) -> None:
        if stranger.answer:
            self._go_on_answering(stranger)
        else:
            self._hear(stranger)

    def _hear(self, stranger: Stranger) -> None:
        try:
            data = stranger.conn.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._forget(stranger)
            return
        for effect in stranger.login.feed(data):
            if isinstance(effect, Send):
                self._tell(stranger, effect.data)
            elif isinstance(effect, Refuse):
                self._refuse(stranger, effect.code, effect.words)
            elif effect.question:
                self._answer(stranger, effect)
            else:
                self._welcome(stranger, effect)

    def _tell(self, stranger: Stranger, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full or broken socket: its own problem
            stranger.said += stranger.conn.send(data)

    def _refuse(self, stranger: Stranger, code: str, words: str) -> None:
        self._slot.refused += 1
        process.log_line(
            self._slot, event="refused", address=stranger.address, code=code or "key"
        )
        if code:
            self._tell(stranger, errors.SessionFault(code, words).wire())
        self._forget(stranger)

    def _forget(self, stranger: Stranger) -> None:
        self._put_aside(stranger)
        # What the stranger sent and nobody read would turn the close into a reset,
        # and eat the words of a refusal.
        with contextlib.suppress(OSError):
            stranger.conn.shutdown(socket.SHUT_WR)
            for _ in range(16):
                stranger.conn.recv(65536)
        stranger.conn.close()

    def _send_away_overdue(self, now: float) -> None:
        returned, self._returned = self._returned, []
        for number in returned:
            self._give_back(number)
        for stranger in list(self._strangers.values()):
            if stranger.deadline_s > now:
                continue
            if stranger.answer:
                self._forget(stranger)
                continue
            self._refuse(stranger, "timeout", "no login within the time for it")
        for number, stranger in [*self._claimed.items(), *self._to_keep.items()]:
            if stranger.deadline_s <= now:
                self._claimed.pop(number, None)
                self._to_keep.pop(number, None)
                self._give_back(number)
                self._refuse(stranger, "busy", "the supervisor did not answer in time")

    def _put_aside(self, stranger: Stranger) -> None:
        if self._strangers.pop(stranger.conn.fileno(), None):
            self._events.unregister(stranger.conn.fileno())

    # --- questions ---

    def _answer(self, stranger: Stranger, asked: Admit) -> None:
        head = self._board.head()
        ok = dialects.ok_line(asked.proof, head.seq, self._board.log_id)
        if asked.question == "who":
            stranger.answer = answers.who(ok, self._board)
        else:
            try:
                stranger.answer = answers.said(ok, head, self._log, asked.first, asked.to)
            except errors.LogCorrupt as err:
                process.log_line(self._slot, event="log-damaged", reason=err)
                self._refuse(stranger, "busy", "the log cannot be read there")
                return
        # To the end of the line: those before it may have less patience left.
        self._strangers.pop(stranger.conn.fileno())
        self._strangers[stranger.conn.fileno()] = stranger
        stranger.deadline_s = time.monotonic() + _ANSWER_S
        self._events.modify(stranger.conn.fileno(), poller.OUT)

    def _go_on_answering(self, stranger: Stranger) -> None:
        assert stranger.answer
        try:
            done = stranger.answer.send(stranger.conn.fileno(), self._log)
        except BlockingIOError:
            return
        except OSError:
            done = True
        if done:
            self._forget(stranger)

    # --- who logs in again with a token: the earlier session ends first ---

    def _welcome(self, stranger: Stranger, admit: Admit) -> None:
        if self._is_banned(admit.name, ""):
            self._refuse(stranger, "banned", "this name is banned here")
            return
        if not admit.token:
            self._admit(stranger, admit)
            return
        earlier = self._earlier(admit)
        if earlier is None:
            stranger.taken = self._recall(admit)
            self._admit(stranger, admit)
            return
        stranger.admit, stranger.earlier = admit, (earlier.number, earlier.generation)
        self._put_aside(stranger)
        self._successors[stranger.conn.fileno()] = stranger
        self._succeed()

    def _earlier(self, admit: Admit) -> sb.SessionSlot | None:
        number = self._tokens.get(admit.token)
        if number is None:
            return None
        slot = self._board.session(number)
        same = slot.token == admit.token and slot.state != sb.FREE
        return slot if same and records.same_name(slot.name, admit.name) else None

    def _recall(self, admit: Admit) -> int | Literal["?"]:
        now_ms = time.time_ns() // 1_000_000
        taken = self._board.recall(admit.token, records.name_hash(admit.name), now_ms)
        return "?" if taken is None else taken

    def _succeed(self) -> None:
        """Admit those whose earlier session has come to its end, and only those."""
        now = time.monotonic()
        for fd, stranger in list(self._successors.items()):
            number, generation = stranger.earlier
            slot = self._board.session(number)
            gone = slot.generation != generation or slot.state == sb.FREE
            assert stranger.admit
            if gone or slot.state == sb.CLOSING:
                del self._successors[fd]
                if gone:
                    stranger.taken = self._recall(stranger.admit)
                else:
                    stranger.taken = slot.taken_before + slot.lines_taken
                self._admit(stranger, stranger.admit)
            elif now >= stranger.deadline_s:
                del self._successors[fd]
                self._refuse(stranger, "busy", "the earlier session does not end")
            else:
                self._ask_to_end(slot)

    def _ask_to_end(self, slot: sb.SessionSlot) -> None:
        owner = self._board.owner_of(slot.owner)
        if owner:
            message = Message(Kind.SUPERSEDE, slot.number, slot.generation)
            handoff.send(self._pool.inboxes[owner.number][1], message)

    # --- admission (law 10) ---

    def _admit(self, stranger: Stranger, admit: Admit) -> None:
        head = self._board.head()
        if admit.since is not None and admit.since > head.seq:
            self._refuse(stranger, "since", f"this log ends at {head.seq}")
            return
        slot = self._board.claim()
        if slot is None:
            self._refuse(stranger, "full", "every place is taken, try again later")
            return
        self._put_aside(stranger)  # what it says from now on is the worker's to read
        try:
            self._fill(slot, stranger, admit, head)
        except errors.LogCorrupt as err:
            process.log_line(self._slot, event="log-damaged", reason=err)
            self._give_back(slot.number)
            self._refuse(stranger, "busy", "the log cannot be read there")
            return
        self._to_keep[slot.number] = stranger
        self._send_to_keep()

    def _send_to_keep(self) -> None:
        """Send dups to the supervisor, as many as it can answer without a full queue."""
        while self._to_keep and len(self._claimed) < _KEPT_AT_ONCE:
            number, stranger = next(iter(self._to_keep.items()))
            keep = Message(Kind.KEEP, number, self._board.session(number).generation)
            sent = handoff.send(self._control, keep, stranger.conn.fileno())
            if sent is not Sent.SENT:
                return  # after the next answer
            self._claimed[number] = self._to_keep.pop(number)

    def _fill(
        self, slot: sb.SessionSlot, stranger: Stranger, admit: Admit, head: sb.Head
    ) -> None:
        """Everything that a worker needs to know, in the slot and its ring."""
        slot.dialect = sb.DIALECTS.index(admit.dialect)
        slot.name, slot.address, slot.token = admit.name, stranger.address, admit.token
        wanted = _HISTORY_LINES if admit.dialect == "classic" else admit.last
        since = admit.since if admit.since is not None else max(0, head.seq - (wanted or 0))
        slot.start = head.tail
        if since < head.seq:
            slot.start = self._log.offset_behind(since, head.tail)
        slot.history_end = head.tail
        if admit.dialect == "native":
            slot.written_before = stranger.said
            slot.preamble = dialects.ok_line(
                admit.proof, head.seq, self._board.log_id, stranger.taken
            )
            if isinstance(stranger.taken, int):
                slot.taken_before = stranger.taken
        if admit.token:
            self._tokens[admit.token] = slot.number
        slot.input_taken = admit.received
        slot.input_read = admit.received + len(admit.rest)
        ring, size = self._board.ring(slot.number), self._board.ring_bytes
        for at, byte in enumerate(admit.rest, admit.received):
            ring[at % size] = byte
        slot.since_ms = slot.input_ms = time.time_ns() // 1_000_000
        slot.written = slot.written_before
        slot.set_check(slot.start, slot.written)
        slot.exact = 1

    def _give_back(self, number: int) -> None:
        """A claimed slot that comes to nothing; the supervisor frees it."""
        slot = self._board.session(number)
        slot.state = sb.CLOSING
        closed = Message(Kind.CLOSED, number, slot.generation)
        if handoff.send(self._control, closed) is not Sent.SENT:
            self._returned.append(number)  # nobody else knows of it: say it again

    def _obey(self) -> None:
        self._drop_seated()  # else who sits already would count twice
        messages, gone = handoff.receive_all(self._control)
        for message in messages:
            if message.kind == Kind.KEPT:
                self._seat(message)
            elif message.kind == Kind.RELOAD:
                self._read_bans()
        self._send_to_keep()
        if gone and not self._orphaned:
            self._orphaned = True
            self._events.unregister(self._control.fileno())

    def _hand_over(self) -> bool:
        """Give the listening sockets to the pool that has taken over."""
        try:
            farewell = takeover.Farewell(self._pool.room, self._board)
        except OSError:
            return False
        return farewell.give_listeners(self._listeners.values())

    def _seat(self, kept: Message) -> None:
        """The dup is safe: the session goes live, and to a worker."""
        slot = self._board.session(kept.slot)
        if slot.generation != kept.generation or kept.slot not in self._claimed:
            return
        stranger = self._claimed.pop(kept.slot)
        worker = self._least_loaded()
        slot.owner = worker.incarnation
        slot.state = sb.LIVE
        self._slot.admitted += 1
        message = Message(Kind.HANDOFF, slot.number, slot.generation)
        inbox = self._pool.inboxes[worker.number][1]
        if handoff.send(inbox, message, stranger.conn.fileno()) is not Sent.SENT:
            unsent = Message(Kind.UNSENT, slot.number, slot.generation)
            handoff.send(self._control, unsent)
        self._handed[slot.number] = slot.generation, worker.number, stranger.conn
        self._unsure[worker.number] += 1

    def _least_loaded(self) -> sb.ProcessSlot:
        serving = [slot for slot in self._board.workers if slot.state == sb.SERVING]
        return min(
            serving or self._board.workers,
            key=lambda slot: slot.sessions + self._unsure[slot.number],
        )

    def _drop_seated(self) -> None:
        """Close our dups of sessions that a worker holds now."""
        for number, (generation, worker, conn) in list(self._handed.items()):
            slot = self._board.session(number)
            live = slot.generation == generation and slot.state == sb.LIVE
            if not live or slot.seated == slot.owner:
                conn.close()
                del self._handed[number]
                self._unsure[worker] -= 1


def main(
    pool: Pool, control: socket.socket, listeners: list[socket.socket], key: bytes
) -> int:
    """The acceptor's life, after the fork.  Returns its exit code."""
    process.name("papaya:acceptor")
    try:
        acceptor = Acceptor(pool, control, listeners, key)
    except OSError as err:
        process.log_line(pool.board.acceptor, event="cannot-boot", reason=str(err))
        return errors.EX_BOOT
    handoff.send(control, Message(Kind.READY))
    return acceptor.run()


