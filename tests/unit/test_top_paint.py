"""papaya-top's screen and reports from made-up pools: exact lines, at every size."""

import json
import re

import pytest

from papaya_pool.client import cells
from papaya_pool.clientele import Client
from papaya_pool.sampler import Process, Snapshot
from papaya_pool.watch import columns, paint, report, view
from papaya_pool.watch.figures import History, Looks, figures
from papaya_pool.watch.view import Next, View

HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "a\nb\rc\td",
    "漢字" * 16,
    "e" + "\u0301" * 20,
    "\u202eevil",
    "שלום",
    "नमस्ते",
    "\u0300",
    "👨\u200d👩\u200d👧",
    "",
    "x" * 32,
]


def process(slot=0, role="worker", pid=4242, **changes):
    made = Process(
        slot=slot,
        role=role,
        pid=pid,
        generation=1,
        state="serving",
        age_s=75.0,
        deadline_s=4.96,
        waiting=False,
        sessions=3,
        in_hand=None,
        messages_in=0,
        bytes_in=0,
        deliveries=0,
        bytes_out=0,
        lag_bytes=0,
        lock_wait_s=0.0,
        moves_in=0,
        moves_out=0,
        torn=0,
        admitted=0,
        refused=0,
        cpu_s=1.0,
        context_switches=100,
        rss_bytes=20 << 20,
        pss_bytes=5 << 20,
        uss_bytes=4 << 20,
        descriptors=16,
    )
    return made._replace(**changes)


def empty(slot, role="worker"):
    gone = dict.fromkeys(
        (
            "age_s",
            "cpu_s",
            "context_switches",
            "rss_bytes",
            "pss_bytes",
            "uss_bytes",
            "descriptors",
        )
    )
    return process(slot, role, 0, state="empty", deadline_s=None, sessions=0, **gone)


def client(session=0, name="alice", **changes):
    made = Client(
        session=session,
        generation=1,
        name=name,
        address=f"127.0.0.1:{40000 + session}",
        dialect="native",
        worker=0,
        messages_in=0,
        bytes_in=0,
        bytes_out=0,
        lag_bytes=0,
        unacked_bytes=0,
        cpu_s=0.0,
        idle_s=3.0,
        age_s=60.0,
        moves=0,
    )
    return made._replace(**changes)


def snapshot(processes=(), clients=(), **changes):
    made = Snapshot(
        at_s=100.0,
        time_ms=1_795_388_400_000,
        state_dir="/srv/room",
        log_id="0123456789abcdef",
        port=7722,
        uptime_s=7500.0,
        head_seq=1000,
        log_bytes=100_000,
        log_refused=False,
        max_clients=10_000,
        processes=tuple(processes),
        clients=tuple(clients),
        hidden=(),
    )
    return made._replace(**changes)


def a_second_later(before, **changes):
    return before._replace(at_s=before.at_s + 1, **changes)


BUSY = figures(
    snapshot(
        [process(0), process(1, pid=4243), empty(2), process(3, "acceptor", 4245)]
    ),
    a_second_later(
        snapshot(),
        head_seq=1200,
        log_bytes=120_000,
        processes=(
            process(
                0, cpu_s=1.123, messages_in=200, deliveries=20_000, bytes_out=2_600_000
            ),
            process(1, pid=4243, state="late", deadline_s=-3.2, lag_bytes=123_456),
            empty(2),
            process(3, "acceptor", 4245, context_switches=107, state="serving"),
        ),
        clients=(client(), client(1, "bob", lag_bytes=99_999, worker=None)),
    ),
)


def screen(figures, chosen, height, width, rates=()):
    rows = chosen.rows(figures) if figures else []
    paint.settle(chosen, rows, height, width)
    return paint.plain(paint.paint(figures, rates, chosen, rows, height, width))


# --- the whole screen ----------------------------------------------------------------


def test_the_workers_are_these_lines():
    lines = screen(BUSY, View(), 16, 132, [1.0, 0.0, 4.0])
    assert lines[0].startswith("papaya-top  port 7722  up 2h05  /srv/room")
    assert [line.rstrip() for line in lines[1:12]] == [
        "late: w1   in 200/s   out 20.0k/s   members 2 of 10000   worst lag 121K   "
        "sent 2.5MB/s   head 1200   log 117KB   lock wait 0 ms/s",
        "room 0123456789abcdef",
        "   15s ▃ █ 4/s at most",
        "SLOT ROLE        PID GEN STATE     CPU%   PSS   USS  SESS  IN/S OUT/S  kB/S"
        "   LAG CTXSW/S  FDS RESPAWNS   AGE DEADLINE   RSS",
        "   0 worker     4242   1 serving   12.3  5.0M  4.0M     3   200 20.0k  2600"
        "     0       0   16        0  1m15     5.0s 20.0M",
        "   1 worker     4243   1 late       0.0  5.0M  4.0M     3     0     0     0"
        "  121K       0   16        0  1m15      -3s 20.0M",
        "   2 worker        -   1 empty        -     -     -     0     0     0     0"
        "     0       -    -        0     -        -     -",
        "   3 acceptor   4245   1 serving    0.0  5.0M  4.0M     -     -     -     -"
        "     -       7   16        0  1m15     5.0s 20.0M",
        "",
        "",
        "",
    ]
    assert lines[-1].startswith("F1 help") and lines[-1].endswith(" 1/4")


def test_the_clients_are_these_lines():
    lines = screen(BUSY, View(on_clients=True), 8, 110)
    assert [line.rstrip() for line in lines[2:7]] == [
        "NAME     ADDR            DIALECT WORKER  IN/S OUT/S  kB/S   LAG UNACKED"
        " CPU-MS/S  IDLE   AGE MOVES",
        "bob      127.0.0.1:40001 native       -     -     -     - 97.7K       0"
        "        0    3s  1m00     0",
        "alice    127.0.0.1:40000 native       0     -     -     -     0       0"
        "        0    3s  1m00     0",
        "",
        "",
    ]


@pytest.mark.parametrize("on_clients", [False, True])
def test_every_size_down_to_one_by_one_is_filled_and_never_overrun(on_clients):
    clients = [client(n, name) for n, name in enumerate(HOSTILE)]
    full = figures(None, snapshot([process(n) for n in range(9)], clients))
    for chosen in (
        View(),
        View(filter="o"),
        View(typing=True, filter="日本" * 9),
        View(question="Kick 漢字漢字漢字漢字漢字漢字?"),
        View(message="something went wrong \x1b[2J at some length"),
        View(help=True),
    ):
        chosen.on_clients = on_clients
        for height in (*range(1, 13), 16, 30):
            for width in (*range(1, 30), 47, 80, 100, 132):
                lines = screen(full, chosen, height, width, [1.0, 2.0] * 30)
                assert len(lines) <= height
                assert max(map(cells.columns, lines)) <= width
                assert "".join(lines).isprintable()


def test_at_20_by_5_there_are_rows_a_title_and_the_rate():
    lines = screen(BUSY, View(), 5, 20)
    assert lines[0].startswith("late: w1")
    assert lines[1].split() == ["SLOT", "STATE", "CPU%"]
    assert lines[2].split() == ["0", "serving", "12.3"]
    assert len(lines) == 5


def test_a_narrow_screen_leaves_out_columns_and_cuts_no_number():
    titles = []
    for width in range(4, 140):
        placed = columns.fit(columns.PROCESSES, BUSY.processes, width, 0, "SLOT")
        assert sum(room + 1 for _, room in placed) - 1 <= width
        titles.append([column.title for column, _ in placed])
    assert titles[-1] == [column.title for column in columns.PROCESSES]
    assert all(
        len(fewer) <= len(more) for fewer, more in zip(titles, titles[1:], strict=False)
    )


@pytest.mark.parametrize("table", [columns.PROCESSES, columns.CLIENTS])
def test_the_column_that_sorts_is_never_left_out(table):
    for column in table[1:]:
        placed = columns.fit(table, [], 30, 0, column.title)
        assert column in [p.column for p in placed]


def test_arrows_bring_every_column_in():
    chosen, seen = View(), set()
    for _ in range(30):
        seen |= set(screen(BUSY, chosen, 24, 40)[4].split())
        view.press(chosen, "right", chosen.rows(BUSY))
    assert seen >= {column.title for column in columns.PROCESSES}


def test_no_name_moves_what_stands_beside_it():
    clients = [client(n, name, moves=7) for n, name in enumerate(HOSTILE)]
    chosen = View(on_clients=True)
    lines = screen(figures(None, snapshot(clients=clients)), chosen, 40, 120)
    rows = [line for line in lines if "127.0.0.1" in line]
    assert len(rows) == len(HOSTILE)
    places = {cells.columns(line[: line.index("127.0.0.1")]) for line in rows}
    assert len(places) == 1
    assert {cells.columns(line) for line in rows} == {120}


def test_nobody_and_nothing_found_are_said():
    assert (
        "no clients"
        in screen(figures(None, snapshot()), View(on_clients=True), 9, 60)[3]
    )
    lines = screen(BUSY, View(on_clients=True, filter="zz"), 9, 60)
    assert lines[3] == "no clients like 'zz'"
    assert lines[-1].startswith("/zz") and lines[-1].endswith("0/0")


def test_what_permissions_hide_is_said():
    hidden = snapshot([process(pss_bytes=None)], hidden=("FDS", "PSS USS"))
    lines = screen(figures(None, hidden), View(), 12, 100)
    assert "hidden from you: FDS PSS USS" in lines[1]
    assert " - " in lines[4]


def test_a_pool_that_went_away_is_one_line():
    gone = View(message="no pool in /srv/room: waiting for it (q quits)")
    assert (
        screen(None, gone, 10, 60)[0]
        == "no pool in /srv/room: waiting for it (q quits)"
    )


def test_states_have_colours_and_every_state_has_one():
    from papaya_pool import scoreboard

    assert set(scoreboard.STATES) < set(paint.STATE_STYLES)
    chosen = View(page=9)
    rows = chosen.rows(BUSY)
    chosen.settle(rows)
    lines = paint.paint(BUSY, [], chosen, rows, 12, 120)
    styles = [line[0][1] for line in lines[4:8]]
    assert styles == ["cursor", "bad", "dim", ""]


# --- figures in few characters -------------------------------------------------------


@pytest.mark.parametrize(
    ("show", "figure", "text"),
    [
        (columns.short, 0, "0"),
        (columns.short, 0.25, "0.2"),
        (columns.short, 9.949, "9.9"),
        (columns.short, 9999, "9999"),
        (columns.short, 9999.7, "10.0k"),
        (columns.short, 123_456, "123k"),
        (columns.short, 999_999, "1.0M"),
        (columns.size, 9_999, "9999"),
        (columns.size, 10_000, "9.8K"),
        (columns.size, 5 << 20, "5.0M"),
        (columns.size, (1 << 20) - 1, "1.0M"),
        (columns.size, 1 << 70, "huge"),
        (columns.percent, 99.96, "100.0"),
        (columns.percent, 3200.0, "3200"),
        (columns.duration, 59.9, "59s"),
        (columns.duration, 3599, "59m59"),
        (columns.duration, 86_399, "23h59"),
        (columns.duration, 86_400 * 3 + 7200, "3d02"),
        (columns.duration, 86_400 * 812, "812d"),
    ],
)
def test_a_figure_is_short(show, figure, text):
    assert show(figure) == text


def test_no_figure_needs_more_than_its_column():
    for power in range(0, 75):
        for near in (-1, 0, 1):
            figure = (1 << power) + near
            for show in (
                columns.short,
                columns.size,
                columns.percent,
                columns.duration,
            ):
                assert len(show(figure)) <= 5, (show, figure)
                assert len(show(figure / 7)) <= 5, (show, figure / 7)


# --- rates ---------------------------------------------------------------------------


def test_a_respawned_worker_keeps_its_counters_and_has_no_cpu_rate_yet():
    before = snapshot([process(messages_in=500, cpu_s=90.0)])
    after = a_second_later(
        before, processes=(process(pid=77, generation=2, messages_in=510, cpu_s=0.1),)
    )
    row = figures(before, after).processes[0]
    assert row.messages_per_s == 10
    assert row.cpu_percent is None
    assert row.now.respawns == 1


def test_a_slot_that_somebody_else_sits_in_now_has_no_rate_yet():
    before = snapshot(clients=[client(messages_in=50)])
    after = a_second_later(
        before, clients=(client(generation=2, name="eve", messages_in=60),)
    )
    assert figures(before, after).clients[0].messages_per_s is None


def test_two_looks_at_different_pools_make_no_rate():
    looks, before = Looks(), snapshot([process()])
    assert looks.add(before).messages_per_s is None
    after = a_second_later(before, head_seq=1010)
    assert looks.add(after).messages_per_s == 10
    assert looks.add(a_second_later(after, log_id="f" * 16)).messages_per_s is None


def test_cpu_time_that_is_written_once_a_second_is_averaged():
    looks, now = Looks(), snapshot(clients=[client(cpu_s=6.0)])
    shown = [looks.add(now).clients[0].cpu_ms_per_s]
    for second in range(12):
        # Its worker writes every second second of ours.
        cpu_s = 6.0 + 0.2 * (second // 2)
        now = a_second_later(now, clients=(client(cpu_s=cpu_s),))
        shown.append(looks.add(now).clients[0].cpu_ms_per_s)
    assert shown[0] == 100  # six seconds of the minute that it has been here
    assert all(50 <= figure <= 160 for figure in shown[3:]), shown


def test_a_disk_that_refuses_is_said_in_red():
    refused = figures(None, snapshot([process()], log_refused=True))
    chosen = View()
    lines = paint.header(refused, [], chosen, 3, 80, True)
    assert lines[1][0] == ("the disk takes no messages: senders wait", "bad")


def test_the_sparkline_shows_whole_cells_and_shares_out_what_nobody_saw():
    history = History(cells=4, cell_s=5)
    for second, seq in [(0, 0), (4, 10), (5, 10), (9, 60), (10, 60), (22, 180)]:
        history.note(1000 * second, seq)
    assert history.rates() == [2.0, 10.0, 10.0, 10.0]
    for second in range(23, 60):
        history.note(1000 * second, 180)
    assert history.rates() == [0.0] * 4
    history.note(0, 5)  # another log, or the clock was set back
    assert history.rates() == []


def test_a_sparkline_is_made_of_eight_heights_and_of_nothing():
    assert paint.sparkline([0, 1, 50, 100]) == " ▁▅█"
    assert paint.sparkline([0, 1, 50, 100], unicode=False) == " _o@"
    assert paint.sparkline([]) == "" and paint.sparkline([0.0]) == " "


# --- keys ----------------------------------------------------------------------------


def pressed(chosen, *keys, of=BUSY):
    for key in keys:
        rows = chosen.rows(of)
        chosen.page = 10
        chosen.settle(rows)
        then = view.press(chosen, key, rows)
    chosen.settle(chosen.rows(of))
    return then


@pytest.mark.parametrize("key", ["q", "f10"])
def test_q_and_f10_quit(key):
    assert pressed(View(), key) is Next.QUIT
    assert pressed(View(), "h", key) is Next.QUIT


def test_each_sort_key_sorts():
    rows = [
        process(0, cpu_s=2.0, pss_bytes=3, lag_bytes=5),
        process(1, cpu_s=4.0, pss_bytes=9, lag_bytes=0),
        process(2, cpu_s=3.0, pss_bytes=1, lag_bytes=7),
        empty(3),
    ]
    of = figures(
        snapshot([process(n) for n in range(3)]), a_second_later(snapshot(rows))
    )
    for key, order in [("P", [1, 2, 0, 3]), ("M", [1, 0, 2, 3]), ("L", [2, 0, 1, 3])]:
        chosen = View()
        pressed(chosen, key, of=of)
        assert [row.now.slot for row in chosen.rows(of)] == order, key
    pressed(chosen, "N", of=of)
    assert [row.now.slot for row in chosen.rows(of)] == [0, 1, 2, 3]
    pressed(chosen, "I", of=of)
    assert [row.now.slot for row in chosen.rows(of)] == [3, 2, 1, 0]


def test_what_has_no_figure_comes_last_whichever_way():
    of = figures(None, snapshot([process(0, pss_bytes=None), process(1), process(2)]))
    chosen = View()
    pressed(chosen, "M", of=of)
    assert [row.now.slot for row in chosen.rows(of)] == [1, 2, 0]
    pressed(chosen, "I", of=of)
    assert [row.now.slot for row in chosen.rows(of)][-1] == 0


def test_every_column_can_be_sorted_by():
    for on_clients in (False, True):
        chosen = View(on_clients=on_clients)
        pressed(chosen, *["<"] * 20)
        assert chosen.table.sort == chosen.table.columns[0].title
        for column in chosen.table.columns:
            assert chosen.table.sort == column.title
            for _ in range(2):
                assert chosen.rows(BUSY)
                pressed(chosen, "I")
            pressed(chosen, ">")


def test_the_cursor_stays_on_its_row_when_the_rows_move():
    chosen = View(on_clients=True)
    before = snapshot(
        clients=[client(0, "ann", lag_bytes=9), client(1, "ben", lag_bytes=5)]
    )
    pressed(chosen, "down", of=figures(None, before))
    after = snapshot(
        clients=[client(1, "ben", lag_bytes=50), client(0, "ann", lag_bytes=9)]
    )
    rows = chosen.rows(figures(None, after))
    chosen.settle(rows)
    assert rows[chosen.table.cursor].now.name == "ben"


def test_the_cursor_is_always_on_the_screen():
    many = figures(None, snapshot(clients=[client(n, f"u{n:03}") for n in range(100)]))
    chosen = View(on_clients=True)
    for key in [
        "end",
        "up",
        "pageup",
        "home",
        "down",
        "pagedown",
        "pagedown",
        "end",
        "home",
    ]:
        pressed(chosen, key, of=many)
        lines = screen(many, chosen, 12, 60)
        name = chosen.rows(many)[chosen.table.cursor].now.name
        assert any(line.startswith(name) for line in lines), key


def test_the_filter_is_typed_kept_and_taken_away():
    chosen = View(on_clients=True)
    pressed(chosen, "/", "B", "o", "x", "backspace", "q")
    assert chosen.filter == "Boq" and chosen.typing
    pressed(chosen, "backspace", "enter")
    assert [row.now.name for row in chosen.rows(BUSY)] == ["bob"] and not chosen.typing
    pressed(chosen, "esc")
    assert len(chosen.rows(BUSY)) == 2


def test_a_kick_is_asked_and_goes_to_who_was_shown():
    chosen = View(on_clients=True)
    assert pressed(chosen, "N", "home", "k") is Next.REDRAW
    assert chosen.question == "Kick alice at 127.0.0.1:40000?"
    assert pressed(chosen, "y") is Next.ACT
    assert chosen.agreed == [["kick", "0", "1"]]


@pytest.mark.parametrize("key", ["n", "enter", "esc", "q", " "])
def test_only_y_agrees(key):
    chosen = View(on_clients=True)
    pressed(chosen, "k")
    assert pressed(chosen, key) is Next.REDRAW
    assert chosen.agreed == [] and chosen.asked == []


def test_tagged_rows_are_kicked_together():
    chosen = View(on_clients=True)
    pressed(chosen, "home", " ", " ", "k")
    assert chosen.question == "Kick 2 clients, bob first?"
    pressed(chosen, "y")
    assert chosen.agreed == [["kick", "1", "1"], ["kick", "0", "1"]]
    pressed(chosen, "U")
    assert not chosen.table.tagged


def test_a_worker_is_drained_and_let_serve_again():
    chosen = View()
    pressed(chosen, "down", "d")
    assert chosen.question == "Drain w1?"
    pressed(chosen, "y")
    assert chosen.agreed == [["drain", "1"]]
    of = figures(None, snapshot([process(0, state="drained")]))
    pressed(chosen, "d", of=of)
    assert chosen.asked == [["rebalance"]]


def test_only_workers_are_drained_and_only_clients_kicked():
    chosen = View()
    pressed(chosen, "end", "d")
    assert not chosen.question and "only a worker" in chosen.message
    pressed(chosen, "k")
    assert not chosen.question and chosen.message


@pytest.mark.parametrize("keys", ["d", "ck"])
def test_readonly_takes_both_away(keys):
    chosen = View(readonly=True)
    pressed(chosen, *keys)
    assert not chosen.question and chosen.message == "not with --readonly"
    lines = screen(BUSY, View(readonly=True), 10, 100)
    assert "kick" not in lines[-1] and "drain" not in lines[-1]


# --- reports -------------------------------------------------------------------------


def test_the_json_has_the_keys_that_scripts_rely_on():
    made = json.loads(report.as_json(BUSY))
    top = (
        "window_s head_seq members messages_in deliveries bytes_in bytes_out log_bytes "
        "workers clients"
    )
    worker = (
        "slot role pid gen state cpu_percent pss_bytes uss_bytes rss_bytes sessions "
        "messages_in deliveries bytes_out lag_bytes respawns age_s"
    )
    member = (
        "name address dialect worker messages_in bytes_in bytes_out lag_bytes cpu_ms "
        "idle_s age_s"
    )
    assert set(top.split()) <= set(made)
    assert all(set(worker.split()) <= set(row) for row in made["workers"])
    assert all(set(member.split()) <= set(row) for row in made["clients"])
    assert made["workers"][2]["pid"] is None and made["workers"][2]["pss_bytes"] is None


def test_the_table_is_never_wider_than_asked():
    for width in range(1, 200):
        lines = report.table(BUSY, View(), width).splitlines()
        assert max(map(cells.columns, lines)) <= width
    assert " RSS" in report.table(BUSY, View(), 1000)


def test_the_exposition_is_what_prometheus_reads():
    text = report.prometheus(BUSY.now)
    sample = re.compile(r'papaya_[a-z_]+(\{(?:[a-z]+="[^"\\\n]*",?)*\})? -?[0-9.e+-]+')
    types, seen = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types
            types[name] = kind
        elif not line.startswith("# HELP "):
            assert sample.fullmatch(line), line
            assert line.rpartition(" ")[0] not in seen
            seen.add(line.rpartition(" ")[0])
            assert line.partition("{")[0].partition(" ")[0] in types
    assert text.endswith("\n")
    assert 'papaya_worker_messages_in_total{slot="0",role="worker"} 200' in text
    assert 'papaya_process_late{slot="1",role="worker"} 1' in text
    assert 'papaya_process_pss_bytes{slot="2"' not in text  # unknown is not 0


def test_no_name_is_a_label():
    text = report.prometheus(snapshot(clients=[client(name="alice")]))
    assert "alice" not in text
