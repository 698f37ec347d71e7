"""What everybody has received, and how virtual time passes.

A meter is charged at admission by the expected cost and corrected at the end by what was used.
While a job runs longer than expected its owner's meter is read with the excess on top, so the
stored meters change at admissions and ends only.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import fsum

from scheduler.policy.parameters import (
    EXPRESS_REFILL,
    HEAD_START,
    HEAVIEST,
    LEAST_SHARE,
    LEVEL_STEP,
    LIGHTEST,
    LONGEST_STEP,
    MEAN_COST_MEMORY,
)
from scheduler.snapshot import Account, Clock, Resources, Running
from scheduler.states import DEFAULT_LEVEL, JobClass

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def rank(ready_at: datetime, job_class: JobClass, level: int) -> int:
    """Return a job's place in its owner's line; it never changes, so an index can keep it."""
    head_start = HEAD_START[job_class] + (DEFAULT_LEVEL[job_class] - level) * LEVEL_STEP
    return (ready_at - _EPOCH - head_start) // _MICROSECOND


def rank_offset(job_class: JobClass, level: int) -> int:
    """Return by how many microseconds a job's class and level move it in its owner's line."""
    return rank(_EPOCH, job_class, level)


def effective_weight(weight: float) -> float:
    """Return *weight* within the bounds that keep anybody from overriding anybody."""
    return min(max(weight, LIGHTEST), HEAVIEST)


def dominant_share(cpu_units: float, memory_mb: int, capacity: Resources) -> float:
    """Return the larger of the parts of the machine's CPU and memory that a job takes."""
    cpu = cpu_units / capacity.cpu_units if capacity.cpu_units > 0 else 0.0
    memory = memory_mb / capacity.memory_mb if capacity.memory_mb > 0 else 0.0
    return max(cpu, memory, LEAST_SHARE)


def advance(
    clock: Clock, running: Iterable[Running], now: datetime, *, waiting: bool, weight: float
) -> Clock:
    """Let virtual time pass up to *now* with the jobs that ran since the last time.

    *weight* is that of the active owners: those in line and those of the running jobs. While
    somebody is *waiting* it moves at the average rate at which they are served per unit of
    weight, else at the rate of the whole machine, so that debts fade. Call it before taking
    ended jobs away.
    """
    elapsed = _elapsed(clock, now)
    if waiting:
        service = fsum(job.share * _seconds_run(job, elapsed, now) for job in running)
        step, paid_back = service / weight, EXPRESS_REFILL * service
    else:
        step, paid_back = elapsed / min(1.0, weight or 1.0), elapsed
    return replace(
        clock,
        virtual_now=clock.virtual_now + step,
        express_load=max(0.0, clock.express_load - paid_back),
        advanced_at=now,
    )


def _elapsed(clock: Clock, now: datetime) -> float:
    passed = now - clock.advanced_at if clock.advanced_at else timedelta(0)
    return max(timedelta(0), min(passed, LONGEST_STEP)).total_seconds()


def _seconds_run(job: Running, elapsed: float, now: datetime) -> float:
    if job.started_at is None:
        return 0.0
    return max(0.0, min(elapsed, (now - job.started_at).total_seconds()))


def correct(
    account: Account, clock: Clock, *, charge: float, used: float, express: bool
) -> tuple[Account, Clock]:
    """Put what a job *used* in the place of its *charge*, both in machine-seconds.

    A job that was charged and never ran has used nothing.
    """
    excess = used - charge
    owed = excess / effective_weight(account.weight)
    corrected = replace(
        account,
        meter=account.meter + owed,
        tag=None if account.tag is None else account.tag + owed,
        express_meter=account.express_meter + (owed / EXPRESS_REFILL if express else 0.0),
    )
    load = max(0.0, clock.express_load + excess) if express else clock.express_load
    return corrected, replace(clock, express_load=load, mean_cost=_mean_with(clock, used))


def _mean_with(clock: Clock, used: float) -> float:
    if used <= 0:
        return clock.mean_cost
    return clock.mean_cost + (used - clock.mean_cost) / MEAN_COST_MEMORY
