"""The simple queue protocol, with the names that it gives to things."""

from typing import Annotated, Any, Literal

from pydantic import Field, RootModel

from scheduler.job_request import JobId, Request
from scheduler.states import JobStatus
from webapp.schemas.groundwork import Answer


class SimpleJob(Answer):
    """A job of the simple queue protocol."""

    jobId: str  # noqa: N815 - the protocol's name
    description: str | None
    state: Literal["submitted", JobStatus.RUNNING, JobStatus.FAILED, "succeeded"]
    data: Any


class SimpleJobList(RootModel[list[SimpleJob]]):
    """All jobs, in the order of their submission."""


class SimpleSubmission(Request):
    """A job to submit."""

    jobId: JobId  # noqa: N815 - the protocol's name
    description: Annotated[str, Field(max_length=10_000)] | None = None
    data: Any = None


class SimpleCompletion(Request):
    """How a job ended."""

    jobId: JobId  # noqa: N815 - the protocol's name
    status: Literal[JobStatus.FAILED, "succeeded"]
