"""When waiting jobs will probably start: the policy played forward with expected durations.

Nobody new arrives in it and every job ends when expected, so it gives an early edge; the late
one is a multiple that experience supports.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from scheduler.policy.admission import Admission, Decision
from scheduler.policy.backfill import end_of
from scheduler.policy.parameters import (
    FORECAST_ADMISSIONS,
    FORECAST_GRAIN,
    FORECAST_SPREAD,
    FORECAST_WINDOW,
)
from scheduler.policy.plan import Plan, decide, plan
from scheduler.policy.reasons import HoldCode
from scheduler.snapshot import Candidate, Running, Snapshot


class Method(StrEnum):
    """How an estimate was found."""

    SIMULATION = "simulation"  # the policy was played forward to the job's start
    RATE = "rate"  # its position, at the rate of the jobs that were played


class Estimate(NamedTuple):
    """The range in which a job will probably start."""

    earliest: datetime
    latest: datetime
    method: Method


def estimate(
    snapshot: Snapshot, ids: Collection[int], *, decided: Plan | None = None
) -> Mapping[int, Estimate]:
    """Estimate the starts of the candidates named by *ids*; *decided* is the plan, if there is one.

    A job that nothing known would ever start has no estimate. The work is bounded whatever
    the number of candidates.
    """
    future = _Future(snapshot, decided or plan(snapshot))
    future.play_until_started(set(ids))
    waits = ((job_id, future.wait(job_id)) for job_id in ids)
    return {job_id: _range(snapshot.now, *wait) for job_id, wait in waits if wait is not None}


def _range(now: datetime, wait: timedelta, method: Method) -> Estimate:
    return Estimate(now + wait, now + FORECAST_SPREAD * wait, method)


class _Future:
    """The state of the machine as it would become after *decided*."""

    def __init__(self, snapshot: Snapshot, decided: Plan) -> None:
        self._jobs = {job.id: job for job in snapshot.candidates}
        self._began = snapshot.now
        self._state = snapshot
        self._waits: dict[int, timedelta] = {}
        self._go_on(decided)
        line = [i for i in decided.order if i in self._jobs and not _is_barred(i, decided)]
        self._places = {job_id: place for place, job_id in enumerate(line, start=1)}
        self._queue = [self._jobs[job_id] for job_id in line[:FORECAST_ADMISSIONS]]

    def play_until_started(self, wanted: set[int]) -> None:
        """Play on until all *wanted* jobs, or as many as a forecast plays, have started."""
        pending = wanted.intersection(self._places)
        while self._queue and not pending <= self._waits.keys():
            if not self._let_jobs_end():
                return
            self._admit()

    def wait(self, job_id: int) -> tuple[timedelta, Method] | None:
        """Return how long a job waits, or None if nothing known would start it."""
        if job_id in self._waits:
            return self._waits[job_id], Method.SIMULATION
        if self._places.get(job_id, 0) <= FORECAST_ADMISSIONS or self._queue:
            return None
        played = self._state.now - self._began
        return played * self._places[job_id] / FORECAST_ADMISSIONS, Method.RATE

    def _admit(self) -> None:
        """Admit what the policy admits at this moment."""
        in_view = FORECAST_WINDOW + len(self._state.running)
        state = replace(self._state, candidates=tuple(self._queue[:in_view]))
        self._go_on(decide(state))
        self._queue = [job for job in self._queue if job.id in self._jobs]

    def _go_on(self, decided: Decision) -> None:
        """Carry out what was decided."""
        state, now = self._state, self._state.now
        started = [_run(self._jobs.pop(each.id), each, now) for each in decided.admissions]
        self._waits.update((job.id, now - self._began) for job in started)
        self._state = replace(
            state,
            running=(*state.running, *started),
            accounts={
                **state.accounts,
                **{account.owner_id: account for account in decided.accounts},
            },
            clock=decided.clock,
            reservation=decided.reservation,
        )

    def _let_jobs_end(self) -> bool:
        """Go on until some running jobs have ended; tell whether there are any."""
        state = self._state
        ends = [end_of(job, state.now).seconds for job in state.running]
        if not ends:
            return False
        passed = sorted(ends)[int(len(ends) * FORECAST_GRAIN)]
        left = [job for job, end in zip(state.running, ends, strict=True) if end > passed]
        now = state.now + timedelta(seconds=passed)
        self._state = replace(state, now=now, running=tuple(left))
        return True


def _is_barred(job_id: int, decided: Plan) -> bool:
    """Tell whether nothing that is expected to happen lets the job run."""
    return decided.holds[job_id].code in {HoldCode.PAUSED, HoldCode.NO_WORKER}


def _run(job: Candidate, admission: Admission, now: datetime) -> Running:
    return Running(
        id=job.id,
        attempt=1,
        owner_id=job.owner_id,
        job_type=job.job_type,
        cpu_units=job.cpu_units,
        memory_mb=job.memory_mb,
        expected=job.expected,
        admitted_at=now,
        started_at=now,
        charge=admission.charge,
        express=admission.express,
    )
