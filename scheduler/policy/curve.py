"""About how many jobs go before one that is too far back for the plan to place. Pure.

Owners are taken in the order of their meters, and every job moves its owner's on. So a job's place
is a point on that scale, its key, and each owner has let as many jobs go before it as bring the
owner's meter there. Summed over all owners that is a rising line; a few points of it tell the
place of any job. Classes and room are left out, and so it says *about*.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from math import exp
from typing import Any, NamedTuple

from scheduler.policy.experience import Bounds, Case, Estimate, Experience, Method
from scheduler.policy.parameters import (
    CURVE_LONG,
    CURVE_POINTS,
    CURVE_SAMPLE,
    EXPECTED_LEAST,
    FORECAST_WIDTH,
    LEAST_SHARE,
)
from scheduler.snapshot import Clock
from scheduler.states import JobClass

_LEAST_COST = LEAST_SHARE * EXPECTED_LEAST.total_seconds()


class Queued(NamedTuple):
    """An owner's line as the curve sees it; the weight is the effective one."""

    tag: float  # the place of its first job
    weight: float
    waiting: int
    mean_cost: float  # machine-seconds a job of it takes

    @property
    def step(self) -> float:
        """How far one job moves the owner's meter."""
        return max(self.mean_cost, _LEAST_COST) / self.weight


@dataclass(frozen=True, slots=True)
class Curve:
    """Jobs that go before a key: straight lines between (*keys*, *before*), both rising.

    *mean_cost* is that of all jobs, *virtual_now* where the lines of newcomers begin, *starts* how
    many jobs start in a second, if that is known.
    """

    keys: Sequence[float] = ()
    before: Sequence[float] = ()
    mean_cost: float = 0.0
    virtual_now: float = 0.0
    starts: float | None = None
    bounds: Mapping[JobClass, Bounds] = field(default_factory=dict)

    def at(self, key: float) -> float:
        """Return how many jobs go before *key*."""
        right = bisect_right(self.keys, key)
        if right == 0:
            return 0.0
        if right == len(self.keys):
            return self.before[-1]
        left = right - 1
        part = (key - self.keys[left]) / (self.keys[right] - self.keys[left])
        return self.before[left] + part * (self.before[right] - self.before[left])


def make_curve(
    owners: Iterable[Queued],
    *,
    clock: Clock,
    starts: float | None = None,
    experience: Experience | None = None,
) -> Curve:
    """Draw the curve of all *owners* in line, in one pass over them."""
    lines = [each for each in owners if each.waiting > 0]
    known = experience or Experience()
    bounds = {each: known.bounds(Case(Method.RATE, each)) for each in JobClass}
    if not lines:
        return Curve((), (), clock.mean_cost, clock.virtual_now, starts, bounds)
    counted = _thinned(lines)
    keys = _keys([line for line, _ in counted])
    before = _before(counted, keys)
    return Curve(keys, before, clock.mean_cost, clock.virtual_now, starts, bounds)


def _thinned(lines: Sequence[Queued]) -> list[tuple[Queued, float]]:
    """Let a part of many short lines stand for all of them; long ones stand for themselves."""
    if len(lines) <= CURVE_SAMPLE:
        return [(line, 1.0) for line in lines]
    long = CURVE_LONG * sum(line.waiting for line in lines) / len(lines)
    short = [line for line in lines if line.waiting <= long]
    few = short[:: -(-len(short) // CURVE_SAMPLE)]
    jobs, of_few = sum(line.waiting for line in short), sum(line.waiting for line in few)
    return [
        *((line, jobs / of_few) for line in few),
        *((line, 1.0) for line in lines if line.waiting > long),
    ]


def _keys(lines: Sequence[Queued]) -> list[float]:
    """Choose points where owners come in and run out, as many between any two."""
    turns = sorted({*(line.tag for line in lines), *map(_end, lines)})
    chosen = turns[:: -(-len(turns) // (CURVE_POINTS - 1))]
    return sorted({*chosen, turns[-1]})


def _end(line: Queued) -> float:
    return line.tag + line.waiting * line.step


def _before(counted: Iterable[tuple[Queued, float]], keys: Sequence[float]) -> list[float]:
    """Sum up the lines at each of *keys*.

    An owner adds its slope where it comes in and takes it away where it runs out; at each key
    that is the sum of slopes times the key, less the sum of slopes times where they begin.
    """
    slopes, offsets = [0.0] * (len(keys) + 1), [0.0] * (len(keys) + 1)
    for line, times in counted:
        begin, end = bisect_left(keys, line.tag), bisect_left(keys, _end(line))
        slope = times / line.step
        slopes[begin] += slope
        slopes[end] -= slope
        offsets[begin] += slope * (line.tag - keys[0])
        offsets[end] -= slope * (line.tag - keys[0]) + times * line.waiting
    sums = zip(keys, accumulate(slopes), accumulate(offsets), strict=False)
    values = (max(0.0, slope * (key - keys[0]) - offset) for key, slope, offset in sums)
    return list(accumulate(values, max))


def position_on(
    curve: Curve, tag: float, own_before: int, weight: float, mean_cost: float | None = None
) -> int:
    """Return about which place a job has whose owner has *own_before* jobs before it.

    *tag* is the place of the owner's first job; that of a newcomer is virtual now.
    """
    cost = curve.mean_cost if mean_cost is None else mean_cost
    key = tag + own_before * max(cost, _LEAST_COST) / weight
    return 1 + max(own_before, round(curve.at(key)))


def start_on(curve: Curve, position: int, job_class: JobClass, now: datetime) -> Estimate | None:
    """Estimate the start of the job at *position* by the rate of starts; None if it is unknown."""
    if not curve.starts:
        return None
    wait = timedelta(seconds=(position - 1) / curve.starts)
    bounds = curve.bounds.get(job_class) or Bounds()
    return Estimate(
        now + wait * exp(bounds.lower * FORECAST_WIDTH),
        now + wait * exp(bounds.upper * FORECAST_WIDTH),
        Method.RATE,
    )


def curve_to_json(curve: Curve) -> dict[str, Any]:
    """Write a curve down."""
    return asdict(curve)


def curve_from_json(fields: Mapping[str, Any]) -> Curve:
    """Read what ``curve_to_json`` wrote."""
    bounds = {JobClass(name): Bounds(**each) for name, each in fields["bounds"].items()}
    return Curve(**{**fields, "bounds": bounds})
