"""Moves that time alone brings about."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.states import CancelReason
from scheduler.store.cancellation import cancel_waiting
from scheduler.store.lines import JOIN_LINE, PLACE
from scheduler.store.moves import Move, make, run, verb

_RELEASE_DUE = verb(
    f"""
WITH due AS (
    SELECT job_id, fire_at FROM timers
    WHERE fire_at <= :now AND kind = 'due'
    ORDER BY fire_at, job_id LIMIT :limit
),
target AS (
    SELECT jobs.id FROM jobs JOIN due ON due.job_id = jobs.id
    WHERE jobs.status IN (:is_scheduled, :is_retrying) AND jobs.due_at <= :now
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs SKIP LOCKED
),
fired AS (
    DELETE FROM timers USING target
    WHERE timers.job_id = target.id AND timers.kind = 'due' AND timers.fire_at <= :now
),
moved AS (
    UPDATE jobs
    SET status = CASE WHEN open_dependencies > 0 THEN :is_blocked ELSE :is_ready END,
        ready_at = CASE WHEN open_dependencies > 0 THEN NULL ELSE now() END,
        rank = CASE WHEN open_dependencies > 0 THEN NULL ELSE {PLACE} END,
        due_at = NULL
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.*, 'release' AS verb, CAST(NULL AS jsonb) AS data
)"""
    + JOIN_LINE
)

# A job that is just being moved keeps its timer and is looked at again next time.
_PASSED_DEADLINES = text("""
SELECT jobs.id FROM timers JOIN jobs ON jobs.id = timers.job_id
WHERE timers.fire_at <= :now AND timers.kind = 'deadline'
ORDER BY timers.fire_at, timers.job_id LIMIT :limit
FOR NO KEY UPDATE OF jobs SKIP LOCKED
""")


def release_due(session: Session, *, now: datetime, limit: int) -> list[Move]:
    """Let go jobs whose time has come or whose backoff is over: ready, or blocked by others."""
    return make(session, _RELEASE_DUE, now=now, limit=limit)


def expire(session: Session, *, now: datetime, limit: int) -> list[Move]:
    """Cancel jobs that should have started by now and have not."""
    passed = list(run(session, _PASSED_DEADLINES, now=now, limit=limit).scalars())
    return cancel_waiting(session, passed, reason=CancelReason.DEADLINE_PASSED)
