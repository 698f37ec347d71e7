"""One maker per thing a test needs; what they make is legal in every respect."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler import retry
from scheduler.models import (
    Active,
    Attempt,
    Callback,
    CallbackDelivery,
    Dependency,
    Group,
    Job,
    JobEvent,
    JobLog,
    JobType,
    PolicyVersion,
    Ready,
    Schedule,
    Searched,
    Timer,
    User,
    Worker,
)
from scheduler.policy.meters import rank
from scheduler.states import (
    ACTIVE,
    DEFAULT_LEVEL,
    FINISHED,
    CancelReason,
    CatchUp,
    Condition,
    Executor,
    JobClass,
    JobStatus,
    Overlap,
    Role,
)
from scheduler.store.policy import current_policy
from scheduler.store.submission import Submission

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
END = NOON + MINUTE  # of every finished job
WORKER = "worker1@test"
PID = 4242

_POLICY = ("cap_cpu_units", "cap_memory_mb", "rules", "types", "classes")

_numbers = itertools.count(1)


def make_user(
    session: Session, username: str | None = None, role: Role = Role.USER, **columns: Any
) -> User:
    user = User(
        username=username or f"user{next(_numbers)}",
        role=role,
        created_at=NOON,
        **{"password_hash": "!", **columns},
    )
    session.add(user)
    session.flush()
    return user


def make_group(session: Session, name: str = "physics", **columns: Any) -> Group:
    group = Group(name=name, created_at=NOON, **columns)
    session.add(group)
    session.flush()
    return group


def make_policy(session: Session, **columns: Any) -> PolicyVersion:
    """Make the next version of the policy: *columns* in the place of what there was."""
    newest = current_policy(session)
    kept = {name: getattr(newest, name) for name in _POLICY}
    made = PolicyVersion(version=newest.version + 1, created_at=NOON, **(kept | columns))
    session.add(made)
    session.flush()
    return made


def make_type(session: Session, name: str = "simulate", **columns: Any) -> JobType:
    known = session.scalar(select(JobType).where(JobType.name == name))
    if known:
        return known
    defaults: dict[str, Any] = {
        "description": "",
        "payload_schema": None,
        "cpu_units": Decimal(1),
        "memory_mb": 128,
        "timeout_seconds": 60.0,
        "retry_config": {},
        "executors": [Executor.CELERY],
        "registered_at": NOON,
    }
    made = JobType(name=name, **(defaults | columns))
    session.add(made)
    session.flush()
    return made


def make_worker(session: Session, name: str = WORKER, **columns: Any) -> Worker:
    defaults: dict[str, Any] = {
        "incarnation": "1",
        "host": "test",
        "pid": 1,
        "state": "online",
        "processes_min": 1,
        "processes_max": 8,
        "processes_limit": columns.get("processes_max", 8),
        "processes": 8,
        "cpu_units": Decimal(8),
        "memory_mb": 4096,
        "queues": [str(each) for each in JobClass],
        "started_at": datetime.now(UTC),  # noqa: TID251 - the database asks how long ago it was
        "heartbeat_at": datetime.now(UTC),  # noqa: TID251 - the database asks how long ago it was
    }
    worker = Worker(name=name, **(defaults | columns))
    session.add(worker)
    session.flush()
    return worker


def make_submission(job_id: str | None = None, **fields: Any) -> Submission:
    """Make what somebody asks for: nothing but what cannot be left out."""
    defaults: dict[str, Any] = {
        "type": "simulate",
        "payload": {},
        "priority_level": DEFAULT_LEVEL[fields.get("job_class", JobClass.NORMAL)],
        "job_class": JobClass.NORMAL,
    }
    return Submission(job_id=job_id, **(defaults | fields))


def make_job(
    session: Session, owner: User, status: JobStatus = JobStatus.READY, **columns: Any
) -> Job:
    """Make a job in *status* with the rows that go with it elsewhere."""
    job = Job(**(_defaults(owner) | _columns_of(status) | columns), status=status)
    session.add(job)
    session.flush()
    session.add_all(_rows_beside(job))
    session.flush()
    return job


def make_event(session: Session, job: Job, **columns: Any) -> JobEvent:
    """Make a move of *job*, which is left as it is."""
    return make_events(session, job, 1, **columns)[0]


def make_events(session: Session, job: Job, count: int, **columns: Any) -> list[JobEvent]:
    """Make moves of *job*, which is left as it is."""
    defaults: dict[str, Any] = {"at": NOON, "verb": "start", "status": job.status, "attempt": 1}
    fields = {"job_id": job.id, "owner_id": job.owner_id, **defaults, **columns}
    made = [JobEvent(**fields) for _ in range(count)]
    session.add_all(made)
    session.flush()
    return made


def make_line(session: Session, job: Job, message: str = "hello", **columns: Any) -> JobLog:
    """Make a line that *job* wrote."""
    return make_lines(session, job, [message], **columns)[0]


def make_lines(session: Session, job: Job, messages: Sequence[str], **columns: Any) -> list[JobLog]:
    """Make lines that *job* wrote."""
    defaults: dict[str, Any] = {"at": NOON, "attempt": 1, "level": "info"}
    fields = {"job_id": job.id, **defaults, **columns}
    made = [JobLog(message=message, **fields) for message in messages]
    session.add_all(made)
    session.flush()
    return made


def make_schedule(
    session: Session, owner: User, name: str = "nightly", template: Any = None, **columns: Any
) -> Schedule:
    """Make a schedule that is due at *next_at*: at noon, and every minute from then on."""
    defaults: dict[str, Any] = {
        "cron": None if columns.get("every_seconds") else "* * * * *",
        "timezone": "UTC",
        "overlap": Overlap.QUEUE,
        "catch_up": CatchUp.ALL,
        "paused": False,
        "next_at": NOON,
        "due_at": columns.get("next_at", NOON),
        "skipped": 0,
        "created_at": NOON,
    }
    made = Schedule(
        owner_id=owner.id,
        name=name,
        template={"type": "simulate"} | (template or {}),
        **(defaults | columns),
    )
    session.add(made)
    session.flush()
    return made


def make_dependency(
    session: Session, child: Job, parent: Job, condition: Condition = Condition.COMPLETED
) -> Dependency:
    """Make *child*, which must count it among its open dependencies, wait for *parent*."""
    made = Dependency(child_id=child.id, parent_id=parent.id, condition=condition)
    session.add(made)
    session.flush()
    return made


def make_callback(session: Session, job: Job, **columns: Any) -> Callback:
    """Make what is to be told about *job*, due at once."""
    due_at = None if {"delivered_at", "gave_up_at"} & set(columns) else NOON
    outcome = {"status": job.status, "attempt": job.attempt, "finished_at": END.isoformat()}
    outcome |= dict.fromkeys(("reason", "result", "error_type", "error_message", "started_at"))
    defaults = {"owner_id": job.owner_id, "outcome": outcome, "created_at": NOON, "due_at": due_at}
    made = Callback(job_id=job.id, **(defaults | columns))
    session.add(made)
    session.flush()
    return made


def make_delivery(session: Session, callback: Callback, **columns: Any) -> CallbackDelivery:
    defaults = {"number": 1, "at": NOON, "milliseconds": 7}
    answered = {} if "error" in columns else {"status_code": 503}
    made = CallbackDelivery(callback_id=callback.id, **(defaults | answered | columns))
    session.add(made)
    session.flush()
    return made


def _defaults(owner: User) -> dict[str, Any]:
    return {
        "owner_id": owner.id,
        "job_id": f"made_{next(_numbers)}",
        "type": "simulate",
        "job_class": JobClass.NORMAL,
        "priority_level": 5,
        "tags": [],
        "payload": {},
        "cpu_units": Decimal(1),
        "memory_mb": 128,
        "retry_config": dict(retry.DEFAULTS),
        "timeout_seconds": 60.0,
        "executor": Executor.CELERY,
        "content_hash": b"",
        "rank_offset": 0,
        "open_dependencies": 0,
        "attempt": 0,
        "attempts_forgiven": 0,
        "crashes": 0,
        "created_at": NOON,
    }


def _columns_of(status: JobStatus) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for statuses, those in _COLUMNS:
        if status in statuses:
            columns |= those
    return columns


_S = JobStatus
_COLUMNS: list[tuple[set[JobStatus] | frozenset[JobStatus], dict[str, Any]]] = [
    ({_S.SCHEDULED, _S.RETRYING}, {"due_at": NOON + MINUTE}),
    ({_S.BLOCKED}, {"open_dependencies": 1}),
    (
        ACTIVE | {_S.READY, _S.RETRYING, _S.COMPLETED},
        {"ready_at": NOON, "rank": rank(NOON, JobClass.NORMAL, 5)},
    ),
    (
        ACTIVE | {_S.RETRYING, _S.COMPLETED, _S.FAILED},
        {"attempt": 1, "queued_at": NOON},
    ),
    ({_S.RUNNING, _S.COMPLETED, _S.FAILED}, {"worker": WORKER, "started_at": NOON}),
    (FINISHED, {"finished_at": END}),
    (
        {_S.FAILED},
        {
            "error_type": "ValueError",
            "error_message": "no",
            "error_fingerprint": "0123abcd",
        },
    ),
    ({_S.CANCELLED}, {"reason": CancelReason.BY_USER}),
]


def _rows_beside(job: Job) -> list[Any]:
    rows: list[Any] = [_searched_row(job)]
    if job.status == JobStatus.READY:
        rows.append(_ready_row(job))
    if job.status in ACTIVE:
        rows.append(_active_row(job))
    if job.due_at:
        rows.append(Timer(fire_at=job.due_at, job_id=job.id, kind="due"))
    if job.start_by:
        rows.append(Timer(fire_at=job.start_by, job_id=job.id, kind="deadline"))
    if job.worker or job.status == JobStatus.RETRYING:
        rows.append(_attempt_row(job))
    return rows


def _searched_row(job: Job) -> Searched:
    words = [job.job_id, job.description, *job.tags]
    return Searched(
        job_id=job.id,
        type=job.type,
        created_at=job.created_at,
        tags=job.tags,
        text="\n".join(word for word in words if word),
    )


def _ready_row(job: Job) -> Ready:
    return Ready(
        owner_id=job.owner_id,
        rank=job.rank,
        job_id=job.id,
        job_type=job.type,
        job_class=job.job_class,
        tags=job.tags,
        cpu_units=job.cpu_units,
        memory_mb=job.memory_mb,
        expected_seconds=1.0,
        timeout_seconds=job.timeout_seconds,
        ready_at=job.ready_at,
        executor=job.executor,
    )


def _active_row(job: Job) -> Active:
    row = Active(
        job_id=job.id,
        attempt=job.attempt,
        owner_id=job.owner_id,
        job_type=job.type,
        job_class=job.job_class,
        cpu_units=job.cpu_units,
        memory_mb=job.memory_mb,
        expected_seconds=1.0,
        timeout_seconds=job.timeout_seconds,
        max_timeout_seconds=job.timeout_seconds,
        charge=0.1,
        express=False,
        epoch=1,
        admitted_at=NOON,
        published_at=NOON,
        executor=job.executor,
    )
    if job.status == JobStatus.RUNNING:
        row.claimed_at, row.worker, row.pid = NOON, WORKER, PID
        row.lease_until = NOON + timedelta(days=3650)
    return row


def _attempt_row(job: Job) -> Attempt:
    ended = job.status != JobStatus.RUNNING
    return Attempt(
        job_id=job.id,
        attempt=job.attempt,
        worker=WORKER,
        pid=PID,
        queued_at=NOON,
        started_at=NOON,
        finished_at=NOON + MINUTE if ended else None,
        outcome=_OUTCOME_OF.get(JobStatus(job.status)) if ended else None,
    )


_OUTCOME_OF = {
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.RETRYING: "failed",
}
