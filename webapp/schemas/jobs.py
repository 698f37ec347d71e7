"""Jobs: a batch of them as submitted, one as it is told, and what to change about one.

What a submission says of a single job is ``scheduler.job_request.JobRequest``.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from scheduler.job_request import (
    TAGS_LIMIT,
    CpuUnits,
    Instant,
    JobRequest,
    MemoryMb,
    Priority,
    Request,
    Tag,
)
from scheduler.states import DEFAULT_LEVEL, CancelReason, Condition, Executor, JobClass, JobStatus
from webapp.schemas.groundwork import BATCH_LIMIT, Answer, Patch


class BatchRequest(Request):
    """Jobs to take in together or not at all; they may wait for one another in any order."""

    jobs: Annotated[list[JobRequest], Field(min_length=1, max_length=BATCH_LIMIT)]


class Resources(Answer):
    """What a job holds while it runs."""

    cpu_units: float
    memory_mb: int


class RetryConfig(Answer):
    """What happens after a failed attempt."""

    max_attempts: int
    strategy: str
    base_delay_seconds: float
    backoff_multiplier: float
    max_delay_seconds: float
    jitter: bool


class DependencyAnswer(Answer):
    """A job this one waits for otherwise than until it is completed."""

    job_id: str
    when: Condition


class Progress(Answer):
    """How far a job says it is."""

    fraction: float | None
    message: str | None


class JobError(Answer):
    """Why the last attempt failed."""

    type: str
    message: str | None


class EstimatedStart(Answer):
    """When a job will probably start."""

    earliest: AwareDatetime
    latest: AwareDatetime | None
    method: str


WaitingCode = Literal[
    "dependencies",
    "time",
    "backoff",
    "turn",
    "resources",
    "user_cap",
    "type_cap",
    "no_worker",
    "paused",
]


class Waiting(Answer):
    """Why a job waits, and what would unblock it."""

    code: str = Field(json_schema_extra={"examples": list(WaitingCode.__args__)})  # type: ignore[attr-defined]  # of a Literal
    message: str
    estimated_start: EstimatedStart | None


class JobAnswer(Answer):
    """A job as it is now."""

    job_id: str
    type: str
    status: JobStatus
    reason: CancelReason | None
    owner: str
    priority: JobClass
    priority_level: int
    description: str | None
    tags: list[str]
    payload: dict[str, Any]
    depends_on: list[str | DependencyAnswer] = Field(description="As in a submission.")
    dependents_count: int
    resource_requirements: Resources
    retry_config: RetryConfig
    timeout_seconds: float
    executor: Executor
    attempt: int
    created_at: AwareDatetime
    run_at: AwareDatetime | None
    start_by: AwareDatetime | None
    ready_at: AwareDatetime | None
    queued_at: AwareDatetime | None
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    waited_seconds: float = Field(description="From submission to the last start, or until now.")
    elapsed_seconds: float | None = Field(description="Of the last attempt, until now or its end.")
    progress: Progress | None
    result: Any
    error: JobError | None
    worker: str | None
    schedule: str | None
    callback_url: str | None
    request_id: str | None
    position_in_queue: int | None
    waiting: Waiting | None
    duplicate: bool = Field(
        default=False, description="In answers to a submission: the job was there before."
    )


class JobList(Answer):
    """One page of jobs; a page may hold fewer than asked for and still not be the last."""

    jobs: list[JobAnswer]
    next_cursor: str | None


class BatchAnswer(Answer):
    """The jobs of a batch in its order."""

    jobs: list[JobAnswer]
    created: int
    duplicates: int


class RequirementsPatch(Patch):
    """What a job is to take while it runs; what is left out stays."""

    cpu_units: CpuUnits = 1.0
    memory_mb: MemoryMb = 1


class JobPatch(Patch):
    """What to change about a job that waits; what is left out stays."""

    priority: Priority = DEFAULT_LEVEL[JobClass.NORMAL]
    tags: Annotated[list[Tag], Field(max_length=TAGS_LIMIT)] = Field(
        default_factory=list, description="All of them, in the place of those there are."
    )
    run_at: Instant | None = Field(
        default=None, description="Not before; null is as soon as may be."
    )
    resource_requirements: RequirementsPatch = RequirementsPatch()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"must change something: {', '.join(type(self).model_fields)}")
        return self
