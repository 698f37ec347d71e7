"""From a place in line to a message on the wire, or to a pull worker that asked."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.store.fleet import SILENCE, TAKES_WORK
from scheduler.store.moves import Move, fetch, make, run, verb


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the policy decided about one job: its charge on the owner's meter, and by which lane."""

    id: int
    charge: float
    express: bool
    expected_seconds: float
    ask: int | None = None  # of the pull worker it is offered to


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message that has to be sent; *timeout_seconds* is the most its job may ever run."""

    job_id: int
    attempt: int
    queue: str
    timeout_seconds: float


_ADMIT = verb(
    """
WITH wanted AS (
    SELECT * FROM jsonb_to_recordset(CAST(:admitted AS jsonb))
        AS wanted(id bigint, charge float8, express boolean, expected_seconds float8,
                  ask bigint, place bigint)
),
asking AS (
    SELECT asks.id FROM asks JOIN wanted ON wanted.ask = asks.id
    WHERE asks.job_id IS NULL
    ORDER BY asks.id
    FOR UPDATE OF asks SKIP LOCKED
),
target AS (
    SELECT jobs.id, jobs.owner_id, jobs.rank FROM jobs JOIN wanted USING (id)
    WHERE jobs.status = ANY(:to_queued)
      AND (wanted.ask IS NULL OR wanted.ask IN (SELECT id FROM asking))
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs SKIP LOCKED
),
gone AS (
    DELETE FROM ready USING target
    WHERE ready.owner_id = target.owner_id AND ready.rank = target.rank
      AND ready.job_id = target.id
    RETURNING ready.*
),
moved AS (
    UPDATE jobs
    SET status = :is_queued, attempt = attempt + 1, queued_at = now(), started_at = NULL,
        worker = NULL, progress_fraction = NULL, progress_message = NULL
    FROM gone WHERE jobs.id = gone.job_id
    RETURNING jobs.id, jobs.owner_id, jobs.job_id, 'admit' AS verb, jobs.status, jobs.attempt,
              jsonb_build_object(
                  'cpu_units', jobs.cpu_units, 'memory_mb', jobs.memory_mb, 'epoch',
                  CAST(:epoch AS bigint)
              ) AS data,
              jobs.timeout_seconds, GREATEST(jobs.timeout_seconds, (
                  SELECT max_timeout_seconds FROM job_types WHERE name = jobs.type
              )) AS max_timeout_seconds,
              (SELECT place FROM wanted WHERE wanted.id = jobs.id) AS place
),
held AS (
    INSERT INTO active (job_id, attempt, owner_id, job_type, job_class, cpu_units, memory_mb,
                        expected_seconds, timeout_seconds, max_timeout_seconds, charge, express,
                        epoch, admitted_at, executor)
    SELECT moved.id, moved.attempt, gone.owner_id, gone.job_type, gone.job_class, gone.cpu_units,
           gone.memory_mb, wanted.expected_seconds, moved.timeout_seconds,
           moved.max_timeout_seconds, wanted.charge, wanted.express, :epoch, now(),
           gone.executor
    FROM moved JOIN gone ON gone.job_id = moved.id JOIN wanted ON wanted.id = moved.id
),
sent AS (
    INSERT INTO outbox (job_id, attempt, queue, timeout_seconds, place, created_at)
    SELECT moved.id, moved.attempt, gone.job_class, moved.max_timeout_seconds, moved.place, now()
    FROM moved JOIN gone ON gone.job_id = moved.id
    WHERE gone.executor = :by_celery
),
offered AS (
    UPDATE asks SET job_id = moved.id, attempt = moved.attempt
    FROM moved JOIN wanted ON wanted.id = moved.id
    WHERE asks.id = wanted.ask
)
""",
    order="place",
)

_WAITING_PARCELS = text("""
SELECT job_id, attempt, queue, timeout_seconds FROM outbox ORDER BY created_at, place LIMIT :limit
""")

# A row that is locked is being claimed by a worker, who may freeze over it. If the claim does not
# come about, the message is sent again like any other that nobody has claimed.
_MARK_PUBLISHED = text("""
WITH sent AS (
    SELECT * FROM unnest(CAST(:jobs AS bigint[]), CAST(:attempts AS bigint[])) AS s(id, attempt)
),
cleared AS (
    DELETE FROM outbox USING sent
    WHERE outbox.job_id = sent.id AND outbox.attempt = sent.attempt
),
target AS (
    SELECT active.job_id FROM active JOIN sent
        ON active.job_id = sent.id AND active.attempt = sent.attempt
    WHERE active.claimed_at IS NULL
    ORDER BY active.job_id
    FOR NO KEY UPDATE OF active SKIP LOCKED
)
UPDATE active SET published_at = now() FROM target WHERE active.job_id = target.job_id
""")

_PUBLISH_AGAIN = text(f"""
INSERT INTO outbox (job_id, attempt, queue, timeout_seconds, place, created_at)
SELECT job_id, attempt, job_class, max_timeout_seconds,
       row_number() OVER (ORDER BY admitted_at, published_at, job_id), now()
FROM active
WHERE executor = :by_celery AND claimed_at IS NULL
  AND COALESCE(published_at, admitted_at) < now() - CAST(:older_than AS interval)
  AND EXISTS (
      SELECT 1 FROM workers WHERE {TAKES_WORK}
  )
ON CONFLICT DO NOTHING
RETURNING job_id
""")


def admit(session: Session, admitted: Sequence[Admitted], *, epoch: int) -> list[Move]:
    """Move jobs out of their lines: reserved, numbered, and in the outbox or offered to who asked.

    Only the returned moves happened; a job cancelled meanwhile, or whose ask is gone, is
    simply missing. Messages leave
    in the order of *admitted*.
    """
    # Written out, because asdict copies deeply and turns admit hundreds.
    rows = [
        {
            "id": one.id,
            "charge": one.charge,
            "express": one.express,
            "expected_seconds": one.expected_seconds,
            "ask": one.ask,
            "place": place,
        }
        for place, one in enumerate(admitted)
    ]
    body = json.dumps(rows)
    return make(session, _ADMIT, admitted=body, epoch=epoch)


def waiting_parcels(session: Session, *, limit: int) -> list[Parcel]:
    """Return what was admitted and has not been sent, oldest first."""
    return [Parcel(**row) for row in fetch(session, _WAITING_PARCELS, limit=limit)]


def mark_published(session: Session, parcels: Sequence[Parcel]) -> None:
    """Take sent messages out of the outbox."""
    run(
        session,
        _MARK_PUBLISHED,
        jobs=[parcel.job_id for parcel in parcels],
        attempts=[parcel.attempt for parcel in parcels],
    )


def publish_again(session: Session, *, older_than: timedelta) -> int:
    """Put into the outbox what was sent that long ago and nobody has claimed; return how many.

    Sending twice is harmless: the second claim fails. With no worker alive it would only pile up.
    """
    return len(run(session, _PUBLISH_AGAIN, older_than=older_than, silence=SILENCE).all())
