"""Holding dead letters, taking jobs out of them, and running them again with other payloads."""

import pytest
from sqlalchemy.orm import Session

from scheduler.models import Job
from scheduler.states import DISCARD, JobStatus
from scheduler.store.dead_letters import discard, hold
from scheduler.store.revival import run_again
from tests.factories import NOON, make_job, make_user

S = JobStatus


def _look(session: Session, job: Job) -> Job:
    return session.get_one(Job, job.id, populate_existing=True)


def test_dead_letters_are_held_and_nothing_else_is(session: Session) -> None:
    owner = make_user(session)
    jobs = {status: make_job(session, owner, status) for status in S}
    away = make_job(session, owner, S.FAILED, discarded_at=NOON)

    held = hold(session, [away.id, *(job.id for job in jobs.values())])

    assert held == [jobs[S.FAILED].id]


def test_a_discarded_job_stays_failed(session: Session) -> None:
    job = make_job(session, make_user(session), S.FAILED)

    (move,) = discard(session, [job.id])

    assert (move.id, move.verb, move.status, move.attempt) == (job.id, DISCARD, S.FAILED, 1)
    assert _look(session, job).discarded_at is not None
    assert _look(session, job).status == S.FAILED
    assert discard(session, [job.id]) == []


@pytest.mark.parametrize("status", sorted(set(S) - {S.FAILED}))
def test_only_failed_jobs_can_be_discarded(session: Session, status: JobStatus) -> None:
    job = make_job(session, make_user(session), status)

    assert discard(session, [job.id]) == []
    assert _look(session, job).discarded_at is None


def test_a_discarded_job_that_runs_again_is_a_job_like_others(session: Session) -> None:
    job = make_job(session, make_user(session), S.FAILED, discarded_at=NOON)

    (move,) = run_again(session, [job.id])

    assert move.status is S.READY
    again = _look(session, job)
    assert (again.discarded_at, again.error_type, again.error_fingerprint) == (None, None, None)


def test_jobs_run_again_with_the_payloads_they_are_given(session: Session) -> None:
    owner = make_user(session)
    changed, kept = (make_job(session, owner, S.FAILED, payload={"a": 1}) for _ in range(2))

    moves = run_again(session, [kept.id, changed.id], payloads={changed.id: {"a": [2]}})

    assert {move.id for move in moves} == {changed.id, kept.id}
    assert _look(session, changed).payload == {"a": [2]}
    assert _look(session, kept).payload == {"a": 1}
