"""New code under the same pid: members notice nothing, and bad code gets no chance."""

import shutil
import signal

import pytest
from harness import ROOT, check_streams, read_all, until

SLOW_LOADING = 30


@pytest.fixture
def house(tmp_path):
    """A copy of the code, to be changed on disk under a running pool."""
    shutil.copytree(
        ROOT / "papaya_pool",
        tmp_path / "house" / "papaya_pool",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path / "house"


@pytest.fixture
def crowd(start_pool, house):
    pool = start_pool(env={"PYTHONPATH": str(house)})
    members = [pool.join(f"m{n}", last=0) for n in range(4)]
    members += [pool.join_classic(name=f"c{n}") for n in range(4)]
    until(lambda: pool.sessions() == len(members))
    yield pool, members
    for member in members:
        member.close()


def talk(members, said, rounds=1):
    for _ in range(rounds):
        for member in members:
            member.say(f"message {len(said)}")
            said.append(f"message {len(said)}")


def heard(pool, members, said):
    read_all(members, lambda member: member.count() == len(said), within=20)
    assert sorted(pool.texts()) == sorted(said)
    check_streams(pool.log, members)


def upgraded(pool, times):
    until(lambda: len(pool.events("upgraded")) == times, SLOW_LOADING)
    until(lambda: len(pool.events("took-over")) == times, SLOW_LOADING)


def test_an_upgrade_keeps_pid_port_and_members(crowd):
    pool, members = crowd
    said, workers = [], pool.worker_pids()
    for times in (1, 2):
        talk(members, said, 3)
        pool.send_signal(signal.SIGUSR2)
        while len(pool.events("upgraded")) < times:
            talk(members, said)
            read_all(members, lambda member: member.count() == len(said))
        upgraded(pool, times)
        talk(members, said, 3)
        heard(pool, members, said)
    until(lambda: not set(workers) & set(pool.worker_pids()))
    assert pool.process.poll() is None
    assert pool.stdout.count("ready") == 1
    with pool.join("late", since=0) as late:
        late.read_count(len(said))


def test_papaya_ctl_waits_until_it_is_done(crowd):
    pool, members = crowd
    said = []
    block = pool.block
    code, words = pool.ctl("upgrade")
    assert code == 0, words
    assert pool.block != block
    talk(members, said)
    heard(pool, members, said)


@pytest.mark.parametrize(
    "damage",
    ["raise RuntimeError('new and broken')", "this is no Python", "import os; os._exit(9)"],
)
def test_code_that_cannot_start_gets_no_chance(crowd, house, damage):
    pool, members = crowd
    said, pids = [], pool.pids()
    source = house / "papaya_pool" / "worker.py"
    source.write_text(damage + "\n")
    talk(members, said)
    code, words = pool.ctl("upgrade")
    assert code == 1, words
    assert pool.events("upgrade-refused")
    talk(members, said)
    heard(pool, members, said)
    assert pool.pids() == pids
    shutil.copy(ROOT / "papaya_pool" / "worker.py", source)
    assert pool.ctl("upgrade")[0] == 0
    talk(members, said)
    heard(pool, members, said)


def test_workers_that_cannot_boot_in_the_new_code_get_no_chance(crowd, house):
    pool, members = crowd
    said = []
    pool.expected = [""]
    source = house / "papaya_pool" / "worker.py"
    source.write_text(source.read_text().replace("    def run(self) -> int:", BROKEN))
    code, words = pool.ctl("upgrade")
    assert code == 1, words
    talk(members, said)
    heard(pool, members, said)


BROKEN = """\
    def run(self) -> int:
        raise RuntimeError("starts, and dies")

    def run_no_more(self) -> int:"""


@pytest.mark.soak
def test_fifty_upgrades_under_load(crowd):
    pool, members = crowd
    said = []
    for times in range(1, 51):
        pool.send_signal(signal.SIGUSR2)
        while len(pool.events("took-over")) < times:
            talk(members, said)
            read_all(members, lambda member: member.count() == len(said))
    heard(pool, members, said)
