"""Law 11: one head of the log, and every session in one pool, whoever takes over.

Follows takeover.move_head, find and Farewell; worker.Worker._is_over and _packed_up;
succession.Succession; keeper.Keeper.adopt.  The first supervisor is dead when it
begins; each of the next may be killed between any two steps of its take-over, and then
another one is started.  How a worker's death in the middle of an append is settled is
in test_append_orders.py.
"""

from typing import NamedTuple

import pytest
from every_order import put, walk

READS_EMPTY = None  # a head that nobody has published


class Worker(NamedTuple):
    block: int
    sessions: tuple = ()  # (member, lines taken)
    packed: frozenset = frozenset()  # not served any more
    at: str = "loop"
    ready: bool = True
    asks: tuple = ()  # the session that it has sent, until it is answered
    inbox: tuple = ()


class State(NamedTuple):
    file: tuple
    said: tuple  # what was published
    heads: tuple  # by block
    moved_to: tuple
    lock: object
    workers: tuple
    supervisor: int  # its block
    at: str
    known: frozenset  # the members (inodes) that this supervisor has adopted
    answer: tuple  # (worker, taken) that it is about to give
    kills: int


# The defaults are the right way.  Each size bounds the walk; each other argument is a
# way to do it wrong, which a test at the end shows to be caught.
def model(
    kills=1, lines=(1, 1), old_workers=1,
    marks=True, copies_first=True, locks=True, opens_late=True, looks_at_inode=True,
    newest_first=True, adopts_first=True, honest=True, asks_who_was_named=True,
):  # fmt: skip
    members = range(len(lines))
    blocks = kills + 2
    old = [Worker(0) for _ in range(old_workers)]
    for m in members:
        w = old[m % old_workers]
        old[m % old_workers] = w._replace(sessions=(*w.sessions, (m, 0)))
    start = State(
        (), (), put((READS_EMPTY,) * blocks, 0, 0), (0,) * blocks, None, tuple(old),
        0, "dead", frozenset(), (), kills,
    )  # fmt: skip

    def steps(s):
        for me, w in enumerate(s.workers):
            if w.at != "gone":
                yield from work(s, me, w)
        yield from supervise(s)

    def changed(s, me, **changes):
        return s._replace(workers=put(s.workers, me, s.workers[me]._replace(**changes)))

    # --- a worker, old or new ---

    def work(s, me, w):
        who = f"w{me} of pool {w.block}"
        orphan = s.supervisor != w.block or s.at == "dead"
        if not w.ready:
            yield f"{who} is ready", changed(s, me, ready=True)
        if w.asks:
            if (
                s.supervisor == w.block
                or s.at in ("dead", "begin")
                or w.at != str(s.supervisor)
            ):
                # It has gone who was asked.
                yield f"{who}: no answer", changed(s, me, asks=(), at="loop")
            return
        if w.at == "loop":
            if w.inbox:
                taken = changed(
                    s, me, sessions=(*w.sessions, w.inbox[0]), inbox=w.inbox[1:]
                )
                yield f"{who} seats {w.inbox[0]}", taken
            for m, taken in w.sessions:
                there_is_input = taken < lines[m] and m not in w.packed
                knows = not s.moved_to[w.block] or not marks
                if there_is_input and knows and s.lock is None and has_head(s, w):
                    yield (
                        f"{who}: LOCK_EX",
                        changed(s._replace(lock=me), me, at=("locked", m, taken)),
                    )
            if orphan and s.moved_to[w.block]:
                yield from hand_over(s, me, w, who)
            elif orphan and never_had_a_log(s, w) and not w.sessions and not w.inbox:
                yield f"{who}: never had a log", changed(s, me, at="gone")
        elif w.at[0] == "locked":
            _, m, taken = w.at
            if s.moved_to[w.block] and marks:
                yield f"{who}: moved", changed(s._replace(lock=None), me, at="loop")
            else:
                file = (*s.file[: s.heads[w.block] or 0], (m, taken))
                yield (
                    f"{who}: cut, write",
                    changed(s._replace(file=file), me, at=("written", m, taken)),
                )
        elif w.at[0] == "written":
            _, m, taken = w.at
            head = (s.heads[w.block] or 0) + 1
            s2 = s._replace(
                heads=put(s.heads, w.block, head), said=(*s.said, (m, taken)), lock=None
            )
            sessions = tuple(
                (m, taken + 1) if x == (m, taken) else x for x in w.sessions
            )
            yield (
                f"{who}: publish, unlock",
                changed(s2, me, sessions=sessions, at="loop"),
            )

    def never_had_a_log(s, w):
        if asks_who_was_named:
            return w.block not in chain(s)
        return s.heads[w.block] is READS_EMPTY

    def has_head(s, w):
        return s.heads[w.block] is not READS_EMPTY

    def hand_over(s, me, w, who):
        if w.inbox:
            return
        if not w.sessions:
            yield f"{who} leaves", changed(s, me, at="gone")
        elif s.at not in ("dead", "begin"):
            m = w.sessions[0][0]
            yield (
                f"{who} hands over {m}",
                changed(
                    s,
                    me,
                    asks=w.sessions[0],
                    packed=w.packed | {m},
                    at=str(s.supervisor),
                ),
            )

    # --- the supervisors after the first ---

    def chain(s):
        """Blocks that had the log's head, the one that has it last."""
        blocks = [0]
        while s.moved_to[blocks[-1]]:
            blocks.append(s.moved_to[blocks[-1]])
        return blocks

    def supervise(s):
        me = s.supervisor
        if s.at == "dead":
            if me + 1 < blocks:
                workers = (*s.workers, Worker(me + 1, ready=False))
                yield (
                    f"supervisor {me + 1} starts",
                    s._replace(
                        supervisor=me + 1,
                        at="begin",
                        workers=workers,
                        known=frozenset(),
                        answer=(),
                    ),
                )
            return
        if s.kills:
            lock = None if s.lock == "supervisor" else s.lock
            yield (
                f"KILL supervisor {me} at {s.at}",
                s._replace(at="dead", kills=s.kills - 1, lock=lock, answer=()),
            )
        ours = [n for n, w in enumerate(s.workers) if w.block == me][0]
        if s.at == "begin":
            yield "control.sock is there", s._replace(at="boots")
        elif s.at == "boots":
            if s.workers[ours].ready and (s.lock is None or not locks):
                yield (
                    "supervisor: LOCK_EX",
                    s._replace(lock="supervisor" if locks else s.lock, at="copy"),
                )
        elif s.at in ("copy", "mark"):
            old = chain(s)[-1]
            new_heads = put(s.heads, me, s.heads[old] if old != me else 0)
            copied = s._replace(heads=new_heads)
            marked = s._replace(moved_to=put(s.moved_to, old, me))
            if s.at == "copy":
                s2 = copied if copies_first else marked
                yield (
                    "supervisor: copies the head" if copies_first else "marks",
                    s2._replace(at="mark"),
                )
            else:
                s2 = (
                    marked
                    if copies_first
                    else s._replace(
                        heads=put(s.heads, me, s.heads[s.moved_to.index(me)])
                    )
                )
                yield (
                    "supervisor: moved_to" if copies_first else "copies",
                    s2._replace(at="unlock"),
                )
        elif s.at == "unlock":
            yield (
                "supervisor: unlock",
                s._replace(lock=None if locks else s.lock, at="takes over"),
            )
        if s.answer:
            asker, taken = s.answer
            if s.workers[asker].asks:
                m = s.workers[asker].asks[0]
                left = tuple(x for x in s.workers[asker].sessions if x[0] != m)
                yield (
                    f"TAKEN {m}",
                    changed(
                        s._replace(answer=()), asker, asks=(), sessions=left, at="loop"
                    ),
                )
        elif s.at == "takes over" or not opens_late and s.at == "boots":
            for asker, w in enumerate(s.workers):
                if w.asks and w.at == str(me) and is_its_turn(s, w):
                    yield from adopt(s, asker, w, ours)

    def is_its_turn(s, w):
        old = [block for block in chain(s) if block != s.supervisor]
        waiting = [x.block for x in s.workers if x.at != "gone" and x.block in old]
        return not newest_first or w.block == max(waiting)

    def adopt(s, asker, w, ours):
        m = w.asks[0]
        if m in s.known and looks_at_inode:
            yield f"supervisor: {m} is known", s._replace(answer=(asker, True))
        elif s.workers[ours].ready:
            s2 = changed(s, ours, inbox=(*s.workers[ours].inbox, w.asks))
            s2 = s2._replace(known=s.known | {m})
            if adopts_first:
                yield f"supervisor: adopts {m}", s2._replace(answer=(asker, True))
            else:
                left = tuple(x for x in w.sessions if x[0] != m)
                told = changed(s, asker, asks=(), sessions=left, at="loop")
                yield f"TAKEN {m}, not adopted yet", told._replace(answer=())
        elif not honest:
            yield (
                f"supervisor: TAKEN {m}, though nobody is ready",
                s._replace(answer=(asker, True)),
            )

    # --- what must hold ---

    def wrong(s):
        if s.file[: len(s.said)] != s.said:
            return f"published {s.said}, but the file is {s.file}"
        if len(set(s.said)) < len(s.said):
            return f"a line twice: {s.said}"
        for m in members:
            serving = [
                n for n, w in enumerate(s.workers)
                for x, _ in (*w.sessions, *w.inbox) if x == m and m not in w.packed
            ]  # fmt: skip
            if len(serving) > 1:
                return f"member {m} is served by {serving}"
            if not any(x == m for w in s.workers for x, _ in (*w.sessions, *w.inbox)):
                return f"nobody has member {m}"

    def wrong_at_rest(s):
        want = {(m, line) for m in members for line in range(lines[m])}
        if set(s.said) != want:
            return f"the log has {s.said}"
        for w in s.workers:
            if w.block != s.supervisor and w.at != "gone":
                return f"left behind: {w}"

    return start, steps, wrong, wrong_at_rest


SIZES = [
    {"kills": 1, "lines": (1,)},
    {"kills": 1, "lines": (1, 1), "old_workers": 1},
    {"kills": 2, "lines": (1,)},
]
LONG = [
    {"kills": 1, "lines": (1, 1), "old_workers": 2},
    {"kills": 2, "lines": (1, 1), "old_workers": 1},
]
WRONG = [
    {"marks": False, "kills": 0},
    {"copies_first": False},
    {"locks": False, "kills": 0},
    {"opens_late": False, "newest_first": False, "honest": False},
    {"looks_at_inode": False},
    {"newest_first": False},
    {"adopts_first": False},
    {"asks_who_was_named": False},
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_head_and_every_session_once(size):
    assert walk(*model(**size)).flaw is None


@pytest.mark.soak
@pytest.mark.parametrize("size", LONG, ids=str)
def test_at_length_too(size):
    assert walk(*model(**size)).flaw is None


@pytest.mark.parametrize("changed", WRONG, ids=str)
def test_any_other_way_loses_the_log_or_a_member(changed):
    assert walk(*model(**changed)).flaw
