"""Schedules on their way in and out: templates checked, ticks to come worked out."""

from datetime import datetime
from itertools import islice
from typing import Any

from flask import g
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.errors import SubmissionRefused, TimingInvalid
from scheduler.job_request import JobTemplate
from scheduler.models import Schedule
from scheduler.store import schedules, submission
from scheduler.store.submission import Submitted
from scheduler.ticks import Timing
from webapp import audit
from webapp.access import Account
from webapp.answers import utc
from webapp.errors import FieldError, Problem
from webapp.schemas.schedules import SchedulePatch, ScheduleRequest
from webapp.submitting import check_callback, owner_for

LIMIT = 1_000
"""Schedules of one owner: the leader looks at all that are due in every turn."""

RUNS_TOLD = 5


def add(session: Session, account: Account, body: ScheduleRequest, *, now: datetime) -> Schedule:
    """Add a schedule. Raises a problem if its owner has one of this name, or too many."""
    owner_id = owner_for(session, account, body.owner)
    schedule = Schedule(
        owner_id=owner_id,
        template=_checked(session, owner_id, body.template),
        skipped=0,
        created_at=now,
        **body.model_dump(exclude={"owner", "template"}),
    )
    _check_number(session, owner_id)
    if not schedules.add(session, schedule):
        message = f"{body.name!r} is taken; change that schedule, or give this one another name"
        raise Problem("name_taken", f"name: {message}.", (FieldError("name", message),))
    audit.note_about_schedule("schedules.create", schedule)
    return schedule


def change(session: Session, schedule: Schedule, body: SchedulePatch) -> None:
    """Change what was sent of a schedule that is locked; the audit log is told which fields."""
    columns = body.model_dump(exclude_unset=True, exclude={"template"})
    if "cron" in columns:
        columns["every_seconds"] = None
    elif "every_seconds" in columns:
        columns["cron"] = None
    if "template" in body.model_fields_set:
        columns["template"] = _checked(session, schedule.owner_id, body.template)
    schedules.change(session, schedule, columns)
    changed = sorted(body.model_fields_set)
    audit.note_about_schedule("schedules.change", schedule, {"fields": changed})


def delete(session: Session, schedule: Schedule) -> None:
    """Delete a schedule; the jobs it has made stay."""
    audit.note_about_schedule("schedules.delete", schedule)
    session.delete(schedule)


def run(session: Session, schedule: Schedule, *, key: str | None = None) -> Submitted:
    """Make a job of a schedule that is locked. Raises a SubmissionRefused."""
    submitted = schedules.run_now(session, schedule, key=key, request_id=g.request_id)
    for move in submitted.moves:
        audit.note_about_schedule("schedules.run", schedule, {"job_id": move.job_id})
    return submitted


def schedule_to_json(schedule: Schedule, owner: str, *, now: datetime) -> dict[str, Any]:
    """Return a schedule as the contract answers it."""
    timing = _timing(schedule)
    return {
        "name": schedule.name,
        "owner": owner,
        "template": schedule.template,
        "cron": schedule.cron,
        "every_seconds": schedule.every_seconds,
        "timezone": schedule.timezone,
        "overlap": schedule.overlap,
        "catch_up": schedule.catch_up,
        "paused": schedule.paused,
        "next_runs": [] if timing is None else list(islice(timing.after(now), RUNS_TOLD)),
        "in_words": "Cannot be read" if timing is None else timing.words(),
        "last_run": _last_run(schedule),
        "last_error": _last_error(schedule),
        "skipped": schedule.skipped,
        "last_skipped_at": utc(schedule.last_skipped_at),
        "created_at": utc(schedule.created_at),
    }


def _checked(session: Session, owner_id: int, template: JobTemplate) -> dict[str, Any]:
    """Return a template as it is kept, once a submission of it would be taken now.

    A full backlog is no reason to refuse it: there may be room when its time comes.
    """
    check_callback(template.callback_url, "template.callback_url")
    kept = template.model_dump(mode="json", exclude_unset=True)
    try:
        submission.check(session, owner_id, schedules.submission_of(kept))
    except SubmissionRefused as refusal:
        refusal.path = f"template.{refusal.path}"
        raise
    return kept


def _check_number(session: Session, owner_id: int) -> None:
    counted = select(func.count()).select_from(Schedule).where(Schedule.owner_id == owner_id)
    if session.scalars(counted).one() >= LIMIT:
        detail = f"Nobody may have more than {LIMIT:,} schedules; delete one that is not needed."
        raise Problem("too_many_schedules", detail)


def _timing(schedule: Schedule) -> Timing | None:
    try:
        return schedules.timing(schedule, tick=schedule.next_at)
    except TimingInvalid:
        return None  # the scheduler has paused it, or will, and says why in last_error


def _last_run(schedule: Schedule) -> dict[str, Any] | None:
    if schedule.last_job_id is None:
        return None
    return {"job_id": schedule.last_job_id, "at": utc(schedule.last_run_at)}


def _last_error(schedule: Schedule) -> dict[str, Any] | None:
    if schedule.last_error is None:
        return None
    return {
        "code": schedule.last_error_code,
        "message": schedule.last_error,
        "at": utc(schedule.last_error_at),
    }
