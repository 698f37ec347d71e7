"""In which order jobs are looked at: owners by what they have received, jobs by their line."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from scheduler.policy.parameters import (
    ALLOWANCE_JOBS,
    ALLOWANCE_TIME,
    DEFERENCE_JOBS,
    DEFERENCE_TIME,
    EXPRESS_BURST,
    EXPRESS_REFILL,
    LAG_LIMIT,
)
from scheduler.snapshot import Candidate
from scheduler.states import JobClass


class Lane(IntEnum):
    """The three orders jobs stand in; a lower lane goes first."""

    CRITICAL = 0  # express
    HIGH = 1  # express
    ORDINARY = 2


Standing = tuple[int, datetime, int]
"""The order of one line: rank, then earlier ready, then the smaller id."""

Key = tuple[int, float, int, datetime, int]
"""Lane, place among owners, standing in the own line: the order over all lines."""

EXPRESS_LANES = {JobClass.CRITICAL: Lane.CRITICAL, JobClass.HIGH: Lane.HIGH}
_EXPRESS_CLASSES = {lane: job_class for job_class, lane in EXPRESS_LANES.items()}


def standing(job: Candidate) -> Standing:
    """Return the place of a job in its owner's line."""
    return (job.rank, job.waiting_since, job.id)


def is_open(lane: Lane, express_load: float) -> bool:
    """Tell whether everybody's express work leaves an express lane open."""
    return express_load <= EXPRESS_BURST[_EXPRESS_CLASSES[lane]]


@dataclass(frozen=True, slots=True)
class Terms:
    """What all owners' places are measured against during one pass."""

    virtual_now: float
    weight: float  # of all owners in line
    mean_cost: float
    deferred_from: int  # a low job of a greater rank stands behind a fresh normal one

    def allowance(self, job_class: JobClass, weight: float) -> float:
        """How far an express meter may be ahead of virtual now for one more express job."""
        time = ALLOWANCE_TIME[job_class].total_seconds() / self.weight
        return max(time, ALLOWANCE_JOBS[job_class] * self.mean_cost / (EXPRESS_REFILL * weight))

    def deference(self, weight: float) -> float:
        """How far low jobs stand behind their owner's place."""
        time = DEFERENCE_TIME.total_seconds() / self.weight
        return max(time, DEFERENCE_JOBS * self.mean_cost / weight)

    def oldest_debt(self) -> float:
        """The least a meter may be: nobody is owed more than the lag limit."""
        return self.virtual_now - LAG_LIMIT.total_seconds() / self.weight
