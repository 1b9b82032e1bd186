"""Laws 6 and 10: whoever dies, each member is served by exactly one process.

Follows acceptor.Acceptor._admit, _seat and _give_back; worker.Worker.take_seat, _give
and _close; keeper.Keeper (keep, closed, free, deal_to, deal, look, hand_off) and
crew.Crew.reap.  One slot is used by two members, one after the other,
so that what is stale can meet what is new.  Not modelled: the dups that a giver and
the acceptor keep until they see `seated`, which only matter without a supervisor.
"""

from typing import NamedTuple

import pytest
from every_order import put, walk

FREE, CLAIMED, LIVE, CLOSING = "free claimed live closing".split()
WORKERS = 2
INBOX = 2  # messages; more is FULL


class Slot(NamedTuple):
    state: str = FREE
    generation: int = 0
    owner: int = 0
    seated: int = 0


class Acceptor(NamedTuple):
    at: str = "loop"
    claimed: tuple = ()  # (generation, member) that waits for KEPT
    worker: int = 0


class Worker(NamedTuple):
    life: str = "lives"  # dead: not reaped yet; gone: reaped, not replaced yet
    incarnation: int = 0
    serves: tuple = ()  # (generation, member), what it polls
    task: tuple = ()  # in the middle of something


class State(NamedTuple):
    slot: Slot
    acceptor: Acceptor
    reports: tuple  # to the supervisor, by worker; the acceptor's last
    kept: tuple  # KEPT messages on their way to the acceptor
    inboxes: tuple
    workers: tuple
    keeper: tuple  # (generation, member) of the dup, or ()
    members: tuple  # away, waiting, logging in, in, left, turned away
    supervisor: tuple
    incarnations: int
    kills: int
    gives: int
    copies: int  # how often look() may send what is on its way already
    overdue: int  # how often a login may take too long


# The defaults are the right way.  Each size bounds the walk; each other argument is a
# way to do it wrong, which a test at the end shows to be caught.
def model(
    kills=1, gives=1, copies=1, overdue=0, members=2,
    giver_stores_owner=True, seated_first=True, kept_generation=True,
    handoff_generation=True, looks=True, worker_frees=False, dup_first=True,
    giver_takes_back=False,
):  # fmt: skip
    start = State(
        Slot(), Acceptor(), ((),) * (WORKERS + 1), (), ((),) * WORKERS,
        tuple(Worker(incarnation=n + 1) for n in range(WORKERS)), (),
        ("away",) * members, ("loop",), WORKERS, kills, gives, copies, overdue,
    )  # fmt: skip

    def steps(s):
        for m in range(members):
            # One after the other: the place is the same one.
            done = all(other in ("left", "turned away") for other in s.members[:m])
            if s.members[m] == "away" and done:
                yield (
                    f"member {m} connects",
                    s._replace(members=put(s.members, m, "waiting")),
                )
        if s.acceptor.at != "dead":
            yield from accept(s)
        for me in range(WORKERS):
            if s.workers[me].life == "lives":
                yield from work(s, me)
        yield from supervise(s)

    def report(s, who, *what):
        return s._replace(reports=put(s.reports, who, (*s.reports[who], what)))

    def sent(s, worker, what):
        """The state after a handoff to a worker's inbox; None if it is full."""
        inbox = s.inboxes[worker]
        if len(inbox) >= INBOX:
            return None
        return s._replace(inboxes=put(s.inboxes, worker, (*inbox, what)))

    # --- the acceptor ---

    def accept(s):
        a, slot = s.acceptor, s.slot

        def then(at, s=s, **changes):
            return s._replace(acceptor=a._replace(at=at, **changes))

        if s.kills:
            yield (
                f"KILL acceptor at {a.at}",
                s._replace(acceptor=Acceptor("dead"), kills=s.kills - 1),
            )
        if a.at == "loop":
            for m in range(members):
                if s.members[m] == "waiting" and slot.state == FREE and not a.claimed:
                    g = slot.generation + 1
                    s2 = s._replace(
                        slot=Slot(CLAIMED, g), members=put(s.members, m, "logging in")
                    )
                    yield (
                        f"acceptor: claims as gen {g}",
                        then("keep", s2, claimed=(g, m)),
                    )
            if s.kept:
                g, rest = s.kept[0], s._replace(kept=s.kept[1:])
                if a.claimed and (not kept_generation or a.claimed[0] == g):
                    for w in range(WORKERS):
                        yield (
                            f"acceptor: KEPT gen {g}, for w{w}",
                            then("owner", rest, worker=w),
                        )
                else:
                    yield f"acceptor: stale KEPT gen {g}", then("loop", rest)
            if a.claimed and s.overdue:
                g, m = a.claimed
                s2 = s._replace(
                    slot=slot._replace(state=CLOSING), overdue=s.overdue - 1,
                    members=put(s.members, m, "turned away"),
                )  # fmt: skip
                s2 = report(s2, WORKERS, "closed", g)
                yield (
                    f"acceptor: gen {g} overdue, given back",
                    then("loop", s2, claimed=()),
                )
        elif a.at == "keep":
            yield "acceptor: KEEP", then("loop", report(s, WORKERS, "keep", *a.claimed))
        elif a.at == "owner":
            inc = s.workers[a.worker].incarnation
            yield (
                f"acceptor: owner = {inc}",
                then("live", s._replace(slot=slot._replace(owner=inc))),
            )
        elif a.at == "live":
            s2 = s._replace(
                slot=slot._replace(state=LIVE),
                members=put(s.members, a.claimed[1], "in"),
            )
            yield "acceptor: live", then("send", s2)
        elif a.at == "send":
            s2 = sent(s, a.worker, a.claimed) or report(
                s, WORKERS, "unsent", a.claimed[0]
            )
            yield f"acceptor: HANDOFF to w{a.worker}", then("loop", s2, claimed=())

    # --- a worker ---

    def work(s, me):
        w, slot = s.workers[me], s.slot

        def then(s=s, **changes):
            return s._replace(workers=put(s.workers, me, w._replace(**changes)))

        if s.kills:
            dead = put(s.workers, me, Worker("dead", w.incarnation))
            yield f"KILL w{me}", s._replace(workers=dead, kills=s.kills - 1)
        if w.task:
            yield from go_on(s, me, w, slot, then)
            return
        if s.inboxes[me]:
            what = s.inboxes[me][0]
            rest = s._replace(inboxes=put(s.inboxes, me, s.inboxes[me][1:]))
            ours = slot.owner == w.incarnation or not giver_stores_owner
            known = not handoff_generation or slot.generation == what[0]
            if slot.state == LIVE and known and ours and slot.seated != w.incarnation:
                yield f"w{me}: takes gen {what[0]}", then(rest, task=("seat", what))
            else:
                yield f"w{me}: ignores gen {what[0]}", then(rest)
        for what in w.serves:
            left = tuple(x for x in w.serves if x is not what)
            s2 = s._replace(
                slot=slot._replace(state=FREE if worker_frees else CLOSING),
                members=put(s.members, what[1], "left"),
            )
            yield (
                f"member {what[1]} leaves, w{me}: closing",
                then(s2, serves=left, task=("closed", what)),
            )
            if s.gives:
                peer = 1 - me
                inc = s.workers[peer].incarnation
                s2 = s._replace(gives=s.gives - 1)
                yield (
                    f"w{me}: stops, to give to {inc}",
                    then(s2, serves=left, task=("give", what, peer, inc)),
                )

    def go_on(s, me, w, slot, then):
        task, what, *more = w.task
        if task == "seat":
            new = slot._replace(seated=w.incarnation)
            if not giver_stores_owner:
                new = new._replace(owner=w.incarnation)
            s2 = s._replace(slot=new)
            yield f"w{me}: seated", then(s2, serves=(*w.serves, what), task=())
        elif task == "closed":
            yield f"w{me}: CLOSED", then(report(s, me, "closed", what[0]), task=())
        elif task == "give":
            peer, inc = more
            new = slot._replace(owner=inc) if giver_stores_owner else slot
            yield (
                f"w{me}: owner = {inc}",
                then(s._replace(slot=new), task=("send", what, peer)),
            )
        elif task == "send":
            peer = more[0]
            s2 = sent(s, peer, what)
            if s2:
                yield f"w{me}: HANDOFF to w{peer}", then(s2, task=())
            if giver_takes_back and s.workers[peer].life != "lives":
                if slot.owner == s.workers[peer].incarnation:
                    yield f"w{me}: takes it back", then(task=("back", what))
            elif not s2:
                yield f"w{me}: UNSENT", then(report(s, me, "unsent", what[0]), task=())
        elif task == "back":
            new = slot._replace(owner=w.incarnation, seated=w.incarnation)
            yield (
                f"w{me}: owner = {w.incarnation} again",
                then(s._replace(slot=new), serves=(*w.serves, what), task=()),
            )

    # --- the supervisor ---

    def supervise(s):
        at, *more = s.supervisor
        slot = s.slot
        living = {w.incarnation for w in s.workers if w.life in ("lives", "dead")}
        orphan = slot.state == LIVE and bool(s.keeper) and slot.owner not in living

        def then(s=s, *at):
            return s._replace(supervisor=at or ("loop",))

        if at == "free":  # close the dup, then free the slot
            if (s.keeper or not more) and dup_first:
                yield (
                    "supervisor: closes the dup",
                    then(s._replace(keeper=()), "free 2"),
                )
            else:
                yield (
                    "supervisor: frees",
                    then(s._replace(slot=slot._replace(state=FREE)), "free 3"),
                )
        elif at == "free 2":
            yield "supervisor: frees", then(s._replace(slot=slot._replace(state=FREE)))
        elif at == "free 3":
            yield "supervisor: closes the dup", then(s._replace(keeper=()))
        elif at == "deal":
            who = more[0]
            if orphan:
                yield (
                    "supervisor: to the successor",
                    then(
                        s._replace(
                            slot=slot._replace(owner=s.incarnations + 1, seated=0)
                        ),
                        "spawn",
                        who,
                        s.keeper,
                    ),
                )
                for w in range(WORKERS):
                    if s.workers[w].life != "gone":
                        yield f"supervisor: deals to w{w}", then(s, "give 1", w, who)
            else:
                yield "supervisor: nothing to deal", then(s, "spawn", who, ())
        elif at == "spawn":
            who, seat = more
            inc = s.incarnations + 1
            task = ("seat", seat) if seat else ()
            workers = put(s.workers, who, Worker("lives", inc, (), task))
            yield (
                f"supervisor: w{who} is {inc}",
                then(s._replace(workers=workers, incarnations=inc)),
            )
        elif at in ("give 1", "give 2"):
            w, who = more
            inc = s.workers[w].incarnation
            first = (at == "give 1") == seated_first
            change = {"seated": 0} if first else {"owner": inc}
            done = then(
                s._replace(slot=slot._replace(**change)),
                "give 2" if at == "give 1" else "give 3",
                w,
                who,
            )
            yield f"supervisor: {change}", done
        elif at == "give 3":
            w, who = more
            s2 = sent(s, w, s.keeper) or s
            yield (
                f"supervisor: HANDOFF to w{w}",
                then(s2, *(("spawn", who, ()) if who >= 0 else ("loop",))),
            )
        else:
            yield from watch(s, slot, orphan, then)

    def watch(s, slot, orphan, then):
        for who in range(WORKERS + 1):
            if s.reports[who]:
                yield from heed(s, who, slot, then)
        if s.acceptor.at == "dead" and not s.reports[-1]:
            fresh = s._replace(acceptor=Acceptor(), kept=())
            turned = tuple("turned away" if m == "logging in" else m for m in s.members)
            if slot.state == CLAIMED:
                fresh = fresh._replace(members=turned)
                yield (
                    "supervisor: acceptor dead, frees what it claimed",
                    then(fresh, "free", slot.generation),
                )
            else:
                yield "supervisor: new acceptor", then(fresh._replace(members=turned))
        for w in range(WORKERS):
            if s.workers[w].life == "dead" and not s.reports[w]:
                gone = put(s.workers, w, s.workers[w]._replace(life="gone"))
                yield (
                    f"supervisor: reaps w{w}",
                    then(s._replace(workers=gone), "deal", w),
                )
        if not looks:
            return
        if slot.state == CLOSING and s.keeper:
            yield "supervisor: looks, frees", then(s, "free", slot.generation)
        if orphan:
            for w in range(WORKERS):
                if s.workers[w].life == "lives":
                    yield f"supervisor: looks, deals to w{w}", then(s, "give 1", w, -1)
        elif slot.state == LIVE and slot.seated != slot.owner and s.keeper:
            yield from send_again(s, then)

    def send_again(s, then):
        for w in range(WORKERS):
            if s.workers[w].incarnation == s.slot.owner:
                on_its_way = s.keeper in s.inboxes[w]
                s2 = sent(s, w, s.keeper)
                if s2 and (not on_its_way or s.copies):
                    s2 = s2._replace(copies=s.copies - on_its_way)
                    yield f"supervisor: sends again to w{w}", then(s2)

    def heed(s, who, slot, then):
        (kind, *words), *rest = s.reports[who]
        s = s._replace(reports=put(s.reports, who, tuple(rest)))
        g = words[0]
        current = slot.generation == g
        if kind == "keep":
            if current and slot.state == CLAIMED:
                s2 = s._replace(keeper=tuple(words))
                if s.acceptor.at != "dead":
                    s2 = s2._replace(kept=(*s.kept, g))
                yield f"supervisor: keeps gen {g}", then(s2)
            else:
                yield f"supervisor: discards the dup of gen {g}", then(s)
        elif kind == "closed":
            if (
                current
                and slot.state == CLOSING
                or worker_frees
                and s.keeper
                and s.keeper[0] == g
            ):
                yield f"supervisor: CLOSED gen {g}", then(s, "free", g)
            else:
                yield f"supervisor: stale CLOSED gen {g}", then(s)
        elif kind == "unsent":
            again = [x for _, x in send_again(s, then)]
            if current and slot.state == LIVE and slot.seated != slot.owner and again:
                yield f"supervisor: UNSENT gen {g}, sends", again[0]
            else:
                yield f"supervisor: stale UNSENT gen {g}", then(s)

    # --- what must hold ---

    def wrong(s):
        slot = s.slot
        served = [what for w in s.workers if w.life == "lives" for what in w.serves]
        if len(set(served)) < len(served):
            return f"served twice: {served}"
        if slot.state == LIVE and (not s.keeper or s.keeper[0] != slot.generation):
            return f"live as gen {slot.generation}, and the keeper has {s.keeper}"
        if any(generation != slot.generation for generation, _ in served):
            return f"{served} served in a slot of gen {slot.generation}"
        if slot.state == FREE and s.keeper:
            return "free while its dup is open: one member could hear another"

    def wrong_at_rest(s):
        for m, member in enumerate(s.members):
            if member not in ("left", "turned away"):
                return f"member {m} is {member}, and nobody serves it: {s.slot}"
        if s.slot.state != FREE or s.keeper:
            return f"left behind: {s.slot}, keeper {s.keeper}"

    return start, steps, wrong, wrong_at_rest


SIZES = [
    {"members": 1, "kills": 1, "gives": 1},
    {"members": 1, "kills": 2, "gives": 0, "copies": 0},
    {"members": 2, "kills": 0, "gives": 1, "overdue": 1},
    {"members": 2, "kills": 1, "gives": 0, "copies": 0, "overdue": 1},
]
LONG = [
    {},
    {"kills": 2, "members": 1},
    {"kills": 0, "gives": 2, "overdue": 1},
    {"kills": 2, "gives": 0, "copies": 0, "overdue": 1},
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_each_member_is_served_by_exactly_one(size):
    assert walk(*model(**size)).flaw is None


@pytest.mark.soak
@pytest.mark.parametrize("size", LONG, ids=str)
def test_at_length_too(size):
    assert walk(*model(**size)).flaw is None


WRONG = [
    {"giver_stores_owner": False},
    {"seated_first": False},
    {"kept_generation": False, "kills": 0, "overdue": 1, "gives": 0},
    {"handoff_generation": False, "kills": 0},
    {"looks": False},
    {"worker_frees": True, "kills": 0},
    {"dup_first": False, "kills": 0},
    {"giver_takes_back": True},
]


@pytest.mark.parametrize("changed", WRONG, ids=str)
def test_any_other_way_serves_one_twice_or_not_at_all(changed):
    assert walk(*model(**changed)).flaw
