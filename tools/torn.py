#!/usr/bin/env python3
"""Ask a machine whether Python's 8-byte stores to shared memory can be seen half done.

    tools/torn.py [--seconds S]

Two processes share a page.  One stores 0 and 0xffffffffffffffff by turns, the other
looks; anything else that it sees is torn.  The scoreboard stands on the answer for an
aligned word being "never" (law 9).  The same across a cache line is the control: where
that is never torn either, the probe saw nothing (one CPU, or too short a time).

exit codes: 0 aligned words are whole; 1 one was torn; 2 usage
"""

import argparse
import mmap
import os
import signal
import struct
import sys
import time

LINE = 64  # bytes of a cache line
ALIGNED, ACROSS = 2 * LINE, 4 * LINE - 4  # the second has a half in either line
WHOLE = (0, (1 << 64) - 1)
_BATCH = 2000


def probe(offset, seconds):
    """(looks, torn ones) at the word at `offset`, while a child stores there."""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    child = os.fork()
    if not child:
        _store_for_ever(page, offset)
    try:
        word = memoryview(page)[offset : offset + 8].cast("Q")
        looks, torn, until = 0, 0, time.monotonic() + seconds
        while time.monotonic() < until:
            seen = [word[0] for _ in range(_BATCH)]
            looks += _BATCH
            torn += _BATCH - seen.count(WHOLE[0]) - seen.count(WHOLE[1])
        word.release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return looks, torn


def _store_for_ever(page, offset):
    """In the child, until it is killed."""
    signal.alarm(600)  # should nobody be left to do that
    word = memoryview(page)[offset : offset + 8].cast("Q")
    zero, ones = WHOLE
    while True:
        word[0] = zero
        word[0] = ones


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="tools/torn.py", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=2.0, help="for each (default: 2)")
    args = parser.parse_args(argv)
    print(f"{os.uname().machine}, {struct.calcsize('P') * 8} bit, {os.cpu_count()} CPUs")
    found = {}
    for title, offset in (("aligned", ALIGNED), ("across a cache line", ACROSS)):
        looks, found[title] = probe(offset, args.seconds)
        print(f"{title:>20}: {found[title]:>9,} torn of {looks:,}")
    if not found["across a cache line"]:
        print("not even the control was torn: this says nothing about aligned words")
    return 1 if found["aligned"] else 0


if __name__ == "__main__":
    sys.exit(main())
