"""What is told about jobs that have ended: left by every verb that ends one, taken, noted."""

import importlib
import pkgutil
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, TextClause, func, select, text
from sqlalchemy.orm import Session

from scheduler import store
from scheduler.callback import MOST_TRIES, Call, Reply, next_try
from scheduler.models import Callback, CallbackDelivery, CallbackSecret, Job
from scheduler.states import FINISHED, CancelReason, FeedKind, JobStatus
from scheduler.store import callbacks, work
from scheduler.store.callbacks import (
    AT_ONCE_PER_OWNER,
    LEASE,
    LOGGED_PER_JOB,
    OVERLAP,
    note,
    rotate_secret,
    secret_of,
    send_again,
    take,
)
from scheduler.store.dependencies import FeedRow, resolve
from scheduler.store.moves import Move
from scheduler.store.recovery import end_lost
from scheduler.store.revival import run_again
from scheduler.store.timers import expire
from tests.factories import (
    MINUTE,
    NOON,
    make_callback,
    make_delivery,
    make_dependency,
    make_job,
    make_user,
)
from tests.racing import all_at_once, committed, one_after_the_other
from tests.scheduler.store.test_moves import VERBS

S = JobStatus
SECOND = timedelta(seconds=1)
URL = "https://example.org/done"
BUSY = Reply(12, status_code=503)
TAKEN = Reply(12, status_code=204)

Act = Callable[[Session, Job], list[Move]]


def _doom(session: Session, job: Job) -> list[Move]:
    parent = make_job(session, make_user(session), S.FAILED)
    make_dependency(session, job, parent)
    row = FeedRow(FeedKind.ENDED, parent.id, parent.owner_id, *[None] * 6)
    return resolve(session, [row])


def _expire(session: Session, _: Job) -> list[Move]:
    return expire(session, now=NOON + 2 * MINUTE, limit=5)


def _lose(session: Session, _: Job) -> list[Move]:
    session.execute(text("UPDATE active SET lease_until = NOW() - interval '1 s'"))
    return end_lost(session, limit=5)


def _cancel_itself(session: Session, job: Job) -> list[Move]:
    return work.stop(session, job.id, job.attempt, reason=CancelReason.BY_ITSELF)


ENDS: dict[str, tuple[Act, JobStatus, JobStatus, dict[str, Any]]] = {
    **{
        name: (act, min(sources), target, {})
        for name, (act, target, sources) in VERBS.items()
        if target in FINISHED
    },
    "cancel while blocked": (VERBS["cancel"][0], S.BLOCKED, S.CANCELLED, {}),
    "cancel itself": (_cancel_itself, S.RUNNING, S.CANCELLED, {}),
    "doom": (_doom, S.BLOCKED, S.CANCELLED, {}),
    "expire": (_expire, S.READY, S.CANCELLED, {"start_by": NOON}),
    "lose the last attempt": (
        _lose,
        S.RUNNING,
        S.FAILED,
        {"retry_config": {"strategy": "none"}},
    ),
}


def _kept(session: Session) -> list[Callback]:
    session.expire_all()
    return list(session.scalars(select(Callback).order_by(Callback.id)))


# What verbs leave


@pytest.mark.parametrize("name", ENDS)
def test_a_verb_that_ends_a_job_leaves_a_callback_with_its_outcome(
    session: Session, name: str
) -> None:
    act, source, target, columns = ENDS[name]
    job = make_job(session, make_user(session), source, callback_url=URL, **columns)

    assert [move.id for move in act(session, job)] == [job.id]

    (callback,) = _kept(session)
    now = session.scalar(select(func.now()))
    assert (callback.job_id, callback.owner_id) == (job.id, job.owner_id)
    assert (callback.due_at, callback.created_at) == (now, now)
    assert job.status == target
    outcome = callback.outcome
    assert outcome.pop("finished_at").startswith(f"{job.finished_at:%Y-%m-%dT%H:%M:%S}")
    assert (outcome.pop("started_at") is None) == (job.started_at is None)
    assert outcome == {
        "status": target,
        "reason": job.reason,
        "result": job.result,
        "error_type": job.error_type,
        "error_message": job.error_message,
        "attempt": job.attempt,
    }


@pytest.mark.parametrize("name", ENDS)
def test_nothing_is_left_where_nobody_asked_for_it(session: Session, name: str) -> None:
    act, source, target, columns = ENDS[name]
    job = make_job(session, make_user(session), source, **columns)

    act(session, job)

    assert _kept(session) == []
    assert job.status == target


@pytest.mark.parametrize("name", [name for name in VERBS if VERBS[name][1] not in FINISHED])
def test_a_verb_that_ends_nothing_leaves_nothing(session: Session, name: str) -> None:
    act, target, sources = VERBS[name]
    job = make_job(session, make_user(session), min(sources), callback_url=URL)
    if name == "release by a parent":
        make_dependency(session, job, make_job(session, make_user(session), S.COMPLETED))

    assert [move.status for move in act(session, job)] == [target]

    assert _kept(session) == []


def _statements_that_end_jobs() -> list[str]:
    ends = re.compile(rf"UPDATE jobs\s+SET status = :is_({'|'.join(FINISHED)})\b")
    modules = [
        importlib.import_module(f"scheduler.store.{one.name}")
        for one in pkgutil.iter_modules(store.__path__)
    ]
    found = {one for module in modules for one in vars(module).values() if type(one) is TextClause}
    return [one.text for one in found if ends.search(one.text)]


def test_every_statement_that_ends_jobs_leaves_callbacks() -> None:
    statements = _statements_that_end_jobs()

    assert len(statements) >= 5
    assert all("INSERT INTO callbacks" in one for one in statements), "make it with ends=True"


def test_every_end_of_a_job_that_runs_again_is_told_as_it_was(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING, callback_url=URL)
    work.fail(session, work.Failure(job.id, 1, "ValueError", "no", retryable=False))
    run_again(session, [job.id])
    session.expire_all()
    VERBS["cancel"][0](session, job)

    failed, cancelled = take(session, limit=5)

    assert (failed.about["status"], failed.about["error"]["message"]) == (S.FAILED, "no")
    assert (cancelled.about["status"], cancelled.about["error"]) == (S.CANCELLED, None)
    assert failed.delivery_id != cancelled.delivery_id


# Taking


def _due(session: Session, *, owner: Any = None, **columns: Any) -> Callback:
    job = make_job(session, owner or make_user(session), S.COMPLETED, callback_url=URL)
    return make_callback(session, job, **columns)


def _ids(calls: list[Call]) -> list[int]:
    return [call.id for call in calls]


def _pass_time(session: Session, passed: timedelta) -> None:
    """Let it be so much later for every callback and secret."""
    for column in ("callbacks SET due_at", "callbacks SET taken_until"):
        name = column.rpartition(" ")[2]
        session.execute(text(f"UPDATE {column} = {name} - :passed"), {"passed": passed})
    session.execute(
        text("UPDATE callback_secrets SET previous_until = previous_until - :passed"),
        {"passed": passed},
    )


def test_a_call_says_what_an_answer_says_of_the_job(session: Session) -> None:
    owner = make_user(session, "ann")
    columns = {"job_id": "it", "request_id": "req_1", "result": {"n": [1]}, "callback_url": URL}
    job = make_job(session, owner, S.RUNNING, **columns)
    work.succeed(session, [work.Success(job.id, 1, {"n": [1]})])

    (call,) = take(session, limit=5)

    session.refresh(job)
    assert job.finished_at
    assert (call.url, call.number, call.used) == (URL, 1, 1)
    assert call.at == session.scalar(select(func.now()))
    assert call.about == {
        "job_id": "it",
        "owner": "ann",
        "type": "simulate",
        "status": S.COMPLETED,
        "reason": None,
        "result": {"n": [1]},
        "error": None,
        "attempt": 1,
        "created_at": "2026-01-15T12:00:00Z",
        "started_at": "2026-01-15T12:00:00Z",
        "finished_at": job.finished_at.isoformat().replace("+00:00", "Z"),
        "request_id": "req_1",
    }


def test_what_is_not_due_yet_any_more_or_taken_is_left_alone(session: Session) -> None:
    now = session.scalars(select(func.now())).one()
    _due(session, due_at=now + SECOND)
    _due(session, delivered_at=NOON)
    _due(session, gave_up_at=NOON)
    _due(session, taken_until=now + SECOND)

    assert take(session, limit=5) == []


def test_what_is_taken_is_due_again_when_its_courier_says_nothing(session: Session) -> None:
    callback = _due(session)

    (first,) = take(session, limit=5)
    _pass_time(session, LEASE - SECOND)
    in_time = take(session, limit=5)
    _pass_time(session, SECOND)
    (second,) = take(session, limit=5)

    assert in_time == []
    assert (first.id, first.number, second.id, second.number) == (callback.id, 1, callback.id, 2)
    assert first.delivery_id == second.delivery_id


def test_no_owner_has_more_than_some_on_the_way(session: Session) -> None:
    flood, other = make_user(session), make_user(session)
    floods = [_due(session, owner=flood).id for _ in range(AT_ONCE_PER_OWNER + 3)]
    later = _due(session, owner=other, due_at=NOON + MINUTE).id

    calls = take(session, limit=100)
    more = take(session, limit=100)

    assert sorted(_ids(calls)) == sorted([*floods[:AT_ONCE_PER_OWNER], later])
    assert more == []
    note(session, calls[0], TAKEN, again_in=None)
    assert _ids(take(session, limit=100)) == [floods[AT_ONCE_PER_OWNER]]


def test_who_has_less_on_the_way_goes_first_however_long_the_other_waits(session: Session) -> None:
    flood, other = make_user(session), make_user(session)
    first, second, _ = [_due(session, owner=flood).id for _ in range(3)]
    late = _due(session, owner=other, due_at=NOON + MINUTE).id

    taken = [_ids(take(session, limit=1)) for _ in range(3)]

    assert taken == [[first], [late], [second]]


def test_what_a_courier_does_not_take_is_there_for_others_at_the_same_moment(
    committed_engine: Engine,
) -> None:
    first, second = committed(
        committed_engine, lambda session: [_due(session).id, _due(session).id]
    )

    taken, meanwhile = one_after_the_other(
        committed_engine,
        lambda session: _ids(take(session, limit=1)),
        lambda session: _ids(take(session, limit=2)),
    )

    assert (taken, meanwhile) == ([first], [second])


def test_couriers_that_look_at_the_same_moment_take_each_callback_once(
    committed_engine: Engine,
) -> None:
    made = committed(committed_engine, lambda s: [_due(s).id for _ in range(30)])

    taken = all_at_once(committed_engine, [lambda s: take(s, limit=10)] * 3)

    ids = [number for calls in taken for number in _ids(calls)]
    assert len(ids) == len(set(ids))
    rest = committed(committed_engine, lambda s: take(s, limit=100))
    assert sorted([*ids, *_ids(rest)]) == made


# Noting


def _log(session: Session) -> list[tuple[int, int | None, str | None]]:
    tries = session.scalars(select(CallbackDelivery).order_by(CallbackDelivery.id))
    return [(one.number, one.status_code, one.error) for one in tries]


def test_what_was_delivered_is_done_with(session: Session) -> None:
    callback = _due(session)
    (call,) = take(session, limit=5)

    assert note(session, call, TAKEN, again_in=None)

    session.refresh(callback)
    assert callback.delivered_at == call.at
    assert (callback.due_at, callback.taken_until, callback.gave_up_at) == (None, None, None)
    assert _log(session) == [(1, 204, None)]
    _pass_time(session, timedelta(days=9))
    assert take(session, limit=5) == []


def test_what_failed_is_due_again_after_a_while(session: Session) -> None:
    callback = _due(session)
    (call,) = take(session, limit=5)

    note(session, call, Reply(10_000, error="no answer"), again_in=MINUTE)

    session.refresh(callback)
    assert (callback.due_at, callback.taken_until) == (call.at + MINUTE, None)
    assert _log(session) == [(1, None, "no answer")]
    _pass_time(session, MINUTE - SECOND)
    assert take(session, limit=5) == []
    _pass_time(session, SECOND)
    assert [again.number for again in take(session, limit=5)] == [2]


def test_a_day_of_failures_ends_in_giving_up(session: Session) -> None:
    callback = _due(session)
    whole, delays = timedelta(0), []
    while calls := take(session, limit=5):
        again_in = next_try(calls[0], BUSY, draw=0.5)
        note(session, calls[0], BUSY, again_in=again_in)
        delays.append(again_in)
        whole += again_in or timedelta(0)
        _pass_time(session, again_in or timedelta(days=9))

    session.refresh(callback)
    assert callback.gave_up_at is not None
    assert (callback.due_at, callback.tries) == (None, MOST_TRIES)
    assert len(delays) == MOST_TRIES
    assert timedelta(hours=20) < whole < timedelta(hours=28)


def test_a_try_that_was_given_up_on_changes_nothing_when_it_comes_back(session: Session) -> None:
    callback = _due(session)
    (lost,) = take(session, limit=5)
    _pass_time(session, LEASE)
    (present,) = take(session, limit=5)

    assert not note(session, lost, TAKEN, again_in=None)
    assert note(session, present, BUSY, again_in=MINUTE)

    session.refresh(callback)
    assert callback.delivered_at is None
    assert _log(session) == [(2, 503, None)]


def test_what_is_noted_twice_is_noted_once(session: Session) -> None:
    _due(session)
    (call,) = take(session, limit=5)

    assert note(session, call, BUSY, again_in=MINUTE)
    assert not note(session, call, BUSY, again_in=MINUTE)

    assert _log(session) == [(1, 503, None)]


def test_a_try_that_outlived_its_lease_does_not_undo_what_a_person_asked_for(
    session: Session,
) -> None:
    callback = _due(session)
    (late,) = take(session, limit=5)
    _pass_time(session, LEASE)
    assert send_again(session, callback.job_id)

    assert not note(session, late, BUSY, again_in=None)

    assert _ids(take(session, limit=5)) == [callback.id]


def test_a_try_about_a_job_that_is_forgotten_changes_nothing(session: Session) -> None:
    _due(session)
    (call,) = take(session, limit=5)
    session.execute(text("DELETE FROM callbacks"))

    assert not note(session, call, BUSY, again_in=MINUTE)


def test_of_a_job_the_newest_tries_are_remembered(session: Session) -> None:
    job = make_job(session, make_user(session), S.COMPLETED, callback_url=URL)
    old = make_callback(session, job, delivered_at=NOON)
    for number in range(LOGGED_PER_JOB):
        make_delivery(session, old, number=number)
    other = make_delivery(session, _due(session, delivered_at=NOON))
    make_callback(session, job)
    (call,) = take(session, limit=5)

    note(session, call, BUSY, again_in=MINUTE)

    left = session.scalars(select(CallbackDelivery).order_by(CallbackDelivery.id)).all()
    assert len(left) == LOGGED_PER_JOB + 1
    assert (left[0].callback_id, left[0].number) == (old.id, 1)
    assert other in left
    assert left[-1].callback_id == call.id


# Sending again


@pytest.mark.parametrize("end", ["delivered_at", "gave_up_at", None])
def test_a_person_has_it_sent_again_with_fresh_tries(session: Session, end: str | None) -> None:
    now = session.scalars(select(func.now())).one()
    columns = {end: NOON} if end else {"due_at": now + timedelta(hours=1)}
    callback = _due(session, tries=MOST_TRIES, **columns)

    assert send_again(session, callback.job_id)

    (call,) = take(session, limit=5)
    assert (call.id, call.number, call.used) == (callback.id, MOST_TRIES + 1, 1)
    assert next_try(call, BUSY, draw=0.5)


def test_of_several_ends_the_last_is_told_again(session: Session) -> None:
    job = make_job(session, make_user(session), S.COMPLETED, callback_url=URL)
    make_callback(session, job, delivered_at=NOON)
    last = make_callback(session, job, delivered_at=NOON)

    send_again(session, job.id)

    assert _ids(take(session, limit=5)) == [last.id]


def test_what_is_on_its_way_is_left_on_it(session: Session) -> None:
    callback = _due(session)
    (call,) = take(session, limit=5)

    assert not send_again(session, callback.job_id)

    assert take(session, limit=5) == []
    assert note(session, call, TAKEN, again_in=None)


def test_what_nobody_asked_for_is_not_sent_again(session: Session) -> None:
    job = make_job(session, make_user(session), S.COMPLETED)

    assert not send_again(session, job.id)


# Secrets


def test_an_owner_has_one_secret_made_when_it_is_first_needed(session: Session) -> None:
    owner, other = make_user(session), make_user(session)
    _due(session, owner=owner)

    (call,) = take(session, limit=5)

    kept = secret_of(session, owner.id)
    assert list(call.secrets) == [kept.secret]
    assert secret_of(session, owner.id) == kept
    assert secret_of(session, other.id).secret != kept.secret
    assert len(kept.secret) > 40


def test_the_secret_before_signs_for_a_day_as_well(session: Session) -> None:
    owner = make_user(session)
    first = secret_of(session, owner.id)
    second = rotate_secret(session, owner.id)
    _due(session, owner=owner)

    (call,) = take(session, limit=5)
    assert list(call.secrets) == [second.secret, first.secret]
    assert second.previous_until == call.at + OVERLAP

    _pass_time(session, OVERLAP)
    (call,) = take(session, limit=5)
    assert list(call.secrets) == [second.secret]
    assert secret_of(session, owner.id).previous_until is None


def test_of_many_rotations_the_last_two_sign(session: Session) -> None:
    owner = make_user(session)
    *_, before, last = [rotate_secret(session, owner.id).secret for _ in range(4)]
    _due(session, owner=owner)

    (call,) = take(session, limit=5)

    assert list(call.secrets) == [last, before]


def test_a_secret_that_two_need_at_once_is_made_once(committed_engine: Engine) -> None:
    owner = committed(committed_engine, lambda s: make_user(s).id)

    seen = all_at_once(committed_engine, [lambda s: secret_of(s, owner).secret] * 4)

    assert len(set(seen)) == 1
    kept = committed(committed_engine, lambda s: s.get_one(CallbackSecret, owner).secret)
    assert seen[0] == kept
    assert callbacks.SECRET_PREFIX in kept
