"""The syncer: once a second it waits for the disk, so that no worker has to.

With `--fsync interval` a message is on disk at most about a second after it was
seen.  A worker that called fdatasync itself would keep its members waiting for
the disk; the supervisor would keep a dead worker's members waiting.

Failure: an error is logged once, and it goes on.  Killing it costs one second's
         promise, until it is respawned.
"""

import socket
import time

from papaya_pool import chatlog, errors, handoff, process
from papaya_pool import scoreboard as sb
from papaya_pool.handoff import Kind, Message
from papaya_pool.process import Pool


def main(pool: Pool, control: socket.socket) -> int:
    """The syncer's life, after the fork.  Returns its exit code."""
    process.name("papaya:syncer")
    handoff.send(control, Message(Kind.READY))
    synced, failing = -1, False
    words, slot = pool.board.words, pool.board.syncer
    while True:
        time.sleep(pool.settings.fsync_interval_s)
        if handoff.receive_all(control)[1]:
            return errors.EX_OK  # the supervisor died; the next one has its own
        slot.deadline_ns = 0  # a disk may take as long as it takes
        published = words[sb.H_N]
        if published == synced:
            continue
        try:
            chatlog.sync(pool.room.log)
        except OSError as err:
            if not failing:
                process.log_line(slot, event="cannot-sync", reason=err.strerror)
            failing = True
            continue
        synced, failing = published, False
