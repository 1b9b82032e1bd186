"""Law 5 over every interleaving: publish then set; re-arm, look, sleep."""

import itertools
import os

import pytest

from papaya_pool import latch

SETTER = ["publish", "set"]
RIGHT = ["rearm", "look", "sleep"]


def interleavings(left, right):
    """Yield every merge of two step lists that keeps each in its own order."""
    places = range(len(left) + len(right))
    for ours in itertools.combinations(places, len(left)):
        one, other = iter(left), iter(right)
        yield [next(one) if place in ours else next(other) for place in places]


def stranded(steps):
    """Whether the sleeper ends up asleep with published work that it has not seen."""
    published = seen = 0
    is_set = asleep = False
    for step in steps:
        if step == "publish":
            published += 1
        elif step == "set":
            is_set, asleep = True, False
        elif step == "rearm":
            is_set = False
        elif step == "look":
            seen = published
        else:
            asleep = not is_set
    return asleep and seen < published


@pytest.mark.parametrize("setters", [1, 2, 3])
def test_rearm_then_look_strands_nobody(setters):
    assert not [s for s in interleavings(SETTER * setters, RIGHT) if stranded(s)]


@pytest.mark.parametrize("rounds", [2, 3])
def test_nor_does_it_round_after_round(rounds):
    # A sleeper that is awake goes on; one that sleeps takes no step until it is set.
    assert not [s for s in interleavings(SETTER * 2, RIGHT * rounds) if stranded(s)]


def test_look_then_rearm_can_strand_the_sleeper():
    wrong = ["look", "rearm", "sleep"]
    found = [s for s in interleavings(SETTER, wrong) if stranded(s)]
    assert ["look", "publish", "set", "rearm", "sleep"] in found


def test_set_then_publish_can_strand_the_sleeper():
    assert [s for s in interleavings(SETTER[::-1], RIGHT) if stranded(s)]


@pytest.fixture(params=[False, True], ids=["eventfd", "pipe"])
def two_workers(request):
    made = latch.make(2, portable=request.param)
    yield made
    for fd in made.fds():
        os.close(fd)


def test_a_latch_that_nobody_rearms_can_be_set_for_ever(two_workers):
    for _ in range(70_000):  # a pipe holds 65,536 bytes
        two_workers.set()
    two_workers.rearm(0)
    two_workers.rearm(1)
    two_workers.set()


def test_the_pipe_of_one_worker_is_rearmed_alone():
    made = latch.PipeLatch(2)
    try:
        made.set()
        made.rearm(0)
        assert os.read(made.source(1)[0], 9) == b"!"
        with pytest.raises(BlockingIOError):
            os.read(made.source(0)[0], 9)
    finally:
        for fd in made.fds():
            os.close(fd)
