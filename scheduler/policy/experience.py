"""How far estimated starts are off, learned from what became of those that were published. Pure.

A forecast says when a job starts if nobody new arrives, and how wide its own doubt is. Where the
range around it has to begin and to end, in units of that width, nobody can derive: newcomers and
classes that pass matter more than durations. So both ends follow what happened: each moves away
when a start falls beyond it and comes slowly back when it does not, until as many fall beyond it
as may.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from scheduler.policy.parameters import (
    ESTIMATE_BOUNDS,
    ESTIMATE_BOUNDS_LIMITS,
    ESTIMATE_MISSES,
    ESTIMATE_STEP,
    ESTIMATES_SCORED,
)
from scheduler.states import JobClass


class Method(StrEnum):
    """How an estimate was found."""

    SIMULATION = "simulation"  # the policy was played forward to the job's start
    RATE = "rate"  # its position, at the rate of the jobs that were played


class Verdict(StrEnum):
    """How a start compares with the range that was published."""

    WITHIN = "within"
    EARLY = "early"
    LATE = "late"


class Case(NamedTuple):
    """Estimates that are off in the same way."""

    method: Method
    job_class: JobClass


class Estimate(NamedTuple):
    """The range in which a job will probably start."""

    earliest: datetime
    latest: datetime
    method: Method

    def verdict(self, started_at: datetime) -> Verdict:
        """Tell whether a start is what was said."""
        if started_at < self.earliest:
            return Verdict.EARLY
        return Verdict.LATE if started_at > self.latest else Verdict.WITHIN


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where ranges begin and end, in widths of their forecast from its middle."""

    lower: float = ESTIMATE_BOUNDS[0]
    upper: float = ESTIMATE_BOUNDS[1]

    def after(self, verdict: Verdict) -> "Bounds":
        """Return the bounds moved by one more start."""
        least, most = ESTIMATE_BOUNDS_LIMITS
        lower = self.lower - ESTIMATE_STEP * ((verdict is Verdict.EARLY) - ESTIMATE_MISSES)
        upper = self.upper + ESTIMATE_STEP * ((verdict is Verdict.LATE) - ESTIMATE_MISSES)
        return Bounds(min(max(lower, -most), -least), max(min(upper, most), least))


@dataclass(frozen=True, slots=True)
class Experience:
    """The bounds of every case that has been seen."""

    of: Mapping[Case, Bounds] = field(default_factory=dict)

    def bounds(self, case: Case) -> Bounds:
        """Return the bounds of a case; those of a new one are wide enough for most loads."""
        return self.of.get(case) or Bounds()


class Score(NamedTuple):
    """How estimates of one case have come true, and the bounds that go on from there."""

    case: Case
    verdicts: Mapping[Verdict, int]
    bounds: Bounds


class Scorer:
    """Remembers what was published first of each waiting job, and compares it with its start."""

    def __init__(self, experience: Experience | None = None) -> None:
        self.experience = experience or Experience()
        self._published: dict[int, tuple[Case, Estimate]] = {}
        self._counts: dict[Case, Counter[Verdict]] = {}

    def publish(self, estimates: Mapping[int, Estimate], classes: Mapping[int, JobClass]) -> None:
        """Remember *estimates* of jobs that had none; beyond ``ESTIMATES_SCORED``, no more."""
        for job_id, estimate in estimates.items():
            if len(self._published) >= ESTIMATES_SCORED:
                return
            case = Case(estimate.method, classes[job_id])
            self._published.setdefault(job_id, (case, estimate))

    def started(self, starts: Mapping[int, datetime]) -> None:
        """Score the jobs that have started, by when they did."""
        known = dict(self.experience.of)
        for job_id, at in starts.items():
            case, estimate = self._published.pop(job_id, (None, None))
            if case is not None and estimate is not None:
                verdict = estimate.verdict(at)
                self._counts.setdefault(case, Counter())[verdict] += 1
                known[case] = (known.get(case) or Bounds()).after(verdict)
        self.experience = Experience(known)

    def forget(self, gone: Collection[int]) -> None:
        """Score those that will not start, or not for the first time, no more."""
        for job_id in gone:
            self._published.pop(job_id, None)

    def take(self) -> list[Score]:
        """Return what was scored since the last time."""
        counts, self._counts = self._counts, {}
        return [
            Score(case, counted, self.experience.bounds(case))
            for case, counted in sorted(counts.items())
        ]


def experience_of(scores: Iterable[Score]) -> Experience:
    """Return the experience that newest scores hold."""
    return Experience({score.case: score.bounds for score in scores})
