"""How a process reaches Postgres and Redis."""

import json
from typing import Any

from redis import Redis
from sqlalchemy import Engine, create_engine

from scheduler.settings import Settings

CONNECT_TIMEOUT_SECONDS = 5

_SESSION_OPTIONS = "-c timezone=UTC"


_UNBOUNDED = timedelta(0)


def make_engine(
    settings: Settings, *, session_options: str = _SESSION_OPTIONS, **pool_options: Any
) -> Engine:
    """Return an engine that connects when first used and speaks UTC.

    *session_options* are what Postgres is told at every connection, ``-c name=value`` each.
    """
    return create_engine(
        settings.database_url,
        pool_pre_ping=True,
        json_serializer=_strict_json,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "options": session_options,
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


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _strict_json(value: object) -> str:
    return json.dumps(value, allow_nan=False)
