"""The audit log: who changed what, when, from where."""

from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from scheduler.job_request import Instant, Name
from webapp.schemas.groundwork import Answer, Page


class AuditQuery(Page):
    """Which entries of the audit log."""

    actor: Name | None = Field(
        default=None, description="A user name, or `command line`, however it is capitalised."
    )
    action: Name | None = Field(default=None, examples=["users.change", "policy.change"])
    target: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(
        default=None, examples=["users/ann", "queues/low", "jobs/ann/report-7"]
    )
    after: Instant | None = None
    before: Instant | None = None


class AuditAnswer(Answer):
    """One change."""

    at: AwareDatetime
    actor: str
    address: str | None = Field(description="Where the request came from.")
    request_id: str | None
    action: str
    target: str
    detail: dict[str, Any] = Field(description="What was, and what it became; never a secret.")


class AuditList(Answer):
    """One page of changes, newest first."""

    entries: list[AuditAnswer]
    next_cursor: str | None
