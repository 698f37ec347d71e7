"""Running a finished job again."""

from sqlalchemy.orm import Session

from scheduler.store.lines import JOIN_LINE
from scheduler.store.moves import Move, lock, make, verb

_RUN_AGAIN = verb(
    """
WITH target AS (
    SELECT jobs.id, jobs.status AS was, (
        SELECT count(*) FROM dependencies WHERE child_id = jobs.id AND NOT met
    ) AS edges
    FROM jobs
    WHERE jobs.id = :id AND jobs.status IN (:is_failed, :is_cancelled)
),
moved AS (
    UPDATE jobs
    SET status = CASE WHEN target.edges > 0 THEN :is_blocked ELSE :is_ready END,
        open_dependencies = target.edges,
        ready_at = CASE WHEN target.edges > 0 THEN NULL ELSE now() END,
        rank = CASE WHEN target.edges = 0
                    THEN CAST(EXTRACT(epoch FROM now()) * 1000000 AS bigint) + jobs.rank_offset END,
        attempts_forgiven = attempt, crashes = 0, reason = NULL, reason_job_id = NULL,
        queued_at = NULL, started_at = NULL, finished_at = NULL, due_at = NULL, start_by = NULL,
        worker = NULL, result = NULL, error_type = NULL, error_message = NULL,
        progress_fraction = NULL, progress_message = NULL
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.*, 'run_again' AS verb, jsonb_build_object('from', target.was) AS data
),
fed AS (
    INSERT INTO feed (kind, job_id, owner_id)
    SELECT 'linked', id, owner_id FROM moved WHERE open_dependencies > 0
)"""
    + JOIN_LINE
)


def run_again(session: Session, job: int) -> list[Move]:
    """Give a failed or cancelled job fresh attempts, at the end of its owner's line.

    It waits again for what it depends on and what has not come about.
    """
    lock(session, [job])
    return make(session, _RUN_AGAIN, id=job)
