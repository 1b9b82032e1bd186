"""papaya-chat on a terminal: screens after scripted keys, in a real pty."""

import os
import signal
import sys
from pathlib import Path

import hostile
import pytest
from harness import until
from standin import KEY, StandIn
from vt import Terminal

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server():
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def start(server, tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    running = []

    def start(*args, rows=24, columns=80, term="xterm-256color", **env):
        env = {
            **os.environ,
            **{"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "TZ": "UTC"},
            **{"TERM": term, "LC_ALL": "C.UTF-8"},
            **env,
        }
        where = ["--port", str(server.port), "--key-file", str(key_file)]
        argv = [sys.executable, "-m", "papaya_pool.chat", *where, "--name", "ann", *args]
        terminal = Terminal(argv, env, rows, columns)
        running.append(terminal)
        return terminal

    yield start
    for terminal in running:
        terminal.close()


@pytest.fixture
def chat(start):
    """A screen that is joined."""
    terminal = start()
    terminal.shows("connected")
    return terminal


def test_a_screen_with_messages_status_and_what_is_typed(server, start):
    server.say("bob", "hello, ann")
    server.say("日本", "wide " + "字" * 39)
    terminal = start(rows=8, columns=60)
    terminal.shows("| 1 here")
    terminal.type("half a line")
    lines = terminal.shows("half a line")
    assert lines == [
        "",
        "",
        "─" * 20 + " Sunday 2026-11-22 " + "─" * 21,
        "20:00        bob  hello, ann",
        "20:00       日本  wide " + "字" * 18,
        "                  " + "字" * 21,
        " 127.0.0.1:%d | connected | 1 here" % server.port,
        "[ann] half a line",
    ]
    assert (terminal.screen.y, terminal.screen.x) == (7, 17)


def test_what_is_said_comes_back_with_its_place_in_the_log(server, chat):
    chat.type("hello\r")
    chat.shows("20:00        ann  hello")
    assert server.log == [("ann", "hello")]


def test_no_half_typed_line_is_lost_when_messages_arrive_or_the_window_changes(
    server, chat
):
    chat.type("half typed")
    for n in range(50):
        server.say("bob", f"message {n}")
    chat.shows("message 49")
    for rows, columns in ((5, 20), (2, 10), (1, 1), (30, 100), (24, 80)):
        chat.resize(rows, columns)
        chat.until(lambda lines: any(line for line in lines) or columns < 3)
    assert chat.shows("message 49")[-1] == "[ann] half typed"
    chat.type("\r")
    until(lambda: server.log[-1] == ("ann", "half typed"))


def test_at_20_by_5_everything_is_there(server, start):
    server.say("bob", "a message that is long enough to wrap")
    terminal = start(rows=5, columns=20)
    terminal.shows("127.0.0.1")
    terminal.type("typed")
    assert terminal.shows("typed")[:3] == [
        "bob: a message that",
        "     is long enough",
        "     to wrap",
    ]


def test_scrolling_back_fetches_what_was_never_loaded(server, start):
    server._order(lambda: server._append("bob", [f"number {n}." for n in range(1, 1001)]))
    terminal = start()
    terminal.shows("number 1000.")
    for _ in range(60):
        terminal.type("\x1b[5~")
        terminal.read(0.01)
        if "Sunday" in terminal.screen.lines()[0]:
            break
    lines = terminal.until(lambda lines: "Sunday" in lines[0])
    assert [line.split()[-1] for line in lines[1:21]] == [f"{n}." for n in range(1, 21)]
    asked = [line.split()[3:] for line in server.logins if "PAPAYA/2-LOG" in line]
    assert asked[0] == ["from=601", "to=900"]
    server.say("bob", "new")
    assert terminal.shows("1 unread")[1:21] == lines[1:21]  # what is read stays put
    terminal.type("\r")
    terminal.shows("  new")


def test_a_server_without_questions_is_joined_for_what_is_older(server, start):
    server._order(lambda: server._append("bob", [f"number {n}." for n in range(1, 301)]))
    server.answers = False
    terminal = start(rows=12)
    terminal.shows("number 300.")
    terminal.type("/since 50\r")
    terminal.shows("number 51.")
    terminal.type("/who\r")
    terminal.type("\r")
    terminal.shows("who is here is not known")


def test_search_finds_beyond_what_is_loaded(server, start):
    server._order(lambda: server._append("bob", [f"number {n}." for n in range(1, 3001)]))
    terminal = start(rows=12)
    terminal.shows("number 3000.")
    terminal.type("/search NUMBER 77.\r")
    terminal.shows("number 77.", within=10)
    terminal.type("/search\r")
    terminal.shows("nothing (more) was found", within=10)


def test_a_lost_server_is_a_word_in_the_status_and_comes_back(server, chat):
    chat.type("before\r")
    chat.shows("20:00        ann  before")
    port, log = server.port, server.log
    server.stop()
    chat.shows("trying again")
    chat.type("said meanwhile\r")
    chat.shows("1 not sent")
    assert chat.screen.lines()[-3] == "--:--        ann  said meanwhile"
    with StandIn(port) as again:
        again._order(lambda: again.log.extend(log))
        lines = chat.shows("| connected", within=20)
        lines = chat.shows("20:00        ann  said meanwhile")
        assert again.texts() == ["before", "said meanwhile"]
        assert sum("said meanwhile" in line for line in lines) == 1
        assert not any("not sent" in line for line in lines)


def test_a_cut_connection_loses_and_doubles_nothing(server, chat):
    for n in range(5):
        chat.type(f"line {n}\r")
        server.cut()
        chat.type(f"and {n}\r")
    until(lambda: len(server.log) == 10, within=10)
    said = [text for n in range(5) for text in (f"line {n}", f"and {n}")]
    assert server.texts() == said
    lines = chat.until(lambda lines: not any("not sent" in line for line in lines))
    assert [line[18:] for line in lines if " ann  " in line] == said


def test_reconnect_makes_a_new_connection_and_keeps_the_screen(server, chat):
    chat.type("before\r")
    chat.shows("20:00        ann  before")
    chat.type("half/reconnect\x01")  # a line that is being typed is no command
    chat.type("\x15\x0b/reconnect\r")
    until(lambda: sum("PAPAYA/2 ann" in line for line in server.logins) == 2)
    assert "since=1" in server.logins[-1] or "since=1" in server.logins[-2]
    chat.type("after\r")
    lines = chat.shows("20:00        ann  after")
    assert sum("ann  before" in line for line in lines) == 1


def test_hostile_messages_touch_no_cell_but_their_own(server, chat):
    """The emulator fails at any sequence that curses would not have made itself."""
    hostile.check_cells(chat, lambda *texts: [server.say("eve", text) for text in texts])


def test_a_hostile_name_is_shown_as_harmless(server, chat):
    server.say("\u202ebob\x1b[2J\u0301", "hi")
    assert chat.shows("  hi")[-3] == "20:00     bob[2J\u0301  hi"


def test_a_paste_of_several_lines_asks_first(server, chat):
    chat.type("\x1b[200~one\ntwo\n/quit\n\x1b[201~")
    chat.shows("send 3 lines? y/n")
    chat.type("n")
    chat.shows("[ann] one two /quit")
    chat.type("\x15\x1b[200~one\ntwo\n\x1b[201~")
    chat.shows("send 2 lines? y/n")
    assert server.log == []
    chat.type("y")
    until(lambda: server.texts() == ["one", "two"])


def test_tab_completes_names_and_commands(server, chat):
    server.say("carol", "hi")
    server.say("caspar", "hi")
    chat.shows("caspar  hi")
    chat.type("ca\t")
    chat.shows("[ann] caspar:")
    chat.type("\t")
    chat.shows("[ann] carol:")
    chat.type("\x15/he\t\r")
    chat.shows("/reconnect")


def test_commands_are_not_said_and_a_typo_never_reaches_the_room(server, chat):
    chat.type("/nonsense\r")
    chat.shows("/nonsense is no command")
    chat.type("//nonsense\r")
    chat.shows("ann  /nonsense")
    chat.type("/me waves\r")
    chat.shows("* ann waves")
    assert server.texts() == ["/nonsense", "/me waves"]
    chat.type("/who\r")
    chat.shows("1 here: ann")


def test_a_mention_rings_the_bell_and_nothing_else_does(server, chat):
    server.say("bob", "annex, Annabel")
    server.say("bob", "hello Ann!")
    chat.shows("hello Ann!")
    until(lambda: chat.read() and chat.screen.bells == 1)


def test_what_came_while_the_window_had_no_focus_is_marked(server, chat):
    server.say("bob", "seen")
    chat.shows("seen")
    chat.type("\x1b[O")
    chat.type("x")
    chat.shows("[ann] x")
    server.say("bob", "not seen")
    lines = chat.shows("1 unread")
    where = next(n for n, line in enumerate(lines) if "── unread ──" in line)
    assert lines[where + 1].endswith("not seen")
    chat.type("\x1b[I")
    chat.until(lambda lines: not any("1 unread" in line for line in lines))


def test_the_next_session_marks_what_is_new(server, start):
    server.say("bob", "old")
    first = start()
    first.shows("  old")
    first.type("/quit\r")
    assert first.ends() == 0
    server.say("bob", "new")
    second = start()
    lines = second.shows("  new")
    where = next(n for n, line in enumerate(lines) if "unread" in line)
    assert lines[where + 1].endswith("  new")
    assert lines[where - 1].endswith("  old")


@pytest.mark.parametrize("keys", ["/quit\r", "\x04", "\x03"])
def test_leaving_gives_the_terminal_back(chat, keys):
    chat.type(keys)
    assert chat.ends() == 0
    assert not chat.screen.modes & {1000, 1004, 1006, 2004, 1049}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back_too(chat, number):
    os.kill(chat.pid, number)
    assert chat.ends() == 128 + number
    assert not chat.screen.modes & {1000, 1004, 1006, 2004, 1049}


def test_unsent_lines_hold_the_first_quit_back(server, chat):
    server.stop()
    chat.shows("trying again")
    chat.type("unsent\r/quit\r")
    chat.shows("once more to leave anyway")
    chat.type("/quit\r")
    assert chat.ends() == 69


def test_a_wrong_port_is_a_line_on_an_ordinary_terminal(server, start):
    server.stop()
    terminal = start()
    assert terminal.ends() == 69
    assert terminal.screen.lines()[0].startswith("papaya-chat: no server at 127.0.0.1:")


@pytest.mark.parametrize("term", ["screen-256color", "linux", "vt220"])
def test_other_terminals_work_too(server, start, term):
    server.say("bob", "hello")
    terminal = start(term=term, NO_COLOR="1")
    terminal.shows("bob  hello")
    terminal.type("hi\r")
    terminal.shows("ann  hi")


@pytest.mark.parametrize("locale", ["C", "nonsense"])
def test_without_a_locale_it_speaks_utf_8_all_the_same(server, start, locale):
    server.say("bob", "日本 → é.")
    terminal = start(LC_ALL=locale)
    terminal.shows("bob  日本 → é.")
    terminal.type("ü\r")
    terminal.shows("ann  ü")
    assert server.texts()[-1] == "ü"


@pytest.mark.parametrize("term", ["dumb", "", "no-such-terminal"])
def test_a_terminal_without_a_cursor_gets_line_mode(server, start, term):
    server.say("bob", "hello")
    terminal = start(term=term)
    terminal.shows("20:00:00 bob: hello")


def test_a_thousand_messages_a_second_leave_the_keys_answered(server, chat):
    chat.type("x")
    chat.shows("[ann] x")
    for n in range(20):
        server._order(lambda n=n: server._append("bob", [f"{n} {m}" for m in range(100)]))
        chat.type("y")
        chat.until(lambda lines, n=n: lines[-1] == "[ann] x" + "y" * (n + 1), within=1.0)
    chat.shows("19 99")


def test_idle_it_does_not_wake_up(server, chat):
    chat.read(0.3)
    until(lambda: _wakeups(chat.pid) == _wakeups(chat.pid, wait_s=0.5))


def _wakeups(pid, wait_s=0.0):
    signal.sigtimedwait([], wait_s)
    status = Path(f"/proc/{pid}/status").read_text()
    return status.split("voluntary_ctxt_switches:")[1].split()[0]
