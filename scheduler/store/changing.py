"""Changing what a job asks for while it waits."""

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.errors import NeverFits
from scheduler.policy.meters import rank_offset
from scheduler.states import WAITING, Executor, class_of
from scheduler.store import fleet
from scheduler.store.moves import Move, fetch, lock, make, verb
from scheduler.store.searching import WORDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be different about a job; None leaves it as it is.

    Only with *moves_time* the job is to start not before *run_at*, or as soon as may be.
    """

    priority_level: int | None = None
    tags: tuple[str, ...] | None = None
    cpu_units: Decimal | None = None
    memory_mb: int | None = None
    moves_time: bool = False
    run_at: datetime | None = None

    def told(self) -> dict[str, Any]:
        """Return what of it is written down with the move."""
        given = {
            "priority_level": self.priority_level,
            "tags": self.tags,
            "cpu_units": None if self.cpu_units is None else float(self.cpu_units),
            "memory_mb": self.memory_mb,
        }
        return {name: value for name, value in given.items() if value is not None}


_SIZE = text("""
SELECT cpu_units, memory_mb, executor FROM jobs WHERE id = :job AND status = ANY(:waiting)
""")

_CHANGE = verb(f"""
WITH target AS (
    SELECT id, owner_id, status AS was, rank AS old_rank, due_at AS old_due_at,
           :moves_time AND status IN (:is_scheduled, :is_retrying) AS is_timed,
           :moves_time AND status IN (:is_blocked, :is_ready)
               AND COALESCE(CAST(:run_at AS timestamptz) > now(), false) AS is_postponed
    FROM jobs WHERE id = :job AND status = ANY(:waiting)
),
unlined AS (
    DELETE FROM ready USING target
    WHERE target.is_postponed AND ready.owner_id = target.owner_id
      AND ready.rank = target.old_rank AND ready.job_id = target.id
),
moved AS (
    UPDATE jobs
    SET status = CASE WHEN is_postponed THEN :is_scheduled ELSE status END,
        job_class = COALESCE(CAST(:job_class AS text), job_class),
        priority_level = COALESCE(CAST(:priority_level AS smallint), priority_level),
        rank_offset = COALESCE(CAST(:rank_offset AS bigint), rank_offset),
        rank = CASE WHEN NOT is_postponed
            THEN rank - rank_offset + COALESCE(CAST(:rank_offset AS bigint), rank_offset) END,
        tags = COALESCE(CAST(:tags AS text[]), tags),
        cpu_units = COALESCE(CAST(:cpu_units AS numeric), cpu_units),
        memory_mb = COALESCE(CAST(:memory_mb AS bigint), memory_mb),
        run_at = CASE WHEN :moves_time THEN CAST(:run_at AS timestamptz) ELSE run_at END,
        due_at = CASE WHEN is_timed OR is_postponed
            THEN COALESCE(CAST(:run_at AS timestamptz), now()) ELSE due_at END,
        ready_at = CASE WHEN NOT is_postponed THEN ready_at END
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.*, CASE WHEN is_postponed THEN 'postpone' ELSE 'change' END AS verb,
              CAST(:told AS jsonb) || CASE WHEN is_timed OR is_postponed
                  THEN jsonb_build_object('due_at', jobs.due_at) ELSE '{{}}' END AS data
),
placed AS (
    UPDATE ready
    SET rank = moved.rank, job_class = moved.job_class, tags = moved.tags,
        cpu_units = moved.cpu_units, memory_mb = moved.memory_mb
    FROM moved JOIN target USING (id)
    WHERE moved.status = :is_ready AND ready.owner_id = target.owner_id
      AND ready.rank = target.old_rank AND ready.job_id = target.id
),
noted AS (
    INSERT INTO feed (kind, job_id, owner_id, rank)
    SELECT 'lined', moved.id, moved.owner_id, LEAST(target.old_rank, moved.rank)
    FROM moved JOIN target USING (id) WHERE target.was = :is_ready
),
retimed AS (
    UPDATE timers SET fire_at = moved.due_at
    FROM moved JOIN target USING (id)
    WHERE target.is_timed AND timers.fire_at = target.old_due_at AND timers.job_id = target.id
      AND timers.kind = 'due'
),
timed AS (
    INSERT INTO timers (fire_at, job_id, kind)
    SELECT moved.due_at, moved.id, 'due'
    FROM moved JOIN target USING (id) WHERE target.is_postponed
),
searchable AS (
    UPDATE searched SET tags = moved.tags, text = {WORDS}
    FROM moved WHERE searched.job_id = moved.id AND searched.tags <> moved.tags
)
""")


def change(session: Session, job: int, wanted: Change) -> list[Move]:
    """Change a job that waits. No moves: it does not wait any more.

    A job whose class or level changes keeps the time it has waited. One that is ready or blocked
    and is to start later is scheduled again, and gets in line anew. Raises NeverFits for more
    than the whole capacity. As at submission, any class may be asked for: what it counts as, the
    rules say when the job is looked at.
    """
    lock(session, [job])
    if wanted.cpu_units is not None or wanted.memory_mb is not None:
        _check_size(session, job, wanted)
    level = wanted.priority_level
    return make(
        session,
        _CHANGE,
        job=job,
        waiting=sorted(WAITING),
        told=json.dumps(wanted.told()),
        priority_level=level,
        job_class=None if level is None else class_of(level),
        rank_offset=None if level is None else rank_offset(class_of(level), level),
        tags=None if wanted.tags is None else list(wanted.tags),
        cpu_units=wanted.cpu_units,
        memory_mb=wanted.memory_mb,
        moves_time=wanted.moves_time,
        run_at=wanted.run_at,
    )


def _check_size(session: Session, job: int, wanted: Change) -> None:
    for size in fetch(session, _SIZE, job=job, waiting=sorted(WAITING)):
        if size["executor"] == Executor.CELERY:
            too_much = fleet.largest_job(session).lacks(
                wanted.cpu_units or size["cpu_units"], wanted.memory_mb or size["memory_mb"]
            )
            if too_much:
                raise NeverFits(too_much, path="resource_requirements")
