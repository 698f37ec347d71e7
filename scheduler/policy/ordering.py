"""In which order jobs are looked at: owners by what they have received, jobs by their line.

Inside a pass keys only grow: an admission raises its owner's meter and nothing lowers one. One
entry per owner in a heap is therefore enough; only an express key can grow without its owner,
when everybody's express work closes the lane.
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
    """The three orders jobs stand in; a lower lane goes first."""

    CRITICAL = 0  # express
    HIGH = 1  # express
    ORDINARY = 2


Key = tuple[int, float, int, object, int]
"""Lane, place among owners, rank in the own line; ties: earlier ready, then the smaller id."""

Standing = tuple[int, object, int]
"""The last three parts of a key: the order of one line."""

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
    """A job whose turn it is: the first of its series."""

    key: Key
    line: "Line"
    series: Series

    @property
    def job(self) -> Candidate:
        """The job itself."""
        return self.series[0]

    @property
    def is_express(self) -> bool:
        """Whether the job jumps everybody's line."""
        return self.key[0] < Lane.ORDINARY

    @property
    def is_critical_express(self) -> bool:
        """Whether the job goes before all others."""
        return self.key[0] == Lane.CRITICAL


class _Place(IntEnum):
    """The heaps of a line: jobs in one of them differ in rank only."""

    CRITICAL = 0
    HIGH = 1
    PLAIN = 2
    DEFERRED = 3


_PLACE = {
    JobClass.CRITICAL: _Place.CRITICAL,
    JobClass.HIGH: _Place.HIGH,
    JobClass.NORMAL: _Place.PLAIN,
    JobClass.LOW: _Place.DEFERRED,  # until it is older than a fresh normal job counts as
}
_EXPRESS = ((_Place.CRITICAL, JobClass.CRITICAL), (_Place.HIGH, JobClass.HIGH))


class Line:
    """One owner's waiting jobs and the owner's place among the others, during a pass."""

    def __init__(self, jobs: Iterable[Candidate], meters: Meters, terms: Terms) -> None:
        self.meters = meters
        self._jobs = sorted(jobs, key=standing)
        self._terms = terms
        self._deference = terms.deference(meters.weight)
        self._express_limits = [
            terms.virtual_now + terms.allowance(job_class, meters.weight)
            for _, job_class in _EXPRESS
        ]
        self._admitted: set[int] = set()
        self._first = 0
        self._all_series = _in_series(self._jobs)
        self._heaps: list[list[tuple[Standing, Series]]] = [[] for _ in _Place]
        self.reopen()

    @property
    def head(self) -> Candidate | None:
        """The first job in line, or None when all are admitted."""
        return self._jobs[self._first] if self._first < len(self._jobs) else None

    @property
    def series(self) -> list[Series]:
        """The jobs not admitted, in series."""
        return [series for series in self._all_series if series]

    def best(self, express_load: float) -> Turn | None:
        """The job of this line that goes first, or None when none is left to look at."""
        first: Turn | None = None
        for place, heap in enumerate(self._heaps):
            if heap:
                key = self._key(place, heap[0], express_load)
                if first is None or key < first.key:
                    first = Turn(key, self, heap[0][1])
        return first

    def has(self, job_id: int) -> bool:
        """Tell whether a job waits in this line."""
        return any(job.id == job_id for series in self._all_series for job in series)

    def find(self, job: Candidate, express_load: float) -> Turn:
        """Return the turn of the first job of a series, out of order."""
        entry = next(
            (standing(job), series) for series in self._all_series if series and series[0] is job
        )
        return Turn(self._key(self._place(job), entry, express_load), self, entry[1])

    def admit(self, turn: Turn, cost: float) -> None:
        """Charge *cost* for the job and let the next of its series come up."""
        self._withdraw(turn)
        self._charge(turn, cost / self.meters.weight)
        self._admitted.add(turn.series.popleft().id)
        self._find_head()
        self._offer(turn.series)

    def set_aside(self, turn: Turn) -> None:
        """Look no more at this series."""
        self._withdraw(turn)

    def close(self) -> list[Candidate]:
        """Look no more at any job of this line; return the first of each series."""
        closed = [series[0] for heap in self._heaps for _, series in heap]
        for heap in self._heaps:
            heap.clear()
        return closed

    def reopen(self) -> None:
        """Look at every job that is not admitted again."""
        for heap in self._heaps:
            heap.clear()
        for series in self._all_series:
            self._offer(series)

    def _find_head(self) -> None:
        jobs, admitted = self._jobs, self._admitted
        while self._first < len(jobs) and jobs[self._first].id in admitted:
            self._first += 1

    def _charge(self, turn: Turn, charge: float) -> None:
        meters = self.meters
        meters.meter += charge
        if turn.job is self.head:
            meters.tag = meters.meter
        if turn.is_express:
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
        place = _PLACE[job.job_class]
        if place is _Place.DEFERRED and job.rank <= self._terms.deferred_from:
            return _Place.PLAIN
        return place

    def _key(self, place: int, entry: tuple[Standing, Series], express_load: float) -> Key:
        if place < _Place.PLAIN and self._is_express(place, express_load):
            return (place, self._express_place(), *entry[0])
        meters = self.meters
        tag = meters.tag if entry[1][0] is self._jobs[self._first] else meters.meter
        deference = self._deference if place == _Place.DEFERRED else 0.0
        return (Lane.ORDINARY, tag + meters.excess + deference, *entry[0])

    def _is_express(self, place: int, express_load: float) -> bool:
        within = self._express_place() <= self._express_limits[place]
        return within and _is_open(place, express_load)

    def _express_place(self) -> float:
        meters = self.meters
        return max(meters.express_meter + meters.express_excess, self._terms.virtual_now)


def _in_series(jobs: Iterable[Candidate]) -> list[Series]:
    found: dict[tuple[object, ...], Series] = {}
    for job in jobs:
        shape = (job.job_type, job.cpu_units, job.memory_mb, job.job_class)
        series = found.get(shape)
        if series is None:
            series = found[shape] = deque()
        series.append(job)
    return list(found.values())


def _is_open(lane: int, express_load: float) -> bool:
    return express_load <= EXPRESS_BURST[_EXPRESS[lane][1]]


def standing(job: Candidate) -> Standing:
    """Order the jobs of one line: rank, then earlier ready, then the smaller id."""
    return (job.rank, job.waiting_since, job.id)


class Turns:
    """Whose turn it is, over all lines. After each turn its line is to be put back."""

    def __init__(self, lines: Iterable[Line], express_load: float) -> None:
        self.express_load = express_load
        self._heap: list[Turn] = []
        for line in lines:
            self.put_back(line)

    def put_back(self, line: Line) -> None:
        """Let *line* come up again with its best remaining job."""
        turn = line.best(self.express_load)
        if turn is not None:
            heappush(self._heap, turn)

    def next(self) -> Turn | None:
        """Take out the turn with the least key, or None when nobody is left."""
        while self._heap:
            turn = heappop(self._heap)
            if not turn.is_express or _is_open(turn.key[0], self.express_load):
                return turn
            self.put_back(turn.line)
        return None
