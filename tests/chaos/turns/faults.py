"""Faults between any two statements of a scheduler's turn, and at its commits."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError


class Fault(StrEnum):
    """What can happen to a scheduler at a point of its turn."""

    CRASH = "crash"  # its process is gone
    PAUSE = "pause"  # everybody else goes on meanwhile
    UNSEATED = "unseated"  # its lock is lost, and everybody else goes on meanwhile
    LOCK_LOST = "lock lost"  # the connection that holds the lock ends
    CUT = "cut"  # the connection of the turn ends
    REFUSED = "commit refused"
    UNHEARD = "commit unheard"  # it happened, and the answer got lost


AT_COMMIT = frozenset({Fault.REFUSED, Fault.UNHEARD})


class Crashed(BaseException):
    """The process is gone: nothing of it goes on, and nobody handles this."""


@dataclass(frozen=True)
class Strike:
    """A fault, and how many points (or, of a commit, commits) pass before it."""

    fault: Fault
    after: int


class Points:
    """The points of the turns on one engine; strikes at one of them when told to."""

    def __init__(self, engine: Engine, happen: Callable[[Fault, Connection | None], None]) -> None:
        self._happen = happen
        self._strike: Strike | None = None
        self._passed = 0
        event.listen(engine, "before_cursor_execute", self._before_statement)
        event.listen(engine, "commit", self._before_commit)

    def arm(self, strike: Strike | None) -> None:
        """Strike so, once, from here on; None ends a strike that never came."""
        self._strike, self._passed = strike, 0

    def reach(self, connection: Connection | None = None) -> None:
        """Pass a point that is no statement."""
        if self._strike is not None and self._strike.fault not in AT_COMMIT:
            self._pass(connection)

    def _before_statement(self, connection: Connection, *_: Any) -> None:
        self.reach(connection)

    def _before_commit(self, connection: Connection) -> None:
        if self._strike is None or self._strike.fault not in AT_COMMIT:
            self.reach(connection)
        elif self._pass(connection) is Fault.UNHEARD:
            connection.connection.commit()
            raise away("no answer")

    def _pass(self, connection: Connection | None) -> Fault | None:
        strike = self._strike
        if strike is None:
            return None
        self._passed += 1
        if self._passed <= strike.after:
            return None
        self._strike = None
        self._happen(strike.fault, connection)
        return strike.fault


def away(why: str) -> OperationalError:
    """Return what a statement raises when the database does not answer."""
    return OperationalError(why, None, ConnectionError(why))
