"""papaya-pool: the server, from its command line to its exit code."""

import os
import resource
import sys
import traceback
from collections.abc import Sequence

from papaya_pool import errors, process, settings, supervisor, upgrade
from papaya_pool.room import Room


def main(argv: Sequence[str] | None = None) -> int:
    """Run a pool until it is told to stop.  Returns the exit code."""
    asked = settings.parse_argv(sys.argv[1:] if argv is None else argv, os.environ)
    os.umask(0o077)
    process.name("papaya:super")
    _raise_descriptor_limit()
    if trial_dir := os.environ.get(upgrade.TRIAL):
        asked = settings.for_trial(asked, trial_dir)
    try:
        try:
            room = Room(asked.state_dir, asked.key_file)
            room.hold(upgrade.held_fd(os.environ))
            pool = supervisor.Supervisor(asked, room)
        except OSError as err:  # out of descriptors, of memory, of disk
            raise errors.CannotCreate(f"{err.filename or 'start'}: {err.strerror}") from err
        return pool.run()
    except errors.PoolFault as fault:
        print(f"papaya-pool: {fault}", file=sys.stderr)
        return fault.exit_code
    except Exception:  # a bug; workers chat on, and the next start takes them over
        traceback.print_exc()
        os._exit(errors.EX_SOFTWARE)  # sys.exit would wait for the children


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
