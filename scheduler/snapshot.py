"""What the policy sees: frozen values, read before it decides and written back after. Pure.

Meters count *machine-seconds*: the dominant share of the machine times seconds. An owner's
own meters are machine-seconds divided by the owner's weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from scheduler.states import Executor, JobClass

_DIGITS = 3
"""CPU units are told apart to a thousandth; sums are rounded to it so that they do not drift."""


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of CPU, memory and worker processes."""

    cpu_units: float = 0.0
    memory_mb: int = 0
    slots: int = 1

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(
            round(self.cpu_units + other.cpu_units, _DIGITS),
            self.memory_mb + other.memory_mb,
            self.slots + other.slots,
        )

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(
            round(self.cpu_units - other.cpu_units, _DIGITS),
            self.memory_mb - other.memory_mb,
            self.slots - other.slots,
        )

    def covers(self, need: "Resources") -> bool:
        """Tell whether *need* fits into this amount."""
        return (
            round(need.cpu_units - self.cpu_units, _DIGITS) <= 0
            and need.memory_mb <= self.memory_mb
            and need.slots <= self.slots
        )


NOTHING = Resources(0.0, 0, 0)


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that one owner, or all members of a group, may hold at a time; None is no limit."""

    cpu_units: float | None = None
    memory_mb: int | None = None
    running_jobs: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job that may be admitted now. ``rank`` is its place in its owner's line, least first."""

    id: int
    owner_id: int
    job_type: str
    job_class: JobClass
    rank: int
    cpu_units: float
    memory_mb: int
    expected: timedelta
    waiting_since: datetime
    rate: float = 1.0  # what a machine-second of it counts on its owner's meter
    spread: float = 0.0  # standard deviation of the logarithm of what it will take
    allowance: float = 1.0  # times the express allowance of everybody
    executor: Executor = Executor.CELERY

    @property
    def need(self) -> Resources:
        """What it holds from its admission to its end."""
        return Resources(self.cpu_units, self.memory_mb)


@dataclass(frozen=True, slots=True)
class Running:
    """An admitted job, started or not; it holds its resources until it is gone from here."""

    id: int
    attempt: int
    owner_id: int
    job_type: str
    cpu_units: float
    memory_mb: int
    expected: timedelta
    admitted_at: datetime
    started_at: datetime | None
    charge: float  # machine-seconds put on its owner's meter at admission
    express: bool
    spread: float = 0.0  # as of the candidate it was
    executor: Executor = Executor.CELERY

    @property
    def need(self) -> Resources:
        """What it holds from its admission to its end."""
        return Resources(self.cpu_units, self.memory_mb)

    @property
    def share(self) -> float:
        """Its dominant share of the machine, as it was when the job was admitted."""
        seconds = self.expected.total_seconds()
        return self.charge / seconds if seconds > 0 else 0.0

    def consumed(self, now: datetime) -> float:
        """Machine-seconds it has used up to *now*; nothing before it has started."""
        if self.started_at is None:
            return 0.0
        return self.share * max(0.0, (now - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class Account:
    """An owner's weight and caps, and what it has received per unit of weight.

    ``tag`` is the place of the first job in the owner's line; None while nothing waits, which
    is how a return from idleness is known.
    """

    owner_id: int
    group_id: int | None = None
    weight: float = 1.0
    caps: Caps = Caps()
    meter: float = 0.0
    express_meter: float = 0.0
    tag: float | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Owners who share caps. A group's weight is already part of its members' weights."""

    group_id: int
    caps: Caps = Caps()


@dataclass(frozen=True, slots=True)
class Clock:
    """The part of the policy's memory that belongs to nobody; persisted from pass to pass."""

    virtual_now: float = 0.0
    mean_cost: float = 0.1  # machine-seconds an average job takes; a prior until jobs have ended
    express_load: float = 0.0  # express machine-seconds not yet paid back by time
    advanced_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room kept for a job that is next but does not fit."""

    job_id: int
    owner_id: int
    since: datetime  # when it was first found not to fit
    promised_at: datetime  # its start as predicted; fixed once the reservation is hard


@dataclass(frozen=True, slots=True)
class Ask:
    """A pull worker that waits for a job. None: of any type; of anybody."""

    id: int
    types: frozenset[str] | None = None
    owner_id: int | None = None

    def accepts(self, job: Candidate) -> bool:
        """Tell whether the worker may be given *job*."""
        return (self.owner_id is None or job.owner_id == self.owner_id) and (
            self.types is None or job.job_type in self.types
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What there is and what may be used of it. A capacity of None: no worker is alive.

    The capacity is that of the machine, which is all Celery workers together. Pull workers lie
    beside it: each that waits takes one job.

    ``capacity.slots`` may run ahead of the worker processes by what ends within a moment, so
    that short jobs do not wait for the next pass.
    """

    capacity: Resources | None
    type_caps: Mapping[str, int] = field(default_factory=dict)  # jobs of a type at a time
    type_starts: Mapping[str, int] = field(default_factory=dict)  # that may start this minute
    paused_classes: frozenset[JobClass] = frozenset()
    paused_types: frozenset[str] = frozenset()
    asks: tuple[Ask, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one pass decides on.

    ``candidates`` holds a window of every owner's line, from its first job on without gaps;
    an owner whose whole window is admitted counts as having left the line. ``accounts`` holds
    every owner with candidates, with running jobs or with a tag.
    """

    now: datetime
    candidates: tuple[Candidate, ...]
    running: tuple[Running, ...]
    accounts: Mapping[int, Account]
    groups: Mapping[int, Group]
    clock: Clock
    reservation: Reservation | None
    limits: Limits
    unseen_weight: float = 0.0  # of owners in line none of whose jobs is among the candidates
