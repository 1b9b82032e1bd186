"""Workers sleep here until another process says that there may be work.

A latch is a hint, not a message.  The message is the scoreboard's head; setting
the latch twice before somebody wakes costs one wake-up, not two messages.  The
obvious way, a signal to every process, loses messages: a signal that arrives
while another is handled is merged with it, and who was just about to sleep
misses it.

Owner:   anybody sets, at any time.  On Linux it is one eventfd that every worker
         has in its *own* epoll, edge-triggered, and that nobody ever reads: one
         write wakes them all.  If anybody read it, others would lose wake-ups.
         Elsewhere it is one pipe a worker, which only that worker empties.
Order:   the setter publishes, then sets.  The sleeper re-arms, then looks, then
         sleeps.  Swap either pair and a wake-up can be lost for ever
         (tests/unit/test_latch_order.py).
Failure: set() never raises and never blocks.  A setter that dies between publish
         and set is why a worker never sleeps longer than a second (law 5).
"""

import contextlib
import os
import select


class EventLatch:
    """One eventfd for all workers; re-arming is done by the edge itself."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        with contextlib.suppress(BlockingIOError):  # counter full: already set
            os.eventfd_write(self._fd, 1)

    def source(self, worker: int) -> tuple[int, int]:
        """What the worker's poller has to watch: the fd and the event mask."""
        return self._fd, select.EPOLLIN | select.EPOLLET

    def rearm(self, worker: int) -> None:
        """Forget every set() so far.  Before looking for work."""

    def fds(self) -> list[int]:
        return [self._fd]


class PipeLatch:
    """One pipe a worker, for systems without eventfd."""

    def __init__(self, workers: int) -> None:
        self._pipes = [os.pipe() for _ in range(workers)]
        for fd in self.fds():
            os.set_blocking(fd, False)

    def set(self) -> None:
        for _, write_end in self._pipes:
            with contextlib.suppress(BlockingIOError):  # pipe full: already set
                os.write(write_end, b"!")

    def source(self, worker: int) -> tuple[int, int]:
        """What the worker's poller has to watch: the fd and the event mask."""
        return self._pipes[worker][0], select.POLLIN

    def rearm(self, worker: int) -> None:
        """Forget every set() so far.  Owner only, and before looking for work."""
        with contextlib.suppress(BlockingIOError):  # empty: nothing to forget
            while len(os.read(self._pipes[worker][0], 4096)) == 4096:
                pass

    def fds(self) -> list[int]:
        return [fd for pair in self._pipes for fd in pair]


Latch = EventLatch | PipeLatch


def make(workers: int, portable: bool) -> Latch:
    """The best latch that this system has.  Before fork."""
    if portable or not hasattr(os, "eventfd") or not hasattr(select, "epoll"):
        return PipeLatch(workers)
    return EventLatch()
