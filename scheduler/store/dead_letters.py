"""Dead letters: failed jobs that nobody has discarded. Holding on to them, and discarding them."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.store.moves import run

_HELD = """
SELECT id FROM jobs
WHERE id = ANY(:jobs) AND status = :is_failed AND discarded_at IS NULL
ORDER BY id
FOR NO KEY UPDATE
"""

_HOLD = text(_HELD)

_DISCARD = text(f"""
WITH target AS ({_HELD})
UPDATE jobs SET discarded_at = now() FROM target WHERE jobs.id = target.id
RETURNING jobs.id
""")


def hold(session: Session, jobs: Sequence[int]) -> list[int]:
    """Return those of *jobs* that are dead letters; they stay it until the transaction ends."""
    return list(run(session, _HOLD, jobs=list(jobs)).scalars())


def discard(session: Session, jobs: Sequence[int]) -> list[int]:
    """Take those of *jobs* that are dead letters out of them; return which they were.

    They stay failed, and may still be run again one by one.
    """
    return sorted(run(session, _DISCARD, jobs=list(jobs)).scalars())
