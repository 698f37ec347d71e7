"""Pull workers that wait for a job, what they are offered, and under which lease they run it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from scheduler.models import Active, Ask, Attempt, Feed, Job, Outbox, User
from scheduler.states import CancelReason, Executor, JobStatus, Outcome
from scheduler.store import leases, offers, picture, recovery, work
from scheduler.store.admission import Admitted, admit, publish_again
from scheduler.store.cancellation import HEARD_WITHIN, cancel
from scheduler.store.leader import Memory
from scheduler.store.moves import Move, lock
from scheduler.store.offers import UNCLAIMED_AFTER, Wanted
from tests.factories import make_job, make_user, make_worker
from tests.racing import all_at_once, committed, one_after_the_other, somebody_waits
from tests.services import eventually

S = JobStatus
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
ANY = Wanted()


@pytest.fixture
def owner(session: Session) -> User:
    return make_user(session)


def _pull(session: Session, owner: User, status: JobStatus = S.READY, **columns: Any) -> Job:
    return make_job(session, owner, status, executor=Executor.PULL, **columns)


def _offer(session: Session, job: Job, ask: int | None) -> list[Move]:
    return admit(
        session, [Admitted(job.id, 0.5, express=False, expected_seconds=1, ask=ask)], epoch=1
    )


def _claim(session: Session, job: Job, *, lease: timedelta = MINUTE) -> list[Move]:
    attempt = session.get_one(Job, job.id, populate_existing=True).attempt
    _, moves = work.start(
        session, [(job.id, attempt)], worker="cam", pid=None, lease=lease, token="secret"
    )
    return moves


def _running(session: Session, owner: User, **columns: Any) -> Job:
    job = _pull(session, owner, S.QUEUED, **columns)
    _claim(session, job)
    return job


def _is_over(session: Session, job: Job) -> None:
    session.execute(
        text("UPDATE active SET lease_until = now() - interval '1 s' WHERE job_id = :id"),
        {"id": job.id},
    )


def _left(session: Session, job: Job) -> timedelta:
    """Return how long the lease of a job lasts."""
    row = session.get_one(Active, job.id, populate_existing=True)
    now: datetime = session.execute(text("SELECT now()")).scalar_one()
    assert row.lease_until is not None
    return row.lease_until - now


# Asking


def test_whoever_asks_finds_the_job_that_was_admitted_for_them(
    session: Session, owner: User
) -> None:
    job = _pull(session, owner)
    ask = offers.put_up(session, ANY, patience=MINUTE)
    assert not offers.is_served(session, ask)

    (move,) = _offer(session, job, ask)

    assert (move.verb, move.status) == ("admit", S.QUEUED)
    assert offers.is_served(session, ask)
    assert offers.take_down(session, ask) == (job.id, 1)
    assert offers.take_down(session, ask) is None
    assert session.get_one(Active, job.id).executor == Executor.PULL


def test_what_pull_workers_are_to_run_is_not_sent_to_celery(session: Session, owner: User) -> None:
    make_worker(session)
    job = _pull(session, owner)
    _offer(session, job, offers.put_up(session, ANY, patience=MINUTE))
    session.execute(text("UPDATE active SET published_at = now() - interval '1 hour'"))

    assert publish_again(session, older_than=SECOND) == 0
    assert session.scalar(select(func.count()).select_from(Outbox)) == 0


def test_a_job_stays_in_line_when_whoever_asked_is_gone(session: Session, owner: User) -> None:
    job = _pull(session, owner)
    ask = offers.put_up(session, ANY, patience=MINUTE)
    offers.take_down(session, ask)

    assert _offer(session, job, ask) == []

    assert session.get_one(Job, job.id, populate_existing=True).status == S.READY


def test_an_ask_is_served_once(session: Session, owner: User) -> None:
    first, second = _pull(session, owner), _pull(session, owner)
    ask = offers.put_up(session, ANY, patience=MINUTE)
    _offer(session, first, ask)

    assert _offer(session, second, ask) == []

    assert offers.take_down(session, ask) == (first.id, 1)


def test_an_ask_is_taken_down_before_it_is_served_or_after(committed_engine: Engine) -> None:
    def make(session: Session) -> tuple[Job, int]:
        return _pull(session, make_user(session)), offers.put_up(session, ANY, patience=MINUTE)

    job, ask = committed(committed_engine, make)

    moves, offer = one_after_the_other(
        committed_engine,
        lambda session: _offer(session, job, ask),
        lambda session: offers.take_down(session, ask),
    )

    assert len(moves) == 1
    assert offer == (job.id, 1)


def test_the_leader_sees_who_asks_for_what_and_not_for_ever(session: Session, owner: User) -> None:
    anything = offers.put_up(session, ANY, patience=MINUTE)
    scans = offers.put_up(session, Wanted(["scan", "fax"], owner.id), patience=MINUTE)
    offers.put_up(session, ANY, patience=timedelta(0))
    served = offers.put_up(session, ANY, patience=MINUTE)
    _offer(session, _pull(session, owner), served)

    asks = offers.waiting(session)

    assert [ask.id for ask in asks] == [anything, scans]
    assert [ask.types for ask in asks] == [None, {"scan", "fax"}]
    assert [ask.owner_id for ask in asks] == [None, owner.id]
    snapshot = picture.read_snapshot(session, Memory({}, None, {}), now=_now(session))
    assert snapshot.limits.asks == asks
    assert [job.executor for job in snapshot.running] == [Executor.PULL]


def _now(session: Session) -> datetime:
    now: datetime = session.execute(text("SELECT now()")).scalar_one()
    return now


@pytest.mark.parametrize(
    ("wanted", "is_there"),
    [
        ((None, None), True),
        ((["scan"], None), True),
        ((["fax", "scan"], None), True),
        ((["fax"], None), False),
        (([], None), False),
    ],
)
def test_jobs_that_may_come_are_of_the_types_asked_for(
    session: Session, owner: User, *, wanted: tuple[Any, Any], is_there: bool
) -> None:
    _pull(session, owner, type="scan")
    make_job(session, owner, type="fax")

    assert offers.may_come(session, Wanted(*wanted)) is is_there


def test_jobs_that_may_come_are_of_the_owner_asked_for(session: Session, owner: User) -> None:
    other = make_user(session, "other")
    _pull(session, other)

    assert not offers.may_come(session, Wanted(None, owner.id))
    assert offers.may_come(session, Wanted(None, other.id))


def test_what_the_leader_has_yet_to_take_in_may_let_a_job_come(
    session: Session, owner: User
) -> None:
    session.add(Feed(kind="ended", job_id=1, owner_id=owner.id))
    session.flush()

    assert offers.may_come(session, Wanted(None, owner.id))
    assert not offers.may_come(session, Wanted(None, owner.id + 1))


# What nobody claims


def test_what_is_offered_to_a_worker_that_is_gone_goes_back_and_is_not_counted(
    session: Session, owner: User
) -> None:
    job, fresh = _pull(session, owner, S.QUEUED), _pull(session, owner)
    celerys = make_job(session, owner, S.QUEUED)
    _offer(session, fresh, None)

    (move,) = offers.clear_away(session, limit=10)

    session.refresh(job)
    assert (move.id, move.verb, job.status) == (job.id, "requeue", S.READY)
    assert (job.attempt, job.attempts_forgiven) == (1, 1)
    session.refresh(celerys)
    assert celerys.status == S.QUEUED


def test_a_job_that_is_claimed_at_the_last_moment_is_left_to_its_worker(
    committed_engine: Engine,
) -> None:
    job = committed(committed_engine, lambda session: _pull(session, make_user(session), S.QUEUED))

    claimed, cleared = one_after_the_other(
        committed_engine,
        lambda session: _claim(session, job),
        lambda session: offers.clear_away(session, limit=10),
    )

    assert [move.verb for move in claimed] == ["start"]
    assert cleared == []


def test_asks_of_workers_that_are_gone_are_forgotten(session: Session, owner: User) -> None:
    ask = offers.put_up(session, ANY, patience=MINUTE)
    fresh = offers.put_up(session, ANY, patience=timedelta(0))
    session.execute(
        text("UPDATE asks SET expires_at = now() - CAST(:ago AS interval) WHERE id = :id"),
        {"ago": UNCLAIMED_AFTER + SECOND, "id": ask},
    )

    offers.clear_away(session, limit=10)

    assert session.scalars(select(Ask.id)).all() == [fresh]


# Leases


def test_a_claim_holds_as_long_as_asked_for(session: Session, owner: User) -> None:
    job = _pull(session, owner, S.QUEUED)

    (move,) = _claim(session, job, lease=7 * SECOND)

    attempt = session.get_one(Attempt, (job.id, 1))
    assert (move.status, move.data) == (S.RUNNING, {"worker": "cam"})
    assert (attempt.worker, attempt.pid, attempt.lease) == ("cam", None, "secret")
    assert attempt.lease_seconds == 7
    assert _left(session, job) == 7 * SECOND


def test_a_lease_lasts_no_longer_than_the_attempt_may(session: Session, owner: User) -> None:
    job = _pull(session, owner, S.QUEUED, timeout_seconds=5)

    _claim(session, job, lease=MINUTE)

    assert _left(session, job) == 5 * SECOND


def test_a_report_lets_the_lease_last_anew(session: Session, owner: User) -> None:
    job = _running(session, owner, timeout_seconds=3600)
    _lasts(session, job, SECOND)

    renewed = leases.renew(session, job.id, "secret")

    assert renewed is not None
    assert (renewed.attempt, renewed.cancel_requested) == (1, False)
    assert _left(session, job) == MINUTE


def test_no_report_gives_more_time_than_the_attempt_may_take(session: Session, owner: User) -> None:
    job = _running(session, owner, timeout_seconds=40)
    session.execute(text("UPDATE active SET claimed_at = now() - interval '15 s'"))
    _lasts(session, job, SECOND)

    leases.renew(session, job.id, "secret")

    assert _left(session, job) == 25 * SECOND


def _lasts(session: Session, job: Job, how_long: timedelta) -> None:
    session.execute(
        text("UPDATE active SET lease_until = now() + CAST(:lasts AS interval) WHERE job_id = :id"),
        {"lasts": how_long, "id": job.id},
    )


def test_a_lease_that_is_over_or_was_never_given_lets_nobody_report(
    session: Session, owner: User
) -> None:
    job, over = _running(session, owner), _running(session, owner)
    _is_over(session, over)

    for number, lease in ((job.id, "other"), (over.id, "secret"), (over.id + 1, "secret")):
        assert leases.renew(session, number, lease) is None
        assert leases.held_under(session, number, lease) is None
    assert leases.held_under(session, job.id, "secret") == 1


def test_the_lease_of_an_earlier_attempt_lets_nobody_report_on_a_later_one(
    session: Session, owner: User
) -> None:
    job = _running(session, owner)
    work.give_back(session, [(job.id, 1)])
    _offer(session, job, None)
    work.start(session, [(job.id, 2)], worker="x", pid=None, lease=MINUTE, token="another")

    assert leases.held_under(session, job.id, "secret") is None
    assert leases.held_under(session, job.id, "another") == 2


def test_how_an_attempt_ended_is_remembered_for_who_reported_it(
    session: Session, owner: User
) -> None:
    job = _running(session, owner)
    assert leases.reported_under(session, job.id, "secret") is None

    work.succeed(session, [work.Success(job.id, 1, {"pages": 3})])

    assert leases.reported_under(session, job.id, "secret") is Outcome.COMPLETED
    assert leases.reported_under(session, job.id, "other") is None


# Workers that go silent, or take too long


def test_a_worker_that_goes_silent_loses_its_job_and_may_not_report_on_it(
    session: Session, owner: User
) -> None:
    job = _running(session, owner)
    _is_over(session, job)

    (move,) = recovery.end_lost(session, limit=10)

    attempt = session.get_one(Attempt, (job.id, 1), populate_existing=True)
    assert (move.verb, move.status) == ("retry", S.RETRYING)
    assert (attempt.outcome, attempt.error_type) == (Outcome.LOST, "WorkerLost")
    assert leases.reported_under(session, job.id, "secret") is None


def test_an_attempt_that_took_all_its_time_is_told_to_have_taken_too_long(
    session: Session, owner: User
) -> None:
    job = _running(session, owner, timeout_seconds=5)
    session.execute(text("UPDATE active SET claimed_at = now() - interval '5 s'"))
    _is_over(session, job)

    recovery.end_lost(session, limit=10)

    attempt = session.get_one(Attempt, (job.id, 1), populate_existing=True)
    assert (attempt.outcome, attempt.error_type) == (Outcome.FAILED, "TimeLimitExceeded")
    assert attempt.error_message == "stopped after 5 s"
    assert leases.reported_under(session, job.id, "secret") is None


# Cancelling


def test_a_pull_worker_is_told_to_stop_and_has_a_moment_for_it(
    session: Session, owner: User
) -> None:
    job = _running(session, owner, timeout_seconds=3600)

    cancel(session, job.id)

    assert _left(session, job) == HEARD_WITHIN
    renewed = leases.renew(session, job.id, "secret")
    assert renewed is not None
    assert renewed.cancel_requested
    assert _left(session, job) == HEARD_WITHIN


def test_a_job_whose_worker_never_hears_of_it_is_cancelled_all_the_same(
    session: Session, owner: User
) -> None:
    job = _running(session, owner)
    cancel(session, job.id)
    _is_over(session, job)

    recovery.end_lost(session, limit=10)

    session.refresh(job)
    assert (job.status, job.reason) == (S.CANCELLED, CancelReason.BY_USER)


def test_a_celery_workers_lease_is_its_own_affair(session: Session, owner: User) -> None:
    job = make_job(session, owner, S.RUNNING)
    before = _left(session, job)

    cancel(session, job.id)

    assert _left(session, job) == before


# At once


def test_a_lease_is_reported_under_once(committed_engine: Engine) -> None:
    job = committed(committed_engine, lambda session: _running(session, make_user(session)))

    def report(session: Session) -> Sequence[Move]:
        attempt = leases.held_under(session, job.id, "secret")
        if attempt is None:
            return ()
        return work.succeed(session, [work.Success(job.id, attempt, None)])

    told = all_at_once(committed_engine, [report] * 8)

    assert sum(len(moves) for moves in told) == 1


def test_a_sign_of_life_and_whoever_moves_the_job_do_not_block_each_other(
    committed_engine: Engine,
) -> None:
    job = committed(committed_engine, lambda session: _running(session, make_user(session)))

    def renew(session: Session) -> leases.Renewed | None:
        renewed = leases.renew(session, job.id, "secret")
        work.set_progress(session, job.id, 1, 0.5, None)
        return renewed

    with Session(committed_engine) as moving, ThreadPoolExecutor(1) as pool:
        lock(moving, [job.id])
        renewed = pool.submit(committed, committed_engine, renew)
        eventually(lambda: renewed.done() or somebody_waits(committed_engine))
        (move,) = cancel(moving, job.id)
        moving.commit()

    assert move.verb == "request_cancel"
    told = renewed.result(timeout=10)
    assert told is not None
    assert told.cancel_requested


def test_a_report_and_a_cancellation_do_not_block_each_other(committed_engine: Engine) -> None:
    jobs = committed(
        committed_engine,
        lambda session: [
            _running(session, owner) for owner in [make_user(session)] for _ in "1234"
        ],
    )

    def report(job: Job) -> Any:
        def act(session: Session) -> list[Move]:
            attempt = leases.held_under(session, job.id, "secret")
            return work.succeed(session, [work.Success(job.id, attempt or 0, None)])

        return act

    acts = [report(job) for job in jobs]
    acts += [lambda session, job=job: cancel(session, job.id) for job in jobs]

    all_at_once(committed_engine, acts)

    ended = committed(
        committed_engine,
        lambda session: session.scalars(select(Job.status).where(Job.executor == "pull")).all(),
    )
    assert set(ended) == {S.COMPLETED}
