"""How attempts ended, and writing it down once.

An outcome is written durably, together with the last lines of the job's log. A report about an
attempt that is no longer the job's own changes nothing, and is dropped.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler.states import CancelReason
from scheduler.store import work
from scheduler.store.moves import Move
from scheduler.store.work import Claim, Failure, Success
from tasks.context import Notes
from tasks.ledger import Ledger, is_away, tell_notes, write_notes

GATHER_SECONDS = 0.1
"""How long a success may wait for others of its message to be reported with it."""

_REFUSALS = (DBAPIError, UnicodeEncodeError)  # the latter: half a character

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stopped:
    """An attempt that has stopped because its job was cancelled, by others or by itself."""

    id: int
    attempt: int
    reason: CancelReason = CancelReason.BY_USER
    message: str = "stopped on request"


@dataclass(frozen=True, slots=True)
class Snoozed:
    """An attempt whose handler puts its job off."""

    id: int
    attempt: int
    delay: timedelta


Ending = Success | Failure | Stopped | Snoozed


@dataclass(frozen=True, slots=True)
class Report:
    """One attempt's end, and what its handler said last."""

    claim: Claim
    ending: Ending
    notes: Notes


class Reports:
    """The reports of one process; may be flushed by any thread."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._waiting: list[Report] = []
        self._since = 0.0

    def add(self, report: Report) -> None:
        """Take a report. A success may wait a moment for others; anything else is written now."""
        with self._lock:
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append(report)
        if not isinstance(report.ending, Success) or self.due_in() == 0:
            self.flush()

    def due_in(self) -> float | None:
        """Return in how many seconds waiting reports are to be written; None without any."""
        with self._lock:
            if not self._waiting:
                return None
            return max(0.0, self._since + GATHER_SECONDS - time.monotonic())

    def flush(self) -> None:
        """Write what is waiting, however long that takes."""
        with self._lock:
            if self._waiting:
                self._write(self._waiting)
                self._waiting = []

    def _write(self, reports: Sequence[Report]) -> None:
        try:
            self._keep(reports)
        except _REFUSALS as problem:
            if isinstance(problem, DBAPIError) and is_away(problem):
                raise
            log.exception("postgres refused a report")
            for report in reports:
                self._write_alone(report)

    def _write_alone(self, report: Report) -> None:
        try:
            self._keep([report])
        except _REFUSALS as problem:
            cause = getattr(problem, "orig", problem)
            said = f"the outcome could not be kept: {type(cause).__name__}"
            refused = Failure(
                report.claim.id, report.claim.attempt, "OutcomeRefused", said, retryable=False
            )
            self._keep([Report(report.claim, refused, Notes(None, ()))])

    def _keep(self, reports: Sequence[Report]) -> None:
        numbers: dict[int, Sequence[int]] = {}

        def act(session: Session) -> list[Move]:
            for report in reports:
                numbers[report.claim.id] = write_notes(session, report.claim, report.notes)
            return _end(session, [report.ending for report in reports])

        moves = self._ledger.move(act)
        for report in reports:
            told = Notes(None, report.notes.lines)
            tell_notes(self._ledger.announcer, report.claim, told, numbers[report.claim.id])
        if len(moves) < len(reports):
            log.info("a report came too late", extra={"reports": len(reports)})


def _end(session: Session, endings: Sequence[Ending]) -> list[Move]:
    successes = [ending for ending in endings if isinstance(ending, Success)]
    moves = work.succeed(session, successes) if successes else []
    for ending in endings:
        if isinstance(ending, Failure):
            moves += work.fail(session, ending)
        elif isinstance(ending, Stopped):
            moves += work.stop(
                session, ending.id, ending.attempt, reason=ending.reason, message=ending.message
            )
        elif isinstance(ending, Snoozed):
            moves += work.snooze(session, ending.id, ending.attempt, delay=ending.delay)
    return moves
