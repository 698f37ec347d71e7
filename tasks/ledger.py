"""Writing to Postgres from a worker, however long it is away, and telling what was written."""

import logging
import random
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import Engine, text
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.orm import Session

from scheduler.events import Announcer
from scheduler.store import work
from scheduler.store.moves import Move
from tasks.context import Notes

T = TypeVar("T")
Act = Callable[[Session], T]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0
_TOO_LARGE = "54"  # the class of Postgres' codes for data beyond one of its bounds
_ASYNCHRONOUS = text("SET LOCAL synchronous_commit = off")

log = logging.getLogger(__name__)


class Ledger:
    """One process's way to write. May be used by several threads."""

    def __init__(self, engine: Engine, announcer: Announcer) -> None:
        self._engine = engine
        self.announcer = announcer

    def forget_connections(self) -> None:
        """Leave connections that belong to the process this one was forked from alone."""
        self._engine.dispose(close=False)

    def once(self, act: Act[T], *, durable: bool) -> T:
        """Do *act* in one transaction.

        One that is not *durable* commits without waiting for the disk: only for what may be lost
        with the database's machine because it is said again or done again.
        """
        with Session(self._engine) as session, session.begin():
            if not durable:
                session.execute(_ASYNCHRONOUS)
            return act(session)

    def keep(self, act: Act[T], *, durable: bool = True, patience: timedelta | None = None) -> T:
        """Do *act* in one transaction, as often as it takes while Postgres is away.

        Beyond *patience* the last error is raised; None waits for ever.
        """
        waited, pause = 0.0, _FIRST_PAUSE
        while True:
            try:
                return self.once(act, durable=durable)
            except DBAPIError as problem:
                if not is_away(problem) or (patience and waited > patience.total_seconds()):
                    raise
                if not waited:
                    log.warning("postgres away, trying again", extra={"problem": str(problem.orig)})
            threading.Event().wait(pause * random.uniform(0.7, 1.3))  # noqa: S311 - spreads load, hides nothing
            waited, pause = waited + pause, min(_LONGEST_PAUSE, pause * 2)

    def move(self, act: Act[list[Move]]) -> list[Move]:
        """Keep what a verb that frees something does, tell it, and wake the scheduler."""
        moves = self.keep(act)
        self.tell(moves)
        return moves

    def tell(self, moves: Sequence[Move]) -> None:
        """Tell moves that freed something."""
        if moves:
            self.announcer.tell(moves)
            self.announcer.wake()


def is_away(problem: DBAPIError) -> bool:
    """Tell whether trying again may help: neither the statement nor its data was at fault.

    What the server refuses has a code. Without one the connection is broken, even where it looks
    like a mistake of the program, unless the driver could not write the data.
    """
    if problem.connection_invalidated:
        return True
    code = getattr(problem.orig, "sqlstate", None)
    if code is None:
        return not isinstance(problem, DataError)
    return isinstance(problem, OperationalError) and not code.startswith(_TOO_LARGE)


def write_notes(session: Session, claim: work.Claim, notes: Notes) -> Sequence[int]:
    """Write what a handler said, and return the ids of its lines: none if it was too late."""
    if notes.progress:
        fraction, message = notes.progress.fraction, notes.progress.message
        work.set_progress(session, claim.id, claim.attempt, fraction, message)
    if not notes.lines:
        return ()
    return work.append_logs(session, claim.id, claim.attempt, notes.lines)


def tell_notes(
    announcer: Announcer, claim: work.Claim, notes: Notes, numbers: Sequence[int]
) -> None:
    """Tell what a handler said, once it is written."""
    if notes.progress:
        fraction, message = notes.progress.fraction, notes.progress.message
        announcer.progress(claim.owner_id, claim.job_id, claim.attempt, fraction, message)
    if numbers:
        lines = list(zip(numbers, notes.lines, strict=True))
        announcer.log(claim.owner_id, claim.job_id, claim.attempt, lines)
