#!/usr/bin/env python3
"""Talk to a chat server as n members, and check and time everything that they hear.

    tools/load.py --port 7722 --key ~/.local/state/papaya-pool/key --n 1000 \\
                  --phases lat:20:3,thr:64:3 --pid $(pgrep -o papaya)

Phases: lat:RATE:SECONDS sends RATE messages a second in all, on time, whatever the
server does; thr:WINDOW:SECONDS keeps WINDOW messages of each sender under way.  Every
(receiver, sender) pair is checked for lost, doubled, torn and out of order messages.

Logging in is done here.  Saturating a server takes C, so the connections are then
handed to load.c, which is compiled if there is a C compiler.  Without one (or with
--python) the same is done here, more slowly: good for moderate loads only.
"""

import argparse
import contextlib
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import proc  # noqa: E402
import wire  # noqa: E402

SOURCES = Path(__file__).resolve().parent
PATIENCE_S = 2.0  # without any delivery: what is missing was lost
LOGIN_S = 60.0
_HEAD = 27  # of a line: @, sender, seq, time


# --- logging in ----------------------------------------------------------------------


def log_in(port, key, dialect, n, under_way=128):
    """(n connections that are in, in the order of their numbers; the seconds it took)."""
    conns, waiting, begun = [None] * n, {}, time.monotonic()
    todo, poll = iter(range(n)), select.epoll()
    until = begun + LOGIN_S
    number = next(todo, None)
    try:
        while waiting or number is not None:
            while number is not None and len(waiting) < under_way:
                conn = wire.connect(port)
                native = dialect == "native"
                login = wire.NativeLogin(key, f"u{number}") if native else None
                waiting[conn.fileno()] = conn, login or wire.ClassicLogin(key), number
                poll.register(conn.fileno(), select.EPOLLIN | select.EPOLLOUT)
                number = next(todo, None)
            for fd, _ in poll.poll(1.0):
                conn, login, which = waiting[fd]
                if _step(poll, conn, login):
                    conns[which] = conn
                    del waiting[fd]
                    poll.unregister(fd)
            if time.monotonic() > until:
                raise TimeoutError(f"{len(waiting)} of {n} did not get in")
    except BaseException:
        for conn in (*(entry[0] for entry in waiting.values()), *conns):
            if conn:
                conn.close()
        raise
    finally:
        poll.close()
    took = time.monotonic() - begun
    _forget_history(conns)
    return conns, took


def _step(poll, conn, login):
    """Go on with a log-in; whether it is through."""
    if login.to_send:
        with contextlib.suppress(BlockingIOError):
            login.to_send = login.to_send[conn.send(login.to_send) :]
    with contextlib.suppress(BlockingIOError):
        data = conn.recv(4096)
        if not data:
            raise ConnectionError("the server closed while we logged in")
        if login.feed(data) is not None:
            return True
    poll.modify(conn, select.EPOLLIN | (select.EPOLLOUT if login.to_send else 0))
    return False


def _forget_history(conns):
    time.sleep(0.1)
    for conn in conns:
        with contextlib.suppress(BlockingIOError):
            while conn.recv(1 << 16):
                pass


# --- two engines ---------------------------------------------------------------------


def compiled(name, where):
    """The program made from tools/NAME.c in the folder `where`; None without a compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if not compiler:
        return None
    program = Path(where, name)
    if not program.exists():
        source = SOURCES / f"{name}.c"
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return program


class Compiled:
    """load.c: it takes the connections, and one line for each phase."""

    def __init__(self, program, conns, senders, size):
        fds = [conn.fileno() for conn in conns]
        self._process = subprocess.Popen(
            [program, str(senders), str(size)], pass_fds=fds, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._tell(" ".join(map(str, fds)))

    def _tell(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def phase(self, kind, argument, seconds):
        self._tell(f"{kind} {argument} {seconds}")
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError(f"load.c left with {self._process.wait()}")
        return json.loads(line)

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()


class Pure:
    """The same in Python, for moderate loads."""

    def __init__(self, conns, senders, size):
        self._conns, self._senders, self._size = conns, senders, size - 1
        self._filler = b"." * (size - 2 - _HEAD) + b"!\n"
        self._partial = [b""] * len(conns)
        self._out = [b""] * senders
        self._sent = array("Q", [0] * senders)
        self._heard = array("Q", [0] * senders)
        self._next = [array("Q", [0] * senders) for _ in conns]
        self._missed = {}  # (receiver, sender): seqs that were jumped over
        self._last = [0.0] * len(conns)
        self._number = {conn.fileno(): n for n, conn in enumerate(conns)}
        self._poll = select.epoll()
        for fd in self._number:
            self._poll.register(fd, select.EPOLLIN)

    def close(self):
        self._poll.close()

    def phase(self, kind, argument, seconds):
        begin = time.monotonic()
        self._bad = dict.fromkeys(("doubled", "out_of_order", "torn", "closed"), 0)
        self._got = self._bytes = 0
        self._latencies = []
        self._silence, self._last = [0.0] * len(self._conns), [begin] * len(self._conns)
        before, heard = sum(self._sent), self._heard[:]
        if kind == "lat":
            self._paced(begin, begin + seconds, 1 / argument)
        else:
            self._saturated(begin + seconds, int(argument), self._sent[:], heard)
        took, in_time = time.monotonic() - begin, self._got
        messages = sum(self._sent) - before
        self._drain(messages * len(self._conns))
        times = sorted(self._latencies) or [0.0]
        p50, p99, worst = (times[int(q * (len(times) - 1))] * 1e6 for q in (0.5, 0.99, 1.0))
        return {
            "kind": kind, "argument": argument, "seconds": took, "messages": messages,
            "deliveries": self._got, "deliveries_s": in_time / took,
            "bytes": self._bytes, "lost": messages * len(self._conns) - self._got,
            **self._bad, "p50_us": p50, "p99_us": p99, "max_us": worst,
            "silence_ms": [1e3 * silence for silence in self._silence],
        }  # fmt: skip

    def _paced(self, due, end, gap):
        sender = 0
        while (now := time.monotonic()) < end:
            while due <= now:
                self._say(sender, due)
                sender = (sender + 1) % self._senders
                due += gap
            self._turn(max(0.0, min(due, end) - time.monotonic()))

    def _saturated(self, end, window, sent, heard):
        while (now := time.monotonic()) < end:
            for s in range(self._senders):
                through = (self._heard[s] - heard[s]) // len(self._conns)
                for _ in range(window - (self._sent[s] - sent[s] - through)):
                    self._say(s, now)
            self._turn(0.02)

    def _drain(self, expected):
        got, since = self._got, time.monotonic()
        while self._got < expected and time.monotonic() - since < PATIENCE_S:
            self._turn(0.02)
            if self._got != got:
                got, since = self._got, time.monotonic()

    def _say(self, sender, stamp):
        head = b"@%02x%08x%016x" % (sender, self._sent[sender], int(stamp * 1e9))
        self._sent[sender] += 1
        self._out[sender] += head + self._filler
        self._flush(sender)

    def _flush(self, sender):
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sent = self._conns[sender].send(self._out[sender])
            self._out[sender] = self._out[sender][sent:]

    def _turn(self, pause):
        for fd, _ in self._poll.poll(pause):
            number = self._number[fd]
            try:
                data = self._conns[number].recv(1 << 18)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self._bad["closed"] += 1
                self._poll.unregister(fd)
                continue
            self._hear(number, data, time.monotonic())
        for sender in range(self._senders):
            if self._out[sender]:
                self._flush(sender)

    def _hear(self, number, data, now):
        self._bytes += len(data)
        self._silence[number] = max(self._silence[number], now - self._last[number])
        self._last[number] = now
        whole = self._partial[number] + data.replace(b"\0", b"\n")
        *lines, self._partial[number] = whole.split(b"\n")
        for line in lines:
            ours = line[-self._size :]
            if ours[:1] != b"@" or ours[-1:] != b"!":
                self._bad["torn"] += bool(line)
                continue
            sender, seq = int(ours[1:3], 16), int(ours[3:11], 16)
            self._check(number, sender, seq)
            self._latencies.append(now - int(ours[11:27], 16) / 1e9)

    def _check(self, number, sender, seq):
        expected = self._next[number][sender]
        missed = self._missed.setdefault((number, sender), set())
        if seq < expected and seq not in missed:
            self._bad["doubled"] += 1
            return
        if seq < expected:
            missed.discard(seq)
            self._bad["out_of_order"] += 1
        else:
            missed.update(range(expected, seq))
            self._next[number][sender] = seq + 1
        self._heard[sender] += 1
        self._got += 1


# --- a measurement -------------------------------------------------------------------


class Crowd:
    """n members of one server, and what they and it cost."""

    def __init__(self, port, key, *, dialect="native", n=10, senders=4, size=100, pid=0,
                 program=None):  # fmt: skip
        self._pid = pid
        idle = self._memory()
        self.conns, self.login_s = log_in(port, key, dialect, n)
        self.memory_each_kb = (self._memory() - idle) / n
        senders = min(senders, n)
        if program:
            self._engine = Compiled(program, self.conns, senders, size)
        else:
            self._engine = Pure(self.conns, senders, size)

    def _memory(self):
        return proc.descriptors_and_memory(proc.tree(self._pid))[1] if self._pid else 0

    def phase(self, kind, argument, seconds):
        """The engine's figures, and the server's CPU seconds per million deliveries."""
        pids = proc.tree(self._pid) if self._pid else []
        cpu = proc.cpu_s(pids)
        found = self._engine.phase(kind, argument, seconds)
        found["cpu_s"] = proc.cpu_s(pids) - cpu
        found["cpu_per_million"] = 1e6 * found["cpu_s"] / max(1, found["deliveries"])
        return found

    def close(self):
        self._engine.close()
        for conn in self.conns:
            conn.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def read_key(path):
    return Path(path).read_bytes().strip()


def wrong(figures):
    """What must be 0 and is not."""
    kinds = ("lost", "doubled", "out_of_order", "torn", "closed")
    return {kind: figures[kind] for kind in kinds if figures[kind]}


def phases(text):
    found = []
    for one in text.split(","):
        kind, argument, seconds = one.split(":")
        if kind not in ("lat", "thr"):
            raise ValueError(kind)
        found.append((kind, float(argument), float(seconds)))
    return found


def raise_descriptor_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="tools/load.py", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--port", type=int, required=True)
    add("--key", type=read_key, required=True, metavar="FILE", help="the 128 digits")
    add("--dialect", choices=["native", "classic"], default="native")
    add("--n", type=int, default=10, help="members (default: 10)")
    add("--senders", type=int, default=4, help="of them (default: 4)")
    add("--size", type=int, default=100, help="bytes of a message, newline included (100)")
    add("--phases", type=phases, default="lat:100:2,thr:64:2", help="default: %(default)s")
    add("--pid", type=int, default=0, help="of the server, for its CPU and memory")
    add("--python", action="store_true", help="do without a C compiler")
    args = parser.parse_args(argv)
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="papaya-load-") as where:
        program = None if args.python else compiled("load", where)
        with Crowd(
            args.port, args.key, dialect=args.dialect, n=args.n, senders=args.senders,
            size=args.size, pid=args.pid, program=program,
        ) as crowd:  # fmt: skip
            found = [crowd.phase(*phase) for phase in args.phases]
            each = crowd.memory_each_kb
        for figures in found:
            figures["silence_ms"] = max(figures["silence_ms"])
    totals = {"logins_s": args.n / crowd.login_s, "memory_each_kb": each, "phases": found}
    print(json.dumps(totals))
    return 1 if any(wrong(figures) for figures in found) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, wire.Refused) as err:
        sys.exit(f"tools/load.py: {err}")
