"""Walk through every order of steps that some processes can take.

A model is a start state and four functions.  A state is any hashable value, a step
a label and the state behind it.  What is right in every state is asked by `wrong`;
what is right once nobody can take a step any more, by `wrong_at_rest`.  The walk is
breadth first, so the first flaw comes with a shortest way to it.

What readers get wrong: a model proves the protocol, not the code.  Each model says
which functions it follows, step for step: who changes their order changes it there.
"""

from collections import deque
from typing import NamedTuple


class Flaw(NamedTuple):
    what: str
    way: list[str]  # the labels of the steps that lead there

    def __str__(self):
        return f"{self.what}: " + "; ".join(self.way)


class Walk(NamedTuple):
    flaw: Flaw | None
    states: int
    at_rest: int  # states in which nobody could take a step


def walk(start, steps, wrong, wrong_at_rest, limit=5_000_000):
    """Every state that can be reached, until one of them is wrong."""
    came_from = {start: None}
    ahead = deque([start])
    at_rest = 0
    while ahead:
        state = ahead.popleft()
        complaint = wrong(state)
        if not complaint:
            there_is_more = False
            for label, after in steps(state):
                there_is_more = True
                if after not in came_from:
                    came_from[after] = state, label
                    ahead.append(after)
            if not there_is_more:
                at_rest += 1
                complaint = wrong_at_rest(state)
        if complaint:
            return Walk(
                Flaw(complaint, _way(came_from, state)), len(came_from), at_rest
            )
        assert len(came_from) < limit, (
            f"more than {limit} states: make the model smaller"
        )
    return Walk(None, len(came_from), at_rest)


def _way(came_from, state):
    labels = []
    while came_from[state]:
        state, label = came_from[state]
        labels.append(label)
    return labels[::-1]


def put(values, place, value):
    """`values`, a tuple, with one of them changed."""
    return (*values[:place], value, *values[place + 1 :])
