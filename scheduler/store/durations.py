"""Keeping how long jobs take, so that a new leader knows what the last one had learned."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.policy.durations import ANYBODY, Durations, Key, Learned, known
from scheduler.policy.parameters import DURATIONS_KEPT
from scheduler.store.moves import fetch, run

# Types first, whatever the number of pairs; of those the ones that ended last.
_IN_ORDER = "SELECT * FROM durations ORDER BY owner_id <> :anybody, updated_at DESC"

_READ = text(f"""
WITH newest AS ({_IN_ORDER} LIMIT :limit)
SELECT job_type, owner_id, mean, variance, count
FROM newest ORDER BY updated_at, job_type, owner_id
""")

_READ_TYPE = text("""
SELECT job_type, owner_id, mean, variance, count FROM durations
WHERE job_type = :job_type AND owner_id IN (:anybody, :owner_id)
""")

_WRITE = text("""
INSERT INTO durations (job_type, owner_id, mean, variance, count, updated_at)
SELECT job_type, owner_id, mean, variance, count, now()
FROM jsonb_to_recordset(CAST(:learned AS jsonb)) AS learned(
    job_type text, owner_id bigint, mean float8, variance float8, count bigint)
ORDER BY job_type, owner_id
ON CONFLICT (job_type, owner_id) DO UPDATE
SET mean = excluded.mean, variance = excluded.variance, count = excluded.count,
    updated_at = excluded.updated_at
""")

_FORGET = text(f"""
WITH oldest AS ({_IN_ORDER} OFFSET :limit)
DELETE FROM durations USING oldest
WHERE durations.job_type = oldest.job_type AND durations.owner_id = oldest.owner_id
""")


def read(session: Session) -> Durations:
    """Return what was learned, of as many pairs of type and owner as are remembered."""
    return _durations(fetch(session, _READ, anybody=ANYBODY, limit=DURATIONS_KEPT))


def read_type(session: Session, job_type: str, owner_id: int) -> Durations:
    """Return what was learned of one type, and of one owner's jobs of it."""
    rows = fetch(session, _READ_TYPE, job_type=job_type, owner_id=owner_id, anybody=ANYBODY)
    return _durations(rows)


def write(session: Session, changed: Mapping[Key, Learned]) -> None:
    """Keep what has *changed*. Only the leader writes here."""
    rows = [
        {
            "job_type": job_type,
            "owner_id": owner_id,
            "mean": learned.mean,
            "variance": learned.variance,
            "count": learned.count,
        }
        for (job_type, owner_id), learned in changed.items()
    ]
    if rows:
        run(session, _WRITE, learned=json.dumps(rows, allow_nan=False))


def forget(session: Session) -> None:
    """Forget what no leader will read. Only the leader writes here."""
    run(session, _FORGET, anybody=ANYBODY, limit=DURATIONS_KEPT)


def _durations(rows: Iterable[dict[str, Any]]) -> Durations:
    return known(
        (
            (row["job_type"], row["owner_id"]),
            Learned(row["mean"], row["variance"], row["count"]),
        )
        for row in rows
    )
