"""Keys, invitations and saved rooms."""

import pytest

from papaya_pool.client import config
from papaya_pool.client.config import ConfigFault, Room

KEY = "0123456789abcdef" * 8


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (f"papaya://127.0.0.1:7722/{KEY}", "127.0.0.1", 7722),
        (f"  papaya://chat.example.org:1/{KEY}/\n", "chat.example.org", 1),
        (f"papaya://[::1]:65535/{KEY.upper()}", "::1", 65535),
    ],
)
def test_an_invitation(text, host, port):
    room = config.understand_invitation(text)
    assert (room.host, room.port, room.key.lower()) == (host, port, KEY)
    assert KEY not in repr(room)


@pytest.mark.parametrize(
    "text",
    [
        *("", "papaya://", f"papaya://h/{KEY}", f"papaya://h:0/{KEY}"),
        *(f"papaya://h:65536/{KEY}", f"papaya://h:1/{KEY[1:]}", f"http://h:1/{KEY}"),
        *(f"papaya://[x]:1/{KEY}", f"papaya://[:::]:1/{KEY}", f"papaya://a b:1/{KEY}"),
        f"papaya://h:1/{KEY[1:]}g",
    ],
)
def test_what_is_no_invitation_is_not_repeated(text):
    with pytest.raises(ConfigFault) as fault:
        config.understand_invitation(text)
    assert KEY[1:] not in str(fault.value)


def test_a_saved_room_comes_back_and_its_key_is_its_owners_alone(tmp_path):
    directory = tmp_path / "new" / "papaya-chat"
    room = Room("::1", 7723, KEY, "日本", plain=True, dialect="classic")
    config.save_room(directory, "work", room)
    config.save_room(directory, "home", Room("h", 1, KEY))
    assert config.load_room(directory, "work") == room
    assert config.load_room(directory, "home") == Room("h", 1, KEY)
    assert directory.stat().st_mode & 0o777 == 0o700
    for name in ("config.toml", "work.key", "home.key"):
        assert (directory / name).stat().st_mode & 0o777 == 0o600
    assert KEY not in (directory / "config.toml").read_text()


def test_what_a_person_wrote_in_the_file_stays(tmp_path):
    config_toml = tmp_path / "config.toml"
    config_toml.write_text("# mine\n[rooms.a]\nhost = 'x'\nkey-file = 'a.key'")
    config.save_room(tmp_path, "b", Room("h", 1, KEY))
    assert config_toml.read_text().startswith("# mine\n[rooms.a]")
    assert config.load_room(tmp_path, "b").host == "h"


@pytest.mark.parametrize("name", ["", "join", "a b", "../x", "x" * 33, "a.b", "saved"])
def test_a_name_that_a_room_cannot_have(tmp_path, name):
    config.save_room(tmp_path, "saved", Room("h", 1, KEY))
    with pytest.raises(ConfigFault):
        config.save_room(tmp_path, name, Room("h", 1, KEY))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[rooms.w]\nhost = 1\nkey-file = 'k'", "host is not known, or not of that kind"),
        ("[rooms.w]\nhost = 'h'\nkey-file = 'k'\nprot = 1", "prot is not known"),
        ("[rooms.w]\nhost = 'h'\nkey-file = 'k'\nport = 70000", "port"),
        ("[rooms.w]\nhost = 'h'\nkey-file = 'k'\nport = true", "port"),
        ("[rooms.w]\nhost = 'h'\nkey-file = 'k'\nname = 'a b'", "name"),
        ("[rooms.w]\nhost = 'h'\nkey-file = 'k'\ndialect = 'x'", "dialect"),
        ("[rooms.w]\nhost = 'h'", "key-file is missing"),
        ("[rooms.w]\nhost = 'h'\nkey-file = 'k'", "key file"),
        ("[rooms.other]\n", "saved: other"),
        ("", "saved: none"),
        ("rooms = 3", "must be tables"),
        ("[rooms", "config.toml"),
        ("\xff", "config.toml"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, text, complaint):
    (tmp_path / "config.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigFault, match=complaint) as fault:
        config.load_room(tmp_path, "w")
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_that_others_can_reach_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(mode)
    with pytest.raises(ConfigFault, match="open to others"):
        config.read_key(path)


@pytest.mark.parametrize("text", ["", KEY[1:], KEY + "0", "k" * 128, KEY * 40])
def test_a_key_file_without_a_key_is_refused(tmp_path, text):
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigFault, match="128 hex digits"):
        config.read_key(path)


def test_the_pool_on_this_machine(tmp_path):
    with pytest.raises(ConfigFault) as fault:
        config.pool_key(tmp_path)
    assert fault.value.exit_code == 69
    assert config.pool_port(tmp_path) == 7722
    (tmp_path / "port").write_text("4711\n")
    assert config.pool_port(tmp_path) == 4711


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"XDG_CONFIG_HOME": "/c", "HOME": "/h"}, "/c/papaya-chat"),
        ({"XDG_CONFIG_HOME": "c", "HOME": "/h"}, "/h/.config/papaya-chat"),
        ({"HOME": "/h"}, "/h/.config/papaya-chat"),
    ],
)
def test_where_rooms_are_saved(environ, directory):
    assert str(config.config_dir(environ)) == directory
    with pytest.raises(ConfigFault):
        config.config_dir({})


def test_how_far_somebody_has_read_is_a_hint(tmp_path):
    reads = config.Reads({"XDG_STATE_HOME": str(tmp_path)})
    assert reads.last("a" * 16) == 0
    reads.note("a" * 16, 42)
    assert reads.last("a" * 16) == 42
    reads.note("../../x", 1)
    assert [p.name for p in (tmp_path / "papaya-chat").iterdir()] == ["read-" + "a" * 16]
    lost = config.Reads({"XDG_STATE_HOME": "/proc/none"})
    lost.note("a" * 16, 1)
    assert lost.last("a" * 16) == 0
