"""What has happened to a job: its attempts, its moves, the lines of its log."""

from typing import Any

from pydantic import AwareDatetime, Field

from scheduler.states import JobStatus, Outcome
from webapp.schemas.groundwork import Answer, OwnerPage
from webapp.schemas.jobs import JobError


class LogsQuery(OwnerPage):
    """Which lines of a log, or all of them and those to come."""

    follow: bool = Field(
        default=False,
        description="Stream every line as server-sent events until the job has finished.",
    )


class LogLine(Answer):
    """One line a job wrote."""

    at: AwareDatetime
    attempt: int
    level: str
    message: str


class LogList(Answer):
    """One page of a job's log, oldest first."""

    logs: list[LogLine]
    next_cursor: str | None


class AttemptAnswer(Answer):
    """One try at a job."""

    attempt: int
    worker: str
    queued_at: AwareDatetime
    started_at: AwareDatetime
    finished_at: AwareDatetime | None
    outcome: Outcome | None
    error: JobError | None
    traceback: str | None
    peak_memory_mb: float | None
    cpu_seconds: float | None


class AttemptList(Answer):
    """One page of the tries at a job, first to last."""

    attempts: list[AttemptAnswer]
    next_cursor: str | None


class EventAnswer(Answer):
    """One move of a job."""

    seq: int
    at: AwareDatetime
    verb: str
    status: JobStatus
    attempt: int
    data: dict[str, Any] | None


class EventList(Answer):
    """One page of a job's history, oldest first."""

    events: list[EventAnswer]
    next_cursor: str | None
