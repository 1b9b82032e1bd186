"""A pool as tools/chaos has it on its stage: started, killed, started again.

Each supervisor gets a session of its own, and by these sessions, not by names, its
processes are found, and killed in the end.  What it is doing it says itself: one
line on stdout when it is ready, `event=` lines on stderr.

Failure: Broken if what was begun does not come to an end in time.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import proc

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 20.0  # for a start, a take-over, an end


class Broken(Exception):
    """The pool is in no state in which a run could go on."""


class Pool:
    """The server, in sessions of its own, started again and again on one directory."""

    def __init__(self, command, workers, where):
        self.state = where / "state"
        self._command = [*command, "--state-dir", str(self.state), "--port", "0"]
        self._command += ["--workers", str(workers)]
        self._where = where
        self._err = open(where / "stderr", "w+b")  # noqa: SIM115 - until close()
        self._blocks = set()  # that were ours
        self.sids = set()
        self.process = self.port = None
        self._awaited, self._until = b"", 0.0
        self._read, self._starts = 0, 0
        self.said = Counter()  # by event
        self.words = []  # what is no log line: tracebacks

    def start(self):
        self._starts += 1
        self._out = self._where / f"stdout{self._starts}"
        with open(self._out, "wb") as out:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=self._err,
                env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
            )  # fmt: skip
        self.sids.add(self.process.pid)
        self._wait_for("ready")

    def upgrade(self):
        self._wait_for("upgraded")
        self.process.send_signal(signal.SIGUSR2)

    def _wait_for(self, what):
        self._awaited, self._until = what, time.monotonic() + PATIENCE_S
        self._count_before = self.said["upgraded"]

    def is_up(self):
        """Whether what was begun is done.  Raises Broken if it takes too long."""
        self.listen()
        if self._awaited == "ready" and (text := self._out.read_text()).endswith("\n"):
            self.port = int(re.search(r" port=(\d+) ", text)[1])
            self._awaited = ""
            self._note_block()
        if self._awaited == "upgraded" and self.said["upgraded"] > self._count_before:
            self._awaited = ""
            self._note_block()
        if self._awaited and time.monotonic() > self._until:
            raise Broken(f"the pool was not {self._awaited} within {PATIENCE_S} s")
        if self.process.poll() is not None:
            raise Broken(f"the supervisor left with {self.process.returncode}")
        return not self._awaited

    def listen(self):
        """Take in what the pool has said on stderr."""
        data = os.pread(self._err.fileno(), 1 << 20, self._read)
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            self._read += len(line) + 1
            event = re.search(rb" event=([a-z-]+)", line)
            if event and line.startswith(b"time="):
                self.said[event[1].decode()] += 1
            else:
                self.words.append(line.decode("utf-8", "replace"))

    def find(self, role):
        """The living processes of a role under the present supervisor."""
        wanted = r"papaya:w\d+" if role in ("worker", "stop") else f"papaya:{role}"
        if role == "supervisor":
            return [self.process.pid]
        return [
            pid
            for pid, (comm, parent) in proc.in_sessions(self.sids).items()
            if parent == self.process.pid and re.fullmatch(wanted, comm)
        ]

    def pids(self):
        return sorted(proc.in_sessions(self.sids))

    def stop(self):
        """As an administrator would; what it did not do right, in words."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            return f"the pool was not gone {PATIENCE_S} s after SIGTERM"
        deadline = time.monotonic() + 2.0
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.listen()
        if self.pids():
            return f"processes were left: {proc.in_sessions(self.sids)}"
        return f"the pool left with {code}" if code else ""

    def _note_block(self):
        with contextlib.suppress(FileNotFoundError):
            self._blocks.add((self.state / "scoreboard").read_text().strip())

    def blocks(self):
        """Those of our blocks in /dev/shm that are still there."""
        return {name for name in self._blocks if os.path.exists(f"/dev/shm/{name}")}

    def close(self):
        """Whatever state it is in: gone afterwards, by its sessions and no other."""
        for _ in range(3):
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.wait()
        self._note_block()
        for name in self.blocks():
            os.unlink(f"/dev/shm/{name}")
        self._err.close()
