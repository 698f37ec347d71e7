"""Owners' lines, kept from pass to pass: the waiting jobs, and the meters that place them."""

from dataclasses import dataclass, field, replace
from math import frexp
from typing import Any, NamedTuple

from scheduler.policy.capacity import Amount, amount
from scheduler.policy.meters import effective_weight
from scheduler.policy.ordering import Standing, standing
from scheduler.policy.parameters import EXPRESS_REFILL
from scheduler.policy.reasons import Hold
from scheduler.snapshot import Account, Candidate
from scheduler.states import Executor, JobClass


class Shape(NamedTuple):
    """What makes jobs of one owner alike: of those, only the first in line may go."""

    job_type: str
    need: Amount
    job_class: JobClass
    executor: Executor


def shape_of(job: Candidate) -> Shape:
    """Return the shape of a job."""
    return Shape(job.job_type, amount(job), job.job_class, job.executor)


class Bracket(NamedTuple):
    """Durations within a factor of two."""

    exponent: int

    @property
    def shortest(self) -> float:
        """The least duration in it, in seconds."""
        return 2.0 ** (self.exponent - 1)


def bracket_of(job: Candidate) -> Bracket:
    """Return the bracket of a job's expected duration."""
    return Bracket(frexp(job.expected.total_seconds())[1])


@dataclass(slots=True, eq=False)
class Series:
    """Jobs of one owner and shape in the order of the line."""

    line: "Line"
    shape: Shape
    jobs: list[Candidate] = field(default_factory=list)
    bar: Hold | None = None  # what keeps them from running whoever's turn it is
    is_aside: bool = False  # not to be looked at for the rest of a pass
    placed: tuple[Any, ...] = ()  # where the queue keeps it: see there

    @property
    def first(self) -> Candidate:
        """The only one that may go."""
        return self.jobs[0]

    @property
    def waits(self) -> bool:
        """Tell whether a job of it stands in line."""
        return bool(self.jobs) and self.bar is None


class Line:
    """One owner's jobs and meters.

    The excess is what running jobs have used beyond their charge, in the unit of the meters:
    it counts, and is stored only when the job ends.
    """

    __slots__ = (
        "account",
        "excess",
        "express_excess",
        "first_series",
        "has_more",
        "series",
        "weight",
    )

    def __init__(self, account: Account) -> None:
        self.series: dict[Shape, Series] = {}
        self.first_series: Series | None = None  # whose first job is the first in line
        self.has_more = False  # beyond the jobs that are known here
        self.excess = 0.0
        self.express_excess = 0.0
        self.set_account(account)

    @property
    def in_line(self) -> bool:
        """Tell whether the owner waits for anything."""
        return self.first_series is not None or self.has_more

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is kept here, not even a barred job."""
        return not self.has_more and not any(each.jobs for each in self.series.values())

    @property
    def tag(self) -> float:
        """The owner's place by the first job in line."""
        tag = self.account.tag
        return (self.account.meter if tag is None else tag) + self.excess

    @property
    def meter(self) -> float:
        """The owner's place by any other job."""
        return self.account.meter + self.excess

    @property
    def express_meter(self) -> float:
        """What express work has put on the owner's own meter for it."""
        return self.account.express_meter + self.express_excess

    def set_account(self, account: Account) -> None:
        """Take over weight, caps and meters."""
        self.account = account
        self.weight = effective_weight(account.weight)

    def counts_other_than(self, excess: float, express_excess: float) -> bool:
        """Tell whether other amounts are noted than these, in machine-seconds."""
        noted = (self.excess * self.weight, self.express_excess * self.weight * EXPRESS_REFILL)
        return noted != (excess, express_excess)

    def set_excess(self, excess: float, express_excess: float) -> None:
        """Note what running jobs have used beyond their charges, in machine-seconds."""
        self.excess = excess / self.weight
        self.express_excess = express_excess / self.weight / EXPRESS_REFILL

    def raise_to(self, least: float) -> None:
        """Bring the meter and the tag up to *least*, and so into line."""
        account, least = self.account, least - self.excess
        tag = account.meter if account.tag is None else account.tag
        self.account = replace(account, meter=max(account.meter, least), tag=max(tag, least))

    def charge(self, series: Series, cost: float, *, express_from: float | None) -> None:
        """Charge *cost* for the first of *series*; express work starts at *express_from*."""
        account, charge = self.account, cost / self.weight
        meter, tag, express = account.meter + charge, account.tag, account.express_meter
        if series is self.first_series:
            tag = meter
        if express_from is not None:
            express = express_from - self.express_excess + charge / EXPRESS_REFILL
        self.account = replace(account, meter=meter, tag=tag, express_meter=express)

    def open_series(self, shape: Shape) -> Series:
        """Begin a series for jobs of *shape*."""
        series = self.series[shape] = Series(self, shape)
        return series

    def jobs(self) -> list[Candidate]:
        """Return all jobs that are known, barred ones included, in their order."""
        return sorted((job for each in self.series.values() for job in each.jobs), key=standing)

    def count(self) -> int:
        """Return how many jobs are known."""
        return sum(len(each.jobs) for each in self.series.values())

    def find(self, job_id: int) -> tuple[Series, int] | None:
        """Return where a job is, or None."""
        for series in self.series.values():
            for index, job in enumerate(series.jobs):
                if job.id == job_id:
                    return series, index
        return None

    def find_first(self) -> None:
        """Note whose first job is the first in line."""
        waiting = [each for each in self.series.values() if each.jobs and each.bar is None]
        if len(waiting) > 1:
            self.first_series = min(waiting, key=_standing_of_first)
        else:
            self.first_series = waiting[0] if waiting else None


def _standing_of_first(series: Series) -> Standing:
    return standing(series.jobs[0])
