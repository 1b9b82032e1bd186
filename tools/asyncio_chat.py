#!/usr/bin/env python3
"""The everyday comparison: a chat server as most Python programmers would write it.

    tools/asyncio_chat.py PORT LOGFILE KEYFILE      (PORT 0 picks one)

One process, one asyncio loop: a line that comes is written to a file and to every
transport.  The log-in is classic's (128 digits, answered with the last lines).  If
its process dies, everybody is disconnected; who reads slowly is buffered in memory.
"""

import asyncio
import hmac
import sys
from pathlib import Path

KEY_DIGITS = 128
HISTORY_LINES = 7


class Member(asyncio.Protocol):
    def __init__(self, room, log, key):
        self.room, self.log, self.key = room, log, key
        self.held = b""
        self.admitted = False

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.held += data
        if not self.admitted and not self.log_in():
            return
        lines, newline, self.held = self.held.rpartition(b"\n")
        if newline:
            self.log.write(lines + newline)
            for transport in self.room:
                transport.write(lines + newline)

    def log_in(self):
        if len(self.held) < KEY_DIGITS:
            return False
        key, self.held = self.held[:KEY_DIGITS], self.held[KEY_DIGITS:]
        if not hmac.compare_digest(key, self.key):
            self.transport.close()
            return False
        self.admitted = True
        self.log.seek(max(0, self.log.seek(0, 2) - 1024))
        self.transport.write(b"".join(self.log.readlines()[-HISTORY_LINES:]))
        self.room.add(self.transport)
        return True

    def connection_lost(self, _):
        self.room.discard(self.transport)


async def serve(port, log, key):
    room, loop = set(), asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Member(room, log, key), "127.0.0.1", port, backlog=4096
    )
    port = server.sockets[0].getsockname()[1]
    print(f"asyncio_chat ready host=127.0.0.1 port={port}", flush=True)
    await server.serve_forever()


def main(argv):
    if len(argv) != 3 or not argv[0].isdecimal():
        print(__doc__)
        return 0 if "--help" in argv else 2
    key = Path(argv[2]).read_bytes().strip()
    with open(argv[1], "a+b", buffering=0) as log:
        asyncio.run(serve(int(argv[0]), log, key))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
