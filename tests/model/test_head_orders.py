"""Law 4's head: a reader sees what one publication said, or the one before it.

Follows scoreboard.Scoreboard.publish and head.  (The session's and the worker's
checkpoint are published in the same way: scoreboard._publish_pair.)  A publisher
may be killed between any two stores; the next holder begins its publication anew.
"""

from typing import NamedTuple

import pytest
from every_order import put, walk

PUBLICATIONS = 4


class State(NamedTuple):
    n: int = 0
    triples: tuple = ((0, 0), (0, 0))  # (seq, tail): publication k says (k, k)
    to_do: tuple = ()  # the publisher's stores still to come, in order
    reader: tuple = ("n", 0, 0, 0)
    kills: int = 2


FILL_THEN_N = ("seq", "tail", "n")


def model(stores=FILL_THEN_N, triples=2, looks_again=True):
    def steps(s):
        yield from publish(s)
        yield from read(s)

    def publish(s):
        if not s.to_do:
            if s.n < PUBLICATIONS:
                yield "begin", s._replace(to_do=stores)
            return
        if s.kills:
            yield "KILL", s._replace(to_do=(), kills=s.kills - 1)
        store, *rest = s.to_do
        s = s._replace(to_do=tuple(rest))
        # Stored by who began when n was one less than what it is to become.
        new = s.n if "n" not in (store, *rest) else s.n + 1
        seq, tail = s.triples[new % triples]
        if store == "n":
            yield "store n", s._replace(n=new)
        else:
            said = (new, tail) if store == "seq" else (seq, new)
            yield (
                f"store {store}",
                s._replace(triples=put(s.triples, new % triples, said)),
            )

    def read(s):
        at, n, seq, tail = s.reader
        if at == "n":
            yield "look at n", s._replace(reader=("seq", s.n, 0, 0))
        elif at == "seq":
            seq = s.triples[n % triples][0]
            yield "look at seq", s._replace(reader=("tail", n, seq, 0))
        elif at == "tail":
            tail = s.triples[n % triples][1]
            then = "again" if looks_again else "done"
            yield "look at tail", s._replace(reader=(then, n, seq, tail))
        elif at == "again":
            agreed = s.n == n
            reader = ("done", n, seq, tail) if agreed else ("n", 0, 0, 0)
            yield "look at n again", s._replace(reader=reader)

    def wrong(s):
        at, n, seq, tail = s.reader
        if at == "done" and not seq == tail == n:
            return f"read seq {seq}, tail {tail} as publication {n}"

    return State(), steps, wrong, lambda s: None


def test_two_triples_are_read_whole_whatever_dies():
    assert walk(*model()).flaw is None


@pytest.mark.parametrize(
    "changed",
    [
        {"triples": 1},
        {"stores": ("n", "seq", "tail")},
        {"looks_again": False},
    ],
    ids=str,
)
def test_any_other_way_reads_a_mixture(changed):
    assert walk(*model(**changed)).flaw
