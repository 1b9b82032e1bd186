"""The whole screen as text, for keys and events told to it."""

from datetime import UTC, datetime

import pytest

from papaya_pool import records
from papaya_pool.client import cells, commands, timeline
from papaya_pool.client.keys import Paste, Text
from papaya_pool.client.paint import paint
from papaya_pool.client.view import Do, Fetch, Say, View

NOW = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    """Local time is the machine's; here it is UTC."""
    monkeypatch.setattr(timeline, "datetime", _InUtc)


class _InUtc(datetime):
    def astimezone(self, tz=UTC):
        return super().astimezone(tz)


def record(seq, text, name="bob", minute=0, day=22):
    when = f"2026-11-{day}T20:{minute:02}:00.000Z"
    return records.Record(seq, when, name, text)


@pytest.fixture
def view():
    view = View("ann", "room", lambda: NOW)
    view.resize(10, 60)
    view.joined(0)
    return view


def press(view, *keys):
    actions = []
    for key in keys:
        actions += view.key(Text(key[1:]) if key[:1] == "=" else key)
    return actions


def screen(view, height=10, width=60):
    view.resize(height, width)
    return [line.rstrip() for line in paint(view, height, width).text()]


def test_the_screen_exactly(view):
    view.arrived([record(1, "hello"), record(2, "next day", "carol", day=23)], 0)
    view.pending = ["not back yet"]
    press(view, "=typed")
    assert screen(view) == [
        "",
        "",
        "",
        "─" * 20 + " Sunday 2026-11-22 " + "─" * 21,
        "20:00        bob  hello",
        "─" * 20 + " Monday 2026-11-23 " + "─" * 21,
        "20:00      carol  next day",
        "--:--        ann  not back yet",
        " room | connected | 1 not sent",
        "[ann] typed",
    ]


def test_a_long_message_is_wrapped_under_itself_and_forges_no_line(view):
    text = "words " * 8 + "20:00        eve  forged"
    view.arrived([record(1, text)], 0)
    assert screen(view)[-4:-2] == [
        "20:00        bob  words words words words words words words",
        "                  words 20:00        eve  forged",
    ]


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 24])
@pytest.mark.parametrize("width", [1, 2, 3, 7, 20, 49, 61, 200])
def test_every_size_down_to_one_cell_fits(view, height, width):
    view.arrived([record(n, "word 日本 " * n, "bob") for n in range(1, 20)], 0)
    view.pending = ["not yet " * 20]
    press(view, "=日本 typed text that is longer than a small window", "ctrl-left")
    for _ in range(3):
        frame = paint(view, height, width)
        assert len(frame.rows) == height
        assert all(cells.columns(text) <= width for text in frame.text())
        assert 0 <= frame.cursor[1] < width
        assert frame.cursor[0] == height - 1
        view.resize(height, width)
        press(view, "page-up")


def test_every_size_of_all(view):
    view.arrived([record(n, "e\u0323 字 " * n, "字" * 16) for n in range(1, 9)], 0)
    for height in range(1, 12):
        for width in range(1, 70):
            view.resize(height, width)
            frame = paint(view, height, width)
            assert [cells.columns(t) <= width for t in frame.text()] == [True] * height


def test_scrolled_back_the_screen_stays_where_it_is(view):
    view.arrived([record(n, f"message {n}") for n in range(1, 51)], 50)
    press(view, "page-up", "page-up")
    before = screen(view)[:8]
    view.arrived([record(51, "new")], 50)
    after = screen(view)
    assert after[:8] == before
    assert "1 unread" in after[8]
    view.fetched([])
    press(view, "page-down", "page-down", "page-down")
    assert screen(view)[7].endswith("new")
    assert "unread" not in screen(view)[8]


def test_the_wheel_and_a_resize_keep_the_same_message_at_the_bottom(view):
    view.arrived([record(n, f"message {n} " + "x" * 70) for n in range(1, 51)], 50)
    press(view, "wheel-up", "wheel-up", "wheel-up", "wheel-up")
    bottom = view.timeline._anchor[0]
    for width in (30, 100, 60):
        screen(view, 10, width)
        assert view.timeline._anchor[0] == bottom


def test_older_messages_are_asked_for_before_they_are_needed(view):
    view.arrived([record(n, str(n)) for n in range(901, 1001)], 1000)
    actions = []
    while not actions:
        actions = press(view, "page-up")
    assert actions == [Fetch(601, 900)]
    assert press(view, "page-up", "page-up") == []  # once is enough
    top = screen(view)[1:8]
    view.fetched([record(n, str(n)) for n in range(601, 901)])
    assert screen(view)[1:8] == top


def test_at_the_first_message_of_all_nothing_is_asked(view):
    view.arrived([record(n, str(n)) for n in range(1, 31)], 30)
    assert press(view, *["page-up"] * 20) == []
    assert screen(view)[1].endswith("  1")


def test_last_and_since_fetch_what_they_need_and_go_there(view):
    view.arrived([record(n, f"message {n}") for n in range(901, 1001)], 1000)
    assert press(view, "=/last 20", "enter") == []
    assert screen(view)[0].endswith("message 981")
    assert press(view, "=/since 500", "enter") == [Fetch(501, 900)]
    view.fetched([record(n, f"message {n}") for n in range(501, 901)])
    assert screen(view)[1].endswith("message 501")  # below the day
    assert press(view, "=/since 1000", "enter") == []
    assert "nothing after that message" in screen(view)[8]


def test_search_goes_on_into_what_is_not_loaded(view):
    view.arrived([record(n, f"message {n}") for n in range(901, 1001)], 1000)
    assert press(view, "=/search MESSAGE 95", "enter") == []
    assert any("message 959" in row for row in screen(view))
    press(view, "=/search", "enter")
    assert view.timeline.found_seq == 958
    assert press(view, "=/search message 42", "enter") == [Fetch(1, 900)]
    view.fetched([record(n, f"message {n}") for n in range(1, 901)])
    assert any("message 429" in row for row in screen(view))
    frame = paint(view, 10, 60)
    assert ("message 42", "found") in [span for row in frame.rows for span in row]
    assert press(view, "=/search absent", "enter") == []
    assert "nothing (more) was found" in screen(view)[8]


def test_clear_empties_and_page_up_brings_it_back(view):
    view.arrived([record(n, str(n)) for n in range(1, 31)], 30)
    press(view, "=/clear", "enter")
    assert screen(view)[:8] == [""] * 8
    assert press(view, "page-up") == [Fetch(1, 30)]


def test_what_enter_does(view):
    assert press(view, "=hello", "enter") == [Say(b"hello")]
    assert press(view, "=  ", "enter") == []
    press(view, "ctrl-u")
    assert press(view, "=//x", "enter") == [Say(b"/x")]
    assert press(view, "=/me waves", "enter") == [Say(b"/me waves")]
    assert press(view, "=/typo x", "enter") == []
    assert press(view, "=/who", "enter") == [Do("who")]
    assert press(view, "=/reconnect", "enter") == [Do("reconnect")]
    assert press(view, "=/quit", "enter") == [Do("quit")]


def test_a_line_too_long_stays_to_be_edited(view):
    press(view, "=" + "字" * 1366)
    assert press(view, "enter") == []
    assert "2 bytes too long" in screen(view)[6]
    assert view.editor.text == "字" * 1366
    press(view, "backspace")
    assert press(view, "enter") == [Say(("字" * 1365).encode())]


def test_a_paste_asks_and_no_is_no_loss(view):
    press(view, "=before ")
    view.key(Paste("one\ntwo\n"))
    assert screen(view)[9] == "send 2 lines? y/n"
    assert press(view, "=x", "enter") == []
    assert press(view, "=n") == []
    assert view.editor.text == "before one two"
    press(view, "ctrl-u")
    view.key(Paste("/quit\n/me\n"))
    assert press(view, "=y") == [Say(b"/quit"), Say(b"/me")]
    view.key(Paste("one line\n"))
    assert view.editor.text == "one line"


def test_leaving_with_lines_unsent_asks_once(view):
    view.pending = ["x"]
    assert press(view, "ctrl-c") == []
    assert "1 line has not been sent yet" in screen(view)[5]
    assert press(view, "ctrl-c") == [Do("quit")]


def test_ctrl_c_clears_the_line_and_up_brings_it_back(view):
    press(view, "=half", "ctrl-c")
    assert view.editor.text == ""
    press(view, "up")
    assert view.editor.text == "half"


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("ann", True),
        ("hey Ann!", True),
        ("@ann:", True),
        ("annex", False),
        ("joann", False),
        ("ann_", False),
        ("joann ann", True),
    ],
)
def test_a_mention_is_the_name_as_a_word(view, text, is_one):
    assert (view.arrived([record(1, text)], 0) == [Do("beep")]) == is_one


def test_no_bell_for_the_past_and_for_oneself(view):
    assert view.arrived([record(1, "ann")], head=1) == []
    assert view.arrived([record(2, "ann", "ANN")], head=1) == []


def test_what_was_missed_while_the_connection_was_lost_is_marked(view):
    view.arrived([record(1, "seen")], 0)
    view.joined(3)
    view.arrived([record(2, "missed"), record(3, "too")], 3)
    rows = screen(view)
    where = next(n for n, row in enumerate(rows) if "unread" in row)
    assert rows[where + 1].endswith("missed")
    press(view, "=seen", "enter")
    assert not any("unread" in row for row in screen(view))


def test_tab_offers_who_spoke_last_first(view):
    view.arrived([record(1, "x", "carol"), record(2, "x", "cara"), record(3, "x", "ann")], 0)
    view.here(["carl", "ann", "carol"])
    press(view, "=ca")
    seen = []
    for _ in range(4):
        press(view, "tab")
        seen.append(view.editor.text)
    assert seen == ["cara: ", "carol: ", "carl: ", "cara: "]
    press(view, "back-tab")
    assert view.editor.text == "carl: "
    press(view, "ctrl-u", "=say car", "tab")
    assert view.editor.text == "say cara "


def test_a_name_that_lies_about_itself_is_shown_without_its_tricks(view):
    view.arrived([record(1, "hi", "\u202eb\u200bob")], 0)
    assert screen(view)[7] == "20:00        bob  hi"


def test_commands_are_understood():
    understand = commands.understand
    assert understand("hi") == commands.Say("hi")
    assert understand("//hi") == commands.Say("/hi")
    assert understand("/LAST 5") == commands.Command("last", "5", 5)
    for mistake in ("/", "/nope", "/last", "/last x", "/since -1", "/me", "/quit now"):
        assert isinstance(understand(mistake), commands.Mistake)
    assert all(name in "\n".join(commands.help_lines()) for name in commands.HELP)


def test_only_so_much_is_kept_in_memory(monkeypatch, view):
    monkeypatch.setattr(timeline, "ITEM_LIMIT", 100)
    for n in range(0, 1000, 10):
        view.arrived([record(n + m, str(n + m)) for m in range(1, 11)], 0)
    assert len(view.timeline.items) <= 110
    assert view.timeline.oldest == view.timeline.items[0].seq > 1
