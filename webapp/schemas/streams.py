"""What goes on for as long as a client listens: streams and their events, waiting for a job."""

from typing import Annotated

from pydantic import AwareDatetime, Field

from scheduler.job_request import NAME_LIMIT, Request
from scheduler.states import CancelReason, JobStatus
from webapp.schemas.groundwork import Answer, OwnerQuery

WAIT_LIMIT = 300
"""Seconds that a client may wait for a job to finish. Proxies have to bear such a silence."""


class WaitQuery(OwnerQuery):
    """How long to wait for a job."""

    timeout_seconds: Annotated[float, Field(ge=0, le=WAIT_LIMIT)] = 30.0


class StreamOpening(Request):
    """The first message of a WebSocket: whose it is, where it resumes. Both may be left out."""

    token: Annotated[str, Field(max_length=NAME_LIMIT)] | None = None
    last_event_id: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class StreamedMove(Answer):
    """A change of a job, as streams tell it. Its ``seq`` is the id of the event."""

    job_id: str
    owner: str
    seq: int
    verb: str
    status: JobStatus
    attempt: int
    at: AwareDatetime
    worker: str | None = None
    reason: CancelReason | None = None
    error: str | None = None


class StreamPlace(Answer):
    """Where a stream is: the ``seq`` of the last event it has told, if any."""

    seq: int | None


class LogEnd(Answer):
    """The last event of a log: in which status the job ended, null if it is gone."""

    status: JobStatus | None
