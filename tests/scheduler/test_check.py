"""``python -m scheduler check``, which containers and people ask whether a scheduler leads."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from scheduler.__main__ import main
from scheduler.settings import Settings
from scheduler.store import leader
from scheduler.store.leader import SILENCE


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("FAIRQ_SECRET_KEY", settings.secret_key)


def lead(engine: Engine, *, ago: timedelta = timedelta(0)) -> None:
    with Session(engine) as session, session.begin():
        leader.take_over(session, holder="host:1", backend_pid=1)
        session.execute(text("UPDATE scheduler_lease SET renewed_at = now() - :ago"), {"ago": ago})


@pytest.mark.usefixtures("environment")
def test_a_scheduler_that_leads_is_named(
    committed_engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    lead(committed_engine)

    assert main(["check"]) == 0
    assert capsys.readouterr().out == "host:1 leads\n"


@pytest.mark.usefixtures("environment")
def test_a_leader_that_went_silent_leads_nothing(committed_engine: Engine) -> None:
    lead(committed_engine, ago=SILENCE)

    assert main(["check"]) == 1


@pytest.mark.usefixtures("environment", "committed_engine")
def test_before_anybody_led_the_check_fails() -> None:
    assert main(["check"]) == 1


@pytest.mark.usefixtures("environment")
def test_without_a_database_the_check_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")

    assert main(["check"]) == 1
    assert capsys.readouterr().out == "the database does not answer\n"
