"""Plain orders to compare the policy with. Pure.

They share its machine, its caps, its backfill and its expected durations; only the order in
which jobs are looked at is theirs, and the reservation never hardens.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from heapq import heapify, heappop, heappush
from math import fsum
from types import MappingProxyType

from scheduler.policy.admission import Admission, Decision, Grounds, cost
from scheduler.policy.backfill import End, Gap, end_of, gap_before
from scheduler.policy.capacity import Amount, Rooms, amount
from scheduler.policy.meters import advance, correct, effective_weight
from scheduler.snapshot import Account, Candidate, Clock, Group, Limits, Running
from scheduler.states import JobClass


class Order(StrEnum):
    """Who goes first."""

    FIRST_COME = "first come first served"
    STRICT_CLASS = "strict class"
    CLASS_THEN_FAIR = "class, then fair"
    FAIR_THEN_CLASS = "fair, then class"


_URGENCY = {job_class: place for place, job_class in enumerate(JobClass)}

_KEYS: Mapping[Order, Callable[[Candidate, float], tuple[float, float]]] = MappingProxyType(
    {
        Order.FIRST_COME: lambda _job, _meter: (0, 0),
        Order.STRICT_CLASS: lambda job, _meter: (_URGENCY[job.job_class], 0),
        Order.CLASS_THEN_FAIR: lambda job, meter: (_URGENCY[job.job_class], meter),
        Order.FAIR_THEN_CLASS: lambda job, meter: (meter, _URGENCY[job.job_class]),
    }
)

_Place = tuple[float, float, datetime, int]
_Series = deque[Candidate]


class Alternative:
    """Decides by one plain order."""

    def __init__(self, order: Order) -> None:
        self._key = _KEYS[order]
        self._clock = Clock()
        self._accounts: dict[int, Account] = {}
        self._groups: dict[int, Group] = {}
        self._limits = Limits(None)
        self._series: dict[tuple[object, ...], _Series] = {}
        self._waiting: Counter[int] = Counter()

    def set_account(self, account: Account) -> None:
        """Take note of an owner."""
        self._accounts[account.owner_id] = account

    def set_group(self, group: Group) -> None:
        """Take note of owners who share caps."""
        self._groups[group.group_id] = group

    def set_limits(self, limits: Limits) -> None:
        """Take note of what there is."""
        self._limits = limits

    def add(self, job: Candidate) -> None:
        """Let a job join its owner's line; who comes back from idleness starts at virtual now."""
        shape = (job.owner_id, job.job_class, job.job_type, job.cpu_units, job.memory_mb)
        self._series.setdefault(shape, deque()).append(job)
        account = self._accounts[job.owner_id]
        if account.tag is None:
            meter = max(account.meter, self._clock.virtual_now)
            self._accounts[job.owner_id] = replace(account, meter=meter, tag=meter)
        self._waiting[job.owner_id] += 1

    def advance(self, now: datetime, running: Collection[Running]) -> None:
        """Let virtual time pass."""
        in_line = {owner for owner, jobs in self._waiting.items() if jobs}
        active = in_line | {job.owner_id for job in running}
        weight = fsum(effective_weight(self._accounts[owner].weight) for owner in active)
        self._clock = advance(self._clock, running, now, waiting=bool(in_line), weight=weight)

    def end(self, job: Running, used: float) -> None:
        """Put what a job has used in the place of its charge."""
        self._accounts[job.owner_id], self._clock = correct(
            self._accounts[job.owner_id], self._clock, charge=job.charge, used=used, express=False
        )

    def decide(self, now: datetime, running: Collection[Running]) -> Decision:
        """Admit jobs in order; after the first that lacks room, those that do not delay it."""
        admissions: list[Admission] = []
        if self._limits.capacity is not None:
            rooms = Rooms(self._limits, self._accounts, self._groups, running)
            machine = _Machine(rooms, [end_of(job, now) for job in running])
            admissions.extend(self._admit(series) for series in self._turns(machine))
        return Decision(tuple(admissions), (), self._clock, None)

    def _turns(self, machine: "_Machine") -> Iterator[_Series]:
        """Yield each series whose first job is to be admitted; it must be, before the next."""
        self._series = {shape: series for shape, series in self._series.items() if series}
        least = _least(series[0] for series in self._series.values())
        if machine.is_full(least):
            return
        turns = [(self._place(series[0]), series) for series in self._series.values()]
        heapify(turns)
        while turns and not machine.is_full(least):
            key, series = heappop(turns)
            if key < self._place(series[0]):  # its owner has been served meanwhile
                heappush(turns, (self._place(series[0]), series))
            elif machine.lets_in(series[0]):
                yield series
                if series:
                    heappush(turns, (self._place(series[0]), series))

    def _place(self, job: Candidate) -> _Place:
        key = self._key(job, self._accounts[job.owner_id].meter)
        return (*key, job.waiting_since, job.id)

    def _admit(self, series: _Series) -> Admission:
        job = series.popleft()
        account, charge = self._accounts[job.owner_id], cost(job, self._limits.capacity)
        self._waiting[job.owner_id] -= 1
        meter = account.meter + charge / effective_weight(account.weight)
        tag = meter if self._waiting[job.owner_id] else None
        self._accounts[job.owner_id] = replace(account, meter=meter, tag=tag)
        return Admission(job, charge, express=False, grounds=Grounds.TURN)


class _Machine:
    """What is free during one pass, and the room kept for the first job that lacks it."""

    def __init__(self, rooms: Rooms, ends: list[End]) -> None:
        self._rooms = rooms
        self._ends = ends
        self._gap: Gap | None = None

    def is_full(self, least: Amount) -> bool:
        """Tell whether not even the *least* need could be met."""
        return not self._rooms.machine.fits(least)

    def lets_in(self, job: Candidate) -> bool:
        """Hold what the job needs, if it is there and not kept for another."""
        need, seconds = amount(job), job.expected.total_seconds()
        if self._rooms.type_refusal(job) or self._rooms.owner_refusal(job, need):
            return False
        if not self._rooms.machine.fits(need):
            self._gap = self._gap or gap_before(job.id, need, self._rooms.machine, self._ends)
            return False
        if self._gap is not None:
            if not self._gap.lets_in(need, seconds):
                return False
            self._gap.let_in(need, seconds)
        self._rooms.admit(job, need)
        self._ends.append(End(seconds, need))
        return True


def _least(jobs: Iterable[Candidate]) -> Amount:
    needs = [amount(job) for job in jobs] or [Amount(0, 0)]
    return Amount(min(need.cpu for need in needs), min(need.memory for need in needs))
