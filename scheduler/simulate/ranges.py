"""What the built-in scenarios come to, kept so that a change of the policy shows.

Runs are shortened, and repeatable to the last digit; the ranges leave room for changes that
change nothing for people.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from scheduler.simulate.figures import ALL, Figures
from scheduler.simulate.playing import play, setting_of
from scheduler.simulate.reading import read_scenario

FILE = Path(__file__).with_name("ranges.json")

HOURS: Mapping[str, float] = MappingProxyType(
    {
        "busy": 0.5,
        "coming-and-going": 3.0,
        "critical-flood": 0.5,
        "everyday": 1.0,
        "flood": 0.5,
        "long-tailed": 1.0,
        "saturation": 0.5,
        "sharded": 0.5,
        "ten-thousand-users": 0.01,
        "wide-starvation": 0.5,
    }
)
"""For how long jobs arrive in each scenario."""

SEED = 1

_SECONDS, _WAITS = 2.0, 0.25
"""Waits may change by the larger of so many seconds and such a part."""

_PARTS = 0.02
"""Parts of a whole may change by this."""

Range = tuple[float, float]


def measured(name: str) -> dict[str, float]:
    """Play a built-in scenario, shortened, and return its figures by name."""
    setting = setting_of(read_scenario(name), seed=SEED, hours=HOURS[name])
    (outcome,) = play(setting)
    return {**dict(_waits(outcome.figures)), **dict(_parts(outcome.figures))}


def kept() -> dict[str, dict[str, Range]]:
    """Return the ranges of all scenarios."""
    found: dict[str, dict[str, Range]] = json.loads(FILE.read_text())
    return found


def renew() -> None:
    """Take what the policy does today for right."""
    found = {
        name: {figure: _range(figure, value) for figure, value in measured(name).items()}
        for name in HOURS
    }
    FILE.write_text(json.dumps(found, indent=1) + "\n")


def _waits(found: Figures) -> Iterator[tuple[str, float]]:
    for name, waits in found.watched.items():
        yield f"{name} p50 seconds", waits.p50
        yield f"{name} p99 seconds", waits.p99


def _parts(found: Figures) -> Iterator[tuple[str, float]]:
    yield "busy", found.busy
    yield "jain", found.jain
    for name, party in found.parties.items():
        yield f"{name} received", party.share.received
        if len(found.parties) > 1 and ALL in party.waits:
            yield f"{name} p99 seconds", party.waits[ALL].p99


def _range(figure: str, value: float) -> Range:
    room = max(_SECONDS, _WAITS * value) if figure.endswith("seconds") else _PARTS
    return round(max(0.0, value - room), 3), round(value + room, 3)
