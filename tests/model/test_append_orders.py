"""Laws 2, 4 and 8: every line is in the log once, whole and in order, whatever dies.

Follows commit.Committer.commit and commit.settle store for store, and what
supervisor.Supervisor._bury does about a dead worker.  A record is two units, so a
write can be torn; a process may be killed between any two steps.  Not modelled:
lines_taken, which goes with input_taken; the members' output, which follows from
the head (test_head_orders.py) and the log below it, compared here in every state
with what was published.
"""

from typing import NamedTuple

import pytest
from every_order import put, walk

DEAD, SUPERVISOR = "dead", "supervisor"


class Worker(NamedTuple):
    at: str = "loop"
    batch: tuple = ()  # (session, input_taken it was parsed from, position behind it)
    i: int = 0


class Supervisor(NamedTuple):
    at: str = "watch"
    who: int = 0  # the dead worker
    unsettled: bool = False


class State(NamedTuple):
    file: tuple  # units (session, line, half)
    said: tuple  # what was published, in order: the promise that nobody may break
    seq: int  # of the head; its tail is 2 * seq
    holder: int
    lock: object  # who has LOCK_EX
    owner: tuple
    read: tuple  # by session: lines in its ring; the kernel knows it
    taken: tuple
    pending: tuple  # (pending_position, pending_seq + 1 or 0)
    workers: tuple
    supervisor: Supervisor
    kills: int
    full: int  # how often the disk refuses


# What the lock's holder does, in order; see commit.py's docstring.
RIGHT = (
    *("begin", "settle", "hold", "fresh", "mark"),
    *("write", "publish", "book", "let go", "unlock"),
)


# The defaults are the right way.  Each size bounds the walk; each other argument is a
# way to do it wrong, which a test at the end shows to be caught.
def model(
    sessions=(0, 1), lines=(1, 1), kills=2, full=0,
    order=RIGHT, settle=("cut", "slots"), asks_whether_alive=False, refusal_clears=True,
    trusts_its_own_number=False, parses_again=True,
):  # fmt: skip
    everybody = range(len(sessions))
    crew = max(sessions) + 1

    start = State(
        (), (), 0, 0, None, tuple(sessions), (0,) * len(lines), (0,) * len(lines),
        ((0, 0),) * len(lines), (Worker(),) * crew, Supervisor(), kills, full,
    )  # fmt: skip

    def steps(s):
        for me in range(crew):
            if s.workers[me].at not in (DEAD, "gone"):
                if s.kills:
                    dead = put(s.workers, me, Worker(DEAD))
                    lock = None if s.lock == me else s.lock
                    at = s.workers[me].at
                    yield (
                        f"KILL w{me} at {at}",
                        s._replace(workers=dead, lock=lock, kills=s.kills - 1),
                    )
                yield from work(s, me)
        yield from supervise(s)

    # --- a worker ---

    def work(s, me):
        w = s.workers[me]

        def then(at, s=s, batch=w.batch, i=0, **changes):
            return s._replace(
                workers=put(s.workers, me, Worker(at, batch, i)), **changes
            )

        def after(step, **changes):
            return then(order[order.index(step) + 1], **changes)

        if w.at == "loop":
            mine = [j for j in everybody if s.owner[j] == me]
            for j in mine:
                if s.read[j] < lines[j]:
                    yield (
                        f"w{me}: reads a line of {j}",
                        s._replace(read=put(s.read, j, s.read[j] + 1)),
                    )
            batch = tuple(
                (j, s.taken[j], s.read[j]) for j in mine if s.read[j] > s.taken[j]
            )
            if batch:
                yield f"w{me}: parses", then("lock", batch=batch)
        elif w.at == "lock":
            if s.lock is None:
                yield f"w{me}: LOCK_EX", then(order[0], lock=me)
        elif w.at == "begin":
            look = bool(s.holder)
            if asks_whether_alive and look:
                look = s.workers[s.holder - 1].at in (DEAD, "gone")
            if trusts_its_own_number:
                look = look and s.holder != me + 1
            if look:
                yield f"w{me}: holder is {s.holder}", after("begin")
            else:
                skip = "hold" if "hold" in order else order[order.index("settle") + 1]
                yield f"w{me}: nobody held; cut", then(skip, file=s.file[: 2 * s.seq])
        elif w.at == "settle":
            if w.i < len(settle):
                label, s2 = settle_step(s, settle[w.i])
                yield (
                    f"w{me}: {label or 'settled'}",
                    then("settle", s2, i=w.i + (not label)),
                )
            else:
                yield f"w{me}: settled", after("settle")
        elif w.at == "hold":
            yield f"w{me}: holder = {me + 1}", after("hold", holder=me + 1)
        elif w.at == "fresh":
            batch = tuple(
                (j, s.taken[j], s.read[j])
                if parses_again and s.taken[j] != taken
                else (j, taken, to)
                for j, taken, to in w.batch
            )
            yield f"w{me}: what is left", after("fresh", batch=batch)
        elif w.at == "mark":
            j, taken, to = w.batch[w.i // 2]
            position, seq = s.pending[j]
            new = s.seq + sum(to - taken for _, taken, to in w.batch)
            pair = (to, seq) if w.i % 2 == 0 else (position, new + 1)
            s2 = s._replace(pending=put(s.pending, j, pair))
            last = w.i + 1 == 2 * len(w.batch)
            label = f"w{me}: pending {pair} of {j}"
            yield label, after("mark", s=s2) if last else then("mark", s2, i=w.i + 1)
        elif w.at == "write":
            units = encoded(w.batch)
            if w.i == len(units):
                yield f"w{me}: written", after("write")
            else:
                yield (
                    f"w{me}: write {units[w.i]}",
                    then("write", i=w.i + 1, file=(*s.file, units[w.i])),
                )
                if s.full:
                    yield f"w{me}: no space", then("refused", full=s.full - 1)
        elif w.at == "refused":  # cut back; no pending; no holder; unlock
            if w.i == 0:
                yield f"w{me}: cut back", then("refused", i=1, file=s.file[: 2 * s.seq])
            elif refusal_clears and w.i <= len(w.batch):
                j = w.batch[w.i - 1][0]
                pending = put(s.pending, j, (s.pending[j][0], 0))
                yield (
                    f"w{me}: none pending of {j}",
                    then("refused", i=w.i + 1, pending=pending),
                )
            else:
                yield f"w{me}: holder = 0", then("unlock", holder=0)
        elif w.at == "publish":
            units = encoded(w.batch)
            yield (
                f"w{me}: publish",
                after("publish", seq=s.seq + len(units) // 2, said=(*s.said, *units)),
            )
        elif w.at == "book":
            j, _, to = w.batch[w.i // 2]
            if w.i % 2 == 0:
                s2 = s._replace(taken=put(s.taken, j, to))
            else:
                s2 = s._replace(pending=put(s.pending, j, (s.pending[j][0], 0)))
            last = w.i + 1 == 2 * len(w.batch)
            yield (
                f"w{me}: book {w.i}",
                after("book", s=s2) if last else then("book", s2, i=w.i + 1),
            )
        elif w.at == "let go":
            yield f"w{me}: holder = 0", after("let go", holder=0)
        elif w.at == "unlock":
            at = order[order.index("unlock") + 1] if order[-1] != "unlock" else "loop"
            batch = () if at == "loop" else w.batch
            yield f"w{me}: unlock", then(at, batch=batch, lock=None)
        elif w.at == "loop again":
            yield f"w{me}: again", then("loop", batch=())

    def encoded(batch):
        return [
            (j, line, half)
            for j, taken, to in batch
            for line in range(taken, to)
            for half in (0, 1)
        ]

    def settle_step(s, what):
        """One store of commit.settle: (what it did, the state then); or (None, s)."""
        if what == "cut":
            if len(s.file) > 2 * s.seq:
                return "cut", s._replace(file=s.file[: 2 * s.seq])
            return None, s
        for j in everybody:
            position, seq = s.pending[j]
            if seq:
                if seq - 1 <= s.seq and s.taken[j] != position:
                    return f"taken of {j} = {position}", s._replace(
                        taken=put(s.taken, j, position)
                    )
                return f"none pending of {j}", s._replace(
                    pending=put(s.pending, j, (position, 0))
                )
        return None, s

    # --- the supervisor ---

    def supervise(s):
        sup = s.supervisor

        def then(at, s=s, **changes):
            return s._replace(supervisor=sup._replace(at=at, **changes))

        if sup.at == "watch":
            for w in range(crew):
                if s.workers[w].at == DEAD:
                    gone = s._replace(workers=put(s.workers, w, Worker("gone")))
                    if s.lock is None:
                        yield (
                            f"reap w{w}, LOCK_EX",
                            then("settle", gone._replace(lock=SUPERVISOR), who=w),
                        )
                    else:
                        yield (
                            f"reap w{w}, locked",
                            then("deal", gone, who=w, unsettled=True),
                        )
            if sup.unsettled and s.lock is None:
                locked = s._replace(lock=SUPERVISOR)
                yield "supervisor: LOCK_EX, later", then("settle", locked, who=-1)
        elif sup.at == "settle":
            if not s.holder:
                yield "supervisor: nobody held", then("unlock")
            else:
                yield f"supervisor: holder is {s.holder}", then("slots")
        elif sup.at == "slots":
            for what in settle:
                label, s2 = settle_step(s, what)
                if label:
                    yield f"supervisor: {label}", then("slots", s2)
                    break
            else:
                yield "supervisor: holder = 0", then("unlock", s._replace(holder=0))
        elif sup.at == "unlock":
            s2 = s._replace(lock=None)
            yield (
                "supervisor: unlock",
                then("deal" if sup.who >= 0 else "watch", s2, unsettled=False),
            )
        elif sup.at == "deal":
            # To its successor, or to the living: both are tried.
            fresh = s._replace(workers=put(s.workers, sup.who, Worker()))
            yield f"respawn w{sup.who} with its sessions", then("watch", fresh)
            for w in range(crew):
                if s.workers[w].at not in (DEAD, "gone"):
                    dealt = tuple(w if o == sup.who else o for o in s.owner)
                    yield f"deal to w{w}", then("watch", fresh._replace(owner=dealt))

    # --- what must hold ---

    def wrong(s):
        if s.file[: len(s.said)] != s.said or len(s.said) != 2 * s.seq:
            return f"published {s.said}, but the file is {s.file}"
        records = s.said[::2]
        if len(set(records)) < len(records):
            return f"a line twice in the log: {records}"
        for j in everybody:
            mine = [line for session, line, _ in records if session == j]
            if mine != list(range(len(mine))):
                return f"lines of {j}: {mine}"
            if s.taken[j] > len(mine):
                return f"lost: {s.taken[j]} lines of {j} taken, {len(mine)} in the log"

    def wrong_at_rest(s):
        for j in everybody:
            got = sum(1 for session, _, half in s.said if session == j and not half)
            if got != lines[j]:
                return f"{got} of {lines[j]} lines of {j} are in the log"
        if any(seq for _, seq in s.pending) or s.holder:
            return f"left pending: {s.pending}, holder {s.holder}"

    return start, steps, wrong, wrong_at_rest


def without(step):
    return tuple(s for s in RIGHT if s != step)


def moved(step, behind):
    steps = list(without(step))
    steps.insert(steps.index(behind) + 1, step)
    return tuple(steps)


SIZES = [
    {"sessions": (0, 1), "lines": (1, 1), "kills": 2},
    {"sessions": (0, 1), "lines": (2, 1), "kills": 1},
    {"sessions": (0, 0), "lines": (1, 1), "kills": 3},
    {"sessions": (0, 0, 1), "lines": (1, 1, 1), "kills": 1},
    {"sessions": (0, 1), "lines": (1, 1), "kills": 1, "full": 1},
]
LONG = [
    {"sessions": (0, 1), "lines": (2, 2), "kills": 3},
    {"sessions": (0, 0, 1), "lines": (1, 1, 1), "kills": 3},
    {"sessions": (0, 1), "lines": (1, 1), "kills": 3, "full": 2},
    {"sessions": (0, 1, 2), "lines": (1, 1, 1), "kills": 2},
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_line_comes_into_the_log_once(size):
    assert walk(*model(**size)).flaw is None


@pytest.mark.soak
@pytest.mark.parametrize("size", LONG, ids=str)
def test_at_length_too(size):
    assert walk(*model(**size)).flaw is None


@pytest.mark.parametrize(
    "changed",
    [
        {"order": without("hold")},
        {"trusts_its_own_number": True},
        {"order": moved("publish", behind="mark")},
        {"order": moved("publish", behind="unlock") + ("loop again",)},
        {"order": moved("let go", behind="publish")},
        {"order": moved("mark", behind="publish")},
        {"settle": ("slots",)},
        {"settle": ("cut",)},
        {"asks_whether_alive": True},
        {"parses_again": False},
        {"refusal_clears": False, "full": 1},
    ],
    ids=str,
)
def test_any_other_order_loses_doubles_or_tears_one(changed):
    assert walk(*model(**changed)).flaw
