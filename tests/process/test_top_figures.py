"""papaya-top's figures against independent ones, and what watching may not do."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from harness import ROOT, read_all, until
from vt import Terminal

TOP = [sys.executable, "-m", "papaya_pool.top"]


def top(state_dir, *args, check=0, **how):
    """Run papaya-top to its end: (what it printed, what it said on stderr)."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **how.pop("env", {})}
    argv = [*TOP, "--state-dir", str(state_dir), *args]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=30, env=env, **how
    )
    assert done.returncode == check, done.stderr
    return done.stdout, done.stderr


def look(pool, *args):
    """`papaya-top --json`, understood."""
    out, err = top(pool.state_dir, "--json", *args)
    assert err == "" and out.count("\n") == 1
    return json.loads(out)


def workers(figures):
    return [row for row in figures["workers"] if row["role"] == "worker"]


# --- figures -------------------------------------------------------------------------


def test_members_messages_and_bytes_are_exactly_what_was_sent_and_received(pool):
    with contextlib.ExitStack() as stack:
        native = [stack.enter_context(pool.join(f"m{n}", since=0)) for n in range(5)]
        classic = [
            stack.enter_context(pool.join_classic(name=f"c{n}")) for n in range(2)
        ]
        until(lambda: pool.sessions() == 7)
        said = 0
        for n in range(20):
            text = f"message {n} " + "x" * n
            native[n % 3].say(text)
            said += len(text) + 1
        classic[0].say("hello")
        said += len("c0: hello\n")
        read_all([*native, *classic], lambda m: m.count() >= 21)

        figures = look(pool)
        assert figures["members"] == 7
        assert figures["head_seq"] == figures["messages_in"] == 21
        assert figures["deliveries"] == 21 * 7
        assert figures["bytes_in"] == said
        assert figures["log_bytes"] == len(pool.log)
        assert figures["bytes_out"] == sum(
            len(m.received) + len(getattr(m, "ok", b"")) + bool(getattr(m, "ok", b""))
            for m in [*native, *classic]
        )
        assert sum(row["sessions"] for row in workers(figures)) == 7

        rows = {row["name"]: row for row in figures["clients"]}
        for n, member in enumerate(native):
            row = rows[f"m{n}"]
            host, port = member.conn.getsockname()
            assert row["address"] == f"{host}:{port}"
            assert row["dialect"] == "native"
            assert row["messages_in"] == (7 if n < 2 else 6 if n == 2 else 0)
            assert row["lag_bytes"] == 0
            login = len(member.ok) + 1 + len("PAPAYA/2 \n") + 32
            assert row["bytes_out"] == len(member.received) + login
        assert (
            len([row for row in figures["clients"] if row["dialect"] == "classic"]) == 2
        )


def test_a_member_that_reads_nothing_shows_its_lag_and_what_it_pins(pool):
    with pool.join("slow", rcvbuf=4096) as slow, pool.join("loud") as loud:
        for _ in range(8):
            loud.say(*["x" * 4000] * 50)
            loud.read_until(lambda: loud.received.endswith(b"\n"))
        read_all([loud], lambda m: m.count() >= 400)

        def behind():
            rows = {row["name"]: row for row in look(pool, "-d", "0.1")["clients"]}
            assert rows["loud"]["lag_bytes"] == 0
            return rows["slow"] if rows["slow"]["lag_bytes"] > 100_000 else None

        row = until(behind)
        assert row["unacked_bytes"] > 0
        sent_and_not = row["bytes_out"] + row["lag_bytes"] - len(slow.ok) - 1 - 42
        assert sent_and_not == len(pool.log)


def test_cpu_and_memory_are_what_psutil_says_over_the_same_window(pool):
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(pool.join(f"m{n}")) for n in range(20)]
        watching = subprocess.Popen(
            [*TOP, "--state-dir", str(pool.state_dir), "--json", "-d", "2"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        with watching:
            mine = psutil.Process(watching.pid)
            until(lambda: mine.num_ctx_switches().voluntary > 0)
            processes = [psutil.Process(pid) for pid in pool.worker_pids()]
            before, begin = (
                [sum(p.cpu_times()[:2]) for p in processes],
                time.monotonic(),
            )
            sent = 0
            while watching.poll() is None:
                members[sent % 20].say(*["busy " * 20] * 20)
                sent += 20
                read_all(members, lambda m, n=sent: m.count() >= n)
            window = time.monotonic() - begin
            after = [sum(p.cpu_times()[:2]) for p in processes]
            figures = json.loads(watching.stdout.read())
        for row, a, b in zip(workers(figures), before, after, strict=True):
            expected = 100 * (b - a) / window
            assert row["cpu_percent"] == pytest.approx(expected, rel=0.15, abs=3)
        assert any(row["cpu_percent"] > 5 for row in workers(figures))
        for row, process in zip(workers(look(pool)), processes, strict=True):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            pss = int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)[1]) * 1024
            assert row["pss_bytes"] == pytest.approx(pss, rel=0.05)
            assert row["rss_bytes"] >= row["pss_bytes"] >= row["uss_bytes"] > 0


def test_counters_outlive_the_worker_that_counted(pool):
    with pool.join("ann") as ann, pool.join("ben") as ben:
        ann.say("one", "two")
        read_all([ann, ben], lambda m: m.count() == 2)
        before = look(pool)
        text, _ = top(pool.state_dir, "--prometheus")
        pool.kill_and_wait("w0")
        pool.kill_and_wait("w1")
        ann.say("three")
        read_all([ann, ben], lambda m: m.count() == 3)
        after = look(pool)
        assert after["messages_in"] == before["messages_in"] + 1 == 3
        assert after["deliveries"] == before["deliveries"] + 2 == 6
        assert [row["respawns"] for row in workers(after)] == [1, 1]
        assert (
            after["members"] == 2 and sum(row["moves"] for row in after["clients"]) >= 2
        )

        def counters(text):
            lines = [
                line.rpartition(" ") for line in text.splitlines() if line[0] != "#"
            ]
            return {name: float(value) for name, _, value in lines if "_total" in name}

        later = counters(top(pool.state_dir, "--prometheus")[0])
        for name, value in counters(text).items():
            assert later.get(name, value) >= value, name


# --- when everything hangs -----------------------------------------------------------


def test_with_every_process_stopped_it_answers_at_once_and_shows_who_is_late(
    start_pool,
):
    pool = start_pool(settings={"worker_deadline_s": 0.5})
    pool.expected = ["^Current thread", "^  File", "^$"]  # where they hung
    with pool.join("ann") as ann:
        ann.say("before")
        ann.read_text("before")
        # The supervisor too, or it would replace them.
        pids = [pool.kill("super", signal.SIGSTOP)]
        try:
            pids += [
                pool.kill(role, signal.SIGSTOP) for role in ("w0", "w1", "acceptor")
            ]
            slots = pool.board().processes[:3]
            until(lambda: all(s.deadline_ns < time.monotonic_ns() for s in slots))
            ann.say("nobody hears this")
            begin = time.monotonic()
            text, _ = top(pool.state_dir, "--once")
            assert time.monotonic() - begin < 1.0
            rows = [
                line.split() for line in text.splitlines() if line[:4].strip().isdigit()
            ]
            assert [row[4] for row in rows[:3]] == ["late"] * 3
            assert rows[4][4] in ("frozen", "late")
            assert "late: w0 w1 acceptor" in text
            figures = look(pool)
            assert figures["members"] == 1 and figures["clients"][0]["name"] == "ann"
            assert all(row["deadline_s"] < 0 for row in workers(figures))
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)
        ann.read_text("nobody hears this")


# --- watching disturbs nothing -------------------------------------------------------


@pytest.mark.soak
def test_starting_and_quitting_it_a_hundred_times_leaves_the_block_in_place(pool):
    block = Path("/dev/shm", pool.block)
    before = block.read_bytes()[: 64 * 8], block.stat().st_mtime_ns
    with pool.join("ann") as ann:
        for _ in range(25):
            several = [
                subprocess.Popen(
                    [*TOP, "--state-dir", str(pool.state_dir), "--prometheus"],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                )
                for _ in range(4)
            ]
            for one in several:
                assert one.communicate()[1] == b"" and one.returncode == 0
        assert (block.read_bytes()[: 64 * 8], block.stat().st_mtime_ns)[0] == before[0]
        ann.say("still here")
        ann.read_text("still here")


def test_it_opens_nothing_of_the_pool_for_writing_and_connects_nowhere(pool, tmp_path):
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("no strace")
    trace = tmp_path / "trace"
    argv = [strace, "-f", "-e", "trace=open,openat,unlink,unlinkat,connect,kill,ptrace"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [*argv, "-o", str(trace), *TOP, "--state-dir", str(pool.state_dir), "--json"],
        env=env, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for line in trace.read_text().splitlines():
        assert not re.search(r"\b(unlink|connect|kill|ptrace)\w*\(", line), line
        assert not re.search(r"O_RDWR|O_WRONLY|O_CREAT", line) or "/dev/null" in line, (
            line
        )


@pytest.mark.soak
@pytest.mark.parametrize("how", [[], ["--clients"]])
def test_a_thousand_members_are_watched_for_little(start_pool, how):
    pool = start_pool(workers=4)
    with contextlib.ExitStack() as stack:
        for n in range(1000):
            stack.enter_context(pool.join(f"m{n}", last=0))
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        argv = [*TOP, "--state-dir", str(pool.state_dir), "-d", "1", *how]
        screen = Terminal(argv, env, 30, 100)
        stack.callback(screen.close)
        screen.shows("members 1000 of", within=10)
        process = psutil.Process(screen.pid)
        begin, before = time.monotonic(), sum(process.cpu_times()[:2])
        end = begin + 6
        while time.monotonic() < end:
            screen.read(0.2)
        spent = sum(process.cpu_times()[:2]) - before
        share = spent / (time.monotonic() - begin)
        # Measured: 1.6 % and 2.0 % of a core; a busy machine makes it look like more.
        assert share < 0.045, f"{share:.1%} of a core"


# --- for scripts ---------------------------------------------------------------------


def test_batch_prints_so_many_tables(pool):
    begin = time.monotonic()
    text, _ = top(pool.state_dir, "--batch", "-n", "3", "-d", "0.2")
    assert 0.6 <= time.monotonic() - begin < 5
    assert text.count("SLOT ROLE") == 3 and text.count("papaya-top") == 3
    text, _ = top(pool.state_dir, "--batch", "--json", "-n", "2", "-d", "0.1")
    assert [json.loads(line)["members"] for line in text.splitlines()] == [0, 0]


def test_the_window_is_what_was_asked_for(pool):
    assert look(pool, "-d", "0.3")["window_s"] == pytest.approx(0.3, abs=0.1)


def test_once_shows_the_clients_too(pool):
    with pool.join("ann"), pool.join("日本"):
        text, _ = top(pool.state_dir, "--once", "--clients", "--sort", "name")
        names = [line.split()[0] for line in text.splitlines() if " native " in line]
        assert names == ["ann", "日本"]
        text, _ = top(pool.state_dir, "--once", "--clients", "--filter", "AN")
        assert " native " in text and "日本" not in text
        columns = {"COLUMNS": "40", "PYTHONIOENCODING": "ascii"}
        text, _ = top(pool.state_dir, "--once", "--clients", env=columns)
        assert all(len(line) <= 40 for line in text.splitlines())


def test_head_has_seen_enough(pool):
    argv = " ".join([*TOP, "--state-dir", str(pool.state_dir), "--batch", "-d", "0.1"])
    script = f"{argv} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=20,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0" and done.stderr == ""


@pytest.mark.parametrize(
    "args",
    [
        ["--nonsense"],
        ["--once", "--batch"],
        ["--json", "--prometheus"],
        ["-n", "3"],
        ["--batch", "-n", "0"],
        ["-d", "0"],
        ["-d", "nan"],
        ["-d", "1e3"],
        ["--sort", "BEAUTY", "--once"],
        ["--state-dir", ""],
        [],  # this is no terminal
    ],
)
def test_a_mistake_is_one_line_and_2(pool, args):
    out, err = top(pool.state_dir, *args, check=2, stdin=subprocess.DEVNULL)
    assert out == "" and err.startswith("papaya-top: ") and err.count("\n") == 1


@pytest.mark.parametrize("mode", [["--once"], ["--json"], ["--prometheus"], []])
def test_no_pool_there_is_one_line_and_69(tmp_path, mode):
    (tmp_path / "file").touch()
    (tmp_path / "st").mkdir()
    (tmp_path / "st" / "scoreboard").write_text("papaya-nothing\n")
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "scoreboard").write_text("../../etc/passwd\n")
    for where in ("nowhere", "file", "file/below", "st", "evil", "x" * 300):
        out, err = top(tmp_path / where, *mode, check=69)
        assert (
            out == ""
            and err.startswith("papaya-top: no pool in ")
            and err.count("\n") == 1
        )


def test_without_psutil_it_is_one_line_and_69():
    hide = "import sys; sys.modules['psutil'] = None; import papaya_pool.top"
    command = [sys.executable, "-c", hide]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith("papaya-top: needs psutil")
    assert done.stderr.count("\n") == 1


def test_a_pool_that_was_killed_is_no_pool(start_pool):
    pool = start_pool()
    state = pool.state_dir.with_name("copy")
    shutil.copytree(pool.state_dir, state, ignore=lambda *_: ["control.sock"])
    assert top(state, "--prometheus")
    pool.stop()
    assert "no pool" in top(state, "--once", check=69)[1]


# --- somebody else's pool ------------------------------------------------------------


AS_NOBODY = """
import codecs, os, sys
from papaya_pool import top
codecs.lookup("ascii")
os.setgroups([]), os.setgid(65534), os.setuid(65534)
sys.exit(top.main(sys.argv[1:]))
"""


@pytest.fixture
def somebody_else(monkeypatch):
    """Makes top() run as nobody in particular; a directory that nobody may enter."""
    if os.getuid():
        pytest.skip("only root can be somebody else")
    # Not by Popen's `user`: this interpreter may be one that only we can start.
    monkeypatch.setattr(sys.modules[__name__], "TOP", [sys.executable, "-c", AS_NOBODY])
    with tempfile.TemporaryDirectory(prefix="papaya-stranger-") as where:
        Path(where).chmod(0o755)
        yield Path(where)


def test_what_may_not_be_seen_at_all_is_77(somebody_else, start_pool):
    pool = start_pool(state_dir=somebody_else / "st")
    for mode in ("--once", "--json", "--prometheus"):
        out, err = top(pool.state_dir, mode, check=77)
        assert out == "" and err.count("\n") == 1 and "ermission" in err
    pool.state_dir.chmod(0o755)
    (pool.state_dir / "scoreboard").chmod(0o644)
    assert "/dev/shm" in top(pool.state_dir, "--once", check=77)[1]


def test_what_permissions_hide_is_a_dash_and_is_said(somebody_else, start_pool):
    pool = start_pool(state_dir=somebody_else / "st")
    pool.state_dir.chmod(0o755)
    (pool.state_dir / "scoreboard").chmod(0o644)
    Path("/dev/shm", pool.block).chmod(0o644)
    with pool.join("ann"):
        text, _ = top(pool.state_dir, "--once")
        assert "hidden from you: FDS PSS USS" in text
        lines = [line.split() for line in text.splitlines()]
        titles = next(line for line in lines if line[0] == "SLOT")
        shown = dict(
            zip(titles, next(line for line in lines if line[0] == "0"), strict=True)
        )
        assert shown["PSS"] == shown["USS"] == shown["FDS"] == "-"
        assert shown["CPU%"] != "-" and shown["RSS"] != "-" and shown["SESS"] != "-"
        figures = json.loads(top(pool.state_dir, "--json")[0])
        assert figures["hidden"] == ["FDS", "PSS USS"]
        assert workers(figures)[0]["pss_bytes"] is None
        assert figures["members"] == 1
