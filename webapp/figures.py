"""Figures of now and of the last hour, for a user or for all.

What is counted over time comes from the newest events, a bounded number of them, so that the
figures cost the same however long the history is.
"""

from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, func, select, true
from sqlalchemy.orm import Session

from scheduler.models import Active, Job, JobEvent, Ready
from scheduler.states import DISCARD, FINISHED, Executor, JobClass, JobStatus
from scheduler.store import estimates, fleet
from webapp import queries
from webapp.access import Account, visible, visible_jobs
from webapp.answers import utc

HOUR = timedelta(hours=1)
RATE_WINDOW = timedelta(minutes=5)

SCORED_OVER = timedelta(days=7)
"""How far back estimates are counted that came true or did not."""

EVENTS_LOOKED_AT = 20_000
"""Beyond this many moves in an hour the figures are of the newest."""


def stats(session: Session, account: Account, *, now: datetime) -> dict[str, Any]:
    """Return the figures *account* may see."""
    finished = _finished(session, account, now)
    rate = sum(_finished(session, account, now, within=RATE_WINDOW).values())
    oldest = oldest_ready(session, account)
    return {
        "at": utc(now),
        "of": "all" if account.sees_everybody else "own",
        "jobs": queries.count_by_status(session, visible_jobs(account)),
        "classes": depths(session, visible(Ready.owner_id, account)),
        "finished_last_hour": finished,
        "finished_per_minute": rate / (RATE_WINDOW / timedelta(minutes=1)),
        "wait_seconds": spread(session, account, now, Job.started_at - Job.ready_at),
        "run_seconds": spread(session, account, now, Job.finished_at - Job.started_at),
        "oldest_ready_seconds": None if oldest is None else (now - oldest).total_seconds(),
        "capacity": offer(fleet.capacity(session)),
        "reserved": reserved(session, None if account.sees_everybody else account.id),
        "workers": len(fleet.live_workers(session)),
        "estimates": _estimates(session),
    }


def offer(capacity: fleet.Capacity) -> dict[str, Any]:
    """Return what there is as JSON."""
    return _offer(capacity.cpu_units, capacity.memory_mb, capacity.slots)


def _estimates(session: Session) -> dict[str, Any]:
    by_method = estimates.tallies(session, span=SCORED_OVER)
    total = sum(by_method.values(), estimates.Tally())
    methods = {str(method): _tally(tally) for method, tally in by_method.items()}
    return _tally(total) | {"by_method": methods}


def _tally(tally: estimates.Tally) -> dict[str, Any]:
    return {"scored": tally.scored, **asdict(tally)}


def _offer(cpu_units: Decimal, memory_mb: int, slots: int) -> dict[str, Any]:
    return {"cpu_units": float(cpu_units), "memory_mb": int(memory_mb), "slots": slots}


def oldest_ready(session: Session, account: Account) -> datetime | None:
    """Return since when the job waits that has waited longest of those that could start."""
    return session.scalar(select(func.min(Ready.ready_at)).where(visible(Ready.owner_id, account)))


def depths(session: Session, whose: ColumnElement[bool]) -> dict[str, int]:
    """Return how many jobs could start now, by class."""
    rows = session.execute(
        select(Ready.job_class, func.count()).where(whose).group_by(Ready.job_class)
    )
    return {str(name): 0 for name in JobClass} | dict(rows.all())


def reserved(session: Session, owner_id: int | None = None) -> dict[str, Any]:
    """Return what admitted and running jobs hold of the machine: one owner's, or all of them."""
    whose = true() if owner_id is None else Active.owner_id == owner_id
    cpu_units, memory_mb, slots = session.execute(
        select(
            func.coalesce(func.sum(Active.cpu_units), 0),
            func.coalesce(func.sum(Active.memory_mb), 0),
            func.count(),
        ).where(whose, Active.executor == Executor.CELERY)
    ).one()
    return _offer(cpu_units, memory_mb, slots)


def _newest_events(account: Account) -> Select[int, str, str, datetime]:
    return (
        select(JobEvent.job_id, JobEvent.verb, JobEvent.status, JobEvent.at)
        .where(visible(JobEvent.owner_id, account))
        .order_by(JobEvent.seq.desc())
        .limit(EVENTS_LOOKED_AT)
    )


def _ends_since(events: Subquery, start: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        events.c.at > start,
        events.c.status.in_(sorted(FINISHED)),
        events.c.verb != DISCARD,
    )


def _finished(
    session: Session, account: Account, now: datetime, *, within: timedelta = HOUR
) -> dict[str, int]:
    newest = _newest_events(account).subquery()
    rows = session.execute(
        select(newest.c.status, func.count())
        .where(*_ends_since(newest, now - within))
        .group_by(newest.c.status)
    )
    counts = {str(status): 0 for status in JobStatus if status in FINISHED}
    return counts | dict(rows.all())


def spread(
    session: Session, account: Account, now: datetime, duration: ColumnElement[Any]
) -> dict[str, float | None]:
    """Return percentiles of *duration* over jobs that finished within the hour."""
    newest = _newest_events(account).subquery()
    seconds = func.extract("epoch", duration)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    measured = session.execute(
        select(*(func.percentile_cont(share).within_group(seconds) for share in shares.values()))
        .select_from(newest)
        .join(Job, Job.id == newest.c.job_id)
        .where(*_ends_since(newest, now - HOUR))
    ).one()
    return {
        name: None if value is None else round(float(value), 3)
        for name, value in zip(shares, measured, strict=True)
    }
