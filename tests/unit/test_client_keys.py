"""Bytes of a terminal as keys, and keys as edits."""

import pytest

from papaya_pool.client.editor import Editor
from papaya_pool.client.keys import Keys, Paste, Text


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"hi", [Text("hi")]),
        ("日本".encode(), [Text("日本")]),
        (b"a\r", [Text("a"), "enter"]),
        (b"\x01\x05\x0b\x15\x17", ["ctrl-a", "ctrl-e", "ctrl-k", "ctrl-u", "ctrl-w"]),
        (b"\x7f\x08", ["backspace", "backspace"]),
        (b"\x1b[A\x1bOA", ["up", "up"]),
        (b"\x1b[1;5C\x1b[1;3D", ["ctrl-right", "alt-left"]),
        (b"\x1b[5~\x1b[6~\x1b[3~", ["page-up", "page-down", "delete"]),
        (b"\x1bb\x1bf\x1b\x7f", ["alt-b", "alt-f", "alt-backspace"]),
        (b"\x1b[H\x1b[1~\x1bOF\x1b[4~", ["home", "home", "end", "end"]),
        (b"\x1b[I\x1b[O", ["focus-in", "focus-out"]),
        (b"\x1b[<64;10;5M\x1b[<65;10;5M\x1b[<0;1;1M", ["wheel-up", "wheel-down"]),
        (b"\x1b[200~a\rb\x1b[Ac\x1b[201~d", [Paste("a\nb\x1b[Ac"), Text("d")]),
        (b"\x1b[99~\x1b[?1;2cx", [Text("x")]),
        (b"\x1b\x1b[A", ["escape", "up"]),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_keys_are_the_same_however_the_bytes_are_cut(data, keys, size):
    reader, got = Keys(), []
    for at in range(0, len(data), size):
        got += reader.feed(data[at : at + size])
    assert joined(got) == keys
    assert reader.flush() == []


def joined(keys):
    """Text in one piece: how it was cut means nothing."""
    out = []
    for key in keys:
        if isinstance(key, Text) and out and isinstance(out[-1], Text):
            key = Text(out.pop().text + key.text)
        out.append(key)
    return out


def test_escape_alone_is_a_key_once_nothing_follows():
    reader = Keys()
    assert reader.feed(b"\x1b") == []
    assert reader.unfinished
    assert reader.flush() == ["escape"]
    assert reader.feed(b"[A") == [Text("[A")]


def test_bytes_that_are_no_text_do_no_harm():
    assert Keys().feed(b"\xff\xfeok\r") == [Text("\ufffd\ufffdok"), "enter"]


def typed(*keys):
    editor = Editor()
    for key in keys:
        editor.insert(key[1:]) if key[0] == "=" else editor.key(key)
    return f"{editor.before}|{editor.after}"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["=one two"], "one two|"),
        (["=one two", "ctrl-a"], "|one two"),
        (["=one two", "home", "end"], "one two|"),
        (["=one two", "left", "left", "=X"], "one tX|wo"),
        (["=one two", "alt-b"], "one |two"),
        (["=one two", "ctrl-left", "ctrl-left", "ctrl-left"], "|one two"),
        (["=one two", "ctrl-a", "alt-f"], "one| two"),
        (["=one two", "ctrl-w"], "one |"),
        (["=one  ", "ctrl-w"], "|"),
        (["=one two", "ctrl-u"], "|"),
        (["=one two", "alt-b", "ctrl-k"], "one |"),
        (["=one two", "ctrl-w", "ctrl-a", "ctrl-y"], "two|one "),
        (["=one two", "ctrl-a", "delete", "ctrl-d"], "|e two"),
        (["=one two", "alt-backspace"], "one |"),
        (["=one two", "ctrl-a", "alt-d"], "| two"),
        (["backspace", "delete", "left", "right", "ctrl-y", "up", "down"], "|"),
        (["=ae\u0323", "backspace"], "a|"),
        (["=e\u0323a", "left", "left"], "|e\u0323a"),
    ],
)
def test_the_keys_that_people_know_edit_the_line(keys, line):
    assert typed(*keys) == line


def test_lines_typed_before_come_back_and_the_one_being_typed_is_kept():
    editor = Editor()
    for line in ("one", "two", "two"):
        editor.insert(line)
        assert editor.accept() == line
    editor.insert("half")
    seen = []
    for key in ("up", "up", "up", "down", "down", "down"):
        editor.key(key)
        seen.append(editor.text)
    assert seen == ["two", "one", "one", "two", "half", "half"]
