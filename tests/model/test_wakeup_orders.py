"""Law 5: whatever is published, every worker comes to see it.

Follows latch.py, the end of commit.Committer.commit (unlock, set) and the loop of
worker.Worker.run (re-arm, look, sleep).  A publisher may be killed between its
publish and its set: then the supervisor's reaping sets the latch, and where the
supervisor is dead too, nobody sleeps longer than a tick.
"""

from typing import NamedTuple

import pytest
from every_order import put, walk

WORKERS = 2
MESSAGES = 2


class State(NamedTuple):
    published: int = 0
    latch: tuple = (False,) * WORKERS
    seen: tuple = (0,) * WORKERS
    at: tuple = ("asleep",) * WORKERS
    supervisor: bool = True
    kills: int = 1


def model(
    setter=("publish", "set"),
    awake=("rearm", "look"),
    reaping_sets=True,
    ticks=True,
    supervisor_may_die=False,
):
    def steps(s):
        for me in range(WORKERS):
            yield from work(s, me)
        if reaping_sets and s.supervisor:
            for me in range(WORKERS):
                if s.at[me] == "dead":
                    s2 = s._replace(latch=(True,) * WORKERS, at=put(s.at, me, awake[0]))
                    yield f"supervisor: reap w{me}, set, respawn", s2
        if supervisor_may_die and s.supervisor:
            yield "KILL supervisor", s._replace(supervisor=False)

    def work(s, me):
        at = s.at[me]

        def then(where, **changes):
            return s._replace(at=put(s.at, me, where), **changes)

        if at in ("dead",):
            return
        if s.kills and at in setter:
            yield f"KILL w{me} before {at}", then("dead", kills=s.kills - 1)
        if at == "asleep":
            if s.latch[me]:
                yield f"w{me} wakes", then(awake[0])
            elif ticks and s.seen[me] < s.published:
                yield f"w{me}: a tick", then(awake[0])
            if s.published < MESSAGES and not any(a in setter for a in s.at):
                yield f"w{me}: append", then(setter[0])
        elif at in setter:
            place = setter.index(at) + 1
            after = setter[place] if place < len(setter) else awake[0]
            if at == "publish":
                yield f"w{me}: publish", then(after, published=s.published + 1)
            else:
                yield f"w{me}: set", then(after, latch=(True,) * WORKERS)
        else:
            place = awake.index(at) + 1
            after = awake[place] if place < len(awake) else "asleep"
            if at == "rearm":
                yield f"w{me}: re-arm", then(after, latch=put(s.latch, me, False))
            else:
                yield f"w{me}: look", then(after, seen=put(s.seen, me, s.published))

    def wrong_at_rest(s):
        for me in range(WORKERS):
            if s.at[me] == "asleep" and s.seen[me] < s.published:
                return f"w{me} sleeps and has seen {s.seen[me]} of {s.published}"

    return State(), steps, lambda s: None, wrong_at_rest


@pytest.mark.parametrize("supervisor_may_die", [False, True])
def test_nobody_sleeps_on_what_was_published(supervisor_may_die):
    assert walk(*model(supervisor_may_die=supervisor_may_die)).flaw is None


def test_while_the_supervisor_lives_nobody_needs_the_tick():
    assert walk(*model(ticks=False)).flaw is None


@pytest.mark.parametrize(
    "changed",
    [
        {"setter": ("set", "publish")},
        {"awake": ("look", "rearm")},
        {"reaping_sets": False},
        {"supervisor_may_die": True},
    ],
    ids=str,
)
def test_without_the_tick_any_of_these_strands_a_worker(changed):
    assert walk(*model(ticks=False, **changed)).flaw
