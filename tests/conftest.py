"""Fixtures only.  What they make is in harness.py."""

import contextlib
import os

import pytest
from harness import Pool, raise_descriptor_limit

raise_descriptor_limit()

@pytest.fixture
def start_pool(tmp_path):
    """Start pools; each is stopped at the end, and must leave nothing behind."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_shared_pool(tmp_path_factory):
    """The same for a whole file, where a start for each of its tests costs too much."""
    with starter(tmp_path_factory.mktemp("shared")) as start:
        yield start


@contextlib.contextmanager
def starter(directory):
    pools = []

    def start(*args, state_dir=None, **how):
        pool = Pool.__new__(Pool)
        pools.append(pool)
        pool.process = None
        pool.__init__(state_dir or directory / f"st{len(pools)}", *args, **how)
        return pool

    yield start
    for pool in pools:
        if pool.process is not None:
            print(f"--- stderr of the pool on {pool.state_dir}\n{pool.stderr}")
    errors = []
    for pool in pools:
        try:
            pool.tear_down()
        except AssertionError as err:
            errors.append(err)
    if errors:
        raise errors[0]


@pytest.fixture
def pool(start_pool):
    return start_pool()


@pytest.fixture(autouse=True)
def no_connection_stays_open():
    """A test that forgets a connection leaves a member in somebody's pool."""
    before = open_sockets()
    yield
    assert open_sockets() <= before


def open_sockets():
    sockets = set()
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(entry.path)
            if target.startswith("socket:"):
                sockets.add(target)
    return sockets
