"""The login's table: every row can be reached, and what is no row is an error."""

import itertools

import pytest
from strangers import KEY, NONCE, hello, new_login, whole_login

from papaya_pool import dialects
from papaya_pool.dialects import TABLE, Event, Refuse, State
from papaya_pool.errors import WorkerFault

# What a stranger says to go through each row, and whether classic is allowed.
ROWS = {
    (State.OPENING, Event.NATIVE): (b"PAPAYA/2 ", True),
    (State.OPENING, Event.CLASSIC): (KEY[:1], True),
    (State.OPENING, Event.UNOFFERED): (KEY[:1], False),
    (State.OPENING, Event.TLS): (b"\x16", True),
    (State.OPENING, Event.OTHER_VERSION): (b"PAPAYA/3", True),
    (State.OPENING, Event.GARBAGE): (b"GET", True),
    (State.HELLO, Event.LONG): (b"PAPAYA/2 " + b"x" * 504, True),
    (State.HELLO, Event.WELL_SAID): (hello() + b"\n", True),
    (State.HELLO, Event.ILL_SAID): (b"PAPAYA/2 alice\n", True),
    (State.HELLO, Event.ILL_ASKED): (hello("alice", b"since=x") + b"\n", True),
    (State.HELLO, Event.BAD_NAME): (hello("a:b") + b"\n", True),
    (State.PROOF, Event.LONG): (hello() + b"\n" + b"0" * 513, True),
    (State.PROOF, Event.RIGHT): (whole_login(hello()), True),
    (State.PROOF, Event.WRONG): (hello() + b"\n\n", True),
    (State.KEY, Event.NO_DIGIT): (KEY[:1] + b"x", True),
    (State.KEY, Event.RIGHT): (KEY, True),
    (State.KEY, Event.WRONG): (b"0" * 128, True),
}


class Watched(dict):
    """The table, and which of its rows were looked up."""

    def __init__(self, table):
        super().__init__(table)
        self.seen = []

    def get(self, row):
        self.seen.append(row)
        return super().get(row)


def test_every_row_has_somebody_who_reaches_it():
    assert ROWS.keys() == TABLE.keys()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0].name}-{row[1].name}")
def test_a_row_leads_where_it_says(row, monkeypatch):
    said, classic_allowed = ROWS[row]
    monkeypatch.setattr(dialects, "TABLE", Watched(TABLE))
    login = new_login(classic_allowed)
    effects = login.feed(said)
    assert dialects.TABLE.seen[-1] == row
    step = TABLE[row]
    if isinstance(step, Refuse):
        assert effects[-1] == step
        assert login._state is State.REFUSED
    else:
        assert login._state is step


@pytest.mark.parametrize(
    "row",
    [
        row
        for row in itertools.product(State, Event)
        if row not in TABLE and row[0] not in (State.ADMITTED, State.REFUSED)
    ],
    ids=lambda row: f"{row[0].name}-{row[1].name}",
)
def test_what_is_no_row_is_a_bug_and_never_an_admission(row):
    state, event = row
    login = new_login()
    login._state = state
    login._judges[state] = lambda: event
    with pytest.raises(WorkerFault):
        login.feed(b"x")


def test_nothing_leads_out_of_the_last_states():
    assert not {state for state, _ in TABLE} & {State.ADMITTED, State.REFUSED}


def test_only_the_right_key_leads_in():
    ways_in = {row for row, step in TABLE.items() if step is State.ADMITTED}
    assert {event for _, event in ways_in} == {Event.RIGHT}


def test_every_event_is_somewhere_in_the_table():
    assert {event for _, event in TABLE} == set(Event)
