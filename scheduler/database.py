"""How a process reaches Postgres and Redis."""

import json
from datetime import timedelta
from typing import Any

from redis import Redis
from sqlalchemy import Engine, create_engine

from scheduler.settings import Settings

CONNECT_TIMEOUT_SECONDS = 5


def make_engine(
    settings: Settings, *, statement_timeout: timedelta = timedelta(0), **pool_options: Any
) -> Engine:
    """Return an engine that connects when first used and speaks UTC.

    A statement that runs longer than *statement_timeout* fails; zero lets it run.
    """
    milliseconds = statement_timeout // timedelta(milliseconds=1)
    return create_engine(
        settings.database_url,
        pool_pre_ping=True,
        json_serializer=_strict_json,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "options": f"-c timezone=UTC -c statement_timeout={milliseconds}",
            "application_name": "fairq",
        },
        **pool_options,
    )


def open_redis(settings: Settings, **options: Any) -> Redis:
    """Return a Redis client that connects when first used."""
    return Redis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        **options,
    )


def _strict_json(value: object) -> str:
    return json.dumps(value, allow_nan=False)
