"""How many may be in at once, on this machine, now.

Each member costs a slot and a ring in shared memory, where a touched page beyond
what is free is SIGBUS, and a descriptor of the supervisor's, which must not run out.
"""

import resource

from papaya_pool import errors, process
from papaya_pool import scoreboard as sb
from papaya_pool.settings import Settings

_DEFAULT_CLIENTS = 10_000
_SPARE_FDS = 32


def sessions(settings: Settings, old: list[sb.Scoreboard]) -> int:
    """Session slots for a new block; never fewer than an old pool hands over.

    Raises CannotCreate if there are not even descriptors for one.
    """
    ring = settings.ring_bytes
    one = sb.block_bytes(1, 1, ring) - sb.block_bytes(1, 0, ring)
    count = settings.max_clients or min(_DEFAULT_CLIENTS, sb.free_bytes() // 2 // one)
    fds = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limit = fds - _SPARE_FDS - 4 * settings.workers
    if limit < 1:
        raise errors.CannotCreate("too few descriptors: raise the limit (ulimit -n)")
    if settings.max_clients and count > limit:
        process.emit({"event": "max-clients-lowered", "to": limit, "by": "ulimit -n"})
    return max([1, min(count, limit), *(board.session_count for board in old)])
