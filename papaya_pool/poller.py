"""Which of many descriptors is ready: epoll, or `selectors` in its clothes.

The hot loops speak epoll's own words (an fd, a mask of EPOLLIN and EPOLLOUT) and
get a real epoll object, so that nothing of ours runs between them and the kernel.
Only where there is none does a small adapter over the standard library answer to
the same four methods.

Not here: edge-triggering.  The latch alone asks for it, and only from epoll.
"""

import select
import selectors
from typing import Protocol

IN, OUT = 1, 4  # EPOLLIN and EPOLLOUT, the same numbers as POLLIN and POLLOUT
QUIET = 1 << 31  # EPOLLET alone: else a reset is reported again and again


class Poller(Protocol):
    """What select.epoll and Portable have in common."""

    def register(self, fd: int, eventmask: int, /) -> None: ...

    def modify(self, fd: int, eventmask: int, /) -> None: ...

    def unregister(self, fd: int, /) -> None: ...

    def poll(
        self, timeout: float | None = None, maxevents: int = -1
    ) -> list[tuple[int, int]]: ...

    def close(self) -> None: ...


class Portable:
    """`selectors` behind epoll's methods, level-triggered."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, eventmask: int, /) -> None:
        self._selector.register(fd, _events(eventmask))

    def modify(self, fd: int, eventmask: int, /) -> None:
        if eventmask == QUIET:  # selectors cannot watch for nothing
            self.unregister(fd)
        elif fd in self._selector.get_map():
            self._selector.modify(fd, _events(eventmask))
        else:
            self.register(fd, eventmask)

    def unregister(self, fd: int, /) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def poll(
        self, timeout: float | None = None, maxevents: int = -1
    ) -> list[tuple[int, int]]:
        if timeout is not None and timeout < 0:
            timeout = None
        ready = self._selector.select(timeout)
        return [(key.fd, _mask(events)) for key, events in ready]

    def close(self) -> None:
        self._selector.close()


def _events(mask: int) -> int:
    events = selectors.EVENT_READ if mask & IN else 0
    return events | (selectors.EVENT_WRITE if mask & OUT else 0)


def _mask(events: int) -> int:
    mask = IN if events & selectors.EVENT_READ else 0
    return mask | (OUT if events & selectors.EVENT_WRITE else 0)


def make(portable: bool) -> Poller:
    if portable or not hasattr(select, "epoll"):
        return Portable()
    return select.epoll()
