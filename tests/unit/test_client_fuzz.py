"""Random keys, bytes and sizes: nothing raises, and nothing is drawn out of place."""

import random
from datetime import UTC, datetime

import pytest

from papaya_pool import records
from papaya_pool.client import cells, keys, link
from papaya_pool.client.classic import ClassicLink, Past
from papaya_pool.client.paint import paint
from papaya_pool.client.view import Fetch, Say, View

WORDS = [
    *("hello", "ann", "日本語", "e\u0301\u0302\u0303", "\u202etrick", "\x1b[2J", "x" * 300),
    *("\U0001f468\u200d\U0001f469", "\u200b" * 50, "", " ", "\t", "\ufdfd", "/me x"),
]
TYPED = [
    *(b"a", "日".encode(), b" ", b"\r", b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D"),
    *(b"\x01", b"\x05", b"\x0b", b"\x15", b"\x17", b"\x19", b"\x7f", b"\x1b[3~", b"\x04"),
    *(b"\x1b[5~", b"\x1b[6~", b"\t", b"\x1b[Z", b"\x1bb", b"\x1bf", b"\x0c", b"\x03"),
    *(b"/search a\r", b"/search\r", b"/last 9\r", b"/since 3\r", b"/clear\r", b"/help\r"),
    *(b"\x1b[200~one\ntwo\x1b[201~", b"y", b"n", b"\x1b[I", b"\x1b[O", b"\xff\xfe", b"\x1b"),
    *(b"/x\r", b"//x\r", b"\x1b[<64;1;1M", b"\x1b[<65;1;1M", b"\x1b[1;5A", b"\xe6\x97"),
]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_typed_and_comes_the_screen_fits_its_window(seed):
    dice = random.Random(seed)
    view = View("ann", "room", lambda: datetime(2026, 11, 22, tzinfo=UTC))
    reader = keys.Keys()
    first = head = dice.choice([0, 500])
    height, width = 24, 80
    view.resize(height, width)
    view.joined(head)
    for _ in range(150):
        act = dice.random()
        if act < 0.2:
            height, width = dice.randrange(1, 30), dice.randrange(1, 120)
            view.resize(height, width)
        elif act < 0.4:
            fresh = [said(dice, head + n) for n in range(1, dice.randrange(2, 40))]
            head = fresh[-1].seq
            view.arrived(fresh, first)
        elif act < 0.5:
            view.pending = dice.choices(WORDS, k=dice.randrange(4))
        for key in reader.feed(b"".join(dice.choices(TYPED, k=dice.randrange(5)))):
            for action in view.key(key):
                if isinstance(action, Say):
                    assert 0 < len(action.text) <= records.LINE_LIMIT
                if isinstance(action, Fetch):
                    assert 1 <= action.first <= action.last
                    answer = range(action.first, action.last + 1)
                    view.fetched([said(dice, seq) for seq in answer])
        frame = paint(view, height, width)
        assert len(frame.rows) == height
        assert all(cells.columns(row) <= width for row in frame.text())
        assert frame.cursor[0] == height - 1
        assert 0 <= frame.cursor[1] < width
        seqs = [item.seq for item in view.timeline.items if item.seq]
        assert seqs == sorted(set(seqs))


def said(dice, seq):
    text = " ".join(dice.choices(WORDS, k=dice.randrange(1, 12)))
    day = 1 + seq // 200 % 28
    when = f"2026-10-{day:02}T20:00:00.000Z"
    return records.Record(seq, when, dice.choice(WORDS[:5]), text)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_server_sends_a_link_ends_or_goes_on(seed):
    dice = random.Random(seed)
    pieces = [
        *(b"PAPAYA/2 " + b"5e" * 16 + b"\n", b"OK ", b"ERR auth x\n", b"ERR \xff\n", b"\n"),
        *(b"\0", b"\r\n", b"1\t2\t3\t4\n", b"x" * 600, b" head=1 log=", b"\xff\xfe", b": "),
    ]
    for _ in range(40):
        clients = (
            link.Link(b"k", "PAPAYA/2 ann " + "0" * 32),
            ClassicLink("k", Past(lambda: b"2026-11-22T20:00:00.000Z")),
        )
        for client in clients:
            effects = client.begin()
            for _ in range(dice.randrange(20)):
                effects += client.receive(dice.choice(pieces))
            effects += client.receive_end()
            last = [e for e in effects if isinstance(e, link.Refused | link.Broken)]
            assert len(last) == 1
            assert effects[-1] is last[0]
            if isinstance(client, link.Link):
                assert not any(isinstance(e, link.Joined) for e in effects)
