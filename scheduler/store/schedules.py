"""Keeping schedules, and making a job of one by hand. What their ticks do is in ``ticking``.

Times are the database's: whether a tick was missed must not depend on whose clock is asked.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from ulid import ULID

from scheduler.errors import OwnerInactive
from scheduler.models import Schedule, User
from scheduler.states import (
    DEFAULT_LEVEL,
    Condition,
    Executor,
    JobClass,
    Role,
    class_of,
)
from scheduler.store.submission import Submission, Submitted, submit
from scheduler.ticks import Timing, next_after, timing_of


def add(session: Session, schedule: Schedule) -> bool:
    """Add a schedule, whose first tick is yet to come. False: its owner has one of this name.

    Raises TimingInvalid.
    """
    _go_on_from_now(session, schedule)
    try:
        with session.begin_nested():
            session.add(schedule)
    except IntegrityError:
        return False
    return True


def change(session: Session, schedule: Schedule, columns: Mapping[str, Any]) -> None:
    """Apply *columns* to a schedule that the caller has locked.

    If it fires at other times than before, or is not paused any more, it goes on from now: what
    was missed until then is not caught up on. Raises TimingInvalid.
    """
    was_paused, before = schedule.paused, _told_when(schedule)
    for column, value in columns.items():
        setattr(schedule, column, value)
    if _told_when(schedule) != before:
        _go_on_from_now(session, schedule)
    elif was_paused and not schedule.paused:
        _go_on_from_now(session, schedule, tick=schedule.next_at)
    session.flush()


def run_now(
    session: Session, schedule: Schedule, *, key: str | None = None, request_id: str | None = None
) -> Submitted:
    """Make a job of a schedule that the caller has locked, whatever is due, paused or unfinished.

    The same *key* again is answered with the job that it made. Raises a SubmissionRefused.
    """
    owner = session.get_one(User, schedule.owner_id)
    if not owner.active or owner.role == Role.VIEWER:
        raise OwnerInactive
    submission = submission_of(
        schedule.template,
        job_id=f"{schedule.name}@manual_{str(ULID()).lower()}",
        schedule=schedule.name,
        idempotency_key=key,
        request_id=request_id,
    )
    submitted = submit(session, owner.id, [submission], batch=False)
    for move in submitted.moves:
        schedule.last_job_id, schedule.last_run_at = move.job_id, move.at
    session.flush()
    return submitted


def job_name(schedule: str, tick: datetime) -> str:
    """Return the id of a tick's job: the same for the same tick, whoever makes it."""
    return f"{schedule}@{tick.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def submission_of(template: Mapping[str, Any], **more: Any) -> Submission:
    """Return what a template asks for: the JSON of a submission, without what was left out."""
    needs = template.get("resource_requirements") or {}
    level = template.get("priority", DEFAULT_LEVEL[JobClass.NORMAL])
    cpu_units, executor = needs.get("cpu_units"), template.get("executor")
    return Submission(
        type=template["type"],
        payload=template.get("payload", {}),
        description=template.get("description"),
        tags=tuple(template.get("tags", ())),
        priority_level=level,
        job_class=class_of(level),
        depends_on=tuple(_dependency(each) for each in template.get("depends_on", ())),
        cpu_units=None if cpu_units is None else round(Decimal(repr(cpu_units)), 3),
        memory_mb=needs.get("memory_mb"),
        retry_config=template.get("retry_config"),
        timeout_seconds=template.get("timeout_seconds"),
        estimated_seconds=template.get("estimated_seconds"),
        executor=None if executor is None else Executor(executor),
        callback_url=template.get("callback_url"),
        **more,
    )


def timing(schedule: Schedule, *, tick: datetime) -> Timing:
    """Return when a schedule fires, one that counts seconds from *tick* on."""
    return timing_of(schedule.cron, schedule.every_seconds, schedule.timezone, tick=tick)


def _dependency(given: Mapping[str, str]) -> tuple[str, Condition]:
    return given["job_id"], Condition(given.get("when", Condition.COMPLETED))


def _told_when(schedule: Schedule) -> tuple[str | None, int | None, str]:
    return schedule.cron, schedule.every_seconds, schedule.timezone


def _go_on_from_now(session: Session, schedule: Schedule, *, tick: datetime | None = None) -> None:
    # Not when the transaction began: it may have waited for a turn that saw to a tick since.
    now = session.scalars(select(func.clock_timestamp())).one()
    schedule.next_at = next_after(timing(schedule, tick=tick or now), now)
    schedule.due_at = schedule.next_at
