"""Pull workers that wait for a job, and what they are offered.

A worker's ask stands here while it waits. The leader reads those that stand, and admits a job for
each it can serve; whoever asked finds it in the ask, takes the ask down and claims the job.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.snapshot import Ask
from scheduler.store.moves import Move, fetch, run
from scheduler.store.work import give_back

UNCLAIMED_AFTER = timedelta(seconds=5)
"""How long an offered job may be unclaimed before it goes back: whoever asked for it is gone."""

ASKS_SEEN = 1_000
"""How many asks a pass looks at, the oldest first."""


class Wanted(NamedTuple):
    """What a worker asks for; None: of any type; of anybody."""

    types: Sequence[str] | None = None
    owner_id: int | None = None


class Offer(NamedTuple):
    """An attempt that an ask was served with."""

    job_id: int
    attempt: int


_OF_WANTED = """
executor = :by_pull
AND (CAST(:types AS text[]) IS NULL OR job_type = ANY(:types))
AND (CAST(:owner AS bigint) IS NULL OR owner_id = :owner)
"""

_MAY_COME = text(f"""
SELECT EXISTS (SELECT FROM ready WHERE {_OF_WANTED})
    OR EXISTS (SELECT FROM feed WHERE CAST(:owner AS bigint) IS NULL OR owner_id = :owner)
""")

_PUT_UP = text("""
INSERT INTO asks (owner_id, types, expires_at)
VALUES (:owner, :types, now() + CAST(:patience AS interval))
RETURNING id
""")

_IS_SERVED = text("SELECT job_id IS NOT NULL FROM asks WHERE id = :id")

_TAKE_DOWN = text("DELETE FROM asks WHERE id = :id RETURNING job_id, attempt")

_WAITING = text("""
SELECT id, types, owner_id FROM asks
WHERE job_id IS NULL AND expires_at > now()
ORDER BY id LIMIT :limit
""")

_FORGET_EXPIRED = text("""
DELETE FROM asks WHERE id IN (
    SELECT id FROM asks WHERE expires_at < now() - CAST(:older_than AS interval)
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
)
""")

# One that is being claimed at this very moment is left to its worker.
_UNCLAIMED = text("""
SELECT jobs.id, active.attempt
FROM active JOIN jobs ON jobs.id = active.job_id
WHERE active.executor = :by_pull AND active.claimed_at IS NULL
  AND active.admitted_at < now() - CAST(:older_than AS interval)
ORDER BY active.admitted_at, jobs.id LIMIT :limit
FOR NO KEY UPDATE OF jobs, active SKIP LOCKED
""")


def may_come(session: Session, wanted: Wanted) -> bool:
    """Tell whether a job for the worker is in line, or may come into it within a moment."""
    row = run(session, _MAY_COME, **_asked(wanted)).one()
    return bool(row[0])


def put_up(session: Session, wanted: Wanted, *, patience: timedelta) -> int:
    """Ask for a job, for as long as *patience* lasts; return the number of the ask."""
    number: int = run(session, _PUT_UP, **_asked(wanted), patience=patience).scalar_one()
    return number


def is_served(session: Session, ask: int) -> bool:
    """Tell whether an ask has its offer."""
    return bool(run(session, _IS_SERVED, id=ask).scalar_one_or_none())


def take_down(session: Session, ask: int) -> Offer | None:
    """Ask no more; return what was offered until now."""
    row = run(session, _TAKE_DOWN, id=ask).first()
    return None if row is None or row.job_id is None else Offer(row.job_id, row.attempt)


def waiting(session: Session) -> tuple[Ask, ...]:
    """Return the asks that nobody was offered to."""
    return tuple(
        Ask(row["id"], None if row["types"] is None else frozenset(row["types"]), row["owner_id"])
        for row in fetch(session, _WAITING, limit=ASKS_SEEN)
    )


def clear_away(session: Session, *, limit: int) -> list[Move]:
    """Forget asks of workers that are gone, and take back what was offered and not claimed."""
    run(session, _FORGET_EXPIRED, older_than=UNCLAIMED_AFTER, limit=limit)
    rows = run(session, _UNCLAIMED, older_than=UNCLAIMED_AFTER, limit=limit).all()
    return give_back(session, [(row.id, row.attempt) for row in rows]) if rows else []


def _asked(wanted: Wanted) -> dict[str, object]:
    return {
        "types": None if wanted.types is None else list(wanted.types),
        "owner": wanted.owner_id,
    }
