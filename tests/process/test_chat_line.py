"""papaya-chat in a pipe: the real program against a server that can misbehave."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import until
from standin import KEY, StandIn

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server():
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(0o600)
    return path


@pytest.fixture
def start(server, key_file, tmp_path):
    """Start papaya-chat with pipes; whatever still runs at the end is killed."""
    running = []

    def start(*args, **popen):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "TZ": "UTC"}
        where = ["--port", str(server.port), "--key-file", str(key_file)]
        process = subprocess.Popen(
            [sys.executable, "-m", "papaya_pool.chat", *where, *args],
            stdin=popen.pop("stdin", subprocess.PIPE),
            stdout=popen.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            env=env,
            **popen,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def chat(start):
    """Run it to its end: (exit code, stdout, stderr)."""

    def chat(*args, say=""):
        process = start(*args)
        out, err = process.communicate(say.encode(), timeout=15)
        return process.returncode, out.decode(), err.decode()

    return chat


def test_a_line_is_in_the_log_when_the_program_has_ended(server, chat):
    assert chat("--name", "bot", say="hi\n") == (0, "20:00:00 bot: hi\n", "")
    assert server.log == [("bot", "hi")]


def test_the_last_line_needs_no_newline_and_empty_lines_are_none(server, chat):
    assert chat("--name", "bot", say="one\n\n\r\ntwo")[0] == 0
    assert server.texts() == ["one", "two"]


def test_a_pipe_is_told_nothing_of_the_past_unless_it_asks(server, chat):
    server.say("ann", "old")
    assert chat("--name", "bot", say="")[1] == ""
    assert chat("--name", "bot", "--last", "5")[1] == "20:00:00 ann: old\n"
    assert chat("--name", "bot", "--since", "0")[1] == "20:00:00 ann: old\n"


def test_an_old_message_of_the_same_words_is_not_taken_for_ours(server, chat):
    server.say("bot", "hi")
    code, out, _ = chat("--name", "bot", "--since", "0", say="hi\n")
    assert (code, out.count("hi")) == (0, 2)
    assert server.texts() == ["hi", "hi"]


def test_json_is_one_object_a_message_and_keeps_what_was_said(server, chat):
    server.say("ann", "tab\there \u202e \U0001f600")
    _, out, _ = chat("--name", "bot", "--json", "--last", "1")
    assert out.isascii()
    assert json.loads(out) == {
        "seq": 1,
        "time": "2026-11-22T20:00:00.001Z",
        "name": "ann",
        "text": "tab\there \u202e \U0001f600",
    }


def test_send_sends_and_leaves_without_reading_stdin(server, chat):
    code, out, err = chat("--name", "cron", "--send", "one", "--send", "two", "--quiet")
    assert (code, out, err) == (0, "", "")
    assert server.log == [("cron", "one"), ("cron", "two")]


def test_control_bytes_are_taken_out_before_they_are_sent(server, chat):
    assert chat("--name", "bot", say="\x1b[31mred\x07\n")[0] == 0
    assert server.texts() == ["[31mred"]


def test_a_line_that_is_too_long_is_named_and_the_others_are_sent(server, chat):
    code, _, err = chat("--name", "bot", say="a\n" + "x" * 4097 + "\nb\n")
    assert (code, server.texts()) == (2, ["a", "b"])
    assert err == "papaya-chat: line 2 has 4097 bytes, more than 4096: not sent\n"


def test_fifty_thousand_lines_through_a_pipe_arrive_once_and_in_order(server, chat):
    lines = [f"line {n}" for n in range(50_000)]
    assert chat("--name", "bot", "--quiet", say="\n".join(lines))[0] == 0
    assert server.texts() == lines


def test_nothing_is_sent_to_a_server_that_cannot_prove_itself(server, chat):
    server.lies = True
    code, _, err = chat("--name", "bot", say="secret\n")
    assert code == 77
    assert "could not prove" in err
    assert server.log == []


@pytest.mark.parametrize("code", ["auth", "name", "banned", "kicked", "quarantine"])
def test_a_refusal_is_one_line_and_exit_code_77(server, chat, code):
    server.refusals = [code]
    status, out, err = chat("--name", "bot", say="hi\n")
    assert (status, out, err.count("\n")) == (77, "", 1)
    assert err.startswith("papaya-chat: refused: ")


def test_a_server_that_is_busy_is_asked_again(server, chat):
    server.refusals = ["busy", "full"]
    assert chat("--name", "bot", say="hi\n")[0] == 0
    assert server.texts() == ["hi"]


def test_a_server_without_tokens_is_spoken_to_without_them(server, chat):
    server.knows_tokens = False
    assert chat("--name", "bot", say="hi\n") == (0, "20:00:00 bot: hi\n", "")


def test_no_server_is_exit_code_69(server, chat):
    server.stop()
    code, _, err = chat("--name", "bot", say="hi\n")
    assert code == 69
    assert err.startswith(f"papaya-chat: no server at 127.0.0.1:{server.port} (")
    assert err.count("\n") == 1


def test_a_server_lost_for_too_long_is_69_and_says_what_was_not_sent(server, start):
    process = start("--name", "bot", "--patience", "0.3")
    until(lambda: server.sessions() == 1)
    server.stop()
    process.stdin.write(b"one\ntwo\n")
    process.stdin.close()
    process.stdin = None
    _, err = process.communicate(timeout=10)
    assert process.returncode == 69
    assert b"2 lines were not sent" in err


def test_lines_cut_off_on_the_way_are_sent_again_and_only_those(server, start):
    process = start("--name", "bot", "--json")
    for n in range(5):
        process.stdin.write(b"before %d\n" % n)
        process.stdin.flush()
        until(lambda n=n: len(server.log) > 2 * n)
        server.cut()
        process.stdin.write(b"after %d\n" % n)
        process.stdin.flush()
        until(lambda n=n: len(server.log) == 2 * n + 2)
    out, _ = process.communicate(timeout=10)
    said = [f"{when} {n}" for n in range(5) for when in ("before", "after")]
    assert process.returncode == 0
    assert server.texts() == said
    assert [json.loads(line)["text"] for line in out.splitlines()] == said
    assert len({line.split()[-1] for line in server.logins}) == 1  # one token


def test_a_server_that_forgot_its_tokens_gets_what_is_not_in_its_log(server, start):
    process = start("--name", "bot", "--json")
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["text"] == "one"
    server.taken = _Forgetful()
    server.cut()
    process.stdin.write(b"two\n")
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, server.texts()) == (0, ["one", "two"])
    assert json.loads(out)["text"] == "two"


class _Forgetful(dict):
    """A table of tokens that knows none at a login."""

    def get(self, _key, default=None):
        return default


def test_follow_stays_after_the_end_of_input(server, start):
    process = start("--name", "log", "--follow", stdin=subprocess.DEVNULL)
    until(lambda: server.sessions() == 1)
    server.say("ann", "hello")
    assert process.stdout.readline() == b"20:00:00 ann: hello\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_ctrl_c_says_what_had_not_come_back(server, start):
    server.deaf = True
    process = start("--name", "bot")
    process.stdin.write(b"one\n")
    process.stdin.flush()
    until(lambda: server.sessions() == 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err in (b"", b"papaya-chat: interrupted; 1 line had not come back\n")


def test_nobody_reading_the_output_loses_no_line(server, start):
    reading, writing = os.pipe()
    process = start("--name", "bot", stdout=writing)
    os.close(writing)
    os.close(reading)
    _, err = process.communicate(b"one\ntwo\n", timeout=10)
    assert (process.returncode, err) == (0, b"")
    assert server.texts() == ["one", "two"]


def test_idle_it_uses_no_cpu(server, start):
    process = start("--name", "log", "--follow")
    until(lambda: server.sessions() == 1)
    until(lambda: _wakeups(process.pid) == _wakeups(process.pid, wait_s=0.5))


def _wakeups(pid, wait_s=0.0):
    """How often the process has gone to sleep by itself."""
    signal.sigtimedwait([], wait_s)
    status = Path(f"/proc/{pid}/status").read_text()
    return status.split("voluntary_ctxt_switches:")[1].split()[0]


def test_a_key_file_that_others_can_read_is_refused(server, chat, key_file):
    key_file.chmod(0o640)
    code, _, err = chat("--name", "bot")
    assert (code, "open to others" in err) == (2, True)


def test_a_key_file_with_no_key_is_refused(server, chat, key_file):
    key_file.write_text("k" * 128)
    assert chat("--name", "bot")[0] == 2


def test_key_and_port_come_from_the_state_directory(server, key_file, tmp_path):
    (tmp_path / "port").write_text(f"{server.port}\n")
    command = [sys.executable, "-m", "papaya_pool.chat", "--state-dir", tmp_path]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--name", "bot"], input=b"hi\n", env=env, timeout=10, check=False
    )
    assert (done.returncode, server.texts()) == (0, ["hi"])


def test_what_was_not_even_read_counts_as_not_sent(server, start, tmp_path):
    server.deaf = True
    lines = tmp_path / "lines"
    lines.write_text("x\n" * 50_000)
    with lines.open("rb") as file:
        process = start("--name", "bot", "--patience", "0.2", stdin=file)
        until(lambda: server.sessions() == 1)
        server.stop()
        _, err = process.communicate(timeout=10)
    assert process.returncode == 69
    assert b"; 50000 lines were not sent" in err


def test_full_without_end_is_a_line_and_69(server, start):
    server.refusals = ["full"] * 50
    process = start("--name", "bot", "--patience", "0.5")
    _, err = process.communicate(b"hi\n", timeout=10)
    assert process.returncode == 69
    assert err == b"papaya-chat: the server is not ready: no; nothing was sent\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">/dev/full"])
def test_a_stream_that_is_missing_is_no_traceback(server, key_file, closed):
    server.say("ann", "hello")
    where = f"--port {server.port} --key-file {key_file} --name bot --last 1"
    command = f"{sys.executable} -m papaya_pool.chat {where} {closed}"
    done = subprocess.run(
        ["sh", "-c", command],
        input=b"hi\n",
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=10,
        check=False,
    )
    assert done.returncode == (74 if "full" in closed else 0)
    assert b"Traceback" not in done.stdout + done.stderr
    assert ("hi" in server.texts()) == (closed != "<&-")


def test_follow_ends_when_nobody_reads_its_output(server, start):
    process = start("--name", "log", "--follow")
    until(lambda: server.sessions() == 1)
    process.stdout.close()
    process.stdout = None
    server.say("ann", "hello")
    assert process.wait(timeout=10) == 0
