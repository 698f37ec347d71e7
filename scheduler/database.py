"""How a process reaches Postgres and Redis."""

import json
from datetime import timedelta
from typing import Any

from redis import Redis
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from scheduler.settings import Settings

CONNECT_TIMEOUT_SECONDS = 5

FORSAKEN_AFTER = timedelta(seconds=20)
"""A transaction that does nothing for this long is ended, and lets go of what it has locked.

Its process is frozen or gone: nobody here waits for anything else while a transaction is open.
"""

_UNBOUNDED = timedelta(0)

_LOCKED_BY_OTHERS = {"40P01", "55P03"}  # deadlock, lock not available

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
    idle_in_transaction_timeout: timedelta = FORSAKEN_AFTER,
    lock_timeout: timedelta = _UNBOUNDED,
    durable: bool = True,
    **pool_options: Any,
) -> Engine:
    """Return an engine that connects when first used and speaks UTC.

    A statement that runs longer than *statement_timeout* fails, or that waits for a lock longer
    than *lock_timeout*; a transaction that does nothing for longer than
    *idle_in_transaction_timeout* is ended. Zero sets no bound. Commits that are not *durable* do
    not wait for the disk: only for what is decided or done again when it is lost.
    """
    session = {
        "timezone": "UTC",
        "statement_timeout": _milliseconds(statement_timeout),
        "lock_timeout": _milliseconds(lock_timeout),
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


def is_in_the_way(problem: SQLAlchemyError) -> bool:
    """Tell whether others held what was to be locked: the database answers, and will again."""
    return getattr(getattr(problem, "orig", None), "sqlstate", None) in _LOCKED_BY_OTHERS


def is_outage(problem: DBAPIError) -> bool:
    """Tell whether the database is away, as opposed to disagreeing."""
    return problem.connection_invalidated or isinstance(problem, OperationalError | InterfaceError)


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
