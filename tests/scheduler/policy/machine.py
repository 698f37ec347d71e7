"""Makers for the policy's values, and a machine that steps from event to event in made-up time."""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import fsum

from scheduler.policy.meters import advance, correct, effective_weight, rank
from scheduler.policy.ordering import standing
from scheduler.policy.plan import Plan, plan
from scheduler.snapshot import (
    Account,
    Candidate,
    Clock,
    Group,
    Limits,
    Reservation,
    Resources,
    Running,
    Snapshot,
)
from scheduler.states import DEFAULT_LEVEL, Executor, JobClass

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EIGHT = Resources(8, 4096, 64)  # more worker processes than jobs that fit


def seconds(amount: float) -> timedelta:
    return timedelta(seconds=amount)


def job(
    job_id: int,
    owner: int = 1,
    job_class: JobClass = JobClass.NORMAL,
    *,
    cpu: float = 1,
    memory: int = 128,
    expected: float = 10,
    job_type: str = "simulate",
    ready_at: datetime = NOON,
    level: int | None = None,
    executor: Executor = Executor.CELERY,
) -> Candidate:
    if level is None:
        level = DEFAULT_LEVEL[job_class]
    return Candidate(
        id=job_id,
        owner_id=owner,
        job_type=job_type,
        job_class=job_class,
        rank=rank(ready_at, job_class, level),
        cpu_units=cpu,
        memory_mb=memory,
        expected=seconds(expected),
        waiting_since=ready_at,
        executor=executor,
    )


def running(
    job_id: int,
    owner: int = 1,
    *,
    cpu: float = 1,
    memory: int = 128,
    expected: float = 10,
    job_type: str = "simulate",
    started_at: datetime | None = NOON,
    charge: float | None = None,
    express: bool = False,
    executor: Executor = Executor.CELERY,
) -> Running:
    if charge is None:
        charge = max(cpu / 8, memory / 4096) * expected
    return Running(
        id=job_id,
        attempt=1,
        owner_id=owner,
        job_type=job_type,
        cpu_units=cpu,
        memory_mb=memory,
        expected=seconds(expected),
        admitted_at=started_at or NOON,
        started_at=started_at,
        charge=charge,
        express=express,
        executor=executor,
    )


def snapshot(
    candidates: Iterable[Candidate] = (),
    busy: Iterable[Running] = (),
    *,
    accounts: Iterable[Account] = (),
    groups: Iterable[Group] = (),
    clock: Clock | None = None,
    reservation: Reservation | None = None,
    limits: Limits | None = None,
    now: datetime = NOON,
) -> Snapshot:
    candidates, busy = tuple(candidates), tuple(busy)
    known = {account.owner_id: account for account in accounts}
    for owner in {each.owner_id for each in (*candidates, *busy)} - known.keys():
        known[owner] = Account(owner)
    return Snapshot(
        now=now,
        candidates=candidates,
        running=busy,
        accounts=known,
        groups={group.group_id: group for group in groups},
        clock=clock or Clock(),
        reservation=reservation,
        limits=limits or Limits(EIGHT),
    )


def admitted(made: Plan) -> list[int]:
    return [admission.id for admission in made.admissions]


def passed(
    clock: Clock, ran: Iterable[Running], accounts: Mapping[int, Account], now: datetime
) -> Clock:
    """Let virtual time pass over all that these accounts and jobs are."""
    ran = tuple(ran)
    in_line = {account.owner_id for account in accounts.values() if account.tag is not None}
    active = in_line | {each.owner_id for each in ran}
    weight = fsum(effective_weight(accounts[owner].weight) for owner in active)
    return advance(clock, ran, now, waiting=bool(in_line), weight=weight)


@dataclass(slots=True)
class Machine:
    """Runs jobs for as long as they really take, one event after the other."""

    limits: Limits = field(default_factory=lambda: Limits(EIGHT))
    accounts: dict[int, Account] = field(default_factory=dict)
    groups: dict[int, Group] = field(default_factory=dict)
    now: datetime = NOON
    clock: Clock = field(default_factory=Clock)
    lines: dict[int, list[Candidate]] = field(default_factory=dict)
    running: dict[int, Running] = field(default_factory=dict)
    really: dict[int, float] = field(default_factory=dict)  # seconds, where not as expected
    arrivals: list[Candidate] = field(default_factory=list)  # by time, latest first
    reservation: Reservation | None = None
    window: int = 64
    started: dict[int, datetime] = field(default_factory=dict)
    jobs: dict[int, Candidate] = field(default_factory=dict)
    used: dict[int, float] = field(default_factory=dict)  # machine-seconds by owner

    def submit(self, jobs: Iterable[Candidate]) -> None:
        """Let jobs arrive when they are ready."""
        self.arrivals.extend(jobs)
        self.arrivals.sort(key=lambda each: (each.waiting_since, each.id), reverse=True)

    def steps(self, until: datetime | None = None) -> Iterator[tuple[Snapshot, Plan]]:
        """Step from event to event; yield what was seen and what was decided."""
        while True:
            self._arrive()
            seen = self.seen()
            decided = plan(seen)
            yield seen, decided
            self._apply(decided)
            upcoming = self._next_event()
            if upcoming is None or (until is not None and upcoming > until):
                return
            self._go_to(upcoming)

    def run(self, until: datetime | None = None) -> None:
        """Step on until nothing happens any more, or *until*."""
        for _ in self.steps(until):
            pass

    def seen(self) -> Snapshot:
        return Snapshot(
            now=self.now,
            candidates=tuple(each for line in self.lines.values() for each in line[: self.window]),
            running=tuple(self.running.values()),
            accounts=dict(self.accounts),
            groups=self.groups,
            clock=self.clock,
            reservation=self.reservation,
            limits=self.limits,
        )

    def received(self, owner: int) -> float:
        """What an owner has received per unit of weight, running jobs included up to now."""
        present = sum(r.consumed(self.now) for r in self.running.values() if r.owner_id == owner)
        return (self.used.get(owner, 0) + present) / effective_weight(self.accounts[owner].weight)

    def _arrive(self) -> None:
        while self.arrivals and self.arrivals[-1].waiting_since <= self.now:
            new = self.arrivals.pop()
            insort(self.lines.setdefault(new.owner_id, []), new, key=standing)
            self.jobs[new.id] = new
            self.accounts.setdefault(new.owner_id, Account(new.owner_id))
            self._arrived(new)

    def _apply(self, decided: Plan) -> None:
        for admission in decided.admissions:
            done = self.jobs[admission.id]
            self.lines[done.owner_id].remove(done)
            self.started[done.id] = self.now
            self.running[done.id] = running(
                done.id,
                done.owner_id,
                cpu=done.cpu_units,
                memory=done.memory_mb,
                expected=done.expected.total_seconds(),
                job_type=done.job_type,
                started_at=self.now,
                charge=admission.charge,
                express=admission.express,
                executor=done.executor,
            )
        self.accounts.update((account.owner_id, account) for account in decided.accounts)
        self.clock, self.reservation = decided.clock, decided.reservation

    def _end_of(self, one: Running) -> datetime:
        assert one.started_at is not None
        return one.started_at + seconds(self.really.get(one.id, one.expected.total_seconds()))

    def _next_event(self) -> datetime | None:
        moments = [self._end_of(one) for one in self.running.values()]
        moments += [self.arrivals[-1].waiting_since] if self.arrivals else []
        return min(moments, default=None)

    def _go_to(self, now: datetime) -> None:
        self.now = now
        self._passes()
        self.clock = passed(self.clock, self.running.values(), self.accounts, now)
        for one in [each for each in self.running.values() if self._end_of(each) <= now]:
            del self.running[one.id]
            used = one.consumed(now)
            self.used[one.owner_id] = self.used.get(one.owner_id, 0) + used
            self.accounts[one.owner_id], self.clock = correct(
                self.accounts[one.owner_id],
                self.clock,
                charge=one.charge,
                used=used,
                express=one.express,
            )
            self._ended(one, used)

    # For whoever watches

    def _arrived(self, new: Candidate) -> None: ...

    def _passes(self) -> None: ...

    def _ended(self, one: Running, used: float) -> None: ...
