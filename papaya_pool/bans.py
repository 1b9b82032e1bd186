"""Who may not come in: names and addresses, for a time or for good.

Owner:   the supervisor writes the file; the acceptor reads it when told to.
Format:  JSON, one object: what is banned -> until when, in milliseconds since the
         epoch, 0 for good.  What is banned is an address, a network, or a name;
         names compare as everywhere (records.py).
Failure: a file that cannot be read bans nobody and is said; it is not overwritten.
"""

import ipaddress
import json
from pathlib import Path

from papaya_pool import errors, records
from papaya_pool.room import write_private


class Bans:
    """What the file said when it was last read, or was changed through here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._until_ms: dict[str, int] = {}

    def load(self) -> None:
        """Read the file.  Raises BadConfig if there is something else in it."""
        try:
            entries = json.loads(self._path.read_text())
            self._until_ms = {str(what): int(until) for what, until in entries.items()}
        except FileNotFoundError:
            self._until_ms = {}
        except (OSError, ValueError, AttributeError, TypeError) as err:
            raise errors.BadConfig(f"{self._path}: {err}") from err

    def add(self, what: str, until_ms: int) -> None:
        """Ban a name, an address or a network.  Raises ValueError, CannotCreate."""
        self._until_ms[_canonical(what)] = until_ms
        self._save()

    def remove(self, what: str) -> bool:
        """Let it in again; whether it was banned."""
        known = self._until_ms.pop(_canonical(what), None) is not None
        self._save()
        return known

    def listed(self, now_ms: int) -> dict[str, int]:
        """What is banned now, and until when."""
        return {w: until for w, until in self._until_ms.items() if not 0 < until <= now_ms}

    def keeps_out(self, name: str, address: str, now_ms: int) -> bool:
        """Whether a name, or an address `host:port`, may not come in.  "" is nobody."""
        banned = self.listed(now_ms)
        if not banned:
            return False
        if name and records.folded(name) in banned:
            return True
        host = address.rpartition(":")[0].strip("[]")
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(ip in network for network in _networks(banned))

    def _save(self) -> None:
        write_private(self._path, json.dumps(self._until_ms).encode() + b"\n")


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(banned: dict[str, int]) -> list[_Network]:
    return [ipaddress.ip_network(what) for what in banned if "/" in what]


def _canonical(what: str) -> str:
    """A network in its usual form, or a folded name.  ValueError if it is neither."""
    try:
        return str(ipaddress.ip_network(what, strict=False))
    except ValueError:
        if not records.is_name(what):
            raise ValueError(f"{what!r} is neither an address nor a name") from None
        return records.folded(what)


def seconds(duration: str) -> int:
    """`90s`, `10m`, `2h`, `7d` or plain seconds.  ValueError if it is none of them."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(duration[-1:], 0)
    digits = duration[:-1] if unit else duration
    if not digits.isdecimal() or not int(digits):
        raise ValueError(f"{duration!r} is no duration: 90s, 10m, 2h or 7d")
    return int(digits) * (unit or 1)
