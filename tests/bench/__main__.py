"""``python -m tests.bench [NAME ...] [--quick]``: run benchmarks on services of their own.

Prints figures and asserts nothing about them: a machine's speed is not a property of the code.
"""

import argparse
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.bench import data_path, end_to_end, listening, listing, planning
from tests.services import OwnServices, Services

BENCHMARKS: dict[str, Callable[[Services, Path, bool], None]] = {
    "end_to_end": end_to_end.run,
    "planning": planning.run,
    "data_path": data_path.run,
    "listing": listing.run,
    "listening": listening.run,
}


def main() -> None:
    """Run what was asked for, or everything."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], default=[])
    parser.add_argument("--quick", action="store_true", help="small sizes: does it still run?")
    given = parser.parse_args()
    memory = psutil.virtual_memory().total / 2**30
    print(f"{psutil.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="fairq-bench-") as directory:
        home = Path(directory)
        home.chmod(0o755)
        with Services.from_environment() or OwnServices(home) as services:
            for name in given.names or BENCHMARKS:
                print(f"\n== {name}")
                BENCHMARKS[name](services, home, given.quick)


if __name__ == "__main__":
    main()
