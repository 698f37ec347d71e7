"""Every verb from every status: allowed exactly where the table of moves says so."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from scheduler.models import Active, Job, JobEvent, Ready, Timer, User
from scheduler.states import ACTIVE, MOVES, FeedKind, JobStatus
from scheduler.store import work
from scheduler.store.admission import Admitted, admit
from scheduler.store.cancellation import cancel
from scheduler.store.changing import Change, change
from scheduler.store.dependencies import FeedRow, resolve
from scheduler.store.moves import Move
from scheduler.store.revival import run_again
from scheduler.store.timers import release_due
from tests.factories import MINUTE, NOON, PID, WORKER, make_job, make_user

Verb = Callable[[Session, Job], list[Move]]
S = JobStatus
LEASE = timedelta(seconds=30)


def _admit(session: Session, job: Job) -> list[Move]:
    return admit(session, [Admitted(job.id, 0.5, express=False, expected_seconds=1.0)], epoch=1)


def _start(session: Session, job: Job) -> list[Move]:
    return work.start(session, [(job.id, job.attempt)], worker=WORKER, pid=PID, lease=LEASE)[1]


def _succeed(session: Session, job: Job) -> list[Move]:
    return work.succeed(session, [work.Success(job.id, job.attempt, {"n": 1})])


def _fail(session: Session, job: Job) -> list[Move]:
    return work.fail(session, work.Failure(job.id, job.attempt, "E", "no", retryable=False))


def _retry(session: Session, job: Job) -> list[Move]:
    return work.fail(session, work.Failure(job.id, job.attempt, "E", "no"))


def _give_back(session: Session, job: Job) -> list[Move]:
    return work.give_back(session, [(job.id, job.attempt)])


def _stop(session: Session, job: Job) -> list[Move]:
    return work.stop(session, job.id, job.attempt)


def _snooze(session: Session, job: Job) -> list[Move]:
    return work.snooze(session, job.id, job.attempt, delay=MINUTE)


def _cancel(session: Session, job: Job) -> list[Move]:
    return [move for move in cancel(session, job.id) if move.verb == "cancel"]


def _postpone(session: Session, job: Job) -> list[Move]:
    wanted = Change(moves_time=True, run_at=datetime(2200, 1, 1, tzinfo=UTC))
    return [move for move in change(session, job.id, wanted) if move.verb == "postpone"]


def _run_again(session: Session, job: Job) -> list[Move]:
    return run_again(session, [job.id])


def _release(session: Session, _: Job) -> list[Move]:
    return release_due(session, now=NOON + 2 * MINUTE, limit=10)


def _resolve(session: Session, job: Job) -> list[Move]:
    parent = session.get_one(Job, session.scalar(_PARENT_OF, {"child": job.id}) or job.id)
    return resolve(session, [FeedRow(FeedKind.ENDED, parent.id, parent.owner_id, *[None] * 6)])


_PARENT_OF = text("SELECT parent_id FROM dependencies WHERE child_id = :child")

VERBS: dict[str, tuple[Verb, JobStatus, set[JobStatus]]] = {
    "admit": (_admit, S.QUEUED, {S.READY}),
    "start": (_start, S.RUNNING, {S.QUEUED}),
    "succeed": (_succeed, S.COMPLETED, {S.RUNNING}),
    "fail": (_fail, S.FAILED, {S.RUNNING}),
    "retry": (_retry, S.RETRYING, {S.RUNNING}),
    "give back": (_give_back, S.READY, {S.QUEUED, S.RUNNING}),
    "stop": (_stop, S.CANCELLED, {S.RUNNING}),
    "snooze": (_snooze, S.RETRYING, {S.RUNNING}),
    "cancel": (
        _cancel,
        S.CANCELLED,
        {S.SCHEDULED, S.BLOCKED, S.READY, S.QUEUED, S.RETRYING},
    ),
    "release when due": (_release, S.READY, {S.SCHEDULED, S.RETRYING}),
    "release by a parent": (_resolve, S.READY, {S.BLOCKED}),
    "postpone": (_postpone, S.SCHEDULED, {S.BLOCKED, S.READY}),
    "run again": (_run_again, S.READY, {S.FAILED, S.CANCELLED}),
}


def _job_in(session: Session, status: JobStatus) -> Job:
    owner = make_user(session)
    job = make_job(session, owner, status)
    if status is S.BLOCKED:
        parent = make_job(session, owner, S.COMPLETED)
        session.execute(
            text("INSERT INTO dependencies VALUES (:child, :parent, 'completed', false)"),
            {"child": job.id, "parent": parent.id},
        )
    return job


@pytest.mark.parametrize("status", JobStatus)
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_moves_a_job_exactly_from_its_sources(
    session: Session, name: str, status: JobStatus
) -> None:
    act, target, allowed = VERBS[name]
    job = _job_in(session, status)

    moves = act(session, job)

    session.expire_all()
    expected = target if status in allowed else status
    assert job.status == expected
    assert [move.status for move in moves] == ([target] if status in allowed else [])


@pytest.mark.parametrize(("source", "target"), [(s, t) for s in MOVES for t in MOVES[s]])
def test_every_move_of_the_table_has_a_verb(source: JobStatus, target: JobStatus) -> None:
    made = {(s, target) for _, target, allowed in VERBS.values() for s in allowed}
    blocked_instead_of_ready = {
        (S.SCHEDULED, S.BLOCKED),
        (S.FAILED, S.BLOCKED),
        (S.CANCELLED, S.BLOCKED),
    }

    assert (source, target) in made | blocked_instead_of_ready


@pytest.mark.parametrize("name", VERBS)
def test_a_move_writes_one_event_and_keeps_the_hot_tables_in_step(
    session: Session, name: str
) -> None:
    act, target, allowed = VERBS[name]
    job = _job_in(session, min(allowed))

    (move,) = act(session, job)

    event = session.scalars(select(JobEvent).where(JobEvent.job_id == job.id)).one()
    assert (event.seq, event.status, event.owner_id) == (move.seq, target, job.owner_id)
    assert bool(session.get(Active, job.id)) == (target in ACTIVE)
    lined = session.scalars(select(Ready).where(Ready.job_id == job.id)).all()
    assert len(lined) == (target is S.READY)


@pytest.mark.parametrize("status", sorted(set(S) - {S.READY}))
def test_a_job_that_is_not_ready_is_not_admitted_even_if_it_stands_in_line(
    session: Session, status: JobStatus
) -> None:
    job = make_job(session, make_user(session), status, rank=5)
    line = make_job(session, session.get_one(User, job.owner_id))
    session.execute(
        text("UPDATE ready SET job_id = :job, rank = 5 WHERE job_id = :line"),
        {"job": job.id, "line": line.id},
    )

    assert _admit(session, job) == []


@pytest.mark.parametrize("status", sorted(set(S) - ACTIVE))
@pytest.mark.parametrize("name", ["give back", "start", "succeed", "fail", "stop", "snooze"])
def test_a_report_about_a_job_that_is_not_active_changes_nothing_even_if_it_is_held(
    session: Session, name: str, status: JobStatus
) -> None:
    job = _job_in(session, status)
    held = make_job(session, session.get_one(User, job.owner_id), S.RUNNING)
    _hold(session, job, held)

    assert VERBS[name][0](session, job) == []


@pytest.mark.parametrize("status", sorted(set(S) - {S.RUNNING, *VERBS["cancel"][2]}))
def test_a_job_that_does_not_run_is_not_asked_to_stop_even_if_it_is_held(
    session: Session, status: JobStatus
) -> None:
    job = _job_in(session, status)
    held = make_job(session, session.get_one(User, job.owner_id), S.RUNNING)
    _hold(session, job, held)

    assert cancel(session, job.id) == []


def _hold(session: Session, job: Job, instead_of: Job) -> None:
    session.execute(
        text("UPDATE active SET job_id = :job, attempt = :attempt WHERE job_id = :held"),
        {"job": job.id, "attempt": job.attempt, "held": instead_of.id},
    )


@pytest.mark.parametrize("status", sorted(set(S) - {S.SCHEDULED, S.RETRYING}))
def test_a_timer_that_was_left_over_releases_nobody(session: Session, status: JobStatus) -> None:
    job = _job_in(session, status)
    job.due_at = NOON
    session.add(Timer(fire_at=NOON, job_id=job.id, kind="due"))
    session.flush()

    assert _release(session, job) == []


def test_a_job_whose_time_was_put_off_is_not_released_at_the_earlier_one(session: Session) -> None:
    job = make_job(session, make_user(session), S.RETRYING, due_at=NOON + 60 * MINUTE)
    session.add(Timer(fire_at=NOON, job_id=job.id, kind="due"))
    session.flush()

    assert _release(session, job) == []


REPORTS = ["start", "succeed", "fail", "retry", "give back", "stop", "snooze"]


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_about_another_attempt_changes_nothing(session: Session, name: str) -> None:
    act, _, allowed = VERBS[name]
    job = _job_in(session, min(allowed))
    status, job.attempt = job.status, job.attempt + 1
    session.execute(text("UPDATE active SET attempt = 2 WHERE job_id = :id"), {"id": job.id})
    session.flush()
    job.attempt -= 1  # what the late reporter believes
    with session.no_autoflush:
        moves = act(session, job)

    session.expire_all()
    assert moves == []
    assert job.status == status
