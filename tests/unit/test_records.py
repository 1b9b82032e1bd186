"""What becomes of bytes that members send, and of lines of the log."""

import pytest

from papaya_pool import records

STAMP = b"2026-11-22T20:00:00.123Z"


def texts(chunk):
    return records.take(chunk).texts


# --- from the wire -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"hello", b"hello"),
        (b"hello\r", b"hello"),
        (b"two\twords", b"two\twords"),
        (b"\tindented", b"\tindented"),
        (b" ", b" "),
        (b"a\x00b\x1b[2Jc\x07d\x7f", b"ab[2Jcd"),
        (b"a\rb", b"ab"),
        ("wörld ☃ 🎉".encode(), "wörld ☃ 🎉".encode()),
        (b"\xff", "\ufffd".encode()),
        (b"cut \xe2\x98", "cut \ufffd".encode()),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd".encode()),  # a lone surrogate
        (b"\xc0\x80", "\ufffd\ufffd".encode()),  # a NUL that hides
        ("x\x85\x9by".encode(), b"xy"),  # C1: next line, and a terminal's escape
        ("x\u2028\u2029y".encode(), b"xy"),
        (b"\x7fx", b"x"),
    ],
)
def test_a_line_becomes_text_that_cannot_drive_a_terminal(line, text):
    assert records.take(line + b"\n") == ([text], 1, len(line) + 1)


@pytest.mark.parametrize(
    "line",
    [b"", b"\r", b"\x1b", b"\x01reserved", b"\x00x", "\x85".encode(), "\u2028".encode()],
)
def test_a_line_of_which_nothing_is_left_is_dealt_with_and_makes_no_message(line):
    assert records.take(line + b"\n") == ([], 1, len(line) + 1)


def test_lines_keep_their_order_and_their_neighbours_do_no_harm():
    chunk = b"one\n\x01reserved\ntw\xffo\n\nthree\r\n\xe2\x98\nfour\n"
    expected = [b"one", "tw\ufffdo".encode(), b"three", "\ufffd".encode(), b"four"]
    assert records.take(chunk) == (expected, 7, len(chunk))


def test_nothing_is_nothing():
    assert records.take(b"") == ([], 0, 0)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_line_of_4096_bytes_is_taken_and_of_4097_is_not(ending):
    fits, long = b"x" * 4096 + ending, b"y" * 4097 + ending
    assert records.take(b"a\n" + fits + b"b\n").texts == [b"a", fits.strip(), b"b"]
    assert records.take(b"a\n" + long + b"b\n") == ([b"a"], 1, 2)
    assert records.take(long) == ([], 0, 0)


@pytest.mark.parametrize(
    ("piece", "verdict"),
    [
        (b"", False),
        (b"x" * 4096, False),
        (b"x" * 4096 + b"\r", False),
        (b"x" * 4097, True),
        (b"x" * 4097 + b"\r", True),
    ],
)
def test_a_line_can_be_too_long_before_it_has_ended(piece, verdict):
    assert records.is_too_long(piece) is verdict


@pytest.mark.parametrize(
    ("line", "size"),
    [(b"\xff" * 4096, 4095), ("é".encode() * 2048, 4096), (b"x" + b"\xff" * 4095, 4096)],
)
def test_a_text_is_cut_at_a_character(line, size):
    [text] = texts(line + b"\n")
    assert len(text) == size
    text.decode()


@pytest.mark.parametrize("limit", range(12))
def test_a_cut_never_tears_a_character(limit):
    whole = "aé☃🎉b".encode()
    piece = records.cut(whole, limit)
    assert len(piece) <= limit
    assert whole.startswith(piece)
    piece.decode()
    assert len(piece) > limit - 4 or piece == whole


def test_every_byte_in_every_place_leaves_valid_text():
    for byte in range(256):
        for line in (b"%c", b"a%c", b"%cb", b"a%cb", b"\xe2%c", b"%c\x98"):
            for text in texts(line % byte + b"\n"):
                said = text.decode()
                assert said
                assert all(c == "\t" or c >= " " for c in said)
                assert not set(said) & {"\x7f", "\x85", "\u2028", "\u2029"}


# --- names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a", "Alice", "a.b_c-9", "x" * 32, "ø" * 32, "Ольга", "李雷", "e\u0301", "٣", "_", "..."],
)
def test_a_name_may_be(name):
    assert records.is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *["", " ", "a b", "a:b", "a\tb", "a\n", "x" * 33, "李" * 22, "a\x00", "a/b"],
        *["\ufffd", "😀", "a\u200b", "a\u202eb", "\ud800", "½", "a@b", "\u2028"],
    ],
)
def test_a_name_may_not_be(name):
    assert not records.is_name(name)


def test_names_are_compared_without_case_and_composition():
    assert records.folded("É") == records.folded("e\u0301")
    assert records.folded("STRASSE") == records.folded("straße")
    assert records.folded("alice") != records.folded("alicf")


# --- classic -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"bob: hi", (b"bob", b"hi")),
        (b"bob: a: b", (b"bob", b"a: b")),
        (b"bob:hi", (b"anonymous", b"bob:hi")),
        (b": hi", (b"anonymous", b": hi")),
        (b"two words: hi", (b"anonymous", b"two words: hi")),
        (b"hi", (b"anonymous", b"hi")),
        (b"x" * 33 + b": hi", (b"anonymous", b"x" * 33 + b": hi")),
        ("Ольга: да".encode(), ("Ольга".encode(), "да".encode())),
    ],
)
def test_a_classic_line_names_who_says_it(line, said):
    assert said_by([line]) == [said]


def test_a_classic_line_without_text_is_none():
    assert said_by([b"bob: ", b"bob: hi"]) == [(b"bob", b"hi")]


def test_classic_lines_of_many_names_keep_their_order():
    lines = [b"bob: 1", b"bob: 2", b"al: 3", b"4", b"al: 5", b"a: 6", b"bob: 7", b"8", b"9"]
    expected = [
        *[(b"bob", b"1"), (b"bob", b"2"), (b"al", b"3"), (b"anonymous", b"4")],
        *[(b"al", b"5"), (b"a", b"6"), (b"bob", b"7")],
        *[(b"anonymous", b"8"), (b"anonymous", b"9")],
    ]
    assert said_by(lines) == expected


def said_by(lines):
    return [(name, text) for name, run in records.spoken(lines) for text in run]


def test_a_line_is_rendered_as_the_original_says_it():
    lines = b"".join(records.stored(9, STAMP, b"bob", [b"hi", b"a\tb\tc", b"12\tx"]))
    assert records.rendered(lines) == b"bob: hi\nbob: a\tb\tc\nbob: 12\tx\n"


def test_a_rendering_is_cut_to_4095_bytes_at_a_character():
    lines = records.stored(1, STAMP, b"bob", [b"x" * 4090, b"y" * 4091, "é".encode() * 2048])
    short, long, accents = records.rendered(b"".join(lines)).split(b"\n")[:-1]
    assert (short, long) == (b"bob: " + b"x" * 4090, b"bob: " + b"y" * 4090)
    assert len(accents) == 4095
    assert accents.decode() == "bob: " + "é" * 2045


@pytest.mark.parametrize("sizes", [[1], [4095], [4095] * 3, [2000] * 9, [1, 4095, 1], [7] * 2000])
def test_a_send_ends_with_nul_and_has_one_at_least_every_4095_bytes(sizes):
    rendering = b"".join(b"x" * size + b"\n" for size in sizes)
    sent = records.closed_with_nul(rendering)
    assert sent.replace(b"\0", b"\n") == rendering
    assert sent.endswith(b"\0")
    assert max(map(len, sent.split(b"\0"))) <= 4095


# --- the log's lines -----------------------------------------------------------------


def test_a_record_is_what_was_stored():
    [first, second] = records.stored(41, STAMP, "Ольга".encode(), [b"a\tb", b"c"])
    assert first == b"41\t" + STAMP + "\tОльга\ta\tb\n".encode()
    assert records.parse(first) == (41, STAMP.decode(), "Ольга", "a\tb")
    assert records.parse(second[:-1]) == (42, STAMP.decode(), "Ольга", "c")


@pytest.mark.parametrize(
    "line",
    [
        *[b"", b"\n", b"x", b"0\t" + STAMP + b"\ta\tb", b"01\t" + STAMP + b"\ta\tb"],
        *[b"-1\t" + STAMP + b"\ta\tb", b"1\t\ta\tb", b"1\t" + STAMP + b"\ta\t"],
        *[b"1\t" + STAMP + b"\t\tb", b"1\t" + STAMP + b"\ta", b"1\t" + STAMP[:-1] + b"\ta\tb"],
        *[b"1\t" + STAMP + b"\ta\t\xff", b"1\t" + STAMP + b"\ta\tb\n\n"],
        *[b" 1\t" + STAMP + b"\ta\tb", b"1" * 20 + b"\t" + STAMP + b"\ta\tb"],
    ],
)
def test_what_is_no_record_is_not_taken_for_one(line):
    with pytest.raises(ValueError, match=r"no record|decode"):
        records.parse(line)


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (0, b"1970-01-01T00:00:00.000Z"),
        (1795377600123, b"2026-11-22T20:00:00.123Z"),
        (1795377600999, b"2026-11-22T20:00:00.999Z"),
    ],
)
def test_a_time_is_utc_with_milliseconds(time_ms, text):
    assert records.stamp(time_ms) == text
