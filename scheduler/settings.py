"""What the environment says, read and checked once. The only reader of the environment."""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scheduler.errors import SettingsInvalid

_MIN_SECRET_LENGTH = 16
_MAX_PORT = 65_535
_MOST_DAYS = 36_500
_MOST_SECONDS = 7 * 86_400
_MOST_REQUESTS = 1_000_000
_MOST_PROXIES = 10


@dataclass(frozen=True, slots=True)
class Variable:
    """One documented environment variable."""

    name: str
    default: str | None
    meaning: str


VARIABLES = (
    Variable("DATABASE_URL", None, "Postgres to use; embedded when unset"),
    Variable("REDIS_URL", None, "Redis or Valkey to use; embedded when unset"),
    Variable("FAIRQ_HOME", "var", "where the embedded services, secrets and files live"),
    Variable("FAIRQ_HOST", "127.0.0.1", "address the web server listens on"),
    Variable("FAIRQ_PORT", "8080", "port the web server listens on"),
    Variable("FAIRQ_ADMIN_USERNAME", "admin", "name of the first administrator"),
    Variable("FAIRQ_ADMIN_PASSWORD", None, "their password; made and printed once when unset"),
    Variable("FAIRQ_SECRET_KEY", None, "signs sessions; made and kept in FAIRQ_HOME when unset"),
    Variable("FAIRQ_WORKER_PROCESSES", "8,2", "most and fewest processes of a worker"),
    Variable("FAIRQ_WORKER_CPU_UNITS", "8", "CPU units one worker offers"),
    Variable("FAIRQ_WORKER_MEMORY_MB", "4096", "memory one worker offers, in MB"),
    Variable("FAIRQ_CELERY_APP", None, "another Celery application whose tasks workers run"),
    Variable("FAIRQ_DRAIN_SECONDS", "30", "how long a worker that stops may finish what it runs"),
    Variable("FAIRQ_SMTP_URL", None, "smtp:// server for mail; files in FAIRQ_HOME when unset"),
    Variable("FAIRQ_FLOWER_URL", None, "address of a Flower that the Workers page leads to"),
    Variable(
        "FAIRQ_ALLOW_PRIVATE_HTTP",
        "no",
        "let http_request and callbacks reach private addresses",
    ),
    Variable("FAIRQ_REQUESTS_PER_MINUTE", "30000", "most requests of one user; 0 for no limit"),
    Variable("FAIRQ_PROXIES", "0", "how many proxies before the web server tell who asks"),
    Variable("FAIRQ_COOKIE_SECURE", "no", "send the session cookie over HTTPS only"),
    Variable("FAIRQ_KEEP_FINISHED_DAYS", "30", "how long completed and cancelled jobs are kept"),
    Variable("FAIRQ_KEEP_FAILED_DAYS", "90", "how long dead letters are kept"),
    Variable("FAIRQ_LOG_LEVEL", "INFO", "how much is logged"),
)
"""Every variable Fairq reads; README's table is checked against this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every process of one installation agrees on."""

    database_url: str
    redis_url: str
    home: Path
    host: str
    port: int
    admin_username: str
    admin_password: str | None
    secret_key: str
    worker_processes_max: int
    worker_processes_min: int
    worker_cpu_units: float
    worker_memory_mb: int
    celery_app: str | None
    drain: timedelta
    smtp_url: str | None
    flower_url: str | None
    allow_private_http: bool
    requests_per_minute: int
    proxies: int
    cookie_secure: bool
    keep_finished: timedelta
    keep_failed: timedelta
    log_level: str

    def __repr__(self) -> str:
        """Name the fields only: several of them are secrets."""
        return f"Settings({', '.join(field.name for field in fields(self))})"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read *environ* (the process's own by default).

        Raises SettingsInvalid naming every problem at once.
        """
        reader = _Reader(os.environ if environ is None else environ)
        processes_max, processes_min = reader.take("FAIRQ_WORKER_PROCESSES", _processes, (1, 1))
        settings = cls(
            database_url=reader.take("DATABASE_URL", _database_url, ""),
            redis_url=reader.take("REDIS_URL", _redis_url, ""),
            home=reader.take("FAIRQ_HOME", _home, Path()),
            host=reader.take("FAIRQ_HOST", str, ""),
            port=reader.take("FAIRQ_PORT", _port, 0),
            admin_username=reader.take("FAIRQ_ADMIN_USERNAME", str, ""),
            admin_password=reader.optional("FAIRQ_ADMIN_PASSWORD"),
            secret_key=reader.take("FAIRQ_SECRET_KEY", _secret_key, ""),
            worker_processes_max=processes_max,
            worker_processes_min=processes_min,
            worker_cpu_units=reader.take("FAIRQ_WORKER_CPU_UNITS", _cpu_units, 1.0),
            worker_memory_mb=reader.take("FAIRQ_WORKER_MEMORY_MB", _memory_mb, 1),
            celery_app=reader.optional("FAIRQ_CELERY_APP"),
            drain=reader.take("FAIRQ_DRAIN_SECONDS", _seconds, timedelta(0)),
            smtp_url=reader.optional("FAIRQ_SMTP_URL", _smtp_url),
            flower_url=reader.optional("FAIRQ_FLOWER_URL", _flower_url),
            allow_private_http=reader.take("FAIRQ_ALLOW_PRIVATE_HTTP", _yes_or_no, False),  # noqa: FBT003 - a value, not a flag
            requests_per_minute=reader.take("FAIRQ_REQUESTS_PER_MINUTE", _requests, 0),
            proxies=reader.take("FAIRQ_PROXIES", _proxies, 0),
            cookie_secure=reader.take("FAIRQ_COOKIE_SECURE", _yes_or_no, False),  # noqa: FBT003 - a value, not a flag
            keep_finished=reader.take("FAIRQ_KEEP_FINISHED_DAYS", _days, timedelta.max),
            keep_failed=reader.take("FAIRQ_KEEP_FAILED_DAYS", _days, timedelta.max),
            log_level=reader.take("FAIRQ_LOG_LEVEL", _log_level, ""),
        )
        reader.finish()
        return settings


def database_url(environ: Mapping[str, str] | None = None) -> str:
    """Read DATABASE_URL alone, for tools that need nothing else.

    Raises SettingsInvalid when it is missing or unusable.
    """
    reader = _Reader(os.environ if environ is None else environ)
    url: str = reader.take("DATABASE_URL", _database_url, "")
    reader.finish()
    return url


@dataclass(frozen=True, slots=True)
class Embedding:
    """What a program agrees on that submits jobs in its own transactions."""

    redis_url: str | None
    allow_private_http: bool

    def __repr__(self) -> str:
        """Name the fields only: an address may hold a password."""
        return f"Embedding({', '.join(field.name for field in fields(self))})"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Embedding":
        """Read *environ* (the process's own by default). Raises SettingsInvalid."""
        reader = _Reader(os.environ if environ is None else environ)
        embedding = cls(
            redis_url=reader.optional("REDIS_URL", _redis_url),
            allow_private_http=reader.take("FAIRQ_ALLOW_PRIVATE_HTTP", _yes_or_no, False),  # noqa: FBT003 - a value, not a flag
        )
        reader.finish()
        return embedding


def missing_services(environ: Mapping[str, str]) -> list[str]:
    """Return which of the services *environ* does not name, and a launcher has to embed."""
    return [name for name in ("DATABASE_URL", "REDIS_URL") if not environ.get(name)]


def new_secret() -> str:
    """Make a secret fit for FAIRQ_SECRET_KEY."""
    return secrets.token_urlsafe(32)


class _Reader:
    """Takes variables one by one and remembers every problem."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._defaults = {variable.name: variable.default for variable in VARIABLES}
        self._problems: list[str] = []

    def take(self, name: str, parse: Callable[[str], Any], on_problem: Any) -> Any:
        raw = self._environ.get(name) or self._defaults[name]
        if raw is None:
            self._problems.append(f"{name} is not set")
            return on_problem
        try:
            return parse(raw)
        except ValueError as problem:
            self._problems.append(f"{name} {problem}")
            return on_problem

    def optional(self, name: str, parse: Callable[[str], str] = str) -> str | None:
        if not self._environ.get(name):
            return None
        value: str = self.take(name, parse, "")
        return value

    def finish(self) -> None:
        if self._problems:
            raise SettingsInvalid(self._problems)


def _database_url(raw: str) -> str:
    scheme, _, rest = raw.partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+psycopg"} or not rest:
        raise ValueError("must look like postgresql://user:password@host:5432/name")
    return f"postgresql+psycopg://{rest}"


def _redis_url(raw: str) -> str:
    if urlsplit(raw).scheme not in {"redis", "rediss"}:
        raise ValueError("must look like redis://:password@host:6379/0")
    return raw


def _smtp_url(raw: str) -> str:
    parts = urlsplit(raw)
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
        raise ValueError("must look like smtp://user:password@host:587")
    return raw


def _flower_url(raw: str) -> str:
    parts = urlsplit(raw)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must look like http://host:5555")
    if parts.password is not None:
        raise ValueError("must not hold a password: the page would show it")
    return raw


def _home(raw: str) -> Path:
    return Path(raw).resolve()


def _port(raw: str) -> int:
    if not raw.isdecimal() or not 1 <= int(raw) <= _MAX_PORT:
        raise ValueError(f"must be a port from 1 to {_MAX_PORT}, not {raw!r}")
    return int(raw)


def _secret_key(raw: str) -> str:
    if len(raw) < _MIN_SECRET_LENGTH:
        raise ValueError(f"must have at least {_MIN_SECRET_LENGTH} characters")
    return raw


def _processes(raw: str) -> tuple[int, int]:
    most, _, fewest = raw.partition(",")
    if not (most.isdecimal() and fewest.isdecimal() and 1 <= int(fewest) <= int(most)):
        raise ValueError(f"must be MOST,FEWEST with 1 <= FEWEST <= MOST (such as 8,2), not {raw!r}")
    return int(most), int(fewest)


def _cpu_units(raw: str) -> float:
    try:
        units = float(raw)
    except ValueError:
        units = 0.0
    if not 0 < units < float("inf"):
        raise ValueError(f"must be a number above 0, not {raw!r}")
    return units


def _memory_mb(raw: str) -> int:
    if not raw.isdecimal() or int(raw) < 1:
        raise ValueError(f"must be a whole number of MB above 0, not {raw!r}")
    return int(raw)


def _yes_or_no(raw: str) -> bool:
    answers = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if raw.lower() not in answers:
        raise ValueError(f"must be yes or no, not {raw!r}")
    return answers[raw.lower()]


def _requests(raw: str) -> int:
    return _at_most(_MOST_REQUESTS, raw)


def _proxies(raw: str) -> int:
    return _at_most(_MOST_PROXIES, raw)


def _at_most(most: int, raw: str) -> int:
    if not raw.isdecimal() or int(raw) > most:
        raise ValueError(f"must be a whole number, at most {most}, not {raw!r}")
    return int(raw)


def _seconds(raw: str) -> timedelta:
    if not raw.isdecimal() or int(raw) > _MOST_SECONDS:
        raise ValueError(f"must be a whole number of seconds, at most {_MOST_SECONDS}, not {raw!r}")
    return timedelta(seconds=int(raw))


def _days(raw: str) -> timedelta:
    try:
        days = float(raw)
    except ValueError:
        days = 0.0
    if not 0 < days <= _MOST_DAYS:
        raise ValueError(f"must be a number of days above 0, at most {_MOST_DAYS}, not {raw!r}")
    return timedelta(days=days)


def _log_level(raw: str) -> str:
    if raw.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError(f"must be DEBUG, INFO, WARNING or ERROR, not {raw!r}")
    return raw.upper()
