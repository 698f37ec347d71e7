"""What the end of one job means for those that wait for it."""

import random
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, text
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


def test_what_waits_for_a_job_cancelled_before_names_that_one(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "a", "c": "b", "d": "c"})
    _end(session, jobs["a"], S.FAILED)
    cancel(session, jobs["c"].id)
    told = dependencies.take(session, limit=1000)

    first = [row for row in told if row.job_id == jobs["a"].id]
    dependencies.resolve(session, first)
    assert [_statuses(session, jobs)[name] for name in "bd"] == [S.CANCELLED, S.BLOCKED]

    dependencies.resolve(session, [row for row in told if row not in first])
    assert [_statuses(session, jobs)[name] for name in "bd"] == [S.CANCELLED] * 2
    assert [jobs[name].reason_job_id for name in "bd"] == ["a", "c"]


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

    run_again(session, [jobs["b"].id])
    (move,) = run_again(session, [jobs["z"].id])
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

    run_again(session, [jobs["z"].id])
    _settle_all(session)

    assert _statuses(session, jobs)["z"] == S.CANCELLED
    assert jobs["z"].reason_job_id == "a"


def test_a_failed_job_run_again_has_fresh_attempts_and_the_last_place(session: Session) -> None:
    job = make_job(
        session, make_user(session), S.FAILED, attempt=3, crashes=2, start_by=NOON, rank=1
    )

    (move,) = run_again(session, [job.id])

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

    one_after_the_other(committed_engine, _settle, lambda session: run_again(session, [child]))

    (move,) = committed(committed_engine, _settle)
    assert (move.id, move.verb, move.status) == (child, "release", S.READY)


def test_an_edge_that_is_met_meanwhile_is_not_counted_again(committed_engine: Engine) -> None:
    def make(session: Session) -> int:
        owner = make_user(session)
        ended, other = make_job(session, owner, S.COMPLETED), make_job(session, owner)
        child = make_job(session, owner, S.BLOCKED, open_dependencies=2)
        make_dependency(session, child, ended)
        make_dependency(session, child, other)
        session.add(Feed(kind="ended", job_id=ended.id, owner_id=owner.id))
        return child.id

    child = committed(committed_engine, make)
    told = committed(committed_engine, lambda session: dependencies.take(session, limit=10))

    def meet(session: Session) -> list[Move]:
        return dependencies.resolve(session, told)

    assert one_after_the_other(committed_engine, meet, meet) == ([], [])

    job = committed(committed_engine, lambda session: session.get_one(Job, child))
    assert (job.status, job.open_dependencies) == (S.BLOCKED, 1)


def test_a_child_its_owner_cancels_meanwhile_is_not_cancelled_again(
    committed_engine: Engine,
) -> None:
    def make(session: Session) -> tuple[int, int]:
        owner = make_user(session)
        parent = make_job(session, owner, S.FAILED)
        child = make_job(session, owner, S.BLOCKED, open_dependencies=1)
        make_dependency(session, child, parent)
        session.add(Feed(kind="ended", job_id=parent.id, owner_id=owner.id))
        return parent.id, child.id

    _, child = committed(committed_engine, make)

    _, moves = one_after_the_other(
        committed_engine, lambda session: cancel(session, child), _settle
    )

    assert moves == []
    job = committed(committed_engine, lambda session: session.get_one(Job, child))
    assert (job.status, job.reason) == (S.CANCELLED, CancelReason.BY_USER)


def test_what_a_failure_has_met_its_success_later_does_not_undo(session: Session) -> None:
    jobs = _graph(session, {"a": "", "z": ""})
    owner = session.get_one(User, jobs["a"].owner_id)
    depends_on = (("a", C.FAILED), ("z", C.COMPLETED))
    (child,) = submit(
        session, owner.id, [make_submission("child", depends_on=depends_on)], batch=False
    ).ids
    _end(session, jobs["a"], S.FAILED)
    _settle_all(session)
    run_again(session, [jobs["a"].id])
    _end(session, jobs["a"], S.COMPLETED)

    _settle_all(session)

    job = session.get_one(Job, child, populate_existing=True)
    assert (job.status, job.open_dependencies) == (S.BLOCKED, 1)


# What was cancelled because of a job that runs again


def test_what_was_cancelled_because_of_a_job_waits_for_it_again(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "a", "c": "b", "d": "ac"})
    _end(session, jobs["a"], S.FAILED)
    _settle_all(session)
    assert list(_statuses(session, jobs).values()) == [S.FAILED, *[S.CANCELLED] * 3]

    run_again(session, [jobs["a"].id])
    moves = _settle_all(session)

    assert [(move.job_id, move.verb) for move in moves] == [(n, "run_again") for n in "bcd"]
    assert list(_statuses(session, jobs).values()) == [S.READY, *[S.BLOCKED] * 3]
    assert [jobs[name].open_dependencies for name in "bcd"] == [1, 1, 2]
    assert {jobs[name].reason for name in "bcd"} == {None}
    for name in "abcd":
        _end(session, jobs[name], S.COMPLETED)
        _settle_all(session)
    assert jobs["d"].status == S.COMPLETED


def test_what_was_cancelled_for_another_reason_stays_cancelled(session: Session) -> None:
    jobs = _graph(session, {"a": "", "z": "", "b": "a", "c": "z", "d": "a", "e": "d"})
    cancel(session, jobs["d"].id)
    _end(session, jobs["a"], S.FAILED)
    _end(session, jobs["z"], S.FAILED)
    _settle_all(session)

    run_again(session, [jobs["a"].id])
    _settle_all(session)

    assert _statuses(session, jobs) == {
        "a": S.READY,
        "z": S.FAILED,
        "b": S.BLOCKED,
        "c": S.CANCELLED,
        "d": S.CANCELLED,
        "e": S.CANCELLED,
    }


def test_what_its_owner_runs_again_and_cancels_meanwhile_is_not_revived(
    committed_engine: Engine,
) -> None:
    def make(session: Session) -> tuple[int, int]:
        jobs = _graph(session, {"a": "", "b": "a"})
        _end(session, jobs["a"], S.FAILED)
        _settle_all(session)
        run_again(session, [jobs["a"].id])
        return jobs["a"].id, jobs["b"].id

    def run_again_and_cancel(session: Session) -> None:
        run_again(session, [child])
        cancel(session, child)

    _, child = committed(committed_engine, make)

    _, moves = one_after_the_other(committed_engine, run_again_and_cancel, _settle)

    assert moves == []
    job = committed(committed_engine, lambda session: session.get_one(Job, child))
    assert (job.status, job.reason) == (S.CANCELLED, CancelReason.BY_USER)


def test_what_waits_for_another_failed_job_as_well_is_cancelled_again(session: Session) -> None:
    jobs = _graph(session, {"a": "", "b": "", "c": "ab", "d": "c"})
    _end(session, jobs["a"], S.FAILED)
    _end(session, jobs["b"], S.FAILED)
    _settle_all(session)

    run_again(session, [jobs["a"].id])
    _settle_all(session)

    assert [_statuses(session, jobs)[name] for name in "cd"] == [S.CANCELLED] * 2
    assert {jobs[name].reason_job_id for name in "cd"} == {"b"}


def test_a_job_that_fails_again_before_it_is_taken_note_of_revives_nobody(
    session: Session,
) -> None:
    jobs = _graph(session, {"a": "", "b": "a", "c": "b", "d": "c"})
    _end(session, jobs["a"], S.FAILED)
    _settle_all(session)

    run_again(session, [jobs["a"].id])
    _end(session, jobs["a"], S.FAILED)

    assert _settle_all(session) == []
    assert [_statuses(session, jobs)[name] for name in "bcd"] == [S.CANCELLED] * 3
    assert {jobs[name].reason_job_id for name in "bcd"} == {"a"}


def test_a_job_that_completes_before_it_is_taken_note_of_frees_what_it_revives(
    session: Session,
) -> None:
    jobs = _graph(session, {"a": "", "b": "a", "c": "b"})
    _end(session, jobs["a"], S.FAILED)
    _settle_all(session)

    run_again(session, [jobs["a"].id])
    _end(session, jobs["a"], S.COMPLETED)
    _settle_all(session)

    assert [_statuses(session, jobs)[name] for name in "bc"] == [S.READY, S.BLOCKED]


# Size


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "EDGES_AT_ONCE", 7)
    monkeypatch.setattr(dependencies, "JOBS_AT_ONCE", 7)


SHAPES: dict[str, str] = {
    "a chain": "INSERT INTO dependencies SELECT id, id - 1, 'completed' FROM jobs WHERE id > :root",
    "a fan": "INSERT INTO dependencies SELECT id, :root, 'completed' FROM jobs WHERE id > :root",
    "a tree": "INSERT INTO dependencies"
    " SELECT id, :root + (id - :root) / 10, 'completed' FROM jobs WHERE id > :root",
    "layers": "INSERT INTO dependencies"
    " SELECT jobs.id, GREATEST(:root, jobs.id - 10 - n), 'completed'"
    " FROM jobs, generate_series(0, 2) AS n WHERE jobs.id > :root + 12"
    " UNION SELECT id, :root, 'completed' FROM jobs WHERE id BETWEEN :root + 1 AND :root + 12",
}


def _large(session: Session, shape: str, size: int) -> Job:
    """Make *size* jobs behind one, and return that one."""
    root = make_job(session, make_user(session))
    columns = [each.key for each in Job.__table__.columns if each.key not in {"id", "job_id"}]
    blocked = {"status": "'blocked'", "rank": "NULL", "ready_at": "NULL"}
    values = ", ".join(blocked.get(name, f"jobs.{name}") for name in columns)
    for statement in (
        (
            f"INSERT INTO jobs (job_id, {', '.join(columns)}) SELECT 'job' || n, {values}"  # noqa: S608 - of names of columns
            " FROM jobs CROSS JOIN generate_series(1, :size) AS n WHERE jobs.id = :root"
        ),
        SHAPES[shape],
        (
            "UPDATE jobs SET open_dependencies = (SELECT count(*) FROM dependencies"
            " WHERE child_id = jobs.id) WHERE id > :root"
        ),
    ):
        parameters = {"root": root.id, "size": size}
        bound = text(statement)
        session.execute(bound, {name: parameters[name] for name in bound._bindparams})
    session.execute(text("ANALYZE dependencies, jobs"))
    session.refresh(root)
    return root


def _statuses_behind(session: Session, root: Job) -> dict[str, int]:
    behind = select(Job.status, func.count()).where(Job.id > root.id).group_by(Job.status)
    return dict(session.execute(behind).all())


def _turns(session: Session) -> list[int]:
    """Settle until nothing is left in the feed; return how many jobs each turn moved."""
    moved = []
    while rows := dependencies.take(session, limit=1000):
        moved.append(len(dependencies.resolve(session, rows)))
    return moved


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_thousand_dependents_are_cancelled_in_turns_of_bounded_work(
    session: Session, shape: str
) -> None:
    root = _large(session, shape, 10_000)
    _end(session, root, S.FAILED)

    turns = _turns(session)

    assert _statuses_behind(session, root) == {S.CANCELLED: 10_000}
    roots = select(Job.reason_job_id).where(Job.id > root.id).distinct()
    assert session.scalars(roots).all() == [root.job_id]
    assert max(turns) <= dependencies.JOBS_AT_ONCE
    assert len(turns) <= 30


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("few_at_once")
def test_however_little_is_done_at_once_all_of_it_is_done_in_the_end(
    session: Session, shape: str
) -> None:
    root = _large(session, shape, 100)
    _end(session, root, S.FAILED)
    assert max(_turns(session)) <= 7
    assert _statuses_behind(session, root) == {S.CANCELLED: 100}

    run_again(session, [root.id])
    assert max(_turns(session)) <= 7
    assert _statuses_behind(session, root) == {S.BLOCKED: 100}

    _end(session, root, S.COMPLETED)
    assert max(_turns(session)) <= 7
    freed = _statuses_behind(session, root)
    assert freed.get(S.READY, 0) + freed.get(S.BLOCKED, 0) == 100
    assert freed[S.READY] == len(_behind(session, root))


def _behind(session: Session, root: Job) -> list[int]:
    """Return the jobs that wait for *root* and for nobody else."""
    alone = text(
        "SELECT child_id FROM dependencies GROUP BY child_id"
        " HAVING bool_and(parent_id = :root) ORDER BY child_id"
    )
    return list(session.scalars(alone, {"root": root.id}))


def test_one_end_frees_thousands_in_one_statement(session: Session) -> None:
    root = _large(session, "a fan", 2000)
    _end(session, root, S.COMPLETED)

    assert len(_settle(session)) == 2000


ENDINGS = st.lists(
    st.tuples(st.sampled_from(["end", "cancel", "again", "turn"]), st.integers(0, 2**16)),
    max_size=25,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32 - 1), happens=ENDINGS, at_once=st.integers(1, 4))
def test_whatever_happens_everybody_waits_for_what_can_still_come_about(
    session: Session, seed: int, happens: list[tuple[str, int]], at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, session.begin_nested() as saved:
        patch.setattr(dependencies, "EDGES_AT_ONCE", at_once)
        patch.setattr(dependencies, "JOBS_AT_ONCE", at_once)
        jobs = _some_graph(session, random.Random(seed))  # noqa: S311 - draws graphs, hides nothing
        for act, chosen in happens:
            _let_happen(session, act, jobs, chosen)
        _turns(session)
        session.expire_all()
        for job in jobs:
            _check_what_it_waits_for(session, job)
        saved.rollback()


def _some_graph(session: Session, chance: random.Random) -> list[Job]:
    make_type(session)
    batch = []
    for n in range(9):
        parents = {f"j{chance.randrange(n)}" for _ in range(chance.choice([0, 1, 1, 2, 3])) if n}
        waits_for = tuple((name, chance.choice([C.COMPLETED, C.COMPLETED, *C])) for name in parents)
        batch.append(make_submission(f"j{n}", depends_on=waits_for))
    ids = submit(session, make_user(session).id, batch, batch=True).ids
    return [session.get_one(Job, number) for number in ids]


def _let_happen(session: Session, act: str, jobs: list[Job], chosen: int) -> None:
    job = jobs[chosen % len(jobs)]
    session.refresh(job)
    if act == "end" and job.status == S.READY:
        _end(session, job, S.COMPLETED if chosen % 3 else S.FAILED)
    elif act == "cancel":
        cancel(session, job.id)
    elif act == "again":
        run_again(session, [job.id])
    elif act == "turn":
        _settle(session, limit=1 + chosen % 3)


def _check_what_it_waits_for(session: Session, job: Job) -> None:
    edges = session.execute(
        select(Dependency, Job)
        .join(Job, Job.id == Dependency.parent_id)
        .where(Dependency.child_id == job.id)
    ).all()
    unmet = [(edge, parent) for edge, parent in edges if not edge.met]
    match job.status:
        case S.BLOCKED:
            assert job.open_dependencies == len(unmet) > 0
            assert all(parent.finished_at is None for _, parent in unmet), "settled by nobody"
        case S.READY:
            assert not unmet
        case S.CANCELLED if job.reason == CancelReason.DEPENDENCY_FAILED:
            assert any(parent.finished_at for _, parent in unmet), "nobody is to blame"
