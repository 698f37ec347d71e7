"""``python -m scheduler run``: one scheduler, leading or standing by, and what runs beside it.

``check`` tells whether one leads, ``explain`` why a job waits, and ``simulate`` what the
policy makes of a load.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module

from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from scheduler.courier import FINISHING, Courier, http_sender
from scheduler.database import make_engine, open_redis
from scheduler.dispatch import Dispatcher
from scheduler.errors import SettingsInvalid
from scheduler.forgetting import Forgetter, Keep
from scheduler.lease import Lease
from scheduler.log import configure_logging
from scheduler.service import Scheduler
from scheduler.settings import Settings
from scheduler.store import leader

_TOOLS = {"explain": "scheduler.explain", "simulate": "scheduler.simulate.command"}
"""Commands for people, and where they are. A scheduler that starts does not wait for them."""

FROZEN_TURN = timedelta(seconds=3)
"""A leader that is frozen inside a turn must not keep its successor waiting at the fence."""

LOCK_PATIENCE = timedelta(seconds=1)
"""How long a turn waits for rows that others hold: then it is given up, and the lead is kept."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m scheduler", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="decide who goes next until stopped")
    commands.add_parser("check", help="tell whether a scheduler leads; exit code 1 if none does")
    is_service = arguments[:1] in (["run"], ["check"])
    tools = {} if is_service else {name: import_module(where) for name, where in _TOOLS.items()}
    for tool in tools.values():
        tool.add_to(commands)
    given = parser.parse_args(arguments)
    try:
        if given.command in tools:
            exit_code: int = tools[given.command].run(given, print, _session)
            return exit_code
        settings = Settings.from_env()
    except SettingsInvalid as invalid:
        print(*invalid.problems, sep="\n", file=sys.stderr)  # noqa: T201 - a command line speaks
        return 2
    return _check(settings) if given.command == "check" else _run(settings)


@contextmanager
def _session() -> Iterator[Session]:
    engine = make_engine(Settings.from_env())
    try:
        with Session(engine) as session:
            yield session
    finally:
        engine.dispose()


def _run(settings: Settings) -> int:
    configure_logging(settings.log_level)
    # A turn that is lost with the database's machine is taken again: what it took in is back, too.
    engine = make_engine(
        settings,
        pool_size=4,
        idle_in_transaction_timeout=FROZEN_TURN,
        lock_timeout=LOCK_PATIENCE,
        durable=False,
    )
    app = Celery()
    app.config_from_object("celeryconfig")
    scheduler = Scheduler(
        engine,
        open_redis(settings, socket_timeout=2),
        Dispatcher(app),
        Lease(engine, holder=f"{socket.gethostname()}:{os.getpid()}"),
    )
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: scheduler.stop())
    with _courier(settings), _forgetter(settings):
        scheduler.run()
    engine.dispose()
    return 0


@contextmanager
def _courier(settings: Settings) -> Iterator[None]:
    """Deliver callbacks while the block runs, on a thread and a connection of their own."""
    engine = make_engine(settings, pool_size=1, max_overflow=0)
    courier = Courier(engine, http_sender(private=settings.allow_private_http))
    with _beside(courier, engine):
        yield


@contextmanager
def _forgetter(settings: Settings) -> Iterator[None]:
    """Forget finished jobs while the block runs, likewise."""
    # What is forgotten and was lost with the database's machine is forgotten again.
    engine = make_engine(settings, pool_size=1, max_overflow=0, durable=False)
    with _beside(Forgetter(engine, Keep(settings.keep_finished, settings.keep_failed)), engine):
        yield


@contextmanager
def _beside(loop: Courier | Forgetter, engine: Engine) -> Iterator[None]:
    thread = threading.Thread(target=loop.run, name=type(loop).__name__.lower(), daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.stop()
        thread.join((2 * FINISHING).total_seconds())
        engine.dispose()


def _check(settings: Settings) -> int:
    engine = make_engine(settings)
    try:
        with Session(engine) as session:
            holder = leader.leading(session, silence=leader.SILENCE)
    except SQLAlchemyError:
        return _answer("the database does not answer", 1)
    finally:
        engine.dispose()
    return _answer(f"{holder} leads", 0) if holder else _answer("no scheduler leads", 1)


def _answer(words: str, code: int) -> int:
    print(words)  # noqa: T201 - a command line speaks
    return code


if __name__ == "__main__":
    logging.captureWarnings(capture=True)
    sys.exit(main())
