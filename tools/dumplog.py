#!/usr/bin/env python3
"""Print a room's log by place: offset, seq, length in bytes, name.

    tools/dumplog.py ~/.local/state/papaya-pool/room.log | tail
    tools/dumplog.py --verify room.log

--verify prints nothing but the first bad byte, if there is one: a line that is no
record, a seq that does not follow, a time that runs backwards, a last line without
its end.  It reads the file and no lock, so on a live pool only the very last line
can be half written.

exit codes: 0 as it should be; 1 a bad byte; 2 usage
"""

import argparse
import re
import sys

_RECORD = re.compile(
    rb"([1-9][0-9]*)\t(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)\t([^\t\n]{1,64})\t([^\n]+)\n"
)


def lines(file):
    """(offset, line) of each line of an open file."""
    offset = 0
    for line in file:
        yield offset, line
        offset += len(line)


def complaint(line, expected, last_time):
    """(how far into the line, what is wrong there); None if nothing is."""
    found = _RECORD.fullmatch(line)
    if not line.endswith(b"\n"):
        return len(line), "the log ends within a line"
    if not found:
        return _first_bad(line), f"no record: {line[:60]!r}"
    if int(found[1]) != expected:
        return 0, f"seq {int(found[1])} where {expected} should be"
    if found[2] < last_time:
        return found.start(2), f"{found[2].decode()} is before {last_time.decode()}"
    try:
        line.decode()
    except UnicodeDecodeError as err:
        return err.start, f"no UTF-8: {err.reason}"
    return None


def _first_bad(line):
    """Where a line stops to be the beginning of a record."""
    columns = [rb"[1-9][0-9]*\t", rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\t",
               rb"[^\t\n]{1,64}\t", rb"[^\n]+\n"]  # fmt: skip
    at = 0
    for column in columns:
        found = re.compile(column).match(line, at)
        if not found:
            break
        at = found.end()
    return at


def verify(file, path):
    """The exit code, after a word about the first bad byte."""
    expected, last_time = 1, b""
    for offset, line in lines(file):
        wrong = complaint(line, expected, last_time)
        if wrong:
            print(f"{path}: byte {offset + wrong[0]}, line {expected}: {wrong[1]}")
            return 1
        expected, last_time = expected + 1, line.split(b"\t", 2)[1]
    return 0


def dump(file):
    for offset, line in lines(file):
        seq, *rest = line.split(b"\t", 3)
        name = rest[1].decode("utf-8", "backslashreplace") if len(rest) > 1 else "?"
        shown = seq.decode() if seq.isdigit() else "?"
        print(f"{offset:>12} {shown:>10} {len(line):>6} {name}")


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="tools/dumplog.py", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("log", help="a room.log")
    parser.add_argument("--verify", action="store_true", help="only look for bad bytes")
    args = parser.parse_args(argv)
    try:
        with open(args.log, "rb") as file:
            if args.verify:
                return verify(file, args.log)
            dump(file)
    except BrokenPipeError:
        sys.stderr.close()  # else Python complains of the pipe once more
    except OSError as err:
        parser.error(f"{args.log}: {err.strerror}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
