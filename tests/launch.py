"""Run the server with small limits, or with a seam in it at which a process dies.

    python launch.py '{"settings": {...}, "limits": {...}, "seam": null}' ARGS...

Everything is done before the first fork, so all of the pool's processes inherit it;
the product itself knows nothing of it (style section 7.7).
"""

import dataclasses
import json
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papaya_pool import __main__ as program  # noqa: E402
from papaya_pool import settings  # noqa: E402


def main(asked, argv):
    for name, value in asked["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if asked["seam"]:
        import seams

        seams.install(asked["seam"], Path(asked["armed"]))
    parse_argv = settings.parse_argv

    def parse(argv, environ):
        return dataclasses.replace(parse_argv(argv, environ), **asked["settings"])

    settings.parse_argv = parse
    return program.main(argv)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
