"""Cut at any byte: every line once, nothing missing, nothing twice."""

import random
import selectors
import socket
import time

import pytest
from cutter import Cutter
from standin import KEY, StandIn

from papaya_pool.client import driver, link, member

TOKEN = "7a" * 16


@pytest.fixture
def soon(monkeypatch):
    """The same back-off, only quicker."""
    monkeypatch.setattr(member, "FIRST_DELAY_S", 0.002)
    monkeypatch.setattr(member, "LONGEST_DELAY_S", 0.02)


def converse(port, key, lines, burst, past="last=0", token=TOKEN, within=30.0):
    """Say the lines, a few at a time: (the last event, what was shown)."""
    shown, to_say = [], list(lines)
    with selectors.SelectSelector() as selector:
        profile = member.Profile("bot", past, token, within)
        who = member.Member(profile)
        target = driver.Target("127.0.0.1", port, key)
        drive = driver.Driver(selector, target, who, roll=lambda: 0.0)
        events = drive.start(time.monotonic())
        over = None
        while over is None:
            for event in events:
                if isinstance(event, member.Arrived):
                    shown += event.records
                over = event if isinstance(event, member.Over) else over
            if over:
                break
            if drive.joined and to_say:
                for text in to_say[:burst]:
                    drive.say(text.encode())
                del to_say[:burst]
                if not to_say:
                    drive.finish(time.monotonic())
            events = []
            for key_, mask in selector.select(0 if to_say else drive.timeout(time.monotonic())):
                events += key_.data.handle(mask, time.monotonic())
            events += drive.tick(time.monotonic())
        drive.close()
    return over, shown


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("knows_tokens", [True, False])
def test_cut_at_any_byte_every_line_is_said_and_seen_once(soon, seed, knows_tokens):
    dice = random.Random(seed)
    lines = [f"line {dice.randrange(3)} of {n}" for n in range(500)]
    lives = [dice.randrange(1, dice.choice((700, 2500))) for _ in range(30)]
    with StandIn() as server:
        server.knows_tokens = knows_tokens
        cutter = Cutter(server.port, lives, seed)
        try:
            over, shown = converse(cutter.port, KEY, lines, dice.randrange(1, 40))
        finally:
            cutter.stop()
        assert over == member.Over(0, "")
        assert cutter.cuts > 5
        if knows_tokens:
            assert server.texts() == lines
        # Without tokens a line that was under way can be doubled, but never lost.
        assert set(server.texts()) == set(lines)
        assert [record.seq for record in shown] == list(range(1, len(server.log) + 1))
        assert [record.text for record in shown] == server.texts()


@pytest.mark.parametrize("seed", range(3))
def test_two_of_one_name_who_say_the_same_words_both_have_theirs_once(soon, seed):
    """What came back is no proof that it was ours; `taken` is."""
    dice = random.Random(seed)
    with StandIn() as server:
        lives = [dice.randrange(300, 3000) for _ in range(10)]
        cutter = Cutter(server.port, lives, seed)
        server._order(lambda: server._append("bot", ["ok"] * 3))
        try:
            for number in range(3):
                server._order(lambda: server._append("bot", ["ok"] * 5))
                over, _ = converse(
                    cutter.port, KEY, ["ok"] * 30, 7, token=f"{number:032x}"
                )
                assert over == member.Over(0, "")
        finally:
            cutter.stop()
        assert server.texts() == ["ok"] * (3 + 3 * 5 + 3 * 30)


def test_a_log_that_was_replaced_is_begun_afresh(soon):
    with StandIn() as server:
        port = server.port
        server.say("ann", "old")
        with selectors.SelectSelector() as selector:
            who = member.Member(member.Profile("bot", "last=100", TOKEN, 10.0))
            target = driver.Target("127.0.0.1", port, KEY)
            drive = driver.Driver(selector, target, who, roll=lambda: 0.0)
            assert seen(drive, selector, 1) == ["old"]
            server.stop()
            with StandIn(port) as other:
                other.log_id = "f" * 16
                for text in ("new 1", "new 2", "new 3"):
                    other.say("ann", text)
                assert seen(drive, selector, 3) == ["new 1", "new 2", "new 3"]
            drive.close()


def seen(drive, selector, count, within=5.0):
    """The texts of the next messages."""
    texts, deadline = [], time.monotonic() + within
    events = [] if drive.member.ever_joined else drive.start(time.monotonic())
    while len(texts) < count:
        assert time.monotonic() < deadline, texts
        for event in events:
            if isinstance(event, member.Arrived):
                texts += [record.text for record in event.records]
        if len(texts) >= count:
            break
        events = []
        for key, mask in selector.select(drive.timeout(time.monotonic()) or 0.1):
            events += key.data.handle(mask, time.monotonic())
        events += drive.tick(time.monotonic())
    return texts


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(driver, "LOGIN_DEADLINE_S", 0.05)
    with StandIn() as server:
        server.silent = True
        over, _ = converse(server.port, KEY, ["hi"], 1, within=0.1)
    assert over == member.Over(69, "the server does not answer")


def knows_tokens(pool):
    """Whether the pool answers session= yet."""
    key = link.secret(pool.key.decode())
    request = f"PAPAYA/2 probe {'0' * 32} last=0 session={'1' * 32}"
    client, answer = link.Link(key, request), b""
    with socket.create_connection(("127.0.0.1", pool.port)) as conn:
        effects = client.begin()
        while client.state != link.LIVE:
            for effect in effects:
                conn.sendall(effect.data)
            data = conn.recv(4096)
            assert data
            answer += data
            effects = client.receive(data)
    return b" taken=" in answer


@pytest.mark.parametrize("seed", range(2))
def test_a_pool_that_is_cut_off_at_any_byte_has_every_line_once(soon, pool, seed):
    if not knows_tokens(pool):
        pytest.skip("this pool does not answer session= yet")
    dice = random.Random(seed)
    lines = [f"line {dice.randrange(3)} of {n}" for n in range(400)]
    lives = [dice.randrange(1, dice.choice((900, 2500))) for _ in range(25)]
    cutter = Cutter(pool.port, lives, seed)
    try:
        burst = dice.randrange(1, 40)
        over, shown = converse(cutter.port, pool.key.decode(), lines, burst)
    finally:
        cutter.stop()
    assert over == member.Over(0, "")
    assert cutter.cuts > 5
    assert pool.texts() == lines
    assert [record.text for record in shown] == lines


@pytest.mark.soak
def test_a_thousand_cuts_and_the_pool_has_every_line_once(soon, pool):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    lines = [f"line {dice.randrange(3)} of {n}" for n in range(20_000)]
    lives = [dice.randrange(1, dice.choice((700, 4000))) for _ in range(1000)]
    cutter = Cutter(pool.port, lives, seed)
    try:
        over, shown = converse(cutter.port, pool.key.decode(), lines, 10, within=600.0)
    finally:
        cutter.stop()
    assert (over, cutter.cuts) == (member.Over(0, ""), 1000)
    assert pool.texts() == lines
    assert [record.text for record in shown] == lines
