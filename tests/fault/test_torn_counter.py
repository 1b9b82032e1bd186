"""Why every field of the scoreboard is one aligned word (law 9), and the control."""

import mmap
import os
import platform
import signal

import pytest
from harness import in_child

LINE = 64
ALL, NONE = (1 << 64) - 1, 0
STORES = 200_000


def torn(offset):
    """Whether a reader saw half of a store at that offset, within so many reads."""
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    words = memoryview(shared)[offset : offset + 8].cast("Q")
    cpus = os.sched_getaffinity(0)
    writer = os.fork()
    if not writer:
        os.sched_setaffinity(0, {max(cpus)})  # on one CPU nothing is ever seen torn
        while True:
            for _ in range(1000):
                words[0] = ALL
                words[0] = NONE
    try:
        os.sched_setaffinity(0, {min(cpus)})
        return any(words[0] not in (ALL, NONE) for _ in range(STORES))
    finally:
        os.sched_setaffinity(0, cpus)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        words.release()


@pytest.mark.parametrize("offset", [0, 8, 56, LINE, 3 * LINE + 16])
def test_an_aligned_word_is_seen_whole(offset):
    assert not torn(offset)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="others trap or hide it")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU sees its own stores whole")
def test_a_word_across_two_cache_lines_is_seen_torn():
    """The control: without it the test above would prove nothing."""
    assert any(torn(LINE - 4) for _ in range(20))


def test_a_child_sees_what_is_stored_before_its_fork_and_after():
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    words = memoryview(shared).cast("Q")
    words[1] = 7

    def child():
        assert words[1] == 7
        words[2] = 8

    assert in_child(child) == 0
    assert words[2] == 8
    words.release()
