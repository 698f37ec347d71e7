"""``python -m scheduler simulate``: what its options say, and what it prints and writes."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import timedelta
from importlib import import_module
from math import inf
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.errors import ScenarioInvalid
from scheduler.policy.engine import Engine
from scheduler.simulate import ranges
from scheduler.simulate.estimates import score
from scheduler.simulate.history import past
from scheduler.simulate.playing import (
    OURS,
    POLICIES,
    Outcome,
    Setting,
    changed,
    outcome,
    play,
    setting_of,
)
from scheduler.simulate.reading import built_in, read_scenario
from scheduler.simulate.report import side_by_side, table, told

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_SIZES = {"cpu": "cpu_units", "memory": "memory_mb", "processes": "slots"}

Say = Callable[[str], None]
OpenSession = Callable[[], AbstractContextManager[Session]]


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of a command line."""
    parser = commands.add_parser("simulate", help="play the policy on made-up or recorded load")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("scenario", nargs="?", help="a built-in scenario, or a file of one's own")
    what.add_argument("--list", action="store_true", help="name the built-in scenarios")
    what.add_argument("--from-history", type=_stretch, metavar="24h", help="what was recorded")
    what.add_argument(
        "--update-ranges", action="store_true", help="renew what the tests compare results with"
    )
    parser.add_argument("--seed", type=int, default=1, help="another chance, another run")
    parser.add_argument("--hours", type=float, help="for how long jobs arrive")
    parser.add_argument("--compare", action="store_true", help="play plain alternatives, too")
    parser.add_argument("--estimates", action="store_true", help="score estimated starts, too")
    parser.add_argument(
        "--capacity", type=_sizes, default={}, metavar="cpu=16,memory=8192", help="another machine"
    )
    parser.add_argument(
        "--weights", type=_numbers, default={}, metavar="alice=4,bob=1", help="other weights"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--charts", type=Path, metavar="DIR", help="draw the results there")


def run(given: argparse.Namespace, say: Say, open_session: OpenSession) -> int:
    """Do what the options say; return the exit code."""
    try:
        for text in _said(given, open_session):
            say(text)
    except ScenarioInvalid as invalid:
        say("\n".join(invalid.problems))
        return 2
    return 0


def _said(given: argparse.Namespace, open_session: OpenSession) -> Iterator[str]:
    if given.list:
        width = max(map(len, built_in()))
        yield from (f"{name:{width}}  {read_scenario(name).about}" for name in built_in())
    elif given.update_ranges:
        ranges.renew()
        yield f"{ranges.FILE.name} is renewed"
    elif given.from_history is not None:
        with open_session() as session:
            yield from _replayed(given, session)
    else:
        yield from _played(given)


def _played(given: argparse.Namespace) -> Iterator[str]:
    story = read_scenario(given.scenario)
    setting = _changed(setting_of(story, seed=given.seed, hours=given.hours), given)
    outcomes = play(setting, POLICIES if given.compare else [OURS])
    yield told(setting, outcomes)
    yield from _kept(given, setting, outcomes)
    if given.estimates:
        yield score(setting.workload).sentence()


def _replayed(given: argparse.Namespace, session: Session) -> Iterator[str]:
    """Set what was recorded beside what is simulated, as it was and as it would have been."""
    now = clock.now()
    setting, recorded = past(
        session, since=now - given.from_history, until=now, sizes=given.capacity
    )
    outcomes = [recorded, replace(outcome(setting, Engine()), policy="replayed")]
    if given.capacity or given.weights:
        other = _changed(setting, given)
        outcomes.append(replace(outcome(other, Engine()), policy="changed"))
    yield "\n\n".join([told(setting, outcomes), table(side_by_side(outcomes))])
    yield from _kept(given, setting, outcomes)


def _changed(setting: Setting, given: argparse.Namespace) -> Setting:
    workload = changed(setting.workload, sizes=given.capacity, weights=given.weights)
    return replace(setting, workload=workload)


def _kept(
    given: argparse.Namespace, setting: Setting, outcomes: Sequence[Outcome]
) -> Iterator[str]:
    """Write the results to where they are wanted."""
    if given.json is not None:
        given.json.write_text(json.dumps(_as_json(setting, outcomes), indent=2) + "\n")
        yield f"written: {given.json}"
    if given.charts is not None:
        # Drawing takes a library that is slow to load, and most runs draw nothing.
        charts = import_module("scheduler.simulate.charts")
        yield from (f"drawn: {path}" for path in charts.draw(setting, outcomes, given.charts))


def _as_json(setting: Setting, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "scenario": setting.name,
        "about": setting.about,
        "policies": {each.policy: asdict(each.figures) for each in outcomes},
    }


def _stretch(text: str) -> timedelta:
    """Read a stretch of time such as 30m, 24h or 7d."""
    if text[-1:] not in _UNITS or not text[:-1].isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not like 30m, 24h or 7d")
    return int(text[:-1]) * _UNITS[text[-1]]


def _numbers(text: str) -> dict[str, float]:
    """Read numbers above 0 by their names, such as alice=4,bob=1."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    try:
        numbers = {name.strip(): float(number) for name, _, number in pairs}
    except ValueError:
        numbers = {"": 0.0}
    if not all(name and 0 < number < inf for name, number in numbers.items()):
        raise argparse.ArgumentTypeError(f"{text!r} is not like alice=4,bob=1")
    return numbers


def _sizes(text: str) -> dict[str, Any]:
    """Read how large a machine is, such as cpu=16,memory=8192,processes=8."""
    numbers = _numbers(text)
    if unknown := numbers.keys() - _SIZES.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not of {list(_SIZES)}")
    return {_SIZES[name]: n if name == "cpu" else int(n) for name, n in numbers.items()}
