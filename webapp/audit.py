"""The audit log: what is written down about other people's jobs, and reading it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, func, select, tuple_
from sqlalchemy.orm import Session

from scheduler.models import AuditEntry, Job, Schedule, User
from scheduler.store.audit import record, record_about_jobs, record_together
from webapp import access
from webapp.answers import utc
from webapp.cursors import instant_at, place_of, read_places, write_cursor
from webapp.extensions import db

T = TypeVar("T")


def act_on_job(action: str, job: Job, act: Callable[[Session, int], T]) -> T:
    """Do *act* to a job and read it anew; write it down as ``note_about_job`` does if it changed.

    Returns what *act* does, which is nothing where the job did not change.
    """
    done = act(db.session(), job.id)
    db.session.refresh(job)
    if done:
        note_about_job(action, job)
    return done


def note_about_job(action: str, job: Job, detail: Mapping[str, Any] | None = None) -> None:
    """Write down what the caller does to a job, unless it is their own."""
    if job.owner_id != access.require().id:
        owner = db.session.get_one(User, job.owner_id).username
        record(db.session(), access.actor(), action, f"jobs/{owner}/{job.job_id}", detail)


def note_about_schedule(
    action: str, schedule: Schedule, detail: Mapping[str, Any] | None = None
) -> None:
    """Write down what the caller does to a schedule, unless it is their own."""
    if schedule.owner_id != access.require().id:
        owner = db.session.get_one(User, schedule.owner_id).username
        target = f"schedules/{owner}/{schedule.name}"
        record(db.session(), access.actor(), action, target, detail)


def note_submission(owner_id: int, job_ids: Sequence[str]) -> None:
    """Write down which jobs the caller has submitted for somebody, unless for themselves."""
    if not job_ids or owner_id == access.require().id:
        return
    owner = db.session.get_one(User, owner_id).username
    record_together(db.session(), access.actor(), "jobs.submit", owner, job_ids)


def note_about_jobs(
    action: str, jobs: Sequence[int], detail: Mapping[str, Any] | None = None
) -> None:
    """Write down what the caller does to many jobs, an entry for each owner but themselves."""
    account = access.require()
    if not account.sees_everybody:
        return
    record_about_jobs(db.session(), access.actor(), action, jobs, detail)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are asked for; None means any."""

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    after: datetime | None = None
    before: datetime | None = None


def entries(
    session: Session, wanted: Filter, *, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return one page of the log, newest first, and the next cursor."""
    found = session.scalars(page(wanted, limit=limit, cursor=cursor)).all()
    shown = found[:limit]
    more = len(found) > limit
    return [_to_json(entry) for entry in shown], _cursor_at(shown[-1]) if more else None


def page(wanted: Filter, *, limit: int, cursor: str | None = None) -> Select[AuditEntry]:
    """Return the select of a page and one entry more."""
    return (
        select(AuditEntry)
        .where(*_conditions(wanted), *_beyond(cursor))
        .order_by(AuditEntry.at.desc(), AuditEntry.id.desc())
        .limit(limit + 1)
    )


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.actor is not None:
        conditions.append(func.lower(AuditEntry.actor) == wanted.actor.lower())
    if wanted.action is not None:
        conditions.append(AuditEntry.action == wanted.action)
    if wanted.target is not None:
        conditions.append(AuditEntry.target == wanted.target)
    if wanted.after is not None:
        conditions.append(AuditEntry.at > wanted.after)
    if wanted.before is not None:
        conditions.append(AuditEntry.at < wanted.before)
    return conditions


def _beyond(cursor: str | None) -> list[ColumnElement[bool]]:
    if cursor is None:
        return []
    place, number = read_places(cursor, 2)
    return [tuple_(AuditEntry.at, AuditEntry.id) < tuple_(instant_at(place), number)]


def _cursor_at(entry: AuditEntry) -> str:
    return write_cursor(place_of(entry.at), entry.id)


def _to_json(entry: AuditEntry) -> dict[str, Any]:
    return {
        "at": utc(entry.at),
        "actor": entry.actor,
        "address": entry.address,
        "request_id": entry.request_id,
        "action": entry.action,
        "target": entry.target,
        "detail": entry.detail,
    }
