"""What /proc tells the tools about a server's processes, whoever wrote it.

Failure: a process that ends while it is looked at counts as nothing, not as an error.
"""

import contextlib
import os
import re
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def in_sessions(sids):
    """{pid: (comm, parent)} of the living processes of these sessions."""
    return {
        pid: (comm, int(rest[1]))
        for pid, comm, rest in _processes()
        if int(rest[3]) in sids and rest[0] not in "ZX"
    }


def tree(root):
    """A process and all that descend from it."""
    children = {}
    for pid, _, rest in _processes():
        children.setdefault(int(rest[1]), []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _processes():
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text()
                comm, _, rest = stat.partition("(")[2].rpartition(")")
                yield int(entry), comm, rest.split()


def cpu_s(pids):
    """CPU seconds that they and their reaped children have used."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += time.clock_gettime(~pid << 3 | 2)  # MAKE_PROCESS_CPUCLOCK, to the ns
            rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(rest[13]) + int(rest[14])) / _TICKS
    return total


def descriptors_and_memory(pids):
    """(open descriptors, PSS in KiB) of all of them together."""
    fds = pss = 0
    for pid in pids:
        with contextlib.suppress(OSError, TypeError):
            fds += len(os.listdir(f"/proc/{pid}/fd"))
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            pss += int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])
    return fds, pss


def ports_of(pid):
    """The far ports of a process's TCP connections: whose members it serves."""
    inodes = set()
    with contextlib.suppress(OSError):
        for fd in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(fd.path)
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {int(row[2].partition(":")[2], 16) for row in rows if row[9] in inodes}
