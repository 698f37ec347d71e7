"""What a handler may do, and what it may raise.

Raise ``DoNotRetry`` when another attempt would end the same way, ``RetryAfter`` to choose when the
next one starts; any other exception is retried by the job's own rules. ``Snooze`` puts the job off
without using up an attempt, and ``CancelJob`` cancels it: there is nothing for it to do.
``Cancelled`` is what a job that is to stop gets: let it pass after cleaning up.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from scheduler import clock
from scheduler.settings import Settings
from scheduler.store.work import Claim, LogLine
from tasks.outcome import clean

LEVELS = frozenset({"debug", "info", "warning", "error"})

_MOST_LINES = 1000
_LONGEST_LINE = 8192
_LONGEST_MESSAGE = 500


class DoNotRetry(Exception):
    """The job has failed for good, whatever attempts are left."""


class RetryAfter(Exception):
    """The attempt has failed; the next one, if any, is to start after *seconds*."""

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"to be tried again after {seconds:g} s")
        self.seconds = seconds


class Snooze(Exception):
    """The job is to be run again after *seconds*; this one was no attempt."""

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"put off for {seconds:g} s")
        self.seconds = seconds


class CancelJob(Exception):
    """The job is cancelled by its own handler, which says why: that is no failure."""


class Cancelled(BaseException):
    """The job is to stop.

    No Exception, so that ``except Exception`` in a handler does not keep a job alive.
    """


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is, and what it is doing."""

    fraction: float | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Notes:
    """What a handler said since it was last asked."""

    progress: Progress | None
    lines: tuple[LogLine, ...]

    def __bool__(self) -> bool:
        return bool(self.progress or self.lines)


class Notebook:
    """Collects what a handler says until somebody takes it; safe between threads.

    Only the latest progress is kept. Of more lines than fit, the first are kept and the rest
    counted: a handler that writes faster than the database takes it must not fill the memory.
    """

    def __init__(self, on_note: Callable[[], None]) -> None:
        self._on_note = on_note
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._lines: list[LogLine] = []
        self._dropped = 0

    def __bool__(self) -> bool:
        return bool(self._progress or self._lines)

    def mark(self, progress: Progress) -> None:
        """Note how far the job is."""
        with self._lock:
            self._progress = progress
        self._on_note()

    def write(self, line: LogLine) -> None:
        """Note a line."""
        with self._lock:
            if len(self._lines) < _MOST_LINES:
                self._lines.append(line)
            else:
                self._dropped += 1
        self._on_note()

    def take(self) -> Notes:
        """Return what there is, and start anew."""
        with self._lock:
            lines = self._lines
            if self._dropped:
                told = f"{self._dropped} more lines were dropped: too many at once"
                lines.append(LogLine(lines[-1].at, "warning", told))
            notes = Notes(self._progress, tuple(lines))
            self._progress, self._lines, self._dropped = None, [], 0
        return notes

    def give_back(self, notes: Notes) -> None:
        """Put back what could not be written, before what was said meanwhile."""
        with self._lock:
            self._progress = self._progress or notes.progress
            lines = [*notes.lines, *self._lines]
            self._dropped += max(0, len(lines) - _MOST_LINES)
            self._lines = lines[:_MOST_LINES]


class Context:
    """One attempt, as its handler sees it.

    ``job_id``, ``owner`` and ``attempt`` name it, ``number`` is the job's key in the database.
    ``idempotency_key`` is the same whenever this
    attempt is delivered: give it to services that must not act twice. ``settings`` is what the
    installation says about mail servers, directories and the like.
    """

    def __init__(
        self,
        claim: Claim,
        settings: Settings,
        notebook: Notebook,
        give_time: Callable[[float], float] | None = None,
    ) -> None:
        self.number = claim.id
        self.job_id = claim.job_id
        self.owner = claim.owner
        self.attempt = claim.attempt
        self.is_last_attempt = claim.is_last_attempt
        self.idempotency_key = claim.idempotency_key
        self.settings = settings
        self._notebook = notebook
        self._give_time = give_time
        self._stop = threading.Event()

    def progress(self, fraction: float | None, message: str | None = None) -> None:
        """Show how far the job is: 0 to 1, or None for unknown. Cheap; shown 4 times a second."""
        if fraction is not None and math.isnan(fraction):
            raise ValueError("a progress must be a number from 0 to 1")
        told = None if message is None else clean(message, _LONGEST_MESSAGE)
        self._notebook.mark(
            Progress(None if fraction is None else min(1.0, max(0.0, float(fraction))), told)
        )

    def log(self, level: str, message: str) -> None:
        """Write a line to the job's log."""
        if level not in LEVELS:
            raise ValueError(f"a level is one of {', '.join(sorted(LEVELS))}, not {level!r}")
        self._notebook.write(LogLine(clock.now(), level, clean(message, _LONGEST_LINE)))

    def debug(self, message: str) -> None:
        """Write a line for developers to the job's log."""
        self.log("debug", message)

    def info(self, message: str) -> None:
        """Write a line to the job's log."""
        self.log("info", message)

    def warning(self, message: str) -> None:
        """Write a warning to the job's log."""
        self.log("warning", message)

    def error(self, message: str) -> None:
        """Write an error to the job's log."""
        self.log("error", message)

    def extend(self, seconds: float) -> float:
        """Ask to run for *seconds* from now, and return how many are left.

        They are fewer when the job's type allows no more, or while Postgres is away, and never
        fewer than before.
        """
        if not 0 < seconds < math.inf:
            raise ValueError("seconds must be above 0")
        return seconds if self._give_time is None else self._give_time(seconds)

    def cancelled(self) -> bool:
        """Tell whether the job is to stop."""
        return self._stop.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise Cancelled if the job is to stop."""
        if self.cancelled():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Do nothing for so long; Cancelled is raised as soon as the job is to stop."""
        self._stop.wait(seconds)
        self.raise_if_cancelled()

    def request_stop(self) -> None:
        """Let the handler know that it is to stop; for whoever watches the attempt."""
        self._stop.set()
