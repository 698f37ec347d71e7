"""How processes reach Postgres and Redis."""

from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from scheduler.database import make_engine, open_redis
from scheduler.settings import Settings
from tests.factories import NOON
from tests.services import eventually


def _show(settings: Settings, name: str, **bounds: timedelta) -> str:
    engine = make_engine(settings, **bounds)
    with engine.connect() as connection:
        shown: str = connection.execute(text(f"SHOW {name}")).scalar_one()
    engine.dispose()
    return shown


def test_instants_come_back_in_utc(settings: Settings) -> None:
    engine = make_engine(settings)
    with engine.connect() as connection:
        instant = connection.execute(select(text("now()"))).scalar_one()
        same = connection.execute(text("SELECT CAST(:at AS timestamptz)"), {"at": NOON})
        assert same.scalar_one() == NOON
    engine.dispose()

    assert isinstance(instant, datetime)
    assert instant.utcoffset() == UTC.utcoffset(None)


def test_statements_and_waits_for_locks_are_bounded_if_asked_idle_transactions_always(
    settings: Settings,
) -> None:
    bound = timedelta(seconds=7)

    assert _show(settings, "statement_timeout") == "0"
    assert _show(settings, "statement_timeout", statement_timeout=bound) == "7s"
    assert _show(settings, "lock_timeout") == "0"
    assert _show(settings, "lock_timeout", lock_timeout=bound) == "7s"
    assert _show(settings, "idle_in_transaction_session_timeout") == "20s"
    assert (
        _show(settings, "idle_in_transaction_session_timeout", idle_in_transaction_timeout=bound)
        == "7s"
    )


def test_what_is_not_json_is_not_written(settings: Settings) -> None:
    engine = make_engine(settings)

    with pytest.raises(ValueError, match="JSON"):
        engine.dialect._json_serializer({"x": float("nan")})
    engine.dispose()


def test_a_statement_that_takes_too_long_fails(settings: Settings) -> None:
    engine = make_engine(settings, statement_timeout=timedelta(milliseconds=50))

    with pytest.raises(DBAPIError, match="timeout"), engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(10)"))
    engine.dispose()


def test_a_kept_connection_survives_a_restart_of_redis(
    settings: Settings, redis_client: Redis
) -> None:
    redis_client.set("a", "1")
    _end_connection(settings, redis_client.client_id())

    assert redis_client.get("a") == "1"


def _end_connection(settings: Settings, client_id: int) -> None:
    """Have Redis end a connection of another client; return when it did."""
    with open_redis(settings) as other:
        other.client_kill_filter(_id=client_id)
        eventually(lambda: not other.client_list(client_id=[client_id]))
