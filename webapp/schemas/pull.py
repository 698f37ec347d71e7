"""Pull workers: asking for a job, keeping it, completing it."""

from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BeforeValidator, Field, model_validator

from scheduler.job_request import Instant, Name, Request
from scheduler.states import JobStatus
from webapp.schemas.groundwork import NAMES_LIMIT, Answer
from webapp.schemas.jobs import JobAnswer

_LINE_LIMIT = 8192
_LINES_LIMIT = 1_000
_MESSAGE_LIMIT = 500
_TRACEBACK_LIMIT = 16_000

Lease = Annotated[str, Field(min_length=1, max_length=100)]


def _progress_given(given: Any) -> Any:
    return {"fraction": given} if isinstance(given, int | float) else given


def _line_given(given: Any) -> Any:
    return {"message": given} if isinstance(given, str) else given


class NextRequest(Request):
    """A worker that asks for a job."""

    worker: Name = Field(description="What people are told where the job runs.")
    types: Annotated[list[Name], Field(min_length=1, max_length=NAMES_LIMIT)] | None = Field(
        default=None, description="Jobs of these types only."
    )
    lease_seconds: Annotated[float, Field(ge=1, le=86_400)] = Field(
        default=30, description="How long the job is the worker's without a heartbeat."
    )
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = Field(
        default=0, description="How long to wait for a job."
    )


class HandedJob(JobAnswer):
    """A job that is the worker's to run."""

    lease: str = Field(description="To be sent with every heartbeat, and with the end.")
    lease_expires_at: AwareDatetime


class ProgressReport(Request):
    """How far a job is."""

    fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    message: Annotated[str, Field(max_length=_MESSAGE_LIMIT)] | None = None


class LineReport(Request):
    """A line for the log of a job."""

    message: Annotated[str, Field(max_length=_LINE_LIMIT)]
    level: Literal["debug", "info", "warning", "error"] = "info"
    at: Instant | None = Field(default=None, description="Now, if it is left out.")


class HeartbeatRequest(Request):
    """A sign of life."""

    lease: Lease
    progress: Annotated[
        ProgressReport | None,
        BeforeValidator(_progress_given, json_schema_input_type=ProgressReport | float | None),
    ] = None
    logs: Annotated[
        list[
            Annotated[
                LineReport, BeforeValidator(_line_given, json_schema_input_type=LineReport | str)
            ]
        ],
        Field(max_length=_LINES_LIMIT),
    ] = []  # noqa: RUF012 - pydantic copies it


class HeartbeatAnswer(Answer):
    """What the worker is to do."""

    cancel: bool = Field(description="The job is to stop; say so with its end.")
    lease_expires_at: AwareDatetime


class ErrorReport(Request):
    """Why a job failed. Errors of one type are put together with others like them."""

    type: Name = "Failed"
    message: Annotated[str, Field(max_length=_LINE_LIMIT)]
    traceback: Annotated[str, Field(max_length=_TRACEBACK_LIMIT)] | None = None


class CompleteRequest(Request):
    """How a job ended."""

    lease: Lease
    status: Literal[JobStatus.COMPLETED, JobStatus.FAILED]
    result: Any = Field(default=None, description="Of a completed job.")
    error: Annotated[
        ErrorReport | None,
        BeforeValidator(_line_given, json_schema_input_type=ErrorReport | str | None),
    ] = Field(default=None, description="Of a failed job.")
    retryable: bool = Field(default=True, description="Whether another attempt may help.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.status is JobStatus.COMPLETED and self.error is not None:
            raise ValueError("a completed job has no error")
        if self.status is JobStatus.FAILED and self.result is not None:
            raise ValueError("a failed job has no result")
        return self
