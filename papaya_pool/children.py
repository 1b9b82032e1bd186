"""What the supervisor knows of its processes, and what is to be done about it.

Judgement apart from action: nothing here forks, kills, waits or reads a clock, so
every decision can be tested without a process.  `child` means a process as the
supervisor sees it.

Order:   a place is filled again only after its child was reaped, so one slot never
         has two processes writing under the same number.
"""

from dataclasses import dataclass

from papaya_pool.errors import EX_BOOT

EARLY_DEATHS = 5  # that many in a row, by their own fault, and the pool cannot boot
_BACK_OFF_S = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(slots=True)
class Child:
    """A process that was forked and not reaped yet."""

    pid: int
    incarnation: int
    ready: bool = False
    deadline_s: float | None = None  # by when it promised to be heard of
    late: bool = False  # its deadline has passed, and that was acted on


@dataclass(slots=True)
class Place:
    """A slot as the supervisor sees it: who fills it, or when it may be filled."""

    slot: int
    child: Child | None = None
    wanted: bool = True
    drained: bool = False  # its worker is to have no sessions
    early_deaths: int = 0  # in a row, before they were ready
    at_fault: int = 0  # of those, the ones that nobody killed
    not_before_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Spawn:
    slot: int


@dataclass(frozen=True, slots=True)
class Kill:
    """It is hung: ask where, and end it."""

    slot: int
    pid: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    why: str


Act = Spawn | Kill | GiveUp


def decide(places: list[Place], now: float) -> list[Act]:
    """What to do next, and no more than that."""
    acts: list[Act] = []
    for place in places:
        child = place.child
        if child is None:
            if place.at_fault >= EARLY_DEATHS:
                times = "again and again" if place.at_fault > 1 else "at once"
                acts.append(GiveUp(f"slot {place.slot} dies {times} before it is ready"))
            elif place.wanted and now >= place.not_before_s:
                acts.append(Spawn(place.slot))
        elif child.deadline_s is not None and now > child.deadline_s and not child.late:
            child.late = True
            acts.append(Kill(place.slot, child.pid))
    return acts


def reaped(place: Place, exit_code: int, now: float) -> Child:
    """Note that a place's child is gone; `exit_code` is negative for a signal."""
    child = place.child
    assert child is not None
    place.child = None
    if child.ready:
        place.early_deaths = place.at_fault = 0
    else:
        place.early_deaths += 1
        # Who is killed from outside while it boots did nothing wrong.
        place.at_fault += exit_code >= 0
        if exit_code == EX_BOOT:
            place.at_fault = EARLY_DEATHS
    step = min(place.early_deaths, len(_BACK_OFF_S) - 1)
    place.not_before_s = now + _BACK_OFF_S[step]
    return child


def next_spawn_s(places: list[Place]) -> float | None:
    """When the next empty place may be filled, if one waits."""
    times = [p.not_before_s for p in places if p.wanted and p.child is None]
    return min(times, default=None)
