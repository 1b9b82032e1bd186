"""papaya-top on a terminal: the real program in a pty, on a real pool."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from harness import until
from vt import Terminal

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(tmp_path):
    running = []

    def start(pool, *args, rows=24, columns=100, term="xterm-256color", **env):
        env = {
            **os.environ,
            **{"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "TERM": term},
            **{"LC_ALL": "C.UTF-8", "TZ": "UTC"},
            **env,
        }
        argv = [
            sys.executable,
            "-m",
            "papaya_pool.top",
            "--state-dir",
            str(pool.state_dir),
        ]
        terminal = Terminal([*argv, "-d", "0.2", *args], env, rows, columns)
        running.append(terminal)
        return terminal

    yield start
    for terminal in running:
        terminal.close()


@pytest.fixture
def top(pool, start):
    terminal = start(pool)
    terminal.shows("SLOT ROLE")
    return terminal


def row(lines, begin):
    """The cells of the row that begins with those words."""
    found = [
        line.split() for line in lines if line.split()[: len(begin)] == list(begin)
    ]
    return found[0] if found else None


def test_every_process_is_a_row_and_q_ends_it_with_0(pool, top):
    lines = top.shows("supervisor")
    pids = pool.pids()
    assert row(lines, ["0", "worker"])[2] == str(pids["w0"])
    assert row(lines, ["1", "worker"])[2] == str(pids["w1"])
    assert row(lines, ["2", "acceptor"])[2] == str(pids["acceptor"])
    assert row(lines, ["4", "supervisor"])[2] == str(pool.pid)
    assert lines[0].startswith(f"papaya-top  port {pool.port}  up ")
    top.type("q")
    assert top.ends() == 0


@pytest.mark.parametrize("key", ["\x1b[21~", "\x03"])
def test_f10_and_ctrl_c_end_it_too(top, key):
    top.type(key)
    assert top.ends() == 0


def test_members_come_talk_and_go(pool, top):
    top.type("c")
    top.shows("no clients")
    with pool.join("ann") as ann, pool.join("日本") as friend:
        top.until(lambda lines: row(lines, ["ann"]) and row(lines, ["日本"]))
        ann.say("hello")
        friend.read_text("hello")
        top.shows("head 1 ")
        lines = top.shows("members 2 of ")
        assert row(lines, ["日本"])[2] == "native"
    top.shows("no clients")


def test_the_filter_shows_who_is_looked_for(pool, start):
    top = start(pool, "--clients")
    with pool.join("ann"), pool.join("ben"):
        top.until(lambda lines: row(lines, ["ann"]) and row(lines, ["ben"]))
        top.type("/BE")
        top.until(lambda lines: row(lines, ["ben"]) and not row(lines, ["ann"]))
        top.type("\r")
        top.shows("/BE  (Esc: all)")
        top.type("\x1b")
        top.until(lambda lines: row(lines, ["ann"]))


def test_help_is_a_page_and_any_key_goes_back(top):
    for key in ("h", "?", "\x1bOP"):
        top.type(key)
        top.shows("kick a client")
        top.type(" ")
        top.shows("SLOT ROLE")


def test_a_sequence_that_nobody_knows_is_no_key(pool, start):
    top = start(pool, "--clients")
    with pool.join("ann"):
        top.until(lambda lines: row(lines, ["ann"]))
        for sequence in ("\x1b[1;2k", "\x1b[?1;2c", "\x1b[200~", "\x1bOk"):
            top.type(sequence)
            top.read(0.3)
            lines = top.screen.lines()
            assert row(lines, ["ann"]) and lines[-1].startswith("F1 help"), sequence


def test_a_kick_asks_first_and_readonly_takes_it_away(pool, start):
    top = start(pool, "--clients", "--readonly")
    with pool.join("ann") as ann:
        top.until(lambda lines: row(lines, ["ann"]))
        top.type("k")
        top.shows("not with --readonly")
        top.type("q")
        assert top.ends() == 0

        top = start(pool, "--clients")
        top.until(lambda lines: row(lines, ["ann"]))
        top.type("k")
        top.shows("Kick ann at 127.0.0.1:")
        top.type("n")
        top.shows("nothing was done")
        ann.say("still here")
        ann.read_text("still here")


def test_k_kicks_that_one_client(pool, start):
    top = start(pool, "--clients")
    with pool.join("ann") as ann, pool.join("ben") as ben:
        top.until(lambda lines: row(lines, ["ann"]) and row(lines, ["ben"]))
        top.type("/ann\rk")
        top.shows("Kick ann at 127.0.0.1:")
        top.type("y")
        assert ann.read_to_end() == "fin"
        ben.say("alone now")
        ben.read_text("alone now")


def test_d_drains_a_worker_and_its_members_move(pool, start):
    top = start(pool)
    top.shows("SLOT ROLE")
    with pool.join("ann") as ann, pool.join("ben") as ben:
        top.until(lambda lines: "members 2 of" in lines[1])
        top.type("d")
        top.shows("Drain w0?")
        top.type("y")
        top.until(lambda lines: re.match(r"drain", row(lines, ["0", "worker"])[3]))
        until(lambda: pool.board().workers[1].sessions == 2)
        ann.say("moved")
        ben.read_text("moved")


def test_a_pool_that_goes_away_is_waited_for(pool, start):
    top = start(pool)
    top.shows("SLOT ROLE")
    pool.stop()
    top.shows("waiting for it")
    pool.start()
    top.shows("SLOT ROLE")
    pids = pool.pids()
    top.until(lambda lines: row(lines, ["0", "worker"])[2] == str(pids["w0"]))


def test_a_frozen_worker_shows(pool, top):
    pool.kill("super", signal.SIGSTOP)  # or it would be replaced
    try:
        pid = pool.kill("w1", signal.SIGSTOP)
        top.until(lambda lines: row(lines, ["1", "worker"])[3] == "frozen")
        os.kill(pid, signal.SIGCONT)
        top.until(lambda lines: row(lines, ["1", "worker"])[3] == "serving")
        os.kill(pid, signal.SIGKILL)
        top.until(lambda lines: row(lines, ["1", "worker"])[3] == "dead")
    finally:
        pool.kill("super", signal.SIGCONT)
    top.until(lambda lines: row(lines, ["1", "worker"])[3] == "serving")


@pytest.mark.parametrize(
    "size", [(5, 20), (1, 1), (2, 40), (24, 80), (50, 200), (3, 7)]
)
def test_every_size_works_from_the_start_and_on_resize(pool, start, size):
    top = start(pool, rows=24, columns=100)
    top.shows("SLOT ROLE")
    top.resize(*size)
    top.until(
        lambda lines: (
            lines[0].startswith("papaya-top"[: size[1]])
            or lines[0][:2] == "in"[: size[1]]
        )
    )
    top.resize(24, 100)
    top.shows("SLOT ROLE")
    top.shows("F1 help")
    top.type("q")
    assert top.ends() == 0

    small = start(pool, rows=size[0], columns=size[1])
    small.until(lambda lines: any(lines))
    small.type("chPMLN<>I /x\x1b \x1b[A\x1b[B")
    small.type("q")
    small.type("q")
    assert small.ends() == 0


def test_without_colour_nothing_is_coloured(pool, start):
    for colours, env in ((False, {"NO_COLOR": "1"}), (True, {})):
        terminal = start(pool, **env)
        said = []
        feed = terminal.screen.feed
        terminal.screen.feed = lambda text, feed=feed, said=said: (
            said.append(text),
            feed(text),
        )
        terminal.shows("supervisor")
        coloured = re.search(r"\x1b\[[0-9;]*\b[34][0-9]\b[0-9;]*m", "".join(said))
        assert bool(coloured) is colours
        terminal.type("q")
        assert terminal.ends() == 0


@pytest.mark.parametrize("term", ["xterm", "vt100", "linux", "vt220"])
def test_other_terminals_work_too(pool, start, term):
    top = start(pool, term=term)
    top.shows("SLOT ROLE")
    top.type("q")
    assert top.ends() == 0


@pytest.mark.parametrize("locale", ["C", "POSIX", "nonsense", ""])
def test_without_a_locale_it_speaks_utf_8_all_the_same(pool, start, locale):
    top = start(
        pool, "--clients", LC_ALL=locale, PYTHONCOERCECLOCALE="0", PYTHONUTF8="0"
    )
    with pool.join("日本"):
        top.until(lambda lines: row(lines, ["日本"]))


@pytest.mark.parametrize("term", ["dumb-as-a-post", ""])
def test_a_terminal_that_cannot_is_one_line_and_2(pool, start, term):
    top = start(pool, term=term)
    assert top.ends() == 2
    text = " ".join(" ".join(top.screen.lines()).split())
    assert text.startswith("papaya-top: ") and "--once" in text


def test_leaving_gives_the_terminal_back(pool, start):
    top = start(pool)
    top.shows("SLOT ROLE")
    assert 1049 in top.screen.modes
    top.type("q")
    assert top.ends() == 0
    assert 1049 not in top.screen.modes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back_too(pool, start, number):
    top = start(pool)
    top.shows("SLOT ROLE")
    os.kill(top.pid, number)
    assert top.ends() == 128 + number
    assert 1049 not in top.screen.modes


def test_an_upgrade_is_followed(pool, start):
    top = start(pool)
    top.shows("SLOT ROLE")
    block = pool.block
    with pool.join("ann") as ann:
        top.shows("members 1 of")
        pool.send_signal(signal.SIGUSR2)
        until(lambda: pool.block != block, 10)
        ann.say("hello")
        ann.read_text("hello")
        top.shows("head 1 ")
        lines = top.shows("members 1 of")
        top.until(lambda lines: row(lines, ["0", "worker"])[3] == "serving")
        assert not any("dead" in line for line in lines)
