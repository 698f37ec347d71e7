"""``python -m scheduler run``: one scheduler, leading or standing by. ``check``: does one lead."""

import argparse
import logging
import os
import signal
import socket
import sys
from datetime import timedelta

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from scheduler.database import make_engine, open_redis
from scheduler.dispatch import Dispatcher
from scheduler.errors import SettingsInvalid
from scheduler.lease import Lease
from scheduler.log import configure_logging
from scheduler.service import Scheduler
from scheduler.settings import Settings
from scheduler.store import leader

FROZEN_TURN = timedelta(seconds=3)
"""A leader that is frozen inside a turn must not keep its successor waiting at the fence."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scheduler", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="decide who goes next until stopped")
    commands.add_parser("check", help="tell whether a scheduler leads; exit code 1 if none does")
    command = parser.parse_args(arguments).command
    try:
        settings = Settings.from_env()
    except SettingsInvalid as invalid:
        print(*invalid.problems, sep="\n", file=sys.stderr)  # noqa: T201 - a command line speaks
        return 2
    return _check(settings) if command == "check" else _run(settings)


def _run(settings: Settings) -> int:
    configure_logging(settings.log_level)
    # A turn that is lost with the database's machine is taken again: what it took in is back, too.
    engine = make_engine(
        settings, pool_size=4, idle_in_transaction_timeout=FROZEN_TURN, durable=False
    )
    app = Celery()
    app.config_from_object("celeryconfig")
    scheduler = Scheduler(
        engine,
        open_redis(settings, socket_timeout=5),
        Dispatcher(app),
        Lease(engine, holder=f"{socket.gethostname()}:{os.getpid()}"),
    )
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: scheduler.stop())
    scheduler.run()
    engine.dispose()
    return 0


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
