"""The commands of Fairq's own processes, in one place for the launcher and the tests."""

import os
import signal
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from local.process import Program, Step
from scheduler.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

_WORKER_POOL = "tasks.pool:TaskPool"
_QUEUES = "critical,high,normal,low"
_GIVING_BACK = timedelta(seconds=5)


def inherited_environment() -> dict[str, str]:
    """Return this process's own environment, for its children to be built upon."""
    return dict(os.environ)


def web(environment: Mapping[str, str]) -> Program:
    """Return the web server."""
    return _python("web", "-m", "webapp", environment=environment)


def scheduler(environment: Mapping[str, str], *, name: str = "scheduler") -> Program:
    """Return a scheduler; a second one stands by."""
    return _python(name, "-m", "scheduler", "run", environment=environment)


def worker(environment: Mapping[str, str], *, name: str = "worker1") -> Program:
    """Return a worker of as many processes as *environment* says."""
    settings = Settings.from_env(environment)
    return Program(
        name=name,
        command=(
            sys.executable,
            "-m",
            "celery",
            "-A",
            "tasks.app",
            *_worker_options(settings, name),
        ),
        environment={**environment, "CELERY_CUSTOM_WORKER_POOL": _WORKER_POOL},
        directory=ROOT,
        stop=_drain(settings),
        # Its services die with the launcher; asked politely, it would wait for them for ever.
        death_signal=signal.SIGKILL,
    )


def _drain(settings: Settings) -> tuple[Step, ...]:
    # A worker whose time to finish is over gives back what runs by itself; asking helps one that
    # cannot look at the clock.
    return (
        (signal.SIGTERM, settings.drain + _GIVING_BACK),
        (signal.SIGQUIT, _GIVING_BACK),
    )


def demo(environment: Mapping[str, str]) -> Program:
    """Return the demonstration: a few users and a steady mixed load."""
    return _python("demo", "-m", "flask", "--app", "webapp", "demo", environment=environment)


def migrate(environment: Mapping[str, str]) -> Program:
    """Return the step that brings the database to the newest tables."""
    return _python("migrate", "-m", "alembic", "upgrade", "head", environment=environment)


def register(environment: Mapping[str, str]) -> Program:
    """Return the step that writes the catalogue of job types to the database."""
    return _python("register", "-m", "tasks", "register", environment=environment)


def ensure_admin(environment: Mapping[str, str]) -> Program:
    """Return the step that makes the first administrator; it prints ``created`` or ``exists``."""
    command = ("-m", "flask", "--app", "webapp", "users", "ensure-admin")
    return _python("admin", *command, environment=environment)


def _python(name: str, *arguments: str, environment: Mapping[str, str]) -> Program:
    command = (sys.executable, *arguments)
    return Program(name=name, command=command, environment=environment, directory=ROOT)


def _worker_options(settings: Settings, name: str) -> tuple[str, ...]:
    autoscale = f"{settings.worker_processes_max},{settings.worker_processes_min}"
    return (
        "worker",
        f"--autoscale={autoscale}",
        *("-P", "custom"),
        *("-Q", _QUEUES),
        *("-n", f"{name}@%h"),
        # Workers learn about each other from the database; asking around costs a second.
        *("--without-mingle", "--without-gossip"),
        *("--loglevel", settings.log_level),
    )
