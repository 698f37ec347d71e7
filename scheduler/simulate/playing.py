"""One story under one policy or several, and what came of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from scheduler.errors import ScenarioInvalid
from scheduler.policy.engine import Engine
from scheduler.simulate.alternatives import Alternative, Order
from scheduler.simulate.figures import Figures, Window, figures
from scheduler.simulate.loop import Policy, Run, Simulation
from scheduler.simulate.reading import Story
from scheduler.simulate.scenario import Scenario
from scheduler.simulate.workload import Workload, draw, listed

OURS = "this policy"

POLICIES: Mapping[str, Callable[[], Policy]] = MappingProxyType(
    {OURS: Engine} | {str(order): partial(Alternative, order) for order in Order}
)
"""Who may decide, by the name in tables."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A workload, and how its results are told."""

    name: str
    about: str
    workload: Workload
    window: Window
    watch: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a setting under one policy."""

    policy: str
    runs: tuple[Run, ...]
    figures: Figures


def setting_of(story: Story, *, seed: int, hours: float | None = None) -> Setting:
    """Draw the workload of a story; *hours* shorten a scenario or make it longer."""
    if not isinstance(story, Scenario):
        workload = listed(story)
        return Setting(story.name, story.about, workload, Window(0.0, workload.arrive_for))
    played = story if hours is None else story.model_copy(update={"hours": hours})
    until = min(story.shares.until or played.seconds, played.seconds)
    return Setting(
        name=played.name,
        about=played.about,
        workload=draw(played, seed),
        window=Window(story.shares.after if story.shares.after < until else 0.0, until),
        watch=played.watch,
    )


def play(setting: Setting, policies: Iterable[str] = (OURS,)) -> list[Outcome]:
    """Play a setting under each of the *policies*."""
    return [outcome(setting, POLICIES[name](), name) for name in policies]


def outcome(setting: Setting, policy: Policy, name: str = OURS) -> Outcome:
    """Play a setting under *policy*."""
    return summed_up(setting, Simulation(setting.workload, policy).run(), name)


def summed_up(setting: Setting, runs: tuple[Run, ...], name: str) -> Outcome:
    """Sum up what became of the jobs of a setting."""
    found = figures(setting.workload, runs, window=setting.window, watch=setting.watch)
    return Outcome(name, runs, found)


def changed(
    workload: Workload, *, sizes: Mapping[str, Any], weights: Mapping[str, float]
) -> Workload:
    """Return the workload on a machine of other *sizes*, or with other weights of some parties.

    Raises ScenarioInvalid when there is no such party, or no machine to change.
    """
    if unknown := weights.keys() - {party.name for party in workload.parties}:
        raise ScenarioInvalid([f"weights: {', '.join(sorted(unknown))} submits nothing here"])
    accounts = dict(workload.accounts)
    for party in workload.parties:
        for owner in party.owners if party.name in weights else ():
            accounts[owner] = replace(accounts[owner], weight=weights[party.name])
    capacities = tuple((at, there and replace(there, **sizes)) for at, there in workload.capacities)
    return replace(workload, accounts=accounts, capacities=capacities)
