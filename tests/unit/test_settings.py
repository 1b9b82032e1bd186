"""The server's command line: what it means, and how a mistake is told."""

import dataclasses
import os
from pathlib import Path

import pytest

from papaya_pool import __version__, errors, settings

HOME = {"HOME": "/home/ann"}


def parse(*argv, environ=HOME):
    return settings.parse_argv(argv, environ)


def told(capsys, *argv, environ=HOME):
    """The one line on stderr with which a mistake is refused."""
    with pytest.raises(SystemExit) as stop:
        parse(*argv, environ=environ)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("papaya-pool: ") and err.endswith("\n")
    return err


# --- what is meant -------------------------------------------------------------------


def test_nothing_asked_for_is_a_pool_on_loopback():
    asked = parse()
    assert asked.hosts == ("127.0.0.1",)
    assert asked.port == 7722
    assert 1 <= asked.workers <= (os.cpu_count() or 1)
    assert asked.state_dir == Path("/home/ann/.local/state/papaya-pool")
    assert (asked.key_file, asked.max_clients) == (None, None)
    assert (asked.fsync, asked.log_level) == ("interval", "info")
    assert (asked.plain, asked.classic, asked.portable) == (False, False, False)


def test_everything_can_be_asked_for():
    asked = parse(
        *["--workers", "8", "--host", "::1", "127.0.0.2", "--port", "0"],
        *["--state-dir", "here", "--key-file", "k", "--max-clients", "50"],
        *["--fsync", "always", "--plain", "--classic", "--log-level", "debug"],
        environ={"PAPAYA_PORTABLE": "1"},
    )
    assert asked == settings.Settings(
        workers=8,
        hosts=("::1", "127.0.0.2"),
        port=0,
        state_dir=Path("here"),
        key_file=Path("k"),
        max_clients=50,
        fsync="always",
        plain=True,
        classic=True,
        log_level="debug",
        portable=True,
    )


def test_a_host_can_be_given_again_and_again():
    asked = parse("--host", "127.0.0.1", "--host", "::1", "[::1]", "--port", "1")
    assert asked.hosts == ("127.0.0.1", "::1")


def test_settings_cannot_be_changed_but_can_be_made_small_for_a_test():
    asked = parse()
    with pytest.raises(dataclasses.FrozenInstanceError):
        asked.ring_bytes = 64
    assert dataclasses.replace(asked, worker_deadline_s=0.2).worker_deadline_s == 0.2


@pytest.mark.parametrize(
    ("value", "portable"), [(None, False), ("", False), ("0", False), ("1", True)]
)
def test_portable_is_asked_for_by_the_environment(value, portable):
    environ = HOME if value is None else HOME | {"PAPAYA_PORTABLE": value}
    assert parse(environ=environ).portable is portable


# --- the state directory -------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "environ", "found"),
    [
        ("d", {"STATE_DIRECTORY": "/s"}, "d"),
        (None, {"STATE_DIRECTORY": "/s", "XDG_STATE_HOME": "/x"}, "/s"),
        (None, {"STATE_DIRECTORY": "/s:/t"}, "/s"),
        (None, {"STATE_DIRECTORY": "", "XDG_STATE_HOME": "/x"}, "/x/papaya-pool"),
        (None, {"XDG_STATE_HOME": "/x"} | HOME, "/x/papaya-pool"),
        (None, {"XDG_STATE_HOME": "x"} | HOME, "/home/ann/.local/state/papaya-pool"),
        (None, {"XDG_STATE_HOME": ""} | HOME, "/home/ann/.local/state/papaya-pool"),
        (None, HOME, "/home/ann/.local/state/papaya-pool"),
    ],
)
def test_the_state_directory_is_found_in_this_order(given, environ, found):
    assert settings.find_state_dir(given, environ) == Path(found)


def test_nowhere_to_keep_anything_is_a_usage_fault(capsys):
    with pytest.raises(errors.UsageFault):
        settings.find_state_dir(None, {})
    assert "--state-dir" in told(capsys, environ={})


def test_an_empty_state_directory_is_not_the_default_one(capsys):
    assert "--state-dir" in told(capsys, "--state-dir", "")


# --- mistakes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--workers", "0"], "--workers"),
        (["--workers", "-1"], "--workers"),
        (["--workers", "many"], "--workers"),
        (["--workers", "1_0"], "--workers"),
        (["--workers", "٣"], "--workers"),
        (["--workers", " 3"], "--workers"),
        (["--workers", "9" * 5000], "--workers"),
        (["--workers", "1025"], "--workers"),
        (["--workers"], "--workers"),
        (["--port", "70000"], "--port"),
        (["--port", "65536"], "--port"),
        (["--port", "-1"], "--port"),
        (["--port", "http"], "--port"),
        (["--max-clients", "0"], "--max-clients"),
        (["--fsync", "sometimes"], "--fsync"),
        (["--log-level", "loud"], "--log-level"),
        (["--key-file", ""], "--key-file"),
        (["--host", ""], "--host"),
        (["--host"], "--host"),
        (["--work", "3"], "--work"),
        (["--no-such-thing"], "--no-such-thing"),
        (["stray"], "stray"),
        (["two\nlines\x1b[31m"], "two lines [31m"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(capsys, argv, named):
    assert named in told(capsys, *argv)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "*", "localhost.example.org"]
)
def test_beyond_loopback_needs_plain(capsys, host):
    assert "--plain" in told(capsys, "--host", "127.0.0.1", host)
    assert parse("--host", host, "--plain").hosts == (host,)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "::ffff:127.0.0.1"]
)
def test_loopback_needs_nothing(host):
    assert parse("--host", host).hosts == (host,)
    assert settings.is_loopback(host)


# --- help ----------------------------------------------------------------------------


def test_help_names_every_option_and_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in ["--workers", "--host", "--port", "--state-dir", "--key-file"]:
        assert f"{option} " in text
    for option in ["--max-clients", "--fsync", "--plain", "--classic", "--log-level"]:
        assert f"{option} " in text
    for default in ["127.0.0.1", "7722", "10000", "interval", "info", "one for each"]:
        assert f"default: {default}" in text


def test_version_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--version")
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"papaya-pool {__version__}\n"
