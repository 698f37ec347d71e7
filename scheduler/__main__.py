"""``python -m scheduler run``: one scheduler, leading or standing by."""

import argparse
import logging
import os
import signal
import socket
import sys
from datetime import timedelta

from celery import Celery

from scheduler.database import make_engine, open_redis
from scheduler.dispatch import Dispatcher
from scheduler.errors import SettingsInvalid
from scheduler.lease import Lease
from scheduler.log import configure_logging
from scheduler.service import Scheduler
from scheduler.settings import Settings

FROZEN_TURN = timedelta(seconds=3)
"""A leader that is frozen inside a turn must not keep its successor waiting at the fence."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scheduler", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="decide who goes next until stopped")
    parser.parse_args(arguments)
    try:
        settings = Settings.from_env()
    except SettingsInvalid as invalid:
        print(*invalid.problems, sep="\n", file=sys.stderr)  # noqa: T201 - a command line speaks
        return 2
    _run(settings)
    return 0


def _run(settings: Settings) -> None:
    configure_logging(settings.log_level)
    engine = make_engine(settings, pool_size=4, idle_in_transaction_timeout=FROZEN_TURN)
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


if __name__ == "__main__":
    logging.captureWarnings(capture=True)
    sys.exit(main())
