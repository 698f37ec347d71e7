"""What the end of one job means for those that wait for it."""

import itertools
import time
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from scheduler.models import Dependency, Feed, Job, Ready, Timer, User
from scheduler.states import CancelReason, Condition, JobStatus
from scheduler.store import dependencies, work
from scheduler.store.admission import Admitted, admit
from scheduler.store.cancellation import cancel
from scheduler.store.moves import Move
from scheduler.store.revival import run_again
from scheduler.store.submission import submit
from scheduler.store.timers import release_due
from tests.factories import (
    MINUTE,
    NOON,
    PID,
    WORKER,
    make_dependency,
    make_job,
    make_submission,
    make_type,
    make_user,
)
from tests.racing import committed, one_after_the_other

S = JobStatus
C = Condition
Jobs = dict[str, Job]
LEASE = timedelta(seconds=30)


def _settle(session: Session, *, limit: int = 1000) -> list[Move]:
    """Take the feed in once, as one turn of the leader does."""
    return dependencies.resolve(session, dependencies.take(session, limit=limit))


def _settle_all(session: Session) -> list[Move]:
    moves: list[Move] = []
    while rows := dependencies.take(session, limit=1000):
        moves += dependencies.resolve(session, rows)
    return moves


def _graph(session: Session, waits_for: dict[str, str], when: Condition = C.COMPLETED) -> Jobs:
    """Submit jobs that wait for others, all on one condition; names are letters."""
    make_type(session)
    owner = make_user(session)
    batch = [
        make_submission(name, depends_on=tuple((parent, when) for parent in parents))
        for name, parents in waits_for.items()
    ]
    ids = submit(session, owner.id, batch, batch=True).ids
    jobs = [session.get_one(Job, number) for number in ids]
    _settle_all(session)
    return {job.job_id: job for job in jobs}


def _end(session: Session, job: Job, status: JobStatus) -> None:
    """Bring a ready job to its end."""
    if status is S.CANCELLED:
        cancel(session, job.id)
    else:
        _run(session, job)
        attempt = session.get_one(Job, job.id, populate_existing=True).attempt
        if status is S.COMPLETED:
            work.succeed(session, [work.Success(job.id, attempt, None)])
        else:
            work.fail(session, work.Failure(job.id, attempt, "E", "no", retryable=False))
    session.expire_all()
    assert job.status == status


def _run(session: Session, job: Job) -> None:
    (move,) = admit(session, [Admitted(job.id, 0.1, express=False, expected_seconds=1.0)], epoch=1)
    work.start(session, [(job.id, move.attempt)], worker=WORKER, pid=PID, lease=LEASE)


def _statuses(session: Session, jobs: Jobs) -> dict[str, str]:
    session.expire_all()
    return {name: job.status for name, job in jobs.items()}


# Shapes


def test_a_job_behind_many_waits_for_the_last_of_them(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "", "c": "", "z": "abc"})
    for name in "ab":
        _end(session, jobs[name], S.COMPLETED)
        assert _settle(session) == []
    assert (jobs["z"].status, jobs["z"].open_dependencies) == (S.BLOCKED, 1)

    _end(session, jobs["c"], S.COMPLETED)

    assert [(move.job_id, move.verb) for move in _settle(session)] == [("z", "release")]


def test_parents_that_end_in_one_turn_are_counted_each(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "", "c": "", "z": "abc"})
    for name in "abc":
        _end(session, jobs[name], S.COMPLETED)

    (move,) = _settle(session)

    session.refresh(jobs["z"])
    assert (move.job_id, jobs["z"].open_dependencies) == ("z", 0)


def test_the_end_of_one_job_frees_all_behind_it_in_their_order(session: Session) -> None:
    jobs = _graph(session, {"a": "", "q": "a", "c": "a", "x": "a", "b": "a"})
    _end(session, jobs["a"], S.COMPLETED)

    moves = _settle(session)

    line = select(Job.job_id).join(Ready, Ready.job_id == Job.id).order_by(Ready.rank, Job.id)
    assert [move.job_id for move in moves] == list("qcxb")
    assert session.scalars(line).all() == list("qcxb")


def test_a_diamond_runs_from_its_top_to_its_bottom(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "a", "c": "a", "d": "bc"})

    freed = []
    for name in "abcd":
        _end(session, jobs[name], S.COMPLETED)
        freed += [(name, move.job_id) for move in _settle(session)]

    assert freed == [("a", "b"), ("a", "c"), ("c", "d")]


def test_a_job_freed_joins_its_line_when_it_is_freed(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "a"})
    _end(session, jobs["a"], S.COMPLETED)

    (move,) = _settle(session)

    session.refresh(jobs["b"])
    row = session.scalars(select(Ready)).one()
    assert jobs["b"].ready_at == move.at
    assert (row.job_id, row.rank) == (jobs["b"].id, jobs["b"].rank)


# Conditions


@pytest.mark.parametrize(
    ("when", "ended", "becomes"),
    [
        (C.COMPLETED, S.COMPLETED, S.READY),
        (C.COMPLETED, S.FAILED, S.CANCELLED),
        (C.COMPLETED, S.CANCELLED, S.CANCELLED),
        (C.FINISHED, S.COMPLETED, S.READY),
        (C.FINISHED, S.FAILED, S.READY),
        (C.FINISHED, S.CANCELLED, S.READY),
        (C.FAILED, S.COMPLETED, S.CANCELLED),
        (C.FAILED, S.FAILED, S.READY),
        (C.FAILED, S.CANCELLED, S.CANCELLED),
    ],
)
@pytest.mark.parametrize("parent_first", [True, False])
def test_a_condition_decides_what_the_end_of_a_parent_means(
    session: Session, when: Condition, ended: JobStatus, becomes: JobStatus, *, parent_first: bool
) -> None:
    if parent_first:
        make_type(session)
        parent = make_job(session, make_user(session), ended, job_id="a")
        wanted = make_submission("b", depends_on=(("a", when),))
        child = session.get_one(Job, submit(session, parent.owner_id, [wanted], batch=False).ids[0])
    else:
        jobs = _graph(session, {"a": "", "b": "a"}, when)
        child = jobs["b"]
        _end(session, jobs["a"], ended)

    _settle(session)

    session.refresh(child)
    assert child.status == becomes
    expected = CancelReason.DEPENDENCY_FAILED if becomes is S.CANCELLED else None
    assert child.reason == expected


def test_a_parent_that_is_tried_again_decides_nothing_yet(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "a"})
    _run(session, jobs["a"])
    work.fail(session, work.Failure(jobs["a"].id, 1, "E", "no"))

    assert _settle(session) == []
    assert _statuses(session, jobs) == {"a": S.RETRYING, "b": S.BLOCKED}


# Failure


def test_a_failure_cancels_everything_behind_it_and_names_the_first(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "a", "c": "b", "d": "bc", "e": ""})
    _end(session, jobs["a"], S.FAILED)

    moves = _settle_all(session)

    assert {move.job_id: move.data for move in moves} == {
        name: {"reason": "dependency_failed", "from": "blocked", "root": "a"} for name in "bcd"
    }
    assert {jobs[name].reason_job_id for name in "bcd"} == {"a"}
    assert _statuses(session, jobs)["e"] == S.READY


def test_a_cancelled_job_is_the_root_of_what_is_cancelled_for_it(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "a", "c": "b"})
    cancel(session, jobs["b"].id)

    _settle_all(session)

    session.expire_all()
    assert [jobs[name].reason for name in "bc"] == [
        CancelReason.BY_USER,
        CancelReason.DEPENDENCY_FAILED,
    ]
    assert jobs["c"].reason_job_id == "b"


def test_a_child_of_a_failed_and_of_a_running_parent_is_cancelled_at_once(
    session: Session,
) -> None:
    jobs = _graph(session, {"a": "", "b": "", "z": "ab"})
    _end(session, jobs["a"], S.FAILED)

    (move,) = _settle(session)

    assert (move.job_id, move.status) == ("z", S.CANCELLED)
    _end(session, jobs["b"], S.COMPLETED)
    assert _settle_all(session) == []


def test_parents_of_which_one_failed_in_the_same_turn_free_nobody(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "", "z": "ab"})
    _end(session, jobs["a"], S.FAILED)
    _end(session, jobs["b"], S.COMPLETED)

    assert [(move.job_id, move.status) for move in _settle(session)] == [("z", S.CANCELLED)]


def test_whoever_waits_for_any_end_goes_on_behind_a_failure(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "a"}, C.FINISHED)
    cleaner = make_submission("z", depends_on=(("b", C.FINISHED),))
    submit(session, jobs["a"].owner_id, [cleaner], batch=False)
    _end(session, jobs["a"], S.FAILED)
    _settle_all(session)
    _end(session, jobs["b"], S.FAILED)

    assert [(move.job_id, move.status) for move in _settle_all(session)] == [("z", S.READY)]


def test_a_scheduled_child_is_cancelled_with_its_timers(session: Session) -> None:
    owner = make_user(session)
    parent = make_job(session, owner, S.FAILED)
    child = make_job(session, owner, S.SCHEDULED, open_dependencies=1, start_by=NOON + MINUTE)
    make_dependency(session, child, parent)
    session.add(Feed(kind="linked", job_id=child.id, owner_id=owner.id))
    session.flush()

    _settle(session)

    session.refresh(child)
    assert child.status == S.CANCELLED
    assert session.scalars(select(Timer)).all() == []


def test_a_scheduled_child_counts_down_and_waits_for_its_time(session: Session) -> None:
    owner = make_user(session)
    parent = make_job(session, owner, S.COMPLETED)
    child = make_job(session, owner, S.SCHEDULED, open_dependencies=1)
    make_dependency(session, child, parent)
    session.add(Feed(kind="linked", job_id=child.id, owner_id=owner.id))
    session.flush()

    assert _settle(session) == []

    session.refresh(child)
    assert (child.status, child.open_dependencies) == (S.SCHEDULED, 0)
    (move,) = release_due(session, now=NOON + MINUTE, limit=10)
    assert move.status is S.READY


# Once


def test_an_edge_is_counted_once_however_often_it_is_told(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "", "z": "ab"})
    _end(session, jobs["a"], S.COMPLETED)
    rows = dependencies.take(session, limit=10)

    for _ in range(3):
        assert dependencies.resolve(session, rows) == []

    session.refresh(jobs["z"])
    assert jobs["z"].open_dependencies == 1


def test_a_child_told_by_its_link_and_by_its_parents_end_is_counted_once(
    session: Session,
) -> None:
    make_type(session)
    parent = make_job(session, make_user(session), S.RUNNING, job_id="a")
    other = make_job(session, session.get_one(User, parent.owner_id), S.RUNNING, job_id="b")
    wanted = make_submission(depends_on=(("a", C.COMPLETED), ("b", C.COMPLETED)))
    (child,) = submit(session, parent.owner_id, [wanted], batch=False).ids
    work.succeed(session, [work.Success(parent.id, 1, None)])

    assert _settle(session) == []

    assert session.get_one(Job, child, populate_existing=True).open_dependencies == 1
    work.succeed(session, [work.Success(other.id, 1, None)])
    assert [move.id for move in _settle(session)] == [child]


def test_the_feed_is_taken_in_its_order_and_in_portions(session: Session) -> None:
    owner = make_user(session)
    jobs = [make_job(session, owner, S.RUNNING) for _ in range(5)]
    for job in reversed(jobs):
        work.succeed(session, [work.Success(job.id, 1, None)])

    portions = [dependencies.take(session, limit=2) for _ in range(4)]

    assert [[row.job_id for row in rows] for rows in portions] == [
        [jobs[4].id, jobs[3].id],
        [jobs[2].id, jobs[1].id],
        [jobs[0].id],
        [],
    ]


# Running again


def test_a_job_run_again_waits_for_what_has_not_come_about(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "", "z": "ab"})
    _end(session, jobs["a"], S.COMPLETED)
    _end(session, jobs["b"], S.FAILED)
    _settle_all(session)

    run_again(session, jobs["b"].id)
    (move,) = run_again(session, jobs["z"].id)
    _settle_all(session)

    assert move.status is S.BLOCKED
    assert _statuses(session, jobs)["z"] == S.BLOCKED
    session.expire_all()
    _end(session, jobs["b"], S.COMPLETED)
    assert [(each.job_id, each.status) for each in _settle_all(session)] == [("z", S.READY)]


def test_a_job_run_again_behind_a_failure_is_cancelled_again(session: Session) -> None:
    jobs = _graph(session, {"a": "", "z": "a"})
    _end(session, jobs["a"], S.FAILED)
    _settle_all(session)

    run_again(session, jobs["z"].id)
    _settle_all(session)

    assert _statuses(session, jobs)["z"] == S.CANCELLED
    assert jobs["z"].reason_job_id == "a"


def test_a_failed_job_run_again_has_fresh_attempts_and_the_last_place(session: Session) -> None:
    job = make_job(
        session, make_user(session), S.FAILED, attempt=3, crashes=2, start_by=NOON, rank=1
    )

    (move,) = run_again(session, job.id)

    session.refresh(job)
    assert (move.verb, move.data) == ("run_again", {"from": "failed"})
    assert (job.status, job.attempt, job.attempts_forgiven, job.crashes) == (S.READY, 3, 3, 0)
    assert (job.error_type, job.finished_at, job.start_by) == (None, None, None)
    assert job.rank == session.scalar(select(func.extract("epoch", func.now()) * 1_000_000))


def test_a_parent_settled_while_its_child_is_run_again_is_not_waited_for(
    committed_engine: Engine,
) -> None:
    def make(session: Session) -> tuple[int, int]:
        owner = make_user(session)
        parent = make_job(session, owner, S.COMPLETED)
        child = make_job(session, owner, S.CANCELLED, open_dependencies=1)
        make_dependency(session, child, parent)
        session.add(Feed(kind="ended", job_id=parent.id, owner_id=owner.id))
        return parent.id, child.id

    _, child = committed(committed_engine, make)

    _, (move,) = one_after_the_other(
        committed_engine, _settle, lambda session: run_again(session, child)
    )

    assert move.status is S.READY


# Size


def test_a_chain_of_a_thousand_is_cancelled_in_turns_of_bounded_work(session: Session) -> None:
    chain = _long_chain(session, 1000)
    _end(session, chain[0], S.FAILED)
    turns, most = 0, 0
    began = time.perf_counter()

    while moves := _settle(session):
        turns, most = turns + 1, max(most, len(moves))

    left = select(func.count()).select_from(Job).where(Job.status == S.BLOCKED)
    assert (turns, most, session.scalar(left)) == (999, 1, 0)
    assert {job.reason_job_id for job in chain[1:]} == {chain[0].job_id}
    assert time.perf_counter() - began < 90


def _long_chain(session: Session, length: int) -> list[Job]:
    owner = make_user(session)
    first = make_job(session, owner)
    rest = [
        Job(**_columns_like(first) | {"job_id": f"link{n}", "status": S.BLOCKED})
        for n in range(1, length)
    ]
    session.add_all(rest)
    session.flush()
    chain = [first, *rest]
    session.add_all(
        Dependency(child_id=child.id, parent_id=parent.id, condition=C.COMPLETED)
        for parent, child in itertools.pairwise(chain)
    )
    session.flush()
    return chain


def _columns_like(job: Job) -> dict[str, object]:
    columns = {column.key: getattr(job, column.key) for column in Job.__table__.columns}
    blocked = {"open_dependencies": 1, "rank": None, "ready_at": None}
    return {name: value for name, value in columns.items() if name != "id"} | blocked


def test_one_end_frees_thousands_in_one_statement(session: Session) -> None:
    owner = make_user(session)
    parent = make_job(session, owner)
    like = _columns_like(parent)
    children = [Job(**like | {"job_id": f"c{n}", "status": S.BLOCKED}) for n in range(2000)]
    session.add_all(children)
    session.flush()
    session.add_all(
        Dependency(child_id=child.id, parent_id=parent.id, condition=C.COMPLETED)
        for child in children
    )
    session.flush()
    _end(session, parent, S.COMPLETED)
    began = time.perf_counter()

    assert len(_settle(session)) == 2000

    assert time.perf_counter() - began < 60
