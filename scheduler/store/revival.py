"""Running finished jobs again."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

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
    WHERE jobs.id = ANY(:jobs) AND jobs.status IN (:is_failed, :is_cancelled)
),
moved AS (
    UPDATE jobs
    SET status = CASE WHEN target.edges > 0 THEN :is_blocked ELSE :is_ready END,
        open_dependencies = target.edges,
        payload = COALESCE(CAST(:payloads AS jsonb) -> CAST(jobs.id AS text), jobs.payload),
        ready_at = CASE WHEN target.edges > 0 THEN NULL ELSE now() END,
        rank = CASE WHEN target.edges = 0
                    THEN CAST(EXTRACT(epoch FROM now()) * 1000000 AS bigint) + jobs.rank_offset END,
        attempts_forgiven = attempt, crashes = 0, reason = NULL, reason_job_id = NULL,
        queued_at = NULL, started_at = NULL, finished_at = NULL, due_at = NULL, start_by = NULL,
        worker = NULL, result = NULL, error_type = NULL, error_message = NULL,
        error_fingerprint = NULL, discarded_at = NULL, progress_fraction = NULL,
        progress_message = NULL
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.*, 'run_again' AS verb, jsonb_build_object('from', target.was) AS data
),
fed AS (
    INSERT INTO feed (kind, job_id, owner_id, root)
    SELECT 'revived', id, owner_id, job_id FROM moved
)"""
    + JOIN_LINE
)


def run_again(
    session: Session, jobs: Sequence[int], *, payloads: Mapping[int, dict[str, Any]] | None = None
) -> list[Move]:
    """Give failed or cancelled jobs fresh attempts, at the end of their owners' lines.

    They wait again for what they depend on and what has not come about; what was cancelled
    because of them waits for them again as soon as the leader has seen to it. *payloads* replace
    those of some jobs. Jobs that have not ended badly are left alone.
    """
    lock(session, jobs)
    changed = json.dumps({str(job): payload for job, payload in (payloads or {}).items()})
    return make(session, _RUN_AGAIN, jobs=list(jobs), payloads=changed)
