"""Taking back what nobody works on any more."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.store.moves import Move, run
from scheduler.store.work import Failure, fail

_OVER = text("""
SELECT jobs.id, active.attempt FROM active JOIN jobs ON jobs.id = active.job_id
WHERE active.lease_until < now() ORDER BY active.lease_until, jobs.id LIMIT :limit
FOR NO KEY UPDATE OF jobs, active SKIP LOCKED
""")


def end_lost(session: Session, *, limit: int) -> list[Move]:
    """End attempts whose lease ran out: their worker went silent.

    One that is reported or renewed at this very moment is left to its worker.
    """
    moves: list[Move] = []
    for row in run(session, _OVER, limit=limit).all():
        moves += fail(session, lost(row.id, row.attempt, "its worker went silent"))
    return moves


def lost(job: int, attempt: int, why: str, *, crashed: bool = False) -> Failure:
    """Describe an attempt that nobody can report on; *crashed* if its process died under it."""
    said = f"the attempt was lost: {why}"
    return Failure(job, attempt, "WorkerLost", said, lost=True, crashed=crashed)
