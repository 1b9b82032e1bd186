"""Everything we raise on purpose, sorted by who has to stop.

A new error belongs under the smallest of the three bases that is honest: bad
input is a SessionFault however deep it was found, and a PoolFault is only what
a person has to look at.

Order:   each base is caught in exactly one place: SessionFault in the loop that
         serves the session, WorkerFault in the main of the process that raised
         it, PoolFault in the program.
Format:  exit codes are an interface (sysexits.h where it has a word for it).
"""

from typing import ClassVar

EX_OK = 0
EX_USAGE = 2  # as argparse and bash say it, not sysexits' 64
EX_BOOT = 3  # a worker that could not boot: the pool stops instead of looping
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_CANTCREAT = 73
EX_NOPERM = 77
EX_CONFIG = 78


class SessionFault(Exception):
    """This client's connection must close.  Nobody else notices."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(code, words)
        self.code = code
        self.words = words

    def __str__(self) -> str:
        return f"{self.code} {self.words}"

    def wire(self) -> bytes:
        """What the client is told; law 7: only ever as its very last bytes."""
        return f"ERR {self.code} {self.words}\n".encode()


class WorkerFault(Exception):
    """This process can no longer be trusted.  It exits and its slot is refilled."""


class PoolFault(Exception):
    """Going on would make it worse.  Every process stops and a person looks."""

    exit_code: ClassVar[int] = EX_SOFTWARE


class UsageFault(PoolFault):
    """The command line asks for what cannot be."""

    exit_code = EX_USAGE


class CannotCreate(PoolFault):
    """Something that the pool needs to itself is not to be had.

    The port is taken, the state directory is not writable, /dev/shm is too
    small, or a live pool holds the state directory.
    """

    exit_code = EX_CANTCREAT


class BadConfig(PoolFault):
    """A file that a person wrote does not say what it should."""

    exit_code = EX_CONFIG


class LogCorrupt(PoolFault):
    """A line before the tail is no valid record.  Never repaired in place."""

    exit_code = EX_CONFIG


class CannotBoot(PoolFault):
    """Workers die before they are ready, again and again."""

    exit_code = EX_SOFTWARE
