"""Moves that time alone brings about."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from scheduler.models import Job, Ready, Timer
from scheduler.states import CancelReason, JobStatus
from scheduler.store import work
from scheduler.store.cancellation import cancel
from scheduler.store.timers import expire, release_due
from tests.factories import MINUTE, NOON, PID, WORKER, make_job, make_user
from tests.racing import committed, one_after_the_other

S = JobStatus
DUE = NOON + MINUTE
BEFORE = DUE - timedelta(microseconds=1)
LEASE = timedelta(seconds=30)


@pytest.mark.parametrize("status", [S.SCHEDULED, S.RETRYING])
def test_a_job_is_let_go_at_its_time_and_not_before(session: Session, status: JobStatus) -> None:
    job = make_job(session, make_user(session), status)

    assert release_due(session, now=BEFORE, limit=10) == []
    (move,) = release_due(session, now=DUE, limit=10)

    session.refresh(job)
    assert (move.verb, job.status, job.due_at) == ("release", S.READY, None)
    assert session.scalars(select(Timer)).all() == []
    assert session.scalars(select(Ready.rank)).all() == [job.rank]


def test_a_retried_job_keeps_its_place(session: Session) -> None:
    job = make_job(session, make_user(session), S.RETRYING)
    place = job.rank

    release_due(session, now=DUE, limit=10)

    session.refresh(job)
    assert job.rank == place


def test_a_scheduled_job_takes_its_place_when_its_time_has_come(session: Session) -> None:
    job = make_job(session, make_user(session), S.SCHEDULED, rank_offset=-5)

    (move,) = release_due(session, now=DUE, limit=10)

    session.refresh(job)
    assert job.ready_at == move.at
    assert job.rank == round(move.at.timestamp() * 1_000_000) - 5


def test_a_job_that_still_waits_for_others_becomes_blocked(session: Session) -> None:
    job = make_job(session, make_user(session), S.SCHEDULED, open_dependencies=2)

    (move,) = release_due(session, now=DUE, limit=10)

    session.refresh(job)
    assert (move.status, job.status, job.rank) == (S.BLOCKED, S.BLOCKED, None)
    assert session.scalars(select(Ready)).all() == []


def test_the_longest_due_go_first_and_no_more_than_asked_for(session: Session) -> None:
    owner = make_user(session)
    jobs = [make_job(session, owner, S.SCHEDULED, due_at=NOON - n * MINUTE) for n in range(5)]

    rounds = [release_due(session, now=NOON, limit=2) for _ in range(4)]

    let_go = [{move.id for move in moves} for moves in rounds]
    assert let_go == [{jobs[4].id, jobs[3].id}, {jobs[2].id, jobs[1].id}, {jobs[0].id}, set()]


@pytest.mark.parametrize("status", [S.SCHEDULED, S.BLOCKED, S.READY, S.QUEUED])
def test_a_job_that_has_not_started_by_its_deadline_is_cancelled(
    session: Session, status: JobStatus
) -> None:
    job = make_job(session, make_user(session), status, start_by=DUE)

    assert expire(session, now=BEFORE, limit=10) == []
    (move,) = expire(session, now=DUE, limit=10)

    session.refresh(job)
    assert (move.verb, job.status, job.reason) == (
        "cancel",
        S.CANCELLED,
        CancelReason.DEADLINE_PASSED,
    )
    assert session.scalars(select(Timer)).all() == []


def test_a_job_that_started_in_time_is_tried_again_after_its_deadline(session: Session) -> None:
    job = make_job(session, make_user(session), S.QUEUED, start_by=DUE)
    work.start(session, [(job.id, 1)], worker=WORKER, pid=PID, lease=LEASE)
    work.fail(session, work.Failure(job.id, 1, "E", "no", retry_after=timedelta(0)))

    assert expire(session, now=DUE, limit=10) == []
    session.refresh(job)
    assert job.due_at
    release_due(session, now=job.due_at, limit=10)
    assert expire(session, now=DUE, limit=10) == []
    session.refresh(job)
    assert job.status == S.READY


def test_deadlines_pass_in_portions(session: Session) -> None:
    owner = make_user(session)
    for _ in range(3):
        make_job(session, owner, start_by=DUE)

    assert [len(expire(session, now=DUE, limit=2)) for _ in range(3)] == [2, 1, 0]


def test_a_start_in_the_last_moment_keeps_its_job(committed_engine: Engine) -> None:
    job = committed(
        committed_engine, lambda s: make_job(s, make_user(s), S.QUEUED, start_by=DUE).id
    )

    _, expired = one_after_the_other(
        committed_engine,
        lambda s: work.start(s, [(job, 1)], worker=WORKER, pid=PID, lease=LEASE),
        lambda s: expire(s, now=DUE, limit=10),
    )
    again = committed(committed_engine, lambda s: expire(s, now=DUE, limit=10))

    held = committed(committed_engine, lambda s: work.beat(s, job, 1, lease=LEASE))
    assert expired == again == []
    assert held == work.Beat(alive=True, cancel_requested=False)


@pytest.mark.parametrize("status", [S.SCHEDULED, S.RETRYING])
def test_a_job_that_is_just_being_cancelled_is_not_let_go(
    committed_engine: Engine, status: JobStatus
) -> None:
    job = committed(committed_engine, lambda s: make_job(s, make_user(s), status).id)

    _, released = one_after_the_other(
        committed_engine,
        lambda s: cancel(s, job),
        lambda s: release_due(s, now=DUE, limit=10),
    )
    again = committed(committed_engine, lambda s: release_due(s, now=DUE, limit=10))

    assert released == again == []


@pytest.mark.parametrize("status", [S.SCHEDULED, S.RETRYING])
def test_a_cancel_that_waited_for_a_release_leaves_no_place_in_line(
    committed_engine: Engine, status: JobStatus
) -> None:
    job = committed(committed_engine, lambda s: make_job(s, make_user(s), status).id)

    _, (move,) = one_after_the_other(
        committed_engine,
        lambda s: release_due(s, now=DUE, limit=10),
        lambda s: cancel(s, job),
    )

    lines = committed(committed_engine, lambda s: s.scalars(select(Ready)).all())
    kept = committed(committed_engine, lambda s: s.get_one(Job, job))
    assert (move.status, kept.status, lines) == (S.CANCELLED, S.CANCELLED, [])
