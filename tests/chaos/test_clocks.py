"""A process has a wall clock of its own that jumps while it runs; nobody else's does."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import programs
from scheduler import clock
from tests.chaos.clocks import Clocks

HOUR = 3_600.0
SHOWS = """
import sys, time
from datetime import datetime
from scheduler import clock
for _ in sys.stdin:
    print(time.time(), clock.now().timestamp(), time.monotonic(), flush=True)
"""


class Shown:
    """A process that says what its clocks say."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def look(self) -> tuple[float, float, float]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        one, other, monotonic = map(float, self._process.stdout.readline().split())
        return one, other, monotonic


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    return Clocks(tmp_path, ["web", "worker1"])


@pytest.fixture
def shown(clocks: Clocks) -> Iterator[Shown]:
    environment = {**programs.inherited_environment(), **clocks.environment("web")}
    with subprocess.Popen(
        [sys.executable, "-c", SHOWS],
        env=environment,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Shown(process)
        assert process.stdin
        process.stdin.close()


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_it_jumps_and_comes_back(clocks: Clocks, shown: Shown, ahead: float) -> None:
    for offset in (0.0, ahead, 0.0):
        clocks.set("web", offset)
        one, other, _ = shown.look()
        expected = clock.now().timestamp() + offset
        assert one == pytest.approx(expected, abs=HOUR / 2)
        assert other == pytest.approx(expected, abs=HOUR / 2)


def test_the_monotonic_clock_and_other_processes_do_not_jump(clocks: Clocks, shown: Shown) -> None:
    before = shown.look()

    clocks.set("worker1", HOUR)
    wall, _, _ = shown.look()
    clocks.set("web", HOUR)
    _, _, monotonic = shown.look()

    assert wall - before[0] < HOUR / 2
    assert monotonic - before[2] < HOUR / 2
