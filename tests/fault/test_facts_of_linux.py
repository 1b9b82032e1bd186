"""What the laws rest on (design section 4), asked of the kernel that runs this.

If one of these fails, the design does not hold on this machine, whatever our code does.
"""

import array
import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import sys

import pytest
from harness import in_child, until

from papaya_pool import handoff, listener, wirecount

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="facts of Linux")


@contextlib.contextmanager
def connection():
    """(ours, theirs): a TCP connection with the options that members' have."""
    with socket.socket() as door:
        listener.for_members(door)
        door.bind(("127.0.0.1", 0))
        door.listen()
        theirs = socket.create_connection(door.getsockname())
        ours, _ = door.accept()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def count(conn):
    return wirecount.count(conn.fileno())


def settled(conn, **expected):
    """Wait until the count has these fields; it moves with the ACKs."""
    until(lambda: expected.items() <= count(conn)._asdict().items() or None, 2.0)


def write_until_full(conn):
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += conn.send(b"x" * 65536)
    return sent


def reset(conn):
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


# --- exact positions -----------------------------------------------------------------


def test_written_and_consumed_are_exact():
    with connection() as (ours, theirs):
        assert count(ours) == (0, 0, False, False)
        theirs.send(b"0123456789")
        until(lambda: select.select([ours], [], [], 0)[0])
        assert count(ours).consumed == 0
        assert ours.recv(4) == b"0123"
        assert count(ours).consumed == 4
        ours.send(b"abc")
        assert count(ours).written == 3


def test_written_is_exact_under_a_peer_that_does_not_read():
    with connection() as (ours, theirs):
        sent = write_until_full(ours)
        assert count(ours).written == sent
        theirs.recv(100_000)
        assert count(ours).written == sent


def test_our_fin_is_no_byte():
    with connection() as (ours, theirs):
        ours.send(b"abc")
        ours.shutdown(socket.SHUT_WR)
        settled(ours, written=3, fin_sent=True, is_over=False)
        assert theirs.recv(10) + theirs.recv(10) == b"abc"
        settled(ours, written=3, fin_sent=True)


def test_our_fin_behind_a_full_buffer_is_no_byte():
    with connection() as (ours, _theirs):
        sent = write_until_full(ours)
        ours.shutdown(socket.SHUT_WR)
        settled(ours, written=sent, fin_sent=True)


def test_their_fin_is_no_byte():
    with connection() as (ours, theirs):
        theirs.send(b"0123456789")
        theirs.shutdown(socket.SHUT_WR)
        settled(ours, consumed=0, is_over=False)
        ours.recv(4)
        settled(ours, consumed=4)
        ours.recv(100)
        assert ours.recv(100) == b""
        settled(ours, consumed=10, written=0)
        ours.send(b"still")
        settled(ours, written=5)


def test_both_fins_are_no_bytes():
    with connection() as (ours, theirs):
        theirs.send(b"0123456789")
        theirs.shutdown(socket.SHUT_WR)
        settled(ours, consumed=0)
        ours.send(b"abc")
        ours.shutdown(socket.SHUT_WR)
        until(lambda: count(ours).is_over or theirs.recv(10, socket.MSG_DONTWAIT) or True)
        assert theirs.recv(10) in (b"", b"abc")
        # TIME_WAIT or CLOSE: neither figure is believed, and that is known.
        until(lambda: count(ours).is_over)


def test_after_a_reset_it_is_over_and_what_was_queued_can_still_be_read():
    with connection() as (ours, theirs):
        theirs.send(b"0123456789")
        until(lambda: select.select([ours], [], [], 0)[0])
        ours.recv(4)
        reset(theirs)
        until(lambda: count(ours).is_over)
        assert ours.recv(100) == b"456789"


def test_after_a_failed_send_what_was_queued_can_still_be_read():
    with connection() as (ours, theirs):
        theirs.send(b"0123456789")
        until(lambda: select.select([ours], [], [], 0)[0])
        reset(theirs)
        until(lambda: count(ours).is_over)
        with pytest.raises(ConnectionError):
            for _ in range(2):
                ours.send(b"x")
        assert ours.recv(100) == b"0123456789"


def test_an_urgent_byte_is_counted_where_it_is_read_in_line():
    with connection() as (ours, theirs):
        theirs.send(b"be")
        theirs.send(b"f", socket.MSG_OOB)
        theirs.send(b"ore")
        got = b""
        while got != b"before":
            until(lambda: select.select([ours], [], [], 0)[0])
            got += ours.recv(100)
        assert count(ours).consumed == 6


def test_a_successor_counts_what_a_killed_holder_did():
    with connection() as (ours, theirs):
        theirs.send(b"0123456789")

        def holder():
            until(lambda: select.select([ours], [], [], 0)[0])
            ours.recv(7)
            ours.send(b"abc")
            os.kill(os.getpid(), signal.SIGKILL)

        assert in_child(holder) == -signal.SIGKILL
        assert count(ours)[:2] == (3, 7)
        assert theirs.recv(10) == b"abc"


# --- connections and descriptors -----------------------------------------------------


def test_a_dup_keeps_a_connection_and_only_shutdown_ends_it():
    with connection() as (ours, theirs):
        keeper = ours.dup()
        ours.close()
        keeper.send(b"still here")
        assert theirs.recv(100) == b"still here"
        other = keeper.dup()
        keeper.shutdown(socket.SHUT_RDWR)
        keeper.close()
        assert theirs.recv(100) == b""
        other.close()


def test_a_connection_in_flight_alone_lives():
    giver, taker = handoff.pair()
    with giver, taker, connection() as (ours, theirs):
        assert handoff.send(giver, handoff.Message(handoff.Kind.HANDOFF), ours.fileno()) == (
            handoff.Sent.SENT
        )
        ours.close()
        theirs.send(b"anybody?")
        message = handoff.receive(taker)
        with socket.socket(fileno=message.fd) as taken:
            assert taken.recv(100) == b"anybody?"


def test_an_epoll_holds_the_open_file_and_not_the_descriptor():
    ours, theirs = socket.socketpair()
    keeper = ours.dup()
    with select.epoll() as watch, theirs, keeper:
        fd = ours.fileno()
        watch.register(fd, select.EPOLLIN)
        ours.close()
        theirs.send(b"x")
        assert watch.poll(1) == [(fd, select.EPOLLIN)]  # of a descriptor that is closed


def test_one_eventfd_that_nobody_reads_wakes_every_edge_triggered_epoll():
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    watchers = [select.epoll() for _ in range(4)]
    try:
        for watch in watchers:
            watch.register(fd, select.EPOLLIN | select.EPOLLET)
        for _ in range(100):
            os.eventfd_write(fd, 1)
            assert [len(watch.poll(1)) for watch in watchers] == [1] * 4
            assert [watch.poll(0) for watch in watchers] == [[]] * 4
        os.eventfd_write(fd, 1)
        os.eventfd_write(fd, 1)
        assert [len(watch.poll(1)) for watch in watchers] == [1] * 4
    finally:
        for watch in watchers:
            watch.close()
        os.close(fd)


def test_a_receiver_out_of_descriptors_loses_one_silently():
    giver, taker = handoff.pair()
    with giver, taker, open(os.devnull) as file:

        def receiver():
            import resource

            used = max(map(int, os.listdir("/proc/self/fd"))) + 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
            fillers = []
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            handoff.send(giver, handoff.Message(handoff.Kind.READY))
            first = handoff.receive(taker)  # the one that lost its descriptor is skipped
            assert first.kind == handoff.Kind.READY

        message = handoff.Message(handoff.Kind.HANDOFF)
        assert handoff.send(giver, message, file.fileno()) == handoff.Sent.SENT
        assert in_child(receiver) == 0


def test_a_full_queue_of_descriptors_is_said_and_blocks_nobody():
    giver, taker = handoff.pair()
    with giver, taker, open(os.devnull) as file:
        message = handoff.Message(handoff.Kind.HANDOFF, 1, 2)
        sent = 0
        while handoff.send(giver, message, file.fileno()) is handoff.Sent.SENT:
            sent += 1
            assert sent < 10_000
        assert handoff.send(giver, message, file.fileno()) is handoff.Sent.FULL
        messages, gone = handoff.receive_all(taker, limit=20_000)
        assert (len(messages), gone) == (sent, False)
        for one in messages:
            os.close(one.fd)
        assert handoff.send(giver, message, file.fileno()) is handoff.Sent.SENT
        os.close(handoff.receive(taker).fd)


def test_what_the_dead_said_is_there_to_be_read_and_then_the_end():
    ours, theirs = handoff.pair()
    with ours:

        def sayer():
            handoff.send(theirs, handoff.Message(handoff.Kind.CLOSED, 3, 4))
            os.kill(os.getpid(), signal.SIGKILL)

        assert in_child(sayer) == -signal.SIGKILL
        theirs.close()
        messages, gone = handoff.receive_all(ours)
        assert [m.kind for m in messages] == [handoff.Kind.CLOSED]
        assert gone


def test_a_received_descriptor_is_not_inheritable():
    giver, taker = handoff.pair()
    with giver, taker, open(os.devnull) as file:
        handoff.send(giver, handoff.Message(handoff.Kind.KEEP), file.fileno())
        fd = handoff.receive(taker).fd
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_two_descriptors_in_one_message_are_both_closed():
    giver, taker = handoff.pair()
    with giver, taker, open(os.devnull) as file:
        before = len(os.listdir("/proc/self/fd"))
        two = array.array("i", [file.fileno(), file.fileno()])
        header = handoff._HEADER.pack(handoff.VERSION, handoff.Kind.HANDOFF, 0, 0, 0)
        giver.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, two)])
        handoff.send(giver, handoff.Message(handoff.Kind.READY))
        assert handoff.receive(taker).kind == handoff.Kind.READY
        assert len(os.listdir("/proc/self/fd")) == before


# --- locks ---------------------------------------------------------------------------


def test_a_lock_of_a_killed_process_is_gone(tmp_path):
    path = tmp_path / "log"
    path.touch()

    def holder():
        fd = os.open(path, os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(holder) == -signal.SIGKILL
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_belongs_to_the_open_file_description_which_fork_shares(tmp_path):
    path = tmp_path / "log"
    path.touch()
    with open(path) as file, open(path) as other:
        fcntl.flock(file, fcntl.LOCK_EX)

        def child():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # shared: excludes nobody
            with open(path) as own, pytest.raises(BlockingIOError):
                fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)  # and this unlocks it for its parent, too

        assert in_child(child) == 0
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_record_lock_is_not_inherited_and_goes_with_any_close(tmp_path):
    path = tmp_path / "pid"
    path.touch()
    fd = os.open(path, os.O_RDWR)

    def somebody_elses():
        with open(path, "r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert in_child(lambda: pytest.raises(BlockingIOError, somebody_elses)) == 0
    os.close(os.open(path, os.O_RDONLY))  # an innocent look at the same file
    assert in_child(somebody_elses) == 0
    os.close(fd)
