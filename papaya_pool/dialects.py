"""Logging in: which dialect a stranger speaks, and whether it knows the key.

Bytes in, effects out.  A segment is not a line: TCP may deliver any login one byte
at a time or all at once with the first messages behind it, and the effects are the
same either way (tests/protocol/test_chunking.py).  What follows the login comes
back as `rest`; it is the member's input already, and losing it loses a message.

Order:   a refusal comes as soon as it is certain: at the first byte that cannot
         begin a login, at the first that is no digit of a key, at the limit of a
         line, and otherwise at the end of the line.  A secret is compared only
         when it is whole, in constant time, so that how far a wrong one was read
         says nothing about the right one.
Failure: never raises on what was received, and holds at most one login line.
         Feeding it after it admitted somebody is a bug, and a WorkerFault.
Format:  design section 6: `PAPAYA/2 name nonce [since=|last=] [session=]`, our
         nonce, their proof; or 128 hex digits and no newline.
Not here: the deadline, the nonce, whether `since` lies beyond the log's head, and
         who is banned.  The acceptor knows those.
"""

import enum
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Literal

from papaya_pool import records
from papaya_pool.errors import SessionFault, WorkerFault

LINE_LIMIT = 512  # bytes of a login line, newline and one CR before it not counted
KEY_DIGITS = 128
LAST_BY_DEFAULT = 100
SEQ_LIMIT = 2**63 - 1  # what a field of the scoreboard holds; no log gets there

_HEX = b"0123456789abcdefABCDEF"
_NONCE = re.compile(rb"[0-9a-fA-F]{32}")
_NUMBER = re.compile(rb"0|[1-9][0-9]*")
_OPTIONS = {  # of each first word
    b"PAPAYA/2": {b"since": _NUMBER, b"last": _NUMBER, b"session": _NONCE},
    b"PAPAYA/2-WHO": {},
    b"PAPAYA/2-LOG": {b"from": _NUMBER, b"to": _NUMBER},
}
_PREFIX = b"PAPAYA/"
_QUESTIONS: dict[bytes, Literal["", "who", "log"]]
_QUESTIONS = {b"PAPAYA/2": "", b"PAPAYA/2-WHO": "who", b"PAPAYA/2-LOG": "log"}
_TLS_HANDSHAKE = 0x16  # the first byte of a ClientHello


# --- effects: what the acceptor is to do ---------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the stranger why, and close.  Without a code: close without words."""

    code: str
    words: str

    def wire(self) -> bytes:
        return SessionFault(self.code, self.words).wire() if self.code else b""


@dataclass(frozen=True, slots=True)
class Admit:
    """This one knows the key.  At most one of `since` and `last` is not None."""

    dialect: Literal["native", "classic"]
    name: str  # "" in classic, where each line names its sender
    since: int | None
    last: int | None
    token: bytes  # 32 lowercase hex digits, or b""
    rest: bytes  # what came after the login: input already
    proof: bytes  # ours, for the OK line; b"" in classic
    received: int  # bytes of the login itself, `rest` not counted
    question: Literal["", "who", "log"] = ""  # answered instead of letting in
    first: int = 0  # of a question for the log: seqs, both included
    to: int = 0


Effect = Send | Refuse | Admit


# --- the rules -----------------------------------------------------------------------


class State(enum.Enum):
    OPENING = "too few bytes yet to tell the dialect"
    HELLO = "native: their first line is coming"
    PROOF = "native: their proof is coming"
    KEY = "classic: the 128 digits are coming"
    ADMITTED = "let in"
    REFUSED = "sent away; what still comes is dropped"


class Event(enum.Enum):
    NATIVE = "begins as PAPAYA/2 does"
    CLASSIC = "begins with a hex digit"
    UNOFFERED = "begins with a hex digit where classic is not allowed"
    TLS = "begins as a ClientHello does"
    OTHER_VERSION = "begins as another PAPAYA does"
    GARBAGE = "begins as nothing known"
    LONG = "no end of line within the limit"
    WELL_SAID = "a hello that can be answered"
    ILL_SAID = "a line that is no hello"
    ILL_ASKED = "a hello with options that cannot be"
    BAD_NAME = "a hello under a name that nobody can have"
    RIGHT = "knows the key"
    WRONG = "does not know the key"
    NO_DIGIT = "a byte in the key that is no digit"


_LONG = Refuse("too-long", f"a login line has at most {LINE_LIMIT} bytes")
_SILENCE = Refuse("", "")  # the original server's words to a wrong key

# What an event leads to: a state, or a refusal and with it State.REFUSED.  A pair
# that is not here cannot happen.
TABLE: dict[tuple[State, Event], State | Refuse] = {
    (State.OPENING, Event.NATIVE): State.HELLO,
    (State.OPENING, Event.CLASSIC): State.KEY,
    (State.OPENING, Event.UNOFFERED): Refuse(
        "version", "the classic dialect would send the key in clear: not allowed here"
    ),
    (State.OPENING, Event.TLS): Refuse("version", "this port does not speak TLS"),
    (State.OPENING, Event.OTHER_VERSION): Refuse(
        "version", "this server speaks PAPAYA/2"
    ),
    (State.OPENING, Event.GARBAGE): Refuse("syntax", "this is no login"),
    (State.HELLO, Event.LONG): _LONG,
    (State.HELLO, Event.WELL_SAID): State.PROOF,
    (State.HELLO, Event.ILL_SAID): Refuse(
        "syntax", "say PAPAYA/2, a name and 32 hex digits, one space between"
    ),
    (State.HELLO, Event.ILL_ASKED): Refuse(
        "syntax", "options: since=SEQ or last=N, session=HEX; of LOG: from=SEQ to=SEQ"
    ),
    (State.HELLO, Event.BAD_NAME): Refuse(
        "name", "a name is 1 to 32 letters, digits and _.- (at most 64 bytes)"
    ),
    (State.PROOF, Event.LONG): _LONG,
    (State.PROOF, Event.RIGHT): State.ADMITTED,
    (State.PROOF, Event.WRONG): Refuse("auth", "this is not the key"),
    (State.KEY, Event.NO_DIGIT): _SILENCE,
    (State.KEY, Event.RIGHT): State.ADMITTED,
    (State.KEY, Event.WRONG): _SILENCE,
}


# --- the login -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """What the first native line asks for."""

    name: str
    since: int | None
    last: int | None
    token: bytes
    question: Literal["", "who", "log"] = ""
    first: int = 0
    to: int = 0


class Login:
    """One stranger, from the first byte to the verdict."""

    def __init__(
        self,
        *,
        key_digits: bytes,
        proof_key: bytes,
        server_nonce: bytes,
        classic_allowed: bool,
    ) -> None:
        assert _NONCE.fullmatch(server_nonce), server_nonce
        self._key_digits = key_digits
        self._proof_key = proof_key
        self._server_line = b"PAPAYA/2 " + server_nonce
        self._classic_allowed = classic_allowed
        self._state = State.OPENING
        self._held = b""
        self._received = 0
        self._client_line = b""
        self._hello = Hello("", None, None, b"")
        self._judges = {
            State.OPENING: self._judge_opening,
            State.HELLO: self._judge_hello,
            State.PROOF: self._judge_proof,
            State.KEY: self._judge_key,
        }

    def feed(self, data: bytes) -> list[Effect]:
        """What to do about `data`, in this order.  After an Admit there is no more."""
        if self._state is State.ADMITTED:
            raise WorkerFault("a login was fed after it had admitted somebody")
        effects: list[Effect] = []
        self._held += data
        while self._state in self._judges:
            event = self._judges[self._state]()
            if event is None:
                return effects
            step = TABLE.get((self._state, event))
            if step is None:
                raise WorkerFault(f"{self._state} has no answer to {event}")
            if isinstance(step, Refuse):
                self._state = State.REFUSED
                effects.append(step)
                break
            self._state = step
            if step is State.PROOF:
                effects.append(Send(self._server_line + b"\n"))
            elif step is State.ADMITTED:
                effects.append(self._admission(classic=not self._client_line))
        self._held = b""
        return effects

    # Each judge takes what it has understood out of self._held, and says None when
    # it needs more.

    def _judge_opening(self) -> Event | None:
        event = tell(self._held)
        if event is Event.CLASSIC and not self._classic_allowed:
            return Event.UNOFFERED
        return event

    def _judge_hello(self) -> Event | None:
        line = self._take_line()
        if not isinstance(line, bytes):
            return line
        hello = parse_hello(line)
        if isinstance(hello, Event):
            return hello
        self._client_line, self._hello = line, hello
        return Event.WELL_SAID

    def _judge_proof(self) -> Event | None:
        line = self._take_line()
        if not isinstance(line, bytes):
            return line
        right = client_proof(self._proof_key, self._client_line, self._server_line)
        return _verdict(line.lower(), right)

    def _judge_key(self) -> Event | None:
        digits = self._held[:KEY_DIGITS]
        if digits.strip(_HEX):
            return Event.NO_DIGIT
        if len(digits) < KEY_DIGITS:
            return None
        self._take(KEY_DIGITS)
        return _verdict(digits, self._key_digits)

    def _take_line(self) -> bytes | Event | None:
        # One byte more than the limit may be a CR, and one more the newline.
        end = self._held.find(b"\n", 0, LINE_LIMIT + 2)
        if end < 0:
            fits = len(self._held.removesuffix(b"\r")) <= LINE_LIMIT
            return None if fits else Event.LONG
        line = self._held[:end].removesuffix(b"\r")
        self._take(end + 1)
        return line if len(line) <= LINE_LIMIT else Event.LONG

    def _take(self, size: int) -> None:
        self._held = self._held[size:]
        self._received += size

    def _admission(self, classic: bool) -> Admit:
        hello = self._hello
        lines = self._client_line, self._server_line
        return Admit(
            dialect="classic" if classic else "native",
            name=hello.name,
            since=hello.since,
            last=hello.last,
            token=hello.token,
            rest=self._held,
            proof=b"" if classic else server_proof(self._proof_key, *lines),
            received=self._received,
            question=hello.question,
            first=hello.first,
            to=hello.to,
        )


def tell(first: bytes) -> Event | None:
    """The dialect that begins with these bytes; None while they are too few."""
    if not first:
        return None
    if first[0] == _TLS_HANDSHAKE:
        return Event.TLS
    if first[0] in _HEX:
        return Event.CLASSIC
    if not first.startswith(_PREFIX):
        return None if _PREFIX.startswith(first) else Event.GARBAGE
    version, after = first[7:8], first[8:9]
    if version != b"2":  # PAPAYA/3 is a newer client's, PAPAYA/x nobody's
        return _other(version) if version else None
    if not after:
        return None
    return Event.NATIVE if after in b" -" else _other(after)


def _other(byte: bytes) -> Event:
    return Event.OTHER_VERSION if byte in b"0123456789." else Event.GARBAGE


def parse_hello(line: bytes) -> Hello | Event:
    word, *fields = line.split(b" ")
    if word not in _OPTIONS or len(fields) < 2 or not _NONCE.fullmatch(fields[1]):
        return Event.ILL_SAID
    options: dict[bytes, bytes] = {}
    for field in fields[2:]:
        option, _, value = field.partition(b"=")
        shape = _OPTIONS[word].get(option)
        if option in options or not shape or not shape.fullmatch(value):
            return Event.ILL_ASKED
        options[option] = value
    if b"since" in options and b"last" in options:
        return Event.ILL_ASKED
    question = _QUESTIONS[word]
    if question == "log" and len(options) < len(_OPTIONS[word]):
        return Event.ILL_ASKED
    name = fields[0].decode("utf-8", "replace")  # U+FFFD is in no name
    if not records.is_name(name):
        return Event.BAD_NAME
    since, last = _number(options.get(b"since")), _number(options.get(b"last"))
    if since is None and last is None:
        last = LAST_BY_DEFAULT
    token = options.get(b"session", b"").lower()
    first, to = _number(options.get(b"from")) or 0, _number(options.get(b"to")) or 0
    return Hello(name, since, last, token, question, first, to)


def _number(digits: bytes | None) -> int | None:
    # Beyond SEQ_LIMIT all numbers mean the same: every message, or none there is.
    return None if digits is None else min(int(digits), SEQ_LIMIT)


def _verdict(given: bytes, right: bytes) -> Event:
    return Event.RIGHT if hmac.compare_digest(given, right) else Event.WRONG


# --- the proofs, for both sides ------------------------------------------------------


def proof_key(key_digits: bytes) -> bytes:
    """K: as good as the key itself, so keep it as secret."""
    return hashlib.sha256(key_digits).hexdigest().encode()


def client_proof(key: bytes, client_line: bytes, server_line: bytes) -> bytes:
    """`key` is K; the lines are without newline and CR."""
    return _proof(key, b"papaya/2 client\n", client_line, server_line)


def server_proof(key: bytes, client_line: bytes, server_line: bytes) -> bytes:
    return _proof(key, b"papaya/2 server\n", client_line, server_line)


def _proof(key: bytes, who: bytes, client_line: bytes, server_line: bytes) -> bytes:
    text = b"%b%b\n%b\n" % (who, client_line, server_line)
    return hmac.digest(key, text, "sha256").hex().encode()


def ok_line(
    proof: bytes, head: int, log_id: str, taken: int | Literal["?"] | None = None
) -> bytes:
    """The line after which a client is in.  `taken` answers `session=`."""
    tail = "" if taken is None else f" taken={taken}"
    return b"OK %b head=%d log=%b\n" % (proof, head, (log_id + tail).encode())
