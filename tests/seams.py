"""Points at which a test can have a process die; installed before the first fork.

A crash has no line of its own: it comes between any two.  So the server's own
functions are traced, and the next process that comes to the armed one dies there as by
kill -9.  Nothing in the product knows.

What is armed stands in one file, as JSON.  Taking the file away is the permission to
die, so of many processes exactly one does.

    {"function": "commit.Committer.commit", "line": 97}    before that line runs
    {"bytes": 17}     in the middle of the next append, with so much of it in the file
    {"input": "deadly"}    when a line with these words is prepared, every time
    {"input": "deadly", "once": true}    the same, but only the first time
"""

import contextlib
import dis
import importlib
import json
import os
import signal
import sys

from harness import die_after


def install(seam, armed):
    kind, _, names = seam.partition(":")
    {"lines": _trace, "torn": _tear, "poison": _poison}[kind](names.split(","), armed)


def _asked(armed):
    with contextlib.suppress(FileNotFoundError, ValueError):
        return json.loads(armed.read_text())
    return {}


def _permitted(armed):
    try:
        os.unlink(armed)
    except FileNotFoundError:
        return False
    return True


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def find(name):
    """'commit.Committer.commit' -> the function."""
    module, *path = name.split(".")
    found = importlib.import_module(f"papaya_pool.{module}")
    for part in path:
        found = getattr(found, part)
    return getattr(found, "fget", found)


def lines_of(name):
    """The lines of a function at which something begins to run."""
    code = find(name).__code__
    starts = {line for _, line in dis.findlinestarts(code) if line}
    return sorted(starts - {code.co_firstlineno})


def _trace(names, armed):
    wanted = {find(name).__code__: name for name in names}

    def on_call(frame, _event, _arg):
        name = wanted.get(frame.f_code)
        if name is None:
            return None
        asked = _asked(armed)
        if asked.get("function") != name:
            return None
        at = asked["line"]

        def on_line(frame, event, _arg):
            if event == "line" and frame.f_lineno == at and _permitted(armed):
                _die()
            return on_line

        return on_line

    sys.settrace(on_call)


def _tear(_names, armed):
    from papaya_pool import chatlog

    write = chatlog._write

    def torn(fd, data, offset):
        asked = _asked(armed)
        if "bytes" in asked and _permitted(armed):
            die_after(asked["bytes"])(fd, data, offset)
        return write(fd, data, offset)

    chatlog._write = torn


def _poison(_names, armed):
    from papaya_pool import records

    take = records.take

    def deadly(chunk):
        asked = _asked(armed)
        words = asked.get("input")
        if words and words.encode() in chunk and (not asked.get("once") or _permitted(armed)):
            os.abort()
        return take(chunk)

    records.take = deadly
