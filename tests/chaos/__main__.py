"""Trouble for a whole Fairq of real processes: python -m tests.chaos --seed 1 --minutes 3.

Prints a report and writes it to a file, or to its place in one. The exit code tells whether every
invariant held and every promise was kept; a seed that breaks one does so again.
"""

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.chaos import report
from tests.chaos.disk import Disk
from tests.chaos.report import Plan, Run
from tests.chaos.run import play

_NO_DISK = "The disk of Postgres was not filled: mounting a small one was not allowed here."


def main() -> int:
    chosen = _arguments()
    runs = list(_play_all(chosen))
    left_out = [] if _can_mount() else [_NO_DISK]
    command = shlex.join(["python", "-m", "tests.chaos", *_shown_arguments(chosen)])
    text = report.render(runs, command=command, left_out=left_out)
    print(text)
    if chosen.report:
        report.write(chosen.report, text)
    return 0 if report.is_well(runs) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first run; others follow")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long each makes trouble")
    parser.add_argument("--rate", type=float, default=20.0, help="jobs a second")
    parser.add_argument("--report", type=Path, help="where the report goes, besides the screen")
    return parser.parse_args()


def _shown_arguments(chosen: argparse.Namespace) -> Iterator[str]:
    for name in ("seed", "seeds", "minutes", "rate"):
        yield from (f"--{name}", f"{getattr(chosen, name):g}")


def _play_all(chosen: argparse.Namespace) -> Iterator[Run]:
    for seed in range(chosen.seed, chosen.seed + chosen.seeds):
        plan = Plan(seed=seed, seconds=chosen.minutes * 60, rate=chosen.rate)
        directory = Path(tempfile.mkdtemp(prefix=f"fairq-chaos-{seed}-"))
        run = play(plan, directory)
        print(_line(run), file=sys.stderr, flush=True)
        for breach in run.breaches:
            print(f"  {breach.rule}: {breach.told}", file=sys.stderr)
        if run.breaches:
            print(f"  logs and history: {directory}", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(directory)
        yield run


def _line(run: Run) -> str:
    counts = run.counts
    told = f"seed {run.plan.seed}: {len(run.recoveries)} faults, {counts['jobs']} jobs,"
    return f"{told} {counts['lost']} attempts lost, {len(run.breaches)} invariants broken"


def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as directory, Disk(Path(directory) / "disk") as disk:
        return disk.is_small


if __name__ == "__main__":
    sys.exit(main())
