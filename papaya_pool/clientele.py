"""Who is in a pool: its live sessions, as the scoreboard shows them to an onlooker.

A session's own words are written about once a second by the worker that serves it.
What moves faster is computed from its worker's position: who had everything then
and is not known to be behind has been sent what its worker has sent.  That can be
too much for the second in which somebody falls behind; nothing but a figure on a
screen depends on it.

Owner:   nobody's; everything here only reads.
Not here: what a client said or is sent.  An onlooker has no business with it.
"""

import socket
import struct
from typing import NamedTuple

from papaya_pool import scoreboard as sb


class Client(NamedTuple):
    """One live session."""

    session: int
    generation: int
    name: str
    address: str
    dialect: str
    worker: int | None  # None: its worker died, and nobody has it yet
    messages_in: int
    bytes_in: int  # read from it, its login included
    bytes_out: int  # that the kernel took for it, likewise
    lag_bytes: int
    unacked_bytes: int | None
    cpu_s: float
    idle_s: float
    age_s: float
    moves: int


Texts = dict[tuple[int, int], tuple[str, str]]  # name, address: by slot, generation


def clients(
    board: sb.Scoreboard,
    head: sb.Head,
    now_ms: int,
    unsent: dict[str, int] | None,
    texts: Texts,
) -> list[Client]:
    """Members only: neither who is being admitted nor who is on the way out.

    `texts` is kept from look to look, since names do not change and are dear to read.
    """
    owners = {slot.incarnation: slot for slot in board.workers if slot.pid}
    found = []
    for slot in board.sessions():
        words = slot.words[slot.base : slot.base + _WORDS].tolist()
        if words[sb.S_STATE] != sb.LIVE:
            continue
        who = slot.number, words[sb.S_GENERATION]
        if who not in texts:
            texts[who] = slot.name, slot.address
        owner = owners.get(words[sb.S_OWNER])
        found.append(_client(who, words, texts[who], owner, head, now_ms, unsent))
    if len(texts) > 2 * len(found) + 1000:  # of those who left
        texts.clear()
    return found


_WORDS = sb.S_DELTA + 1  # as many as are looked at


def _client(
    who: tuple[int, int],
    words: list[int],
    texts: tuple[str, str],
    owner: sb.ProcessSlot | None,
    head: sb.Head,
    now_ms: int,
    unsent: dict[str, int] | None,
) -> Client:
    name, address = texts
    dialect, lag = words[sb.S_DIALECT], words[sb.S_LAG]
    return Client(
        session=who[0],
        generation=who[1],
        name=name,
        address=address,
        dialect=sb.DIALECTS[dialect] if dialect < len(sb.DIALECTS) else "unknown",
        worker=owner.number if owner else None,
        messages_in=words[sb.S_MESSAGES],
        bytes_in=words[sb.S_INPUT_READ],
        bytes_out=_bytes_out(words, owner),
        lag_bytes=lag_of(owner, lag, head) if owner else lag,
        unacked_bytes=None if unsent is None else unsent.get(address),
        cpu_s=words[sb.S_CPU_NS] / 1e9,
        idle_s=max(0, now_ms - words[sb.S_INPUT_MS]) / 1000,
        age_s=max(0, now_ms - words[sb.S_SINCE_MS]) / 1000,
        moves=words[sb.S_MOVES],
    )


def lag_of(worker: sb.ProcessSlot, written_lag: int, head: sb.Head) -> int:
    """What is published and not sent: as written down, or as its worker is behind.

    The second is what shows of a worker that hangs.
    """
    position: int = worker.position
    if not position:  # it has not come to its first message yet
        return written_lag
    return max(written_lag, head.tail - position)


def _bytes_out(words: list[int], owner: sb.ProcessSlot | None) -> int:
    """What the kernel took for a session since it was accepted."""
    noted = words[sb.S_BYTES_OUT]
    if owner is None or words[sb.S_LAG] or words[sb.S_SEATED] != words[sb.S_OWNER]:
        return noted
    if words[sb.S_DIALECT] == sb.NATIVE:
        # The log's own bytes from `start` on, behind the login and the OK line.
        sent = words[sb.S_WRITTEN_BEFORE] + words[sb.S_PREAMBLE_SIZE]
        position: int = owner.position
        return max(noted, sent + position - words[sb.S_START])
    if words[sb.S_IN_STEP]:
        rendered, size = owner.check()[1], 1 << 64
        return (rendered + words[sb.S_DELTA]) % size
    return noted


# --- the kernel's queues -------------------------------------------------------------


def unacked(pid: int, port: int) -> dict[str, int] | None:
    """address -> bytes that the other end has not acknowledged; None if hidden.

    Of the network namespace of `pid`, which need not be ours.
    """
    ours, found = f":{port:04X}", dict[str, int]()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}") as lines:
                for line in lines:
                    fields = line.split(None, 5)
                    if fields[1].endswith(ours):
                        queued = int(fields[4].partition(":")[0], 16)
                        found[_address(fields[2])] = queued
        except FileNotFoundError:  # no IPv6; or no Linux, and nothing is found
            continue
        except OSError:
            return None
    return found or None


def _address(field: str) -> str:
    """`0100007F:A371`, words in the machine's order, as the listener writes it."""
    digits, _, port = field.partition(":")
    octets = bytes.fromhex(digits)
    words = struct.unpack(f">{len(octets) // 4}I", octets)
    packed = struct.pack(f"={len(words)}I", *words)
    if len(words) > 1:
        return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{int(port, 16)}"
    return f"{socket.inet_ntop(socket.AF_INET, packed)}:{int(port, 16)}"
