"""papaya-chat --dialect classic against what the original server does."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from harness import until
from standin import KEY

ROOT = Path(__file__).resolve().parents[2]


class Original:
    """The original papayaChat as far as a client can see it.

    It answers nothing to the key, ends each send with a NUL, hears an end of input
    without closing, and closes without a word if the key is wrong.
    """

    def __init__(self):
        self.lines = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._conns = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        for conn in self._conns:
            with suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for sock in [self._listener, *self._conns]:
            sock.close()

    def cut(self):
        for conn in self._conns:
            with suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        with suppress(OSError):
            while True:
                conn, _ = self._listener.accept()
                self._conns.append(conn)
                self._threads.append(threading.Thread(target=self._serve, args=(conn,)))
                self._threads[-1].start()

    def _serve(self, conn):
        with suppress(OSError):
            if conn.recv(128, socket.MSG_WAITALL) != KEY.encode():
                conn.shutdown(socket.SHUT_RDWR)
                return
            conn.sendall("\n".join(self.lines[-7:]).encode() + b"\0")
            piece = b""
            while data := conn.recv(4096):
                *whole, piece = (piece + data).split(b"\n")
                self.lines += [line.decode() for line in whole]
                for other in self._conns:
                    with suppress(OSError):
                        other.sendall(b"\n".join(whole) + b"\0")


@pytest.fixture
def original():
    server = Original()
    yield server
    server.stop()


@pytest.fixture
def start(original, tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    running = []

    def start(*args):
        where = ["--port", str(original.port), "--key-file", str(key_file)]
        how = [*where, "--dialect", "classic", *args]
        process = subprocess.Popen(
            [sys.executable, "-m", "papaya_pool.chat", *how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TZ": "UTC"},
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def spoken(out):
    """Without the clock, which is the reader's own."""
    return [line.split(" ", 1)[1] for line in out.decode().splitlines()]


def test_it_sends_hears_and_leaves(original, start):
    original.lines = [f"ann: {n}" for n in range(9)]
    process = start("--name", "bot")
    out, err = process.communicate(b"hello\nagain\n", timeout=10)
    assert (process.returncode, err) == (0, b"")
    said = ["bot: hello", "bot: again"]
    assert spoken(out) == [*(f"ann: {n}" for n in range(2, 9)), *said]
    assert original.lines[-2:] == said


def test_a_wrong_key_is_77(original, start, tmp_path):
    (tmp_path / "key").write_text("f" * 128)
    process = start("--name", "bot")
    _, err = process.communicate(b"hello\n", timeout=10)
    assert (process.returncode, original.lines) == (77, [])
    assert b"closed without a word" in err


def test_it_comes_back_and_shows_nothing_twice(original, start):
    process = start("--name", "bot")
    for n in range(3):
        process.stdin.write(b"%d\n" % n)
        process.stdin.flush()
        until(lambda n=n: len(original.lines) == n + 1)
        assert spoken(process.stdout.readline()) == [f"bot: {n}"]
        original.cut()
        # What is said before it is back is given up: classic cannot ask for it.
        until(lambda n=n: len(original._conns) == n + 2)
    out, _ = process.communicate(b"last\n", timeout=10)
    assert (process.returncode, spoken(out)) == (0, ["bot: last"])
    assert original.lines == ["bot: 0", "bot: 1", "bot: 2", "bot: last"]


def test_beyond_this_machine_the_key_in_clear_must_be_meant(start):
    process = start("--name", "bot", "--host", "192.0.2.1")
    _, err = process.communicate(timeout=10)
    assert (process.returncode, b"--plain" in err) == (2, True)
