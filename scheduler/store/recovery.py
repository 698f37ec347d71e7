"""Taking back what nobody works on any more."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.store.moves import Move, run
from scheduler.store.work import Failure, fail

_OVER = text("""
SELECT job_id, attempt FROM active
WHERE lease_until < now() ORDER BY lease_until, job_id LIMIT :limit
""")


def end_lost(session: Session, *, limit: int) -> list[Move]:
    """End attempts whose lease ran out: their worker went silent."""
    moves: list[Move] = []
    for row in run(session, _OVER, limit=limit).all():
        moves += fail(session, lost(row.job_id, row.attempt, "its worker went silent"))
    return moves


def lost(job: int, attempt: int, why: str) -> Failure:
    """Describe an attempt that nobody can report on."""
    return Failure(job, attempt, "WorkerLost", f"the attempt was lost: {why}", lost=True)
