"""Every table. Columns and constraints only: behaviour lives with whoever owns it.

``jobs`` is what people read; ``ready`` and ``active`` are the narrow tables the machinery
touches. A job's status is written to ``jobs`` by the same statement that moves its row
between them, so the three never disagree.
"""

import uuid
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    DDL,
    BigInteger,
    CheckConstraint,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Text,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry

from scheduler.states import (
    ACTIVE,
    FINISHED,
    UNFINISHED,
    CancelReason,
    CatchUp,
    Condition,
    Executor,
    FeedKind,
    JobClass,
    JobStatus,
    Outcome,
    Overlap,
    Role,
)

_BUSY_TABLE = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_vacuum_cost_delay": "0",
}


def _quoted(words: Iterable[StrEnum]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))


def _one_of(column: str, words: Iterable[StrEnum]) -> str:
    return f"{column} IN ({_quoted(words)})"


_NO_DEAD_LETTER = text(
    f"finished_at IS NOT NULL AND (status <> '{JobStatus.FAILED}' OR discarded_at IS NOT NULL)"
)
_DEAD_LETTER = text(f"status = '{JobStatus.FAILED}' AND discarded_at IS NULL")
_IS_PULL = text(f"executor = '{Executor.PULL}'")
_LATEST = ("finished_at", "id")
_DEAD_LETTERS_BY = {
    "of_all": _LATEST,
    "of_all_alike": ("error_fingerprint", *_LATEST),
    "of_owner": ("owner_id", *_LATEST),
    "of_owner_alike": ("owner_id", "error_fingerprint", *_LATEST),
}
"""Dead letters in the order in which they failed, for every filter that picks few of many."""


class Base(DeclarativeBase):
    """The one declarative base; every instant is stored with its zone."""

    # One registry, so that Flask-SQLAlchemy's copy of this class shares it.
    registry = registry(
        metadata=MetaData(
            naming_convention={
                "ix": "ix_%(table_name)s_%(column_0_N_name)s",
                "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                "ck": "ck_%(table_name)s_%(constraint_name)s",
                "fk": "fk_%(table_name)s_%(column_0_N_name)s",
                "pk": "pk_%(table_name)s",
            }
        ),
        type_annotation_map={
            datetime: DateTime(timezone=True),
            str: Text(),
            int: BigInteger(),
            float: Float(),
            bytes: LargeBinary(),
            Decimal: Numeric(10, 3),
            dict[str, Any]: JSONB(),
            list[Any]: JSONB(),
            list[str]: ARRAY(Text()),
        },
    )


class _Caps:
    """Limits on what one user or all members of a group hold at a time."""

    cap_cpu_units: Mapped[Decimal | None]
    cap_memory_mb: Mapped[int | None]
    cap_running_jobs: Mapped[int | None]
    cap_backlog: Mapped[int | None]


class Group(_Caps, Base):
    """Users who share a weight and caps."""

    __tablename__ = "groups"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    weight: Mapped[float] = mapped_column(server_default="1")
    created_at: Mapped[datetime]

    __table_args__ = (CheckConstraint("weight > 0", name="weight_is_positive"),)


class User(_Caps, Base):
    """An account. Fairness is between these."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    username: Mapped[str]
    password_hash: Mapped[str]
    role: Mapped[str]
    group_id: Mapped[int | None] = mapped_column(ForeignKey("groups.id"), index=True)
    weight: Mapped[float] = mapped_column(server_default="1")
    active: Mapped[bool] = mapped_column(server_default=text("true"))
    paused: Mapped[bool] = mapped_column(server_default=text("false"))  # nothing more is admitted
    session_version: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(_one_of("role", Role), name="role_is_known"),
        CheckConstraint("weight > 0", name="weight_is_positive"),
        Index("uq_users_username", text("lower(username)"), unique=True),
    )


class Token(Base):
    """A secret for programs; only its hash is kept."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    secret_hash: Mapped[bytes] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class JobType(Base):
    """A kind of job that workers have registered."""

    __tablename__ = "job_types"

    name: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[str] = mapped_column(server_default="")
    payload_schema: Mapped[dict[str, Any] | None]
    cpu_units: Mapped[Decimal]
    memory_mb: Mapped[int]
    timeout_seconds: Mapped[float]
    max_timeout_seconds: Mapped[float | None]  # the most a running job may ask for
    retry_config: Mapped[dict[str, Any]]
    executors: Mapped[list[str]]  # who may run it; the first does unless a submission says who
    registered_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(
            f"cardinality(executors) > 0 AND executors <@ ARRAY[{_quoted(Executor)}]",
            name="executors_are_known",
        ),
    )


class Job(Base):
    """One job as a person reads it: submission, status, outcome."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    job_id: Mapped[str]
    type: Mapped[str]
    status: Mapped[str]
    reason: Mapped[str | None]
    reason_job_id: Mapped[str | None]  # the job whose failure cancelled this one
    job_class: Mapped[str]
    priority_level: Mapped[int] = mapped_column(SmallInteger)
    description: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(server_default="{}")
    payload: Mapped[dict[str, Any]]
    cpu_units: Mapped[Decimal]
    memory_mb: Mapped[int]
    retry_config: Mapped[dict[str, Any]]
    timeout_seconds: Mapped[float]
    estimated_seconds: Mapped[float | None]
    executor: Mapped[str]
    callback_url: Mapped[str | None]
    start_by: Mapped[datetime | None]
    idempotency_key: Mapped[str | None]
    content_hash: Mapped[bytes]
    request_id: Mapped[str | None]
    schedule: Mapped[str | None]
    rank_offset: Mapped[int]  # microseconds its class and level move it in its owner's line
    rank: Mapped[int | None]  # its place there, kept over retries
    open_dependencies: Mapped[int] = mapped_column(server_default="0")
    attempt: Mapped[int] = mapped_column(server_default="0")
    attempts_forgiven: Mapped[int] = mapped_column(server_default="0")
    crashes: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime]
    run_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]  # when its timer fires: run_at or the end of a backoff
    ready_at: Mapped[datetime | None]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    progress_fraction: Mapped[float | None]
    progress_message: Mapped[str | None]
    result: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    error_type: Mapped[str | None]
    error_message: Mapped[str | None]
    error_fingerprint: Mapped[str | None]  # the same for errors that are alike
    discarded_at: Mapped[datetime | None]  # when a person took it out of the dead letters

    __table_args__ = (
        CheckConstraint(_one_of("status", JobStatus), name="status_is_known"),
        CheckConstraint(_one_of("job_class", JobClass), name="class_is_known"),
        CheckConstraint(_one_of("executor", Executor), name="executor_is_known"),
        CheckConstraint("priority_level BETWEEN 0 AND 10", name="level_in_range"),
        CheckConstraint("length(job_id) BETWEEN 1 AND 200", name="job_id_length"),
        CheckConstraint(
            "cpu_units > 0 AND memory_mb > 0 AND timeout_seconds > 0", name="sizes_are_positive"
        ),
        CheckConstraint(
            f"({_one_of('status', FINISHED)}) = (finished_at IS NOT NULL)",
            name="finished_jobs_have_an_end",
        ),
        CheckConstraint(
            f"(status = '{JobStatus.CANCELLED}') = (reason IS NOT NULL)"
            f" AND (reason IS NULL OR {_one_of('reason', CancelReason)})",
            name="cancelled_jobs_have_a_reason",
        ),
        CheckConstraint(
            f"(status = '{JobStatus.FAILED}')"
            " <= (error_type IS NOT NULL AND error_fingerprint IS NOT NULL)",
            name="failed_jobs_have_an_error",
        ),
        CheckConstraint(
            f"discarded_at IS NULL OR status = '{JobStatus.FAILED}'",
            name="only_failed_jobs_are_discarded",
        ),
        CheckConstraint(
            f"NOT ({_one_of('status', ACTIVE)}) OR (queued_at IS NOT NULL AND attempt > 0)",
            name="active_jobs_have_an_attempt",
        ),
        CheckConstraint(
            f"(status = '{JobStatus.RUNNING}') <= (worker IS NOT NULL AND started_at IS NOT NULL)",
            name="running_jobs_have_a_worker",
        ),
        CheckConstraint(
            f"NOT ({_one_of('status', {JobStatus.SCHEDULED, JobStatus.RETRYING})})"
            " OR due_at IS NOT NULL",
            name="timed_jobs_have_a_time",
        ),
        CheckConstraint(
            "open_dependencies >= 0 AND (open_dependencies = 0 OR NOT"
            f" ({_one_of('status', ACTIVE | {JobStatus.READY})}))",
            name="startable_jobs_wait_for_nobody",
        ),
        Index("uq_jobs_owner_id_job_id", "owner_id", "job_id", unique=True),
        Index(
            "uq_jobs_owner_id_idempotency_key",
            "owner_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index("ix_jobs_owner_id_id", "owner_id", "id"),
        Index(
            "ix_jobs_unfinished",
            "owner_id",
            "id",
            postgresql_where=text(_one_of("status", UNFINISHED)),
        ),
        Index("ix_jobs_owner_id_status_id", "owner_id", "status", "id"),
        Index("ix_jobs_status_id", "status", "id"),
        Index("ix_jobs_job_id", "job_id"),
        *(
            Index(f"ix_jobs_dead_letters_{name}", *columns, postgresql_where=_DEAD_LETTER)
            for name, columns in _DEAD_LETTERS_BY.items()
        ),
        # What is kept for the usual term, which dead letters are not.
        Index("ix_jobs_finished_at_usual", "finished_at", postgresql_where=_NO_DEAD_LETTER),
        Index(
            "ix_jobs_schedule",
            "owner_id",
            "schedule",
            "status",
            "id",
            postgresql_where=text("schedule IS NOT NULL"),
        ),
        {
            "postgresql_with": {
                "fillfactor": "85",
                "autovacuum_vacuum_scale_factor": "0.05",
                "autovacuum_analyze_scale_factor": "0.05",
            }
        },
    )


class Searched(Base):
    """What lists find few of many jobs by, and no move changes.

    Apart from ``jobs``, since every move of a job writes all indexes of its row anew.
    """

    __tablename__ = "searched"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    type: Mapped[str] = mapped_column(index=True)
    created_at: Mapped[datetime]
    tags: Mapped[list[str]]
    text: Mapped[str]  # id, description and tags, a line each

    __table_args__ = (
        Index("ix_searched_created_at_job_id", "created_at", "job_id"),
        Index("ix_searched_tags", "tags", postgresql_using="gin"),
        Index(
            "ix_searched_text",
            "text",
            postgresql_using="gin",
            postgresql_ops={"text": "gin_trgm_ops"},
        ),
    )


# Of a database that is made from these classes and not by the migrations.
_TRIGRAMS = DDL("CREATE EXTENSION IF NOT EXISTS pg_trgm")  # type: ignore[no-untyped-call]
event.listen(Base.metadata, "before_create", _TRIGRAMS)


class Ready(Base):
    """Exactly the jobs that may be admitted now, in each owner's order."""

    __tablename__ = "ready"

    owner_id: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    # Without a foreign key: each finished job that is forgotten would be looked for in every line.
    job_id: Mapped[int] = mapped_column(primary_key=True)
    job_type: Mapped[str]
    job_class: Mapped[str]
    tags: Mapped[list[str]] = mapped_column(server_default="{}")  # rules may ask for them
    cpu_units: Mapped[Decimal]
    memory_mb: Mapped[int]
    expected_seconds: Mapped[float]
    timeout_seconds: Mapped[float]
    ready_at: Mapped[datetime]
    executor: Mapped[str]

    __table_args__ = (
        Index("ix_ready_pull", "job_type", "owner_id", postgresql_where=_IS_PULL),
        {"postgresql_with": _BUSY_TABLE},
    )


class Active(Base):
    """Exactly the jobs that are admitted or running: what is reserved, and every lease."""

    __tablename__ = "active"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int]
    owner_id: Mapped[int]
    job_type: Mapped[str]
    job_class: Mapped[str]
    cpu_units: Mapped[Decimal]
    memory_mb: Mapped[int]
    expected_seconds: Mapped[float]
    timeout_seconds: Mapped[float]  # more than the job's once it was given time
    max_timeout_seconds: Mapped[float]  # the most it can be given
    charge: Mapped[float]  # what admission put on the owner's meter
    express: Mapped[bool]
    epoch: Mapped[int]  # of the leader that admitted it
    admitted_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    pid: Mapped[int | None]
    lease_until: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    executor: Mapped[str]
    cancel_reason: Mapped[str | None]  # why, once it has stopped

    __table_args__ = (
        CheckConstraint(
            "(claimed_at IS NULL) = (worker IS NULL)"
            " AND (claimed_at IS NULL) = (lease_until IS NULL)",
            name="claims_are_whole",
        ),
        {"postgresql_with": {"fillfactor": "50", **_BUSY_TABLE}},
    )


class Ask(Base):
    """A pull worker that waits for a job: deleted when it has one or goes, and lost in a crash."""

    __tablename__ = "asks"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    owner_id: Mapped[int | None]  # for jobs of this owner only
    types: Mapped[list[str] | None]  # of these types only
    expires_at: Mapped[datetime]
    job_id: Mapped[int | None]  # what it is offered,
    attempt: Mapped[int | None]  # once it is

    __table_args__ = (
        CheckConstraint("(job_id IS NULL) = (attempt IS NULL)", name="offers_are_whole"),
        {"prefixes": ["UNLOGGED"], "postgresql_with": _BUSY_TABLE},
    )


class Timer(Base):
    """When something has to happen to a waiting job by itself."""

    __tablename__ = "timers"

    fire_at: Mapped[datetime] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(primary_key=True)  # without a foreign key, as in ready
    kind: Mapped[str] = mapped_column(primary_key=True)  # due or deadline

    __table_args__ = (
        CheckConstraint("kind IN ('due', 'deadline')", name="kind_is_known"),
        {"postgresql_with": _BUSY_TABLE},
    )


class Schedule(Base):
    """A template of jobs, and when one is made of it."""

    __tablename__ = "schedules"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    template: Mapped[dict[str, Any]]  # as a submission says it
    cron: Mapped[str | None]
    every_seconds: Mapped[int | None]
    timezone: Mapped[str]
    overlap: Mapped[str]
    catch_up: Mapped[str]
    paused: Mapped[bool]
    next_at: Mapped[datetime]  # the first tick that was not seen to
    due_at: Mapped[datetime]  # when the leader looks at it: then, or later
    last_job_id: Mapped[str | None]
    last_run_at: Mapped[datetime | None]
    last_error_code: Mapped[str | None]
    last_error: Mapped[str | None]
    last_error_at: Mapped[datetime | None]
    skipped: Mapped[int] = mapped_column(server_default="0")  # ticks that an unfinished job cost
    last_skipped_at: Mapped[datetime | None]
    created_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("length(name) BETWEEN 1 AND 160", name="name_length"),
        CheckConstraint("(cron IS NULL) <> (every_seconds IS NULL)", name="one_way_to_tell_when"),
        CheckConstraint("every_seconds > 0", name="time_passes"),
        CheckConstraint(_one_of("overlap", Overlap), name="overlap_is_known"),
        CheckConstraint(_one_of("catch_up", CatchUp), name="catch_up_is_known"),
        CheckConstraint("due_at >= next_at", name="looked_at_when_due"),
        Index("uq_schedules_owner_id_name", "owner_id", "name", unique=True),
        Index("ix_schedules_name", "name"),
        Index("ix_schedules_due_at", "due_at", "id", postgresql_where=text("NOT paused")),
        {"postgresql_with": {"fillfactor": "80"}},
    )


class Dependency(Base):
    """One job waits for another."""

    __tablename__ = "dependencies"

    child_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    condition: Mapped[str]
    met: Mapped[bool] = mapped_column(server_default=text("false"))

    __table_args__ = (
        CheckConstraint(_one_of("condition", Condition), name="condition_is_known"),
        CheckConstraint("child_id <> parent_id", name="nobody_waits_for_itself"),
        Index("ix_dependencies_parent_id_child_id", "parent_id", "child_id"),
        {"postgresql_with": {"fillfactor": "80"}},
    )


class Attempt(Base):
    """One try at a job, kept as long as the job."""

    __tablename__ = "attempts"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    pid: Mapped[int | None]  # none on a pull worker
    lease: Mapped[str | None]  # what a pull worker shows when it reports; none once it is over
    lease_seconds: Mapped[float | None]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error_type: Mapped[str | None]
    error_message: Mapped[str | None]
    traceback: Mapped[str | None]
    peak_memory_mb: Mapped[float | None]
    cpu_seconds: Mapped[float | None]

    __table_args__ = (
        CheckConstraint(
            f"(outcome IS NULL) = (finished_at IS NULL)"
            f" AND (outcome IS NULL OR {_one_of('outcome', Outcome)})",
            name="ended_attempts_have_an_outcome",
        ),
    )


class JobEvent(Base):
    """One move of a job, written by the statement that made it."""

    __tablename__ = "job_events"

    seq: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    owner_id: Mapped[int]
    at: Mapped[datetime]
    verb: Mapped[str]
    status: Mapped[str]
    attempt: Mapped[int]
    data: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))

    __table_args__ = (
        CheckConstraint(_one_of("status", JobStatus), name="status_is_known"),
        Index("ix_job_events_job_id_seq", "job_id", "seq"),
        Index("ix_job_events_owner_id_seq", "owner_id", "seq"),
    )


class JobLog(Base):
    """One line a job wrote."""

    __tablename__ = "job_logs"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    at: Mapped[datetime]
    level: Mapped[str]
    message: Mapped[str]

    __table_args__ = (Index("ix_job_logs_job_id_id", "job_id", "id"),)


class Callback(Base):
    """What is to be told about one end of a job to whoever asked for it, or was told."""

    __tablename__ = "callbacks"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    owner_id: Mapped[int]
    delivery_id: Mapped[uuid.UUID] = mapped_column(server_default=text("gen_random_uuid()"))
    outcome: Mapped[dict[str, Any]]  # of the job at that end: it may have run again since
    created_at: Mapped[datetime]
    due_at: Mapped[datetime | None]  # none once it was delivered or given up
    taken_until: Mapped[datetime | None]  # while a courier is about it
    tries: Mapped[int] = mapped_column(server_default="0")
    tries_forgiven: Mapped[int] = mapped_column(server_default="0")
    delivered_at: Mapped[datetime | None]
    gave_up_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(
            "num_nonnulls(due_at, delivered_at, gave_up_at) = 1", name="one_thing_is_true_of_it"
        ),
        CheckConstraint(
            "taken_until IS NULL OR due_at IS NOT NULL", name="only_what_is_due_is_taken"
        ),
        Index("ix_callbacks_job_id_id", "job_id", "id"),
        Index(
            "ix_callbacks_due",
            "owner_id",
            "due_at",
            "id",
            postgresql_where=text("due_at IS NOT NULL"),
        ),
        Index(
            "ix_callbacks_taken",
            "owner_id",
            postgresql_where=text("taken_until IS NOT NULL"),
        ),
        {"postgresql_with": _BUSY_TABLE},
    )


class CallbackDelivery(Base):
    """One try at a callback: what the other side answered, or why there was no answer."""

    __tablename__ = "callback_deliveries"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    callback_id: Mapped[int] = mapped_column(ForeignKey("callbacks.id"))
    number: Mapped[int]
    at: Mapped[datetime]
    status_code: Mapped[int | None]
    error: Mapped[str | None]
    milliseconds: Mapped[int]

    __table_args__ = (
        CheckConstraint(
            "num_nonnulls(status_code, error) = 1", name="there_was_an_answer_or_an_error"
        ),
        Index("ix_callback_deliveries_callback_id_id", "callback_id", "id"),
    )


class CallbackSecret(Base):
    """What signs an owner's callbacks. As it is, since a digest could sign nothing."""

    __tablename__ = "callback_secrets"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    secret: Mapped[str]
    made_at: Mapped[datetime]
    previous: Mapped[str | None]  # signs as well, until then
    previous_until: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(
            "(previous IS NULL) = (previous_until IS NULL)", name="a_previous_one_has_an_end"
        ),
    )


class AuditEntry(Base):
    """One change that an operator or administrator made."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    at: Mapped[datetime]
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    actor: Mapped[str]
    address: Mapped[str | None]  # none for the command line
    request_id: Mapped[str | None]
    action: Mapped[str]
    target: Mapped[str]
    detail: Mapped[dict[str, Any]]

    __table_args__ = (
        Index("ix_audit_log_at_id", "at", "id"),
        Index("ix_audit_log_actor", text("lower(actor)"), "at", "id"),
        Index("ix_audit_log_action", "action", "at", "id"),
        Index("ix_audit_log_target", "target", "at", "id"),
    )


class Worker(Base):
    """A Celery worker and what it offers."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[str]  # made anew at every start, so that a late farewell ends only its own
    host: Mapped[str]
    pid: Mapped[int]
    state: Mapped[str]
    processes_min: Mapped[int]
    processes_max: Mapped[int]
    processes_limit: Mapped[int]  # the most it may have now; operators move it within the bounds
    processes: Mapped[int]
    cpu_units: Mapped[Decimal]
    memory_mb: Mapped[int]
    queues: Mapped[list[str]]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    drain_requested_at: Mapped[datetime | None]  # by an operator: it is to take no new work

    __table_args__ = (
        CheckConstraint("state IN ('online', 'draining', 'stopped')", name="state_is_known"),
        CheckConstraint(
            "processes_limit BETWEEN processes_min AND processes_max", name="limit_is_within_bounds"
        ),
    )


class Outbox(Base):
    """An admitted attempt whose message has yet to be sent."""

    __tablename__ = "outbox"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    queue: Mapped[str]
    timeout_seconds: Mapped[float]
    place: Mapped[int]  # in the turn that admitted it: messages leave in the order of admission
    created_at: Mapped[datetime]

    __table_args__ = ({"postgresql_with": _BUSY_TABLE},)


class Feed(Base):
    """What the leader has yet to take in; emptied by ``DELETE ... RETURNING``.

    Reading by growing sequence numbers would miss rows whose transactions commit late.
    """

    __tablename__ = "feed"

    seq: Mapped[int] = mapped_column(Identity(), primary_key=True)
    kind: Mapped[str]  # see FeedKind
    job_id: Mapped[int]
    owner_id: Mapped[int]
    cpu_units: Mapped[Decimal | None]
    memory_mb: Mapped[int | None]
    charge: Mapped[float | None]
    express: Mapped[bool | None]
    used_seconds: Mapped[float | None]
    lasted_seconds: Mapped[float | None]  # none for an attempt that did not end by itself
    rank: Mapped[int | None]  # the first place in the owner's line that changed
    root: Mapped[str | None]  # of a revived job: because of whom others were cancelled
    outcome: Mapped[str | None]  # of the attempt that ended; none for one that never began

    __table_args__ = (
        CheckConstraint(_one_of("kind", FeedKind), name="kind_is_known"),
        {"postgresql_with": _BUSY_TABLE},
    )


class Meter(Base):
    """What a user has received, as the policy counts it."""

    __tablename__ = "meters"

    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    meter: Mapped[float] = mapped_column(server_default="0")
    express_meter: Mapped[float] = mapped_column(server_default="0")
    tag: Mapped[float | None]  # place of the first job in line; none while nothing waits

    __table_args__ = ({"postgresql_with": {"fillfactor": "70", **_BUSY_TABLE}},)


class Count(Base):
    """How often something has happened to jobs of an owner, since it is counted."""

    __tablename__ = "counts"

    owner_id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(primary_key=True)  # an admission, or the outcome of attempts
    number: Mapped[int]
    seconds: Mapped[float]  # that those attempts took

    __table_args__ = ({"postgresql_with": {"fillfactor": "70", **_BUSY_TABLE}},)


class Received(Base):
    """What an owner has received of the machine in one slice of time."""

    __tablename__ = "received"

    since: Mapped[datetime] = mapped_column(primary_key=True)  # the beginning of the slice
    owner_id: Mapped[int] = mapped_column(primary_key=True)
    machine_seconds: Mapped[float]

    __table_args__ = ({"postgresql_with": {"fillfactor": "70", **_BUSY_TABLE}},)


class Duration(Base):
    """How long attempts at a type of job last, for an owner or for anybody."""

    __tablename__ = "durations"

    job_type: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(primary_key=True)  # 0: whoever the owner is
    mean: Mapped[float]  # of the logarithms of seconds
    variance: Mapped[float]  # likewise
    count: Mapped[int]
    updated_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("variance >= 0 AND count > 0", name="something_was_learned"),
        {"postgresql_with": {"fillfactor": "70", **_BUSY_TABLE}},
    )


class EstimateScore(Base):
    """How many estimated starts of a class came true on one day, by the method of the estimate."""

    __tablename__ = "estimate_scores"

    day: Mapped[date] = mapped_column(primary_key=True)
    method: Mapped[str] = mapped_column(primary_key=True)
    job_class: Mapped[str] = mapped_column(primary_key=True)
    within: Mapped[int]
    early: Mapped[int]  # started before the range
    late: Mapped[int]  # started after it
    lower: Mapped[float]  # where ranges began and ended when the day was last written,
    upper: Mapped[float]  # in units of the width that the forecast itself gave them


class SchedulerLease(Base):
    """Who schedules. One row; every admitting transaction updates it first: that is the fence."""

    __tablename__ = "scheduler_lease"

    id: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int]
    holder: Mapped[str | None]
    backend_pid: Mapped[int | None]  # of the connection that holds the advisory lock
    renewed_at: Mapped[datetime | None]
    clock: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    reservation: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    starts: Mapped[dict[str, Any]] = mapped_column(server_default="{}")  # of types with a rate

    __table_args__ = (
        CheckConstraint("id = 1", name="there_is_one"),
        {"postgresql_with": {"fillfactor": "20", **_BUSY_TABLE}},
    )


class PolicyVersion(Base):
    """One version of the policy; the newest applies."""

    __tablename__ = "policy_versions"

    version: Mapped[int] = mapped_column(primary_key=True)
    cap_cpu_units: Mapped[Decimal | None]
    cap_memory_mb: Mapped[int | None]
    rules: Mapped[list[Any]]
    types: Mapped[dict[str, Any]]
    classes: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
