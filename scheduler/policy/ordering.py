"""In which order jobs are looked at: owners by what they have received, jobs by their line.

Inside a pass keys only grow: an admission raises its owner's meter and nothing lowers one. A
heap with one entry per owner therefore finds the least key by refreshing what comes up.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import NamedTuple

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
    """Which order a job stands in; a lower lane goes first."""

    CRITICAL = 0  # express
    HIGH = 1  # express
    ORDINARY = 2


_EXPRESS_LANE = {JobClass.CRITICAL: Lane.CRITICAL, JobClass.HIGH: Lane.HIGH}

Key = tuple[int, float, int, object, int]
"""Lane, place among owners, rank in the own line; ties: earlier ready, then the smaller id."""

Series = deque[Candidate]
"""Jobs of one owner, type, size and class in the order of the line; only the first may go."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What all owners' places are measured against during one pass."""

    virtual_now: float
    weight: float  # of all owners in line
    mean_cost: float
    deferred_from: int  # a low job of this rank or more stands behind a fresh normal one

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


@dataclass(slots=True)
class Meters:
    """An owner's meters during a pass.

    The excess is what running jobs have used beyond their charge, in the unit of the meters:
    it counts, and is stored only when the job ends.
    """

    weight: float
    meter: float
    tag: float
    express_meter: float
    excess: float = 0.0
    express_excess: float = 0.0

    def raise_to(self, least: float) -> None:
        """Bring the meter and the tag up to *least*."""
        self.meter = max(self.meter, least - self.excess)
        self.tag = max(self.tag, least - self.excess)


class Turn(NamedTuple):
    """A job whose turn it is."""

    key: Key
    line: "Line"
    series: Series

    @property
    def job(self) -> Candidate:
        """The job itself."""
        return self.series[0]

    @property
    def lane(self) -> Lane:
        """The lane the job stands in."""
        return Lane(self.key[0])


class _Place(IntEnum):
    """The heaps of a line. Jobs in one of them differ in rank only."""

    CRITICAL = 0
    HIGH = 1
    PLAIN = 2
    DEFERRED = 3


_PLACE = {JobClass.CRITICAL: _Place.CRITICAL, JobClass.HIGH: _Place.HIGH}


class Line:
    """One owner's waiting jobs and the owner's place among the others, during a pass."""

    def __init__(self, jobs: Iterable[Candidate], meters: Meters, terms: Terms) -> None:
        self.jobs = sorted(jobs, key=standing)
        self.meters = meters
        self._terms = terms
        self._deference = terms.deference(meters.weight)
        self._limits = {
            job_class: terms.virtual_now + terms.allowance(job_class, meters.weight)
            for job_class in _EXPRESS_LANE
        }
        self._gone: set[int] = set()
        self._first = 0
        self._heaps: tuple[list[tuple[tuple[int, object, int], Series]], ...]
        self._heaps = tuple([] for _ in _Place)
        for series in self._in_series():
            self._offer(series)

    def _in_series(self) -> Iterable[Series]:
        series: dict[tuple[object, ...], Series] = {}
        for job in self.jobs:
            series.setdefault(series_of(job), deque()).append(job)
        return series.values()

    @property
    def head(self) -> Candidate | None:
        """The first job in line, or None when all are admitted."""
        while self._first < len(self.jobs) and self.jobs[self._first].id in self._gone:
            self._first += 1
        return self.jobs[self._first] if self._first < len(self.jobs) else None

    def remaining(self) -> list[Candidate]:
        """The jobs that were not admitted, in the order of the line."""
        return [job for job in self.jobs if job.id not in self._gone]

    def best(self, express_load: float) -> Turn | None:
        """The job of this line that goes first, or None when none is left to look at."""
        turns = [
            Turn(self._key(place, heap[0][1][0], express_load), self, heap[0][1])
            for place, heap in zip(_Place, self._heaps, strict=True)
            if heap
        ]
        return min(turns, key=_key_of, default=None)

    def find(self, job_id: int, express_load: float) -> Turn | None:
        """The turn of the series that holds a job, out of order."""
        for place, heap in zip(_Place, self._heaps, strict=True):
            for _, series in heap:
                if any(job.id == job_id for job in series):
                    return Turn(self._key(place, series[0], express_load), self, series)
        return None

    def admit(self, turn: Turn, cost: float) -> None:
        """Charge *cost* for the job and let the next of its series come up."""
        self._withdraw(turn)
        self._charge(turn, cost / self.meters.weight)
        self._gone.add(turn.series.popleft().id)
        self._offer(turn.series)

    def set_aside(self, turn: Turn) -> None:
        """Look no more at this series in this pass."""
        self._withdraw(turn)

    def close(self) -> list[Candidate]:
        """Look no more at any job of this line in this pass; return the first of each series."""
        closed = [series[0] for heap in self._heaps for _, series in heap]
        for heap in self._heaps:
            heap.clear()
        return closed

    def _charge(self, turn: Turn, charge: float) -> None:
        meters = self.meters
        meters.meter += charge
        if turn.job is self.head:
            meters.tag = meters.meter
        if turn.lane is not Lane.ORDINARY:
            start = self._express_place() - meters.express_excess
            meters.express_meter = start + charge / EXPRESS_REFILL

    def _offer(self, series: Series) -> None:
        if series:
            heappush(self._heaps[self._place(series[0])], (standing(series[0]), series))

    def _withdraw(self, turn: Turn) -> None:
        heap = self._heaps[self._place(turn.job)]
        if heap[0][1] is turn.series:
            heappop(heap)
        else:
            heap.remove((standing(turn.job), turn.series))
            heapify(heap)

    def _place(self, job: Candidate) -> _Place:
        if job.job_class is JobClass.LOW and job.rank > self._terms.deferred_from:
            return _Place.DEFERRED
        return _PLACE.get(job.job_class, _Place.PLAIN)

    def _key(self, place: _Place, job: Candidate, express_load: float) -> Key:
        if place < _Place.PLAIN and self._is_express(job.job_class, express_load):
            return (_EXPRESS_LANE[job.job_class], self._express_place(), *standing(job))
        meters = self.meters
        tag = (meters.tag if job is self.head else meters.meter) + meters.excess
        if place is _Place.DEFERRED:
            tag += self._deference
        return (Lane.ORDINARY, tag, *standing(job))

    def _is_express(self, job_class: JobClass, express_load: float) -> bool:
        within = self._express_place() <= self._limits[job_class]
        return within and express_load <= EXPRESS_BURST[job_class]

    def _express_place(self) -> float:
        meters = self.meters
        return max(meters.express_meter + meters.express_excess, self._terms.virtual_now)


def series_of(job: Candidate) -> tuple[object, ...]:
    """Tell which jobs go one after the other only: same owner, type, size and class."""
    return (job.owner_id, job.job_type, job.cpu_units, job.memory_mb, job.job_class)


def standing(job: Candidate) -> tuple[int, object, int]:
    """Order the jobs of one line: rank, then earlier ready, then the smaller id."""
    return (job.rank, job.waiting_since, job.id)


def _key_of(turn: Turn) -> Key:
    return turn.key


class Turns:
    """Whose turn it is, over all lines. After each turn its line is to be put back."""

    def __init__(self, lines: Iterable[Line], express_load: float) -> None:
        self.express_load = express_load
        self._heap: list[tuple[Key, Turn]] = []
        for line in lines:
            self.put_back(line)

    def put_back(self, line: Line) -> None:
        """Let *line* come up again with its best remaining job."""
        turn = line.best(self.express_load)
        if turn is not None:
            heappush(self._heap, (turn.key, turn))

    def next(self) -> Turn | None:
        """Take out the turn with the least key, or None when nobody is left."""
        while self._heap:
            _, turn = heappop(self._heap)
            if turn.lane is Lane.ORDINARY or self._is_open(turn.job.job_class):
                return turn
            self.put_back(turn.line)
        return None

    def _is_open(self, job_class: JobClass) -> bool:
        return self.express_load <= EXPRESS_BURST[job_class]
