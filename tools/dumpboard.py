#!/usr/bin/env python3
"""Print a live pool's scoreboard: its head, its processes, its sessions.

    tools/dumpboard.py [--state-dir DIR]

It maps the block read-only and asks no process anything, so it works while every
process of the pool hangs, and cannot disturb one that does not.

exit codes: 0; 2 usage; 69 no pool there
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papaya_pool import room, scoreboard, settings  # noqa: E402
from papaya_pool.errors import UsageFault  # noqa: E402

EX_UNAVAILABLE = 69
PROCESS_FIELDS = (
    "pid incarnation generation sessions position lag messages deliveries bytes_out "
    "moves_in moves_out torn"
).split()
SESSION_FIELDS = (
    "generation owner seated input_read input_taken lines_taken pending_seq lag moves"
).split()
STATES = {scoreboard.FREE: "free", scoreboard.CLAIMED: "claimed",
          scoreboard.LIVE: "live", scoreboard.CLOSING: "closing"}  # fmt: skip


def dump(board):
    head = board.head()
    print(f"block {board.name}  log {board.log_id}  moved to {board.moved_to or 'nowhere'}")
    print(f"head seq={head.seq} tail={head.tail} time_ms={head.time_ms} "
          f"holder={board.words[scoreboard.H_HOLDER]}")  # fmt: skip
    roles = [f"w{slot.number}" for slot in board.workers] + list(scoreboard.ROLES)
    _rows("process state", PROCESS_FIELDS, (
        (role, scoreboard.STATES[slot.state], slot)
        for role, slot in zip(roles, board.processes, strict=True)
    ))  # fmt: skip
    _rows("session state", SESSION_FIELDS, (
        (f"{slot.number}:{slot.name or '-'}", STATES[slot.state], slot)
        for slot in board.sessions()
    ))  # fmt: skip


def _rows(titles, fields, slots):
    rows = [[*titles.split(), *fields]]
    for name, state, slot in slots:
        rows.append([name, state, *(str(getattr(slot, field)) for field in fields)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells))


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="tools/dumpboard.py", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--state-dir", metavar="DIR", help="of the pool (default: its own)")
    args = parser.parse_args(argv)
    try:
        where = settings.find_state_dir(args.state_dir, os.environ)
        name = room.Room(where).scoreboard()
        board = scoreboard.look(name or "there-is-none")
    except UsageFault as fault:
        parser.error(str(fault))
    except (OSError, ValueError) as err:
        print(f"tools/dumpboard.py: no pool in {where}: {err}", file=sys.stderr)
        return EX_UNAVAILABLE
    dump(board)
    return 0


if __name__ == "__main__":
    sys.exit(main())
