"""How the network cuts a login into segments changes nothing."""

import random
from dataclasses import replace

import pytest
from strangers import KEY, NONCE, TOKEN, hello, new_login, whole_login

from papaya_pool.dialects import Admit

LOGINS = {
    "native": whole_login(hello()),
    "native, with input behind it": whole_login(hello()) + b"one\ntwo\nthr",
    "native, with CR": whole_login(hello("Ω", b"since=12"), b"\r\n") + b"\r\nhi\r\n",
    "native, resuming": whole_login(hello("al", b"last=0", b"session=" + TOKEN)),
    "native, wrong key": whole_login(hello(), key=b"f" * 64) + b"one\n",
    "native, 512 bytes": whole_login(hello("al", b"last=") + b"1" * 458) + b"x",
    "native, too long": hello("al", b"last=") + b"1" * 600 + b"\n",
    "native, too long by a CR": hello("al", b"last=") + b"1" * 459 + b"\r\r\n",
    "native, proof too long": hello() + b"\n" + b"0" * 513 + b"\n",
    "native, empty proof": hello() + b"\n\n" + b"hi\n",
    "native, bad name": b"PAPAYA/2 a:b " + NONCE + b"\nhi\n",
    "native, bad option": hello("al", b"since=x") + b"\nhi\n",
    "native, no hello": b"PAPAYA/2 \n",
    "a question": b"PAPAYA/2-WHO al " + NONCE + b"\n",
    "classic": KEY,
    "classic, with input behind it": KEY + b"bob: hi\nbob: ho",
    "classic, wrong key": KEY[1:] + KEY[:1] + b"bob: hi\n",
    "classic, no digit": KEY[:99] + b"x" + KEY,
    "another version": b"PAPAYA/3x alice\n",
    "another version, two digits": b"PAPAYA/22 alice\n",
    "half a version": b"PAPAYA/2x alice\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST": b"POST / HTTP/1.1\r\n\r\n",  # P is how PAPAYA begins, too
    "nothing": b"",
    "unfinished": whole_login(hello())[:-1],
}


def effects_of(chunks, classic_allowed):
    """All effects of one login, as if its input behind an Admit had come at once."""
    login, effects, rest = new_login(classic_allowed), [], b""
    for chunk in chunks:
        if effects and isinstance(effects[-1], Admit):
            rest += chunk
        else:
            effects += login.feed(chunk)
    if rest:
        effects[-1] = replace(effects[-1], rest=effects[-1].rest + rest)
    return effects


def cut(data, seed):
    dice = random.Random(seed)
    at = sorted(dice.sample(range(len(data) + 1), min(dice.randint(1, 9), len(data))))
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


@pytest.mark.parametrize("classic_allowed", [True, False])
@pytest.mark.parametrize("name", LOGINS)
def test_one_byte_at_a_time_is_the_same_as_all_at_once(name, classic_allowed):
    data = LOGINS[name]
    bytewise = [data[i : i + 1] for i in range(len(data))]
    assert effects_of(bytewise, classic_allowed) == effects_of([data], classic_allowed)


@pytest.mark.parametrize("name", LOGINS)
def test_random_segments_are_the_same_as_all_at_once(name):
    data = LOGINS[name]
    for seed in range(100):
        assert effects_of(cut(data, seed), True) == effects_of([data], True), seed


def test_random_bytes_are_judged_alike_however_they_are_cut():
    for seed in range(1000):
        dice = random.Random(seed)
        start = dice.choice([b"", b"PAPAYA/", b"PAPAYA/2 ", hello()[:-5], KEY[:100]])
        noise = dice.choices(b"PA/2 \r\n0af=\x16\xff", k=dice.randint(0, 40))
        data = start + bytes(noise)
        whole = effects_of([data], True)
        assert effects_of(cut(data, seed), True) == whole, seed
        assert effects_of([bytes([b]) for b in data], True) == whole, seed


def test_the_cuts_lose_nothing():
    for seed in range(100):
        assert b"".join(cut(KEY, seed)) == KEY
