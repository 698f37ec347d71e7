"""What a run has left behind: the values that are audited and measured. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from scheduler.states import Condition, JobStatus, Outcome
from tests.chaos.schedule import Strike

Attempt = tuple[int, int]
"""The internal id of a job, and the number of its attempt."""

Name = tuple[str, str]
"""A job as its submitter knows it: owner and ``job_id``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of ``job_events``."""

    seq: int
    job: int
    verb: str
    status: JobStatus
    attempt: int
    at: datetime
    epoch: int | None = None
    worker: str | None = None

    @property
    def key(self) -> Attempt:
        """The attempt it is about."""
        return self.job, self.attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of ``jobs``; *records*: its handler leaves an effect."""

    id: int
    owner: str
    name: str
    status: JobStatus
    attempt: int
    cpu_units: float
    memory_mb: int
    records: bool


@dataclass(frozen=True, slots=True)
class Edge:
    """One row of ``dependencies``."""

    child: int
    parent: int
    condition: Condition


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be reserved at once."""

    cpu_units: float
    memory_mb: int


@dataclass(frozen=True, slots=True)
class Hit:
    """Whom a fault hit: attempts, a process by name, a leader's epoch; and when, if not at once."""

    attempts: Sequence[Attempt] = ()
    process: str | None = None
    epoch: int | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Struck:
    """A strike that has happened; without a hit there was nobody to strike."""

    strike: Strike
    hit: Hit | None
    began: datetime
    lifted: datetime


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything recorded of one run, and what its clients were promised."""

    jobs: Mapping[int, Job]
    events: Sequence[Event]
    outcomes: Mapping[Attempt, Outcome | None]
    edges: Sequence[Edge]
    effects: Mapping[Attempt, int]
    left: Mapping[str, int]
    bounds: Bounds
    accepted: AbstractSet[Name] = frozenset()
    cancelled: AbstractSet[Name] = frozenset()
    struck: Sequence[Struck] = ()
    incidents: Sequence[str] = field(default_factory=tuple)

    def counts(self) -> Mapping[str, int]:
        """Return how much there was of what."""
        lost = {key for key, outcome in self.outcomes.items() if outcome is Outcome.LOST}
        began = {event.key for event in self.events if event.verb == "start"}
        return {
            "jobs": len(self.jobs),
            "attempts": len(began),
            "lost": len(lost),
            "repeated": len({job for job, attempt in lost if (job, attempt + 1) in began}),
            "failed": sum(one is Outcome.FAILED for one in self.outcomes.values()),
            "effects": len(self.effects),
            "again": sum(self.effects.values()) - len(self.effects),
        }

    @cached_property
    def by_job(self) -> Mapping[int, Sequence[Event]]:
        """The events of each job, in their order."""
        found: dict[int, list[Event]] = defaultdict(list)
        for event in self.events:
            found[event.job].append(event)
        return found

    @cached_property
    def by_name(self) -> Mapping[Name, Job]:
        """Jobs as their submitters know them."""
        return {(job.owner, job.name): job for job in self.jobs.values()}
