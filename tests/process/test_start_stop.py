"""From the command line to the exit code, and what is left in between and after."""

import os
import signal
import socket
import stat
import subprocess
import sys

import pytest
from harness import (
    PORTABLE,
    ROOT,
    SHM,
    ClassicMember,
    Member,
    blocks,
    in_session,
    left_behind,
    until,
)


def run(*args, within=15, **env):
    """Run a pool that is not to start: (exit code, its words)."""
    before = blocks()
    process = subprocess.Popen(
        [sys.executable, "-m", "papaya_pool", *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        try:
            out, err = process.communicate(timeout=within)
        finally:
            if in_session(process.pid):
                os.killpg(process.pid, signal.SIGKILL)
    assert out == b""
    assert not left_behind(blocks() - before, {0, process.pid})
    return process.returncode, err.decode()


def refused(code, *args, **env):
    """It must not start: that code, one line, no block, no process."""
    status, words = run(*args, **env)
    assert (status, words.count("\n")) == (code, 1), words
    assert words.startswith("papaya-pool: ")
    return words


# --- starting ------------------------------------------------------------------------


def test_it_says_one_line_when_it_is_ready_and_nothing_more(pool):
    with pool.join(last=0) as member:
        member.say("hi")
        member.read_count(1)
    words = f"papaya-pool ready host=127.0.0.1 port={pool.port} pid={pool.pid} workers=2\n"
    assert pool.stdout == words
    assert (pool.state_dir / "port").read_text() == f"{pool.port}\n"
    pool.stop()
    assert pool.stdout == words


def test_its_processes_have_names(pool):
    roles = {"super", "acceptor", "syncer", "w0", "w1"}
    assert set(until(lambda: len(pool.pids()) >= 5 and pool.pids())) == roles


def test_its_files_are_its_owners_alone(pool):
    assert stat.S_IMODE(pool.state_dir.stat().st_mode) == 0o700
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in pool.state_dir.iterdir()
        if not stat.S_ISSOCK(path.stat().st_mode)
    }
    assert set(modes.values()) == {0o600}, modes
    assert {"key", "room.log", "room.id", "port", "pid", "scoreboard"} <= set(modes)
    assert len(pool.key) == 128
    assert set(pool.key) <= set(b"0123456789abcdef")


def test_many_workers_share_the_members(start_pool):
    pool = start_pool(workers=8)
    members = [pool.join(f"m{n}", last=0) for n in range(16)]
    until(lambda: [slot.sessions for slot in pool.board().workers] == [2] * 8)
    for n, member in enumerate(members):
        member.say(str(n))
    for member in members:
        assert sorted(member.read_count(16), key=int) == [str(n) for n in range(16)]
        member.close()


def test_one_worker_is_enough(start_pool):
    pool = start_pool(workers=1)
    with pool.join("ann", last=0) as ann, pool.join("bob", last=0) as bob:
        ann.say("hi")
        bob.read_text("hi")


def test_a_state_directory_with_a_path_of_200_characters(start_pool, tmp_path):
    deep = tmp_path
    while len(str(deep)) < 199:
        deep /= "d" * min(60, max(1, 199 - len(str(deep))))
    pool = start_pool(state_dir=deep / "s" if len(str(deep)) < 200 else deep)
    assert len(str(pool.state_dir)) >= 200
    with pool.join(last=0) as member:
        member.say("deep")
        member.read_count(1)


def test_a_key_file_of_ones_own(start_pool, tmp_path):
    key = tmp_path / "mine"
    key.write_text("ABCDEF0123456789" * 8 + "\n")
    key.chmod(0o600)
    pool = start_pool("--key-file", key)
    assert not (pool.state_dir / "key").exists()
    digits = key.read_bytes().strip()
    with Member(pool.port, digits, last=0) as ann, ClassicMember(pool.port, digits) as carol:
        carol.say("hi")
        ann.read_text("hi")


@pytest.mark.parametrize("mode", ["never", "interval", "always"])
def test_every_fsync_mode_serves(start_pool, mode):
    pool = start_pool("--fsync", mode)
    assert ("syncer" in until(lambda: "acceptor" in pool.pids() and pool.pids())) == (
        mode == "interval"
    )
    with pool.join(last=0) as member:
        member.say(*map(str, range(50)))
        member.read_count(50)
    pool.stop()
    assert pool.texts() == [str(n) for n in range(50)]


# --- not starting --------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        *[["--workers", "0"], ["--workers", "-1"], ["--workers", "two"], ["--port", "65536"]],
        *[["--max-clients", "0"], ["--fsync", "often"], ["--host", "0.0.0.0"], ["--colour"]],
        *[["--workers"], ["stray"], ["--port", ""], ["--state-dir", ""]],
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_code_2(args, tmp_path):
    assert "--help" in refused(2, *args, HOME=str(tmp_path))


def test_a_second_server_on_the_same_directory_is_refused_with_the_pid(pool):
    words = refused(73, "--state-dir", pool.state_dir, "--port", "0")
    assert f"pid {pool.pid}" in words
    with pool.join(last=0) as member:
        member.say("still here")
        member.read_count(1)


def test_a_port_that_is_taken_is_refused(pool, tmp_path):
    words = refused(73, "--state-dir", tmp_path / "other", "--port", pool.port)
    assert f"port {pool.port}: in use" in words


def test_an_address_of_somebody_else_is_refused(tmp_path):
    words = refused(73, "--state-dir", tmp_path / "s", "--host", "192.0.2.1", "--plain")
    assert "192.0.2.1" in words


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 64, "a..b", "1.2.3.4.5"])
def test_a_host_that_is_none_is_refused(tmp_path, host):
    assert host[:10] in refused(73, "--state-dir", tmp_path / "s", "--host", host, "--plain")


@pytest.mark.parametrize(
    "content",
    [
        *[b"", b"ab" * 63, b"ab" * 65, b"xy" * 64, b"ab" * 32 + b"\n" + b"ab" * 32],
        *[b"\xff" * 128, b"ab" * 64 + b" x", b"\0" * 128],
    ],
)
@pytest.mark.parametrize("own", [True, False], ids=["key", "--key-file"])
def test_a_key_file_without_a_key_is_refused(tmp_path, content, own):
    state = tmp_path / "s"
    state.mkdir(mode=0o700)
    path = state / "key" if own else tmp_path / "mine"
    path.write_bytes(content)
    path.chmod(0o600)
    given = [] if own else ["--key-file", path]
    assert str(path) in refused(78, "--state-dir", state, "--port", "0", *given)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_key_file_that_others_can_read_is_refused(tmp_path, mode):
    path = tmp_path / "mine"
    path.write_text("ab" * 64)
    path.chmod(mode)
    words = refused(78, "--state-dir", tmp_path / "s", "--port", "0", "--key-file", path)
    assert "chmod 600" in words


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_a_key_file_that_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / "mine"
    if kind == "directory":
        path.mkdir(mode=0o700)
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    words = refused(78, "--state-dir", tmp_path / "s", "--port", "0", "--key-file", path)
    assert str(path) in words


@pytest.mark.parametrize("where", ["/dev/null/state", "/proc/papaya", "/proc/self/fdinfo"])
def test_a_state_directory_that_cannot_be_written_is_refused(where):
    assert where in refused(73, "--state-dir", where, "--port", "0")


@pytest.mark.parametrize("name", ["room.log", "key", "room.id", "pid", "port", "scoreboard"])
def test_a_directory_in_the_place_of_a_file_is_one_line_and_no_traceback(tmp_path, name):
    state = tmp_path / "s"
    (state / name / "x").mkdir(parents=True)
    (state / name).chmod(0o700)
    status, words = run("--state-dir", state, "--port", "0")
    assert (status in (73, 78), words.count("\n")) == (True, 1), words


@pytest.mark.parametrize("content", ["", "xyz", "0123456789abcde", "g" * 16])
def test_a_room_id_that_is_none_is_refused(tmp_path, content):
    state = tmp_path / "s"
    state.mkdir()
    (state / "room.id").write_text(content)
    (state / "room.log").touch()
    assert "room.id" in refused(78, "--state-dir", state, "--port", "0")


@pytest.mark.parametrize("descriptors", [8, 12, 16, 20, 24, 28, 32])
def test_too_few_descriptors_to_start_is_said_and_leaves_nothing(start_pool, descriptors):
    pool = start_pool(limits={"NOFILE": descriptors}, ready=False)
    pool.expected = ["^papaya-pool: "]
    until(lambda: pool.process.poll() is not None or pool.stdout, 15)
    if not pool.stdout:
        assert pool.wait() in (70, 73), pool.stderr
        assert pool.stderr.count("papaya-pool: ") == 1, pool.stderr
    assert "Traceback" not in pool.stderr, pool.stderr


HASTE = {"stop_s": 0.8}

# --- stopping ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_leaves_with_0_and_leaves_only_the_room(pool, number):
    with pool.join("ann", last=0) as ann, pool.join_classic() as carol:
        ann.say("bye")
        carol.read_count(1)
        pool.send_signal(number)
        assert (ann.read_to_end(), carol.read_to_end()) == ("fin", "fin")
        assert pool.wait() == 0
    left = {path.name for path in pool.state_dir.iterdir()}
    assert left == {"key", "room.log", "room.id"}
    assert pool.texts() == ["bye"]


def test_what_was_sent_before_the_stop_is_said_and_heard(pool):
    """The drain takes what had come, though nobody had looked at it yet."""
    with pool.join("ann", last=0) as ann, pool.join_classic() as carol:
        for role in ("w0", "w1"):
            pool.kill(role, signal.SIGSTOP)
        ann.say(*(f"last {n} {'x' * 100}" for n in range(300)))
        carol.say("and mine")
        pool.send_signal(signal.SIGTERM)
        until(lambda: pool.events("stopping"))
        for role in ("w0", "w1"):
            pool.kill(role, signal.SIGCONT)
        assert pool.wait() == 0
        texts = pool.texts()
        texts.remove("and mine")
        assert texts == [f"last {n} {'x' * 100}" for n in range(300)]


def test_a_stop_under_load_takes_less_than_five_seconds(start_pool):
    pool = start_pool()
    members = [pool.join(f"m{n}", last=0) for n in range(20)]
    try:
        for member in members:
            member.conn.settimeout(0.5)
            member.say(*["x" * 200] * 100)
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(within=5.0) == 0
        pool.texts()
    finally:
        for member in members:
            member.close()


def test_a_member_that_does_not_read_cannot_hold_up_the_stop(start_pool):
    pool = start_pool(settings=HASTE)
    lazy = pool.join("lazy", last=0, rcvbuf=4096)
    with lazy, pool.join("ann", last=0) as ann:
        ann.say(*["x" * 4000] * 500)
        ann.read_count(500)
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(within=8.0) == 0


def test_asked_twice_it_leaves_at_once(pool):
    with pool.join("lazy", last=0, rcvbuf=4096), pool.join("ann", last=0) as ann:
        ann.say(*["x" * 4000] * 500)
        ann.read_count(500)
        pool.send_signal(signal.SIGTERM)
        until(lambda: pool.events("stopping"))
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(within=3.0) == 0


def test_a_stop_with_a_stopped_worker_still_ends(start_pool):
    pool = start_pool(settings=HASTE)
    with pool.join(last=0) as member:
        member.say("x")
        member.read_count(1)
        pool.kill("w0", signal.SIGSTOP)
        pool.kill("w1", signal.SIGSTOP)
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(within=15) == 0


def test_a_restart_continues_the_log_and_its_seqs(pool):
    for run_ in range(3):
        with pool.join(since=0) as member:
            assert member.head == 2 * run_
            member.say(f"run {run_}", "x")
            member.read_count(2 * run_ + 2)
            log_id = member.log_id
        key = pool.key
        pool.stop()
        pool.start()
        assert pool.key == key
    with pool.join(since=4) as member:
        assert member.log_id == log_id
        assert [r.seq for r in (member.read_count(2) and member.records())] == [5, 6]


def test_a_start_after_kill_9_of_everything_continues_the_log(pool):
    with pool.join(last=0) as member:
        member.say("kept")
        member.read_count(1)
        log_id = member.log_id
        pool.end()
        assert member.read_to_end()
    pool.start()
    with pool.join(since=0) as member:
        assert (member.head, member.log_id) == (1, log_id)
        member.say("next")
        assert member.read_count(2) == ["kept", "next"]


def test_a_log_that_was_taken_away_is_another_log(pool):
    with pool.join(last=0) as member:
        member.say("old")
        member.read_count(1)
        log_id = member.log_id
    pool.stop()
    pool.log_path.unlink()
    pool.start()
    with pool.join(since=0) as member:
        assert member.head == 0
        assert member.log_id != log_id


@pytest.mark.skipif(PORTABLE, reason="the same there")
def test_a_stderr_that_nobody_reads_stops_nothing(tmp_path):
    """A terminal that hangs, or a caller with a pipe that it never empties."""
    reading, writing = os.pipe()
    state = tmp_path / "s"
    process = subprocess.Popen(
        [sys.executable, "-m", "papaya_pool", "--port", "0", "--state-dir", str(state)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=writing,
        start_new_session=True,
    )
    try:
        port = int(process.stdout.readline().split(b"port=")[1].split()[0])
        key = (state / "key").read_bytes()
        for _ in range(1500):  # each is one line on stderr
            with socket.create_connection(("127.0.0.1", port)) as conn:
                conn.send(b"no login\n")
                conn.settimeout(10)
                while conn.recv(1000):
                    pass
        with Member(port, key, last=0) as member:
            member.say("x")
            member.read_count(1)
        process.terminate()
        assert process.wait(10) == 0
    finally:
        if in_session(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        os.close(reading)
        os.close(writing)
        for name in left_behind(blocks(), {process.pid}):
            (SHM / name).unlink()
