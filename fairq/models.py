"""What a server answers, as typed values.

A newer server may tell more: what this version does not know is kept, and never in the way. An
older one may tell less: only what names a thing is required.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

BLOCKED, READY, RUNNING, RETRYING = "blocked", "ready", "running", "retrying"
COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
FINISHED = frozenset({COMPLETED, FAILED, CANCELLED})
"""Statuses this package has to know; a server may tell others."""

CELERY, PULL = "celery", "pull"
"""Who may run a job: a Celery worker, or one that asks for work over HTTP."""

CONDITIONS = (COMPLETED, "finished", FAILED)
"""What may be waited for of another job."""

T = TypeVar("T")


class Answer(BaseModel):
    """Something the server says."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON holds it, with what this version does not know."""
        return self.model_dump(mode="json", by_alias=True)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; *next_cursor* asks for the one after it."""

    items: Sequence[T]
    next_cursor: str | None


# Jobs


class Resources(Answer):
    """What a job holds while it runs."""

    cpu_units: float
    memory_mb: int


class Dependency(Answer):
    """A job to wait for otherwise than until it is completed."""

    job_id: str
    when: str = COMPLETED


class Progress(Answer):
    """How far a job says it is: 0 to 1, or None for unknown."""

    fraction: float | None = None
    message: str | None = None


class Failure(Answer):
    """Why an attempt failed."""

    type: str
    message: str | None = None


class EstimatedStart(Answer):
    """When a job will probably start."""

    earliest: datetime
    latest: datetime | None = None
    method: str | None = None


class Waiting(Answer):
    """Why a job waits: a code for programs, and a sentence that says what would unblock it."""

    code: str
    message: str
    estimated_start: EstimatedStart | None = None


class Job(Answer):
    """A job as it was when the server answered."""

    job_id: str
    type: str
    status: str
    owner: str
    reason: str | None = None
    priority: str | None = None
    priority_level: int | None = None
    description: str | None = None
    tags: list[str] = []
    payload: dict[str, Any] = {}
    depends_on: list[str | Dependency] = []
    dependents_count: int = 0
    resource_requirements: Resources | None = None
    retry_config: dict[str, Any] = {}
    timeout_seconds: float | None = None
    executor: str | None = None
    attempt: int = 0
    created_at: datetime | None = None
    run_at: datetime | None = None
    start_by: datetime | None = None
    ready_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    waited_seconds: float | None = None
    elapsed_seconds: float | None = None
    progress: Progress | None = None
    result: Any = None
    error: Failure | None = None
    worker: str | None = None
    schedule: str | None = None
    callback_url: str | None = None
    request_id: str | None = None
    position_in_queue: int | None = None
    waiting: Waiting | None = None
    duplicate: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether it will not change any more by itself."""
        return self.status in FINISHED

    @property
    def is_completed(self) -> bool:
        """Whether it has done what it was to do."""
        return self.status == COMPLETED


class LeasedJob(Job):
    """A job that is this worker's to run for as long as it keeps the lease."""

    lease: str
    lease_expires_at: datetime


class LogLine(Answer):
    """One line a job wrote."""

    at: datetime
    level: str
    message: str
    attempt: int | None = None


class Attempt(Answer):
    """One try at a job."""

    attempt: int
    worker: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: str | None = None
    error: Failure | None = None
    traceback: str | None = None
    peak_memory_mb: float | None = None
    cpu_seconds: float | None = None


class Change(Answer):
    """A change of a job, as the stream tells it. A later stream may go on behind its *seq*.

    After *is_gap* more was missed than the server keeps or tells: look at the jobs again.
    """

    seq: int
    job_id: str | None = None
    owner: str | None = None
    verb: str | None = None
    status: str | None = None
    attempt: int | None = None
    at: datetime | None = None
    worker: str | None = None
    reason: str | None = None
    error: str | None = None

    @property
    def is_gap(self) -> bool:
        """Whether changes before it were missed for good; it is about no job then."""
        return self.job_id is None


# Dead letters and schedules


class DeadLetter(Job):
    """A job that failed for good, and that nobody has discarded."""

    fingerprint: str | None = None


class DeadLetterGroup(Answer):
    """Dead letters whose errors are alike."""

    fingerprint: str
    type: str
    count: int
    error: Failure | None = None
    first_failed_at: datetime | None = None
    last_failed_at: datetime | None = None
    owners: list[str] | None = None
    example: str | None = None


class Schedule(Answer):
    """A job that is submitted again and again, by the clock."""

    name: str
    owner: str | None = None
    template: dict[str, Any] = {}
    cron: str | None = None
    every_seconds: int | None = None
    in_words: str | None = None
    timezone: str | None = None
    overlap: str | None = None
    catch_up: str | None = None
    paused: bool = False
    next_runs: list[datetime] = []


# Service


class RunningJob(Answer):
    """A job a worker runs."""

    job_id: str
    owner: str | None = None
    attempt: int | None = None
    started_at: datetime | None = None


class Offer(Answer):
    """What there is, or what is taken of it."""

    cpu_units: float
    memory_mb: int
    slots: int


class Worker(Answer):
    """A processor of jobs, and what it offers.

    A pull worker offers nothing of the machine's: who asked for work in its name is ``asked_by``.
    """

    name: str
    executor: str = CELERY
    state: str | None = None
    alive: bool = True
    host: str | None = None
    processes: int | None = None
    cpu_units: float | None = None
    memory_mb: int | None = None
    heartbeat_at: datetime | None = None
    asked_by: str | None = None
    asked_at: datetime | None = None
    running: list[RunningJob] = []


class Bulk(Answer):
    """How many jobs are meant, and the job that deals with them, unless they were only counted.

    With *more* there are at least as many.
    """

    count: int
    more: bool = False
    not_found: int = 0
    job_id: str | None = None


class JobType(Answer):
    """A kind of job that can be submitted."""

    name: str
    description: str = ""
    payload_schema: dict[str, Any] | None = None
    resource_requirements: Resources | None = None
    timeout_seconds: float | None = None
    retry_config: dict[str, Any] = {}
    executor: str | None = None


class Spread(Answer):
    """How a measured time is spread; None where nothing was measured."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Stats(Answer):
    """Figures of now and of the last hour: own ones, or everybody's for operators."""

    at: datetime
    of: str
    jobs: dict[str, int] = {}
    classes: dict[str, int] = {}
    finished_last_hour: dict[str, int] = {}
    finished_per_minute: float = 0
    wait_seconds: Spread = Spread()
    run_seconds: Spread = Spread()
    oldest_ready_seconds: float | None = None
    capacity: Offer | None = None
    reserved: Offer | None = None
    workers: int = 0


class Account(Answer):
    """Who asks."""

    username: str
    role: str
    group: str | None = None
    weight: float | None = None
    scopes: list[str] = []
    unfinished_jobs: int | None = None
