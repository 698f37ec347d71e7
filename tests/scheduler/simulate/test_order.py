"""The order of starts of the scenarios that real workers run, as their own tests assert it."""

import json
from pathlib import Path
from typing import Any

import pytest

from scheduler.policy.engine import Engine
from scheduler.simulate.jobs import JobList
from scheduler.simulate.loop import Run, Simulation
from scheduler.simulate.workload import listed

SUBMITTED = Path(__file__).parents[2] / "system" / "scenarios"


def scenario(number: int, *, processes: int) -> dict[str, Any]:
    (path,) = SUBMITTED.glob(f"{number}-*.json")
    given = dict(json.loads(path.read_text()))
    capacity = {"cpu_units": 8, "memory_mb": 4096, **given.get("capacity", {})}
    return {"name": path.stem, **given, "capacity": {**capacity, "processes": processes}}


def played(given: dict[str, Any]) -> list[Run]:
    """Play a list of jobs; return the runs in the order of their starts."""
    workload = listed(JobList.model_validate(given))
    runs = Simulation(workload, Engine()).run()
    return sorted(runs, key=lambda run: (run.started is None, run.started))


def test_scenario_1_classes_start_in_order_on_one_busy_processor() -> None:
    given = scenario(1, processes=1)
    busy = {"priority": "critical", "payload": {"duration_seconds": 1}}

    _, *others = played(given | {"jobs": [busy, *given["jobs"]]})

    assert [run.job.job_class for run in others] == ["critical", "normal", "low"]


def test_scenario_4_light_jobs_fill_gaps_and_delay_no_heavy_one() -> None:
    runs = played(scenario(4, processes=8))

    heavy = [run for run in runs if run.job.name.startswith("heavy")]
    assert {run.job.name for run in heavy[:2]} == {"heavy_1", "heavy_2"}
    assert [run.job.name for run in heavy[2:]] == ["heavy_3", "heavy_4", "heavy_5"]
    assert [run.started for run in heavy] == [0, 0, 1, 1, 2]
    light = [run for run in runs if run.job.name.startswith("light")]
    assert max(run.ended or 0 for run in light) <= 3


@pytest.mark.parametrize("processes", [1, 4])
def test_scenario_7_starts_follow_the_weights(processes: int) -> None:
    given = scenario(7, processes=processes)
    owners = [owner["username"] for owner in given["users"]]

    runs = played(given)

    order = [owners[run.job.owner_id - 1] for run in runs]
    assert "bronze" in order[:4]
    for count in range(4, 41, 4):  # gold's 30 jobs last for 40 starts
        assert abs(order[:count].count("bronze") - count / 4) <= 1, order[:count]
    for owner in (1, 2):
        own = [run.job.id for run in runs if run.job.owner_id == owner]
        assert own == sorted(own)


def test_scenario_7_more_processors_shorten_the_run_in_proportion() -> None:
    spans = [max(run.ended or 0 for run in played(scenario(7, processes=n))) for n in (2, 4)]

    assert 1.5 < spans[0] / spans[1] < 2.5
