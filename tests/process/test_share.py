"""The completions in a real bash, the man pages in a real roff, both installed."""

import importlib.metadata
import os
import shutil
import subprocess
import sys

import pytest
from harness import ROOT

SHARE = ROOT / "papaya_pool" / "share"
COMMANDS = ["papaya-pool", "papaya-chat", "papaya-top", "papaya-ctl"]

needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="no bash")


@pytest.fixture
def offered(tmp_path):
    """What bash offers for the last of these words."""

    def offered(*words):
        script = f"""
            source {SHARE}/bash/{words[0]}
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            function=$(complete -p "$1" | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
            "$function" "$1" "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        asked = subprocess.run(
            ["bash", "--norc", "-uc", script, "bash", *words],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=10,
        )
        assert (asked.returncode, asked.stderr) == (0, "")
        return asked.stdout.split("\n")[:-1]

    return offered


@needs_bash
@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_offered_and_the_program_knows_them(offered, command):
    module = {"papaya-pool": ""}.get(command, "." + command.removeprefix("papaya-"))
    said = subprocess.run(
        [sys.executable, "-m", f"papaya_pool{module}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
    ).stdout
    options = offered(command, "--")
    assert "--state-dir" in options and "--help" in options
    assert all(option in said for option in options)
    assert offered(command, "--vers") == ["--version"]


@needs_bash
def test_verbs_come_first_and_then_their_own_options(offered):
    assert offered("papaya-ctl", "re") == ["rebalance", "recycle", "resume", "reload"]
    assert offered("papaya-ctl", "--state-dir", "drain", "pau") == ["pause"]
    assert "--grep" in offered("papaya-ctl", "log", "--")
    assert "--grep" not in offered("papaya-ctl", "who", "--")
    assert offered("papaya-ctl", "log", "--grep", "") == [""]


@needs_bash
def test_values_are_offered_where_there_are_some(offered, tmp_path):
    assert offered("papaya-pool", "--fsync", "") == ["never", "interval", "always"]
    assert offered("papaya-pool", "--fsync", "=", "al") == ["always"]
    assert offered("papaya-pool", "--fsync", "=") == ["never", "interval", "always"]
    assert offered("papaya-pool", "--workers", "") == [""]
    (tmp_path / "a directory").mkdir()
    (tmp_path / "a file").touch()
    assert offered("papaya-top", "--state-dir", "a") == ["a directory"]
    assert sorted(offered("papaya-chat", "--key-file", "a")) == ["a directory", "a file"]


@needs_bash
def test_saved_rooms_are_offered_by_name(offered, tmp_path):
    assert offered("papaya-chat", "") == ["join"]
    config = tmp_path / ".config" / "papaya-chat" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[rooms.work]\nhost = "h"\n[rooms.my-home]\nhost = "h"\n')
    assert offered("papaya-chat", "") == ["join", "work", "my-home"]
    assert offered("papaya-chat", "--name", "ann", "w") == ["work"]
    assert "--name" in offered("papaya-chat", "work", "")


@pytest.mark.skipif(not shutil.which("groff"), reason="no groff")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_man_page_is_good_roff(command):
    page = SHARE / "man1" / f"{command}.1"
    shown = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-P-c", "-P-b", "-P-u", page],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    for title in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"):
        assert f"\n{title}\n" in shown.stdout


def test_pip_installs_them_where_man_and_bash_look():
    try:
        files = importlib.metadata.files("papaya-pool") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed")
    there = [path.as_posix() for path in files]
    if not any(path.endswith("bin/papaya-pool") for path in there):
        pytest.skip("installed as a link to a checkout")
    for command in COMMANDS:
        for where in (f"man/man1/{command}.1", f"bash-completion/completions/{command}"):
            assert any(path.endswith(f"share/{where}") for path in there), where
