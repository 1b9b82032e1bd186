"""New code under the same pid: what the supervisor hands down to itself.

An upgrade is a planned take-over (takeover.py) with two differences.  A trial child
runs the new code first, as a whole pool in a directory of its own, so that code
that cannot start never gets near the members.  And the listening sockets and the
lock on `pid` are inherited through exec, so the port is never closed and no other
supervisor can come in between.

Owner:   the supervisor.
Order:   trial, then hand_down, then exec.
Failure: a trial that fails, or an exec that fails, leaves the old pool as it was.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, MutableMapping
from typing import Any, NamedTuple

HANDED = "PAPAYA_HANDED_DOWN"
TRIAL = "PAPAYA_TRIAL"
TRIAL_S = 20.0


class Inherited(NamedTuple):
    """What a supervisor got from the code that it was before."""

    upgraded: bool
    held_fd: int
    listener_fds: list[int]
    old_children: list[int]
    dups: dict[int, tuple[int, int]]  # of members' sockets: slot -> generation, fd

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> "Inherited":
        """Takes it out of the environment: no child is to believe it."""
        handed = environ.pop(HANDED, "")
        if not handed:
            return cls(False, -1, [], [], {})
        fields = _read(int(handed))
        os.close(int(handed))
        dups = {slot: (generation, fd) for slot, generation, fd in fields["dups"]}
        for _, fd in dups.values():
            os.set_inheritable(fd, False)
        return cls(True, fields["held"], fields["listeners"], fields["children"], dups)

    def listeners(self) -> list[socket.socket]:
        listeners = [socket.socket(fileno=fd) for fd in self.listener_fds]
        for one in listeners:
            one.set_inheritable(False)
            one.setblocking(False)
        return listeners


def held_fd(environ: MutableMapping[str, str]) -> int:
    """The handed-down descriptor of `pid`, still locked; -1 if there is none."""
    handed = environ.get(HANDED, "")
    return int(_read(int(handed))["held"]) if handed else -1


def _read(fd: int) -> dict[str, Any]:
    return dict(json.loads(os.pread(fd, os.fstat(fd).st_size, 0)))


class HandDown:
    """What lives through exec: the lock, the listeners, and every member's dup.

    In a file without a name: ten thousand members do not fit in an environment.
    """

    def __init__(
        self,
        held: int,
        listeners: Iterable[socket.socket],
        children: list[int],
        dups: dict[int, tuple[int, int]],
    ) -> None:
        listener_fds = [one.fileno() for one in listeners]
        entries = [(slot, generation, fd) for slot, (generation, fd) in dups.items()]
        fields = {
            "held": held, "listeners": listener_fds, "children": children, "dups": entries
        }  # fmt: skip
        self._file = tempfile.TemporaryFile()
        self._file.write(json.dumps(fields).encode())
        self._file.flush()
        self._fds = [held, *listener_fds, *(fd for _, _, fd in entries), self._file.fileno()]
        for fd in self._fds:
            os.set_inheritable(fd, True)
        os.environ[HANDED] = str(self._file.fileno())

    def exec(self, program: list[str], signals: Iterable[int]) -> OSError:
        """Become `program`.  Returns only if that failed, and then all is as before.

        `signals` are blocked: the new code has no handlers yet, and one would end it.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            os.execv(program[0], program)
        except OSError as err:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            self._take_back()
            return err

    def _take_back(self) -> None:
        for fd in self._fds:
            os.set_inheritable(fd, False)
        self._file.close()
        os.environ.pop(HANDED, None)


def program() -> list[str]:
    """The command that runs this program's code as it is on disk now."""
    return [sys.executable, "-m", "papaya_pool", *sys.argv[1:]]


class Trial:
    """The new code, run as a whole pool of its own until it is ready, then stopped."""

    def __init__(self) -> None:
        self._dir = tempfile.TemporaryDirectory(prefix="papaya-trial-")
        self._said = open(f"{self._dir.name}/stderr", "w+b")  # noqa: SIM115 - until close()
        environ = {**os.environ, TRIAL: self._dir.name}
        self._process = subprocess.Popen(
            program(), env=environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=self._said, start_new_session=True,
        )  # fmt: skip

    def verdict(self) -> str | None:
        """None while it runs, "" if the new code works, else why it does not."""
        code = self._process.poll()
        if code is None:
            return None
        if code == 0:
            return ""
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with exit code {code}"

    def close(self) -> None:
        """End it, if it still runs, and take its traces away."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-self._process.pid, signal.SIGKILL)  # all of its session
        self._process.wait()
        self._said.close()
        self._dir.cleanup()
