"""The man pages and completions in share/ are what the parsers say."""

import sys

import pytest
from harness import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import pages  # noqa: E402


def test_they_are_up_to_date():
    stale = [p.name for p, text in pages.made().items() if not pages.is_current(p, text)]
    assert stale == [], "run tools/pages.py"


def test_nothing_else_lies_there():
    there = {path for path in pages.SHARE.rglob("*") if path.is_file()}
    assert there == set(pages.made())


@pytest.mark.parametrize("command", pages.COMMANDS)
def test_every_command_that_is_installed_has_both(command):
    made = {path.relative_to(pages.SHARE).as_posix() for path in pages.made()}
    assert {f"man1/{command}.1", f"bash/{command}"} <= made
    assert f"{command} = " in (ROOT / "pyproject.toml").read_text()


def test_an_option_more_makes_them_stale():
    from papaya_pool import settings

    parser = settings.parser()
    before = pages.man(parser, "words"), pages.bash(parser)
    parser.add_argument("--colour", choices=("red", "blue"), help="100%% of it")
    man, bash = pages.man(parser, "words"), pages.bash(parser)
    assert "--colour" not in "".join(before)
    assert "\\fB\\-\\-colour\\fR" in man and "100% of it" in man
    assert 'compgen -W "red blue"' in bash


def test_nothing_in_a_text_is_taken_for_roff():
    assert pages.roff(".TH \\fB\n'a-b") == "\\&.TH \\efB\n\\(aqa\\-b"
