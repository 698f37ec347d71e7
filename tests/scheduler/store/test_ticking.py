"""What the ticks of schedules do: jobs, skips, replacements and refusals, each noted."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from scheduler.models import Active, Job, JobType, Schedule, User
from scheduler.states import FINISHED, UNFINISHED, CancelReason, CatchUp, JobStatus, Overlap, Role
from scheduler.store import ticking, work
from scheduler.store.submission import submit
from scheduler.store.ticking import PATIENCE, ROOM_EXPECTED_AFTER, TRIED_AGAIN_AFTER, Made, make_due
from tests.factories import (
    MINUTE,
    NOON,
    PID,
    WORKER,
    make_job,
    make_policy,
    make_schedule,
    make_submission,
    make_type,
    make_user,
    make_worker,
)
from tests.racing import committed, one_after_the_other

S = JobStatus
SECOND = timedelta(seconds=1)
TYPES = {"simulate", "other"}


@pytest.fixture
def owner(session: Session) -> User:
    make_type(session)
    return make_user(session)


def tick(session: Session, now: datetime = NOON, *, limit: int = 50, ticks: int = 500) -> Made:
    return make_due(session, now=now, limit=limit, ticks=ticks)


def jobs(session: Session) -> list[Job]:
    return list(session.scalars(select(Job).order_by(Job.id)))


def names(session: Session) -> list[str]:
    return [job.job_id for job in jobs(session)]


def noted(session: Session, schedule: Schedule, *columns: str) -> tuple[Any, ...]:
    session.refresh(schedule)
    return tuple(getattr(schedule, column) for column in columns)


def at(minutes: int) -> str:
    return f"nightly@20260115T12{minutes:02}00Z"


# One tick


def test_a_tick_makes_a_job_of_the_template(session: Session, owner: User) -> None:
    schedule = make_schedule(session, owner, template={"payload": {"size": 3}, "priority": 2})

    made = tick(session, NOON + SECOND)

    (job,) = jobs(session)
    assert [(move.verb, move.id) for move in made.moves] == [("submit", job.id)]
    assert not made.has_more
    assert (job.job_id, job.schedule, job.status) == (at(0), "nightly", S.READY)
    assert (job.owner_id, job.payload, job.job_class) == (owner.id, {"size": 3}, "high")
    assert noted(session, schedule, "next_at", "due_at") == (NOON + MINUTE, NOON + MINUTE)
    assert noted(session, schedule, "last_job_id", "last_run_at", "last_error") == (
        at(0), NOON, None,
    )  # fmt: skip


def test_before_its_time_nothing_happens(session: Session, owner: User) -> None:
    make_schedule(session, owner)

    assert tick(session, NOON - timedelta(microseconds=1)) == Made([], has_more=False)
    assert names(session) == []


def test_a_paused_schedule_makes_nothing(session: Session, owner: User) -> None:
    schedule = make_schedule(session, owner, paused=True)

    assert tick(session, NOON + 5 * MINUTE).moves == []
    assert noted(session, schedule, "next_at") == (NOON,)


def test_schedules_of_one_name_belong_to_their_owners(session: Session, owner: User) -> None:
    other = make_user(session)
    make_schedule(session, owner)
    make_schedule(session, other)

    tick(session)

    assert names(session) == [at(0), at(0)]
    assert {job.owner_id for job in jobs(session)} == {owner.id, other.id}


def test_every_so_many_seconds_goes_on_from_the_last_tick(session: Session, owner: User) -> None:
    schedule = make_schedule(session, owner, every_seconds=7)

    tick(session, NOON + 8 * SECOND)

    assert names(session) == [at(0), "nightly@20260115T120007Z"]
    assert noted(session, schedule, "next_at") == (NOON + 14 * SECOND,)


def test_a_cron_line_goes_by_the_clock_of_its_zone(session: Session, owner: User) -> None:
    schedule = make_schedule(session, owner, cron="0 13 * * *", timezone="Europe/Berlin")

    tick(session)

    assert names(session) == [at(0)]
    assert noted(session, schedule, "next_at") == (NOON + timedelta(days=1),)


def test_a_tick_that_comes_up_again_makes_no_second_job(session: Session, owner: User) -> None:
    schedule = make_schedule(session, owner)
    tick(session)
    schedule.next_at = schedule.due_at = NOON
    session.flush()

    assert tick(session).moves == []

    assert names(session) == [at(0)]
    assert noted(session, schedule, "next_at", "last_error") == (NOON + MINUTE, None)


# Overlap


def overlapping(session: Session, owner: User, overlap: Overlap, status: JobStatus) -> Schedule:
    make_job(session, owner, status, schedule="nightly", job_id="before")
    return make_schedule(session, owner, overlap=overlap)


@pytest.mark.parametrize("status", sorted(UNFINISHED))
def test_skip_makes_no_job_while_an_earlier_one_is_unfinished(
    session: Session, owner: User, status: JobStatus
) -> None:
    schedule = overlapping(session, owner, Overlap.SKIP, status)

    assert tick(session).moves == []

    assert names(session) == ["before"]
    assert noted(session, schedule, "skipped", "last_skipped_at", "last_job_id", "next_at") == (
        1, NOON, None, NOON + MINUTE,
    )  # fmt: skip


@pytest.mark.parametrize("status", sorted(FINISHED))
def test_skip_makes_a_job_once_the_earlier_one_is_finished(
    session: Session, owner: User, status: JobStatus
) -> None:
    schedule = overlapping(session, owner, Overlap.SKIP, status)

    tick(session)

    assert names(session) == ["before", at(0)]
    assert noted(session, schedule, "skipped", "last_skipped_at") == (0, None)


@pytest.mark.parametrize("status", sorted(UNFINISHED))
def test_queue_makes_its_job_all_the_same(session: Session, owner: User, status: JobStatus) -> None:
    overlapping(session, owner, Overlap.QUEUE, status)

    tick(session)

    assert {job.job_id: job.status for job in jobs(session)} == {"before": status, at(0): S.READY}


@pytest.mark.parametrize("status", sorted(UNFINISHED - {S.RUNNING}))
def test_replace_cancels_the_earlier_job_that_has_not_started(
    session: Session, owner: User, status: JobStatus
) -> None:
    overlapping(session, owner, Overlap.REPLACE, status)

    made = tick(session)

    before, now = jobs(session)
    assert (before.status, before.reason) == (S.CANCELLED, CancelReason.REPLACED)
    assert (now.job_id, now.status) == (at(0), S.READY)
    assert [move.verb for move in made.moves] == ["cancel", "submit"]


def test_replace_asks_an_earlier_job_that_runs_to_stop(session: Session, owner: User) -> None:
    overlapping(session, owner, Overlap.REPLACE, S.RUNNING)

    made = tick(session)

    before, now = jobs(session)
    assert [move.verb for move in made.moves] == ["request_cancel", "submit"]
    assert (before.status, now.status) == (S.RUNNING, S.READY)
    assert session.get_one(Active, before.id).cancel_requested_at is not None
    work.stop(session, before.id, 1)
    session.refresh(before)
    assert (before.status, before.reason) == (S.CANCELLED, CancelReason.REPLACED)


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.REPLACE])
def test_only_jobs_of_the_same_schedule_overlap(
    session: Session, owner: User, overlap: Overlap
) -> None:
    others = [
        make_job(session, owner, schedule="hourly"),
        make_job(session, owner),
        make_job(session, make_user(session), schedule="nightly"),
    ]
    make_schedule(session, owner, overlap=overlap)

    tick(session)

    assert names(session)[-1] == at(0)
    assert {job.status for job in others} == {S.READY}


def test_a_job_made_by_hand_overlaps_too(session: Session, owner: User) -> None:
    make_job(session, owner, schedule="nightly", job_id="nightly@manual_1")
    make_schedule(session, owner, overlap=Overlap.SKIP)

    tick(session)

    assert names(session) == ["nightly@manual_1"]


def test_what_would_be_refused_replaces_nothing(session: Session, owner: User) -> None:
    schedule = overlapping(session, owner, Overlap.REPLACE, S.READY)
    schedule.template = {"type": "unheard-of"}
    session.flush()

    tick(session)

    assert [(job.job_id, job.status) for job in jobs(session)] == [("before", S.READY)]
    assert noted(session, schedule, "last_error_code") == ("unknown_type",)


def test_in_a_full_backlog_a_job_takes_the_place_of_the_one_it_replaces(
    session: Session, owner: User
) -> None:
    owner.cap_backlog = 1
    overlapping(session, owner, Overlap.REPLACE, S.READY)

    tick(session)

    assert [job.status for job in jobs(session)] == [S.CANCELLED, S.READY]


# Catching up


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        (CatchUp.ALL, [at(0), at(1), at(2), at(3)]),
        (CatchUp.LATEST, [at(3)]),
        (CatchUp.NONE, []),
    ],
)
def test_what_was_missed_is_caught_up_on_as_told(
    session: Session, owner: User, catch_up: CatchUp, expected: Sequence[str]
) -> None:
    schedule = make_schedule(session, owner, cron="0-3 * * * *", catch_up=catch_up)

    made = tick(session, NOON + 30 * MINUTE)

    assert names(session) == expected
    assert noted(session, schedule, "next_at") == (NOON + 60 * MINUTE,)
    assert not made.has_more


def test_of_missed_ticks_skip_makes_one_job(session: Session, owner: User) -> None:
    schedule = make_schedule(session, owner, overlap=Overlap.SKIP)

    tick(session, NOON + 3 * MINUTE)

    assert names(session) == [at(0)]
    assert noted(session, schedule, "skipped", "last_skipped_at", "next_at") == (
        3, NOON + 3 * MINUTE, NOON + 4 * MINUTE,
    )  # fmt: skip


def test_of_missed_ticks_replace_leaves_the_last(session: Session, owner: User) -> None:
    overlapping(session, owner, Overlap.REPLACE, S.READY)

    tick(session, NOON + 3 * MINUTE)

    assert [job.status for job in jobs(session)] == [S.CANCELLED] * 4 + [S.READY]
    assert names(session) == ["before", at(0), at(1), at(2), at(3)]


def test_a_million_missed_ticks_take_many_small_turns(session: Session, owner: User) -> None:
    schedule = make_schedule(session, owner)
    now = NOON + 10**6 * MINUTE

    made = [tick(session, now, ticks=20) for _ in range(3)]

    assert [len(one.moves) for one in made] == [20, 20, 20]
    assert all(one.has_more for one in made)
    assert names(session) == [at(minutes) for minutes in range(60)]
    assert noted(session, schedule, "next_at", "due_at") == (NOON + 60 * MINUTE, now)


def test_catching_up_ends(session: Session, owner: User) -> None:
    make_schedule(session, owner)

    made = [tick(session, NOON + 9 * MINUTE, ticks=5) for _ in range(3)]

    assert [one.has_more for one in made] == [True, False, False]
    assert names(session) == [at(minutes) for minutes in range(10)]


# Many schedules


def test_ticks_of_a_turn_are_shared_between_schedules(session: Session, owner: User) -> None:
    for name in "abcd":
        make_schedule(session, owner, name)

    made = tick(session, NOON + 100 * MINUTE, ticks=10)

    assert [job.schedule for job in jobs(session)] == [*"aabbccdd"]
    assert made.has_more


def test_catching_up_keeps_nobody_waiting_who_came_due_since(session: Session, owner: User) -> None:
    make_schedule(session, owner, "behind")
    make_schedule(session, owner, "punctual", next_at=NOON + 45 * MINUTE)

    for minutes in (40, 50, 51):
        tick(session, NOON + minutes * MINUTE, limit=1, ticks=1)

    assert [job.schedule for job in jobs(session)] == ["behind", "behind", "punctual"]


def test_the_many_schedules_of_one_owner_keep_no_other_waiting(
    session: Session, owner: User
) -> None:
    modest = make_user(session)
    for number in range(5):
        make_schedule(session, owner, f"many{number}")
    make_schedule(session, modest, next_at=NOON + MINUTE)

    made = tick(session, NOON + MINUTE, limit=2)

    assert {job.owner_id for job in jobs(session)} == {owner.id, modest.id}
    assert made.has_more


def test_what_another_transaction_changes_is_left_for_the_next_turn(
    committed_engine: Engine,
) -> None:
    def two(session: Session) -> None:
        make_type(session)
        ann = make_user(session, "ann")
        make_schedule(session, ann, "changing")
        make_schedule(session, ann, "other")

    committed(committed_engine, two)
    with Session(committed_engine) as changing:
        changing.execute(text("UPDATE schedules SET overlap = 'skip' WHERE name = 'changing'"))
        committed(committed_engine, tick)
        changing.commit()

    assert [job.schedule for job in committed(committed_engine, jobs)] == ["other"]
    committed(committed_engine, tick)
    assert [job.schedule for job in committed(committed_engine, jobs)] == ["other", "changing"]


# Refusals


def spoil_type(session: Session, owner: User) -> None:
    session.delete(session.get_one(JobType, "simulate"))


def spoil_payload(session: Session, owner: User) -> None:
    session.get_one(JobType, "simulate").payload_schema = {"required": ["size"]}


def spoil_backlog(session: Session, owner: User) -> None:
    owner.cap_backlog = 0


def spoil_owner(session: Session, owner: User) -> None:
    owner.active = False


def spoil_role(session: Session, owner: User) -> None:
    owner.role = Role.VIEWER


def spoil_name(session: Session, owner: User) -> None:
    make_job(session, owner, job_id=at(0))


SPOILERS = {
    spoil_type: (
        "unknown_type",
        (
            "type: no worker has registered the job type 'simulate';"
            " a type for pull workers needs none, but executor: pull"
        ),
    ),
    spoil_payload: ("validation_failed", "payload: 'size' is a required property"),
    spoil_backlog: (
        "backlog_full",
        (
            "0 unfinished jobs and 1 more pass your backlog limit of 0;"
            " submit again when some have finished"
        ),
    ),
    spoil_owner: ("unknown_owner", "its owner has no active account that may own jobs"),
    spoil_role: ("unknown_owner", "its owner has no active account that may own jobs"),
    spoil_name: (
        "job_id_conflict",
        f"job_id: job '{at(0)}' exists with other content; nothing was changed",
    ),
}


@pytest.mark.parametrize("spoil", SPOILERS)
@pytest.mark.parametrize("overlap", Overlap)
def test_a_tick_that_is_refused_is_noted_and_stops_no_other(
    session: Session, owner: User, spoil: Any, overlap: Overlap
) -> None:
    make_type(session, "other")
    other = make_user(session)
    spoiled = make_schedule(session, owner, catch_up=CatchUp.LATEST, overlap=overlap)
    make_schedule(
        session, other, template={"type": "other", "resource_requirements": {"cpu_units": 0.1}}
    )
    spoil(session, owner)
    session.flush()
    before = names(session)

    tick(session, NOON + SECOND)

    made = [job for job in jobs(session) if job.job_id not in before or job.owner_id == other.id]
    assert [job.owner_id for job in made] == [other.id]
    told = noted(session, spoiled, "last_error_code", "last_error", "last_error_at", "next_at")
    assert told == (*SPOILERS[spoil], NOON + SECOND, NOON + MINUTE)
    assert noted(session, spoiled, "last_job_id", "skipped", "paused") == (None, 0, False)


@pytest.mark.parametrize("spoil", [spoil_type, spoil_payload, spoil_owner])
def test_what_is_refused_for_good_is_not_tried_again(
    session: Session, owner: User, spoil: Any
) -> None:
    schedule = make_schedule(session, owner)
    spoil(session, owner)
    session.flush()

    made = tick(session, NOON + 5 * MINUTE)

    assert (made.moves, made.has_more) == ([], False)
    assert noted(session, schedule, "next_at") == (NOON + 6 * MINUTE,)


@pytest.mark.parametrize("overlap", Overlap)
def test_what_is_too_large_for_what_there_is_now_waits_for_more(
    session: Session, owner: User, overlap: Overlap
) -> None:
    schedule = make_schedule(session, owner, overlap=overlap)
    make_policy(session, cap_cpu_units=Decimal("0.5"))

    tick(session)

    assert [job.status for job in jobs(session)] == [S.READY]
    assert noted(session, schedule, "last_job_id", "last_error") == (at(0), None)


def spoil_schema(session: Session, schedule: Schedule) -> None:
    schema = {"properties": {"name": {"pattern": "*"}}}
    session.get_one(JobType, "simulate").payload_schema = schema
    schedule.template = {"type": "simulate", "payload": {"name": "x"}}


def spoil_template(session: Session, schedule: Schedule) -> None:
    schedule.template = {"type": "simulate", "resource_requirements": {"memory_mb": -1}}


def spoil_skipped(session: Session, schedule: Schedule) -> None:
    schedule.overlap, schedule.skipped = Overlap.SKIP, 2**63 - 1
    make_job(session, session.get_one(User, schedule.owner_id), schedule="nightly")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (spoil_schema, "error: nothing to repeat at position 0"),
        (spoil_template, "IntegrityError: (psycopg.errors.CheckViolation) new row for relation"),
        (spoil_skipped, "DataError: (psycopg.errors.NumericValueOutOfRange) bigint out of range"),
    ],
)
def test_what_nobody_foresaw_is_noted_tried_again_and_stops_no_other(
    session: Session, owner: User, spoil: Any, error: str
) -> None:
    make_type(session, "other")
    schedule = make_schedule(session, owner)
    make_schedule(session, make_user(session), template={"type": "other"})
    spoil(session, schedule)
    session.flush()

    made = tick(session)

    assert [move.verb for move in made.moves] == ["submit"]
    assert not made.has_more
    assert [job.type for job in jobs(session) if job.job_id == at(0)] == ["other"]
    assert noted(session, schedule, "next_at", "due_at", "paused") == (
        NOON, NOON + TRIED_AGAIN_AFTER, False,
    )  # fmt: skip
    code, said, error_at = noted(
        session, schedule, "last_error_code", "last_error", "last_error_at"
    )
    assert (code, said.startswith(error), error_at) == ("internal_error", True, NOON)


def test_ticks_whose_jobs_failed_to_be_made_are_all_made_once_that_is_put_right(
    session: Session, owner: User
) -> None:
    schedule = make_schedule(session, owner)
    spoil_schema(session, schedule)
    session.flush()
    tick(session)
    session.get_one(JobType, "simulate").payload_schema = None
    session.flush()

    tick(session, NOON + TRIED_AGAIN_AFTER)

    assert names(session) == [at(0), at(1)]


def test_a_lost_connection_ends_the_turn_and_is_no_fault_of_a_schedule(
    committed_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def furnish(session: Session) -> None:
        make_type(session)
        make_schedule(session, make_user(session))

    def lose_connection(session: Session, *_: object, **__: object) -> None:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    committed(committed_engine, furnish)
    monkeypatch.setattr(ticking, "submit", lose_connection)

    with pytest.raises(OperationalError):
        committed(committed_engine, tick)

    errors = committed(committed_engine, lambda s: s.scalars(select(Schedule.last_error)).all())
    assert errors == [None]


@pytest.mark.parametrize("overlap", Overlap)
def test_a_name_that_is_taken_costs_its_own_tick_only(
    session: Session, owner: User, overlap: Overlap
) -> None:
    make_job(session, owner, job_id=at(0))
    schedule = make_schedule(session, owner, overlap=overlap)

    tick(session, NOON + 2 * MINUTE)

    expected = [at(1)] if overlap is Overlap.SKIP else [at(1), at(2)]
    assert [job.job_id for job in jobs(session) if job.schedule] == expected
    assert noted(session, schedule, "last_error_code", "next_at") == (
        "job_id_conflict", NOON + 3 * MINUTE,
    )  # fmt: skip


def test_all_ticks_wait_for_room_in_a_full_backlog(session: Session, owner: User) -> None:
    owner.cap_backlog = 3
    schedule = make_schedule(session, owner)
    now = NOON + 9 * MINUTE

    made = tick(session, now)

    assert not made.has_more
    first = names(session)
    assert 0 < len(first) <= 3
    assert first == [at(minutes) for minutes in range(len(first))]
    assert noted(session, schedule, "next_at", "due_at", "last_error_code") == (
        NOON + len(first) * MINUTE, now + ROOM_EXPECTED_AFTER, "backlog_full",
    )  # fmt: skip
    assert tick(session, now + ROOM_EXPECTED_AFTER - SECOND) == Made([], has_more=False)


@pytest.mark.parametrize("overlap", Overlap)
def test_ticks_that_waited_for_room_are_all_made_when_there_is_some(
    session: Session, owner: User, overlap: Overlap
) -> None:
    owner.cap_backlog = 0
    schedule = make_schedule(session, owner, overlap=overlap)
    now = NOON + 4 * MINUTE
    tick(session, now)
    assert noted(session, schedule, "next_at", "skipped") == (NOON, 0)
    owner.cap_backlog = None
    session.flush()

    tick(session, now + ROOM_EXPECTED_AFTER)

    made = [at(0)] if overlap is Overlap.SKIP else [at(minutes) for minutes in range(5)]
    assert names(session) == made
    assert noted(session, schedule, "next_at") == (NOON + 5 * MINUTE,)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"timezone": "Mars/Olympus"}, "timezone: must be the name of a time zone"),
        ({"cron": "not a line"}, "cron: must have five fields"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_paused_and_says_why(
    session: Session, owner: User, columns: dict[str, Any], message: str
) -> None:
    unreadable = make_schedule(session, owner, **columns)
    make_schedule(session, owner, "other")

    made = tick(session)

    assert [job.schedule for job in jobs(session)] == ["other"]
    paused, error = noted(session, unreadable, "paused", "last_error")
    assert paused
    assert error.startswith(message)
    assert not made.has_more


# Others who are at it


def test_a_job_that_is_being_moved_is_replaced_in_the_next_turn(committed_engine: Engine) -> None:
    def furnish(session: Session) -> int:
        make_type(session)
        make_worker(session)
        return overlapping(session, make_user(session), Overlap.REPLACE, S.QUEUED).id

    committed(committed_engine, furnish)
    (job,) = committed(committed_engine, lambda s: [row.id for row in jobs(s)])

    def start(session: Session) -> object:
        return work.start(session, [(job, 1)], worker=WORKER, pid=PID, lease=MINUTE)

    _, meanwhile = one_after_the_other(committed_engine, start, tick)

    assert meanwhile == Made([], has_more=False)
    made = committed(committed_engine, tick)
    assert [move.verb for move in made.moves] == ["request_cancel", "submit"]


def test_who_submits_a_job_of_a_ticks_name_just_now_holds_up_no_turn(
    committed_engine: Engine,
) -> None:
    def furnish(session: Session) -> int:
        make_type(session)
        ann = make_user(session, "ann")
        make_schedule(session, ann)
        make_schedule(session, make_user(session, "bob"))
        return ann.id

    ann = committed(committed_engine, furnish)
    with Session(committed_engine) as submitting:
        submit(submitting, ann, [make_submission(at(0), payload={"of": "ann"})], batch=False)
        made = committed(committed_engine, tick)
        submitting.commit()

    assert [move.owner_id != ann for move in made.moves] == [True]
    committed(committed_engine, tick)
    (error,) = committed(
        committed_engine,
        lambda s: s.scalars(select(Schedule.last_error_code).where(Schedule.owner_id == ann)).all(),
    )
    assert error == "job_id_conflict"


def test_those_in_the_way_hold_up_a_turn_once_and_make_no_other_follow_at_once(
    committed_engine: Engine,
) -> None:
    def furnish(session: Session) -> list[int]:
        make_type(session)
        owners = [make_user(session) for _ in range(6)]
        for each in owners:
            make_schedule(session, each)
        return [each.id for each in owners]

    owners = committed(committed_engine, furnish)
    with Session(committed_engine) as submitting:
        for each in owners:
            submit(submitting, each, [make_submission(at(0))], batch=False)
        begun = time.monotonic()
        made = committed(committed_engine, lambda session: tick(session, limit=len(owners)))
        took = timedelta(seconds=time.monotonic() - begun)

    assert made == Made([], has_more=False)
    assert PATIENCE <= took < 4 * PATIENCE


def test_a_turn_waits_for_locks_as_before(session: Session, owner: User) -> None:
    make_schedule(session, owner)

    tick(session)

    assert session.scalar(text("SHOW lock_timeout")) == "0"
