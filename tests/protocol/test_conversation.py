"""Both halves of a login against each other, and every way in which it can fail."""

import pytest
from strangers import (
    K,
    KEY,
    NONCE,
    SERVER_LINE,
    SERVER_NONCE,
    TOKEN,
    admitted,
    hello,
    new_login,
    refusal,
    signed,
    whole_login,
)

from papaya_pool import dialects
from papaya_pool.dialects import Admit, Refuse, Send
from papaya_pool.errors import WorkerFault

CLASSIC = Admit("classic", "", None, None, b"", b"", b"", 128)


# --- native --------------------------------------------------------------------------


def test_a_native_login_is_two_lines_each_way():
    login = new_login()
    assert login.feed(hello() + b"\n") == [Send(SERVER_LINE + b"\n")]
    assert login.feed(signed(b"client", hello()) + b"\n") == [admitted(hello())]


def test_each_side_can_check_the_other():
    assert dialects.proof_key(KEY) == K
    assert dialects.client_proof(K, hello(), SERVER_LINE) == signed(b"client", hello())
    assert dialects.server_proof(K, hello(), SERVER_LINE) == signed(b"server", hello())


def test_the_proofs_are_these_bytes_for_ever():
    # As openssl dgst -sha256 -hmac has them.
    key = b"0" * 128
    k = b"45725791c47b32618cc57b88343e2bceec3b0a01b83bc97d144a2cbc11a20c3d"
    lines = b"PAPAYA/2 al " + b"1" * 32 + b" since=0", b"PAPAYA/2 " + b"2" * 32
    assert dialects.proof_key(key) == k
    assert dialects.client_proof(k, *lines) == (
        b"d1325d53be3c754a43c012736b63d547fc0b40dae6719dc9894b0a64afc9e3c6"
    )
    assert dialects.server_proof(k, *lines) == (
        b"7b2ca2256412e0559a0b1bc36afe2508f9dbe1826aafafbddcfb16419efc130f"
    )


def test_what_follows_the_login_is_given_back_whole():
    more = b"first\nsecond\nthi"
    effects = new_login().feed(whole_login(hello()) + more)
    assert effects == [Send(SERVER_LINE + b"\n"), admitted(hello(), rest=more)]


def test_one_cr_before_the_newline_is_not_signed():
    effects = new_login().feed(whole_login(hello(), ending=b"\r\n"))
    assert effects[-1] == admitted(hello(), received=len(whole_login(hello())) + 2)


def test_a_second_cr_is_part_of_the_line():
    assert refusal(new_login().feed(hello() + b"\r\r\n")) == "syntax"


def test_digits_may_be_written_large():
    login = new_login()
    login.feed(hello() + b"\n")
    (effect,) = login.feed(signed(b"client", hello()).upper() + b"\n")
    assert effect == admitted(hello())


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ([], {"last": 100}),
        ([b"since=0"], {"since": 0, "last": None}),
        ([b"since=1042"], {"since": 1042, "last": None}),
        ([b"last=0"], {"last": 0}),
        ([b"last=7"], {"last": 7}),
        ([b"session=" + TOKEN], {"last": 100, "token": TOKEN}),
        ([b"last=7", b"session=" + TOKEN], {"last": 7, "token": TOKEN}),
        ([b"session=" + b"AB" * 16, b"last=7"], {"last": 7, "token": b"ab" * 16}),
        ([b"since=" + b"9" * 40], {"since": 2**63 - 1, "last": None}),
        ([b"last=" + b"9" * 400], {"last": 2**63 - 1}),
    ],
)
def test_a_hello_says_where_to_begin(options, asked):
    line = hello("alice", *options)
    assert new_login().feed(whole_login(line))[-1] == admitted(line, **asked)


@pytest.mark.parametrize(
    "options",
    [
        [b"since=1", b"last=1"],
        [b"last=1", b"since=1"],
        [b"since=1", b"since=1"],
        [b"since="],
        [b"since"],
        [b"since=-1"],
        [b"since=+1"],
        [b"since=1_0"],
        [b"since=007"],
        [b"since=\xd9\xa1"],  # ARABIC-INDIC DIGIT ONE
        [b"last=many"],
        [b"SINCE=1"],
        [b"session="],
        [b"session=" + TOKEN[:-1]],
        [b"session=" + TOKEN + b"0"],
        [b"session=" + b"g" * 32],
        [b"colour=red"],
        [b"=1"],
        [b""],
        [b"", b"last=1"],
        [b"last=1\x00"],
        [b"last=1\tx"],
    ],
)
def test_options_that_cannot_be_are_a_syntax_error(options):
    assert refusal(new_login().feed(hello("alice", *options) + b"\n")) == "syntax"


@pytest.mark.parametrize(
    "line",
    [
        b"PAPAYA/2 ",
        b"PAPAYA/2 alice",
        b"PAPAYA/2 alice ",
        b"PAPAYA/2 " + NONCE,
        b"PAPAYA/2 alice " + NONCE[:-1],
        b"PAPAYA/2 alice " + NONCE + b"0",
        b"PAPAYA/2 alice " + b"x" * 32,
        b"PAPAYA/2 alice bob " + NONCE,
        b"PAPAYA/2 alice  " + NONCE,
        b"PAPAYA/2- alice " + NONCE,
        b"PAPAYA/2-WHAT alice " + NONCE,
    ],
)
def test_a_line_that_is_no_hello_is_a_syntax_error(line):
    assert refusal(new_login().feed(line + b"\n")) == "syntax"


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        (b"PAPAYA/2-WHO alice " + NONCE, ("who", 0, 0)),
        (b"PAPAYA/2-LOG alice " + NONCE + b" from=3 to=9", ("log", 3, 9)),
    ],
)
def test_a_question_is_proved_like_a_login(line, asked):
    login = new_login()
    admit = login.feed(whole_login(line))[-1]
    assert (admit.question, admit.first, admit.to) == asked


@pytest.mark.parametrize("options", [b"", b" from=1", b" to=1", b" since=1", b" from=x to=2"])
def test_a_question_for_the_log_wants_both_ends(options):
    line = b"PAPAYA/2-LOG alice " + NONCE + options
    assert refusal(new_login().feed(line + b"\n")) == "syntax"


@pytest.mark.parametrize(
    "name", ["a", "Ω-1_x.y", "x" * 32, "ж" * 32, "名前", "e\u0301", "-", "7"]
)
def test_names_are_kept_as_they_were_typed(name):
    line = hello(name)
    assert new_login().feed(whole_login(line))[-1] == admitted(
        line, name=name, received=len(whole_login(line))
    )


@pytest.mark.parametrize(
    "name",
    [b"", b"x" * 33, b"a:b", b"a\tb", b"a/b", b"a\x00", b"\xff", b"\xc3", b"\x1b[1m"]
    + ["名".encode() * 32, "\u200b".encode(), "\ufffd".encode(), b"\xed\xa0\x80"],
)
def test_a_name_that_nobody_can_have_is_refused(name):
    line = b"PAPAYA/2 " + name + b" " + NONCE
    assert refusal(new_login().feed(line + b"\n")) == "name"


@pytest.mark.parametrize(
    "proof",
    [
        b"",
        b"0" * 64,
        signed(b"client", hello())[:-1],
        signed(b"client", hello()) + b"0",
        b" " + signed(b"client", hello()),
        signed(b"server", hello()),
        signed(b"client", hello("bob")),
        signed(b"client", hello(), key=KEY),
        b"\xff" * 64,
    ],
)
def test_a_wrong_proof_is_refused(proof):
    login = new_login()
    login.feed(hello() + b"\n")
    assert refusal(login.feed(proof + b"\n")) == "auth"


def test_a_proof_holds_for_one_nonce_of_ours_only():
    login = dialects.Login(
        key_digits=KEY, proof_key=K, server_nonce=b"0" * 32, classic_allowed=True
    )
    assert refusal(login.feed(whole_login(hello()))) == "auth"


# --- the limit of a login line -------------------------------------------------------


def long_hello(size):
    line = hello("alice", b"last=")
    return line + b"1" * (size - len(line))


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_line_of_512_bytes_is_taken(ending):
    line = long_hello(512)
    assert isinstance(new_login().feed(whole_login(line, ending))[-1], Admit)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r\r\n", b"", b"0" * 9999])
def test_a_line_of_513_bytes_is_too_long(ending):
    assert refusal(new_login().feed(long_hello(513) + ending)) == "too-long"


def test_a_line_is_too_long_with_the_first_byte_that_proves_it():
    login = new_login()
    assert login.feed(long_hello(512) + b"\r") == []
    assert refusal(login.feed(b"x")) == "too-long"


def test_a_proof_has_the_same_limit():
    login = new_login()
    login.feed(hello() + b"\n")
    assert login.feed(b"0" * 512 + b"\r") == []
    assert refusal(login.feed(b"\r")) == "too-long"


@pytest.mark.parametrize("first", [b"PAPAYA/2 ", b"a", hello() + b"\n"])
def test_no_more_than_a_line_is_ever_held(first):
    login = new_login()
    login.feed(first)
    for _ in range(2000):
        login.feed(b"a" * 7)
        assert len(login._held) <= 513


# --- classic -------------------------------------------------------------------------


def test_a_classic_login_is_the_key_and_nothing_else():
    assert new_login().feed(KEY) == [CLASSIC]


def test_a_classic_key_may_come_in_any_two_segments():
    for cut in range(1, 128):
        login = new_login()
        assert login.feed(KEY[:cut]) == []
        assert login.feed(KEY[cut:]) == [CLASSIC]


def test_lines_right_behind_a_classic_key_are_given_back():
    (effect,) = new_login().feed(KEY + b"bob: hi\nbob: ho\n")
    assert effect.rest == b"bob: hi\nbob: ho\n"
    assert effect.received == 128


def test_a_wrong_classic_key_is_a_close_without_words():
    wrong = KEY[:-1] + bytes([KEY[-1] ^ 1])
    effects = new_login().feed(wrong)
    assert effects == [Refuse("", "")]
    assert effects[0].wire() == b""


def test_how_much_of_a_classic_key_is_right_does_not_show():
    for wrong in (b"f" * 127, KEY[:127], b"f" + KEY[1:127]):
        assert new_login().feed(wrong) == []


@pytest.mark.parametrize("byte", [b"\n", b"\x00", b"g", b" ", b"\xff"])
def test_a_byte_that_is_no_digit_ends_a_classic_login_at_once(byte):
    assert new_login().feed(KEY[:50] + byte) == [Refuse("", "")]


def test_a_classic_client_hears_at_once_where_classic_is_not_allowed():
    assert refusal(new_login(classic_allowed=False).feed(KEY[:1])) == "version"


def test_native_is_spoken_where_classic_is_not_allowed():
    login = new_login(classic_allowed=False)
    assert login.feed(whole_login(hello()))[-1] == admitted(hello())


# --- neither -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (b"\x16", "version"),
        (b"\x16\x03\x01\x02\x00\x01", "version"),
        (b"PAPAYA/3", "version"),
        (b"PAPAYA/1 alice", "version"),
        (b"PAPAYA/22", "version"),
        (b"PAPAYA/2.1", "version"),
        (b"PAPAYA/x", "syntax"),
        (b"PAPAYA/2x", "syntax"),
        (b"PAPAYA/2\n", "syntax"),
        (b"PAPAYA/ ", "syntax"),
        (b"PAPAYA 2", "syntax"),
        (b"papaya/2 ", "syntax"),
        (b"GET / HTTP/1.1\r\n", "syntax"),
        (b"SSH-2.0", "syntax"),
        (b"\n", "syntax"),
        (b"\x00", "syntax"),
        (b"\xff\xf4", "syntax"),
    ],
)
def test_what_is_no_login_is_refused_with_the_byte_that_shows_it(first, code):
    assert refusal(new_login().feed(first)) == code


@pytest.mark.parametrize("first", [b"", b"P", b"PAPAYA", b"PAPAYA/", b"PAPAYA/2"])
def test_what_may_still_become_a_login_is_waited_for(first):
    assert new_login().feed(first) == []


def test_a_refusal_is_one_line():
    assert Refuse("name", "not so").wire() == b"ERR name not so\n"
    for step in dialects.TABLE.values():
        if isinstance(step, Refuse) and step.code:
            assert step.wire().count(b"\n") == 1
            assert len(step.wire()) < 100


def test_what_comes_after_a_refusal_is_dropped():
    login = new_login()
    login.feed(b"nonsense")
    assert login.feed(whole_login(hello())) == []
    assert login._held == b""


def test_feeding_a_login_that_is_over_is_a_bug():
    login = new_login()
    login.feed(KEY)
    with pytest.raises(WorkerFault):
        login.feed(b"bob: hi\n")


# --- the OK line ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "end"),
    [(None, b""), (0, b" taken=0"), (12, b" taken=12"), ("?", b" taken=?")],
)
def test_the_ok_line_says_head_and_log(taken, end):
    line = dialects.ok_line(b"ab" * 32, 1042, "0123456789abcdef", taken)
    start = b"OK " + b"ab" * 32 + b" head=1042 log=0123456789abcdef"
    assert line == start + end + b"\n"
    assert len(line) <= 512


def test_the_servers_nonce_is_32_digits():
    assert len(SERVER_NONCE) == 32
    with pytest.raises(AssertionError):
        dialects.Login(
            key_digits=KEY, proof_key=K, server_nonce=b"short", classic_allowed=True
        )
