"""Law 7: a classic member goes on at the exact byte, whoever was killed at which store.

Follows delivery.Delivery (deliver, _fall_behind, _step_in, leave, pump, _pass),
scoreboard.SessionSlot (set_check, step_in, step_out), session.seat and keeper.bury.
A line is one line of the log and two units of its rendering; `written` is what the
kernel has taken, and all that a successor has to begin with besides the scoreboard.
"""

from typing import NamedTuple

import pytest
from every_order import put, walk

UNITS = 2  # of a rendered line
WORKER = -1


class Member(NamedTuple):
    begin: int  # the line from which on it is sent the log
    written: int = 0
    in_step: bool = False
    offset: int = 0  # while behind, in lines
    skip: int = 0  # units of the line at `offset` that it has already
    # in its slot:
    flag: int = 0
    delta: int = 0


class State(NamedTuple):
    head: int  # lines published
    position: int
    rendered: int  # _rendered_bytes
    members: tuple
    checks: tuple  # by member, and the worker's last: (n, pair 0, pair 1)
    task: tuple  # the steps that the worker (or bury) is in the middle of
    alive: bool
    appends: int
    leaves: int
    kills: int


# The defaults are the right way.  Each size bounds the walk; each other argument is a
# way to do it wrong, which a test at the end shows to be caught.
def model(
    begins=(0, 1), head=1, appends=1, leaves=1, kills=1, pairs=True,
    own_check_first=True, delta_first=True, sends_first=True,
    worker_check_at_step_in=True, buries=True,
):  # fmt: skip
    start = State(
        head, head, 0,
        tuple(Member(b, offset=b) for b in begins),
        (*((0, (b, 0), (b, 0)) for b in begins), (0, (0, 0), (0, 0))),
        (), True, appends, leaves, kills,
    )  # fmt: skip
    everybody = range(len(begins))

    def check(s, who):
        n, *both = s.checks[who]
        return both[n % 2]

    def member(s, m, **changes):
        return s._replace(members=put(s.members, m, s.members[m]._replace(**changes)))

    # Stores, each of which may be the last.

    def publish_pair(who, first, second):
        if not pairs:
            return [("store", who, 0, first), ("store", who, 1, second)]
        return [("spare", who, 0, first), ("spare", who, 1, second), ("flip", who)]

    def set_check(m, offset, written):
        return [*publish_pair(m, offset, written), ("flag", m, 0)]

    def step_in(s, m):
        books = check(s, m)[1]  # Delivery.written, of one behind with nothing to skip
        delta = books - s.rendered
        own = (
            publish_pair(WORKER, s.position, s.rendered)
            if worker_check_at_step_in
            else []
        )
        share = [("delta", m, delta), ("flag", m, 1)]
        share = share if delta_first else share[::-1]
        return (own + share if own_check_first else share + own) + [("in step", m)]

    def steps(s):
        if s.task:
            yield from go_on(s)
        elif s.alive:
            yield from loop(s)
        if s.alive and s.kills:
            bury = []
            for m in everybody:
                if s.members[m].flag and buries:
                    position, rendered = check(s, WORKER)
                    bury += set_check(m, position, rendered + s.members[m].delta)
            task = (*bury, ("successor",))
            left = tuple(x._replace(in_step=False) for x in s.members)
            s2 = s._replace(alive=False, kills=s.kills - 1, task=task, members=left)
            yield "KILL", s2

    def loop(s):
        if s.appends:
            yield "publish", s._replace(head=s.head + 1, appends=s.appends - 1)
        if s.position < s.head:
            writes = [
                ("write", m, s.position) for m in everybody if s.members[m].in_step
            ]
            task = [*writes, ("rendered",)] if sends_first else [("rendered",), *writes]
            task = task if writes else []
            yield "deliver", s._replace(position=s.position + 1, task=tuple(task))
        for m in everybody:
            x = s.members[m]
            if x.in_step:
                if s.leaves:
                    task = [
                        *set_check(m, s.position, s.rendered + x.delta),
                        ("behind", m, s.position, 0),
                    ]
                    yield (
                        f"{m} leaves the step",
                        s._replace(task=tuple(task), leaves=s.leaves - 1),
                    )
            elif not x.skip and x.offset == s.position:
                yield f"{m} steps in", s._replace(task=tuple(step_in(s, m)))
            elif x.offset < s.position:
                yield from pump(s, m, x)

    def pump(s, m, x):
        for sent in range(1, UNITS - x.skip + 1):
            s2 = member(s, m, written=x.written + sent, skip=x.skip + sent)
            task = (("pass", m),) if x.skip + sent == UNITS else ()
            yield f"{m} is sent {sent}", s2._replace(task=task)
        if x.skip >= UNITS:
            yield f"{m} has that line", s._replace(task=(("pass", m),))

    def go_on(s):
        op, *rest = s.task
        s = s._replace(task=tuple(rest))
        name, *words = op
        if name in ("store", "spare"):
            who, half, value = words
            n, *both = s.checks[who]
            which = (n + (name == "spare")) % 2
            both[which] = put(both[which], half, value)
            yield f"{op}", s._replace(checks=replaced(s.checks, who, (n, *both)))
        elif name == "flip":
            n, *both = s.checks[words[0]]
            yield (
                f"{op}",
                s._replace(checks=replaced(s.checks, words[0], (n + 1 & 3, *both))),
            )
        elif name == "flag":
            yield f"{op}", member(s, words[0], flag=words[1])
        elif name == "delta":
            yield f"{op}", member(s, words[0], delta=words[1])
        elif name == "in step":
            yield f"{op}", member(s, words[0], in_step=True)
        elif name == "behind":
            m, offset, skip = words
            yield f"{op}", member(s, m, in_step=False, offset=offset, skip=skip)
        elif name == "write":
            m, begin = words
            for sent in range(UNITS + 1):
                s2 = member(s, m, written=s.members[m].written + sent)
                if sent < UNITS:
                    last = [op for op in s2.task if op[0] == "rendered"]
                    others = [op for op in s2.task if op[0] != "rendered"]
                    s2 = s2._replace(task=(*others, ("fall", m, begin, sent), *last))
                yield f"write {sent} to {m}", s2
        elif name == "fall":
            m, begin, sent = words
            grown = s.rendered - (0 if sends_first else UNITS)
            task = [
                *set_check(m, begin, grown + s.members[m].delta),
                ("behind", m, begin, sent),
            ]
            yield f"{m} falls behind", s._replace(task=(*task, *rest))
        elif name == "rendered":
            new = s.rendered + UNITS
            task = publish_pair(WORKER, s.position, new)
            yield "rendered", s._replace(rendered=new, task=(*task, *rest))
        elif name == "pass":
            m = words[0]
            x = s.members[m]
            s2 = member(s, m, offset=x.offset + 1, skip=x.skip - UNITS)
            task = set_check(m, x.offset + 1, check(s, m)[1] + UNITS)
            yield f"{m} passes a line", s2._replace(task=(*task, *rest))
        elif name == "successor":
            members = []
            for m, x in enumerate(s.members):
                offset, written = check(s, m)
                members.append(x._replace(offset=offset, skip=x.written - written))
            yield (
                "successor",
                s._replace(
                    members=tuple(members), alive=True, position=s.head, rendered=0
                ),
            )

    def replaced(checks, who, value):
        return put(checks, len(checks) - 1 if who == WORKER else who, value)

    def wrong(s):
        if s.task and s.task[0] != ("successor",):
            return None
        for m, x in enumerate(s.members):
            offset, written = check(s, m)
            if x.flag and not s.task:
                position, rendered = check(s, WORKER)
                offset, written = position, rendered + x.delta
            if written != (offset - x.begin) * UNITS or written > x.written:
                return (
                    f"{m} has {x.written}, and goes on from {offset} as if at {written}"
                )

    return start, steps, wrong, lambda s: None


SIZES = [{}, {"begins": (0,), "kills": 2, "leaves": 1}]
LONG = [
    {"kills": 2, "leaves": 0},
    {"begins": (0,), "appends": 2, "kills": 2, "leaves": 2},
    {"kills": 2, "appends": 2},
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_successor_goes_on_at_the_exact_byte(size):
    assert walk(*model(**size)).flaw is None


@pytest.mark.soak
@pytest.mark.parametrize("size", LONG, ids=str)
def test_at_length_too(size):
    assert walk(*model(**size)).flaw is None


WRONG = [
    {"pairs": False},
    {"own_check_first": False},
    {"worker_check_at_step_in": False},
    {"delta_first": False},
    {"sends_first": False},
    {"buries": False},
]


@pytest.mark.parametrize("changed", WRONG, ids=str)
def test_any_other_order_sends_a_byte_twice_or_never(changed):
    assert walk(*model(**changed)).flaw
