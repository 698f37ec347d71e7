"""One message: claim its attempts, run their handlers, report each outcome once."""

import logging
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any

from billiard.common import terminate_handler_fired
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler import retry
from scheduler.settings import Settings
from scheduler.states import CancelReason
from scheduler.store import work
from scheduler.store.moves import Move
from scheduler.store.work import TIME_LIMIT, Claim, Failure, Success
from tasks import memory
from tasks.catalogue import Catalogue
from tasks.context import (
    CancelJob,
    Cancelled,
    Context,
    DoNotRetry,
    Notebook,
    RetryAfter,
    Snooze,
)
from tasks.interruption import Interruptible
from tasks.ledger import Ledger
from tasks.memory import MemoryExceeded
from tasks.outcome import ResultInvalid, checked, clean
from tasks.reports import Ending, Report, Reports, Snoozed, Stopped
from tasks.usage import Gauge, Usage
from tasks.watcher import LEASE, Watched, Watcher

_LONGEST_ERROR = 2000
_LONGEST_TRACEBACK = 16_000

log = logging.getLogger(__name__)


class UnknownToThisWorker(Exception):
    """The job's type is not one of those this worker can run; another worker may."""


class Batch:
    """The claimed attempts of one message that have not begun; safe between threads."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self._claims = deque(claims)
        self._lock = threading.Lock()

    def next(self) -> Claim | None:
        """Take the attempt that is to run next."""
        with self._lock:
            return self._claims.popleft() if self._claims else None

    def take_rest(self) -> list[Claim]:
        """Take all that have not begun."""
        with self._lock:
            rest = list(self._claims)
            self._claims.clear()
        return rest

    def put_back(self, rest: Sequence[Claim]) -> None:
        """Undo ``take_rest``."""
        with self._lock:
            self._claims.extendleft(reversed(rest))


class Runner:
    """Runs messages in one process. *tasks* are Celery's own, by name.

    Outcomes are written inside the block that *reporting* makes.
    """

    def __init__(
        self,
        ledger: Ledger,
        catalogue: Catalogue,
        tasks: Mapping[str, Any],
        settings: Settings,
        *,
        reporting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._ledger = ledger
        self._catalogue = catalogue
        self._tasks = tasks
        self._settings = settings
        self._reporting = reporting
        self._reports = Reports(ledger)
        self._watcher = Watcher(ledger, self._reports)

    def run(self, wanted: Sequence[tuple[int, int]], *, worker: str) -> None:
        """Run those attempts of a message that are still to be run, one after the other."""
        batch = Batch(self._claim(wanted, worker))
        while claim := batch.next():
            report = self._attempt(claim, batch)
            with self._reporting():
                self._reports.add(report)
        with self._reporting():
            self._reports.flush()

    def close(self) -> None:
        """Let go of everything."""
        self._watcher.close()

    def _claim(self, wanted: Sequence[tuple[int, int]], worker: str) -> list[Claim]:
        """Claim what is still to be run.

        A claim lost with the database's machine is made again: its outcome was not kept either.
        One whose answer was lost is this process's own, and found by it.
        When Postgres stays away the message is dropped: the scheduler sends what nobody claimed
        again.
        """

        def start(session: Session) -> tuple[list[Claim], list[Move]]:
            return work.start(session, wanted, worker=worker, pid=os.getpid(), lease=LEASE)

        try:
            claims, moves = self._ledger.keep(start, durable=False, patience=work.CLAIM_PATIENCE)
        except DBAPIError:
            log.exception("a message could not be claimed", extra={"attempts": list(wanted)})
            return []
        self._ledger.announcer.tell(moves)
        return claims

    def _attempt(self, claim: Claim, batch: Batch) -> Report:
        notebook = Notebook(self._watcher.nudge)
        block = Interruptible(timedelta(seconds=claim.timeout_seconds))
        give_time = partial(self._give_time, claim, block)
        context = Context(claim, self._settings, notebook, give_time)
        on_long = partial(self._give_back_rest, batch)
        gauge = Gauge.started()
        watched = Watched(claim, context, notebook, block, gauge, on_long)
        with self._watcher.watching(watched):
            ending = self._end_of(claim, context, block, gauge)
        return Report(claim, ending, notebook.take())

    def _end_of(self, claim: Claim, context: Context, block: Interruptible, gauge: Gauge) -> Ending:
        try:
            with memory.wall(claim.memory_mb), block:
                result = self._call(claim, context)
            kept = checked(result)
        except BaseException as error:
            if terminate_handler_fired():
                raise  # this process is being ended; its parent says what becomes of the job
            return ending_of(error, claim, context, gauge.read())
        used = gauge.read()
        return Success(claim.id, claim.attempt, kept, used.peak_memory_mb, used.cpu_seconds)

    def _call(self, claim: Claim, context: Context) -> Any:
        kind = self._catalogue.get(claim.type)
        if kind:
            return kind.handler(context, kind.payload.model_validate(claim.payload))
        if claim.type in self._tasks:
            return _call_task(self._tasks[claim.type], claim.payload)
        raise UnknownToThisWorker(f"this worker has no job type named {claim.type}")

    def _give_time(self, claim: Claim, block: Interruptible, seconds: float) -> float:
        """Let the handler run for longer; return how many seconds it has left."""

        def give(session: Session) -> float | None:
            return work.give_time(session, claim.id, claim.attempt, seconds=seconds)

        try:
            left = self._ledger.once(give, durable=False)
        except DBAPIError as problem:
            log.warning("no time was given", extra={"problem": str(problem.orig)})
            left = None
        if left is not None and left > block.left():
            block.allow(left)
        return block.left()

    def _give_back_rest(self, batch: Batch) -> None:
        rest = batch.take_rest()
        if not rest:
            return
        wanted = [(claim.id, claim.attempt) for claim in rest]
        try:
            moves = self._ledger.once(partial(work.give_back, wanted=wanted), durable=True)
        except DBAPIError:
            batch.put_back(rest)
            raise
        self._ledger.tell(moves)


def _call_task(task: Any, payload: dict[str, Any]) -> Any:
    """Run a plain Celery task in this process, and translate Celery's own ways to end one."""
    try:
        return task(**payload)
    except Ignore:
        return None
    except Retry as wish:
        if isinstance(wish.when, int | float):
            raise RetryAfter(wish.when, str(wish)) from wish
        raise
    except Reject as refusal:
        if refusal.requeue:
            raise
        raise DoNotRetry(str(refusal.reason)) from refusal


def ending_of(error: BaseException, claim: Claim, context: Context, used: Usage) -> Ending:
    """Say what becomes of a job whose handler raised *error*, whatever kind of error that is."""
    try:
        return _ending_of(error, claim, context, used)
    except Exception as problem:
        log.warning("an error could not be read", exc_info=problem)
        said = f"its handler raised what could not be read: {type(problem).__name__}"
        return Failure(claim.id, claim.attempt, type(error).__name__, said)


def _ending_of(error: BaseException, claim: Claim, context: Context, used: Usage) -> Ending:
    match error:
        case Cancelled() if context.cancelled():
            return Stopped(claim.id, claim.attempt)
        case CancelJob():
            said = _message(error) or "cancelled by its handler"
            return Stopped(claim.id, claim.attempt, CancelReason.BY_ITSELF, said)
        case Snooze():
            return Snoozed(claim.id, claim.attempt, retry.bounded(error.seconds))
    failure = Failure(
        claim.id,
        claim.attempt,
        error_type=type(error).__name__,
        error_message=_message(error),
        traceback=_traceback(error),
        peak_memory_mb=used.peak_memory_mb,
        cpu_seconds=used.cpu_seconds,
    )
    return replace(failure, **_particulars(error, claim))


def _particulars(error: BaseException, claim: Claim) -> dict[str, Any]:
    """What differs from a failure that is retried by the job's own rules."""
    particulars: dict[str, Any] = {}
    match error:
        case SoftTimeLimitExceeded(args=(float(seconds),)):
            particulars["error_type"] = TIME_LIMIT
            particulars["error_message"] = f"stopped after {seconds:g} s"
        case MemoryError():
            particulars["error_type"] = MemoryExceeded.__name__
            particulars["error_message"] = f"asked for far more than its {claim.memory_mb} MB"
        case ValidationError():
            particulars = {"error_type": "PayloadInvalid", "traceback": None, "retryable": False}
        case ResultInvalid():
            particulars = {"traceback": None, "retryable": False}
        case DoNotRetry():
            particulars["retryable"] = False
        case RetryAfter():
            particulars["retry_after"] = retry.bounded(error.seconds)
    return particulars


def _message(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return clean("; ".join(problems), _LONGEST_ERROR)
    lines = traceback.format_exception_only(error)  # unlike str(), this never raises
    said = "".join(lines).strip()
    name = f"{type(error).__module__}.{type(error).__qualname__}: "
    return clean(said.removeprefix(name).removeprefix(name.rpartition(".")[2]), _LONGEST_ERROR)


def _traceback(error: BaseException) -> str:
    """Return the handler's part of the traceback, its end if it is long."""
    inner: TracebackType | None = error.__traceback__
    while inner and inner.tb_next and inner.tb_frame.f_code.co_filename == __file__:
        inner = inner.tb_next
    told = "".join(traceback.format_exception(type(error), error, inner))
    return clean(told[-_LONGEST_TRACEBACK:], _LONGEST_TRACEBACK)
