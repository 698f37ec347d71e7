"""Jobs in somebody else's transaction: they exist if it commits, and are told of after that."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, NullPool, create_engine, select, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from local.home import free_port
from local.programs import ROOT
from scheduler.enqueue import Enqueued, enqueue
from scheduler.errors import (
    JobIdConflict,
    Malformed,
    SettingsInvalid,
    SubmissionRefused,
    UnknownDependency,
    UnknownOwner,
)
from scheduler.events import LIVE_CHANNEL, WAKE_KEY
from scheduler.models import Job, JobEvent
from scheduler.settings import Settings
from scheduler.states import Condition, JobClass, JobStatus, Role
from tests.factories import make_type, make_user
from tests.racing import committed, one_after_the_other
from tests.readme import grants
from tests.services import Services, clean_environment, eventually, migrate

ORDER = text("INSERT INTO orders VALUES (:number)")


@pytest.fixture(autouse=True)
def _redis_is_known(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setenv("REDIS_URL", settings.redis_url)


@pytest.fixture
def shop(committed_engine: Engine) -> Iterator[Engine]:
    """A program's own table in the database of Fairq, where ann may own jobs."""
    with Session(committed_engine) as session, session.begin():
        furnish(session)
    yield committed_engine
    with committed_engine.begin() as connection:
        connection.execute(text("DROP TABLE orders"))


def furnish(session: Session) -> None:
    session.execute(text("CREATE TABLE orders (number int PRIMARY KEY)"))
    make_type(session)
    make_user(session, "ann")


def jobs_of(engine: Engine) -> list[str]:
    with Session(engine) as session:
        return list(session.scalars(select(Job.job_id).order_by(Job.id)))


def orders_of(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT number FROM orders ORDER BY number")))


def ask(session: Session, job_id: str | None = None, **fields: Any) -> Enqueued:
    return enqueue(session, "simulate", {}, owner="ann", **({"job_id": job_id} | fields))


class Listener:
    """Whoever hears what happens to jobs: pages, and the scheduler that is woken."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._heard = redis.pubsub(ignore_subscribe_messages=True)
        self._heard.subscribe(LIVE_CHANNEL)
        eventually(lambda: redis.pubsub_numsub(LIVE_CHANNEL)[0][1] == 1)

    def woken(self) -> bool:
        return bool(self._redis.llen(WAKE_KEY))

    def told_of(self) -> list[str]:
        """Return the jobs that were told of until now."""
        self._redis.publish(LIVE_CHANNEL, "null")
        found: list[str] = []
        while (message := json.loads(self._next())) is not None:
            found += [move["job_id"] for move in message["moves"]]
        return found

    def close(self) -> None:
        self._heard.close()

    def _next(self) -> str:
        return str(eventually(lambda: self._heard.get_message(timeout=1))["data"])


@pytest.fixture
def listener(redis_client: Redis) -> Iterator[Listener]:
    listener = Listener(redis_client)
    yield listener
    listener.close()


# The caller's transaction decides


def test_a_job_exists_from_the_commit_on_with_everything_that_was_said_of_it(shop: Engine) -> None:
    with Session(shop) as session:
        ask(session, "first")
        session.execute(ORDER, {"number": 1})
        made = enqueue(
            session,
            "simulate",
            {"of": 1},
            owner="Ann",
            priority="high",
            tags=["paid"],
            depends_on=[{"job_id": "first", "when": "finished"}],
            run_at=datetime(2100, 1, 1, tzinfo=UTC),
        )
        assert jobs_of(shop) == []
        session.commit()

    assert jobs_of(shop) == ["first", made.job_id]
    assert not made.is_duplicate
    with Session(shop) as session:
        job = session.scalars(select(Job).where(Job.job_id == made.job_id)).one()
        assert (job.payload, job.job_class, job.tags) == ({"of": 1}, JobClass.HIGH, ["paid"])
        assert (job.status, job.open_dependencies) == (JobStatus.SCHEDULED, 1)
        told = session.scalars(select(JobEvent.verb).where(JobEvent.job_id == job.id))
        assert list(told) == ["submit"]


@pytest.mark.parametrize("end", [Session.rollback, Session.close])
def test_a_job_whose_transaction_is_not_committed_never_was(
    shop: Engine, listener: Listener, end: Any
) -> None:
    with Session(shop) as session:
        session.execute(ORDER, {"number": 1})
        ask(session, "undone")
        end(session)
        session.execute(ORDER, {"number": 2})
        session.commit()

    assert (jobs_of(shop), orders_of(shop)) == ([], [2])
    assert not listener.woken()
    assert listener.told_of() == []


def test_a_savepoint_that_is_rolled_back_takes_its_jobs_along_and_no_others(
    shop: Engine, listener: Listener
) -> None:
    with Session(shop) as session, session.begin():
        ask(session, "before")
        with session.begin_nested():
            ask(session, "released")
        outer = session.begin_nested()
        ask(session, "undone")
        with session.begin_nested():
            ask(session, "undone with what is around it")
        outer.rollback()
        ask(session, "after")

    assert jobs_of(shop) == ["before", "released", "after"]
    assert listener.told_of() == ["before", "released", "after"]


SHOP = """
import os, signal, sys
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session
from scheduler.enqueue import enqueue

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

with Session(create_engine(sys.argv[1])) as session, session.begin():
    event.listen(session, sys.argv[2], die)
    session.execute(text("INSERT INTO orders VALUES (1)"))
    enqueue(session, "simulate", {}, owner="ann", job_id="paid")
"""


@pytest.mark.parametrize(
    ("moment", "jobs", "orders"),
    [("before_commit", [], []), ("after_commit", ["paid"], [1])],
)
def test_a_process_that_is_killed_leaves_both_or_neither(
    shop: Engine, settings: Settings, moment: str, jobs: list[str], orders: list[int]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SHOP, settings.database_url, moment],
        env={**clean_environment(), "REDIS_URL": settings.redis_url},
        cwd=ROOT,
        check=False,
    )

    assert ended.returncode == -signal.SIGKILL
    assert (jobs_of(shop), orders_of(shop)) == (jobs, orders)


# Scheduler and pages


def test_the_scheduler_is_woken_by_the_commit_and_not_before(
    shop: Engine, listener: Listener
) -> None:
    with Session(shop) as session:
        with session.begin_nested():
            ask(session, "first")
        session.flush()
        assert not listener.woken()
        session.commit()
        assert listener.woken()

    assert listener.told_of() == ["first"]


def test_every_transaction_of_a_session_is_told_once(shop: Engine, listener: Listener) -> None:
    with Session(shop) as session:
        for name in ("first", "second"):
            ask(session, name)
            session.commit()
        session.execute(ORDER, {"number": 1})
        session.commit()

    assert listener.told_of() == ["first", "second"]


@pytest.mark.parametrize(
    "redis_url", ["", f"redis://127.0.0.1:{free_port()}/0"], ids=["unknown", "away"]
)
def test_a_broker_that_is_away_or_unknown_stops_no_commit(
    shop: Engine, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)

    committed(shop, lambda session: ask(session, "first"))

    assert jobs_of(shop) == ["first"]


def test_settings_that_cannot_be_used_are_named_before_anything_is_stored(
    shop: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "http://127.0.0.1")

    with Session(shop) as session, pytest.raises(SettingsInvalid, match="REDIS_URL"):
        ask(session, "first")


# The same job again


def test_the_same_job_again_is_answered_as_known(shop: Engine, listener: Listener) -> None:
    with Session(shop) as session, session.begin():
        assert ask(session, "first") == Enqueued("first", is_duplicate=False)
        assert ask(session, "first") == Enqueued("first", is_duplicate=True)

    assert committed(shop, lambda session: ask(session, "first")).is_duplicate
    assert jobs_of(shop) == ["first"]
    assert listener.told_of() == ["first"]


def test_other_content_under_the_same_id_is_refused_and_names_the_job(shop: Engine) -> None:
    committed(shop, lambda session: ask(session, "first"))

    with Session(shop) as session, session.begin():
        session.execute(ORDER, {"number": 1})
        with pytest.raises(JobIdConflict) as refused:
            ask(session, "first", description="another")
        ask(session, "second")

    assert refused.value.job_id == "first"
    assert (jobs_of(shop), orders_of(shop)) == (["first", "second"], [1])


def test_of_two_that_submit_the_same_job_at_once_the_later_one_waits_and_finds_it(
    shop: Engine,
) -> None:
    first, second = one_after_the_other(
        shop, lambda session: ask(session, "first"), lambda session: ask(session, "first")
    )

    assert (first.is_duplicate, second.is_duplicate) == (False, True)
    assert jobs_of(shop) == ["first"]


def test_of_two_that_mean_different_jobs_the_later_one_is_refused_and_goes_on(shop: Engine) -> None:
    def later(session: Session) -> None:
        session.execute(ORDER, {"number": 2})
        with pytest.raises(JobIdConflict):
            ask(session, "first", description="another")

    one_after_the_other(shop, lambda session: ask(session, "first"), later)

    assert (jobs_of(shop), orders_of(shop)) == (["first"], [2])


# Refusals


@pytest.mark.parametrize("columns", [{"active": False}, {"role": Role.VIEWER}, None])
def test_an_owner_who_may_not_own_jobs_is_refused(
    shop: Engine, columns: dict[str, Any] | None
) -> None:
    with Session(shop) as session, session.begin():
        if columns is not None:
            make_user(session, "bob", **columns)
        with pytest.raises(UnknownOwner, match="no active user 'bob'") as refused:
            enqueue(session, "simulate", {}, owner="bob")

    assert (refused.value.code, refused.value.path) == ("unknown_owner", "owner")


def test_after_a_refusal_the_session_goes_on_as_if_nothing_had_been(shop: Engine) -> None:
    with Session(shop) as session, session.begin():
        session.execute(ORDER, {"number": 1})
        for fields in ({"depends_on": ["nobody"]}, {"colour": "red"}, {"tags": ["\0"]}):
            with pytest.raises(SubmissionRefused):
                ask(session, **fields)
        session.execute(ORDER, {"number": 2})
        ask(session, "first")

    assert (jobs_of(shop), orders_of(shop)) == (["first"], [1, 2])


@pytest.mark.parametrize(
    ("payload", "path", "message"),
    [
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, "payload", "datetime is not JSON"),
        ({"ratio": float("nan")}, "payload", "not JSON compliant"),
        ({"text": "x" * 1024 * 1024}, "payload", "larger than 1048576 bytes"),
        ({"text": "\0"}, "payload.text", "null character"),
        ([], "payload", "valid dictionary|valid object|object"),
        ({"text": "\ud800"}, "payload", "surrogates not allowed"),
    ],
)
def test_a_payload_that_cannot_be_kept_is_refused_by_name(
    shop: Engine, payload: dict[str, Any], path: str, message: str
) -> None:
    with Session(shop) as session, pytest.raises(Malformed, match=message) as refused:
        enqueue(session, "simulate", payload, owner="ann")

    assert refused.value.path == path


# Whose session, and where the tables are


def test_a_scoped_session_will_do(shop: Engine, listener: Listener) -> None:
    scoped = scoped_session(sessionmaker(shop))

    enqueue(scoped, "simulate", {}, owner="ann", job_id="first")
    scoped.commit()
    scoped.remove()

    assert listener.told_of() == ["first"]


def test_the_callers_unflushed_objects_and_identities_are_left_alone(shop: Engine) -> None:
    with Session(shop) as session:
        session.add(Job(job_id="not ready to be written"))
        ask(session, "first")

        assert len(session.new) == 1
        assert list(session.identity_map) == []


def test_tables_of_fairq_may_be_in_a_schema_of_their_own(services: Services) -> None:
    url = services.empty_database()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.begin() as connection:
        apart = str(connection.scalar(text("SELECT current_user")))
        connection.execute(text(f'CREATE SCHEMA "{apart}"'))
    migrate(url)
    with Session(engine) as session, session.begin():
        furnish(session)
        session.execute(text("CREATE TABLE public.users (colour text)"))

    with Session(engine) as session, session.begin():
        session.execute(text("SET LOCAL search_path = public"))
        ask(session, "first", schema=apart)
        with pytest.raises(UnknownDependency):
            ask(session, "second", depends_on=["nobody"], schema=apart)
        assert session.scalar(text("SELECT count(colour) FROM users")) == 0
        assert session.scalar(text("SELECT current_setting('search_path')")) == "public"

    assert jobs_of(engine) == ["first"]


def test_a_role_with_the_documented_rights_may_submit_everything_and_nothing_else(
    services: Services,
) -> None:
    url = services.fresh_database().replace("postgresql:", "postgresql+psycopg:")
    role = f"shop_{os.getpid()}"
    engine = create_engine(url, poolclass=NullPool)
    with Session(engine) as session, session.begin():
        furnish(session)
        session.execute(text(f"CREATE ROLE {role}"))
        for statement in grants(role):
            session.execute(text(statement))

    with Session(engine) as session, session.begin():
        session.execute(text(f"SET LOCAL ROLE {role}"))
        ask(session, "first")
        ask(session, "second", depends_on=["first"], delay_seconds=60)
        ask(session, "third", depends_on=[{"job_id": "first", "when": str(Condition.FINISHED)}])
        assert ask(session, "first").is_duplicate
        with pytest.raises(Exception, match="permission denied"), session.begin_nested():
            session.execute(text("UPDATE jobs SET priority_level = 0"))
        with pytest.raises(Exception, match="permission denied"), session.begin_nested():
            session.execute(text("SELECT password_hash FROM users"))

    assert jobs_of(engine) == ["first", "second", "third"]
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))
