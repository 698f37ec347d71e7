"""What most tests stand on: services, a migrated database, a session that is rolled back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, delete, text
from sqlalchemy.orm import Session

from scheduler.database import make_engine, open_redis
from scheduler.models import Base
from scheduler.settings import Settings
from tests.services import OwnServices, Services
from tests.site import Site, serving

SECRET = "a-secret-key-for-tests-only"
KEPT_TABLE = "scheduler_lease"


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services.from_environment() or OwnServices(tmp_path_factory.mktemp("services")) as given:
        yield given


def make_settings(services: Services, home: Path, **changes: str) -> Settings:
    environment = {
        "DATABASE_URL": services.database_url,
        "REDIS_URL": services.redis_url,
        "FAIRQ_HOME": str(home),
        "FAIRQ_SECRET_KEY": SECRET,
    }
    return Settings.from_env(environment | changes)


@pytest.fixture(scope="session")
def migrated(services: Services) -> str:
    """The address of a migrated database that every test leaves as it was."""
    return services.fresh_database()


@pytest.fixture
def settings(services: Services, migrated: str, tmp_path: Path) -> Settings:
    return make_settings(services, tmp_path, DATABASE_URL=migrated)


@pytest.fixture(scope="session")
def engine(
    services: Services, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    home = tmp_path_factory.mktemp("home")
    engine = make_engine(make_settings(services, home, DATABASE_URL=migrated))
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session inside a transaction that is rolled back, whatever the test commits."""
    with engine.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        outer.rollback()


@pytest.fixture
def committed_engine(engine: Engine) -> Iterator[Engine]:
    """The engine itself, for code that opens its own connections; emptied afterwards."""
    yield engine
    empty(engine)


def empty(engine: Engine) -> None:
    """Make a database as it was when it had just been migrated.

    Rows are deleted, which takes a tenth of the time that truncating so many tables does.
    """
    tables = [table for table in Base.metadata.tables.values() if table.name != KEPT_TABLE]
    deletions = " ".join(f"{delete(table)};" for table in tables)
    numbering = "PERFORM setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S';"
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # in any order
        connection.execute(text(f"DO $$ BEGIN {deletions} {numbering} END $$"))
        # Authors are users, so no version is left; the first one has none.
        connection.execute(
            text(
                "INSERT INTO policy_versions (version, rules, types, classes, created_at)"
                " VALUES (1, '[]', '{}', '{}', now())"
            )
        )
        connection.execute(
            text(
                "UPDATE scheduler_lease SET epoch = 0, holder = NULL, backend_pid = NULL,"
                " renewed_at = NULL, clock = '{}', reservation = NULL, starts = '{}'"
            )
        )


@pytest.fixture
def redis_client(settings: Settings) -> Iterator[Redis]:
    client = open_redis(settings)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site
