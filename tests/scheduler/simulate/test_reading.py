import json
from pathlib import Path
from typing import Any

import pytest

from scheduler.errors import ScenarioInvalid
from scheduler.simulate.jobs import JobList
from scheduler.simulate.reading import built_in, parse, read_scenario
from scheduler.simulate.scenario import Scenario

SUBMITTED = Path(__file__).parents[2] / "system" / "scenarios"
USER: dict[str, Any] = {
    "name": "ann",
    "jobs": [{"arrivals": {"backlog": 3}, "shapes": [{"seconds": 2}]}],
}
SMALL: dict[str, Any] = {"capacity": {"cpu_units": 2}, "users": [USER]}


def problems(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(ScenarioInvalid) as refused:
        parse(json.dumps(SMALL | changes), name="mine")
    return refused.value.problems


def with_jobs(**changes: Any) -> list[dict[str, Any]]:
    (jobs,) = USER["jobs"]
    return [{**USER, "jobs": [jobs | changes]}]


@pytest.mark.parametrize("name", built_in())
def test_every_built_in_scenario_can_be_read(name: str) -> None:
    found = read_scenario(name)

    assert isinstance(found, Scenario)
    assert found.name == name
    assert found.about


def test_the_stories_of_the_design_are_built_in() -> None:
    assert set(built_in()) >= {
        "everyday",
        "flood",
        "critical-flood",
        "sharded",
        "wide-starvation",
        "saturation",
        "ten-thousand-users",
    }


def test_yaml_and_json_are_read_alike(tmp_path: Path) -> None:
    as_json, as_yaml = tmp_path / "one.json", tmp_path / "one.yaml"
    as_json.write_text(json.dumps(SMALL))
    as_yaml.write_text(
        "capacity: {cpu_units: 2}\n"
        "users: [{name: ann, jobs: [{arrivals: {backlog: 3}, shapes: [{seconds: 2}]}]}]"
    )

    assert read_scenario(str(as_json)) == read_scenario(str(as_yaml))


def test_a_name_that_is_neither_file_nor_scenario_is_refused_with_those_there_are() -> None:
    with pytest.raises(ScenarioInvalid, match=r"neither a file nor one of busy, .*everyday"):
        read_scenario("evryday")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hours": -1}, "hours: Input should be greater than 0"),
        ({"horus": 1}, "horus: Extra inputs are not permitted"),
        ({"users": []}, "users: Tuple should have at least 1 item"),
        ({"users": [USER, USER]}, "every name under users must be another one"),
        ({"watch": ["bob"]}, "watch names bob, whom users does not"),
        ({"workers": [{}]}, "give either capacity or workers"),
        ({"capacity": {"cpu_units": float("inf")}}, "capacity.cpu_units: Input should be a finite"),
        ({"users": with_jobs(arrivals={})}, "users.0.jobs.0.arrivals: give exactly one of poisson"),
        (
            {"users": with_jobs(arrivals={"poisson": {"rate": {"load": 1, "per_hour": 2}}})},
            "users.0.jobs.0.arrivals.poisson.rate: give exactly one of per_hour, load",
        ),
        (
            {"users": with_jobs(classes={"urgent": 1})},
            "users.0.jobs.0.classes.urgent.[key]: Input should be 'critical', 'high'",
        ),
        (
            {"users": with_jobs(shapes=[{"seconds": {"gauss": 3}}])},
            "users.0.jobs.0.shapes.0.seconds.gauss: Extra inputs are not permitted",
        ),
        ({"users": with_jobs(expected="guessed")}, "users.0.jobs.0.expected.guessed: Extra inputs"),
    ],
)
def test_an_error_names_the_field(changes: dict[str, Any], problem: str) -> None:
    found = problems(**changes)

    assert any(one.removeprefix("the scenario: ").startswith(problem) for one in found), found


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just words"])
def test_what_holds_no_fields_is_refused(text: str) -> None:
    with pytest.raises(ScenarioInvalid, match="mine"):
        parse(text, name="mine")


@pytest.mark.parametrize("number", [1, 4, 7])
def test_jobs_as_they_are_submitted_can_be_played(number: int) -> None:
    (path,) = SUBMITTED.glob(f"{number}-*.json")

    found = read_scenario(str(path))

    assert isinstance(found, JobList)
    assert len(found.jobs) == len(json.loads(path.read_text())["jobs"])


def test_jobs_that_wait_for_others_are_refused() -> None:
    (path,) = SUBMITTED.glob("2-*.json")

    with pytest.raises(ScenarioInvalid, match=r"jobs\.1\.depends_on: jobs that wait for others"):
        read_scenario(str(path))
