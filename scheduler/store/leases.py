"""What pull workers report. They show the lease of their attempt, which nobody else knows.

A lease that is over changes nothing, as little as one that never was.
"""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.states import Outcome
from scheduler.store.moves import fetch, run


class Renewed(NamedTuple):
    """A lease that still holds, and whether its job is to stop."""

    attempt: int
    until: datetime
    cancel_requested: bool


_HELD = """
SELECT active.job_id, active.attempt, attempts.lease_seconds
FROM jobs
    JOIN active ON active.job_id = jobs.id
    JOIN attempts ON attempts.job_id = active.job_id AND attempts.attempt = active.attempt
WHERE jobs.id = :id AND lease_until > now() AND attempts.lease = :lease
FOR NO KEY UPDATE OF jobs, active
"""
_HELD_UNDER = text(_HELD)

# The job first, as whoever moves it does. One that is to stop, or has taken all the time it may,
# gets no more.
_RENEW = text(f"""
WITH held AS ({_HELD})
UPDATE active
SET lease_until = CASE WHEN cancel_requested_at IS NOT NULL THEN lease_until ELSE LEAST(
        now() + make_interval(secs => held.lease_seconds),
        claimed_at + make_interval(secs => timeout_seconds)) END
FROM held WHERE active.job_id = held.job_id
RETURNING active.attempt, lease_until AS until,
          cancel_requested_at IS NOT NULL AS cancel_requested
""")

_REPORTED_UNDER = text("""
SELECT outcome FROM attempts
WHERE job_id = :id AND lease = :lease AND finished_at IS NOT NULL
""")

_REVOKE = text("UPDATE attempts SET lease = NULL WHERE job_id = :id AND attempt = :attempt")


def renew(session: Session, job: int, lease: str) -> Renewed | None:
    """Let a lease last anew; None if it is over."""
    rows = fetch(session, _RENEW, id=job, lease=lease)
    return Renewed(**rows[0]) if rows else None


def held_under(session: Session, job: int, lease: str) -> int | None:
    """Return the attempt that is running under a lease; None if that is over."""
    held = run(session, _HELD_UNDER, id=job, lease=lease).first()
    return None if held is None else held.attempt


def reported_under(session: Session, job: int, lease: str) -> Outcome | None:
    """Return how an attempt ended by the report of who held its lease."""
    outcome = run(session, _REPORTED_UNDER, id=job, lease=lease).scalar_one_or_none()
    return None if outcome is None else Outcome(outcome)


def revoke(session: Session, job: int, attempt: int) -> None:
    """Let nobody report under the lease of an attempt any more."""
    run(session, _REVOKE, id=job, attempt=attempt)
