"""Forgetting what was finished long ago."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.states import JobStatus
from scheduler.store.moves import run

# A job is kept as long as another waits for it, or it is still to be told about, whatever its age.
_UNNEEDED = """
NOT EXISTS (
    SELECT FROM dependencies JOIN jobs AS child ON child.id = dependencies.child_id
    WHERE dependencies.parent_id = jobs.id AND child.finished_at IS NULL
)
AND NOT EXISTS (SELECT FROM callbacks WHERE job_id = jobs.id AND due_at IS NOT NULL)
"""

# No parameters in these: the planner has to see which index holds exactly those.
_DEAD_LETTERS = f"status = '{JobStatus.FAILED}' AND discarded_at IS NULL"
_OTHERS = f"(status <> '{JobStatus.FAILED}' OR discarded_at IS NOT NULL)"

_OLD = f"""
SELECT id FROM jobs
WHERE finished_at < :before AND {{those}} AND {_UNNEEDED}
ORDER BY finished_at LIMIT :limit
FOR UPDATE OF jobs SKIP LOCKED
"""
_OLD_DEAD_LETTERS = text(_OLD.format(those=_DEAD_LETTERS))
_OLD_OTHERS = text(_OLD.format(those=_OTHERS))

# Somebody may have come to wait for a job after it was looked at and before it was locked. Locked
# for update as it is now, no reference to it can be added.
_STILL_UNNEEDED = text(f"SELECT id FROM jobs WHERE id = ANY(:jobs) AND {_UNNEEDED}")

# Apart from finding them, so that the planner knows how few they are.
_FORGET = text("""
WITH said AS (DELETE FROM job_logs WHERE job_id = ANY(:jobs)),
happened AS (DELETE FROM job_events WHERE job_id = ANY(:jobs)),
found AS (DELETE FROM searched WHERE job_id = ANY(:jobs)),
tried AS (DELETE FROM attempts WHERE job_id = ANY(:jobs)),
delivered AS (
    DELETE FROM callback_deliveries USING callbacks
    WHERE callback_deliveries.callback_id = callbacks.id AND callbacks.job_id = ANY(:jobs)
),
called AS (DELETE FROM callbacks WHERE job_id = ANY(:jobs)),
waited AS (DELETE FROM dependencies WHERE child_id = ANY(:jobs)),
awaited AS (DELETE FROM dependencies WHERE parent_id = ANY(:jobs) AND child_id <> ALL(:jobs))
DELETE FROM jobs WHERE id = ANY(:jobs)
""")


def forget_finished(
    session: Session, *, finished_before: datetime, failed_before: datetime, limit: int
) -> int:
    """Delete jobs that ended before these instants, with all that is kept of them.

    Dead letters have a term of their own. Returns how many were deleted, *limit* at most.
    """
    old = list(run(session, _OLD_OTHERS, before=finished_before, limit=limit).scalars())
    old += run(session, _OLD_DEAD_LETTERS, before=failed_before, limit=limit - len(old)).scalars()
    jobs = list(run(session, _STILL_UNNEEDED, jobs=old).scalars()) if old else []
    if jobs:
        run(session, _FORGET, jobs=jobs)
    return len(jobs)
