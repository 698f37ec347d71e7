"""``python -m local up [--demo]`` and ``python -m local test [PATH ...]``."""

import argparse
import signal
import sys

from local.gate import gate
from local.up import up


def _main() -> int:
    options = _parser().parse_args()
    if options.command == "up":
        return up(demo=options.demo)
    # As Ctrl-C does: end what runs, and give the services time to stop.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return gate(options.paths)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairq")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", prog="bin/up", description="Start Fairq on this machine.")
    start.add_argument("--demo", action="store_true", help="three users and a steady mixed load")
    check = commands.add_parser("test", prog="bin/test", description="Run every check.")
    check.add_argument("paths", nargs="*", metavar="PATH", help="run only the tests there")
    return parser


if __name__ == "__main__":
    sys.exit(_main())
