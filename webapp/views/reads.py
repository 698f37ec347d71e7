"""Selects that only pages and live events need."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis
from sqlalchemy import BigInteger, ColumnElement, Text, column, func, select, true, values
from sqlalchemy.orm import Session

from scheduler.clock import to_rfc3339
from scheduler.events import Standing, read_standings
from scheduler.models import Active, Job, JobEvent, JobLog, User
from scheduler.states import DISCARD, FINISHED, UNFINISHED, JobStatus
from scheduler.store import fleet
from scheduler.store.finding import among
from webapp import figures, queries, serialise

COUNT_LIMIT = 1000
"""Jobs of a status are counted this far; counting them all would cost more every day."""

NOTES_SHOWN = 20

PLACES_TOLD = 100
"""Waiting jobs named in one ``queue`` event."""

_EVENTS_SEARCHED = 1000


@dataclass(frozen=True, slots=True)
class Finish:
    """How a job of the reader's ended."""

    seq: int
    job_id: str
    verb: str
    status: JobStatus
    data: Mapping[str, Any] | None
    at: datetime


def last_seq(session: Session, owner_id: int | None) -> int:
    """Return the newest event of an owner, or of everybody; 0 if there is none."""
    newest = select(func.max(JobEvent.seq))
    if owner_id is not None:
        newest = newest.where(JobEvent.owner_id == owner_id)
    return session.scalar(newest) or 0


def recent_finishes(session: Session, owner_id: int) -> list[Finish]:
    """Return how the owner's jobs ended lately, newest first.

    Looks at a bounded stretch of events, so that a large batch does not slow every page.
    """
    recent = (
        select(JobEvent)
        .where(JobEvent.owner_id == owner_id)
        .order_by(JobEvent.seq.desc())
        .limit(_EVENTS_SEARCHED)
        .subquery()
    )
    rows = session.execute(
        select(
            recent.c.seq,
            Job.job_id,
            recent.c.verb,
            recent.c.status,
            recent.c.data,
            recent.c.at,
        )
        .join(Job, Job.id == recent.c.job_id)
        .where(recent.c.status.in_(sorted(FINISHED)), recent.c.verb != DISCARD)
        .order_by(recent.c.seq.desc())
        .limit(NOTES_SHOWN)
    )
    return [
        Finish(seq, job_id, verb, JobStatus(status), data, at)
        for seq, job_id, verb, status, data, at in rows
    ]


def count_by_status(session: Session, visible: ColumnElement[bool]) -> dict[JobStatus, int]:
    """Return how many visible jobs are in each status, up to ``COUNT_LIMIT`` and one."""
    return {status: _count_some(session, visible, status) for status in JobStatus}


def usernames(session: Session) -> Sequence[str]:
    """Return everybody who may own jobs, by name."""
    return session.scalars(select(User.username).order_by(func.lower(User.username))).all()


def last_logs(session: Session, job: Job, *, limit: int) -> list[JobLog]:
    """Return the newest lines of a job, oldest first."""
    newest = session.scalars(
        select(JobLog).where(JobLog.job_id == job.id).order_by(JobLog.id.desc()).limit(limit)
    ).all()
    return list(reversed(newest))


def stopping(session: Session, ids: Collection[int]) -> set[int]:
    """Return which of some jobs run, and were asked to stop."""
    asked = select(Active.job_id).where(
        among(Active.job_id, ids), Active.cancel_requested_at.is_not(None)
    )
    return set(session.scalars(asked))


def moves_since(
    session: Session, owner_id: int | None, seq: int, *, limit: int
) -> list[dict[str, Any]]:
    """Return the moves after *seq* as they were announced, of an owner or of everybody."""
    wanted = (
        select(JobEvent, Job.job_id)
        .join(Job, Job.id == JobEvent.job_id)
        .where(JobEvent.seq > seq)
        .order_by(JobEvent.seq)
        .limit(limit)
    )
    if owner_id is not None:
        wanted = wanted.where(JobEvent.owner_id == owner_id)
    return [_move_to_json(event, job_id) for event, job_id in session.execute(wanted)]


def unfinished_counts(session: Session, owners: Collection[int]) -> dict[int, dict[str, int]]:
    """Return how many jobs each owner has in each unfinished status, up to ``COUNT_LIMIT`` and one.

    Counting them all, every second, would cost more the more of them wait.
    """
    counts: dict[int, dict[str, int]] = {
        owner: dict.fromkeys(sorted(UNFINISHED), 0) for owner in owners
    }
    if not counts:
        return counts
    owner, status = column("owner", BigInteger), column("status", Text)
    wanted = values(owner, status, name="wanted").data(
        [(one, str(status)) for one in counts for status in sorted(UNFINISHED)]
    )
    some = (
        select(Job.id)
        .where(Job.owner_id == wanted.c.owner, Job.status == wanted.c.status)
        .limit(COUNT_LIMIT + 1)
        .lateral()
    )
    rows = session.execute(
        select(wanted.c.owner, wanted.c.status, func.count())
        .select_from(wanted.join(some, true()))
        .group_by(wanted.c.owner, wanted.c.status)
    )
    for one, name, count in rows:
        counts[one][name] = count
    return counts


def queue_bodies(
    session: Session, redis: Redis, counts: Mapping[int, Mapping[str, int]], now: datetime
) -> dict[int, dict[str, Any]]:
    """Return what each owner in *counts* has running and waiting, as it is told every second."""
    if not counts:
        return {}
    session.rollback()  # the broker is asked without a connection of the database
    standings = read_standings(redis, sorted(counts))
    running = _running(session, counts, now)
    waiting = _waiting(session, standings)
    return {
        owner: {
            "at": to_rfc3339(now),
            "running": running.get(owner, []),
            "waiting": waiting.get(owner, []),
            "counts": {name: min(count, COUNT_LIMIT) for name, count in counts[owner].items()},
            "more": [name for name, count in counts[owner].items() if count > COUNT_LIMIT],
        }
        for owner in counts
    }


def fleet_body(session: Session, now: datetime) -> dict[str, Any]:
    """Return the state of the fleet as it is told to operators every second."""
    live = {worker.name for worker in fleet.live_workers(session)}
    running = queries.running_on(session)
    return {
        "at": to_rfc3339(now),
        "capacity": figures.offer(fleet.capacity(session)),
        "reserved": figures.reserved(session),
        "depths": figures.depths(session, true()),
        "workers": [
            {
                "name": worker.name,
                "state": fleet.state_of(worker),
                "alive": worker.name in live,
                "processes": worker.processes,
                "running": len(running.get(worker.name, [])),
            }
            for worker in queries.workers(session)
        ],
    }


def _running(
    session: Session, owners: Collection[int], now: datetime
) -> dict[int, list[dict[str, Any]]]:
    rows = session.execute(
        select(Job)
        .join(Active, Active.job_id == Job.id)
        .where(Active.owner_id.in_(owners), Job.status == JobStatus.RUNNING)
        .order_by(Active.claimed_at)
    ).scalars()
    running: dict[int, list[dict[str, Any]]] = {}
    for job in rows:
        elapsed = serialise.elapsed(job, now)
        running.setdefault(job.owner_id, []).append(
            {
                "job_id": job.job_id,
                "attempt": job.attempt,
                "started_at": job.started_at and to_rfc3339(job.started_at),
                "elapsed_seconds": None if elapsed is None else elapsed.total_seconds(),
                "progress": {"fraction": job.progress_fraction, "message": job.progress_message},
            }
        )
    return running


def _waiting(
    session: Session, standings: Mapping[int, Mapping[int, Standing]]
) -> dict[int, list[dict[str, Any]]]:
    """Return the first waiting jobs of each owner, as far as the leader's books name them."""
    first = {owner: _first_places(known) for owner, known in standings.items()}
    ids = {job for places in first.values() for job, _ in places}
    rows = session.execute(select(Job.id, Job.job_id).where(Job.id.in_(ids)))
    names = dict(rows.all())
    return {
        owner: [_place(names[job], standing) for job, standing in places if job in names]
        for owner, places in first.items()
    }


def _first_places(standings: Mapping[int, Standing]) -> list[tuple[int, Standing]]:
    ordered = sorted(standings.items(), key=lambda pair: pair[1].position)
    return ordered[:PLACES_TOLD]


def _place(job_id: str, standing: Standing) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "position": standing.position,
        "code": standing.code,
        "message": standing.message,
        "earliest": standing.earliest and to_rfc3339(standing.earliest),
        "latest": standing.latest and to_rfc3339(standing.latest),
    }


def _move_to_json(event: JobEvent, job_id: str) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "job_id": job_id,
        "owner_id": event.owner_id,
        "verb": event.verb,
        "status": event.status,
        "attempt": event.attempt,
        "at": to_rfc3339(event.at),
        "data": event.data,
    }


def _count_some(session: Session, visible: ColumnElement[bool], status: JobStatus) -> int:
    some = select(Job.id).where(visible, Job.status == status).limit(COUNT_LIMIT + 1).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0
