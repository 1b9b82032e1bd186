"""A room's files: its log, its key, its name, and who holds them.

One room for now.  Its head, log and key are only reached through here and the
scoreboard, so that a second room is a second instance and not a rewrite.

Owner:   the supervisor writes; everybody may ask for a path.
Order:   hold() first.  Nothing else in the directory may be touched before it.
Failure: every mistake of the administrator's is a PoolFault with an exit code of
         its own (design: files and the command line).
"""

import fcntl
import os
import secrets
import socket
import string
from pathlib import Path

from papaya_pool import errors

KEY_DIGITS = 128
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Room:
    """The state directory of one pool."""

    def __init__(self, state_dir: Path, key_file: Path | None = None) -> None:
        self.dir = state_dir
        self.log = state_dir / "room.log"
        self.id_file = state_dir / "room.id"
        self.key_file = key_file or state_dir / "key"
        self.control = state_dir / "control.sock"
        self.bans = state_dir / "bans"
        self._own_key = key_file is None
        self._pid = state_dir / "pid"
        self._port = state_dir / "port"
        self._scoreboard = state_dir / "scoreboard"
        self._unclean = state_dir / "unclean"
        self.is_new = False  # whether the key was made just now
        self.held_fd = -1  # of `pid`, locked; see hold()

    # --- one supervisor a directory ---

    def hold(self, handed_down: int = -1) -> None:
        """Take the directory, for as long as this process lives.  CannotCreate if held.

        `handed_down` is the descriptor that this process locked as other code.

        A record lock and not flock: orphaned workers would inherit an flock and
        keep the next supervisor out.  It goes with the first close of the file by
        this process, so `pid` is opened once and never again.
        """
        if handed_down >= 0:
            self.held_fd = handed_down
            os.set_inheritable(handed_down, False)
            return
        try:
            self.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            while not self._hold_pid_file():
                pass
        except BlockingIOError as err:
            pid = os.pread(self.held_fd, 32, 0).decode("ascii", "replace").strip()
            raise errors.CannotCreate(
                f"{self.dir} is held by a live papaya-pool, pid {pid or 'unknown'}"
            ) from err
        except OSError as err:
            raise errors.CannotCreate(f"{self.dir}: {err.strerror}") from err
        os.ftruncate(self.held_fd, 0)
        os.pwrite(self.held_fd, b"%d\n" % os.getpid(), 0)

    def _hold_pid_file(self) -> bool:
        """Open and lock `pid`; False if it was taken away in between."""
        self.held_fd = os.open(self._pid, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self.held_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            same = os.stat(self._pid).st_ino == os.fstat(self.held_fd).st_ino
        except FileNotFoundError:
            same = False
        if not same:
            os.close(self.held_fd)
        return same

    def leave(self) -> None:
        """A clean stop: nothing but the room itself stays behind."""
        for path in (self._port, self._scoreboard, self.control, self._unclean, self._pid):
            path.unlink(missing_ok=True)

    # --- the key ---

    def key(self) -> bytes:
        """The key's 128 digits; made at the first start.  Raises BadConfig."""
        if self._own_key and not self.key_file.exists():
            write_private(self.key_file, secrets.token_hex(KEY_DIGITS // 2).encode())
            self.is_new = True
        return read_key(self.key_file)

    # --- the log's name ---

    def log_id(self, renew: bool = False) -> str:
        """The 16 hex digits that seqs belong to; made with the log."""
        if not renew and self.id_file.exists():
            log_id = self.id_file.read_text("ascii", "replace").strip()
            if len(log_id) == 16 and set(log_id) <= set(string.hexdigits):
                return log_id
            raise errors.BadConfig(f"{self.id_file} holds no 16 hex digits")
        log_id = secrets.token_hex(8)
        write_private(self.id_file, log_id.encode() + b"\n")
        return log_id

    def note_running(self) -> None:
        """From now on the log may end unclean, in this boot of the machine."""
        write_private(self._unclean, boot_id().encode() + b"\n")

    def lost_its_cache(self) -> bool:
        """Whether the last pool ended unclean and the machine was rebooted since.

        Within one boot the page cache kept everything that a killed pool wrote.
        """
        try:
            return self._unclean.read_text("ascii", "replace").strip() != boot_id()
        except FileNotFoundError:
            return False

    # --- what others find the pool by ---

    def announce(self, port: int, scoreboard: str) -> None:
        write_private(self._port, b"%d\n" % port)
        write_private(self._scoreboard, scoreboard.encode() + b"\n")

    def scoreboard(self) -> str | None:
        """The name of the block of the pool that runs here, or ran last."""
        try:
            return self._scoreboard.read_text("ascii", "replace").strip()
        except FileNotFoundError:
            return None


def read_key(path: Path) -> bytes:
    """The 128 digits in a key file.  Raises BadConfig."""
    try:
        # Not waiting: a FIFO without a writer would keep the start for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode, digits = os.fstat(fd).st_mode, os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError as err:
        raise errors.BadConfig(f"key file {path}: {err.strerror}") from err
    if mode & 0o077:
        raise errors.BadConfig(f"key file {path} is open to others: chmod 600 it")
    digits = digits.strip()
    if len(digits) != KEY_DIGITS or not set(digits.decode("latin-1")) <= set(string.hexdigits):
        raise errors.BadConfig(f"key file {path} must hold exactly {KEY_DIGITS} hex digits")
    return digits


def write_private(path: Path, content: bytes) -> None:
    """Replace a file as one act, readable by its owner alone.  Raises CannotCreate."""
    new = path.with_name(path.name + ".new")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
        os.replace(new, path)
    except OSError as err:
        raise errors.CannotCreate(f"{path}: {err.strerror}") from err


def boot_id() -> str:
    """What changes when the machine is rebooted."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def control_address(room: Room, sock: socket.socket, act: str) -> None:
    """Bind or connect a unix socket to `control.sock`, however long its path is.

    A socket's path has 108 bytes, so it is reached through the directory's own
    descriptor.
    """
    directory = os.open(room.dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{directory}/{room.control.name}"
        path = short if os.path.isdir("/proc/self/fd") else str(room.control)
        getattr(sock, act)(path)
    finally:
        os.close(directory)
