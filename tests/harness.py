"""Real pools and real members for the tests; the only place that waits.

A Pool is the program itself in a session of its own; a Member is a client that was
written from design section 6 and shares no code with the server, so that what both
believe can be wrong in one of them only.

Order:   stop() or tear_down() for every Pool, whatever became of the test; the
         fixtures in conftest.py do it.
Failure: until() fails with the last value that it saw.  A pool that leaves a
         process, a block in /dev/shm or a word on stderr that nobody expected fails
         the test that started it.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
import resource
import secrets
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

from papaya_pool import scoreboard

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PORTABLE = os.environ.get("PAPAYA_PORTABLE", "") not in ("", "0")
PATIENCE_S = 10.0  # with a machine that does ten other things; never a measurement
SHM = Path("/dev/shm")


def until(predicate, within=5.0):
    """Wait for the predicate; fails with the last value seen."""
    deadline = time.monotonic() + within
    while not (value := predicate()):
        late = time.monotonic() >= deadline
        assert not late, f"after {within} s still {value!r}"
        time.sleep(0.005)
    return value


def raise_descriptor_limit():
    """A thousand members are a thousand descriptors of the test's own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- processes -----------------------------------------------------------------------


def in_child(act):
    """Run `act` in a forked child: its exit code, negative for a signal."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_after(size):
    """A chatlog._write that puts `size` bytes in the file, then dies as by kill -9."""

    def write(fd, data, offset):
        os.pwrite(fd, data[:size], offset)
        os.kill(os.getpid(), signal.SIGKILL)

    return write


def in_session(session):
    """The living processes of a session: {pid: comm}.  Zombies are not living."""
    found = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            stat = Path(entry.path, "stat").read_text()
            comm, _, rest = stat.partition("(")[2].rpartition(")")
            state, _, _, of_session = rest.split()[:4]
            if int(of_session) == session and state not in "ZX":
                found[int(entry.name)] = comm
    return found


def blocks():
    return {path.name for path in SHM.glob("papaya-*")}


def left_behind(names, pids):
    """Of these blocks, those that a pool of ours made and no living process has.

    Other pools on this machine come and go.  Whose a block is, it says itself; one that
    says nothing yet may be anybody's.
    """
    left = {name for name in names if _maker(name) in pids}
    for maps in Path("/proc").glob("[0-9]*/maps") if left else ():
        with contextlib.suppress(OSError):
            text = maps.read_text()
            left -= {name for name in left if f"/{name}" in text}
    return left


def _maker(name):
    with contextlib.suppress(OSError, ValueError):
        return scoreboard.look(name).supervisor.pid
    return None


# --- the server ----------------------------------------------------------------------


class Pool:
    """`python3 -m papaya_pool` of this checkout, in a session of its own.

    `settings` (fields of settings.Settings that are no options), `limits` (rlimits
    by name) and `seam` (a name in launch.py) start it through tests/launch.py, which
    changes just that and then runs the same main().  With `ready=False` it is only
    started.
    """

    def __init__(
        self,
        state_dir,
        *args,
        workers=2,
        env=None,
        settings=None,
        limits=None,
        seam=None,
        ready=True,
    ):
        self.state_dir = Path(state_dir)
        self.workers = workers
        self.args = [str(arg) for arg in args]
        self.env = env or {}
        self.expected = []  # what stderr may say beyond log lines: regular expressions
        self.process = None
        self.port = None
        self._launch = {"settings": settings or {}, "limits": limits or {}, "seam": seam}
        self._armed = self.state_dir.with_name(f"{self.state_dir.name}.armed")
        self._starts = 0
        self._before = []  # the pids of supervisors before this one
        self._blocks_before = set()
        self.start(ready=ready)

    # --- life ---

    def start(self, ready=True):
        """Start it (again); on the same directory, with the same options."""
        assert self.process is None
        self._starts += 1
        self.state_dir.parent.mkdir(parents=True, exist_ok=True)
        if not self._before:
            self._blocks_before = blocks()
        self._out = self.state_dir.with_name(f"{self.state_dir.name}.out{self._starts}")
        self._err = self.state_dir.with_name(f"{self.state_dir.name}.err{self._starts}")
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self.env},
                cwd=self.state_dir.parent,
                start_new_session=True,
            )
        self.pid = self.process.pid
        if ready:
            until(lambda: self._ready() or self.process.poll() is not None, PATIENCE_S)
            assert self._ready(), self.stderr
            self.port = int(re.search(r" port=(\d+) ", self.stdout)[1])

    def _command(self):
        program = ["-m", "papaya_pool"]
        if any(self._launch.values()):
            asked = json.dumps({**self._launch, "armed": str(self._armed)})
            program = [str(TESTS / "launch.py"), asked]
        options = ["--state-dir", str(self.state_dir), "--workers", str(self.workers)]
        if "--port" not in self.args:
            options += ["--port", "0"]
        return [sys.executable, *program, *options, *self.args]

    def _ready(self):
        return self.stdout.endswith("\n")

    def take_over(self, ready=True):
        """Start the next supervisor, beside what the dead one left running."""
        assert self.process.poll() is not None
        assert not self.surprises(), self.stderr
        self._before.append(self.pid)
        self.process = None
        self.start(ready)

    def orphans(self):
        """{pid: comm} of the processes of supervisors that are dead."""
        return {pid: comm for old in self._before for pid, comm in in_session(old).items()}

    def send_signal(self, number):
        self.process.send_signal(number)

    def wait(self, within=PATIENCE_S):
        """Until the supervisor has left; its exit code."""
        return until(lambda: (code := self.process.poll()) is not None and (code,), within)[0]

    def stop(self, within=PATIENCE_S):
        """Ask it to stop; it must leave with 0, in time, and leave nothing behind."""
        self.send_signal(signal.SIGTERM)
        code = self.wait(within)
        assert code == 0, f"exit code {code}\n{self.stderr}"
        self.check_clean()

    def check_clean(self):
        """After its end: no process, no block, no word that nobody expected."""
        until(lambda: not any(self._left().values()), 2.0)
        assert not self._left_behind()
        assert not self.surprises(), self.stderr
        self.process = None

    def _left_behind(self):
        return left_behind(blocks() - self._blocks_before, {*self._before, self.pid})

    def _left(self):
        return {pid: in_session(pid) for pid in (*self._before, self.pid)}

    def tear_down(self):
        """Whatever state it is in: gone afterwards, and clean, or the test fails."""
        if self.process is None:
            return
        try:
            if self.process.poll() is None:
                self.stop()
            else:
                self.check_clean()
        finally:
            if self.process is not None:
                self.end()

    def end(self):
        """kill -9 for all of it, by the ids of its sessions and no other."""
        for pid, left in self._left().items():
            if left:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        self.process.wait()
        until(lambda: not any(self._left().values()))
        for name in self._left_behind():
            (SHM / name).unlink(missing_ok=True)
        self.process = None

    # --- what it says and holds ---

    @property
    def stdout(self):
        return self._out.read_text()

    @property
    def stderr(self):
        return self._err.read_text("utf-8", "replace")

    @property
    def errors(self):
        """stderr, line by line."""
        return self.stderr.splitlines()

    def events(self, name):
        """The log lines with `event=name`, each as a dict."""
        found = [dict(re.findall(r'(\w+)=("[^"]*"|\S+)', line)) for line in self.errors]
        return [words for words in found if words.get("event") == name]

    def surprises(self):
        """What stderr says that is no log line, or tells of a bug."""
        allowed = [re.compile(pattern) for pattern in self.expected]
        return [
            line
            for line in self.errors
            if not (line.startswith("time=") and " event=bug " not in line)
            and not any(pattern.search(line) for pattern in allowed)
        ]

    @property
    def key(self):
        return (self.state_dir / "key").read_bytes().strip()

    @property
    def log_path(self):
        return self.state_dir / "room.log"

    @property
    def log(self):
        return self.log_path.read_bytes()

    def texts(self):
        """What the log says, and that its seqs are dense from 1."""
        records = [Record.of(line) for line in self.log.splitlines(keepends=True)]
        assert [r.seq for r in records] == list(range(1, len(records) + 1))
        return [r.text for r in records]

    @property
    def block(self):
        return (self.state_dir / "scoreboard").read_text().strip()

    def board(self):
        """The scoreboard, read-only, as papaya-top sees it."""
        return scoreboard.look(self.block)

    # --- its processes ---

    def pids(self):
        """{role: pid} by what the processes call themselves; the supervisor is `super`."""
        found = {"super": self.pid} if self.process.poll() is None else {}
        for pid, comm in in_session(self.pid).items():
            if comm.startswith("papaya:") and comm != "papaya:super":
                found[comm.removeprefix("papaya:")] = pid
        return found

    def worker_pids(self):
        pids = self.pids()
        return [pids[role] for role in sorted(pids) if re.fullmatch(r"w\d+", role)]

    def kill(self, role, number=signal.SIGKILL):
        """Send a signal to a process by role; its pid."""

        def sent():
            pid = self.pids().get(role)
            with contextlib.suppress(ProcessLookupError):  # it was faster
                if pid:
                    os.kill(pid, number)
                    return pid
            return None

        return until(sent)

    def replaced(self, role, pid, within=PATIENCE_S):
        """Wait until another process than `pid` has that role, and serves."""

        def served():
            now = self.pids().get(role)
            slots = {slot.pid: slot.state for slot in self.board().processes}
            return now not in (None, pid) and slots.get(now) == scoreboard.SERVING and now

        return until(served, within)

    def kill_and_wait(self, role):
        return self.replaced(role, self.kill(role))

    def sessions(self):
        """How many sessions are live by the scoreboard."""
        return sum(slot.state == scoreboard.LIVE for slot in self.board().sessions())

    def arm(self, **what):
        """The next process that comes to the seam dies there; see seams.py."""
        new = self._armed.with_suffix(".new")
        new.write_text(json.dumps(what))
        new.rename(self._armed)

    @property
    def armed(self):
        """Whether nobody has come there yet."""
        return self._armed.exists()

    def disarm(self):
        self._armed.unlink(missing_ok=True)

    def cpu_s(self):
        """User and system seconds of all its processes so far, the dead left out."""
        ticks = 0
        for pid in in_session(self.pid):
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(stat[11]) + int(stat[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def ctl(self, *words):
        """papaya-ctl: (exit code, what it says)."""
        done = subprocess.run(
            [sys.executable, "-m", "papaya_pool.ctl", "--state-dir", str(self.state_dir)]
            + [str(word) for word in words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=40,
            check=False,
        )
        return done.returncode, (done.stdout + done.stderr).decode()

    # --- its members ---

    def join(self, name="alice", **how):
        return Member(self.port, self.key, name, **how)

    def join_classic(self, **how):
        """A classic member that is in: it is told nothing, so the scoreboard is asked."""
        member = ClassicMember(self.port, self.key, **how)
        address = "{}:{}".format(*member.conn.getsockname())
        until(lambda: any(s.address == address and s.seated for s in self.board().sessions()))
        return member


class Record:
    """A line of the log, read by the test's own eyes."""

    __slots__ = ("name", "seq", "text", "time")

    @classmethod
    def of(cls, line):
        assert line.endswith(b"\n"), line
        record = cls()
        seq, record.time, record.name, record.text = line[:-1].decode().split("\t", 3)
        assert re.fullmatch(r"[1-9][0-9]*", seq), line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.time), line
        record.seq = int(seq)
        return record


def rendered(log):
    """What a classic member is told of these lines, before any NUL."""
    out = []
    for line in log.splitlines(keepends=True):
        record = Record.of(line)
        said = f"{record.name}: {record.text}".encode()
        while len(said) > 4095:
            said = said.decode()[:-1].encode()
        out.append(said + b"\n")
    return b"".join(out)


# --- members -------------------------------------------------------------------------


class Wire:
    """One connection, and every byte that it ever gave."""

    def __init__(self, port, host="127.0.0.1", rcvbuf=None):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.conn = socket.socket(family)
        try:
            if rcvbuf:
                self.conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            self.conn.settimeout(PATIENCE_S)
            self.conn.connect((host, port))
        except OSError:
            self.conn.close()
            raise
        self.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()
        self._counted = (0, 0)  # (bytes, line ends in them)
        self.over = None  # "fin" or "reset", once it is

    def fileno(self):
        return self.conn.fileno()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.conn.close()

    def reset(self):
        """Close as a crashed machine does: RST, and what is queued is dropped."""
        linger = (1).to_bytes(4, sys.byteorder) + bytes(4)
        self.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.conn.close()

    def half_close(self):
        self.conn.shutdown(socket.SHUT_WR)

    def send(self, data):
        self.conn.sendall(data)

    def read(self, size=1 << 18):
        """Take what is there, without waiting; whether there was anything."""
        if self.over or not self._is_readable(0):
            return False
        try:
            data = self.conn.recv(size)
        except ConnectionError:
            self.over = "reset"
            return True
        if not data:
            self.over = "fin"
        self.received += data
        return True

    def count(self):
        """How many lines came whole.  In text there is neither newline nor NUL."""
        at, count = self._counted
        new = self.received[at:]
        count += new.count(b"\n") + new.count(b"\0")
        self._counted = (len(self.received), count)
        return count

    def read_until(self, done, within=PATIENCE_S):
        """Read on until `done()`; fails with the last bytes that came."""
        deadline = time.monotonic() + within
        while not (value := done()):
            left = deadline - time.monotonic()
            assert left > 0, f"after {within} s, the last of {self!r}"
            assert not self.over, f"{self.over} after {self!r}"
            if self._is_readable(left):
                self.read()
        return value

    def _is_readable(self, timeout_s):
        poll = select.poll()  # select() knows no descriptor above 1023
        poll.register(self.conn, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def read_line(self):
        """The first line that came and was not returned yet; takes it away."""
        end = self.read_until(lambda: self.received.find(b"\n") + 1)
        line = bytes(self.received[: end - 1])
        del self.received[:end]
        self._counted = (0, 0)
        return line

    def read_to_end(self, within=PATIENCE_S):
        """Everything up to its end, which must come; "fin" or "reset"."""
        deadline = time.monotonic() + within
        while not self.over:
            left = deadline - time.monotonic()
            assert left > 0, f"no end within {within} s of {self!r}"
            if self._is_readable(left):
                self.read()
        return self.over

    def __repr__(self):
        return f"{len(self.received)} bytes: ...{bytes(self.received[-200:])!r}"


class Refused(Exception):
    """The server answered ERR; the code is its only argument."""


def proof(key, who, client_line, server_line):
    secret = hashlib.sha256(key).hexdigest().encode()
    text = b"papaya/2 %b\n%b\n%b\n" % (who, client_line, server_line)
    return hmac.new(secret, text, "sha256").hexdigest().encode()


class Member(Wire):
    """A native client; `received` is the log's own bytes, from `since` on."""

    def __init__(self, port, key, name="alice", *options, since=None, last=None, **wire):
        super().__init__(port, **wire)
        self.name = name
        words = [b"PAPAYA/2", name.encode(), secrets.token_hex(16).encode(), *options]
        if since is not None:
            words.append(b"since=%d" % since)
        if last is not None:
            words.append(b"last=%d" % last)
        try:
            self._log_in(key, b" ".join(words))
        except BaseException:
            self.close()
            raise

    def _log_in(self, key, hello):
        self.send(hello + b"\n")
        server_line = self._answer()
        self.send(proof(key, b"client", hello, server_line) + b"\n")
        self.ok = self._answer()
        ok, theirs, *fields = self.ok.split(b" ")
        assert (ok, theirs) == (b"OK", proof(key, b"server", hello, server_line))
        fields = dict(field.split(b"=") for field in fields)
        self.head, self.log_id = int(fields[b"head"]), fields[b"log"].decode()

    def _answer(self):
        line = self.read_line()
        if line.startswith(b"ERR "):
            raise Refused(line.split(b" ")[1].decode())
        return line

    def say(self, *texts):
        self.send("".join(f"{text}\n" for text in texts).encode())

    @property
    def stream(self):
        return bytes(self.received)

    def records(self):
        whole = self.stream[: self.stream.rfind(b"\n") + 1]
        return [Record.of(line) for line in whole.splitlines(keepends=True)]

    def texts(self):
        return [record.text for record in self.records()]

    def read_count(self, count, within=PATIENCE_S):
        """Read until that many messages are here; their texts."""
        self.read_until(lambda: self.count() >= count, within)
        return self.texts()

    def read_text(self, text, within=PATIENCE_S):
        """Read until a message says just that."""
        wanted = f"\t{text}\n".encode()
        self.read_until(lambda: wanted in self.received, within)


class ClassicMember(Wire):
    """The original client's dialect: the key itself, then lines `name: text`."""

    def __init__(self, port, key, name="carol", **wire):
        super().__init__(port, **wire)
        self.name = name
        self.send(key)

    def say(self, *texts):
        self.send("".join(f"{self.name}: {text}\n" for text in texts).encode())

    @property
    def stream(self):
        """What came, each NUL as the newline that it stands for."""
        return bytes(self.received).replace(b"\0", b"\n")

    def lines(self):
        return self.stream.decode().split("\n")[:-1]

    def read_count(self, count, within=PATIENCE_S):
        self.read_until(lambda: self.count() >= count, within)
        return self.lines()

    def read_text(self, text, within=PATIENCE_S):
        wanted = f": {text}\n".encode()
        self.read_until(lambda: wanted in self.stream, within)


def read_all(members, done, within=PATIENCE_S, act=None, every_s=0.05):
    """Read from all of them until `done(member)` of each; `act()` now and then.

    Fails if one of them ends first.
    """
    waiting = {member for member in members if not done(member)}
    deadline = time.monotonic() + within
    next_act = 0.0
    with selectors.DefaultSelector() as watch:
        for member in members:
            if not member.over:
                watch.register(member, selectors.EVENT_READ)
        while waiting:
            now = time.monotonic()
            assert now < deadline, f"{len(waiting)} wait, one of them {waiting.pop()!r}"
            if act and now >= next_act:
                act()
                next_act = now + every_s
            for key, _ in watch.select(min(every_s, deadline - now)):
                member = key.fileobj
                member.read()
                if done(member):
                    waiting.discard(member)
                if member.over:
                    watch.unregister(member)
                    assert member not in waiting, f"{member.over} after {member!r}"


def check_streams(log, members):
    """Every member has the log itself: nothing lost, doubled, torn or out of order.

    A native member's bytes are the log's own; a classic one's are its rendering.
    They begin at some line, that with which the member was told to begin.
    """
    said = rendered(log)
    for member in members:
        whole = said if isinstance(member, ClassicMember) else log
        stream = member.stream
        at = len(whole) - len(stream)
        assert whole.endswith(stream), f"{member!r}: {_difference(whole, stream)}"
        assert at == 0 or whole[at - 1 : at] == b"\n"


def _difference(whole, stream):
    begin = max(0, whole.find(stream[: stream.find(b"\n") + 1]))
    for at, byte in enumerate(stream):
        if whole[begin + at : begin + at + 1] != bytes([byte]):
            context = slice(max(0, at - 60), at + 60)
            expected = whole[begin + context.start : begin + context.stop]
            return f"at byte {at}: {stream[context]!r} and not {expected!r}"
    return "the end is missing, or more than once there"
