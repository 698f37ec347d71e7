"""What a run has come to: waits, shares against what was due, use of the machine. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, fsum
from typing import NamedTuple

from scheduler.simulate.fluid import due
from scheduler.simulate.loop import Run
from scheduler.simulate.workload import Party, Workload
from scheduler.states import JobClass

ALL = "all"
"""Stands for every class."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long jobs waited until they started, in seconds."""

    jobs: int
    p50: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Share:
    """The part of all that was given that owners received, and the part they were due."""

    received: float
    due: float


@dataclass(frozen=True, slots=True)
class PartyFigures:
    """What a run has come to for a number of owners; waits by class, and of all classes."""

    waits: Mapping[str, Waits]
    share: Share


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run has come to.

    Shares are counted over a window. *Busy* is the part of the machine in use while somebody
    waits. *Jain* is the index of what owners received for what they were due: 1 is all alike.
    """

    watched: Mapping[str, Waits]
    parties: Mapping[str, PartyFigures]
    jain: float
    furthest: float  # the largest difference of a party from its due, as a part of it
    used: float
    busy: float
    started: int
    left_waiting: int


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch over which shares are counted, in seconds from the beginning."""

    after: float
    until: float


def figures(
    workload: Workload, runs: Sequence[Run], *, window: Window, watch: Sequence[str] = ()
) -> Figures:
    """Sum up a run; *watch* names the parties whose waits stand for all, every one by itself."""
    watched = [party for party in workload.parties if party.name in watch or not watch]
    owners = frozenset().union(*(party.owners for party in watched))
    received = received_within(workload, runs, window)
    before, after = due(workload, runs, (window.after, window.until))
    owed = {owner: after[owner] - before.get(owner, 0.0) for owner in after}
    shares = {party.name: _share(party, received, owed) for party in workload.parties}
    used, busy = _utilisation(workload, runs, window)
    return Figures(
        watched=_waits_by_class(runs, owners),
        parties={
            party.name: PartyFigures(_waits_by_class(runs, party.owners), shares[party.name])
            for party in workload.parties
        },
        jain=_jain([received[o] / amount for o, amount in owed.items() if amount > 0]),
        furthest=max(abs(s.received - s.due) / s.due for s in shares.values() if s.due > 0),
        used=used,
        busy=busy,
        started=sum(run.started is not None for run in runs),
        left_waiting=sum(run.started is None for run in runs),
    )


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that *part* of the sorted *values* do not exceed."""
    return values[max(0, ceil(part * len(values)) - 1)]


def received_within(workload: Workload, runs: Iterable[Run], window: Window) -> dict[int, float]:
    """Return the machine-seconds each owner received in a stretch of time."""
    received: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        received[run.job.owner_id].append(workload.share(run.job) * _overlap(run, window))
    return {owner: fsum(amounts) for owner, amounts in received.items()}


def _overlap(run: Run, window: Window) -> float:
    if run.started is None or run.ended is None:
        return 0.0
    return max(0.0, min(run.ended, window.until) - max(run.started, window.after))


def _waits_by_class(runs: Iterable[Run], owners: frozenset[int]) -> dict[str, Waits]:
    by_class: dict[str, list[float]] = {str(name): [] for name in (*JobClass, ALL)}
    for run in runs:
        if run.started is not None and run.job.owner_id in owners:
            by_class[run.job.job_class].append(run.wait())
            by_class[ALL].append(run.wait())
    return {name: _waits(sorted(waits)) for name, waits in by_class.items() if waits}


def _waits(waits: Sequence[float]) -> Waits:
    return Waits(len(waits), percentile(waits, 0.5), percentile(waits, 0.99), waits[-1])


def _share(party: Party, received: Mapping[int, float], owed: Mapping[int, float]) -> Share:
    return Share(
        fsum(received.get(owner, 0.0) for owner in party.owners) / (fsum(received.values()) or 1),
        fsum(owed.get(owner, 0.0) for owner in party.owners) / (fsum(owed.values()) or 1),
    )


def _jain(values: Sequence[float]) -> float:
    squares = len(values) * fsum(value * value for value in values)
    return fsum(values) ** 2 / squares if squares else 1.0


class _Change(NamedTuple):
    """What changes at an instant in what is held and in how many jobs wait."""

    at: float
    cpu_units: float = 0.0
    memory_mb: int = 0
    waiting: int = 0


def _utilisation(workload: Workload, runs: Iterable[Run], window: Window) -> tuple[float, float]:
    """Return how much of the machine was used, and how much of it while somebody waited."""
    changes = sorted([*_changes(runs), *(_Change(at) for at, _ in workload.capacities)])
    used, busy, waited = [], [], []
    cpu_units, memory_mb, waiting = 0.0, 0, 0
    for change, following in pairwise([*changes, _Change(window.until)]):
        cpu_units += change.cpu_units
        memory_mb += change.memory_mb
        waiting += change.waiting
        seconds = min(following.at, window.until) - max(change.at, window.after)
        if seconds > 0 and (capacity := workload.capacity_at(change.at)) is not None:
            part = max(cpu_units / capacity.cpu_units, memory_mb / capacity.memory_mb)
            used.append(part * seconds)
            if waiting:
                busy.append(part * seconds)
                waited.append(seconds)
    whole = window.until - window.after
    return fsum(used) / whole, fsum(busy) / (fsum(waited) or 1.0)


def _changes(runs: Iterable[Run]) -> Iterator[_Change]:
    for run in runs:
        job = run.job
        yield _Change(job.at, waiting=1)
        if run.started is not None and run.ended is not None:
            yield _Change(run.started, job.cpu_units, job.memory_mb, -1)
            yield _Change(run.ended, -job.cpu_units, -job.memory_mb)
