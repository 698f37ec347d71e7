"""Taking failed jobs out of the dead letters without running them again."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.store.moves import run

_DISCARD = text("""
WITH target AS (
    SELECT id FROM jobs
    WHERE id = ANY(:jobs) AND status = :is_failed AND discarded_at IS NULL
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE jobs SET discarded_at = now() FROM target WHERE jobs.id = target.id
RETURNING jobs.id
""")


def discard(session: Session, jobs: Sequence[int]) -> list[int]:
    """Take those of *jobs* that are dead letters out of them; return which they were.

    They stay failed, and may still be run again one by one.
    """
    return sorted(run(session, _DISCARD, jobs=list(jobs)).scalars())
