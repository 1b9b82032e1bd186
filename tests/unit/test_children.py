"""The supervisor's judgement, without a fork or a clock."""

import pytest

from papaya_pool.children import (
    EARLY_DEATHS,
    Child,
    GiveUp,
    Kill,
    Place,
    Spawn,
    decide,
    next_spawn_s,
    reaped,
)
from papaya_pool.errors import EX_BOOT, EX_SOFTWARE


def place(slot=0, ready=True, **but):
    return Place(slot, Child(pid=41 + slot, incarnation=7 + slot, ready=ready, **but))


def test_an_empty_place_is_filled_and_an_unwanted_one_is_not():
    assert decide([Place(0), Place(1, wanted=False), place(2)], now=1.0) == [Spawn(0)]


def test_a_hung_worker_is_killed_and_not_replaced_until_reaped():
    hung, fine = place(0, deadline_s=10.0), place(1, deadline_s=30.0)
    assert decide([hung, fine], now=20.0) == [Kill(0, 41)]
    assert decide([hung, fine], now=20.05) == []  # once is enough
    reaped(hung, -9, now=20.1)
    assert decide([hung, fine], now=20.1) == [Spawn(0)]


def test_a_worker_that_has_promised_nothing_yet_is_not_late():
    assert decide([place(ready=False)], now=1e9) == []


def test_a_worker_that_served_is_replaced_at_once_however_often_it_dies():
    one = Place(0)
    for death in range(50):
        one.child = Child(pid=death, incarnation=death, ready=True)
        reaped(one, -9, now=5.0)
        assert decide([one], now=5.0) == [Spawn(0)]


def test_one_that_dies_before_it_is_ready_waits_longer_each_time():
    one, now, pauses = Place(0), 5.0, []
    for death in range(8):
        one.child = Child(pid=death, incarnation=death)
        reaped(one, -9, now)
        pauses.append(next_spawn_s([one]) - now)
        assert decide([one], now) == []
        assert decide([one], one.not_before_s) == [Spawn(0)]
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < pauses[-1] <= 1.0


def test_a_pool_whose_workers_cannot_boot_gives_up_instead_of_looping():
    one = Place(0)
    for death in range(EARLY_DEATHS):
        assert not any(isinstance(act, GiveUp) for act in decide([one], now=99.0))
        one.child = Child(pid=death, incarnation=death)
        reaped(one, EX_SOFTWARE, now=5.0)
    assert [type(act) for act in decide([one], now=99.0)] == [GiveUp]


def test_kills_from_outside_are_never_a_reason_to_give_up():
    one = Place(0)
    for death in range(100):
        one.child = Child(pid=death, incarnation=death)
        reaped(one, -9, now=5.0)
    assert decide([one], now=99.0) == [Spawn(0)]


def test_one_that_says_it_cannot_boot_is_believed_at_once():
    one = place(ready=False)
    reaped(one, EX_BOOT, now=5.0)
    assert [type(act) for act in decide([one], now=99.0)] == [GiveUp]


def test_being_ready_once_forgives_the_deaths_before():
    one = Place(0)
    for ready in [False] * (EARLY_DEATHS - 1) + [True] + [False] * (EARLY_DEATHS - 1):
        one.child = Child(pid=1, incarnation=1, ready=ready)
        reaped(one, EX_SOFTWARE, now=5.0)
    assert decide([one], now=99.0) == [Spawn(0)]


@pytest.mark.parametrize(
    ("places", "when"),
    [([], None), ([place()], None), ([Place(0, not_before_s=3.0), Place(1)], 0.0)],
)
def test_the_next_spawn_is_the_earliest(places, when):
    assert next_spawn_s(places) == when
