from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from scheduler.models import JobType
from scheduler.settings import Settings
from tasks.__main__ import main
from tasks.catalogue import CATALOGUE
from tasks.register import plain_tasks, specs_of_kinds, specs_of_tasks


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("FAIRQ_SECRET_KEY", settings.secret_key)


@pytest.mark.usefixtures("environment")
def test_the_command_registers_every_ready_kind_and_may_be_repeated(
    committed_engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["register"]) == 0
    assert main(["register"]) == 0

    with Session(committed_engine) as session:
        known = {row.name: row for row in session.scalars(select(JobType))}
    assert set(known) == {kind.name for kind in CATALOGUE}
    assert known["send_email"].payload_schema["additionalProperties"] is False
    assert known["send_email"].retry_config["max_attempts"] == 3
    assert f"registered {len(CATALOGUE)} job types" in capsys.readouterr().out


def test_a_wrong_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unregister"]) == 2

    assert "usage" in capsys.readouterr().err


def test_missing_settings_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    assert main(["register"]) == 2

    told = capsys.readouterr().err
    assert "DATABASE_URL" in told
    assert "REDIS_URL" in told


def test_plain_celery_tasks_are_described_and_the_machinerys_are_not() -> None:
    app = Celery("shop")

    @app.task(name="shop.add", soft_time_limit=7)
    def add(a: int, b: int) -> int:
        """Add two numbers.

        Quickly.
        """
        return a + b

    @app.task(name="fairq.run")
    def run() -> None: ...

    tasks: dict[str, Any] = dict(app.tasks)
    (spec,) = specs_of_tasks(tasks)
    assert set(plain_tasks(tasks)) == {"shop.add"}
    assert (spec.name, spec.description) == ("shop.add", "Add two numbers.")
    assert spec.timeout_seconds == 7
    assert spec.payload_schema is None


def test_a_spec_says_what_its_kind_says() -> None:
    spec = next(spec for spec in specs_of_kinds(CATALOGUE) if spec.name == "http_request")
    kind = CATALOGUE.get("http_request")

    assert kind is not None
    assert spec.timeout_seconds == kind.timeout_seconds
    assert spec.payload_schema == kind.payload_schema
