"""What the handler of a pull worker may do, what it may raise, and what is reported of it.

The names are those of handlers that run on Celery workers.
"""

import json
import math
import threading
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from fairq import clock, outcome
from fairq.models import COMPLETED, FAILED, LeasedJob
from fairq.outcome import clean

LEVELS = frozenset({"debug", "info", "warning", "error"})

_MOST_LINES = 1000

_MOST_BYTES = 900_000
"""Of lines in one heartbeat; with what is around them a request stays under the server's limit."""

_REFUSED = "OutcomeRefused"


class DoNotRetry(Exception):
    """The job has failed for good, whatever attempts are left."""


class Cancelled(BaseException):
    """The job is to stop.

    No Exception, so that ``except Exception`` in a handler does not keep a job alive.
    """


@dataclass(frozen=True, slots=True)
class Notes:
    """What a handler said since the last heartbeat."""

    progress: Mapping[str, Any] | None = None
    lines: tuple[Mapping[str, Any], ...] = ()

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
        if fraction is not None and math.isnan(fraction):
            raise ValueError("a progress must be a number from 0 to 1")
        part = None if fraction is None else min(1.0, max(0.0, float(fraction)))
        told = None if message is None else clean(message, outcome.LONGEST_MESSAGE)
        with self._lock:
            self._progress = {"fraction": part, "message": told}

    def log(self, level: str, message: str) -> None:
        """Write a line to the job's log. Of more than can wait to be told, the first are kept."""
        if level not in LEVELS:
            raise ValueError(f"a level is one of {', '.join(sorted(LEVELS))}, not {level!r}")
        told = clean(message, outcome.LONGEST_LINE)
        line = {"at": clock.now().isoformat(), "level": level, "message": told}
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
        """Return what the handler said, as much of it as a heartbeat takes; the rest is next."""
        with self._lock:
            count = _fitting(self._lines)
            notes = Notes(self._progress, tuple(self._lines[:count]))
            self._progress, self._lines = None, self._lines[count:]
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
    """Report what a handler returned; what cannot be sent is a failure."""
    try:
        outcome.check(result)
    except outcome.ResultInvalid as problem:
        return _failed("ResultInvalid", str(problem), retryable=False)
    return {"status": COMPLETED, "result": result}


def failure(error: BaseException) -> Report:
    """Report what a handler raised."""
    if isinstance(error, Cancelled):
        return _failed("Cancelled", "stopped on request", retryable=False)
    return _failed(
        type(error).__name__,
        _message(error),
        retryable=not isinstance(error, DoNotRetry),
        traceback=traceback_of(error),
    )


def unacceptable(report: Report, reason: str) -> Report | None:
    """Report that the server does not take *report*; None if that says so already."""
    if report.get("error", {}).get("type") == _REFUSED:
        return None
    return _failed(_REFUSED, reason, retryable=report.get("retryable", False))


def traceback_of(error: BaseException) -> str:
    """Return where *error* was raised; of a long way the end."""
    told = "".join(traceback.format_exception(error))
    return clean(told[-outcome.LONGEST_TRACEBACK :], outcome.LONGEST_TRACEBACK)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the attempt is reported whatever its error is made of
        return "an error that cannot be put into words"


def _failed(error_type: str, message: str, *, retryable: bool, **more: str) -> Report:
    error = {
        "type": error_type[: outcome.LONGEST_NAME],
        "message": clean(message, outcome.LONGEST_ERROR),
        **more,
    }
    return {"status": FAILED, "error": error, "retryable": retryable}


def _fitting(lines: Iterable[Mapping[str, Any]]) -> int:
    """Return how many of *lines*, from the first, fit into a heartbeat; one always does."""
    sizes = (len(json.dumps(line, ensure_ascii=False).encode()) for line in lines)
    return sum(size <= _MOST_BYTES for size in accumulate(sizes))
