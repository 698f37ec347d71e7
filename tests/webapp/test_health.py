"""/healthz and /readyz."""

from typing import Any

import pytest
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from local.programs import ROOT
from tests.conftest import make_settings
from tests.factories import make_worker
from tests.services import Services
from tests.webapp.conftest import MakeApp
from webapp.health import newest_migration
from webapp.schemas.health import Health, Readiness


def lead(store: Session, *, seconds_ago: int = 0) -> None:
    store.execute(
        text(
            "UPDATE scheduler_lease SET holder = 'me', epoch = 1,"
            " renewed_at = now() - make_interval(secs => :ago)"
        ),
        {"ago": seconds_ago},
    )
    store.commit()


def ready(app: Flask) -> tuple[int, dict[str, Any]]:
    answer = app.test_client().get("/readyz")
    Readiness.model_validate_json(answer.data)
    assert ("Retry-After" in answer.headers) == (answer.status_code == 503)
    checks: dict[str, Any] = answer.json["checks"]
    return answer.status_code, checks


def test_the_newest_migration_is_the_one_alembic_would_go_to() -> None:
    assert newest_migration() == ScriptDirectory(str(ROOT / "migrations")).get_current_head()


def test_the_process_says_that_it_lives(app: Flask) -> None:
    Health.model_validate_json(app.test_client().get("/healthz").data)


def test_everything_there_is_ready(app: Flask, store: Session) -> None:
    lead(store)
    make_worker(store)
    store.commit()

    status, checks = ready(app)

    assert status == 200
    assert set(checks) == {"database", "broker", "migrations", "leader", "workers"}
    assert all(check["ok"] for check in checks.values())
    assert checks["leader"]["age_seconds"] < 60


def test_a_missing_worker_shows_and_leaves_it_ready(app: Flask, store: Session) -> None:
    lead(store)

    status, checks = ready(app)

    assert (status, checks["workers"]["ok"]) == (200, False)


@pytest.mark.parametrize("seconds_ago", [None, 3600])
def test_without_a_leader_it_is_not_ready(
    app: Flask, store: Session, seconds_ago: int | None
) -> None:
    if seconds_ago is not None:
        lead(store, seconds_ago=seconds_ago)

    status, checks = ready(app)

    assert (status, checks["leader"]["ok"]) == (503, False)


def test_at_another_migration_it_is_not_ready(app: Flask, store: Session) -> None:
    lead(store)
    known = store.scalar(text("SELECT version_num FROM alembic_version"))
    store.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    store.commit()

    try:
        status, checks = ready(app)
    finally:
        store.execute(text("UPDATE alembic_version SET version_num = :known"), {"known": known})
        store.commit()

    assert (status, checks["migrations"]["ok"]) == (503, False)


def test_without_database_or_broker_it_is_not_ready_and_says_so(
    services: Services, tmp_path: Any, migrated: str, make_app: MakeApp
) -> None:
    away = {"database": "postgresql://x@127.0.0.1:1/x", "broker": "redis://127.0.0.1:1/0"}
    no_database = make_settings(services, tmp_path, DATABASE_URL=away["database"])
    no_broker = make_settings(services, tmp_path, DATABASE_URL=migrated, REDIS_URL=away["broker"])

    for missing, settings in (("database", no_database), ("broker", no_broker)):
        status, checks = ready(make_app(settings))

        assert status == 503
        assert [name for name in away if not checks[name]["ok"]] == [missing]
