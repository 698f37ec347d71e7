"""Checks what was promised on what is recorded, and on nothing the schedulers say themselves."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import Any

from sqlalchemy import Engine, text

from scheduler.policy.meters import dominant_share
from scheduler.snapshot import Resources
from scheduler.states import ACTIVE, FINISHED, MOVES, Condition, JobStatus

Attempt = tuple[int, int]
S = JobStatus

_SLACK = 1e-6

_EVENTS = """
SELECT e.seq, e.job_id, e.owner_id, e.verb, e.status, e.attempt, e.at,
       CAST(e.data ->> 'epoch' AS bigint) AS epoch, j.type,
       CAST(j.cpu_units AS float8) AS cpu_units, j.memory_mb
FROM job_events e JOIN jobs j ON j.id = e.job_id WHERE e.seq > :after ORDER BY e.seq
"""

_AT_ODDS = """
SELECT jobs.id, jobs.status, jobs.attempt, active.attempt AS held, ready.job_id AS in_line
FROM jobs LEFT JOIN ready ON ready.job_id = jobs.id LEFT JOIN active ON active.job_id = jobs.id
WHERE (jobs.status = 'ready') <> (ready.job_id IS NOT NULL)
   OR (jobs.status IN ('queued', 'running')) <> (active.job_id IS NOT NULL)
   OR (jobs.status = 'running') <> (active.claimed_at IS NOT NULL AND active.job_id IS NOT NULL)
   OR active.attempt <> jobs.attempt
"""

_UNTAKEN = "SELECT job_id, charge FROM feed WHERE charge IS NOT NULL ORDER BY seq"

_LEFT = """
SELECT (SELECT count(*) FROM ready) AS ready, (SELECT count(*) FROM active) AS active,
       (SELECT count(*) FROM outbox) AS outbox, (SELECT count(*) FROM feed) AS feed,
       (SELECT count(*) FROM timers) AS timers,
       (SELECT count(*) FROM jobs WHERE status <> ALL(:final)) AS unfinished
"""


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass(frozen=True)
class OwnerCaps:
    """What one owner may hold at once; None is no bound."""

    weight: float = 1.0
    cpu_units: float | None = None
    running_jobs: int | None = None


@dataclass(frozen=True)
class Promised:
    """The bounds of a run. *run_ahead*: jobs beside the processes, for each one ever ended."""

    machine: Resources
    owners: Mapping[int, OwnerCaps]
    types: Mapping[str, int]
    run_ahead: float


@dataclass
class _Held:
    """What one admitted job holds."""

    owner_id: int
    type: str
    cpu_units: float
    memory_mb: int
    attempt: int
    started_at: datetime | None = None


@dataclass
class Auditor:
    """Follows the history of one run from its beginning."""

    engine: Engine
    promised: Promised
    read_to: int = 0
    epoch: int = 0
    admitted: set[Attempt] = field(default_factory=set)
    started: set[Attempt] = field(default_factory=set)
    held: dict[int, _Held] = field(default_factory=dict)
    status: dict[int, JobStatus] = field(default_factory=dict)
    was: dict[int, set[JobStatus]] = field(default_factory=lambda: defaultdict(set))
    used: dict[int, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    ended: int = 0
    charges: dict[Attempt, float] = field(default_factory=dict)
    meters: dict[int, float] = field(default_factory=dict)
    on_meters: set[Attempt] = field(default_factory=set)
    virtual_now: float = 0.0

    def look(self) -> None:
        """Check everything that has happened since the last look, and what there is now."""
        for event in self._rows(_EVENTS, after=self.read_to):
            self._take_in(event)
            self.read_to = event.seq
        at_odds = self._rows(_AT_ODDS)
        _check(not at_odds, f"tables at odds: {at_odds}")
        self._check_meters()

    def look_at_the_end(self) -> None:
        """Check that nothing is left over."""
        self.look()
        (left,) = self._rows(_LEFT, final=sorted(FINISHED))
        _check(not any(left), f"left over: {left}")
        _check(not self.held, f"still held: {self.held}")

    # The history

    def _take_in(self, event: Any) -> None:
        job, after = event.job_id, S(event.status)
        before = self.status.get(job)
        legal = before is None or before is after or after in MOVES[before]
        _check(legal, f"job {job} went from {before} to {after}: {event}")
        self.status[job] = after
        self.was[job].add(after)
        if event.verb == "admit":
            self._admit(event)
        elif event.verb == "start":
            self._start(event)
        elif before in ACTIVE and after not in ACTIVE:
            self._end(event)

    def _admit(self, event: Any) -> None:
        attempt = (event.job_id, event.attempt)
        _check(attempt not in self.admitted, f"{attempt} was admitted twice")
        _check(event.job_id not in self.held, f"job {event.job_id} was admitted while it was held")
        _check(event.epoch >= self.epoch, f"epoch {event.epoch} admitted after {self.epoch}")
        self._check_parents(event.job_id)
        self.epoch = event.epoch
        self.admitted.add(attempt)
        self.held[event.job_id] = _Held(
            event.owner_id, event.type, event.cpu_units, event.memory_mb, event.attempt
        )
        self._check_caps(self.held[event.job_id])

    def _start(self, event: Any) -> None:
        attempt = (event.job_id, event.attempt)
        held = self.held.get(event.job_id)
        _check(held is not None and held.attempt == event.attempt, f"{attempt} runs unadmitted")
        _check(attempt not in self.started, f"{attempt} ran twice")
        self.started.add(attempt)
        if held is not None:
            held.started_at = event.at

    def _end(self, event: Any) -> None:
        held = self.held.pop(event.job_id)
        seconds = (event.at - held.started_at).total_seconds() if held.started_at else 0.0
        share = dominant_share(held.cpu_units, held.memory_mb, self.promised.machine)
        self.used[event.job_id].append((held.attempt, share * seconds))
        self.ended += 1

    def _check_parents(self, job: int) -> None:
        for edge in self._rows(
            "SELECT parent_id, condition FROM dependencies WHERE child_id = :job", job=job
        ):
            enough = _ENOUGH[Condition(edge.condition)] & self.was[edge.parent_id]
            _check(bool(enough), f"job {job} was admitted before {edge.parent_id}")

    def _check_caps(self, newest: _Held) -> None:
        machine, held = self.promised.machine, self.held.values()
        slots = machine.slots + int(self.promised.run_ahead * self.ended)
        _check(_cpu(held) <= machine.cpu_units + _SLACK, f"{_cpu(held)} CPU units held")
        _check(sum(each.memory_mb for each in held) <= machine.memory_mb, "memory exceeded")
        _check(len(self.held) <= slots, f"{len(self.held)} jobs held on {slots} slots")
        own = [each for each in held if each.owner_id == newest.owner_id]
        caps = self.promised.owners[newest.owner_id]
        _check(caps.cpu_units is None or _cpu(own) <= caps.cpu_units + _SLACK, "owner's CPU cap")
        _check(caps.running_jobs is None or len(own) <= caps.running_jobs, "owner's cap of jobs")
        most = self.promised.types.get(newest.type)
        alike = sum(each.type == newest.type for each in held)
        _check(most is None or alike <= most, f"{alike} jobs of type {newest.type}")

    # The meters

    def _check_meters(self) -> None:
        untaken: dict[int, list[float]] = defaultdict(list)
        for row in self._rows(_UNTAKEN):
            untaken[row.job_id].append(row.charge)
        active = self._rows("SELECT job_id, attempt, charge FROM active")
        self.charges |= {(row.job_id, row.attempt): row.charge for row in active}
        owes: dict[int, float] = defaultdict(float)
        still = {(row.job_id, row.attempt) for row in active}
        for job, ends in self.used.items():
            taken = len(ends) - len(untaken[job])
            owes[self._owner_of(job)] += sum(used for _, used in ends[:taken])
            for (attempt, _), charge in zip(ends[taken:], untaken[job], strict=True):
                self.charges[job, attempt] = charge
                still.add((job, attempt))
        for job, attempt in still:
            owes[self._owner_of(job)] += self.charges.get((job, attempt), 0.0)
        self._compare_meters(owes, self.on_meters - still)
        self.on_meters = still

    def _compare_meters(self, owes: Mapping[int, float], corrected: Iterable[Attempt]) -> None:
        back: dict[int, float] = defaultdict(float)
        for attempt in corrected:
            back[self._owner_of(attempt[0])] += self.charges.get(attempt, 0.0)
        for row in self._rows("SELECT owner_id, meter, express_meter FROM meters"):
            owner, weight = row.owner_id, self.promised.owners[row.owner_id].weight
            _check(isfinite(row.meter) and isfinite(row.express_meter), f"meter of {owner}: {row}")
            _check(
                row.meter * weight >= owes[owner] - _SLACK,
                f"owner {owner} got {owes[owner]} and is charged {row.meter * weight}",
            )
            least = self.meters.get(owner, 0.0) - back[owner] / weight - _SLACK
            _check(row.meter >= least, f"meter of {owner} went back to {row.meter}, under {least}")
            self.meters[owner] = row.meter
        (lease,) = self._rows("SELECT clock, epoch FROM scheduler_lease")
        virtual_now = lease.clock.get("virtual_now", 0.0)
        _check(virtual_now >= self.virtual_now, f"virtual now went back to {virtual_now}")
        _check(lease.epoch >= self.epoch, f"epoch {self.epoch} was given out by nobody")
        self.virtual_now = virtual_now

    def _owner_of(self, job: int) -> int:
        if job not in self._owners:
            rows = self._rows("SELECT id, owner_id FROM jobs")
            self._owners |= {row.id: row.owner_id for row in rows}
        return self._owners[job]

    _owners: dict[int, int] = field(default_factory=dict)

    def _rows(self, query: str, **parameters: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(query), parameters))


_ENOUGH = {
    Condition.COMPLETED: {S.COMPLETED},
    Condition.FAILED: {S.FAILED},
    Condition.FINISHED: set(FINISHED),
}


def _cpu(held: Iterable[_Held]) -> float:
    return sum(each.cpu_units for each in held)


def _check(kept: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not kept:
        raise Broken(otherwise)
