"""Scenarios from files: those that come with the package, one's own, and plain lists of jobs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from scheduler.errors import ScenarioInvalid
from scheduler.simulate.jobs import JobList
from scheduler.simulate.scenario import Scenario

BUILT_IN = Path(__file__).with_name("scenarios")

Story = Scenario | JobList


def built_in() -> list[str]:
    """Return the names of the scenarios that come with the package."""
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


def read_scenario(name: str) -> Story:
    """Read a built-in scenario by its name, or a file by its path.

    Raises ScenarioInvalid naming every field that is wrong.
    """
    path = BUILT_IN / f"{name}.yaml" if name in built_in() else Path(name)
    try:
        text = path.read_text()
    except OSError as problem:
        known = ", ".join(built_in())
        raise ScenarioInvalid([f"{name} is neither a file nor one of {known}"]) from problem
    return parse(text, name=path.stem)


def parse(text: str, *, name: str) -> Story:
    """Read a scenario, or a list of jobs as it would be submitted, from YAML or JSON."""
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise ScenarioInvalid([f"{name} is neither YAML nor JSON: {problem}"]) from problem
    if not isinstance(given, Mapping):
        raise ScenarioInvalid([f"{name} holds no fields"])
    return _checked({"name": name, **given})


def _checked(given: Mapping[str, Any]) -> Story:
    kind = JobList if "jobs" in given else Scenario
    try:
        return kind.model_validate(given)
    except ValidationError as invalid:
        problems = [_problem(error["loc"], error["msg"]) for error in invalid.errors()]
        raise ScenarioInvalid(problems) from invalid


def _problem(where: tuple[int | str, ...], message: str) -> str:
    field = ".".join(map(str, where)) or "the scenario"
    return f"{field}: {message.removeprefix('Value error, ')}"
