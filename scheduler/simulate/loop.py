"""A machine in made-up time: it goes from event to event and lets the policy decide at each. Pure.

The policy is asked as the service asks it: jobs join lines, virtual time passes before ended
jobs are taken away, and what they used is put in the place of their charges.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from math import ceil, inf
from typing import Protocol

from scheduler.policy.admission import Admission, Decision
from scheduler.policy.durations import Durations, Expected, Lasted
from scheduler.policy.meters import rank
from scheduler.simulate.workload import Arrival, Workload
from scheduler.snapshot import Account, Candidate, Group, Limits, Running

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
"""The instant at which every simulation begins."""


class Policy(Protocol):
    """Who decides: the engine of the service, or a plain alternative."""

    def set_account(self, account: Account) -> None:
        """Take note of an owner."""

    def set_group(self, group: Group) -> None:
        """Take note of owners who share caps."""

    def set_limits(self, limits: Limits) -> None:
        """Take note of what there is."""

    def add(self, job: Candidate) -> None:
        """Let a job join its owner's line."""

    def advance(self, now: datetime, running: Collection[Running]) -> None:
        """Let virtual time pass."""

    def end(self, job: Running, used: float) -> None:
        """Take note of what a job has used, in machine-seconds."""

    def decide(self, now: datetime, running: Collection[Running]) -> Decision:
        """Admit jobs."""


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a job; instants are seconds from the beginning, None for never."""

    job: Arrival
    started: float | None = None
    ended: float | None = None

    def wait(self) -> float:
        """How long it waited until it started."""
        return inf if self.started is None else self.started - self.job.at


@dataclass(slots=True)
class Simulation:
    """One workload under one policy."""

    workload: Workload
    policy: Policy
    seconds: float = 0.0  # since the beginning
    running: dict[int, Running] = field(default_factory=dict)
    starts: dict[int, float] = field(default_factory=dict)
    waiting: dict[int, Candidate] = field(default_factory=dict)
    _ends: list[tuple[float, int]] = field(default_factory=list)
    _arrived: int = 0
    _capacities_set: int = 0
    _durations: Durations = field(default_factory=Durations)
    _jobs: Mapping[int, Arrival] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._jobs = {job.id: job for job in self.workload.arrivals}
        for account in self.workload.accounts.values():
            self.policy.set_account(account)
        for group in self.workload.groups:
            self.policy.set_group(group)

    @property
    def now(self) -> datetime:
        """The present as the policy sees it."""
        return BEGIN + timedelta(seconds=self.seconds)

    def run(self) -> tuple[Run, ...]:
        """Play to the end; return what became of every job that arrived."""
        for _ in self.steps():
            pass
        return self.runs()

    def steps(self) -> Iterator[Decision]:
        """Go from event to event; yield what is decided at each, after it was carried out."""
        while (moment := self._next_moment()) is not None:
            self._go_to(moment)
            decided = self.policy.decide(self.now, self.running.values())
            for admission in decided.admissions:
                self._start(admission)
            yield decided

    def runs(self) -> tuple[Run, ...]:
        """Tell what has become of every job that has arrived."""
        return tuple(self._run(job) for job in self.workload.arrivals[: self._arrived])

    def _run(self, job: Arrival) -> Run:
        started = self.starts.get(job.id)
        return Run(job) if started is None else Run(job, started, started + job.seconds)

    def _next_moment(self) -> float | None:
        """Return when the policy is to be asked next, or None at the end."""
        upcoming = min(self._upcoming(), default=None)
        if upcoming is None or self._is_over(upcoming):
            return None
        every = self.workload.decides_every
        return max(self.seconds, ceil(upcoming / every) * every if every else upcoming)

    def _upcoming(self) -> Iterator[float]:
        workload = self.workload
        if self._arrived < len(workload.arrivals):
            yield workload.arrivals[self._arrived].at
        if self._ends:
            yield self._ends[0][0]
        if self._capacities_set < len(workload.capacities):
            yield workload.capacities[self._capacities_set][0]

    def _is_over(self, upcoming: float) -> bool:
        if self.workload.drain:
            return self._arrived == len(self._jobs) == len(self.starts)
        return upcoming > self.workload.arrive_for

    def _go_to(self, moment: float) -> None:
        self.seconds = moment
        self.policy.advance(self.now, self.running.values())
        self._let_jobs_end()
        self._change_capacity()
        while self._arrived < len(self._jobs) and self._is_here(self._arrived):
            self._arrive(self.workload.arrivals[self._arrived])

    def _let_jobs_end(self) -> None:
        lasted = []
        while self._ends and self._ends[0][0] <= self.seconds:
            ended = self.running.pop(heappop(self._ends)[1])
            seconds = self._jobs[ended.id].seconds
            self.policy.end(ended, ended.share * seconds)
            lasted.append(Lasted(ended.job_type, ended.owner_id, seconds))
        self._durations, _ = self._durations.learn(lasted)

    def _change_capacity(self) -> None:
        capacities = self.workload.capacities
        while self._capacities_set < len(capacities):
            at, capacity = capacities[self._capacities_set]
            if at > self.seconds:
                return
            self.policy.set_limits(self.workload.limits(capacity))
            self._capacities_set += 1

    def _is_here(self, number: int) -> bool:
        return self.workload.arrivals[number].at <= self.seconds

    def _arrive(self, job: Arrival) -> None:
        self._arrived += 1
        self.waiting[job.id] = candidate = self._candidate(job)
        self.policy.add(candidate)

    def _candidate(self, job: Arrival) -> Candidate:
        ready_at = BEGIN + timedelta(seconds=job.at)
        expected = self._expected(job)
        return Candidate(
            id=job.id,
            owner_id=job.owner_id,
            job_type=job.job_type,
            job_class=job.job_class,
            rank=rank(ready_at, job.job_class, job.level),
            cpu_units=job.cpu_units,
            memory_mb=job.memory_mb,
            expected=expected.duration,
            waiting_since=ready_at,
            spread=expected.spread,
        )

    def _expected(self, job: Arrival) -> Expected:
        told = job.expected or job.estimated
        known = self._durations if job.expected is None else Durations()
        estimated = None if told is None else timedelta(seconds=told)
        return known.expected(job.job_type, job.owner_id, estimated)

    def _start(self, admission: Admission) -> None:
        job = self._jobs[admission.id]
        self.starts[job.id] = self.seconds
        heappush(self._ends, (self.seconds + job.seconds, job.id))
        del self.waiting[job.id]
        self.running[job.id] = admission.running(self.now, started_at=self.now)
