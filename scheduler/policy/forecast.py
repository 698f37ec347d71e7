"""When waiting jobs will probably start: the policy played forward with what jobs should take.

Nobody new arrives in it and every job takes the mean of what jobs like it take. How far a start
may be off follows from the spread of the jobs that have to end first; how far starts have been
off in that measure, from experience.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import exp, expm1, log, log1p, sqrt
from statistics import NormalDist
from typing import NamedTuple

from scheduler.policy.admission import Admission, Decision
from scheduler.policy.backfill import end_of
from scheduler.policy.engine import Engine
from scheduler.policy.experience import Bounds, Case, Estimate, Experience, Method
from scheduler.policy.parameters import (
    FORECAST_ADMISSIONS,
    FORECAST_BLUR,
    FORECAST_GRAIN,
    FORECAST_WIDTH,
    OVERDUE_ENDS_WITHIN,
    SPREAD_WIDEST,
)
from scheduler.policy.plan import Plan, plan
from scheduler.policy.reasons import HoldCode
from scheduler.snapshot import Candidate, Running, Snapshot

_NORMAL = NormalDist()
_NOBODY = 1e-6  # of jobs alike run that long


class Forecast(NamedTuple):
    """When a job starts in a forecast, and how far that may be off: a factor, as a logarithm."""

    wait: timedelta
    width: float
    method: Method


def estimate(
    snapshot: Snapshot,
    ids: Collection[int],
    *,
    decided: Plan | None = None,
    experience: Experience | None = None,
) -> Mapping[int, Estimate]:
    """Estimate the starts of the candidates named by *ids*; *decided* is the plan, if there is one.

    A job that nothing known would ever start has no estimate. The work is bounded whatever
    the number of candidates.
    """
    known = experience or Experience()
    found = forecast(snapshot, ids, decided=decided)
    classes = {job.id: job.job_class for job in snapshot.candidates if job.id in found}
    return {
        job_id: _range(snapshot.now, start, known.bounds(Case(start.method, classes[job_id])))
        for job_id, start in found.items()
    }


def forecast(
    snapshot: Snapshot, ids: Collection[int], *, decided: Plan | None = None
) -> Mapping[int, Forecast]:
    """Play the policy forward until the candidates named by *ids* have started."""
    future = _Future(snapshot, decided or plan(snapshot))
    future.play_until_started(set(ids))
    found = ((job_id, future.start_of(job_id)) for job_id in ids)
    return {job_id: start for job_id, start in found if start is not None}


def _range(now: datetime, start: Forecast, bounds: Bounds) -> Estimate:
    return Estimate(
        now + _stretched(start.wait, bounds.lower * start.width),
        now + _stretched(start.wait, bounds.upper * start.width),
        start.method,
    )


def _stretched(wait: timedelta, by: float) -> timedelta:
    """Return *wait* times e to the power of *by*; very short waits are no surer than a blur."""
    if wait <= timedelta(0):
        return timedelta(0)
    return max(timedelta(0), (wait + FORECAST_BLUR) * exp(by) - FORECAST_BLUR)


class _Future:
    """The state of the machine as it would become after *decided*."""

    def __init__(self, snapshot: Snapshot, decided: Plan) -> None:
        self._jobs = {job.id: job for job in snapshot.candidates}
        self._began = self._now = snapshot.now
        self._running = [_as_foreseen(job, snapshot.now) for job in snapshot.running]
        self._starts: dict[int, Forecast] = {}
        self._ended = 0.0  # seconds that jobs which ended in the forecast took in it,
        self._doubt = 0.0  # and the variance of their sum
        self._start(decided)
        line = [i for i in decided.order if i in self._jobs and not _is_barred(i, decided)]
        self._places = {job_id: place for place, job_id in enumerate(line, start=1)}
        played = [self._jobs[job_id] for job_id in line[:FORECAST_ADMISSIONS]]
        self._left = len(played)
        self._engine = Engine.of(_after(snapshot, decided, played))

    def play_until_started(self, wanted: set[int]) -> None:
        """Play on until all *wanted* jobs, or as many as a forecast plays, have started."""
        pending = wanted.intersection(self._places)
        while self._left and not pending <= self._starts.keys():
            if not self._let_jobs_end():
                return
            self._left -= self._start(self._engine.decide(self._now, self._running))

    def start_of(self, job_id: int) -> Forecast | None:
        """Return when a job starts, or None if nothing known would start it."""
        if job_id in self._starts:
            return self._starts[job_id]
        if self._places.get(job_id, 0) <= FORECAST_ADMISSIONS or self._left:
            return None
        played = self._now - self._began
        wait = played * self._places[job_id] / FORECAST_ADMISSIONS
        return Forecast(wait, self._width(), Method.RATE)

    def _width(self) -> float:
        """How far starts at this moment may be off: what sums of many jobs take is surer."""
        doubt = log1p(self._doubt / self._ended**2) if self._ended > 0 else 0.0
        return sqrt(FORECAST_WIDTH**2 + doubt)

    def _start(self, decided: Decision) -> int:
        """Let the jobs that were admitted run; return how many."""
        now = self._now
        started = [_run(each, now) for each in decided.admissions]
        for each in started:
            del self._jobs[each.id]
        start = Forecast(now - self._began, self._width(), Method.SIMULATION)
        self._starts.update((job.id, start) for job in started)
        self._running += started
        return len(started)

    def _let_jobs_end(self) -> bool:
        """Go on until some running jobs have ended; tell whether there are any."""
        ends = [end_of(job, self._now).seconds for job in self._running]
        if not ends:
            return False
        passed = sorted(ends)[int(len(ends) * FORECAST_GRAIN)]
        self._now += timedelta(seconds=passed)
        self._engine.advance(self._now, self._running)
        left = []
        for job, end in zip(self._running, ends, strict=True):
            if end > passed:
                left.append(job)
            else:
                self._end(job)
        self._running = left
        return True

    def _end(self, job: Running) -> None:
        self._engine.end(job, job.consumed(self._now))
        took = (self._now - max(job.started_at or self._began, self._began)).total_seconds()
        self._ended += took
        self._doubt += took**2 * expm1(min(job.spread, SPREAD_WIDEST) ** 2)


def _after(snapshot: Snapshot, decided: Plan, left: Sequence[Candidate]) -> Snapshot:
    """Return what the policy sees once *decided* is carried out, and of those *left* only."""
    changed = {account.owner_id: account for account in decided.accounts}
    return replace(
        snapshot,
        candidates=tuple(left),
        accounts={**snapshot.accounts, **changed},
        clock=decided.clock,
        reservation=decided.reservation,
    )


def _is_barred(job_id: int, decided: Plan) -> bool:
    """Tell whether nothing that is expected to happen lets the job run."""
    return decided.holds[job_id].code in {HoldCode.PAUSED, HoldCode.NO_WORKER}


def _run(admission: Admission, now: datetime) -> Running:
    spread = min(admission.job.spread, SPREAD_WIDEST)
    mean = admission.job.expected * exp(spread**2 / 2)
    return replace(admission.running(now, started_at=now), expected=mean)


def _as_foreseen(job: Running, now: datetime) -> Running:
    """Return a running job that ends when jobs which have run as long end on average."""
    spread = min(job.spread, SPREAD_WIDEST)
    middle, run = job.expected.total_seconds(), (now - (job.started_at or now)).total_seconds()
    if spread <= 0 or middle <= 0:
        return job
    mean = middle * exp(spread**2 / 2)
    if run > 0:
        behind = log(run / middle) / spread
        outlive = _NORMAL.cdf(-behind)
        mean = (
            run + OVERDUE_ENDS_WITHIN.total_seconds()
            if outlive < _NOBODY
            else mean * _NORMAL.cdf(spread - behind) / outlive
        )
    return replace(job, expected=timedelta(seconds=mean))
