"""Jobs that are connected, as a graph."""

from pydantic import AwareDatetime, Field

from scheduler.states import CancelReason, Condition, JobStatus
from webapp.schemas.groundwork import Answer
from webapp.schemas.jobs import Progress


class GraphJob(Answer):
    """A job of a workflow; all about it is at its own address."""

    job_id: str
    type: str
    status: JobStatus
    reason: CancelReason | None
    description: str | None
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    elapsed_seconds: float | None = Field(description="Of the last attempt, until now or its end.")
    progress: Progress | None


class GraphEdge(Answer):
    """One job waits for another."""

    source: str = Field(alias="from", description="The job that is waited for.")
    to: str = Field(description="The job that waits.")
    when: Condition
    met: bool


class Graph(Answer):
    """A job with all it is connected with, in the order of submission."""

    jobs: list[GraphJob]
    edges: list[GraphEdge]
    truncated: bool = Field(
        description="Some were left out: a graph tells the 5,000 jobs that are fewest steps away,"
        " and 20,000 edges among them."
    )
