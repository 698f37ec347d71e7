"""Taking back what nobody works on any more."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.store import leases
from scheduler.store.moves import Move, run
from scheduler.store.work import TIME_LIMIT, Failure, fail

_OVER = text("""
SELECT jobs.id, active.attempt, active.timeout_seconds,
       active.executor = :by_pull
           AND now() >= claimed_at + make_interval(secs => active.timeout_seconds) AS is_late
FROM active JOIN jobs ON jobs.id = active.job_id
WHERE active.lease_until < now() ORDER BY active.lease_until, jobs.id LIMIT :limit
FOR NO KEY UPDATE OF jobs, active SKIP LOCKED
""")


def end_lost(session: Session, *, limit: int) -> list[Move]:
    """End attempts whose lease ran out: their worker went silent, or took longer than it may.

    One that is reported or renewed at this very moment is left to its worker.
    """
    moves: list[Move] = []
    for row in run(session, _OVER, limit=limit).all():
        leases.revoke(session, row.id, row.attempt)
        moves += fail(session, _ending_of(row))
    return moves


def _ending_of(row: Any) -> Failure:
    if row.is_late:
        said = f"stopped after {row.timeout_seconds:g} s"
        return Failure(row.id, row.attempt, TIME_LIMIT, said)
    return lost(row.id, row.attempt, "its worker went silent")


def lost(job: int, attempt: int, why: str, *, crashed: bool = False) -> Failure:
    """Describe an attempt that nobody can report on; *crashed* if its process died under it."""
    said = f"the attempt was lost: {why}"
    return Failure(job, attempt, "WorkerLost", said, lost=True, crashed=crashed)
