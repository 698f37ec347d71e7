"""Changing a job that waits: in every status, beside the job, and against the leader."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from redis import Redis
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from scheduler.errors import NeverFits
from scheduler.models import Feed, Job, JobEvent, Ready, Searched, Timer, User
from scheduler.policy.experience import Estimate, Method, Verdict
from scheduler.policy.meters import rank, rank_offset
from scheduler.states import WAITING, Executor, FeedKind, JobClass, JobStatus
from scheduler.store import dependencies
from scheduler.store.admission import Admitted, admit
from scheduler.store.cancellation import cancel
from scheduler.store.changing import Change, change
from scheduler.store.moves import Move
from scheduler.store.timers import release_due
from tests.factories import (
    MINUTE,
    NOON,
    make_dependency,
    make_job,
    make_policy,
    make_submission,
    make_type,
    make_user,
    make_worker,
)
from tests.racing import committed, one_after_the_other
from tests.scheduler.installation import Installation

S = JobStatus
LATE = datetime(2200, 1, 1, tzinfo=UTC)
URGENT = Change(priority_level=0)
POSTPONED = Change(moves_time=True, run_at=LATE)
AT_ONCE = Change(moves_time=True)
EVERYTHING = Change(
    priority_level=8, tags=("x", "y"), cpu_units=Decimal("0.5"), memory_mb=64, moves_time=True,
    run_at=LATE,
)  # fmt: skip


@pytest.fixture
def owner(session: Session) -> User:
    make_type(session)
    return make_user(session)


def _job(session: Session, owner: User, status: JobStatus) -> Job:
    job = make_job(session, owner, status, rank_offset=rank_offset(JobClass.NORMAL, 5))
    if status is S.BLOCKED:
        make_dependency(session, job, make_job(session, owner))
    return job


def _told(session: Session) -> list[tuple[str, int | None]]:
    """Return what the leader has yet to take in."""
    rows = session.scalars(select(Feed).order_by(Feed.seq))
    return [(row.kind, row.rank) for row in rows]


def _timers(session: Session, job: Job) -> list[tuple[str, datetime]]:
    rows = session.scalars(select(Timer).where(Timer.job_id == job.id).order_by(Timer.kind))
    return [(row.kind, row.fire_at) for row in rows]


def _fresh(session: Session, job: Job) -> Job:
    return session.get_one(Job, job.id, populate_existing=True)


@pytest.mark.parametrize("status", JobStatus)
def test_a_job_is_changed_exactly_while_it_waits(
    session: Session, owner: User, status: JobStatus
) -> None:
    job = _job(session, owner, status)
    before = {name: getattr(job, name) for name in Job.__table__.columns.keys()}  # noqa: SIM118

    moves = change(session, job.id, EVERYTHING)

    changed = _fresh(session, job)
    if status in WAITING:
        assert len(moves) == 1
        assert (changed.priority_level, changed.job_class) == (8, JobClass.LOW)
        assert (changed.tags, changed.cpu_units, changed.memory_mb) == (
            ["x", "y"],
            Decimal("0.5"),
            64,
        )
        assert changed.run_at == changed.due_at == LATE
    else:
        assert moves == []
        assert {name: getattr(changed, name) for name in before} == before


@pytest.mark.parametrize("status", sorted(WAITING))
@pytest.mark.parametrize("wanted", [URGENT, Change(tags=("z",)), Change(memory_mb=64)], ids=str)
def test_what_is_not_named_stays(
    session: Session, owner: User, status: JobStatus, wanted: Change
) -> None:
    job = _job(session, owner, status)
    kept = (job.status, job.due_at, job.ready_at, job.run_at, job.cpu_units, job.attempt)

    (move,) = change(session, job.id, wanted)

    changed = _fresh(session, job)
    now = (changed.status, changed.due_at, changed.ready_at, changed.run_at, changed.cpu_units)
    assert (*now, changed.attempt) == kept
    assert (changed.tags == ["z"]) == (wanted.tags is not None)
    assert (changed.memory_mb == 64) == (wanted.memory_mb is not None)
    assert (changed.job_class == JobClass.CRITICAL) == (wanted is URGENT)
    assert (move.verb, move.status) == ("change", status)


def test_a_change_is_told_in_the_jobs_history(session: Session, owner: User) -> None:
    job = _job(session, owner, S.SCHEDULED)

    (move,) = change(session, job.id, EVERYTHING)

    event = session.scalars(select(JobEvent)).one()
    assert (event.seq, event.verb, event.status) == (move.seq, "change", S.SCHEDULED)
    assert event.data
    due_at = event.data.pop("due_at")
    assert datetime.fromisoformat(due_at) == LATE
    assert event.data == {
        "priority_level": 8,
        "tags": ["x", "y"],
        "cpu_units": 0.5,
        "memory_mb": 64,
    }


def test_a_job_in_line_keeps_the_time_it_has_waited(session: Session, owner: User) -> None:
    job = _job(session, owner, S.READY)

    change(session, job.id, Change(priority_level=0, tags=("a",), memory_mb=7))

    row = session.scalars(select(Ready)).one()
    assert row.rank == _fresh(session, job).rank == rank(NOON, JobClass.CRITICAL, 0)
    assert (row.job_id, row.job_class, row.tags, row.memory_mb) == (job.id, "critical", ["a"], 7)
    assert row.ready_at == NOON


@pytest.mark.parametrize("level", [0, 10])
def test_the_leader_is_told_from_which_place_on_the_line_has_changed(
    session: Session, owner: User, level: int
) -> None:
    job = _job(session, owner, S.READY)
    before = job.rank
    assert before is not None

    change(session, job.id, Change(priority_level=level))

    after = _fresh(session, job).rank
    assert after is not None
    assert _told(session) == [(FeedKind.LINED, min(before, after))]


@pytest.mark.parametrize("status", sorted(WAITING - {S.READY}))
def test_the_leader_is_not_told_of_jobs_that_are_not_in_line(
    session: Session, owner: User, status: JobStatus
) -> None:
    change(session, _job(session, owner, status).id, EVERYTHING)

    assert _told(session) == []


@pytest.mark.parametrize("status", [S.SCHEDULED, S.BLOCKED])
def test_a_job_gets_in_line_where_its_new_class_puts_it(
    session: Session, owner: User, status: JobStatus
) -> None:
    job = _job(session, owner, status)

    change(session, job.id, URGENT)

    changed = _fresh(session, job)
    assert (changed.rank, changed.rank_offset) == (None, rank_offset(JobClass.CRITICAL, 0))


@pytest.mark.parametrize("status", [S.SCHEDULED, S.RETRYING])
def test_the_timer_of_a_job_that_waits_for_its_time_goes_along(
    session: Session, owner: User, status: JobStatus
) -> None:
    job = make_job(session, owner, status, start_by=NOON + MINUTE)

    change(session, job.id, POSTPONED)

    assert _timers(session, job) == [("deadline", NOON + MINUTE), ("due", LATE)]
    assert release_due(session, now=NOON + 5 * MINUTE, limit=9) == []
    (released,) = release_due(session, now=LATE, limit=9)
    assert (released.id, released.status) == (job.id, S.READY)
    assert [kind for kind, _ in _timers(session, job)] == ["deadline"]


@pytest.mark.parametrize("status", [S.SCHEDULED, S.RETRYING])
def test_a_job_may_be_let_go_at_once(session: Session, owner: User, status: JobStatus) -> None:
    job = make_job(session, owner, status, run_at=LATE, due_at=LATE)

    change(session, job.id, AT_ONCE)

    assert _fresh(session, job).run_at is None
    now = session.scalars(select(func.now())).one()
    (released,) = release_due(session, now=now, limit=9)
    assert (released.id, released.status) == (job.id, S.READY)


@pytest.mark.parametrize("status", [S.READY, S.BLOCKED])
def test_a_job_whose_time_is_moved_into_the_future_is_scheduled_again(
    session: Session, owner: User, status: JobStatus
) -> None:
    job = _job(session, owner, status)

    (move,) = change(session, job.id, POSTPONED)

    changed = _fresh(session, job)
    assert (move.verb, move.status, changed.status) == ("postpone", S.SCHEDULED, S.SCHEDULED)
    assert (changed.rank, changed.ready_at, changed.due_at) == (None, None, LATE)
    assert session.scalars(select(Ready).where(Ready.job_id == job.id)).all() == []
    assert _timers(session, job) == [("due", LATE)]
    (released,) = release_due(session, now=LATE, limit=9)
    assert released.status == status


@pytest.mark.parametrize("status", [S.READY, S.BLOCKED])
@pytest.mark.parametrize("wanted", [AT_ONCE, Change(moves_time=True, run_at=NOON)], ids=str)
def test_a_time_that_has_come_holds_nobody_up(
    session: Session, owner: User, status: JobStatus, wanted: Change
) -> None:
    job = _job(session, owner, status)

    (move,) = change(session, job.id, wanted)

    assert (move.verb, move.status) == ("change", status)
    assert _fresh(session, job).run_at == wanted.run_at
    assert _timers(session, job) == []


def test_a_job_is_found_by_its_new_tags(session: Session, owner: User) -> None:
    job = make_job(session, owner, job_id="it", description="told", tags=["old"])

    change(session, job.id, Change(tags=("new",)))

    row = session.get_one(Searched, job.id, populate_existing=True)
    assert (row.tags, row.text) == (["new"], "it\ntold\nnew")


@pytest.mark.parametrize("status", sorted(WAITING))
@pytest.mark.parametrize(
    "wanted", [Change(cpu_units=Decimal("8.001")), Change(memory_mb=5000)], ids=["cpu", "memory"]
)
def test_a_job_cannot_be_made_larger_than_the_machine(
    session: Session, owner: User, status: JobStatus, wanted: Change
) -> None:
    make_worker(session)
    job = _job(session, owner, status)

    with pytest.raises(NeverFits) as refusal:
        change(session, job.id, wanted)

    assert refusal.value.path == "resource_requirements"
    assert _fresh(session, job).cpu_units == 1


def test_a_job_that_has_outgrown_the_machine_may_be_made_to_fit_in_steps_of_both(
    session: Session, owner: User
) -> None:
    make_worker(session)
    make_policy(session, cap_memory_mb=256)
    job = make_job(session, owner, memory_mb=512, cpu_units=Decimal(4))

    with pytest.raises(NeverFits):
        change(session, job.id, Change(cpu_units=Decimal(1)))
    assert change(session, job.id, Change(memory_mb=256))


def test_a_job_for_pull_workers_may_be_larger_than_the_machine(
    session: Session, owner: User
) -> None:
    make_worker(session)
    job = make_job(session, owner, executor=Executor.PULL)

    assert change(session, job.id, Change(memory_mb=50_000))


def test_what_is_too_large_to_change_and_runs_is_refused_because_it_runs(
    session: Session, owner: User
) -> None:
    make_worker(session)
    job = make_job(session, owner, S.RUNNING)

    assert change(session, job.id, Change(memory_mb=50_000)) == []


# Against others


def _ready_job(engine: Engine) -> int:
    def make(session: Session) -> int:
        make_type(session)
        return _job(session, make_user(session), S.READY).id

    return committed(engine, make)


def _admit(job: int) -> Callable[[Session], list[Move]]:
    wanted = [Admitted(job, 0.5, express=False, expected_seconds=1.0)]
    return lambda session: admit(session, wanted, epoch=1)


def test_a_job_that_is_just_admitted_is_not_changed(committed_engine: Engine) -> None:
    job = _ready_job(committed_engine)

    admitted, changed = one_after_the_other(
        committed_engine, _admit(job), lambda session: change(session, job, EVERYTHING)
    )

    assert len(admitted) == 1
    assert changed == []
    with Session(committed_engine) as session:
        assert session.get_one(Job, job).tags == []
        assert session.scalars(select(Timer)).all() == []


def test_the_leader_leaves_a_job_alone_that_is_just_changed(committed_engine: Engine) -> None:
    job = _ready_job(committed_engine)

    changed, admitted = one_after_the_other(
        committed_engine, lambda session: change(session, job, URGENT), _admit(job)
    )

    assert len(changed) == 1
    assert admitted == []
    assert len(committed(committed_engine, _admit(job))) == 1
    with Session(committed_engine) as session:
        assert session.scalars(select(Ready)).all() == []


def test_of_two_changes_at_a_time_both_are_made(committed_engine: Engine) -> None:
    job = _ready_job(committed_engine)

    one_after_the_other(
        committed_engine,
        lambda session: change(session, job, Change(priority_level=0)),
        lambda session: change(session, job, Change(priority_level=9, tags=("a",))),
    )

    with Session(committed_engine) as session:
        row = session.scalars(select(Ready)).one()
        assert (row.rank, row.tags) == (rank(NOON, JobClass.LOW, 9), ["a"])
        assert session.get_one(Job, job).rank == row.rank


def test_a_job_that_is_just_cancelled_is_not_changed(committed_engine: Engine) -> None:
    job = _ready_job(committed_engine)

    _, changed = one_after_the_other(
        committed_engine,
        lambda session: cancel(session, job),
        lambda session: change(session, job, POSTPONED),
    )

    assert changed == []


@pytest.fixture
def here(committed_engine: Engine, redis_client: Redis) -> Iterator[Installation]:
    """A scheduler with room for one job at a time."""
    installation = Installation(committed_engine, redis_client)

    def prepare(session: Session) -> None:
        make_type(session)
        make_worker(session, processes=1, processes_max=1)

    installation.do(prepare)
    yield installation
    installation.lease.release()


def test_the_leader_follows_a_change_in_its_next_turn(here: Installation) -> None:
    owner = here.do(lambda session: make_user(session).id)
    first, second, third = here.submit(owner, *(make_submission() for _ in range(3)))
    here.tick()
    assert here.job(first).status == S.QUEUED

    here.do(lambda session: change(session, third, URGENT))
    here.do(lambda session: change(session, second, Change(cpu_units=Decimal(4))))
    here.tick()
    engine = here.scheduler._memory.mirror.engine
    line = engine.line_of(owner)

    assert [job.id for job in line] == [third, second]
    assert [(job.job_class, job.cpu_units) for job in line] == [("critical", 1), ("normal", 4)]
    here.do(lambda session: change(session, third, POSTPONED))
    here.tick()
    assert [job.id for job in engine.line_of(owner)] == [second]


def test_what_was_said_of_a_job_before_it_was_changed_is_not_held_against_the_forecast(
    here: Installation,
) -> None:
    owner = here.do(lambda session: make_user(session).id)
    _, second, third = here.submit(owner, *(make_submission() for _ in range(3)))
    here.tick()
    scorer, said = here.scheduler._memory.mirror.scorer, Estimate(LATE, LATE, Method.SIMULATION)
    scorer.publish({second: said, third: said}, {second: JobClass.NORMAL, third: JobClass.NORMAL})

    here.do(lambda session: change(session, third, URGENT))
    mirror = here.scheduler._memory.mirror
    with Session(here.engine) as session:
        mirror.follow(session, dependencies.take(session, limit=10), [], here.now())
    scorer.started({second: NOON, third: NOON})

    (score,) = scorer.take()
    assert score.verdicts == {Verdict.EARLY: 1}
