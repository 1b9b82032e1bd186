"""Lines of the log, and what becomes of the bytes that members send.

The stored line *is* the native wire line, so nothing is rendered for a native
member.  Readers tend to think of one message at a time; everything here works
on chunks of many lines, in C-speed calls, because a pool that is asked for
speed does this once for a thousand deliveries.

Format:  seq TAB time TAB name TAB text NEWLINE, all UTF-8, text without
         newline and control characters other than tab.
Failure: `take` never fails: bytes that are no text become U+FFFD, and it stops
         before a line that is too long and leaves the verdict to the caller.
Not here: who may use which name, and what a seq belongs to.
"""

import functools
import hashlib
import re
import time
import unicodedata
from typing import NamedTuple

LINE_LIMIT = 4096  # bytes received for one line, newline and one CR not counted
TEXT_LIMIT = 4096  # bytes stored for one line
RENDER_LIMIT = 4095  # bytes of one classic line: the original client reads 4096
NAME_CHARS, NAME_BYTES = 32, 64
ANONYMOUS = b"anonymous"

_CONTROLS = bytes(c for c in range(32) if c not in (9, 10)) + b"\x7f"
_UNSAFE = re.compile("[\x80-\x9f\u2028\u2029]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_STORED = re.compile(
    rb"([1-9][0-9]{0,18})\t(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)\t([^\t\n]{1,64})\t([^\n]+)"
)
_COLUMNS = re.compile(rb"^[0-9]+\t[^\t\n]*\t([^\t\n]*)\t", re.MULTILINE)
_LONG = re.compile(rb"[^\n]{%d,}" % (RENDER_LIMIT + 1))


class Record(NamedTuple):
    """One message as the log holds it; `time` is its text, UTC with milliseconds."""

    seq: int
    time: str
    name: str
    text: str


class Taken(NamedTuple):
    """What a chunk of input came to."""

    texts: list[bytes]  # the messages in it, in order, ready to be stored
    lines: int  # complete lines dealt with, also those that make no message
    size_bytes: int  # bytes dealt with; less than the chunk: the next line is too long


# --- names ---------------------------------------------------------------------------


def is_name(text: str) -> bool:
    """1 to 32 letters, marks and digits of any script, `_`, `.` and `-`."""
    if _PLAIN_NAME.fullmatch(text):
        return True
    if not 1 <= len(text) <= NAME_CHARS or len(text.encode("utf-8", "replace")) > NAME_BYTES:
        return False
    return all(c in "_.-" or unicodedata.category(c) in _NAME_CATEGORIES for c in text)


_NAME_CATEGORIES = {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd"}


def folded(name: str) -> str:
    """The form in which two names are compared."""
    nfc = unicodedata.normalize("NFC", name)
    return unicodedata.normalize("NFC", nfc.casefold())


def same_name(one: str, other: str) -> bool:
    return one == other or folded(one) == folded(other)


def name_hash(name: str) -> int:
    """64 bits by which names that compare equal are known again."""
    digest = hashlib.blake2b(folded(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


# --- from the wire -------------------------------------------------------------------


def take(chunk: bytes) -> Taken:
    """Turn whole received lines (each ends with a newline) into texts."""
    if len(chunk) > LINE_LIMIT and len(max(chunk.split(b"\n"), key=len)) > LINE_LIMIT:
        kept = 0
        for line in chunk.split(b"\n")[:-1]:
            if is_too_long(line):
                chunk = chunk[:kept]
                break
            kept += len(line) + 1
    return Taken(*_clean(chunk), len(chunk))


def is_too_long(piece: bytes) -> bool:
    """Whether a line of which only this beginning has come is too long already."""
    return len(piece) - piece.endswith(b"\r") > LINE_LIMIT


def _clean(chunk: bytes) -> tuple[list[bytes], int]:
    plain = chunk.translate(None, _CONTROLS)
    texts = plain.split(b"\n")
    del texts[-1]
    count = len(texts)
    if len(plain) != len(chunk):
        # A line that begins with a control byte is reserved.  A CR before the
        # newline is one of those bytes too, and the usual one: only look closer
        # when some line begins with one.
        first = [line[:1] for line in chunk.split(b"\n")]
        texts = [
            text
            for text, byte in zip(texts, first, strict=False)
            if byte not in _RESERVED
        ]
    if not plain.isascii():
        texts = _decoded(texts)
    if b"" in texts:
        texts = [text for text in texts if text]
    return texts, count


_RESERVED = frozenset(bytes([c]) for c in _CONTROLS if c != 0x7F)


def _decoded(texts: list[bytes]) -> list[bytes]:
    """The same texts in valid UTF-8, without C1 controls and line separators."""
    text = b"\n".join(texts).decode("utf-8", "replace")
    out = _UNSAFE.sub("", text).encode().split(b"\n")
    return [t if len(t) <= TEXT_LIMIT else cut(t, TEXT_LIMIT) for t in out]


def cut(text: bytes, limit: int) -> bytes:
    """At most `limit` bytes of valid UTF-8, cut at a character's boundary."""
    while limit and text[limit : limit + 1] and 0x80 <= text[limit] < 0xC0:
        limit -= 1
    return text[:limit]


def spoken(texts: list[bytes]) -> list[tuple[bytes, list[bytes]]]:
    """Classic lines `name: text` as runs of (name, its texts), in order.

    A line without a valid name is anonymous's, whole; one without a text is none.
    """
    runs: list[tuple[bytes, list[bytes]]] = []
    prefix = said_by = b""
    for text in texts:
        if not prefix or not text.startswith(prefix):
            said_by, colon, _ = text.partition(b": ")
            known = colon and is_name(said_by.decode("utf-8", "replace"))
            prefix = said_by + b": " if known else b""
            said_by = said_by if known else ANONYMOUS
            runs.append((said_by, []))
        if len(text) > len(prefix):
            runs[-1][1].append(text[len(prefix) :])
    return runs


# --- into the log, and out of it -----------------------------------------------------


def stored(seq: int, when: bytes, name: bytes, texts: list[bytes]) -> list[bytes]:
    """The log's lines for `texts`, said by `name` at `when`, numbered from `seq`."""
    rest = b"\t%b\t%b\t" % (when, name)
    return [b"%d%b%b\n" % (n, rest, text) for n, text in enumerate(texts, seq)]


def stamp(time_ms: int) -> bytes:
    """Milliseconds since the epoch as the log's second column."""
    seconds, ms = divmod(time_ms, 1000)
    return b"%s.%03dZ" % (_second(seconds), ms)


@functools.lru_cache(maxsize=4)  # thousands of stamps share a second
def _second(seconds: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()


def parse(line: bytes) -> Record:
    """Read one stored line, with or without its newline.  ValueError if it is none."""
    found = _STORED.fullmatch(line.removesuffix(b"\n"))
    if not found:
        raise ValueError(f"no record: {line[:80]!r}")
    seq, when, name, text = found.groups()
    return Record(int(seq), when.decode(), name.decode(), text.decode())


def rendered(lines: bytes) -> bytes:
    """Stored lines as the classic dialect says them: `name: text`, newline.

    The length of what comes out depends on nothing but the lines, so a classic
    stream can be found again from how much of it was written (law 7).
    """
    out = _COLUMNS.sub(rb"\1: ", lines)
    if _LONG.search(out):
        return b"\n".join([cut(line, RENDER_LIMIT) for line in out.split(b"\n")])
    return out


def closed_with_nul(rendering: bytes) -> bytes:
    """One send of classic lines: NUL for its last newline, and at least every 4095 bytes.

    The original client reads up to 4096 bytes and prints them up to a NUL, so a
    send without one shows stale memory, and one with more shows too little.
    """
    if len(rendering) <= RENDER_LIMIT + 1:
        return rendering[:-1] + b"\0" if rendering.endswith(b"\n") else rendering
    out = bytearray(rendering)
    begin, size = 0, len(out)
    while begin < size:
        end = out.rfind(b"\n", begin, begin + RENDER_LIMIT + 1)
        if end < 0:
            break
        out[end] = 0
        begin = end + 1
    return bytes(out)
