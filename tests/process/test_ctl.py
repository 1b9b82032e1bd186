"""papaya-ctl from outside: exit codes, and what it does to a log."""

import json
import signal
import subprocess

import pytest
from harness import ClassicMember, Refused, until


@pytest.mark.parametrize(
    "words",
    [["fly"], ["drain"], ["drain", "two"], ["kick"], ["drain", "7", "8"], ["--colour", "status"]],
)
def test_a_mistake_is_code_2_or_1_and_no_traceback(pool, words):
    code, said = pool.ctl(*words)
    assert code in (1, 2), said
    assert "Traceback" not in said


@pytest.mark.parametrize("words", [["drain", "9"], ["drain", "-1"], ["kick", "nobody"]])
def test_what_cannot_be_is_code_1_and_one_line(pool, words):
    code, said = pool.ctl(*words)
    assert code in (1, 2), said
    assert "Traceback" not in said


def test_without_a_pool_it_is_69(start_pool, tmp_path):
    pool = start_pool()
    pool.stop()
    for verb in ("status", "who", "rebalance", "upgrade"):
        code, said = pool.ctl(verb)
        assert (code, said.count("\n")) == (69, 1), said


def test_status_is_told_of_a_pool_whose_processes_all_hang(pool):
    for role in pool.pids():
        pool.kill(role, signal.SIGSTOP)
    try:
        code, said = pool.ctl("--json", "status")
        assert code == 0
        json.loads(said)
    finally:
        for role in pool.pids():
            pool.kill(role, signal.SIGCONT)


def test_a_changed_key_holds_for_newcomers_and_members_stay(pool):
    with pool.join("ann", last=0) as ann:
        old = pool.key
        (pool.state_dir / "key").write_bytes(b"ab" * 64)
        assert pool.ctl("reload")[0] == 0
        with until(lambda: joined(pool)) as bob:
            bob.say("new key")
            ann.read_text("new key")
        with ClassicMember(pool.port, old) as carol:
            assert carol.read_to_end()
        (pool.state_dir / "key").write_bytes(b"none")
        pool.ctl("reload")
        until(lambda: pool.events("reload-refused"))
        with ClassicMember(pool.port, b"ab" * 64) as carol:
            carol.say("the last good key still holds")
            ann.read_text("the last good key still holds")


def joined(pool):
    try:
        return pool.join("bob", last=0)
    except (Refused, ConnectionError, AssertionError):
        return None


def test_the_log_can_be_read_by_others_meanwhile(pool, tmp_path):
    with pool.join("ann", last=0) as ann:
        ann.say(*(f"line {n}" for n in range(200)))
        ann.read_count(200)
        backup = tmp_path / "backup"
        copy = ["flock", "-s", str(pool.log_path), "cp", str(pool.log_path), str(backup)]
        assert subprocess.run(copy, check=False).returncode == 0
        assert backup.read_bytes() == pool.log


def test_a_good_log_is_verified_and_a_damaged_one_told(pool):
    with pool.join("ann", last=0) as ann:
        ann.say(*(f"line {n}" for n in range(50)))
        ann.read_count(50)
    assert pool.ctl("verify")[0] == 0
    pool.stop()
    assert pool.ctl("verify")[0] == 0
    good = pool.log
    lines = good.splitlines(keepends=True)
    pool.log_path.write_bytes(b"".join([*lines[:20], b"damage\n", *lines[21:]]))
    code, said = pool.ctl("verify")
    assert code == 1
    assert str(sum(map(len, lines[:20]))) in said


def test_salvage_writes_the_good_lines_to_another_file(pool):
    with pool.join("ann", last=0) as ann:
        ann.say(*(f"line {n}" for n in range(50)))
        ann.read_count(50)
    pool.stop()
    lines = pool.log.splitlines(keepends=True)
    damaged = b"".join([*lines[:20], b"damage\n", *lines[21:]])
    pool.log_path.write_bytes(damaged)
    code, said = pool.ctl("salvage")
    assert code == 0, said
    new = pool.state_dir / "room.log.salvaged"
    assert str(new) in said
    assert pool.ctl("salvage")[0] == 1  # an earlier one is not replaced
    assert pool.log == damaged
    pool.log_path.write_bytes(new.read_bytes())
    assert pool.texts() == [f"line {n}" for n in range(50) if n != 20]
    assert pool.ctl("verify")[0] == 0
