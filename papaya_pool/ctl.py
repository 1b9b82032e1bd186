"""papaya-ctl: the administrator's hand.

Looking needs nobody's answer: it reads the scoreboard.  Acting goes over
control.sock to the supervisor, which answers at once; where the act takes time,
papaya-ctl watches the scoreboard until it is done, and says so if it is not.

Format:  exit codes 0 done; 1 the action failed; 2 usage; 69 no pool there; 77 not
         permitted.  --json prints one object.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from papaya_pool import control, errors, logbook, records, scoreboard, settings, takeover
from papaya_pool import __version__
from papaya_pool.room import Room

_EPILOG = """\
exit codes:
  0   done
  1   it failed, and why is one line on stderr
  2   a mistake on the command line
  69  no pool there
  77  not permitted
"""

_PATIENCE_S = 30.0
_LOOK_S = 0.05


class Failed(Exception):
    """What was asked for did not happen.  The exit code, and why."""

    def __init__(self, why: str, exit_code: int = 1) -> None:
        super().__init__(why)
        self.exit_code = exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command.  Returns the exit code."""
    asked = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        room = Room(settings.find_state_dir(asked.state_dir, os.environ))
        answer, words = asked.run(room, asked)
    except Failed as failed:
        return _complain(asked, str(failed), failed.exit_code)
    except errors.UsageFault as fault:
        return _complain(asked, str(fault), errors.EX_USAGE)
    except PermissionError as err:
        return _complain(asked, f"not permitted: {err.filename or room.dir}", errors.EX_NOPERM)
    except OSError as err:
        return _complain(asked, f"{err.filename or room.dir}: {err.strerror}", 1)
    try:
        print(json.dumps(answer) if asked.json else words, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _complain(asked: argparse.Namespace, why: str, exit_code: int) -> int:
    if asked.json:
        print(json.dumps({"ok": False, "error": why}))
    print(f"papaya-ctl: {why}", file=sys.stderr)
    return exit_code


Answer = tuple[dict[str, Any], str]


# --- looking -------------------------------------------------------------------------


def _board(room: Room) -> scoreboard.Scoreboard:
    name = room.scoreboard()
    try:
        if name and "/" not in name:
            return scoreboard.look(name)
    except (FileNotFoundError, ValueError):
        pass
    raise Failed(f"no pool runs in {room.dir}", errors.EX_UNAVAILABLE)


def _status(room: Room, asked: argparse.Namespace) -> Answer:
    board = _board(room)
    if not takeover.living(board):
        raise Failed(f"no pool runs in {room.dir}", errors.EX_UNAVAILABLE)
    head = board.head()
    rows = [
        {
            "slot": slot.number,
            "role": _role(board, slot),
            "pid": slot.pid or None,
            "gen": slot.generation,
            "state": scoreboard.STATES[slot.state],
            "sessions": slot.sessions if slot.number < board.worker_count else None,
        }
        for slot in board.processes
        if slot.pid or slot.number < board.worker_count
    ]
    members = sum(1 for _ in _live(board))
    answer = {"ok": True, "head_seq": head.seq, "log_bytes": head.tail, "log": board.log_id,
              "port": board.words[scoreboard.H_PORT], "members": members,
              "processes": rows}  # fmt: skip
    lines = [f"port {answer['port']}  head {head.seq}  log {head.tail} bytes  members {members}"]
    lines.append(f"{'SLOT':>4} {'ROLE':<10} {'PID':>8} {'GEN':>5} {'STATE':<9} {'SESS':>6}")
    for row in rows:
        shown = {key: "-" if value is None else value for key, value in row.items()}
        lines.append(
            "{slot:>4} {role:<10} {pid:>8} {gen:>5} {state:<9} {sessions:>6}".format(**shown)
        )
    return answer, "\n".join(lines)


def _role(board: scoreboard.Scoreboard, slot: scoreboard.ProcessSlot) -> str:
    if slot.number < board.worker_count:
        return "worker"
    return scoreboard.ROLES[slot.number - board.worker_count]


def _live(board: scoreboard.Scoreboard) -> list[scoreboard.SessionSlot]:
    return [s for s in board.sessions() if s.state == scoreboard.LIVE]


def _who(room: Room, asked: argparse.Namespace) -> Answer:
    board, now_ms = _board(room), time.time_ns() // 1_000_000
    members = [
        {
            "session": s.number,
            "name": s.name or "(classic)",
            "dialect": scoreboard.DIALECTS[s.dialect],
            "address": s.address,
            "age_s": round((now_ms - s.since_ms) / 1000, 1),
        }
        for s in _live(board)
    ]
    lines = [f"{m['session']:>7} {m['name']:<32} {m['dialect']:<8} {m['address']}" for m in members]
    return {"ok": True, "members": members}, "\n".join([f"{len(lines)} members", *lines])


# --- acting --------------------------------------------------------------------------


def _ask(room: Room, *words: object) -> dict[str, Any]:
    try:
        answer = control.ask(room, [str(word) for word in words])
    except PermissionError:
        raise
    except OSError as err:
        raise Failed(f"no supervisor answers in {room.dir}", errors.EX_UNAVAILABLE) from err
    if not answer.get("ok"):
        raise Failed(str(answer.get("error")))
    return answer


def _until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            raise Failed(f"{what} is not done after {_PATIENCE_S:.0f} s; it goes on")
        time.sleep(_LOOK_S)


def _drain(room: Room, asked: argparse.Namespace) -> Answer:
    answer = _ask(room, "drain", asked.worker)
    slot = _board(room).workers[answer["worker"]]
    _until(lambda: slot.sessions == 0, "the drain")
    return answer, f"worker {answer['worker']} is drained; `papaya-ctl rebalance` ends that"


def _rebalance(room: Room, asked: argparse.Namespace) -> Answer:
    board = _board(room)

    def even() -> bool:
        serving = [s for s in board.workers if s.state == scoreboard.SERVING]
        counts: list[int] = [slot.sessions for slot in serving]
        return max(counts, default=0) - min(counts, default=0) <= 1

    answer = _ask(room, "rebalance")
    _until(even, "the rebalancing")
    return answer, f"{answer['moves']} members moved"


def _plain(verb: str, words: str) -> Callable[[Room, argparse.Namespace], Answer]:
    def run(room: Room, asked: argparse.Namespace) -> Answer:
        return _ask(room, verb), words

    return run


def _recycle(room: Room, asked: argparse.Namespace) -> Answer:
    board = _board(room)
    before = [slot.generation for slot in board.workers]
    answer = _ask(room, "recycle", *asked.worker)
    serving = (scoreboard.SERVING, scoreboard.DRAINED)

    def done() -> bool:
        new: list[bool] = [
            slot.generation > old and slot.state in serving
            for slot, old in zip(board.workers, before, strict=True)
        ]
        return sum(new) >= int(answer["workers"])

    _until(done, "the recycling")
    return answer, f"{answer['workers']} workers replaced"


def _kick(room: Room, asked: argparse.Namespace) -> Answer:
    wanted = records.folded(asked.member)
    kicked = []
    for session in _live(_board(room)):
        if asked.member == str(session.number) or records.folded(session.name) == wanted:
            _ask(room, "kick", session.number, session.generation)
            kicked.append(session.number)
    if not kicked:
        raise Failed(f"nobody here is {asked.member!r}")
    return {"ok": True, "kicked": kicked}, f"{len(kicked)} sessions ended"


def _ban(room: Room, asked: argparse.Namespace) -> Answer:
    words = [asked.who, *asked.duration]
    if len(words) > 1 and words[1] == "for":
        del words[1]
    answer = _ask(room, "ban", *words)
    return answer, f"banned; {answer['ended']} sessions ended"


def _unban(room: Room, asked: argparse.Namespace) -> Answer:
    return _ask(room, "unban", asked.who), "may come in again"


def _bans(room: Room, asked: argparse.Namespace) -> Answer:
    answer = _ask(room, "bans")
    lines = []
    for what, until_ms in sorted(answer["bans"].items()):
        until = records.stamp(until_ms).decode() if until_ms else "for good"
        lines.append(f"{what:<40} {until}")
    return answer, "\n".join(lines) or "nobody is banned"


def _upgrade(room: Room, asked: argparse.Namespace) -> Answer:
    block = _ask(room, "upgrade")["block"]
    outcome: dict[str, Any] = {}

    def over() -> bool:
        try:
            outcome.update(_ask(room, "upgraded"))
        except Failed:
            return False  # between the old code and the new nobody listens
        return bool(outcome["refused"] or outcome["block"] != block)

    _until(over, "the upgrade")
    if outcome["block"] == block:
        raise Failed(f"the new code does not start, the old goes on: {outcome['refused']}")
    return {"ok": True}, "upgraded"


# --- the log -------------------------------------------------------------------------


def _log(room: Room, asked: argparse.Namespace) -> Answer:
    lines = logbook.lines(room.log, asked.first, asked.last, asked.grep)
    if asked.json:
        found = [records.parse(line)._asdict() for line in lines]
        return {"ok": True, "records": found}, ""
    return {}, b"".join(lines).decode("utf-8", "replace").removesuffix("\n")


def _verify(room: Room, asked: argparse.Namespace) -> Answer:
    verdict = logbook.verify(room.log)
    if verdict.bad_at is not None:
        raise Failed(f"{room.log}: damaged at byte {verdict.bad_at}, after seq {verdict.records}")
    answer = {"ok": True, **verdict._asdict()}
    torn = f", and {verdict.torn_bytes} bytes of a line that is not whole" * bool(verdict.torn_bytes)
    return answer, f"{verdict.records} records, {verdict.size_bytes} bytes, all valid{torn}"


def _salvage(room: Room, asked: argparse.Namespace) -> Answer:
    saved = logbook.salvage(room.log)
    answer = {"ok": True, "records": saved.records, "dropped": saved.dropped_lines,
              "path": str(saved.path)}  # fmt: skip
    return answer, (
        f"{saved.records} records written to {saved.path}, numbered anew; "
        f"{saved.dropped_lines} lines were none.\nTo use it, with no pool running: keep "
        f"{room.log.name} elsewhere, move {saved.path.name} to its place, remove {room.id_file.name}"
    )


def _invite(room: Room, asked: argparse.Namespace) -> Answer:
    port = _board(room).words[scoreboard.H_PORT]
    invitation = f"papaya://127.0.0.1:{port}/{room.key().decode()}"
    return {"ok": True, "invitation": invitation}, invitation


# --- the command line ----------------------------------------------------------------


def parser() -> settings.Parser:
    """Also what the shell completion and the man page are made from."""
    options = settings.Parser(
        prog="papaya-ctl",
        description="Look at a running papaya-pool, and steer it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    common = settings.Parser(add_help=False)
    for each in (options, common):
        # Before the verb or behind it; the one behind must not undo the other.
        default = None if each is options else argparse.SUPPRESS
        each.add_argument("--state-dir", metavar="DIR", default=default,
                          help="where the pool keeps its files (default: as papaya-pool)")  # fmt: skip
        each.add_argument("--json", action="store_true", default=False if each is options else argparse.SUPPRESS,
                          help="print one JSON object")  # fmt: skip
    verbs = options.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[Room, argparse.Namespace], Answer], words: str) -> Any:
        verb = verbs.add_parser(name, help=words, description=words, parents=[common])
        verb.set_defaults(run=run)
        return verb

    add("status", _status, "the pool's processes and its log's head")
    add("who", _who, "its members")
    add("drain", _drain, "move a worker's members to the others").add_argument("worker")
    add("rebalance", _rebalance, "let every worker serve again, and share the members out")
    add("recycle", _recycle, "replace workers one by one").add_argument(
        "worker", nargs="*", default=[]
    )
    add("kick", _kick, "end the sessions of a member").add_argument(
        "member", metavar="SESSION|NAME"
    )
    ban = add("ban", _ban, "keep a name, an address or a network out")
    ban.add_argument("who", metavar="NAME|ADDR")
    ban.add_argument("duration", nargs="*", metavar="for DURATION", default=[],
                     help="90s, 10m, 2h or 7d; else for good")  # fmt: skip
    add("unban", _unban, "let them in again").add_argument("who", metavar="NAME|ADDR")
    add("bans", _bans, "who is banned, and until when")
    add("pause", _plain("pause", "the door is closed; members chat on"), "refuse newcomers")
    add("resume", _plain("resume", "the door is open"), "let newcomers in again")
    add("reload", _plain("reload", "the key was read again"), "read keys and settings again")
    add("upgrade", _upgrade, "run the code that is on disk now; members stay")
    log = add("log", _log, "print the log")
    log.add_argument("--from", dest="first", metavar="SEQ", type=int, default=1,
                     help="the first message (default: 1)")  # fmt: skip
    log.add_argument("--to", dest="last", metavar="SEQ", type=int, help="the last one")
    log.add_argument("--grep", metavar="TEXT", default="", help="only lines with this in them")
    add("verify", _verify, "check every line of the log")
    add("salvage", _salvage, "write the valid lines of a damaged log to a new one")
    add("invite", _invite, "print what lets somebody in")
    return options


if __name__ == "__main__":
    sys.exit(main())
