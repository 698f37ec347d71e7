"""How a process reaches Postgres and Redis."""

import json
from datetime import timedelta
from typing import Any

from redis import Redis
from sqlalchemy import Engine, create_engine

from scheduler.settings import Settings

CONNECT_TIMEOUT_SECONDS = 5


_UNBOUNDED = timedelta(0)

_NOTICE_SILENCE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds; the others are seconds
}
"""A database host that vanishes without a word is noticed after some 15 s instead of hours."""


def make_engine(
    settings: Settings,
    *,
    statement_timeout: timedelta = _UNBOUNDED,
    idle_in_transaction_timeout: timedelta = _UNBOUNDED,
    durable: bool = True,
    **pool_options: Any,
) -> Engine:
    """Return an engine that connects when first used and speaks UTC.

    A statement that runs longer than *statement_timeout* fails; a transaction that does nothing
    for longer than *idle_in_transaction_timeout* is ended. Zero sets no bound. Commits that are not
    *durable* do not wait for the disk: only for what is decided or done again when it is lost.
    """
    session = {
        "timezone": "UTC",
        "statement_timeout": _milliseconds(statement_timeout),
        "idle_in_transaction_session_timeout": _milliseconds(idle_in_transaction_timeout),
        "synchronous_commit": "on" if durable else "off",
    }
    return create_engine(
        settings.database_url,
        pool_pre_ping=True,
        hide_parameters=True,  # errors are logged, and payloads may hold secrets
        json_serializer=_strict_json,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "options": " ".join(f"-c {name}={value}" for name, value in session.items()),
            "application_name": "fairq",
            **_NOTICE_SILENCE,
        },
        **pool_options,
    )


def open_redis(settings: Settings, **options: Any) -> Redis:
    """Return a Redis client that connects when first used and gives up at once.

    A *socket_timeout* holds for connecting, too, where it is shorter.
    """
    return redis_at(settings.redis_url, **options)


def redis_at(url: str, **options: Any) -> Redis:
    """Return such a client of the Redis at *url*."""
    longest = CONNECT_TIMEOUT_SECONDS
    patience = {"socket_connect_timeout": min(longest, options.get("socket_timeout", longest))}
    return Redis.from_url(url, decode_responses=True, **(patience | options))


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _strict_json(value: object) -> str:
    return json.dumps(value, allow_nan=False)
