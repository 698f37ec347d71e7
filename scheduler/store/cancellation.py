"""Ending a job before its time."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from scheduler.states import CancelReason
from scheduler.store.moves import OUTCOME, Move, lock, make, verb

HEARD_WITHIN = timedelta(seconds=30)
"""How long a pull worker has to hear that its job is to stop, and to stop it."""

_CANCEL_WAITING = verb(
    f"""
WITH target AS (
    SELECT id, status, owner_id, rank, due_at, start_by FROM jobs
    WHERE id = ANY(:jobs) AND status = ANY(:to_cancelled) AND status <> :is_running
),
unready AS (
    DELETE FROM ready USING target
    WHERE ready.owner_id = target.owner_id AND ready.rank = target.rank
      AND ready.job_id = target.id
    RETURNING ready.*
),
noted AS (
    INSERT INTO feed (kind, job_id, owner_id, rank)
    SELECT 'lined', min(job_id), owner_id, min(rank) FROM unready GROUP BY owner_id
),
untimed AS (
    DELETE FROM timers USING target
    WHERE timers.fire_at IN (target.due_at, target.start_by) AND timers.job_id = target.id
),
unsent AS (
    DELETE FROM outbox USING target WHERE outbox.job_id = target.id
),
freed AS (
    DELETE FROM active USING target WHERE active.job_id = target.id RETURNING active.*
),
fed AS (
    INSERT INTO feed (kind, job_id, owner_id, cpu_units, memory_mb, charge, express, used_seconds)
    SELECT 'ended', target.id, target.owner_id, freed.cpu_units, freed.memory_mb, freed.charge,
           freed.express, CASE WHEN freed.job_id IS NOT NULL THEN 0 END
    FROM target LEFT JOIN freed ON freed.job_id = target.id
),
moved AS (
    UPDATE jobs
    SET status = :is_cancelled, reason = :reason, finished_at = now()
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.id, jobs.owner_id, jobs.job_id, 'cancel' AS verb, jobs.status, jobs.attempt,
              jsonb_build_object('reason', jobs.reason, 'from', target.status) AS data,
              {OUTCOME}
)
""",
    ends=True,
)

_REQUEST_CANCEL = verb("""
WITH target AS (
    SELECT id FROM jobs WHERE id = :id AND status = :is_running
),
asked AS (
    UPDATE active
    SET cancel_requested_at = now(), cancel_reason = :reason,
        lease_until = CASE executor
            WHEN :by_pull THEN LEAST(lease_until, now() + CAST(:heard_within AS interval))
            ELSE lease_until END
    FROM target WHERE active.job_id = target.id AND active.cancel_requested_at IS NULL
    RETURNING active.job_id
),
moved AS (
    SELECT jobs.id, jobs.owner_id, jobs.job_id, 'request_cancel' AS verb, jobs.status,
           jobs.attempt, CAST(NULL AS jsonb) AS data
    FROM jobs JOIN asked ON asked.job_id = jobs.id
)
""")


def cancel(session: Session, job: int) -> list[Move]:
    """Cancel a waiting or queued job at once; ask a running one to stop.

    No moves: the job has finished, or was asked to stop before.
    """
    return cancel_all(session, [job], reason=CancelReason.BY_USER)


def cancel_all(session: Session, jobs: Sequence[int], *, reason: CancelReason) -> list[Move]:
    """Cancel at once those of *jobs* that wait or are queued; ask those that run to stop."""
    moves = cancel_waiting(session, jobs, reason=reason)
    for job in sorted(set(jobs) - {move.id for move in moves}):
        moves += make(session, _REQUEST_CANCEL, id=job, reason=reason, heard_within=HEARD_WITHIN)
    return moves


def cancel_waiting(session: Session, jobs: Sequence[int], *, reason: CancelReason) -> list[Move]:
    """Cancel those of *jobs* that have not been started."""
    lock(session, jobs)
    return make(session, _CANCEL_WAITING, jobs=list(jobs), reason=reason)
