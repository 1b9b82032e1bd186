"""selectors in epoll's clothes answers as epoll does."""

import contextlib
import select
import socket

import pytest

from papaya_pool import poller

MAKERS = [poller.Portable]
if hasattr(select, "epoll"):
    MAKERS.append(select.epoll)


@pytest.fixture(params=MAKERS)
def watch(request):
    with contextlib.closing(request.param()) as made:
        yield made


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_nothing_is_ready_and_the_wait_ends(watch, pair):
    watch.register(pair[0].fileno(), poller.IN)
    assert watch.poll(0.0) == []
    assert watch.poll(0.001) == []


def test_what_is_ready_is_told_until_it_is_read(watch, pair):
    ours, theirs = pair
    watch.register(ours.fileno(), poller.IN)
    theirs.send(b"x")
    for _ in range(2):
        assert watch.poll(0.0) == [(ours.fileno(), poller.IN)]
    ours.recv(1)
    assert watch.poll(0.0) == []


def test_both_directions_are_told_at_once(watch, pair):
    ours, theirs = pair
    watch.register(ours.fileno(), poller.IN | poller.OUT)
    theirs.send(b"x")
    assert watch.poll(0.0) == [(ours.fileno(), poller.IN | poller.OUT)]


def test_a_mask_can_be_changed_to_nothing_and_back(watch, pair):
    ours, theirs = pair
    watch.register(ours.fileno(), poller.IN)
    theirs.send(b"x")
    watch.modify(ours.fileno(), poller.QUIET)
    assert watch.poll(0.0) == []
    watch.modify(ours.fileno(), poller.OUT)
    assert watch.poll(0.0) == [(ours.fileno(), poller.OUT)]
    watch.modify(ours.fileno(), poller.IN)
    assert watch.poll(0.0) == [(ours.fileno(), poller.IN)]


def test_who_is_watched_for_nothing_can_be_unregistered(watch, pair):
    fd = pair[0].fileno()
    watch.register(fd, poller.IN)
    watch.modify(fd, poller.QUIET)
    watch.unregister(fd)
    watch.register(fd, poller.OUT)
    assert watch.poll(0.0) == [(fd, poller.OUT)]


def test_the_end_of_the_other_side_is_readable(watch, pair):
    ours, theirs = pair
    watch.register(ours.fileno(), poller.IN)
    theirs.close()
    [(fd, events)] = watch.poll(0.0)
    assert fd == ours.fileno()
    assert events & poller.IN


def test_where_only_the_portable_path_is_wanted_it_is_taken():
    with contextlib.closing(poller.make(portable=True)) as made:
        assert isinstance(made, poller.Portable)
