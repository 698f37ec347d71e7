"""What the handler of a pull worker may do, what it may raise, and what is reported of it.

The names are those of handlers that run on Celery workers.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairq import clock
from fairq.models import COMPLETED, FAILED, LeasedJob

LEVELS = frozenset({"debug", "info", "warning", "error"})

_MOST_LINES = 1000


class DoNotRetry(Exception):
    """The job has failed for good, whatever attempts are left."""


class Cancelled(BaseException):
    """The job is to stop.

    No Exception, so that ``except Exception`` in a handler does not keep a job alive.
    """


@dataclass(frozen=True, slots=True)
class Notes:
    """What a handler said since the last heartbeat."""

    progress: Mapping[str, Any] | None
    lines: tuple[Mapping[str, Any], ...]

    def __bool__(self) -> bool:
        return bool(self.progress or self.lines)

    def as_json(self) -> dict[str, Any]:
        """Return the part of a heartbeat that tells them."""
        told = {"progress": self.progress, "logs": list(self.lines)}
        return {name: value for name, value in told.items() if value}


class Context:
    """One attempt at a job, as its handler sees it. Safe to use from several threads."""

    def __init__(self, job: LeasedJob) -> None:
        self.job = job
        self.job_id = job.job_id
        self.owner = job.owner
        self.attempt = job.attempt
        self._lock = threading.Lock()
        self._progress: Mapping[str, Any] | None = None
        self._lines: list[Mapping[str, Any]] = []
        self._stop = threading.Event()
        self._lost = threading.Event()

    def progress(self, fraction: float | None, message: str | None = None) -> None:
        """Show how far the job is: 0 to 1, or None for unknown. Cheap; told with heartbeats."""
        with self._lock:
            self._progress = {"fraction": fraction, "message": message}

    def log(self, level: str, message: str) -> None:
        """Write a line to the job's log. Of more than a heartbeat takes, the first are kept."""
        if level not in LEVELS:
            raise ValueError(f"a level is one of {', '.join(sorted(LEVELS))}, not {level!r}")
        line = {"at": clock.now().isoformat(), "level": level, "message": message}
        with self._lock:
            if len(self._lines) < _MOST_LINES:
                self._lines.append(line)

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

    def cancelled(self) -> bool:
        """Tell whether the job is to stop: it was cancelled, or is somebody else's by now."""
        return self._stop.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise Cancelled if the job is to stop."""
        if self.cancelled():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Do nothing for so long; Cancelled is raised as soon as the job is to stop."""
        self._stop.wait(seconds)
        self.raise_if_cancelled()

    # For the worker

    def has_notes(self) -> bool:
        """Tell whether there is something to tell."""
        return bool(self._progress or self._lines)

    def take_notes(self) -> Notes:
        """Return what the handler said, and start anew."""
        with self._lock:
            notes = Notes(self._progress, tuple(self._lines))
            self._progress, self._lines = None, []
        return notes

    def give_back(self, notes: Notes) -> None:
        """Put back what could not be told, before what was said meanwhile."""
        with self._lock:
            self._progress = self._progress or notes.progress
            self._lines = [*notes.lines, *self._lines][:_MOST_LINES]

    def request_stop(self) -> None:
        """Let the handler know that it is to stop."""
        self._stop.set()

    def lose(self) -> None:
        """Note that the job is no longer this worker's: nothing is to be reported of it."""
        self._lost.set()
        self._stop.set()

    def is_lost(self) -> bool:
        """Tell whether the lease is over."""
        return self._lost.is_set()


Report = Mapping[str, Any]
"""How an attempt ended, as ``POST /jobs/{job_id}/complete`` takes it."""


def success(result: Any) -> Report:
    """Report what a handler returned; what JSON cannot hold is a failure."""
    try:
        json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as problem:
        return _failed("ResultInvalid", f"the result is not JSON: {problem}", retryable=False)
    return {"status": COMPLETED, "result": result}


def failure(error: BaseException) -> Report:
    """Report what a handler raised."""
    if isinstance(error, Cancelled):
        return _failed("Cancelled", "stopped on request", retryable=False)
    return _failed(type(error).__name__, str(error), retryable=not isinstance(error, DoNotRetry))


def unacceptable(reason: str) -> Report:
    """Report that the server does not take what the handler returned."""
    return _failed("OutcomeRefused", reason, retryable=False)


def _failed(error_type: str, message: str, *, retryable: bool) -> Report:
    error = {"type": error_type, "message": message}
    return {"status": FAILED, "error": error, "retryable": retryable}
