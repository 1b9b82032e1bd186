"""The tools work, and those that check something can fail.

Every tool has a line in the folder's README, and a test in here or elsewhere.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from harness import PORTABLE, ROOT, Member

TOOLS = ROOT / "tools"
sys.path.insert(0, str(TOOLS))

import judge  # noqa: E402
import load  # noqa: E402

PROGRAMS = [
    "chaos", "bench", "load.py", "dumplog.py", "dumpboard.py", "pages.py", "torn.py",
]  # fmt: skip
# The others are run by these: "stage.py", "crowd.py", "judge.py", "wire.py" and
# "proc.py" by chaos, "load.c", "reference.c" and "asyncio_chat.py" by bench.

only_linux = pytest.mark.skipif(PORTABLE, reason="a dead worker's members do reconnect")
needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")


def run(tool, *args, within=60):
    command = [sys.executable, TOOLS / tool, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=within)


# --- the folder ----------------------------------------------------------------------


def test_every_tool_has_its_line_in_the_readme_and_a_test():
    readme = (TOOLS / "README.md").read_text()
    listed = re.findall(r"^\| `([^`]+)` \| \S", readme, re.MULTILINE)
    there = {path.name for path in TOOLS.iterdir() if path.is_file()} - {"README.md"}
    assert sorted(listed) == sorted(there)
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    assert [tool for tool in there if tool not in tests] == []


@pytest.mark.parametrize("tool", [*PROGRAMS, "asyncio_chat.py"])
def test_a_tool_says_what_it_is_for(tool):
    asked = run(tool, "--help")
    assert asked.returncode == 0
    assert len(asked.stdout) > 200
    source = (TOOLS / tool).read_text()
    assert source.startswith('#!/usr/bin/env python3\n"""')
    assert (TOOLS / tool).stat().st_mode & 0o111


# --- chaos ---------------------------------------------------------------------------

SHORT = ["--seconds", 1, "--members", 8, "--workers", 2, "--every", 0.25, "--seed", 7]

# What a server is made to do wrong, before its first fork.
BROKEN = {
    "lost": """
        # Every fifth append forgets its last line.
        from papaya_pool import commit
        right, count = commit._encoded, [0]
        def wrong(batch, head):
            count[0] += 1
            data, seq, when = right(batch, head)
            lines = data.splitlines(keepends=True)
            if count[0] % 5 == 4 and len(lines) > 1:
                return b"".join(lines[:-1]), seq - 1, when
            return data, seq, when
        commit._encoded = wrong
    """,
    "doubled": """
        # What is in the log stays in the ring, now and then.
        from papaya_pool import records
        right, count = records.stored, [0]
        def wrong(seq, when, name, texts):
            count[0] += 1
            if count[0] % 5 == 4 and len(texts) > 1:
                texts[1] = texts[0]
            return right(seq, when, name, texts)
        records.stored = wrong
    """,
    "out of order": """
        from papaya_pool import records
        right, count = records.stored, [0]
        def wrong(seq, when, name, texts):
            count[0] += 1
            if count[0] % 5 == 4:
                texts.reverse()
            return right(seq, when, name, texts)
        records.stored = wrong
    """,
    "torn": """
        # A successor goes on one byte late.
        from papaya_pool import wirecount
        right = wirecount.count
        wirecount.count = lambda fd: right(fd)._replace(written=right(fd).written + 1)
    """,
    "disconnected": """
        # Who is taken over is hung up on.
        from papaya_pool import wirecount
        right = wirecount.count
        wirecount.count = lambda fd: right(fd)._replace(fin_sent=True)
    """,
}  # fmt: skip


@only_linux
def test_chaos_finds_nothing_wrong_with_the_pool():
    found = run("chaos", *SHORT, "--kill", "worker,acceptor,supervisor", "--json")
    assert found.returncode == 0, found.stdout + found.stderr
    figures = json.loads(found.stdout)
    assert figures["faults"] == {}
    assert figures["deliveries"] > figures["messages"] > 8
    assert sum(figures["kills"].values()) > 0
    assert "seed 7" in found.stderr


@only_linux
@pytest.mark.parametrize(
    "fault",
    [
        fault if fault in ("lost", "torn") else pytest.param(fault, marks=pytest.mark.soak)
        for fault in BROKEN
    ],
)
def test_chaos_sees_that_a_server_is_broken(tmp_path, fault):
    script = tmp_path / "broken.py"
    lines = [line.removeprefix("        ") for line in BROKEN[fault].splitlines()]
    end = "from papaya_pool import __main__\nraise SystemExit(__main__.main())\n"
    script.write_text("\n".join([*lines, end]))
    found = run("chaos", *SHORT, "--json", "--server", f"{sys.executable} {script}")
    assert found.returncode == 1, found.stdout + found.stderr
    assert json.loads(found.stdout)["faults"].get(fault), found.stdout


# --- its judge -----------------------------------------------------------------------


def written(tmp_path, order, member=3):
    """A log of a member's messages, in this order, and a judge who has read it."""
    path, faults = tmp_path / "room.log", judge.Faults()
    when = b"2026-01-01T00:00:00.000Z"
    lines = [
        b"%d\t%b\tm%d\t%b\n" % (seq, when, member, judge.said(member, count))
        for seq, count in enumerate(order, 1)
    ]
    path.write_bytes(b"".join(lines))
    log = judge.Log(path, faults)
    return lines, log, faults


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([0, 1, 2, 3], {}),
        ([0, 1, 3], {"lost": 1}),
        ([0, 1, 2], {"lost": 1}),
        ([0, 1, 1, 2, 3], {"doubled": 1}),
        ([0, 2, 1, 3], {"out of order": 1}),
        ([0, 1, 2, 3, 4], {"doubled": 1}),
    ],
)
def test_the_judge_knows_which_messages_should_be_in_the_log(tmp_path, order, expected):
    lines, log, faults = written(tmp_path, order)
    log.read_to(sum(map(len, lines)))
    log.judge_sent(3, 4)
    assert faults.count == expected
    log.close()


@pytest.mark.parametrize("dialect", ["native", "classic"])
@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([0, 1, 2, 3], {}),
        ([0, 2, 3], {"lost": 1}),
        ([0, 1, 1, 2, 3], {"doubled": 1}),
        ([0, 2, 1, 3], {"lost": 1}),
    ],
)
@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_the_judge_knows_which_bytes_a_member_should_get(
    tmp_path, dialect, order, expected, cut
):
    lines, log, faults = written(tmp_path, [0, 1, 2, 3])
    if dialect == "native":
        stream = judge.NativeStream(log, faults, "m9", 0)
        got = b"".join(lines[n] for n in order)
    else:
        stream = judge.ClassicStream(log, faults, "m9", 0)
        got = b"".join(b"m3: %b\0" % judge.said(3, n) for n in order)
    for at in range(0, len(got), cut):
        stream.feed(got[at : at + cut])
    if cut == 10_000:
        assert faults.count == expected
    else:  # a few bytes of a wrong line do not tell what is wrong with it
        assert bool(faults.count) == bool(expected)
    assert stream.broken == bool(expected)
    log.close()


def test_the_judge_tells_a_torn_line(tmp_path):
    lines, log, faults = written(tmp_path, [0, 1])
    stream = judge.NativeStream(log, faults, "m9", 0)
    stream.feed(lines[0] + lines[1][5:])
    assert faults.count == {"torn": 1}
    log.close()


# --- load ----------------------------------------------------------------------------


def engine(kind, tmp_path, conns):
    if kind == "python":
        return load.Pure(conns, 1, 64)
    return load.Compiled(load.compiled("load", tmp_path), conns, 1, 64)


def echo(ours, spoil):
    """Send what the first says to all, one batch spoiled; until it hangs up."""
    done = False
    while data := ours[0].recv(1 << 16):
        lines = data.splitlines(keepends=True)
        if not done and len(lines) > 2:
            lines, done = spoil(lines), True
        for conn in ours:
            conn.sendall(b"".join(b"7\twhen\talice\t" + line for line in lines))


@pytest.mark.parametrize("kind", ["python", pytest.param("c", marks=needs_cc)])
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda lines: lines, {}),
        (lambda lines: lines[1:], {"lost": 2}),
        (lambda lines: [lines[0], *lines], {"doubled": 2}),
        (lambda lines: [lines[1], lines[0], *lines[2:]], {"out_of_order": 2}),
        (lambda lines: [lines[0][5:], *lines[1:]], {"lost": 2, "torn": 2}),
    ],
)
def test_load_sees_what_is_wrong(tmp_path, kind, spoil, expected):
    pairs = [socket.socketpair() for _ in range(2)]
    theirs, ours = zip(*pairs, strict=True)
    for conn in theirs:
        conn.setblocking(False)
    server = threading.Thread(target=echo, args=(ours, spoil))
    server.start()
    loader = engine(kind, tmp_path, theirs)
    try:
        figures = loader.phase("thr", 8, 0.2)
        assert load.wrong(figures) == expected
        assert figures["deliveries"] > 100
        assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["max_us"] + 1
    finally:
        theirs[0].shutdown(socket.SHUT_RDWR)
        loader.close()
        server.join(10)
        for conn in (*theirs, *ours):
            conn.close()


@pytest.mark.parametrize("dialect", ["native", "classic"])
@pytest.mark.parametrize("how", [["--python"], pytest.param([], marks=needs_cc)])
def test_load_talks_to_the_pool(pool, dialect, how):
    with Member(pool.port, pool.key) as first:
        first.say("hello")
        first.read_text("hello")
        options = ["--port", pool.port, "--key", pool.state_dir / "key", "--pid", pool.pid]
        options += ["--dialect", dialect, "--phases", "lat:100:0.3,thr:8:0.3", *how]
        found = run("load.py", *options)
    assert found.returncode == 0, found.stdout + found.stderr
    paced, full = json.loads(found.stdout)["phases"]
    assert 20 <= paced["messages"] <= 31
    assert full["deliveries"] > 100
    assert full["cpu_s"] > 0


# --- bench ---------------------------------------------------------------------------


@pytest.mark.soak
@needs_cc
@only_linux
def test_bench_compares_the_pool_with_the_limit():
    few = ["--quick", "--n", 5, "--workers", "1,2", "--seconds", 0.2, "--json"]
    found = run("bench", *few)
    assert found.returncode == 0, found.stdout + found.stderr
    figures = json.loads(found.stdout)
    by_name = figures["members"]["5"]
    assert list(by_name) == ["reference", "pool-1", "pool-2", "asyncio"]
    for by_figure in by_name.values():
        assert by_figure["cpu, saturated"][0] > 0
        assert by_figure["deliveries/s"][0] > 100
    theirs, others = figures["fail-over"]["2"]
    assert 0 < theirs[0] <= theirs[2] < 1500
    assert figures["faults"] == []


# --- the small ones ------------------------------------------------------------------

GOOD = (
    b"1\t2026-01-01T00:00:00.000Z\talice\thello\n"
    b"2\t2026-01-01T00:00:00.001Z\tbob\tyes?\n"
)


@pytest.mark.parametrize(
    ("damage", "at"),
    [
        (lambda log: log + b"3\t2026", len(GOOD) + 6),
        (lambda log: log.replace(b"\n2", b"\n3"), 39),
        (lambda log: log.replace(b".001Z", b"x001Z"), 41),
        (lambda log: log.replace(b"2026-01-01T00:00:00.000", b"2027-01-01T00:00:00.000"), 41),
        (lambda log: log.replace(b"yes", b"y\xffs"), 71),
    ],
)
def test_dumplog_says_where_the_first_bad_byte_is(tmp_path, damage, at):
    path = tmp_path / "room.log"
    path.write_bytes(GOOD)
    assert run("dumplog.py", "--verify", path).returncode == 0
    path.write_bytes(damage(GOOD))
    found = run("dumplog.py", "--verify", path)
    assert found.returncode == 1
    assert f"byte {at}," in found.stdout


def test_dumplog_prints_offset_seq_and_length(tmp_path):
    path = tmp_path / "room.log"
    path.write_bytes(GOOD)
    rows = [line.split() for line in run("dumplog.py", path).stdout.splitlines()]
    assert rows == [["0", "1", "39", "alice"], ["39", "2", "36", "bob"]]


def test_dumpboard_prints_a_live_scoreboard(pool, tmp_path):
    with Member(pool.port, pool.key, "anna") as anna:
        anna.say("hello")
        anna.read_text("hello")
        found = run("dumpboard.py", "--state-dir", pool.state_dir)
    assert found.returncode == 0, found.stderr
    assert "head seq=1 " in found.stdout
    assert re.search(r"0:anna +live", found.stdout)
    assert run("dumpboard.py", "--state-dir", tmp_path / "nobody").returncode == 69


def test_an_aligned_word_is_never_torn():
    found = run("torn.py", "--seconds", 0.3)
    assert found.returncode == 0, found.stdout
    assert re.search(r"aligned: +0 torn", found.stdout)


def test_check_explains_itself():
    asked = subprocess.run([TOOLS / "check", "--help"], capture_output=True, text=True)
    assert asked.returncode == 0
    assert "tools/check" in asked.stdout
