"""One person over many connections: what is asked for, and when it is over."""

import pytest

from papaya_pool.client import link, member
from papaya_pool.client.member import Arrived, Down, Member, Over, Profile, Up

LOG, OTHER = "a" * 16, "b" * 16
TOKEN = "7a" * 16


def made(past="last=0", **how):
    return Member(Profile("ann", past, TOKEN, **how))


def line(seq, name="bob", text="hi"):
    return f"{seq}\t2026-11-22T20:00:00.000Z\t{name}\t{text}".encode()


def asked(who):
    return who.request("0" * 32).split(" ")[3:]


def test_the_first_login_asks_for_the_past_and_the_next_for_what_was_missed():
    who = made("last=10")
    assert who.request("0" * 32).startswith(f"PAPAYA/2 ann {'0' * 32} last=10")
    assert asked(who) == ["last=10", f"session={TOKEN}"]
    assert who.take(link.Joined(20, LOG, None)) == [Up(20)]
    assert asked(who)[0] == "since=10"
    (arrived,) = who.take(link.Lines([line(11), line(12)]))
    assert isinstance(arrived, Arrived)
    assert asked(who)[0] == "since=12"


@pytest.mark.parametrize(
    ("past", "head", "position"),
    [("last=0", 7, 7), ("last=5", 7, 2), ("last=100", 7, 0), ("since=3", 7, 3)],
)
def test_where_it_reads_on_if_nothing_came_at_all(past, head, position):
    who = made(past)
    who.take(link.Joined(head, LOG, None))
    assert asked(who)[0] == f"since={position}"


def test_where_the_last_n_begin_is_for_the_server_to_say():
    who = made("last=5")
    who.take(link.Joined(20, LOG, None))
    (arrived,) = who.take(link.Lines([line(18), line(19)]))
    assert [r.seq for r in arrived.records] == [18, 19]
    assert asked(who)[0] == "since=19"


def test_what_came_before_is_not_shown_twice_and_a_gap_is_not_read_over():
    who = made("since=0")
    who.take(link.Joined(3, LOG, None))
    who.take(link.Lines([line(1), line(2)]))
    assert [r.seq for e in who.take(link.Lines([line(2), line(3)])) for r in e.records] == [3]
    with pytest.raises(ValueError, match="seq 5 came after 3"):
        who.take(link.Lines([line(5)]))
    with pytest.raises(ValueError):
        who.take(link.Lines([b"no record"]))


def test_another_log_is_begun_afresh():
    who = made("last=10")
    who.take(link.Joined(20, LOG, None))
    with pytest.raises(member.AnotherLog):
        who.take(link.Joined(3, OTHER, None))
    assert asked(who)[0] == "last=10"
    who.take(link.Joined(3, OTHER, None))
    assert asked(who)[0] == "since=0"


def test_a_server_without_tokens_is_asked_without_at_once():
    who = made()
    assert who.refused("syntax", "no", 0.0, 0.0) == [
        Down("the server knows no session=", 0.0)
    ]
    assert asked(who) == ["last=0"]
    (over,) = who.refused("syntax", "no", 0.0, 0.0)
    assert over.exit_code == 77


@pytest.mark.parametrize("code", ["auth", "name", "banned", "too-long", "kicked", "new"])
def test_what_is_hopeless_ends_it(code):
    who = made()
    who.outbox.say(b"hi")
    (over,) = who.refused(code, "because", 0.0, 0.0)
    assert over.exit_code == 77
    assert over.text.endswith("because; 1 line was not sent")


@pytest.mark.parametrize("code", sorted(member.AGAIN))
def test_what_passes_is_tried_again(code):
    (down,) = made().refused(code, "", 0.0, 0.0)
    assert 0 < down.delay_s < 1


def test_since_beyond_the_head_is_another_log_unless_it_was_asked_for():
    who = made("since=99")
    assert isinstance(who.refused("since", "", 0.0, 0.0)[0], Over)
    who = made("since=3")
    who.take(link.Joined(20, LOG, None))
    afresh, down = who.refused("since", "", 0.0, 0.0)
    assert isinstance(afresh, member.Afresh)
    assert isinstance(down, Down)
    assert asked(who)[0] == "last=100"


def test_patience_ends_with_what_was_not_sent():
    who = made(patience_s=60.0)
    who.outbox.say(b"a")
    who.outbox.say(b"b")
    assert isinstance(who.lost("gone", 59.9, 0.5)[0], Down)
    (over,) = who.lost("gone", 60.0, 0.5)
    assert (over.exit_code, over.text) == (69, "gone; 2 lines were not sent")
    who.outbox.say(b"c")
    assert who.over_again(over).text == "gone; 3 lines were not sent"


def test_a_screen_never_gives_up_once_it_is_open():
    who = made(patience_s=None)
    assert isinstance(who.lost("gone", 1e6, 0.5)[0], Over)
    who.take(link.Joined(0, LOG, None))
    assert isinstance(who.lost("gone", 1e6, 0.5)[0], Down)


def test_back_off_doubles_to_a_limit_and_is_spread():
    delays = [member.backoff(n, 1.0) for n in range(12)]
    assert delays[:3] == [0.2, 0.4, 0.8]
    assert max(delays) == member.LONGEST_DELAY_S == delays[-1]
    assert member.backoff(5, 0.0) == member.backoff(5, 1.0) / 2


def test_joining_resets_the_back_off():
    who = made()
    slow = [who.lost("gone", 0.0, 1.0)[0].delay_s for _ in range(5)][-1]
    who.take(link.Joined(0, LOG, None))
    assert who.lost("gone", 0.0, 1.0)[0].delay_s < slow


def test_what_the_server_has_taken_must_still_be_seen():
    who = made()
    who.take(link.Joined(0, LOG, None))
    who.outbox.say(b"hi")
    who.unsent()
    who.lost("gone", 0.0, 0.0)
    who.take(link.Joined(1, LOG, 1))
    assert who.outbox.pending_count == 0
    assert not who.drained()
    who.take(link.Lines([line(1, "ann", "hi")]))
    assert who.drained()


def test_classic_gives_up_what_was_under_way_and_says_so():
    who = made(classic=True)
    who.take(link.Joined(0, "classic", None))
    who.outbox.say(b"hi")
    assert who.unsent() == b"ann: hi\n"
    events = who.take(link.Joined(0, "classic", None))
    assert events[1] == member.Warn("1 line may not have arrived")
    assert who.drained()
    assert who.leaving().exit_code == 69
