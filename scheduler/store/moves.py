"""What a verb did: one move per row it wrote to ``job_events``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, TextClause, text
from sqlalchemy.orm import Session

from scheduler.states import CancelReason, Executor, JobStatus, Outcome, sources

_TOLD = """,
told AS (
    INSERT INTO job_events (job_id, owner_id, at, verb, status, attempt, data)
    SELECT id, owner_id, now(), verb, status, attempt, data FROM moved ORDER BY {order}
    RETURNING seq, job_id AS id, owner_id, at, verb, status, attempt, data
)
SELECT told.*, moved.job_id FROM told JOIN moved USING (id) ORDER BY told.seq
"""

OUTCOME = """CASE WHEN jobs.callback_url IS NOT NULL THEN jsonb_build_object(
    'status', jobs.status, 'reason', jobs.reason, 'result', jobs.result,
    'error_type', jobs.error_type, 'error_message', jobs.error_message,
    'attempt', jobs.attempt, 'started_at', jobs.started_at, 'finished_at', jobs.finished_at
) END AS outcome"""
"""What becomes of a job somebody wants to be called back about: kept, for it may run again."""

_CALLED = """,
called AS (
    INSERT INTO callbacks (job_id, owner_id, outcome, created_at, due_at)
    SELECT id, owner_id, outcome, now(), now() FROM moved WHERE outcome IS NOT NULL ORDER BY id
)"""

# Not FOR UPDATE, which would wait for whoever is linking another job to this one.
_LOCK = text("SELECT id FROM jobs WHERE id = ANY(:jobs) ORDER BY id FOR NO KEY UPDATE")

_STATUSES: dict[str, object] = {f"is_{status}": str(status) for status in JobStatus}
_SOURCES: dict[str, object] = {
    f"to_{target}": [str(source) for source in sorted(sources(target))] for target in JobStatus
}
_OUTCOMES: dict[str, object] = {f"outcome_{outcome}": str(outcome) for outcome in Outcome}
_REASONS: dict[str, object] = {str(reason): str(reason) for reason in CancelReason}
_EXECUTORS: dict[str, object] = {f"by_{executor}": str(executor) for executor in Executor}
_WORDS: dict[str, object] = _STATUSES | _SOURCES | _OUTCOMES | _REASONS | _EXECUTORS


@dataclass(frozen=True, slots=True)
class Move:
    """One change of one job, in the order of ``seq``."""

    seq: int
    id: int
    job_id: str
    owner_id: int
    verb: str
    status: JobStatus
    attempt: int
    at: datetime
    data: dict[str, Any] | None


def verb(statement: str, *, order: str = "id", ends: bool = False) -> TextClause:
    """Make the statement of a verb out of its common table expressions.

    They must end in one named ``moved`` with the columns id, owner_id, job_id, verb, status,
    attempt and data; an event is written for each of its rows, in the order of its column
    *order*. Where the verb *ends* jobs it also has OUTCOME, and a callback is left for whoever
    asked for one. State words are parameters: ``:is_ready`` is a status, ``:to_ready`` the
    statuses a job may become ready from.
    """
    called = _CALLED if ends else ""
    return text(statement.rstrip() + called + _TOLD.format(order=order))


def lock(session: Session, jobs: Sequence[int]) -> None:
    """Keep others from moving *jobs* until this transaction ends.

    A statement that waits for a lock goes on with the rows it saw before it waited, and misses
    those that the other one has written beside the job. The statement after this one sees them.
    """
    run(session, _LOCK, jobs=sorted(jobs))


def make(session: Session, statement: TextClause, **parameters: object) -> list[Move]:
    """Run the statement of a verb and return its moves."""
    return [_move(row) for row in fetch(session, statement, **parameters)]


def fetch(session: Session, statement: TextClause, **parameters: object) -> list[dict[str, Any]]:
    """Run a statement that may name state words and return its rows by column name."""
    rows = run(session, statement, **parameters)
    columns = tuple(rows.keys())
    return [dict(zip(columns, row, strict=True)) for row in rows]


def run(session: Session, statement: TextClause, **parameters: object) -> CursorResult[Any]:
    """Run a statement that may name state words."""
    needed = {name: _WORDS[name] for name in statement._bindparams if name in _WORDS}  # noqa: SLF001 - the only list of a text's parameters
    result = session.execute(statement, needed | parameters)
    if not isinstance(result, CursorResult):
        raise TypeError("a text statement answers with a cursor")
    return result


def _move(row: Mapping[str, Any]) -> Move:
    return Move(**{**row, "status": JobStatus(row["status"])})
