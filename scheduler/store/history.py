"""What has run, for playing it again. Read only, and rarely."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.store.moves import fetch

# A job's rank is the instant it first became ready, moved by its class: see lines.PLACE.
_RECORDED = text("""
SELECT jobs.id, jobs.owner_id, users.username, jobs.type AS job_type,
       jobs.priority_level AS level, CAST(jobs.cpu_units AS float8) AS cpu_units, jobs.memory_mb,
       jobs.estimated_seconds,
       to_timestamp((jobs.rank - jobs.rank_offset) / 1e6) AS ready_at, ran.started_at, ran.seconds
FROM jobs JOIN users ON users.id = jobs.owner_id
CROSS JOIN LATERAL (
    SELECT min(started_at) AS started_at,
           CAST(EXTRACT(epoch FROM sum(finished_at - started_at)) AS float8) AS seconds
    FROM attempts WHERE attempts.job_id = jobs.id AND finished_at IS NOT NULL
) AS ran
WHERE to_timestamp((jobs.rank - jobs.rank_offset) / 1e6) BETWEEN :since AND :until
  AND ran.seconds > 0
ORDER BY ready_at, jobs.id
""")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A job that has run; several attempts count as one long one."""

    id: int
    owner_id: int
    username: str
    job_type: str
    level: int
    cpu_units: float
    memory_mb: int
    estimated_seconds: float | None
    ready_at: datetime  # for the first time
    started_at: datetime  # for the first time
    seconds: float


def recorded(session: Session, *, since: datetime, until: datetime) -> list[Recorded]:
    """Return the jobs that became ready between two instants and have run, in that order."""
    return [Recorded(**row) for row in fetch(session, _RECORDED, since=since, until=until)]
