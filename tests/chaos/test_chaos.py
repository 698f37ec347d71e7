"""Whatever dies, freezes, fills up or is cut: what is recorded keeps every promise.

A short run of a few seeds; ``python -m tests.chaos`` makes longer ones of more.
"""

from pathlib import Path

import pytest

from tests.chaos.report import Plan
from tests.chaos.run import play

pytestmark = [pytest.mark.system, pytest.mark.alone, pytest.mark.slow]

SEEDS = (1, 2)
SECONDS, RATE = 20.0, 15.0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken_in_any_trouble(seed: int, tmp_path: Path) -> None:
    run = play(Plan(seed=seed, seconds=SECONDS, rate=RATE), tmp_path)

    assert run.breaches == []
    assert run.counts["jobs"] > SECONDS * RATE / 2
    assert len(run.recoveries) >= 3
