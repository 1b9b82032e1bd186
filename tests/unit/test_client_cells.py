"""Hostile text made harmless, and measured."""

import unicodedata

import pytest

from papaya_pool.client import cells

HOSTILE = [
    "\x1b[2J\x1b[H\x1b]0;title\x07",
    "\x9b2J\x90q\x9c\x85",
    "a\rb\nc\vd\fe\bf",
    "\u202eevil\u202c \u2066x\u2069 \u200e\u200f\u061c",
    "zero" + "\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e" * 200 + "width",
    "Z" + "\u0310\u0311\u0336\u0489\u20dd" * 100 + "algo",
    "\u0301\u0301leading marks",
    "space \u0336\u0336\u0336 marks",
    "\u2028\u2029lines",
    "\U000e0041\U000e0042tags",
    "\ufe0f\ufe0fselectors\U000e0100",
    "\u3164\u115f\u1160\uffa0fillers",
    "\ud7fb\u1100\u1161\u11a8jamo",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44b\U0001f3fd \U0001f1e9\U0001f1ea",
    "\U0010ffff\ue000\ufdd0private",
    "\ufff9\ufffa\ufffb\ufffcannotations",
    "\u0600\u06dd\u08e2\U000110bdprefixed",
    "x" * 4096,
    "\u3000wide\u2003spaces\u00a0here",
    "\ufdfd" * 50,
    "\u0e33\u0eb3\u0e33",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_shown_holds_nothing_that_moves_hides_or_reorders(text):
    shown = cells.harmless(text)
    for char in shown:
        kind = unicodedata.category(char)
        assert kind not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp"), repr(char)
        assert kind != "Cf" or char in "\u200c\u200d", repr(char)
        assert unicodedata.bidirectional(char) not in (
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
        )
    for piece in cells.clusters(shown):
        assert len(piece) <= 1 + 2 * cells.MARKS
        assert cells.width(piece[0]) > 0
    assert cells.harmless(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hello", "hello"),
        ("tab\tbed", "tab    bed"),
        ("e\u0301", "\u00e9"),
        ("\u202eabc", "abc"),
        ("\u0646\u0645\u06cc\u200c\u062e", "\u0646\u0645\u06cc\u200c\u062e"),
        ("a\u200db", "a\u200db"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\U0001f469"),
        ("\U0001f44b\U0001f3fd", "\U0001f44b"),
        ("\u2764\ufe0f", "\u2764"),
        ("\ue000", "\ufffd"),
    ],
)
def test_honest_text_stays_what_it_is(text, shown):
    assert cells.harmless(text) == shown


@pytest.mark.parametrize(
    ("text", "size"),
    [("abc", 3), ("日本", 4), ("e\u0323\u0301", 1), ("\U0001f600", 2), ("\uff21", 2), ("", 0)],
)
def test_columns(text, size):
    assert cells.columns(text) == size


def test_a_cut_never_parts_a_mark_from_its_letter_or_a_wide_one_in_half():
    assert cells.cut("日本語", 5) == "日本"
    assert cells.cut("ae\u0323x", 2) == "ae\u0323"
    assert cells.cut("abc", 0) == cells.cut("日", -1) == ""


@pytest.mark.parametrize(
    ("text", "room", "rows"),
    [
        ("", 5, [""]),
        ("one two three", 7, ["one two", "three"]),
        ("one two ", 7, ["one two"]),
        ("one     two", 5, ["one", "  two"]),
        ("one two three", 8, ["one two", "three"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("日本語", 3, ["日", "本", "語"]),
        ("日本語", 1, ["?", "?", "?"]),
        ("a verylongword", 5, ["a", "veryl", "ongwo", "rd"]),
    ],
)
def test_wrap(text, room, rows):
    assert cells.wrap(text, room) == rows


@pytest.mark.parametrize("text", [*HOSTILE, "日本 語 " * 30, "word " * 50])
@pytest.mark.parametrize("room", [1, 2, 3, 7, 20, 80])
def test_no_row_is_wider_than_its_room_and_nothing_is_lost(text, room):
    shown = cells.harmless(text)
    rows = cells.wrap(shown, room)
    assert all(cells.columns(row) <= room for row in rows)
    if room > 1:
        assert "".join("".join(rows).split()) == "".join(shown.split())
