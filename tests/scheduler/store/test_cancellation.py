"""Ending jobs before their time: nothing of them stays behind."""

from itertools import permutations

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from scheduler.models import Active, Feed, Job, Outbox, Ready, Timer
from scheduler.states import ACTIVE, FINISHED, WAITING, CancelReason, FeedKind, JobStatus
from scheduler.store import work
from scheduler.store.admission import Admitted, admit
from scheduler.store.cancellation import cancel, cancel_all, cancel_waiting
from tests.factories import MINUTE, NOON, make_job, make_user
from tests.racing import all_at_once, committed, one_after_the_other

S = JobStatus
ORDERS = list(permutations([CancelReason.BY_USER, CancelReason.REPLACED]))


def _rows(session: Session, job: int) -> dict[str, int]:
    counts = {}
    for model in (Ready, Active, Timer, Outbox):
        count = select(func.count()).select_from(model).where(model.job_id == job)
        counts[model.__tablename__] = session.scalar(count) or 0
    return counts


NOTHING = {"ready": 0, "active": 0, "timers": 0, "outbox": 0}


@pytest.mark.parametrize("status", sorted(WAITING | {S.QUEUED}))
def test_a_waiting_job_is_cancelled_at_once(session: Session, status: JobStatus) -> None:
    job = make_job(session, make_user(session), status, start_by=NOON + MINUTE)
    session.add(
        Outbox(
            job_id=job.id, attempt=1, queue="normal", timeout_seconds=1, place=0, created_at=NOON
        )
    )
    session.flush()

    (move,) = cancel(session, job.id)

    session.refresh(job)
    assert (move.verb, move.data) == ("cancel", {"reason": "cancelled_by_user", "from": status})
    assert (job.status, job.reason) == (S.CANCELLED, CancelReason.BY_USER)
    assert job.finished_at == move.at
    assert _rows(session, job.id) == NOTHING
    assert cancel(session, job.id) == []


@pytest.mark.parametrize("status", sorted(WAITING | {S.QUEUED}))
def test_the_feed_tells_of_what_a_cancelled_job_held(session: Session, status: JobStatus) -> None:
    job = make_job(session, make_user(session), status, memory_mb=33)

    cancel(session, job.id)

    row = session.scalars(select(Feed).where(Feed.kind != FeedKind.LINED)).one()
    held = (33, 0.1, False, 0) if status in ACTIVE else (None, None, None, None)
    assert (row.kind, row.job_id) == ("ended", job.id)
    assert (row.memory_mb, row.charge, row.express, row.used_seconds) == held


def test_a_running_job_is_asked_to_stop_once(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)

    (move,) = cancel(session, job.id)

    session.refresh(job)
    asked_at = session.scalars(select(Active.cancel_requested_at)).one()
    assert (move.verb, move.status, job.status) == ("request_cancel", S.RUNNING, S.RUNNING)
    assert asked_at == move.at
    assert cancel(session, job.id) == []


@pytest.mark.parametrize("reasons", ORDERS)
@pytest.mark.parametrize("end", ["stops", "fails"])
def test_who_asks_a_running_job_to_stop_first_says_why(
    session: Session, reasons: tuple[CancelReason, ...], end: str
) -> None:
    job = make_job(session, make_user(session), S.RUNNING)
    for reason in reasons:
        cancel_all(session, [job.id], reason=reason)

    if end == "stops":
        (move,) = work.stop(session, job.id, 1)
    else:
        (move,) = work.fail(session, work.Failure(job.id, 1, "E", "no"))

    session.refresh(job)
    assert (job.status, job.reason) == (S.CANCELLED, reasons[0])
    assert move.data == {"reason": reasons[0], "from": S.RUNNING}


def test_of_several_jobs_those_that_run_are_asked_and_the_others_cancelled(
    session: Session,
) -> None:
    owner = make_user(session)
    jobs = [make_job(session, owner, status) for status in JobStatus]

    moves = cancel_all(session, [job.id for job in jobs], reason=CancelReason.REPLACED)

    verbs = {move.id: move.verb for move in moves}
    expected = dict.fromkeys(WAITING | {S.QUEUED}, "cancel") | {S.RUNNING: "request_cancel"}
    assert [verbs.get(job.id) for job in jobs] == [expected.get(status) for status in JobStatus]


@pytest.mark.parametrize("status", sorted(FINISHED))
def test_a_finished_job_is_left_alone(session: Session, status: JobStatus) -> None:
    job = make_job(session, make_user(session), status)

    assert cancel(session, job.id) == []
    assert session.scalars(select(Feed)).all() == []


def test_a_job_that_does_not_exist_cannot_be_cancelled(session: Session) -> None:
    assert cancel(session, 987_654) == []


def test_of_a_list_those_that_wait_are_cancelled(session: Session) -> None:
    owner = make_user(session)
    jobs = {status: make_job(session, owner, status).id for status in S}

    moves = cancel_waiting(session, list(jobs.values()), reason=CancelReason.DEADLINE_PASSED)

    assert {move.id for move in moves} == {jobs[each] for each in WAITING | {S.QUEUED}}


def test_of_many_cancels_one_counts(committed_engine: Engine) -> None:
    job = committed(committed_engine, lambda s: make_job(s, make_user(s)).id)

    cancelled = all_at_once(committed_engine, [lambda s: cancel(s, job)] * 6)

    assert sorted(len(moves) for moves in cancelled) == [0, 0, 0, 0, 0, 1]


def test_a_cancel_that_waited_for_an_admission_frees_what_it_reserved(
    committed_engine: Engine,
) -> None:
    job = committed(committed_engine, lambda s: make_job(s, make_user(s)).id)

    _, (move,) = one_after_the_other(
        committed_engine,
        lambda s: admit(s, [Admitted(job, 0.1, express=False, expected_seconds=1.0)], epoch=1),
        lambda s: cancel(s, job),
    )

    assert move.data == {"reason": "cancelled_by_user", "from": "queued"}
    assert committed(committed_engine, lambda s: _rows(s, job)) == NOTHING


def test_a_job_that_is_just_being_cancelled_is_not_admitted(committed_engine: Engine) -> None:
    job = committed(committed_engine, lambda s: make_job(s, make_user(s)).id)

    _, admitted = one_after_the_other(
        committed_engine,
        lambda s: cancel(s, job),
        lambda s: admit(s, [Admitted(job, 0.1, express=False, expected_seconds=1.0)], epoch=1),
    )

    assert admitted == []
    assert committed(committed_engine, lambda s: _rows(s, job)) == NOTHING
    assert committed(committed_engine, lambda s: s.get_one(Job, job).status) == S.CANCELLED
