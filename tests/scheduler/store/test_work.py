"""What workers report, and what becomes of the job."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from scheduler import retry
from scheduler.models import Active, Attempt, Feed, Job, JobLog, Outbox, Timer
from scheduler.states import CancelReason, FeedKind, JobStatus, Outcome
from scheduler.store import recovery, work
from scheduler.store.cancellation import cancel
from scheduler.store.moves import Move
from scheduler.store.work import Failure, LogLine, Success
from tests.factories import MINUTE, NOON, PID, WORKER, make_job, make_user
from tests.racing import all_at_once, committed, one_after_the_other

S = JobStatus
LEASE = timedelta(seconds=30)
STEADY = dict(retry.DEFAULTS) | {"strategy": "fixed", "base_delay_seconds": 7, "jitter": False}


def _start(
    session: Session, *jobs: Job, worker: str = WORKER, pid: int = PID
) -> tuple[list[work.Claim], list[Move]]:
    wanted = [(job.id, job.attempt) for job in jobs]
    return work.start(session, wanted, worker=worker, pid=pid, lease=LEASE)


def _attempt(session: Session, job: Job, number: int = 1) -> Attempt:
    return session.get_one(Attempt, (job.id, number), populate_existing=True)


def _fed(session: Session) -> list[tuple[str, int]]:
    rows = session.scalars(select(Feed).order_by(Feed.seq))
    return sorted((row.kind, row.job_id) for row in rows)


# Claims


def test_a_list_is_claimed_in_its_order(session: Session) -> None:
    owner = make_user(session)
    jobs = [make_job(session, owner, S.QUEUED) for _ in range(4)]

    claims, moves = _start(session, *reversed(jobs))

    assert [claim.id for claim in claims] == [job.id for job in reversed(jobs)]
    assert {move.id for move in moves} == {job.id for job in jobs}


def test_a_claim_holds_what_a_handler_needs(session: Session) -> None:
    owner = make_user(session, "ann")
    job = make_job(
        session,
        owner,
        S.QUEUED,
        job_id="mine",
        payload={"a": [1, None]},
        timeout_seconds=9.5,
        memory_mb=77,
        attempt=2,
    )

    ((claim,), _) = _start(session, job)

    assert claim == work.Claim(
        id=job.id,
        attempt=2,
        job_id="mine",
        owner_id=owner.id,
        owner="ann",
        type="simulate",
        payload={"a": [1, None]},
        timeout_seconds=9.5,
        memory_mb=77,
        is_last_attempt=False,
    )
    assert claim.idempotency_key == f"{job.id}:2"


@pytest.mark.parametrize(
    ("attempt", "forgiven", "config", "is_last"),
    [
        (1, 0, {}, False),
        (3, 0, {}, True),
        (4, 1, {}, True),
        (4, 2, {}, False),
        (1, 0, {"strategy": "none"}, True),
        (1, 0, {"max_attempts": 1}, True),
    ],
)
def test_a_claim_tells_whether_it_is_the_last_attempt(
    session: Session, *, attempt: int, forgiven: int, config: dict[str, Any], is_last: bool
) -> None:
    job = make_job(
        session,
        make_user(session),
        S.QUEUED,
        attempt=attempt,
        attempts_forgiven=forgiven,
        retry_config=dict(retry.DEFAULTS) | config,
    )

    ((claim,), _) = _start(session, job)

    assert claim.is_last_attempt == is_last


def test_a_claim_is_a_lease_and_a_record(session: Session) -> None:
    job = make_job(session, make_user(session), S.QUEUED)

    _start(session, job)

    held = session.get_one(Active, job.id, populate_existing=True)
    tried = _attempt(session, job)
    assert (held.worker, held.pid) == (tried.worker, tried.pid) == (WORKER, PID)
    assert held.lease_until is not None
    assert held.lease_until - tried.started_at == LEASE
    assert held.claimed_at == tried.started_at
    assert (tried.queued_at, tried.finished_at, tried.outcome) == (NOON, None, None)


def test_what_is_no_longer_to_be_run_is_missing(session: Session) -> None:
    owner = make_user(session)
    queued, gone = make_job(session, owner, S.QUEUED), make_job(session, owner, S.QUEUED)
    later = make_job(session, owner, S.QUEUED, attempt=2)
    cancel(session, gone.id)
    wanted = [(gone.id, 1), (later.id, 1), (queued.id, 1), (987_654, 1)]

    claims, moves = work.start(session, wanted, worker=WORKER, pid=PID, lease=LEASE)

    assert [claim.id for claim in claims] == [move.id for move in moves] == [queued.id]


def test_nothing_wanted_is_nothing_claimed(session: Session) -> None:
    assert _start(session) == ([], [])


def test_a_second_delivery_claims_nothing(session: Session) -> None:
    job = make_job(session, make_user(session), S.QUEUED)

    _start(session, job)

    assert _start(session, job, worker="worker2@test") == ([], [])
    assert session.get_one(Active, job.id, populate_existing=True).worker == WORKER


def test_an_attempt_named_twice_is_claimed_once(session: Session) -> None:
    job = make_job(session, make_user(session), S.QUEUED)

    claims, moves = _start(session, job, job)

    assert [claim.id for claim in claims] == [job.id]
    assert len(moves) == 1


def test_a_start_meets_the_deadline_for_good(session: Session) -> None:
    job = make_job(session, make_user(session), S.QUEUED, start_by=NOON + MINUTE)

    _start(session, job)

    assert session.scalars(select(Timer)).all() == []


# Successes


@pytest.mark.parametrize(
    "result",
    [None, 0, False, "", "null", [], [None, {"a": [1.5, "ä"]}], {"b": None}, {"deep": [[[{}]]]}],
)
def test_a_result_is_kept_as_it_is(session: Session, result: object) -> None:
    job = make_job(session, make_user(session), S.RUNNING)

    work.succeed(session, [Success(job.id, 1, result)])

    session.refresh(job)
    assert job.result == result
    assert (job.status, job.progress_fraction) == (S.COMPLETED, 1)


def test_outcomes_reported_together_are_recorded_together(session: Session) -> None:
    owner = make_user(session)
    jobs = [make_job(session, owner, S.RUNNING) for _ in range(3)]
    reports = [
        Success(job.id, 1, {"n": place}, peak_memory_mb=10.5 + place, cpu_seconds=place)
        for place, job in enumerate(jobs)
    ]

    moves = work.succeed(session, list(reversed(reports)))

    assert [move.id for move in moves] == [job.id for job in jobs]
    assert [_attempt(session, job).peak_memory_mb for job in jobs] == [10.5, 11.5, 12.5]
    assert {_attempt(session, job).outcome for job in jobs} == {Outcome.COMPLETED}
    assert sorted(_fed(session)) == [("ended", job.id) for job in jobs]


def test_reports_of_a_list_that_come_too_late_do_not_hinder_the_others(session: Session) -> None:
    owner = make_user(session)
    ended, running = make_job(session, owner, S.FAILED), make_job(session, owner, S.RUNNING)
    reports = [Success(ended.id, 1, 1), Success(running.id, 1, 2), Success(running.id, 2, 3)]

    moves = work.succeed(session, reports)

    session.expire_all()
    assert [move.id for move in moves] == [running.id]
    assert (ended.status, running.result) == (S.FAILED, 2)


def test_a_success_leaves_no_error_of_earlier_attempts(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING, error_type="E", error_message="no")

    work.succeed(session, [Success(job.id, 1, None)])

    session.refresh(job)
    assert (job.error_type, job.error_message) == (None, None)


def test_the_feed_tells_what_an_ended_job_held_and_for_how_long(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING, cpu_units=2, memory_mb=300)
    session.execute(text("UPDATE active SET claimed_at = now() - interval '9 s', charge = 0.7"))

    work.succeed(session, [Success(job.id, 1, None)])

    row = session.scalars(select(Feed)).one()
    assert row.cpu_units == 2
    assert (row.owner_id, row.memory_mb) == (job.owner_id, 300)
    assert (row.charge, row.express, row.used_seconds) == (0.7, False, 9)


def test_a_success_that_was_asked_to_stop_is_a_success(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)
    cancel(session, job.id)

    (move,) = work.succeed(session, [Success(job.id, 1, "done")])

    assert move.status is S.COMPLETED


# Failures


def test_a_failure_with_attempts_left_waits_for_its_backoff(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING, retry_config=STEADY)

    (move,) = work.fail(session, Failure(job.id, 1, "ValueError", "no", traceback="line 1"))

    session.refresh(job)
    tried = _attempt(session, job)
    timer = session.scalars(select(Timer)).one()
    assert (move.verb, job.status, job.worker) == ("retry", S.RETRYING, None)
    assert tried.finished_at is not None
    assert job.due_at == timer.fire_at == tried.finished_at + timedelta(seconds=7)
    assert (tried.outcome, tried.error_type, tried.error_message, tried.traceback) == (
        Outcome.FAILED,
        "ValueError",
        "no",
        "line 1",
    )
    assert (job.error_type, job.error_message) == ("ValueError", "no")
    assert _fed(session) == [(FeedKind.RELEASED, job.id)]


def _retry_delay(session: Session, job: Job) -> float:
    session.refresh(job)
    finished_at = _attempt(session, job, job.attempt).finished_at
    assert job.due_at
    assert finished_at
    return (job.due_at - finished_at).total_seconds()


@pytest.mark.parametrize(
    ("attempt", "forgiven", "seconds"), [(1, 0, 2), (2, 0, 6), (3, 0, 18), (4, 3, 2), (4, 1, 18)]
)
def test_the_backoff_grows_with_the_attempts_that_count(
    session: Session, attempt: int, forgiven: int, seconds: float
) -> None:
    config = {
        "max_attempts": 9,
        "strategy": "exponential",
        "base_delay_seconds": 2,
        "backoff_multiplier": 3,
        "max_delay_seconds": 3600,
        "jitter": False,
    }
    job = make_job(
        session,
        make_user(session),
        S.RUNNING,
        attempt=attempt,
        attempts_forgiven=forgiven,
        retry_config=config,
    )

    work.fail(session, Failure(job.id, attempt, "E", "no"))

    assert _retry_delay(session, job) == seconds


@pytest.mark.parametrize("wish", [timedelta(0), timedelta(minutes=5)])
def test_a_job_may_say_when_it_wants_to_be_tried_again(session: Session, wish: timedelta) -> None:
    job = make_job(session, make_user(session), S.RUNNING, retry_config=STEADY)

    work.fail(session, Failure(job.id, 1, "E", "no", retry_after=wish))

    assert _retry_delay(session, job) == wish.total_seconds()


FINAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the attempts are used": ({"attempt": 3}, {}),
    "it is not retryable": ({}, {"retryable": False}),
    "a wish does not make it retryable": ({"attempt": 3}, {"retry_after": timedelta(seconds=1)}),
    "retries are off": ({"retry_config": STEADY | {"strategy": "none"}}, {}),
}
NOT_FINAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an attempt is left": ({"attempt": 2}, {}),
    "interrupted attempts do not count": ({"attempt": 5, "attempts_forgiven": 3}, {}),
    "a crash is left": ({"crashes": work.MAX_CRASHES - 2}, {"lost": True, "crashed": True}),
    "crashes do not count when it failed by itself": ({"crashes": work.MAX_CRASHES - 1}, {}),
    "a silent worker is no crash": ({"crashes": work.MAX_CRASHES - 1}, {"lost": True}),
}


@pytest.mark.parametrize("case", FINAL)
def test_a_failure_is_final_when(session: Session, case: str) -> None:
    columns, particulars = FINAL[case]
    job = make_job(session, make_user(session), S.RUNNING, **columns)

    (move,) = work.fail(session, Failure(job.id, job.attempt, "E", "no", **particulars))

    session.refresh(job)
    assert (move.verb, job.status, job.error_type) == ("fail", S.FAILED, "E")
    assert _fed(session) == [("ended", job.id)]
    assert session.scalars(select(Timer)).all() == []


@pytest.mark.parametrize("case", NOT_FINAL)
def test_a_failure_is_retried_as_long_as(session: Session, case: str) -> None:
    columns, particulars = NOT_FINAL[case]
    job = make_job(session, make_user(session), S.RUNNING, **columns)

    (move,) = work.fail(session, Failure(job.id, job.attempt, "E", "no", **particulars))

    assert move.verb == "retry"


def test_a_lost_attempt_is_recorded_as_lost_and_counted_as_a_crash(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)

    work.fail(session, recovery.lost(job.id, 1, "its process died", crashed=True))

    session.refresh(job)
    tried = _attempt(session, job)
    assert (job.status, job.crashes, tried.outcome) == (S.RETRYING, 1, Outcome.LOST)
    assert tried.error_message == "the attempt was lost: its process died"


def test_a_job_under_which_processes_keep_dying_fails_for_that(session: Session) -> None:
    retry_config = STEADY | {"max_attempts": 50}
    job = make_job(
        session,
        make_user(session),
        S.RUNNING,
        crashes=work.MAX_CRASHES - 1,
        retry_config=retry_config,
    )

    (move,) = work.fail(session, recovery.lost(job.id, 1, "process 7 ended", crashed=True))

    session.refresh(job)
    assert (move.verb, job.error_type, job.crashes) == ("fail", work.TOO_MANY_CRASHES, 3)
    assert "died 3 times" in (job.error_message or "")
    assert "process 7 ended" in (job.error_message or "")
    assert _attempt(session, job).outcome == Outcome.LOST


def test_a_job_that_failed_has_the_fingerprint_of_its_error(session: Session) -> None:
    owner = make_user(session)
    jobs = [make_job(session, owner, S.RUNNING) for _ in range(3)]
    said = ["no room for 7", "no room for 8", "no idea"]

    for job, message in zip(jobs, said, strict=True):
        work.fail(session, Failure(job.id, 1, "E", message, retryable=False))

    one, alike, other = [session.get_one(Job, job.id, populate_existing=True) for job in jobs]
    assert one.error_fingerprint == alike.error_fingerprint != other.error_fingerprint


def test_an_ordinary_failure_is_no_crash(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)

    work.fail(session, Failure(job.id, 1, "E", "no"))

    session.refresh(job)
    assert job.crashes == 0


@pytest.mark.parametrize("retryable", [True, False])
def test_a_failure_of_a_job_that_was_to_stop_is_its_cancellation(
    session: Session, *, retryable: bool
) -> None:
    job = make_job(session, make_user(session), S.RUNNING)
    cancel(session, job.id)

    (move,) = work.fail(session, Failure(job.id, 1, "E", "no", retryable=retryable))

    session.refresh(job)
    assert (move.verb, job.status, job.reason) == ("cancel", S.CANCELLED, CancelReason.BY_USER)
    assert _attempt(session, job).outcome == Outcome.CANCELLED


@pytest.mark.parametrize("retryable", [True, False])
def test_a_second_report_of_a_failure_changes_nothing(session: Session, *, retryable: bool) -> None:
    job = make_job(session, make_user(session), S.RUNNING)
    failure = Failure(job.id, 1, "E", "no", retryable=retryable)
    work.fail(session, failure)

    assert work.fail(session, failure) == []
    assert len(_fed(session)) == 1


def test_stopping_ends_the_attempt_as_cancelled(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)
    cancel(session, job.id)

    (move,) = work.stop(session, job.id, 1)

    assert move.data == {"reason": CancelReason.BY_USER, "from": S.RUNNING}
    assert _attempt(session, job).outcome == Outcome.CANCELLED
    assert work.stop(session, job.id, 1) == []


def test_a_job_may_cancel_itself(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)

    (move,) = work.stop(
        session, job.id, 1, reason=CancelReason.BY_ITSELF, message="nothing to do any more"
    )

    session.refresh(job)
    assert (move.verb, job.status, job.reason) == ("cancel", S.CANCELLED, CancelReason.BY_ITSELF)
    assert _attempt(session, job).error_message == "nothing to do any more"


# Putting off


def test_a_job_that_is_put_off_waits_for_its_time_and_has_used_no_attempt(
    session: Session,
) -> None:
    job = make_job(session, make_user(session), S.RUNNING, retry_config=STEADY, attempt=2)
    place = job.rank

    (move,) = work.snooze(session, job.id, 2, delay=timedelta(minutes=3))

    session.refresh(job)
    assert (move.verb, job.status, job.rank) == ("snooze", S.RETRYING, place)
    assert (job.attempt, job.attempts_forgiven, job.crashes) == (2, 1, 0)
    assert (job.error_type, job.worker) == (None, None)
    assert _retry_delay(session, job) == 180
    assert _attempt(session, job, 2).outcome == Outcome.SNOOZED
    assert _fed(session) == [(FeedKind.RELEASED, job.id)]


def test_a_job_that_puts_itself_off_although_it_is_to_stop_has_stopped(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)
    cancel(session, job.id)

    (move,) = work.snooze(session, job.id, 1, delay=timedelta(minutes=3))

    assert (move.verb, move.status) == ("cancel", S.CANCELLED)


# Asking for time


def _with_time(session: Session, *, seconds: float, most: float, ran: float) -> Job:
    """Make a job that runs since so many seconds, may for *seconds*, and for *most* if it asks."""
    job = make_job(session, make_user(session), S.RUNNING)
    session.execute(
        text(
            "UPDATE active SET timeout_seconds = :seconds, max_timeout_seconds = :most,"
            " claimed_at = now() - make_interval(secs => :ran)"
        ),
        {"seconds": seconds, "most": most, "ran": ran},
    )
    return job


@pytest.mark.parametrize(
    ("asked", "left", "timeout"), [(30, 30, 40), (500, 90, 100), (5, 10, 20), (0.5, 10, 20)]
)
def test_a_job_is_given_the_time_its_type_allows_and_never_less_than_it_had(
    session: Session, asked: float, left: float, timeout: float
) -> None:
    job = _with_time(session, seconds=20, most=100, ran=10)

    assert work.give_time(session, job.id, 1, seconds=asked) == pytest.approx(left)

    assert session.scalar(text("SELECT timeout_seconds FROM active")) == pytest.approx(timeout)


def test_an_attempt_that_does_not_run_is_given_no_time(session: Session) -> None:
    owner = make_user(session)
    queued, running = make_job(session, owner, S.QUEUED), make_job(session, owner, S.RUNNING)

    session.execute(text("UPDATE active SET max_timeout_seconds = timeout_seconds + 100"))
    before = _timeouts(session)

    assert work.give_time(session, queued.id, 1, seconds=5) is None
    assert work.give_time(session, running.id, 2, seconds=5) is None
    assert _timeouts(session) == before


def _timeouts(session: Session) -> list[float]:
    return list(session.scalars(text("SELECT timeout_seconds FROM active ORDER BY job_id")))


def test_a_parent_learns_how_long_past_its_time_each_job_is(session: Session) -> None:
    _with_time(session, seconds=20, most=20, ran=27)

    (held,) = work.renew(session, worker=WORKER, pids=[PID], lease=LEASE)

    assert held.overdue_seconds == pytest.approx(7)


# Giving back


def test_what_is_given_back_is_ready_at_its_old_place_and_not_counted(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING, progress_fraction=0.5)
    place = job.rank

    (move,) = work.give_back(session, [(job.id, 1)])

    session.refresh(job)
    assert (move.verb, job.status, job.rank) == ("requeue", S.READY, place)
    assert (job.attempts_forgiven, job.worker, job.progress_fraction) == (1, None, None)
    assert _attempt(session, job).outcome == Outcome.INTERRUPTED
    assert _fed(session) == [(FeedKind.LINED, job.id), (FeedKind.RELEASED, job.id)]


def test_what_was_to_stop_has_stopped_when_it_is_given_back(session: Session) -> None:
    owner = make_user(session)
    cancelled, other = make_job(session, owner, S.RUNNING), make_job(session, owner, S.RUNNING)
    cancel(session, cancelled.id)

    moves = work.give_back(session, [(cancelled.id, 1), (other.id, 1)])

    assert [(move.id, move.status) for move in moves] == [
        (cancelled.id, S.CANCELLED),
        (other.id, S.READY),
    ]


def test_a_queued_job_given_back_is_not_sent_any_more(session: Session) -> None:
    job = make_job(session, make_user(session), S.QUEUED)
    session.add(
        Outbox(
            job_id=job.id, attempt=1, queue="normal", timeout_seconds=1, place=0, created_at=NOON
        )
    )
    session.flush()

    work.give_back(session, [(job.id, 1)])

    assert session.scalars(select(Outbox)).all() == []
    assert session.scalars(select(Attempt)).all() == []


# Leases


def test_a_heartbeat_renews_the_lease(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)

    beat = work.beat(session, job.id, 1, lease=LEASE)

    left = session.scalar(text("SELECT lease_until - now() FROM active"))
    assert (beat, left) == (work.Beat(alive=True, cancel_requested=False), LEASE)


@pytest.mark.parametrize(("status", "attempt"), [(S.QUEUED, 1), (S.RUNNING, 2), (S.COMPLETED, 1)])
def test_a_heartbeat_of_what_is_not_run_finds_it_gone(
    session: Session, status: JobStatus, attempt: int
) -> None:
    job = make_job(session, make_user(session), status)

    assert not work.beat(session, job.id, attempt, lease=LEASE).alive


def test_a_heartbeat_learns_that_the_job_is_to_stop(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)
    cancel(session, job.id)

    assert work.beat(session, job.id, 1, lease=LEASE).cancel_requested


def test_an_earlier_attempt_does_not_stop_the_job_that_was_asked_to(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING, attempt=2)
    cancel(session, job.id)

    assert work.give_back(session, [(job.id, 1)]) == []
    assert work.snooze(session, job.id, 1, delay=MINUTE) == []

    session.refresh(job)
    assert (job.status, job.attempt) == (S.RUNNING, 2)


def test_a_parent_renews_what_its_living_processes_hold(session: Session) -> None:
    owner = make_user(session)
    jobs = [make_job(session, owner, S.QUEUED) for _ in range(4)]
    for job, worker, pid in zip(jobs, ["a", "a", "a", "b"], [1, 2, 3, 1], strict=True):
        _start(session, job, worker=worker, pid=pid)
    session.execute(text("UPDATE active SET lease_until = now()"))
    cancel(session, jobs[1].id)

    held = work.renew(session, worker="a", pids=[1, 2], lease=LEASE)

    renewed = "SELECT job_id FROM active WHERE lease_until > now() ORDER BY job_id"
    assert [(one.id, one.attempt, one.pid) for one in held] == [
        (jobs[0].id, 1, 1),
        (jobs[1].id, 1, 2),
    ]
    assert [bool(one.cancel_requested_at) for one in held] == [False, True]
    assert list(session.scalars(text(renewed))) == [jobs[0].id, jobs[1].id]


def test_what_a_process_holds_is_known_in_the_order_it_was_claimed(session: Session) -> None:
    owner = make_user(session)
    jobs = [make_job(session, owner, S.QUEUED) for _ in range(3)]
    _start(session, *jobs, worker="a", pid=1)
    work.succeed(session, [Success(jobs[0].id, 1, None)])

    assert work.held_by(session, worker="a", pid=1) == [(jobs[1].id, 1), (jobs[2].id, 1)]
    assert work.held_by(session, worker="a", pid=2) == []
    assert work.held_by(session, worker="b", pid=1) == []


# Progress and logs


def test_progress_is_shown_for_the_attempt_that_runs(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)

    assert work.set_progress(session, job.id, 1, 0.25, "a quarter")
    assert not work.set_progress(session, job.id, 2, 0.75, "another attempt")

    session.refresh(job)
    assert (job.progress_fraction, job.progress_message) == (0.25, "a quarter")


@pytest.mark.parametrize("status", sorted(set(S) - {S.RUNNING}))
def test_progress_of_a_job_that_does_not_run_is_dropped(
    session: Session, status: JobStatus
) -> None:
    job = make_job(session, make_user(session), status)

    assert not work.set_progress(session, job.id, job.attempt, 0.5, None)


def test_lines_are_kept_in_their_order(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)
    lines = [LogLine(NOON - MINUTE * n, "INFO", f"line {n}") for n in range(50)]

    ids = work.append_logs(session, job.id, 1, lines)

    kept = session.scalars(select(JobLog).order_by(JobLog.id)).all()
    assert ids == sorted(ids) == [line.id for line in kept]
    assert [(line.at, line.level, line.message) for line in kept] == [
        (line.at, line.level, line.message) for line in lines
    ]


@pytest.mark.parametrize("status", sorted(set(S) - {S.RUNNING}))
def test_lines_of_a_job_that_does_not_run_are_dropped(session: Session, status: JobStatus) -> None:
    job = make_job(session, make_user(session), status)

    assert work.append_logs(session, job.id, job.attempt, [LogLine(NOON, "info", "late")]) == []
    assert session.scalar(select(JobLog)) is None


def test_lines_of_another_attempt_are_dropped(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)

    assert work.append_logs(session, job.id, 2, [LogLine(NOON, "info", "not yet")]) == []
    assert session.scalar(select(JobLog)) is None


def test_no_lines_are_no_ids(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)

    assert work.append_logs(session, job.id, 1, []) == []


# Races: exactly one wins, and nothing stays behind


@pytest.fixture
def make(committed_engine: Engine) -> Callable[..., Job]:
    def make(status: JobStatus, **columns: Any) -> Job:
        return committed(
            committed_engine,
            lambda session: make_job(session, make_user(session), status, **columns),
        )

    return make


def _leftovers(engine: Engine, job: Job) -> dict[str, int]:
    """Count a job's rows in the tables that follow its status."""
    count = "SELECT count(*) FROM {} WHERE job_id = :id"
    with engine.connect() as connection:
        return {
            table: connection.execute(text(count.format(table)), {"id": job.id}).scalar_one()
            for table in ("ready", "active", "timers", "outbox")
        }


def _status(engine: Engine, job: Job) -> str:
    return committed(engine, lambda session: session.get_one(Job, job.id).status)


NOTHING = {"ready": 0, "active": 0, "timers": 0, "outbox": 0}


def test_of_many_deliveries_one_starts(committed_engine: Engine, make: Callable[..., Job]) -> None:
    job = make(S.QUEUED)
    starts = [lambda session, pid=pid: _start(session, job, pid=pid)[0] for pid in range(8)]

    claims = [claim for claimed in all_at_once(committed_engine, starts) for claim in claimed]

    tried = committed(committed_engine, lambda session: session.scalars(select(Attempt)).all())
    assert len(claims) == len(tried) == 1


def test_a_start_after_a_start_claims_nothing(
    committed_engine: Engine, make: Callable[..., Job]
) -> None:
    job = make(S.QUEUED)

    first, second = one_after_the_other(
        committed_engine, lambda s: _start(s, job), lambda s: _start(s, job, pid=2)
    )

    assert (len(first[0]), second) == (1, ([], []))


def test_a_success_before_the_end_of_its_lease_counts(
    committed_engine: Engine, make: Callable[..., Job]
) -> None:
    job = make(S.RUNNING)
    committed(committed_engine, _let_leases_end)

    _, lost = one_after_the_other(
        committed_engine,
        lambda s: work.succeed(s, [Success(job.id, 1, None)]),
        lambda s: recovery.end_lost(s, limit=10),
    )

    assert lost == []
    assert _status(committed_engine, job) == S.COMPLETED
    assert _leftovers(committed_engine, job) == NOTHING


def test_a_success_after_the_end_of_its_lease_is_too_late(
    committed_engine: Engine, make: Callable[..., Job]
) -> None:
    job = make(S.RUNNING)
    committed(committed_engine, _let_leases_end)

    _, late = one_after_the_other(
        committed_engine,
        lambda s: recovery.end_lost(s, limit=10),
        lambda s: work.succeed(s, [Success(job.id, 1, None)]),
    )

    assert late == []
    assert _status(committed_engine, job) == S.RETRYING
    assert _leftovers(committed_engine, job) == NOTHING | {"timers": 1}


def test_a_heartbeat_in_time_keeps_the_attempt(
    committed_engine: Engine, make: Callable[..., Job]
) -> None:
    job = make(S.RUNNING)
    committed(committed_engine, _let_leases_end)

    _, lost = one_after_the_other(
        committed_engine,
        lambda s: work.beat(s, job.id, 1, lease=LEASE),
        lambda s: recovery.end_lost(s, limit=10),
    )

    assert lost == []
    assert _status(committed_engine, job) == S.RUNNING


def _let_leases_end(session: Session) -> None:
    session.execute(text("UPDATE active SET lease_until = now() - interval '1 s'"))


def test_a_failure_sees_the_cancel_it_waited_for(
    committed_engine: Engine, make: Callable[..., Job]
) -> None:
    job = make(S.RUNNING)

    _, (move,) = one_after_the_other(
        committed_engine,
        lambda s: cancel(s, job.id),
        lambda s: work.fail(s, Failure(job.id, 1, "E", "no")),
    )

    assert move.status is S.CANCELLED
    assert _leftovers(committed_engine, job) == NOTHING


def test_a_cancel_that_waited_for_a_retry_cancels_it(
    committed_engine: Engine, make: Callable[..., Job]
) -> None:
    job = make(S.RUNNING)

    _, (move,) = one_after_the_other(
        committed_engine,
        lambda s: work.fail(s, Failure(job.id, 1, "E", "no")),
        lambda s: cancel(s, job.id),
    )

    assert move.status is S.CANCELLED
    assert _leftovers(committed_engine, job) == NOTHING


def test_a_cancel_that_waited_for_a_start_asks_to_stop(
    committed_engine: Engine, make: Callable[..., Job]
) -> None:
    job = make(S.QUEUED)

    _, (move,) = one_after_the_other(
        committed_engine, lambda s: _start(s, job), lambda s: cancel(s, job.id)
    )

    assert (move.verb, move.status) == ("request_cancel", S.RUNNING)


def test_a_start_that_waited_for_a_cancel_claims_nothing(
    committed_engine: Engine, make: Callable[..., Job]
) -> None:
    job = make(S.QUEUED)

    _, started = one_after_the_other(
        committed_engine, lambda s: cancel(s, job.id), lambda s: _start(s, job)
    )

    assert started == ([], [])
    assert _leftovers(committed_engine, job) == NOTHING


def test_a_cancel_that_waited_for_a_success_finds_it_finished(
    committed_engine: Engine, make: Callable[..., Job]
) -> None:
    job = make(S.RUNNING)

    _, refused = one_after_the_other(
        committed_engine,
        lambda s: work.succeed(s, [Success(job.id, 1, None)]),
        lambda s: cancel(s, job.id),
    )

    assert refused == []
    assert _status(committed_engine, job) == S.COMPLETED


def test_a_cancel_that_waited_for_a_drain_cancels_what_was_given_back(
    committed_engine: Engine, make: Callable[..., Job]
) -> None:
    job = make(S.RUNNING)

    _, (move,) = one_after_the_other(
        committed_engine, lambda s: work.give_back(s, [(job.id, 1)]), lambda s: cancel(s, job.id)
    )

    assert move.status is S.CANCELLED
    assert _leftovers(committed_engine, job) == NOTHING


def test_renewing_waits_for_nobody_and_tells_all_that_is_held(
    committed_engine: Engine, make: Callable[..., Job]
) -> None:
    """A parent that waited for a report on several attempts could block it, and it the parent."""
    reported, running = make(S.RUNNING), make(S.RUNNING)

    def renew(session: Session) -> list[int]:
        session.execute(text("SET LOCAL lock_timeout = '1s'"))
        return [one.id for one in work.renew(session, worker=WORKER, pids=[PID], lease=LEASE)]

    with Session(committed_engine) as reporting:
        work.succeed(reporting, [Success(reported.id, 1, None)])
        held = committed(committed_engine, renew)
        reporting.commit()

    assert held == [reported.id, running.id]
    assert _status(committed_engine, reported) == S.COMPLETED


# What the leader learns durations from


def _lasted(session: Session) -> list[float | None]:
    ended = select(Feed.lasted_seconds).where(Feed.kind != FeedKind.LINED)
    return list(session.scalars(ended.order_by(Feed.seq)))


def _began(session: Session, job: Job, *, ago: float) -> None:
    session.execute(
        text("UPDATE active SET claimed_at = now() - :ago WHERE job_id = :job"),
        {"ago": timedelta(seconds=ago), "job": job.id},
    )


def test_an_attempt_that_ended_by_itself_tells_how_long_it_lasted(session: Session) -> None:
    well, badly = (make_job(session, make_user(session), S.RUNNING) for _ in range(2))
    _began(session, well, ago=5)
    _began(session, badly, ago=7)

    work.succeed(session, [Success(well.id, 1, None)])
    work.fail(session, Failure(badly.id, 1, "ValueError", "no"))

    assert _lasted(session) == [5, 7]


@pytest.mark.parametrize(
    "end",
    [
        lambda session, job: work.fail(session, recovery.lost(job.id, 1, "it went silent")),
        lambda session, job: work.stop(session, job.id, 1),
        lambda session, job: work.give_back(session, [(job.id, 1)]),
        lambda session, job: (
            _began(session, job, ago=61),
            work.fail(session, Failure(job.id, 1, "TimeoutError", "stopped after 60 s")),
        ),
    ],
    ids=["lost", "cancelled", "given back", "timed out"],
)
def test_an_attempt_that_was_ended_tells_nothing(
    session: Session, end: Callable[[Session, Job], object]
) -> None:
    job = make_job(session, make_user(session), S.RUNNING, timeout_seconds=60.0)
    _began(session, job, ago=5)

    end(session, job)

    assert _lasted(session) == [None]
