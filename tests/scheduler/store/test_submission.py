"""Taking jobs in: all of a submission or none of it, each told why if not."""

from collections.abc import Iterator, Sequence
from datetime import UTC, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session

from scheduler import retry
from scheduler.errors import (
    BacklogFull,
    DependencyCycle,
    JobIdConflict,
    NeverFits,
    PayloadInvalid,
    SubmissionRefused,
    UnknownDependency,
    UnknownType,
    WrongExecutor,
)
from scheduler.models import (
    Dependency,
    Feed,
    Job,
    JobEvent,
    JobType,
    PolicyVersion,
    Ready,
    Searched,
    Timer,
    User,
)
from scheduler.policy.hours import DAYS
from scheduler.policy.meters import rank
from scheduler.policy.parameters import EXPECTED_DEFAULT
from scheduler.states import FINISHED, UNFINISHED, Condition, Executor, JobClass, JobStatus
from scheduler.store import dependencies, work
from scheduler.store.submission import UNREGISTERED_TIMEOUT, Submission, Submitted, submit
from tests.factories import (
    NOON,
    make_group,
    make_job,
    make_policy,
    make_submission,
    make_type,
    make_user,
    make_worker,
)
from tests.racing import all_at_once, committed, one_after_the_other

S = JobStatus
HOUR = timedelta(hours=1)
DEFAULT = EXPECTED_DEFAULT.total_seconds()
AFTER = Condition.COMPLETED


@pytest.fixture
def owner(session: Session) -> User:
    make_type(session, executors=[Executor.CELERY, Executor.PULL])
    return make_user(session)


def _submit_one(session: Session, owner: User, submission: Submission) -> Job:
    (number,) = submit(session, owner.id, [submission], batch=False).ids
    return session.get_one(Job, number, populate_existing=True)


def _submit(session: Session, owner: User, *submissions: Submission) -> Submitted:
    return submit(session, owner.id, submissions, batch=True)


def _jobs(session: Session, submitted: Submitted) -> list[Job]:
    return [session.get_one(Job, number, populate_existing=True) for number in submitted.ids]


def _count(session: Session, model: type[Any]) -> int:
    return session.scalar(select(func.count()).select_from(model)) or 0


def _waits_for(*parents: str) -> tuple[tuple[str, Condition], ...]:
    return tuple((parent, AFTER) for parent in parents)


# What a job gets


def test_what_is_left_out_is_the_choice_of_the_type(session: Session) -> None:
    make_type(
        session,
        "render",
        cpu_units=Decimal("2.5"),
        memory_mb=640,
        timeout_seconds=90.0,
        retry_config={"max_attempts": 7},
        executors=[Executor.PULL, Executor.CELERY],
    )

    job = _submit_one(session, make_user(session), make_submission(type="render"))

    assert (job.cpu_units, job.memory_mb) == (Decimal("2.5"), 640)
    assert (job.timeout_seconds, job.executor) == (90, Executor.PULL)
    assert job.retry_config == dict(retry.DEFAULTS) | {"max_attempts": 7}


def test_what_is_said_goes_before_the_type(session: Session, owner: User) -> None:
    wanted = make_submission(
        "mine",
        payload={"a": [1, {"b": None}]},
        description="what for",
        tags=("x", "y z"),
        priority_level=1,
        job_class=JobClass.HIGH,
        cpu_units=Decimal("0.125"),
        memory_mb=1,
        retry_config={"strategy": "none"},
        timeout_seconds=1.5,
        estimated_seconds=0.5,
        executor=Executor.PULL,
        callback_url="https://example.org/done",
        request_id="r1",
    )

    job = _submit_one(session, owner, wanted)

    assert (job.job_id, job.owner_id, job.type) == ("mine", owner.id, "simulate")
    assert (job.payload, job.tags) == ({"a": [1, {"b": None}]}, ["x", "y z"])
    assert (job.description, job.request_id) == ("what for", "r1")
    assert (job.priority_level, job.job_class) == (1, JobClass.HIGH)
    assert (job.cpu_units, job.memory_mb) == (Decimal("0.125"), 1)
    assert job.retry_config == dict(retry.DEFAULTS) | {"strategy": "none"}
    assert (job.timeout_seconds, job.estimated_seconds) == (1.5, 0.5)
    assert (job.executor, job.callback_url) == (Executor.PULL, "https://example.org/done")
    assert (job.status, job.attempt, job.open_dependencies) == (S.READY, 0, 0)


def test_who_does_not_run_a_type_is_not_given_jobs_of_it(session: Session, owner: User) -> None:
    make_type(session, "email", executors=[Executor.CELERY])

    with pytest.raises(WrongExecutor, match="'email' are run by celery") as refused:
        _submit(session, owner, make_submission(type="email", executor=Executor.PULL))

    assert refused.value.path == "jobs.0.executor"


def test_pull_workers_run_types_that_nobody_has_registered(session: Session, owner: User) -> None:
    wanted = make_submission(type="ocr", executor=Executor.PULL, payload={"page": 1})

    job = _submit_one(session, owner, wanted)

    assert (job.type, job.executor, job.status) == ("ocr", Executor.PULL, S.READY)
    assert (job.cpu_units, job.memory_mb) == (1, 128)
    assert job.timeout_seconds == UNREGISTERED_TIMEOUT.total_seconds()
    assert job.retry_config == dict(retry.DEFAULTS)
    assert _count(session, JobType) == 1


def test_jobs_for_pull_workers_may_be_larger_than_the_machine(
    session: Session, owner: User
) -> None:
    make_worker(session, cpu_units=Decimal(2), memory_mb=1000)
    large = make_submission(executor=Executor.PULL, cpu_units=Decimal(64), memory_mb=10**6)

    assert _submit_one(session, owner, large).memory_mb == 10**6


def test_a_job_without_a_name_gets_one(session: Session, owner: User) -> None:
    names = [
        job.job_id for job in _jobs(session, _submit(session, owner, *[make_submission()] * 3))
    ]

    assert len(set(names)) == 3
    for name in names:
        prefix, _, made = name.partition("_")
        assert (prefix, len(made), made) == ("job", 26, made.lower())


def test_a_submission_is_the_first_event_of_a_job(session: Session, owner: User) -> None:
    submitted = _submit(session, owner, make_submission("a"), make_submission("b"))

    events = session.scalars(select(JobEvent).order_by(JobEvent.seq)).all()
    assert [(event.job_id, event.verb, event.status) for event in events] == [
        (number, "submit", S.READY) for number in submitted.ids
    ]
    assert [move.seq for move in submitted.moves] == [event.seq for event in events]
    assert [move.job_id for move in submitted.moves] == ["a", "b"]


def test_a_ready_job_stands_in_its_owners_line(session: Session, owner: User) -> None:
    wanted = make_submission(job_class=JobClass.CRITICAL, cpu_units=Decimal(3), tags=("a", "b"))

    job = _submit_one(session, owner, wanted)

    row = session.scalars(select(Ready)).one()
    assert job.rank == rank(job.created_at, JobClass.CRITICAL, 0)
    assert (row.job_id, row.rank, row.ready_at) == (job.id, job.rank, job.ready_at)
    assert (row.job_class, row.cpu_units, row.tags) == (JobClass.CRITICAL, 3, ["a", "b"])


def test_what_a_job_says_is_kept_for_searching(session: Session, owner: User) -> None:
    wanted = make_submission("a", description="100% wool", tags=("knit", "warm"))
    said, silent = _jobs(session, _submit(session, owner, wanted, make_submission("b")))

    rows = session.scalars(select(Searched).order_by(Searched.job_id)).all()
    assert [row.job_id for row in rows] == [said.id, silent.id]
    assert [row.text for row in rows] == ["a\n100% wool\nknit\nwarm", "b\n"]
    assert [row.tags for row in rows] == [["knit", "warm"], []]
    assert {(row.type, row.created_at) for row in rows} == {("simulate", said.created_at)}


@pytest.mark.parametrize(
    ("estimate", "timeout", "expected"),
    [
        (None, 60.0, DEFAULT),
        (None, 0.1, 0.1),
        (30.0, 60.0, 30.0),
        (30.0, 20.0, 20.0),
        (0.0, 9.0, 0.01),
    ],
)
def test_what_a_job_is_expected_to_take_is_its_estimate_within_its_timeout(
    session: Session, owner: User, estimate: float | None, timeout: float, expected: float
) -> None:
    wanted = make_submission(estimated_seconds=estimate, timeout_seconds=timeout)

    _submit_one(session, owner, wanted)

    in_line = session.execute(select(Ready.expected_seconds, Ready.timeout_seconds)).one()
    assert in_line == (expected, timeout)


def test_a_batch_keeps_its_order_whatever_its_names(session: Session, owner: User) -> None:
    names = [f"{(n * 37) % 101}" for n in range(100)]

    submitted = _submit(session, owner, *[make_submission(name) for name in names])

    in_line = select(Job.job_id).join(Ready, Ready.job_id == Job.id)
    line = session.scalars(in_line.order_by(Ready.rank, Ready.job_id)).all()
    assert [job.job_id for job in _jobs(session, submitted)] == list(line) == names
    assert list(submitted.ids) == sorted(submitted.ids)


# Times


@pytest.mark.parametrize("when", ["run_at", "delay_seconds"])
def test_a_job_for_later_is_scheduled(session: Session, owner: User, when: str) -> None:
    now = session.scalar(select(func.now()))
    assert now
    wanted = {"run_at": now + HOUR, "delay_seconds": 3600.0}

    job = _submit_one(session, owner, make_submission(**{when: wanted[when]}))

    timer = session.scalars(select(Timer)).one()
    assert (job.status, job.rank, job.ready_at) == (S.SCHEDULED, None, None)
    assert job.run_at == job.due_at == timer.fire_at == now + HOUR
    assert (timer.job_id, timer.kind) == (job.id, "due")
    assert _count(session, Ready) == 0


def test_a_time_that_has_come_does_not_hold_a_job_up(session: Session, owner: User) -> None:
    job = _submit_one(session, owner, make_submission(run_at=NOON - HOUR))

    assert (job.status, job.due_at, job.run_at) == (S.READY, None, NOON - HOUR)
    assert _count(session, Timer) == 0


def test_a_job_for_later_that_waits_for_others_is_scheduled_first(
    session: Session, owner: User
) -> None:
    batch = [
        make_submission("a"),
        make_submission("b", delay_seconds=60, depends_on=_waits_for("a")),
    ]

    _, job = _jobs(session, _submit(session, owner, *batch))

    assert (job.status, job.open_dependencies) == (S.SCHEDULED, 1)


@pytest.mark.parametrize("delay", [None, 60.0])
def test_a_deadline_is_a_timer(session: Session, owner: User, delay: float | None) -> None:
    deadline = NOON + 100_000 * HOUR

    job = _submit_one(session, owner, make_submission(start_by=deadline, delay_seconds=delay))

    timers = {timer.kind: timer.fire_at for timer in session.scalars(select(Timer))}
    assert timers.pop("deadline") == job.start_by == deadline
    assert set(timers) == ({"due"} if delay else set())


# The same again


def test_the_same_job_again_is_the_job_that_is_there(session: Session, owner: User) -> None:
    first = _submit_one(session, owner, make_submission("a", payload={"x": 1, "y": [2]}))

    again = submit(
        session, owner.id, [make_submission("a", payload={"y": [2], "x": 1})], batch=False
    )

    assert again == Submitted((first.id,), 0, frozenset({first.id}), [])
    assert (_count(session, Job), _count(session, Ready), _count(session, JobEvent)) == (1, 1, 1)


DIFFERENT: dict[str, dict[str, Any]] = {
    "payload": {"payload": {"x": 2}},
    "description": {"description": "other"},
    "tags": {"tags": ("t",)},
    "priority": {"priority_level": 6},
    "dependencies": {"depends_on": (("p", AFTER),)},
    "condition": {"depends_on": (("p", Condition.FAILED),)},
    "cpu": {"cpu_units": Decimal(2)},
    "memory": {"memory_mb": 7},
    "retries": {"retry_config": {"max_attempts": 1}},
    "timeout": {"timeout_seconds": 7.0},
    "estimate": {"estimated_seconds": 7.0},
    "time": {"run_at": NOON},
    "delay": {"delay_seconds": 7.0},
    "deadline": {"start_by": NOON + HOUR},
    "executor": {"executor": Executor.PULL},
    "callback": {"callback_url": "https://example.org"},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_the_same_name_with_other_content_is_a_conflict(
    session: Session, owner: User, what: str
) -> None:
    make_job(session, owner, job_id="p")
    _submit_one(session, owner, make_submission("a"))

    with pytest.raises(JobIdConflict, match="'a'") as refused:
        _submit_one(session, owner, make_submission("a", **DIFFERENT[what]))

    assert refused.value.path == "job_id"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"cpu_units": Decimal("1.50")}, {"cpu_units": Decimal("1.5")}),
        ({"run_at": NOON}, {"run_at": NOON.astimezone()}),
        (
            {"depends_on": (("p", AFTER), ("q", AFTER))},
            {"depends_on": (("q", AFTER), ("p", AFTER))},
        ),
        ({"request_id": "r1"}, {"request_id": "r2"}),
    ],
)
def test_what_means_the_same_is_the_same(
    session: Session, owner: User, one: dict[str, Any], other: dict[str, Any]
) -> None:
    make_job(session, owner, job_id="p")
    make_job(session, owner, job_id="q")
    first = _submit_one(session, owner, make_submission("a", **one))

    assert _submit_one(session, owner, make_submission("a", **other)) is first


def test_names_belong_to_their_owners(session: Session, owner: User) -> None:
    other = make_user(session)

    mine = _submit_one(session, owner, make_submission("a", payload={"whose": "mine"}))
    theirs = _submit_one(session, other, make_submission("a", payload={"whose": "theirs"}))

    assert mine.id != theirs.id


def test_a_batch_may_hold_jobs_that_are_there(session: Session, owner: User) -> None:
    known = _submit_one(session, owner, make_submission("b"))
    batch = [
        make_submission("a"),
        make_submission("b"),
        make_submission("c", depends_on=_waits_for("b")),
    ]

    submitted = _submit(session, owner, *batch)

    a, b, c = _jobs(session, submitted)
    edge = session.scalars(select(Dependency)).one()
    assert (submitted.created, submitted.duplicates) == (2, {known.id})
    assert (b.id, [a.job_id, c.job_id]) == (known.id, ["a", "c"])
    assert (edge.child_id, edge.parent_id) == (c.id, known.id)


def test_a_batch_that_is_there_adds_nothing(session: Session, owner: User) -> None:
    batch = [make_submission("a", depends_on=_waits_for("b")), make_submission("b")]
    first = _submit(session, owner, *batch)

    again = _submit(session, owner, *batch)

    assert again == Submitted(first.ids, 0, frozenset(first.ids), [])
    assert (_count(session, Job), _count(session, Dependency)) == (2, 1)


def test_one_conflict_refuses_the_batch_and_names_the_place(session: Session, owner: User) -> None:
    _submit_one(session, owner, make_submission("b"))

    with pytest.raises(JobIdConflict) as refused, session.begin_nested():
        _submit(session, owner, make_submission("a"), make_submission("b", payload={"x": 1}))

    assert refused.value.path == "jobs.1.job_id"
    assert session.scalars(select(Job.job_id)).all() == ["b"]


def test_a_name_stands_in_a_batch_once(session: Session, owner: User) -> None:
    with pytest.raises(SubmissionRefused, match="twice") as refused:
        _submit(session, owner, make_submission("a"), make_submission("b"), make_submission("a"))

    assert refused.value.path == "jobs.2.job_id"


def test_a_key_makes_a_job_without_a_name_the_same_again(session: Session, owner: User) -> None:
    first = _submit_one(session, owner, make_submission(idempotency_key="k"))

    again = submit(session, owner.id, [make_submission(idempotency_key="k")], batch=False)

    assert (again.ids, again.created, again.duplicates) == ((first.id,), 0, {first.id})
    assert _submit_one(session, make_user(session), make_submission(idempotency_key="k")) != first


def test_a_key_with_other_content_is_a_conflict(session: Session, owner: User) -> None:
    first = _submit_one(session, owner, make_submission(idempotency_key="k"))

    with pytest.raises(JobIdConflict, match=first.job_id):
        _submit_one(session, owner, make_submission(idempotency_key="k", payload={"x": 1}))


# Refusals


def test_a_type_nobody_has_registered_is_refused(session: Session, owner: User) -> None:
    with pytest.raises(UnknownType, match="'mystery'") as refused:
        _submit(session, owner, make_submission(), make_submission(type="mystery"))

    assert refused.value.path == "jobs.1.type"
    assert _count(session, Job) == 0


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"seconds": "long"}, "payload.seconds"),
        ({"seconds": 1, "steps": [1, "two"]}, "payload.steps.1"),
        ({}, "payload"),
        ({"seconds": 1, "colour": "red"}, "payload"),
    ],
)
def test_a_payload_is_checked_against_the_schema_of_its_type(
    session: Session, owner: User, payload: dict[str, Any], path: str
) -> None:
    schema = {
        "type": "object",
        "required": ["seconds"],
        "additionalProperties": False,
        "properties": {
            "seconds": {"type": "number"},
            "steps": {"type": "array", "items": {"type": "integer"}},
        },
    }
    make_type(session, "strict", payload_schema=schema)

    for batch, prefix in ((False, ""), (True, "jobs.0.")):
        with pytest.raises(PayloadInvalid) as refused:
            submit(
                session, owner.id, [make_submission(type="strict", payload=payload)], batch=batch
            )
        assert refused.value.path == prefix + path
    _submit_one(session, owner, make_submission(type="strict", payload={"seconds": 1}))


def test_a_dependency_that_does_not_exist_is_refused(session: Session, owner: User) -> None:
    make_job(session, owner, job_id="there")
    make_job(session, make_user(session), job_id="theirs")

    for name in ("missing", "theirs"):
        wanted = make_submission("b", depends_on=_waits_for("there", "a", name))
        with pytest.raises(UnknownDependency, match=repr(name)) as refused:
            _submit(session, owner, make_submission("a"), wanted)
        assert refused.value.path == "jobs.1.depends_on.2"
    assert _count(session, Dependency) == 0


def test_a_circle_is_refused_by_name(session: Session, owner: User) -> None:
    batch = [
        make_submission("job_a", depends_on=_waits_for("job_c")),
        make_submission("job_b", depends_on=_waits_for("job_a")),
        make_submission("job_c", depends_on=_waits_for("job_b")),
    ]

    with pytest.raises(DependencyCycle) as refused:
        _submit(session, owner, *batch)

    assert refused.value.cycle == ("job_a", "job_c", "job_b", "job_a")
    assert refused.value.path == "jobs.0.depends_on"
    assert _count(session, Job) == 0


def test_a_job_that_waits_for_itself_is_a_circle(session: Session, owner: User) -> None:
    with pytest.raises(DependencyCycle) as refused:
        _submit_one(session, owner, make_submission("a", depends_on=_waits_for("a")))

    assert (refused.value.cycle, refused.value.path) == (("a", "a"), "depends_on")


@pytest.mark.parametrize(
    ("cpu_units", "memory_mb"), [(Decimal("8.001"), 1), (Decimal(1), 4097), (Decimal(9), 5000)]
)
def test_a_job_larger_than_all_workers_together_is_refused(
    session: Session, owner: User, cpu_units: Decimal, memory_mb: int
) -> None:
    make_worker(session)

    with pytest.raises(NeverFits) as refused:
        _submit(session, owner, make_submission(cpu_units=cpu_units, memory_mb=memory_mb))

    assert refused.value.path == "jobs.0.resource_requirements"


def test_a_job_as_large_as_all_workers_together_is_taken(session: Session, owner: User) -> None:
    make_worker(session, "a", cpu_units=Decimal(2), memory_mb=100)
    make_worker(session, "b", cpu_units=Decimal(3), memory_mb=200)

    _submit_one(session, owner, make_submission(cpu_units=Decimal(5), memory_mb=300))


def test_a_type_larger_than_all_workers_together_is_refused(session: Session) -> None:
    make_worker(session)
    make_type(session, "large", cpu_units=Decimal(9))

    with pytest.raises(NeverFits):
        _submit_one(session, make_user(session), make_submission(type="large"))


def test_without_a_worker_nothing_is_too_large(session: Session, owner: User) -> None:
    make_worker(session, heartbeat_at=NOON)

    _submit_one(session, owner, make_submission(cpu_units=Decimal(1000)))


@pytest.mark.parametrize("has_worker", [True, False])
def test_a_job_larger_than_the_policy_allows_is_refused(
    session: Session, owner: User, *, has_worker: bool
) -> None:
    session.execute(update(PolicyVersion).values(cap_cpu_units=2, cap_memory_mb=100))
    if has_worker:
        make_worker(session)

    with pytest.raises(NeverFits):
        _submit_one(session, owner, make_submission(cpu_units=Decimal("2.5"), memory_mb=10))
    with pytest.raises(NeverFits):
        _submit_one(session, owner, make_submission(memory_mb=101))
    _submit_one(session, owner, make_submission(cpu_units=Decimal(2), memory_mb=100))


# The backlog


def test_a_full_backlog_refuses_more(session: Session) -> None:
    make_type(session)
    owner = make_user(session, cap_backlog=3)
    for status in (S.BLOCKED, S.RUNNING, *FINISHED):
        make_job(session, owner, status)

    with pytest.raises(BacklogFull, match="limit of 3"), session.begin_nested():
        _submit(session, owner, make_submission(), make_submission())

    _submit(session, owner, make_submission())
    with pytest.raises(BacklogFull):
        _submit(session, owner, make_submission())


@pytest.mark.parametrize("status", UNFINISHED)
def test_every_unfinished_job_is_backlog(session: Session, status: JobStatus) -> None:
    make_type(session)
    owner = make_user(session, cap_backlog=1)
    make_job(session, owner, status)

    with pytest.raises(BacklogFull):
        _submit_one(session, owner, make_submission())


def test_a_job_that_is_there_needs_no_room_in_the_backlog(session: Session) -> None:
    make_type(session)
    owner = make_user(session, cap_backlog=1)
    job = _submit_one(session, owner, make_submission("a"))

    assert _submit_one(session, owner, make_submission("a")) is job


def test_a_backlog_of_nothing_takes_nothing(session: Session) -> None:
    make_type(session)

    with pytest.raises(BacklogFull):
        _submit_one(session, make_user(session, cap_backlog=0), make_submission())


def test_members_of_a_group_share_its_backlog(session: Session) -> None:
    make_type(session)
    group = make_group(session, cap_backlog=2)
    ann, bob = (make_user(session, group_id=group.id) for _ in range(2))
    outsider = make_user(session)
    for owner in (ann, outsider, outsider):
        make_job(session, owner)

    _submit_one(session, bob, make_submission())

    for owner in (ann, bob):
        with pytest.raises(BacklogFull), session.begin_nested():
            _submit_one(session, owner, make_submission())
    _submit_one(session, outsider, make_submission())


def test_of_a_users_and_a_groups_backlog_the_tighter_one_holds(session: Session) -> None:
    make_type(session)
    group = make_group(session, cap_backlog=5)
    owner = make_user(session, group_id=group.id, cap_backlog=1)

    with pytest.raises(BacklogFull, match="limit of 1"):
        _submit(session, owner, make_submission(), make_submission())


def _rule(name: str, backlog: int, **match: Any) -> dict[str, Any]:
    return {"name": name, "match": match, "effect": {"caps": {"backlog": backlog}}}


@pytest.mark.parametrize(
    ("own", "rules", "limit"),
    [
        (None, [_rule("students", 1, user="ann")], "limit of 1 by the rule 'students'"),
        (1, [_rule("students", 2)], "your backlog limit of 1"),
        (9, [_rule("x", 3, group="physics"), _rule("y", 2)], "limit of 2 by the rule 'y'"),
    ],
)
def test_a_rule_limits_the_backlog_where_it_is_the_tighter_one(
    session: Session, own: int | None, rules: list[dict[str, Any]], limit: str
) -> None:
    make_type(session)
    make_policy(session, rules=rules)
    owner = make_user(session, "Ann", group_id=make_group(session).id, cap_backlog=own)

    with pytest.raises(BacklogFull, match=limit):
        _submit(session, owner, *(make_submission() for _ in range(3)))


def test_a_rule_limits_nobody_whom_it_does_not_match(session: Session) -> None:
    make_type(session)
    make_policy(session, rules=[_rule("bob's", 0, user="bob"), _rule("law", 0, group="law")])

    _submit_one(session, make_user(session, "ann"), make_submission())


def test_a_rule_of_hours_limits_the_backlog_during_them(session: Session) -> None:
    make_type(session)
    today = session.scalars(select(func.now())).one().astimezone(UTC).weekday()
    make_policy(session, rules=[_rule("today", 0, hours={"days": [DAYS[today]]})])
    owner = make_user(session)

    with pytest.raises(BacklogFull, match="'today'"), session.begin_nested():
        _submit_one(session, owner, make_submission())

    make_policy(session, rules=[_rule("tomorrow", 0, hours={"days": [DAYS[today - 6]]})])
    _submit_one(session, owner, make_submission())


# Dependencies


def test_jobs_may_name_later_ones_of_their_batch(session: Session, owner: User) -> None:
    batch = [
        make_submission("c", depends_on=_waits_for("a", "b")),
        make_submission("b", depends_on=(("a", Condition.FINISHED),)),
        make_submission("a"),
    ]

    c, b, a = _jobs(session, _submit(session, owner, *batch))

    edges = {(e.child_id, e.parent_id): e.condition for e in session.scalars(select(Dependency))}
    assert [(job.status, job.open_dependencies) for job in (a, b, c)] == [
        (S.READY, 0),
        (S.BLOCKED, 1),
        (S.BLOCKED, 2),
    ]
    assert edges == {
        (c.id, a.id): Condition.COMPLETED,
        (c.id, b.id): Condition.COMPLETED,
        (b.id, a.id): Condition.FINISHED,
    }
    linked = session.scalars(select(Feed.job_id).where(Feed.kind == "linked")).all()
    assert set(linked) == {b.id, c.id}


def test_a_parent_named_twice_is_waited_for_once(session: Session, owner: User) -> None:
    make_job(session, owner, job_id="p")

    job = _submit_one(session, owner, make_submission(depends_on=_waits_for("p", "p")))

    assert (job.open_dependencies, _count(session, Dependency)) == (1, 1)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_the_order_of_a_batch_does_not_matter_to_its_graph(
    session: Session, data: st.DataObject
) -> None:
    names = "abcdef"
    edges = {
        name: data.draw(st.lists(st.sampled_from(names[:place] or "a"), unique=True))
        for place, name in enumerate(names)
    }
    edges["a"] = []
    order = data.draw(st.permutations(names))
    with session.begin_nested() as undone:
        make_type(session)
        owner = make_user(session)
        batch = [make_submission(name, depends_on=_waits_for(*edges[name])) for name in order]

        jobs = _jobs(session, _submit(session, owner, *batch))

        for job in jobs:
            parents = session.scalars(
                select(Job.job_id)
                .join(Dependency, Dependency.parent_id == Job.id)
                .where(Dependency.child_id == job.id)
            )
            assert sorted(parents) == sorted(edges[job.job_id])
            assert job.open_dependencies == len(edges[job.job_id])
        undone.rollback()


# Meetings


def _in_order(names: Sequence[str]) -> list[Submission]:
    return [make_submission(name) for name in names]


@pytest.fixture
def committed_owner(committed_engine: Engine) -> User:
    def make(session: Session) -> User:
        make_type(session)
        return make_user(session)

    return committed(committed_engine, make)


def test_the_same_batch_in_another_order_waits_for_the_first_and_is_its_duplicate(
    committed_engine: Engine, committed_owner: User
) -> None:
    names = [f"job{n}" for n in range(200)]

    first, second = one_after_the_other(
        committed_engine,
        lambda s: _submit(s, committed_owner, *_in_order(names)),
        lambda s: _submit(s, committed_owner, *_in_order(names[::-1])),
    )

    assert (first.created, second.created) == (200, 0)
    assert second.ids == first.ids[::-1]


@pytest.fixture
def slow_inserts(committed_engine: Engine) -> Iterator[None]:
    """Make every job take a moment to be written, so that statements surely overlap."""
    with committed_engine.begin() as connection:
        connection.execute(text(_SLEEP))
        connection.execute(text(_SLEEP_BEFORE_INSERT))
    yield
    with committed_engine.begin() as connection:
        connection.execute(text("DROP FUNCTION dawdle CASCADE"))


_SLEEP = """
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$
"""
_SLEEP_BEFORE_INSERT = """
CREATE TRIGGER dawdle BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION dawdle()
"""


@pytest.mark.usefixtures("slow_inserts")
def test_the_same_batches_in_other_orders_at_the_same_moment_do_not_block_each_other(
    committed_engine: Engine, committed_owner: User
) -> None:
    names = [f"job{n}" for n in range(20)]

    submitted = all_at_once(
        committed_engine,
        [
            lambda s, order=order: _submit(s, committed_owner, *_in_order(order))
            for order in (names, names[::-1], names[10:] + names[:10])
        ],
    )

    assert sorted(each.created for each in submitted) == [0, 0, 20]
    assert len({frozenset(each.ids) for each in submitted}) == 1


def test_a_child_that_was_linked_while_its_parent_ended_is_settled(
    committed_engine: Engine, committed_owner: User
) -> None:
    parent = committed(
        committed_engine, lambda s: make_job(s, committed_owner, S.RUNNING, job_id="parent")
    )

    linked, _ = one_after_the_other(
        committed_engine,
        lambda s: _submit(s, committed_owner, make_submission(depends_on=_waits_for("parent"))),
        lambda s: work.succeed(s, [work.Success(parent.id, 1, None)]),
    )
    moves = committed(
        committed_engine, lambda s: dependencies.resolve(s, dependencies.take(s, limit=10))
    )

    assert [(move.id, move.status) for move in moves] == [(linked.ids[0], S.READY)]


def test_a_submission_does_not_wait_for_a_parent_that_is_just_being_moved(
    committed_engine: Engine, committed_owner: User
) -> None:
    parent = committed(
        committed_engine, lambda s: make_job(s, committed_owner, S.RUNNING, job_id="parent")
    )

    with Session(committed_engine) as moving:
        work.succeed(moving, [work.Success(parent.id, 1, None)])
        linked = committed(committed_engine, _linking_at_once(committed_owner))
        moving.commit()
    moves = committed(
        committed_engine, lambda s: dependencies.resolve(s, dependencies.take(s, limit=10))
    )

    assert [(move.id, move.status) for move in moves] == [(linked.ids[0], S.READY)]


def _linking_at_once(owner: User) -> Any:
    def act(session: Session) -> Submitted:
        session.execute(text("SET LOCAL lock_timeout = '1s'"))
        return _submit(session, owner, make_submission(depends_on=_waits_for("parent")))

    return act
