"""Keeping schedules: when they go on, and jobs made by hand."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.errors import OwnerInactive, TimingInvalid, UnknownType
from scheduler.models import Job, Schedule, User
from scheduler.states import CatchUp, Condition, Executor, JobClass, Overlap, Role
from scheduler.store import schedules
from scheduler.store.submission import Submission
from scheduler.store.ticking import make_due
from scheduler.ticks import next_after
from tests.factories import NOON, make_job, make_schedule, make_type, make_user
from tests.services import eventually

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def owner(session: Session) -> User:
    make_type(session)
    return make_user(session)


def wanted(owner: User, **columns: Any) -> Schedule:
    defaults: dict[str, Any] = {
        "name": "nightly",
        "template": {"type": "simulate"},
        "cron": None if columns.get("every_seconds") else "30 2 * * *",
        "timezone": "UTC",
        "overlap": Overlap.SKIP,
        "catch_up": CatchUp.LATEST,
        "paused": False,
        "created_at": NOON,
    }
    return Schedule(owner_id=owner.id, **(defaults | columns))


def now(session: Session) -> datetime:
    return session.scalars(select(func.clock_timestamp())).one()


def first_tick(session: Session, schedule: Schedule, before: datetime) -> datetime:
    """Return the first tick after some moment since *before*."""
    timing = schedules.timing(schedule, tick=schedule.next_at)
    ticks = {next_after(timing, moment) for moment in (before, now(session))}
    assert schedule.next_at in ticks
    assert schedule.due_at == schedule.next_at
    return schedule.next_at


# Adding


def test_a_new_schedule_waits_for_its_first_tick(session: Session, owner: User) -> None:
    before = now(session)

    assert schedules.add(session, wanted(owner))

    schedule = session.scalars(select(Schedule)).one()
    assert before < first_tick(session, schedule, before) <= before + DAY


def test_every_so_many_seconds_begins_a_step_from_now(session: Session, owner: User) -> None:
    before = now(session)

    schedules.add(session, schedule := wanted(owner, every_seconds=3600))

    assert timedelta(0) <= before + 3600 * SECOND - schedule.next_at < SECOND
    assert schedule.next_at.microsecond == 0


def test_an_owner_has_one_schedule_of_a_name(session: Session, owner: User) -> None:
    assert schedules.add(session, wanted(owner))
    assert not schedules.add(session, wanted(owner, cron="0 0 * * *"))
    assert schedules.add(session, wanted(make_user(session)))

    assert session.scalar(select(func.count()).select_from(Schedule)) == 2


def test_a_schedule_that_nobody_can_follow_is_refused(session: Session, owner: User) -> None:
    with pytest.raises(TimingInvalid):
        schedules.add(session, wanted(owner, timezone="Mars/Olympus"))


# Changing


@pytest.mark.parametrize(
    "columns",
    [{"cron": "0 3 * * *"}, {"timezone": "Asia/Tokyo"}, {"cron": None, "every_seconds": 60}],
)
def test_other_times_count_from_now(session: Session, owner: User, columns: dict[str, Any]) -> None:
    later = NOON + 10_000 * DAY  # as if it waited for room
    schedule = make_schedule(session, owner, cron="30 2 * * *", due_at=later)
    before = now(session)

    schedules.change(session, schedule, columns)

    assert first_tick(session, schedule, before) > before


@pytest.mark.parametrize(
    "columns",
    [
        {"overlap": Overlap.REPLACE, "catch_up": CatchUp.NONE, "template": {"type": "other"}},
        {"cron": "* * * * *", "timezone": "UTC"},
        {"paused": False},
        {"paused": True},
    ],
)
def test_what_does_not_change_its_times_leaves_what_is_due(
    session: Session, owner: User, columns: dict[str, Any]
) -> None:
    schedule = make_schedule(session, owner)

    schedules.change(session, schedule, columns)

    session.refresh(schedule)
    assert (schedule.next_at, schedule.due_at) == (NOON, NOON)
    assert {name: getattr(schedule, name) for name in columns} == columns


@pytest.mark.parametrize("catch_up", CatchUp)
def test_a_schedule_that_is_resumed_goes_on_from_now(
    session: Session, owner: User, catch_up: CatchUp
) -> None:
    schedule = make_schedule(session, owner, paused=True, catch_up=catch_up)
    before = now(session)

    schedules.change(session, schedule, {"paused": False})

    first_tick(session, schedule, before)
    assert make_due(session, now=before, limit=9, ticks=9).moves == []


def test_a_schedule_that_counts_seconds_keeps_its_step_when_it_is_resumed(
    session: Session, owner: User
) -> None:
    schedule = make_schedule(session, owner, paused=True, every_seconds=1000)

    schedules.change(session, schedule, {"paused": False})

    assert schedule.next_at > now(session)
    assert (schedule.next_at - NOON) % timedelta(seconds=1000) == timedelta(0)


def test_a_change_counts_from_when_it_is_made_and_not_from_when_its_transaction_began(
    session: Session, owner: User
) -> None:
    schedule = make_schedule(session, owner, every_seconds=7)
    begun = session.scalars(select(func.now())).one()
    moment = eventually(lambda: (at := now(session)) >= begun + SECOND and at)

    schedules.change(session, schedule, {"every_seconds": 1})

    assert schedule.next_at > moment


# By hand


def test_a_job_made_by_hand_can_be_told_and_moves_no_tick(session: Session, owner: User) -> None:
    schedule = make_schedule(session, owner, paused=True, overlap=Overlap.SKIP)
    make_job(session, owner, schedule="nightly")

    submitted = schedules.run_now(session, schedule, request_id="r-1")

    job = session.get_one(Job, submitted.ids[0])
    assert job.job_id.startswith("nightly@manual_")
    assert (job.schedule, job.request_id, job.owner_id) == ("nightly", "r-1", owner.id)
    session.refresh(schedule)
    assert (schedule.last_job_id, schedule.last_run_at) == (job.job_id, job.created_at)
    assert (schedule.next_at, schedule.due_at) == (NOON, NOON)


def test_the_same_key_makes_one_job(session: Session, owner: User) -> None:
    schedule = make_schedule(session, owner)

    first = schedules.run_now(session, schedule, key="k")
    again = schedules.run_now(session, schedule, key="k")

    assert again.ids == first.ids
    assert again.duplicates == frozenset(first.ids)
    assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_a_refusal_by_hand_is_told_to_whoever_asked(session: Session, owner: User) -> None:
    schedule = make_schedule(session, owner, template={"type": "unheard-of"})

    with pytest.raises(UnknownType):
        schedules.run_now(session, schedule)
    assert schedule.last_error is None


@pytest.mark.parametrize("columns", [{"active": False}, {"role": Role.VIEWER}])
def test_nothing_is_made_for_an_owner_who_may_own_nothing(
    session: Session, columns: dict[str, Any]
) -> None:
    make_type(session)
    schedule = make_schedule(session, make_user(session, **columns))

    with pytest.raises(OwnerInactive):
        schedules.run_now(session, schedule)


# Names and templates


def test_a_tick_names_its_job_in_utc() -> None:
    tick = datetime.fromisoformat("2026-03-29T03:00+02:00")

    assert schedules.job_name("a/b", tick) == "a/b@20260329T010000Z"
    assert schedules.job_name("a/b", tick.astimezone(UTC)) == "a/b@20260329T010000Z"


def test_a_template_asks_for_what_it_says() -> None:
    template = {
        "type": "report",
        "payload": {"a": 1},
        "description": "d",
        "tags": ["x", "y"],
        "priority": 2,
        "depends_on": [{"job_id": "one"}, {"job_id": "two", "when": "finished"}],
        "resource_requirements": {"cpu_units": 0.1234, "memory_mb": 64},
        "retry_config": {"max_attempts": 7},
        "timeout_seconds": 9.0,
        "estimated_seconds": 3.0,
        "executor": "pull",
        "callback_url": "https://example.com/done",
    }

    assert schedules.submission_of(template, job_id="j", schedule="s") == Submission(
        type="report",
        job_id="j",
        payload={"a": 1},
        description="d",
        tags=("x", "y"),
        priority_level=2,
        job_class=JobClass.HIGH,
        depends_on=(("one", Condition.COMPLETED), ("two", Condition.FINISHED)),
        cpu_units=Decimal("0.123"),
        memory_mb=64,
        retry_config={"max_attempts": 7},
        timeout_seconds=9.0,
        estimated_seconds=3.0,
        executor=Executor.PULL,
        callback_url="https://example.com/done",
        schedule="s",
    )


def test_a_template_leaves_the_rest_to_the_type() -> None:
    assert schedules.submission_of({"type": "report"}) == Submission(
        type="report", payload={}, priority_level=5, job_class=JobClass.NORMAL
    )
