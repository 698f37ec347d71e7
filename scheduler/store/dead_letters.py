"""Dead letters: failed jobs that nobody has discarded. Holding on to them, and discarding them."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.store.moves import Move, make, run, verb

_HELD = """
SELECT id FROM jobs
WHERE id = ANY(:jobs) AND status = :is_failed AND discarded_at IS NULL
ORDER BY id
FOR NO KEY UPDATE
"""

_HOLD = text(_HELD)

_DISCARD = verb(f"""
WITH target AS ({_HELD}),
moved AS (
    UPDATE jobs SET discarded_at = now() FROM target WHERE jobs.id = target.id
    RETURNING jobs.*, 'discard' AS verb, CAST(NULL AS jsonb) AS data
)""")


def hold(session: Session, jobs: Sequence[int]) -> list[int]:
    """Return those of *jobs* that are dead letters; they stay it until the transaction ends."""
    return list(run(session, _HOLD, jobs=list(jobs)).scalars())


def discard(session: Session, jobs: Sequence[int]) -> list[Move]:
    """Take those of *jobs* that are dead letters out of them.

    They stay failed, and may still be run again one by one.
    """
    return make(session, _DISCARD, jobs=list(jobs))
