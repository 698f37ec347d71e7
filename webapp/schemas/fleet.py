"""What runs jobs, what can be run, and figures about both."""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from scheduler.states import Executor, JobClass, JobStatus
from webapp.schemas.groundwork import Answer, Query
from webapp.schemas.jobs import Resources, RetryConfig


class RunningJob(Answer):
    """A job a worker runs."""

    job_id: str
    owner: str
    attempt: int
    started_at: AwareDatetime


class WorkerAnswer(Answer):
    """A Celery worker and what it offers."""

    name: str
    host: str
    pid: int
    state: str
    alive: bool
    processes: int
    processes_min: int
    processes_max: int
    processes_limit: int = Field(description="The most it may have now; see grow and shrink.")
    cpu_units: float
    memory_mb: int
    queues: list[str]
    started_at: AwareDatetime
    heartbeat_at: AwareDatetime
    drain_requested_at: AwareDatetime | None = Field(
        description="Since when an operator wants it to take no new work; outlives its restarts."
    )
    running: list[RunningJob]


class HeldJob(RunningJob):
    """A job a pull worker holds."""

    lease_expires_at: AwareDatetime


class PullWorkerAnswer(Answer):
    """A program that asks for jobs over HTTP, by the name it gives itself."""

    name: str
    asked_by: str | None = Field(
        description="Whose token it used; null if it has not asked in the last ten minutes."
    )
    asked_at: AwareDatetime | None
    running: list[HeldJob]


class ResizeQuery(Query):
    """By how many processes."""

    processes: Annotated[int, Field(ge=1, le=1_000)] = 1


class Offer(Answer):
    """What there is, or what is taken of it."""

    cpu_units: float
    memory_mb: int
    slots: int


class WorkerList(Answer):
    """Every worker, and what the live ones of Celery offer together."""

    workers: list[WorkerAnswer]
    pull_workers: list[PullWorkerAnswer] = Field(
        description="Those that asked in the last ten minutes, or hold a job."
    )
    capacity: Offer


class TypeAnswer(Answer):
    """A kind of job that can be submitted."""

    name: str
    description: str
    payload_schema: dict[str, Any] | None
    resource_requirements: Resources
    timeout_seconds: float
    max_timeout_seconds: float | None = Field(
        description="The most a submission, or a running job, may ask for."
    )
    retry_config: RetryConfig
    executor: Executor = Field(description="Who runs it unless a submission says otherwise.")
    executors: list[Executor]


class TypeList(Answer):
    """One page of the kinds of job."""

    types: list[TypeAnswer]
    next_cursor: str | None


class Spread(Answer):
    """How a measured time is spread; null where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


class Tally(Answer):
    """How many jobs started within, before and after the range they were told first."""

    scored: int
    within: int
    early: int
    late: int


class Estimates(Tally):
    """How estimated starts came true over the last seven days, for everybody's jobs."""

    by_method: dict[str, Tally]


class Stats(Answer):
    """Figures of now and of the last hour."""

    at: AwareDatetime
    of: Literal["own", "all"]
    jobs: dict[JobStatus, int] = Field(description="Unfinished jobs by status.")
    classes: dict[JobClass, int] = Field(description="Jobs that could start now, by class.")
    finished_last_hour: dict[JobStatus, int]
    finished_per_minute: float = Field(description="Over the last five minutes.")
    wait_seconds: Spread
    run_seconds: Spread
    oldest_ready_seconds: float | None
    capacity: Offer
    reserved: Offer
    workers: int
    estimates: Estimates
