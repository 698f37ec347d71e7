"""Taking back what nobody works on any more."""

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.models import Attempt, Job
from scheduler.states import JobStatus, Outcome
from scheduler.store import work
from scheduler.store.cancellation import cancel
from scheduler.store.recovery import end_lost
from tests.factories import make_job, make_user

S = JobStatus


def _lease_ended(session: Session, job: Job, *, ago: int) -> None:
    session.execute(
        text(
            "UPDATE active SET lease_until = now() - make_interval(secs => :ago) WHERE job_id = :id"
        ),
        {"ago": ago, "id": job.id},
    )


def test_an_attempt_whose_lease_ran_out_is_lost_and_tried_again(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)
    _lease_ended(session, job, ago=1)

    (move,) = end_lost(session, limit=10)

    session.refresh(job)
    attempt = session.get_one(Attempt, (job.id, 1), populate_existing=True)
    assert (move.verb, job.status, job.crashes) == ("retry", S.RETRYING, 0)
    assert (attempt.outcome, attempt.error_type) == (Outcome.LOST, "WorkerLost")
    assert "went silent" in (attempt.error_message or "")


def test_what_is_renewed_or_only_queued_is_left_alone(session: Session) -> None:
    owner = make_user(session)
    make_job(session, owner, S.QUEUED)
    job = make_job(session, owner, S.RUNNING)
    _lease_ended(session, job, ago=1)
    work.beat(session, job.id, 1, lease=timedelta(seconds=30))

    assert end_lost(session, limit=10) == []


def test_a_job_that_keeps_losing_its_workers_fails_when_its_attempts_are_used(
    session: Session,
) -> None:
    job = make_job(session, make_user(session), S.RUNNING, attempt=3)
    _lease_ended(session, job, ago=1)

    (move,) = end_lost(session, limit=10)

    assert (move.verb, move.status) == ("fail", S.FAILED)


def test_a_lost_attempt_that_was_asked_to_stop_has_stopped(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)
    cancel(session, job.id)
    _lease_ended(session, job, ago=1)

    (move,) = end_lost(session, limit=10)

    assert move.status is S.CANCELLED


def test_the_longest_silent_are_ended_first_and_no_more_than_asked_for(session: Session) -> None:
    owner = make_user(session)
    jobs = [make_job(session, owner, S.RUNNING) for _ in range(5)]
    for place, job in enumerate(jobs):
        _lease_ended(session, job, ago=place + 1)

    rounds = [[move.id for move in end_lost(session, limit=2)] for _ in range(4)]

    assert rounds == [[jobs[4].id, jobs[3].id], [jobs[2].id, jobs[1].id], [jobs[0].id], []]
