"""Migrations: up, the same as the models, down to nothing, up again; and what tables refuse."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Engine, create_engine, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from local import programs
from local.process import Program
from scheduler.models import Base
from scheduler.settings import database_url
from scheduler.states import JobStatus
from tests.factories import (
    make_callback,
    make_group,
    make_job,
    make_schedule,
    make_user,
    make_worker,
)
from tests.racing import somebody_waits
from tests.services import Services, clean_environment, eventually, run_to_end

S = JobStatus


@pytest.fixture
def empty(services: Services) -> Iterator[tuple[str, Engine]]:
    """The address of a database without tables, and an engine on it."""
    url = services.empty_database()
    engine = create_engine(database_url({"DATABASE_URL": url}))
    yield url, engine
    engine.dispose()


def _alembic(url: str, *arguments: str) -> str:
    migrate = programs.migrate({**clean_environment(), "DATABASE_URL": url})
    command = (*migrate.command[: migrate.command.index("upgrade")], *arguments)
    return run_to_end(
        Program(
            name="alembic",
            command=command,
            environment=migrate.environment,
            directory=migrate.directory,
        )
    )


def _tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


def test_migrations_go_up_down_and_up_again(empty: tuple[str, Engine]) -> None:
    url, engine = empty

    _alembic(url, "upgrade", "head")
    assert _tables(engine) == set(Base.metadata.tables)
    _alembic(url, "downgrade", "base")
    assert _tables(engine) == set()
    _alembic(url, "upgrade", "head")

    assert _tables(engine) == set(Base.metadata.tables)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id, epoch FROM scheduler_lease")).all() == [(1, 0)]
        assert connection.execute(text("SELECT version FROM policy_versions")).all() == [(1,)]


def test_a_second_run_finds_nothing_to_do(empty: tuple[str, Engine]) -> None:
    url, engine = empty
    _alembic(url, "upgrade", "head")
    with engine.begin() as connection:
        connection.execute(text("UPDATE scheduler_lease SET epoch = 7"))

    _alembic(url, "upgrade", "head")

    with engine.connect() as connection:
        assert connection.execute(text("SELECT epoch FROM scheduler_lease")).scalar_one() == 7


def test_lines_that_wait_are_taken_along(empty: tuple[str, Engine]) -> None:
    url, engine = empty
    _alembic(url, "upgrade", "0001")
    with engine.begin() as connection:
        for statement in _A_JOB_IN_LINE:
            connection.execute(text(statement))

    _alembic(url, "upgrade", "head")

    with engine.connect() as connection:
        line = connection.execute(text("SELECT tags, timeout_seconds, executor FROM ready")).all()
        assert line == [(["nightly"], 60.0, "pull")]
        found = connection.execute(text("SELECT type, tags, text FROM searched")).all()
        assert found == [("simulate", ["nightly"], "waits\nnightly")]
    _alembic(url, "downgrade", "0001")


_A_JOB_IN_LINE = (
    (
        "INSERT INTO users (username, password_hash, role, created_at) VALUES ('ann', '!', 'user',"
        " now())"
    ),
    (
        "INSERT INTO jobs (owner_id, job_id, type, status, job_class, priority_level, tags,"
        " payload, cpu_units, memory_mb, retry_config, timeout_seconds, executor, content_hash,"
        " rank_offset, rank, created_at, ready_at) SELECT id, 'waits', 'simulate', 'ready',"
        " 'normal', 5, '{nightly}', '{}', 1, 64, '{}', 60, 'pull', '', 0, 7, now(), now()"
        " FROM users"
    ),
    (
        "INSERT INTO ready (owner_id, rank, job_id, job_type, job_class, cpu_units, memory_mb,"
        " expected_seconds, ready_at) SELECT owner_id, rank, id, type, job_class, cpu_units,"
        " memory_mb, 1, ready_at FROM jobs"
    ),
)


_OLD_SNAPSHOT = "SELECT 1"  # an index made beside the work waits for whoever may not see it
_READING_JOBS = "SELECT FROM jobs"  # and one that is dropped for whoever uses it


@pytest.mark.slow
def test_an_upgrade_that_is_stopped_beside_the_work_can_be_run_again(
    engine: Engine, empty: tuple[str, Engine]
) -> None:
    url, here = empty
    _alembic(url, "upgrade", "0001")
    with here.begin() as connection:
        for statement in _A_JOB_IN_LINE:
            connection.execute(text(statement))

    for revision, in_the_way in (
        ("0003", _OLD_SNAPSHOT),
        ("0004", _OLD_SNAPSHOT),
        ("0007", _OLD_SNAPSHOT),
        ("0009", _READING_JOBS),
        ("0010", _OLD_SNAPSHOT),
    ):
        _stop_beside_the_work(url, here, ("upgrade", revision), in_the_way)
        _alembic(url, "upgrade", revision)

    _alembic(url, "upgrade", "head")
    assert _catalogue(here) == _catalogue(engine)
    with here.connect() as connection:
        assert connection.execute(text(_INVALID)).all() == []
        assert connection.execute(text("SELECT count(*) FROM searched")).scalar_one() == 1


@pytest.mark.slow
def test_a_downgrade_that_is_stopped_beside_the_work_can_be_run_again(
    engine: Engine, empty: tuple[str, Engine]
) -> None:
    url, here = empty
    _alembic(url, "upgrade", "head")

    for revision in ("0009", "0008", "0003"):
        _alembic(url, "downgrade", f"{int(revision) + 1:04}")
        _stop_beside_the_work(url, here, ("downgrade", revision), _OLD_SNAPSHOT)
        _alembic(url, "downgrade", revision)

    _alembic(url, "upgrade", "head")
    assert _catalogue(here) == _catalogue(engine)


def _stop_beside_the_work(
    url: str, engine: Engine, command: tuple[str, str], in_the_way: str
) -> None:
    """Stop a migration that waits for others, while somebody who writes waits for nobody."""
    reading = engine.execution_options(isolation_level="REPEATABLE READ")
    with reading.connect() as old, ThreadPoolExecutor(1) as pool:
        old.execute(text(in_the_way))
        migrating = pool.submit(_alembic, url, *command)
        eventually(lambda: migrating.done() or somebody_waits(engine))
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '1s'"))
            connection.execute(text("UPDATE jobs SET description = 'written meanwhile'"))
            connection.execute(text(_STOP_WHO_WAITS))
        with pytest.raises(AssertionError, match="alembic failed"):
            migrating.result()


_STOP_WHO_WAITS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""

_INVALID = """
SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid
UNION ALL SELECT conname FROM pg_constraint WHERE NOT convalidated
"""


def test_the_models_are_what_the_migrations_make(engine: Engine, empty: tuple[str, Engine]) -> None:
    _, made_by_models = empty
    Base.metadata.create_all(made_by_models)

    assert _catalogue(engine) == _catalogue(made_by_models)


_CATALOGUE = (
    (
        "SELECT table_name, column_name, data_type, numeric_precision, numeric_scale, is_nullable,"
        " column_default, is_identity FROM information_schema.columns WHERE table_schema = 'public'"
    ),
    (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND contype <> 'n'"
    ),
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    (
        "SELECT relname, relpersistence FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    ),
    (
        "SELECT relname, option FROM pg_class, unnest(reloptions) AS option"
        " WHERE relnamespace = 'public'::regnamespace"
    ),
)


def _catalogue(engine: Engine) -> set[tuple[Any, ...]]:
    """Return all that Postgres knows of columns, constraints, indexes and storage."""
    with engine.connect() as connection:
        rows = [row for query in _CATALOGUE for row in connection.execute(text(query))]
    return {tuple(row) for row in rows if row[0] != "alembic_version"}


def _checks_of_models() -> set[str]:
    return {
        str(constraint.name)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }


ILLEGAL_JOBS: dict[str, tuple[JobStatus, dict[str, Any]]] = {
    "status_is_known": (S.READY, {"status": "lost"}),
    "class_is_known": (S.READY, {"job_class": "urgent"}),
    "executor_is_known": (S.READY, {"executor": "cron"}),
    "level_in_range": (S.READY, {"priority_level": 11}),
    "job_id_length": (S.READY, {"job_id": "x" * 201}),
    "sizes_are_positive": (S.READY, {"cpu_units": 0}),
    "finished_jobs_have_an_end": (S.COMPLETED, {"finished_at": None}),
    "cancelled_jobs_have_a_reason": (S.CANCELLED, {"reason": None}),
    "failed_jobs_have_an_error": (S.FAILED, {"error_type": None}),
    "only_failed_jobs_are_discarded": (S.READY, {"discarded_at": "2026-01-01T00:00Z"}),
    "active_jobs_have_an_attempt": (S.QUEUED, {"attempt": 0}),
    "running_jobs_have_a_worker": (S.RUNNING, {"worker": None}),
    "timed_jobs_have_a_time": (S.SCHEDULED, {"due_at": None}),
    "startable_jobs_wait_for_nobody": (S.READY, {"open_dependencies": 1}),
}
MORE_ILLEGAL_JOBS: list[tuple[str, JobStatus, dict[str, Any]]] = [
    ("level_in_range", S.READY, {"priority_level": -1}),
    ("job_id_length", S.READY, {"job_id": ""}),
    ("sizes_are_positive", S.READY, {"memory_mb": 0}),
    ("sizes_are_positive", S.READY, {"timeout_seconds": 0}),
    ("finished_jobs_have_an_end", S.READY, {"finished_at": "2026-01-01T00:00Z"}),
    ("cancelled_jobs_have_a_reason", S.READY, {"reason": "cancelled_by_user"}),
    ("cancelled_jobs_have_a_reason", S.CANCELLED, {"reason": "tired"}),
    ("failed_jobs_have_an_error", S.FAILED, {"error_fingerprint": None}),
    ("active_jobs_have_an_attempt", S.RUNNING, {"queued_at": None}),
    ("running_jobs_have_a_worker", S.RUNNING, {"started_at": None}),
    ("timed_jobs_have_a_time", S.RETRYING, {"due_at": None}),
    ("startable_jobs_wait_for_nobody", S.BLOCKED, {"open_dependencies": -1}),
]


def test_every_constraint_on_jobs_has_a_case() -> None:
    on_jobs = {name for name in _checks_of_models() if name.startswith("ck_jobs_")}

    assert {f"ck_jobs_{name}" for name in ILLEGAL_JOBS} == on_jobs


@pytest.mark.parametrize(
    ("constraint", "status", "columns"),
    [(name, *case) for name, case in ILLEGAL_JOBS.items()] + MORE_ILLEGAL_JOBS,
)
def test_an_illegal_job_is_refused(
    session: Session, constraint: str, status: JobStatus, columns: dict[str, Any]
) -> None:
    job = make_job(session, make_user(session), status)
    changes = ", ".join(f"{column} = :{column}" for column in columns)

    with pytest.raises(IntegrityError, match=f"ck_jobs_{constraint}"):
        session.execute(
            text(f"UPDATE jobs SET {changes} WHERE id = :id"),  # noqa: S608 - from the table above
            columns | {"id": job.id},
        )


ILLEGAL_ROWS = {
    "uq_jobs_owner_id_job_id": "UPDATE jobs SET job_id = 'same'",
    "uq_jobs_owner_id_idempotency_key": "UPDATE jobs SET idempotency_key = 'same'",
    "fk_jobs_owner_id": "UPDATE jobs SET owner_id = 0",
    "ck_groups_weight_is_positive": "INSERT INTO groups (name, weight, created_at)"
    " VALUES ('g', 0, now())",
    "ck_users_weight_is_positive": "UPDATE users SET weight = -1",
    "ck_users_role_is_known": "UPDATE users SET role = 'owner'",
    "uq_users_username": "INSERT INTO users (username, password_hash, role, created_at)"
    " VALUES ('ANN', '!', 'user', now())",
    "ck_schedules_name_length": "UPDATE schedules SET name = ''",
    "ck_schedules_one_way_to_tell_when": "UPDATE schedules SET every_seconds = 5",
    "ck_schedules_time_passes": "UPDATE schedules SET cron = NULL, every_seconds = 0",
    "ck_schedules_overlap_is_known": "UPDATE schedules SET overlap = 'both'",
    "ck_schedules_catch_up_is_known": "UPDATE schedules SET catch_up = 'some'",
    "ck_schedules_looked_at_when_due": "UPDATE schedules SET due_at = next_at - interval '1 s'",
    "uq_schedules_owner_id_name": "INSERT INTO schedules (owner_id, name, template, cron,"
    " timezone, overlap, catch_up, paused, next_at, due_at, created_at) SELECT owner_id, name,"
    " template, cron, timezone, overlap, catch_up, paused, next_at, due_at, now() FROM schedules",
    "fk_schedules_owner_id": "UPDATE schedules SET owner_id = 0",
    "ck_timers_kind_is_known": "INSERT INTO timers VALUES (now(), :job, 'alarm')",
    "ck_dependencies_nobody_waits_for_itself": "INSERT INTO dependencies"
    " VALUES (:job, :job, 'completed')",
    "ck_dependencies_condition_is_known": "INSERT INTO dependencies"
    " VALUES (:job, :other, 'started')",
    "fk_dependencies_parent_id": "INSERT INTO dependencies VALUES (:job, 0, 'completed')",
    "ck_active_claims_are_whole": "UPDATE active SET worker = NULL",
    "ck_attempts_ended_attempts_have_an_outcome": "UPDATE attempts SET finished_at = now()",
    "ck_job_events_status_is_known": "INSERT INTO job_events"
    " (job_id, owner_id, at, verb, status, attempt) VALUES (:job, 1, now(), 'x', 'x', 0)",
    "ck_feed_kind_is_known": "INSERT INTO feed (kind, job_id, owner_id) VALUES ('x', :job, 1)",
    "ck_durations_something_was_learned": "INSERT INTO durations"
    " VALUES ('simulate', 0, 1, -1, 1, now())",
    "ck_callbacks_one_thing_is_true_of_it": "UPDATE callbacks SET delivered_at = now()",
    "ck_callbacks_only_what_is_due_is_taken": "UPDATE callbacks SET due_at = NULL,"
    " gave_up_at = now(), taken_until = now()",
    "fk_callbacks_job_id": "UPDATE callbacks SET job_id = 0",
    "ck_callback_deliveries_there_was_an_answer_or_an_error": "INSERT INTO callback_deliveries"
    " (callback_id, number, at, status_code, error, milliseconds)"
    " SELECT id, 1, now(), 200, 'x', 1 FROM callbacks",
    "ck_callback_secrets_a_previous_one_has_an_end": "INSERT INTO callback_secrets"
    " (user_id, secret, made_at, previous) SELECT id, 'a', now(), 'b' FROM users",
    "ck_scheduler_lease_there_is_one": "INSERT INTO scheduler_lease (id, epoch) VALUES (2, 0)",
    "ck_workers_state_is_known": "UPDATE workers SET state = 'asleep'",
    "ck_workers_limit_is_within_bounds": "UPDATE workers SET processes_limit = processes_max + 1",
    "ck_job_types_executors_are_known": "INSERT INTO job_types (name, cpu_units, memory_mb,"
    " timeout_seconds, retry_config, executors, registered_at)"
    " VALUES ('x', 1, 1, 1, '{}', '{celery,robot}', now())",
    "ck_asks_offers_are_whole": "INSERT INTO asks (expires_at, job_id) VALUES (now(), :job)",
    "pk_ready": "INSERT INTO ready SELECT * FROM ready",
}


def test_every_constraint_has_a_case() -> None:
    elsewhere = {name for name in _checks_of_models() if not name.startswith("ck_jobs_")}

    assert elsewhere <= set(ILLEGAL_ROWS)


@pytest.mark.parametrize("constraint", ILLEGAL_ROWS)
def test_an_illegal_row_is_refused(session: Session, constraint: str) -> None:
    make_worker(session)
    make_group(session)
    owner = make_user(session, "ann")
    job, other = make_job(session, owner), make_job(session, owner, S.RUNNING)
    make_schedule(session, owner)
    make_callback(session, job)
    parameters = {"job": job.id, "other": other.id}
    statement = text(ILLEGAL_ROWS[constraint])
    needed = {name: parameters[name] for name in statement._bindparams}

    with pytest.raises(IntegrityError, match=constraint):
        session.execute(statement, needed)


@pytest.mark.parametrize("status", JobStatus)
def test_a_legal_job_is_accepted(session: Session, status: JobStatus) -> None:
    assert make_job(session, make_user(session), status).id
