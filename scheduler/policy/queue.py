"""Everybody's waiting jobs in the order of the policy, kept from pass to pass.

Series that are alike stand on one shelf: a job's type, size and class, its duration within a
factor of two, and its owner's weight, group and allowance. What the first of a shelf lacks, all
of it lack, so a pass looks at as many shelves as there are kinds of jobs, not at every owner.

Inside a pass keys only grow: an admission raises its owner's meter and nothing lowers one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import chain, islice
from math import fsum
from typing import Any, NamedTuple

from sortedcontainers import SortedList

from scheduler.policy.capacity import Room
from scheduler.policy.lines import Bracket, Line, Series, Shape, bracket_of
from scheduler.policy.ordering import EXPRESS_LANES, Key, Lane, Terms, is_open, standing
from scheduler.snapshot import Candidate
from scheduler.states import Executor, JobClass


class _Kind(NamedTuple):
    """What the series of one shelf share."""

    shape: Shape
    is_deferred: bool
    bracket: Bracket
    weight: float
    group_id: int | None
    allowance: float


class Shelf:
    """Series that are alike, in the order of the policy."""

    __slots__ = (
        "ahead",
        "deference",
        "express_limit",
        "is_closed",
        "kind",
        "lane",
        "level",
        "need",
        "number",
        "on_machine",
        "ordinary",
    )

    def __init__(self, kind: _Kind, number: int) -> None:
        self.kind = kind
        self.number = number
        self.need = kind.shape.need
        self.on_machine = kind.shape.executor is Executor.CELERY
        self.lane = EXPRESS_LANES.get(kind.shape.job_class, Lane.ORDINARY)
        self.ordinary: Any = SortedList()  # by place among owners
        self.level: Any = SortedList()  # express, within the owner's own share
        self.ahead: Any = SortedList()  # express, by how far ahead of it
        self.is_closed = False  # for the rest of a pass
        self.express_limit = 0.0
        self.deference = 0.0

    @property
    def shortest(self) -> float:
        """The least duration of its jobs, in seconds."""
        return self.kind.bracket.shortest

    def prepare(self, terms: Terms) -> None:
        """Work out what a pass measures all series by."""
        kind = self.kind
        if kind.is_deferred:
            self.deference = terms.deference(kind.weight)
        if self.lane is not Lane.ORDINARY:
            allowance = terms.allowance(kind.shape.job_class, kind.weight)
            self.express_limit = terms.virtual_now + allowance * kind.allowance

    def best(self, virtual_now: float, lanes: "Lanes") -> "Turn | None":
        """Return whose turn it is on this shelf, or None when nobody is left."""
        if self.is_closed or not self.ordinary:
            return None
        if self.lane is not Lane.ORDINARY and lanes[self.lane]:
            if self.level:
                rank, since, job_id, series = self.level[0]
                return Turn((self.lane, virtual_now, rank, since, job_id), self, series)
            if self.ahead and self.ahead[0][0] <= self.express_limit:
                x, rank, since, job_id, series = self.ahead[0]
                return Turn((self.lane, x, rank, since, job_id), self, series)
        tag, rank, since, job_id, series = self.ordinary[0]
        return Turn((Lane.ORDINARY, tag + self.deference, rank, since, job_id), self, series)


Lanes = tuple[bool, bool]
"""Whether the critical and the high lane are open."""


def open_lanes(express_load: float) -> Lanes:
    """Tell which lanes everybody's express work leaves open."""
    return (is_open(Lane.CRITICAL, express_load), is_open(Lane.HIGH, express_load))


class Turn(NamedTuple):
    """A job whose turn it is: the first of its series."""

    key: Key
    shelf: Shelf
    series: Series

    @property
    def job(self) -> Candidate:
        """The job itself."""
        return self.series.first

    @property
    def line(self) -> Line:
        """The line it stands in."""
        return self.series.line

    @property
    def is_express(self) -> bool:
        """Whether the job jumps everybody's line."""
        return self.key[0] < Lane.ORDINARY

    @property
    def is_critical_express(self) -> bool:
        """Whether the job goes before all others."""
        return self.key[0] == Lane.CRITICAL


class Queue:
    """The lines of all owners who wait, and whose turn it is among them."""

    def __init__(self) -> None:
        self.lines: dict[int, Line] = {}
        self.terms = Terms(0.0, 1.0, 0.0, 0)
        self._shelves: dict[_Kind, Shelf] = {}
        self._numbers = iter(range(2**62))
        self._heads: Any = SortedList()  # (tag, owner)
        self._weights: Counter[float] = Counter()  # of the owners in line
        self._entering: dict[int, Line] = {}  # in line since the last pass
        self._fresh_low: list[tuple[int, int]] = []  # heap of deferred jobs: rank, job
        self._deferred: dict[int, Series] = {}  # by such a job, which is or was its first
        self._aside: list[Series] = []
        self._closed: list[Shelf] = []
        self._moved: list[Shelf] = []  # on which a series was put
        self._charged: dict[int, Line] = {}  # whose meters a pass has changed

    # Lines

    def put(self, line: Line) -> None:
        """Place *line* anew after its jobs or meters have changed."""
        self.take_out(line)
        line.find_first()
        if not line.in_line:
            return
        self.lines[line.account.owner_id] = line
        self._weights[line.weight] += 1
        if line.account.tag is None:
            self._entering[line.account.owner_id] = line
        else:
            self._place(line)

    def take_out(self, line: Line) -> None:
        """Forget the places of *line*. Call it before its weight changes."""
        owner = line.account.owner_id
        if owner not in self.lines:
            return
        if self._entering.pop(owner, None) is None:
            self._unplace(line)
        self._leave(line)

    def weight(self) -> float:
        """Return the sum of the weights of all owners in line."""
        return fsum(weight * count for weight, count in self._weights.items())

    def furthest_behind(self) -> Iterator[Line]:
        """Go through the lines that were there at the last pass, the least tag first."""
        return (self.lines[owner] for _, owner in self._heads)

    # A pass

    def begin(self, terms: Terms) -> None:
        """Begin a pass: let owners enter, and let places follow the terms."""
        self.terms = terms
        entering, self._entering = self._entering, {}
        level = self._level_with_the_rest()
        for line in entering.values():
            line.raise_to(level)
            self._charged[line.account.owner_id] = line
            self._place(line)
        self._let_low_jobs_age(terms.deferred_from)
        for shelf in list(self._shelves.values()):
            shelf.prepare(terms)
            self._level(shelf)

    def turns(self, express_load: float) -> "Turns":
        """Return whose turn it is, one after the other."""
        self._moved.clear()
        return Turns(self, self._shelves.values(), express_load)

    def take(self, turn: Turn, cost: float) -> None:
        """Charge *cost* for the job whose turn it is and let it leave."""
        line, series = turn.line, turn.series
        self._unplace(line)
        express_from = max(line.express_meter, self.terms.virtual_now) if turn.is_express else None
        line.raise_to(self.terms.oldest_debt())
        line.charge(series, cost, express_from=express_from)
        self._charged[line.account.owner_id] = line
        series.jobs.pop(0)
        line.find_first()
        if line.in_line:
            self._place(line)
        else:
            self._leave(line)

    def turn_of(self, series: Series, express_load: float) -> Turn:
        """Return the turn of the first of *series*, out of order."""
        shelf, ordinary, express = series.placed
        alone = Shelf(shelf.kind, shelf.number)
        alone.prepare(self.terms)
        alone.ordinary.add(ordinary)
        if express:
            (alone.ahead if len(express) > _LEVEL else alone.level).add(express)
        turn = alone.best(self.terms.virtual_now, open_lanes(express_load))
        if turn is None:
            raise LookupError("a series in line has a turn")
        return turn

    def set_aside(self, series: Series) -> None:
        """Look no more at *series* in this pass."""
        self._withdraw(series)
        series.is_aside = True
        self._aside.append(series)

    def close(self, shelf: Shelf) -> None:
        """Look no more at any series of *shelf* in this pass."""
        shelf.is_closed = True
        self._closed.append(shelf)

    def reopen(self) -> None:
        """Look at everything again."""
        for shelf in self._closed:
            shelf.is_closed = False
            if not shelf.ordinary:
                self._shelves.pop(shelf.kind, None)
        for series in self._aside:
            series.is_aside = False
            if series.waits and series.line.account.owner_id in self.lines:
                self._shelve(series)
        self._closed, self._aside = [], []

    def moved(self) -> Iterable[Shelf]:
        """Return the shelves on which a series was put since this was last asked."""
        moved, self._moved = self._moved, []
        return moved

    def changed(self) -> Iterable[Line]:
        """Return the lines whose meters passes have changed since this was last asked."""
        changed, self._charged = self._charged, {}
        return changed.values()

    # The first jobs

    def first_jobs(self, most: int) -> Iterator[Candidate]:
        """Go through about the first *most* jobs, a part without gaps of each line.

        Lines that no pass has placed come first, then urgent ones, then each job as if it cost
        its owner the mean.
        """
        counts = Counter({owner: line.count() for owner, line in self._entering.items()})
        for line in islice(self._urgent(), most):
            counts[line.account.owner_id] = max(
                counts[line.account.owner_id], _through_express(line)
            )
        for line in islice(self._in_turn(), most):
            counts[line.account.owner_id] += 1
        for owner, count in counts.items():
            yield from self.lines[owner].jobs()[:count]

    def _urgent(self) -> Iterator[Line]:
        """Go through the lines with express work within the owner's allowance or near it."""
        for shelf in self._shelves.values():
            yield from (entry[-1].line for entry in chain(shelf.level, shelf.ahead))

    def _in_turn(self) -> Iterator[Line]:
        """Go through the lines in the order of their turns, once for each job."""
        behind = ((line.tag, line.account.owner_id, 0) for line in self.furthest_behind())
        begun: list[tuple[float, int, int]] = []
        upcoming = next(behind, None)
        while begun or upcoming:
            if upcoming and (not begun or upcoming < begun[0]):
                heappush(begun, upcoming)
                upcoming = next(behind, None)
            place, owner, taken = heappop(begun)
            line = self.lines[owner]
            yield line
            if taken + 1 < line.count():
                step = self.terms.mean_cost / line.weight
                heappush(begun, (place + step, owner, taken + 1))

    # Places

    def _leave(self, line: Line) -> None:
        del self.lines[line.account.owner_id]
        self._weights[line.weight] -= 1
        if not self._weights[line.weight]:
            del self._weights[line.weight]

    def _place(self, line: Line) -> None:
        self._heads.add((line.tag, line.account.owner_id))
        for series in line.series.values():
            if series.waits and not series.is_aside:
                self._shelve(series)

    def _unplace(self, line: Line) -> None:
        self._heads.remove((line.tag, line.account.owner_id))
        for series in line.series.values():
            self._withdraw(series)

    def _shelve(self, series: Series) -> None:
        line, first = series.line, series.first
        shelf = self._shelf_of(series)
        place = standing(first)
        tag = line.tag if series is line.first_series else line.meter
        ordinary = (tag, *place, series)
        shelf.ordinary.add(ordinary)
        express: tuple[Any, ...] = ()
        if shelf.lane < Lane.ORDINARY:
            express = self._join_express(shelf, series)
        series.placed = (shelf, ordinary, express)
        self._moved.append(shelf)

    def _join_express(self, shelf: Shelf, series: Series) -> tuple[Any, ...]:
        x, place = series.line.express_meter, standing(series.first)
        if x <= self.terms.virtual_now:
            shelf.level.add((*place, series))
            return (*place, series)
        shelf.ahead.add((x, *place, series))
        return (x, *place, series)

    def _withdraw(self, series: Series) -> None:
        if not series.placed:
            return
        shelf, ordinary, express = series.placed
        shelf.ordinary.remove(ordinary)
        if express:
            (shelf.ahead if len(express) > _LEVEL else shelf.level).remove(express)
        series.placed = ()
        if not shelf.ordinary and not shelf.is_closed:
            self._shelves.pop(shelf.kind, None)

    def _shelf_of(self, series: Series) -> Shelf:
        account, first = series.line.account, series.first
        kind = _Kind(
            series.shape,
            self._is_deferred(series),
            bracket_of(first),
            series.line.weight,
            account.group_id,
            first.allowance,
        )
        shelf = self._shelves.get(kind)
        if shelf is None:
            shelf = self._shelves[kind] = Shelf(kind, next(self._numbers))
            shelf.prepare(self.terms)
        return shelf

    def _is_deferred(self, series: Series) -> bool:
        first = series.first
        if first.job_class is not JobClass.LOW or first.rank <= self.terms.deferred_from:
            return False
        if first.id not in self._deferred:
            heappush(self._fresh_low, (first.rank, first.id))
        self._deferred[first.id] = series
        return True

    # What changes with time

    def _level_with_the_rest(self) -> float:
        """Return where newcomers enter: beside the middle one of those in line.

        That is virtual now, unless a burst of express work has left the others behind it: then
        newcomers would wait until all of them had caught up.
        """
        now = self.terms.virtual_now
        if not self._heads:
            return now
        middle: float = self._heads[(len(self._heads) - 1) // 2][0]
        return min(now, middle)

    def _let_low_jobs_age(self, deferred_from: int) -> None:
        while self._fresh_low and self._fresh_low[0][0] <= deferred_from:
            _, job_id = heappop(self._fresh_low)
            series = self._deferred.pop(job_id)
            if series.placed and series.first.id == job_id:
                self._withdraw(series)
                self._shelve(series)

    def _level(self, shelf: Shelf) -> None:
        while shelf.ahead and shelf.ahead[0][0] <= self.terms.virtual_now:
            series = shelf.ahead[0][-1]
            self._withdraw(series)
            self._shelve(series)


_LEVEL = 4
"""Parts of an entry among those level with virtual now; one ahead of it has its meter besides."""


class Turns:
    """Whose turn it is, over all shelves."""

    def __init__(self, queue: Queue, shelves: Iterable[Shelf], express_load: float) -> None:
        self._queue = queue
        self._now = queue.terms.virtual_now
        self._lanes = open_lanes(express_load)
        self._heap: list[tuple[Key, int, Shelf]] = []
        self._newest: dict[int, Key] = {}  # of each shelf; other entries of it are stale
        for shelf in shelves:
            self._push(shelf)

    def count(self, express_load: float) -> None:
        """Take note of everybody's express work."""
        self._lanes = open_lanes(express_load)

    def next(self, room: Room | None = None) -> Turn | None:
        """Return the turn with the least key, or None when nobody is left.

        With *room* on the machine given, those that would not fit into it are left out.
        """
        for shelf in self._queue.moved():
            self._push(shelf)
        while self._heap:
            key, number, shelf = heappop(self._heap)
            if self._newest.get(number) != key:
                continue
            del self._newest[number]
            if room is not None and shelf.on_machine and not room.fits(shelf.need):
                continue
            turn = shelf.best(self._now, self._lanes)
            if turn is None:
                continue
            self._newest[shelf.number] = turn.key
            heappush(self._heap, (turn.key, shelf.number, shelf))
            if turn.key <= key:
                return turn
        return None

    def _push(self, shelf: Shelf) -> None:
        turn = shelf.best(self._now, self._lanes)
        if turn is not None and self._newest.get(shelf.number) != turn.key:
            self._newest[shelf.number] = turn.key
            heappush(self._heap, (turn.key, shelf.number, shelf))


def _through_express(line: Line) -> int:
    """Return how many of a line's jobs there are up to its last urgent one."""
    jobs = line.jobs()
    urgent = (place for place, job in enumerate(jobs, start=1) if job.job_class in EXPRESS_LANES)
    return max(urgent, default=0)
