"""papaya-chat against the pool itself."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness import PORTABLE, until
from vt import Terminal

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "papaya_pool.chat"]


@pytest.fixture
def env(tmp_path):
    home = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "TZ": "UTC"}
    return {**os.environ, **home, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}


@pytest.fixture
def start(env):
    running = []

    def start(pool, *args):
        process = subprocess.Popen(
            [*COMMAND, "--state-dir", str(pool.state_dir), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def sit_down(env):
    """papaya-chat on a terminal."""
    terminals = []

    def sit_down(pool, *args, **size):
        argv = [*COMMAND, "--state-dir", str(pool.state_dir), *args]
        terminals.append(Terminal(argv, env, **size))
        return terminals[-1]

    yield sit_down
    for terminal in terminals:
        terminal.close()


@pytest.mark.parametrize("dialect", ["native", "classic"])
def test_one_line_each_from_many_programs_is_in_the_log_once(start_pool, start, dialect):
    pool = start_pool("--classic")
    for n in range(8):
        process = start(pool, "--name", "bot", "--dialect", dialect)
        _, err = process.communicate(b"%d\n" % n, timeout=10)
        assert (process.returncode, err) == (0, b"")
    assert pool.texts() == [str(n) for n in range(8)]


def test_many_at_once_under_one_name_each_see_their_own(pool, start):
    running = [start(pool, "--name", "bot") for _ in range(6)]
    for process in running:
        process.stdin.write(b"the same\n")
        process.stdin.close()
        process.stdin = None
    for process in running:
        out, _ = process.communicate(timeout=10)
        assert process.returncode == 0
        assert b"bot: the same" in out
    assert pool.texts() == ["the same"] * 6


def test_what_goes_in_comes_out_as_the_log_has_it(pool, start):
    said = "tab\there, 日本, \U0001f600, \x1b[31mred, trailing  \n"
    process = start(pool, "--name", "bot", "--json")
    out, _ = process.communicate(said.encode(), timeout=10)
    assert [json.loads(line)["text"] for line in out.splitlines()] == pool.texts()
    assert pool.texts() == [said.replace("\x1b", "").rstrip("\n")]


def test_a_wrong_key_is_refused(pool, start, tmp_path):
    key = tmp_path / "wrong"
    key.write_text("0" * 128)
    key.chmod(0o600)
    process = start(pool, "--key-file", str(key))
    _, err = process.communicate(b"hi\n", timeout=10)
    assert (process.returncode, pool.texts()) == (77, [])
    assert err.startswith(b"papaya-chat: refused: wrong key")


def test_a_worker_that_dies_is_not_noticed(pool, start):
    process = start(pool, "--name", "bot", "--json")
    for n in range(4):
        process.stdin.write(b"%d\n" % n)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["text"] == str(n)
        pool.kill_and_wait(f"w{n % 2}")
    _, err = process.communicate(timeout=10)
    assert (process.returncode, pool.texts()) == (0, ["0", "1", "2", "3"])
    if not PORTABLE:  # there it comes back and resumes, and says so
        assert err == b""


def test_two_chat_on_while_the_server_is_killed_and_restarted(start_pool, start):
    with socket.create_server(("127.0.0.1", 0)) as picked:
        port = picked.getsockname()[1]
    pool = start_pool("--port", str(port))
    both = [start(pool, "--name", name, "--json") for name in ("ann", "bob")]
    until(lambda: pool.sessions() == 2)
    for n in range(3):
        for process in both:
            process.stdin.write(b"before %d\n" % n)
            process.stdin.flush()
        until(lambda n=n: len(pool.texts()) >= 4 * n + 2)
        pool.end()
        for process in both:
            process.stdin.write(b"after %d\n" % n)
            process.stdin.flush()
        pool.start()
        until(lambda n=n: len(pool.texts()) == 4 * n + 4, within=15)
    seen = [process.communicate(timeout=10)[0] for process in both]
    for process, out in zip(both, seen, strict=True):
        assert process.returncode == 0
        messages = [json.loads(line) for line in out.splitlines()]
        assert [m["seq"] for m in messages] == list(range(1, len(pool.texts()) + 1))
        assert [m["text"] for m in messages] == pool.texts()
    words = [f"{when} {n}" for n in range(3) for when in ("before", "after")]
    assert sorted(pool.texts()) == sorted(words * 2)


def test_two_people_chat_on_two_terminals(pool, sit_down):
    ann = sit_down(pool, "--name", "ann")
    bob = sit_down(pool, "--name", "bob", rows=8, columns=40)
    for terminal in (ann, bob):
        terminal.shows("connected")
    ann.type("hello, Bob\r")
    bob.shows("ann: hello, Bob")
    bob.type("hello yourself\r")
    ann.shows("bob  hello yourself")
    assert bob.screen.bells == 1
    pool.kill_and_wait("w0")
    pool.kill_and_wait("w1")
    ann.type("still here\r")
    bob.shows("ann: still here")
    assert pool.texts() == ["hello, Bob", "hello yourself", "still here"]


def test_scrolling_back_in_a_real_log(pool, sit_down, start):
    process = start(pool, "--name", "bot", "--quiet")
    process.communicate("\n".join(f"number {n}." for n in range(1, 601)).encode())
    ann = sit_down(pool, "--name", "ann", rows=12)
    ann.shows("number 600.")
    ann.type("/since 99\r")
    lines = ann.shows("number 100.")
    assert [line.split()[-1] for line in lines[1:6]] == [f"{n}." for n in range(100, 105)]


def test_the_invitation_is_typed_without_echo_and_saved(pool, sit_down, start, tmp_path):
    invitation = f"papaya://127.0.0.1:{pool.port}/{pool.key.decode()}"
    ann = sit_down(pool, "join", "--name", "ann")
    ann.shows("Invitation (not shown):")
    ann.type(invitation + "\r")
    lines = ann.shows("Save this room as")
    assert not any(invitation[-20:] in line for line in lines)
    cmdline = Path(f"/proc/{ann.pid}/cmdline").read_bytes()
    environ = Path(f"/proc/{ann.pid}/environ").read_bytes()
    assert pool.key not in cmdline + environ
    ann.type("work\r")
    ann.shows("connected")
    ann.type("/quit\r")
    assert ann.ends() == 0
    key_file = tmp_path / ".config" / "papaya-chat" / "work.key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    process = start(pool, "work")
    process.communicate(b"from a saved room\n", timeout=10)
    assert process.returncode == 0
    assert pool.log.endswith(b"\tann\tfrom a saved room\n")


def test_ctrl_c_at_the_invitation_leaves_no_traceback(pool, sit_down):
    ann = sit_down(pool, "join")
    ann.shows("Invitation (not shown):")
    ann.type("\x03")
    assert ann.ends() == 130
    assert not any("Traceback" in line for line in ann.screen.lines())


def test_a_pool_that_stops_sends_everything_first(start_pool, start):
    pool = start_pool()
    process = start(pool, "--name", "bot", "--json", "--patience", "0.5")
    process.stdin.write(b"hi\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["text"] == "hi"
    pool.send_signal(signal.SIGTERM)
    pool.wait()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 69
    assert b"not sent" not in err
