"""A pull worker for handlers that are plain functions.

It asks for a job, keeps the lease alive in a thread while the handler runs, and reports how it
ended. What a worker whose lease is over would report is somebody else's to report.
"""

import inspect
import logging
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Protocol, TypedDict, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from fairq import calls, context, retrying
from fairq.calls import Call
from fairq.clock import Deadline
from fairq.context import Cancelled, Context, Notes, Report
from fairq.errors import FairqError, Refused
from fairq.models import LeasedJob
from fairq.signals import stopping_on_signals

T = TypeVar("T")

Handler = Callable[[Context, dict[str, Any]], Any]
"""Takes a context and the payload, returns something JSON can hold."""

LEASE_SECONDS = 30.0
BEATS_PER_LEASE = 3
"""So many heartbeats fit into a lease: two may get lost, and it still holds."""

NOTES_SECONDS = 1.0
"""How long progress and log lines may wait for a heartbeat."""

WAIT_SECONDS = 5.0
"""How long one request waits for a job to come; a worker that is to stop waits for its end."""

SHORTEST_TIMEOUT_SECONDS = 1.0
"""What an answer to a heartbeat may take under the shortest of leases."""

_LEASE_LOST = "lease_lost"
_NOT_ACCEPTABLE = frozenset({HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY})

log = logging.getLogger(__name__)


class Send(Protocol):
    """Sends a call, and returns its answer."""

    def __call__(self, call: Call[T], /) -> T:
        """Raise a FairqError when there is none."""
        ...


class Terms(TypedDict, total=False):
    """How a pull worker works; *name* is what it is called in lists of workers."""

    name: str
    lease_seconds: float
    wait_seconds: float


class Wish:
    """The wish that a worker stops.

    A signal handler may make it: an Event's lock could be held when the signal comes.
    """

    def __init__(self) -> None:
        self._made: queue.SimpleQueue[None] = queue.SimpleQueue()

    def make(self) -> None:
        """Make it; once is as good as twice."""
        self._made.put(None)

    def is_made(self) -> bool:
        """Tell whether the worker is to stop."""
        return not self._made.empty()

    def wait(self, seconds: float) -> None:
        """Wait for it, but no longer; for one thread."""
        try:
            self._made.get(timeout=seconds)
        except queue.Empty:
            return
        self._made.put(None)


class PullWorker:
    """Runs the jobs it pulls, one after the other."""

    def __init__(
        self,
        send: Send,
        handler: Handler,
        types: Iterable[str] | None = None,
        *,
        name: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        if is_coroutine(handler):
            raise TypeError("the handler is a coroutine: make it one of an AsyncClient's worker")
        self._send = send
        self._handler = handler
        self._lease_seconds = lease_seconds
        self._ask = calls.next_job(
            name or usual_name(), types, lease_seconds=lease_seconds, wait_seconds=wait_seconds
        )
        self._stop = Wish()

    def run(self) -> None:
        """Work until ``stop()``, SIGTERM or Ctrl-C; what was begun is finished and reported.

        A second signal acts as if nobody had asked for the first.
        """
        with stopping_on_signals(self.stop):
            while not self._stop.is_made():
                self.turn()

    def stop(self) -> None:
        """Take no more jobs. Safe from any thread and from signal handlers."""
        self._stop.make()

    def turn(self) -> LeasedJob | None:
        """Ask for a job; if there is one, run it, report it and return it."""
        leased = self._next()
        if leased is not None:
            self._work(leased)
        return leased

    def _next(self) -> LeasedJob | None:
        # If the answer was lost with a job in it, its lease runs out; asking again costs nothing.
        asking = Retrying(
            retry=retry_if_exception(retrying.may_pass),
            wait=retrying.pause,
            stop=lambda _: self._stop.is_made(),
            sleep=self._stop.wait,
            before_sleep=tell_trouble,
            retry_error_callback=lambda _: None,
        )
        leased: LeasedJob | None = asking(self._send, self._ask)
        return leased

    def _work(self, leased: LeasedJob) -> None:
        attempt = Context(leased)
        with self._heartbeats(attempt):
            report = self._report(attempt)
        while attempt.has_notes() and self._beat(attempt):
            pass
        if not attempt.is_lost():
            self._complete(leased, report)

    def _report(self, attempt: Context) -> Report:
        try:
            return context.success(self._handler(attempt, attempt.job.payload))
        except Cancelled as stopped:
            return context.failure(stopped)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported whatever happened
            attempt.error(context.traceback_of(error))
            return context.failure(error)

    @contextmanager
    def _heartbeats(self, attempt: Context) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._keep_alive, args=(attempt, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _keep_alive(self, attempt: Context, over: threading.Event) -> None:
        every = self._lease_seconds / BEATS_PER_LEASE
        due = Deadline(every)
        while not over.wait(due.left(at_most=NOTES_SECONDS)) and not attempt.is_lost():
            if attempt.has_notes() or due.is_over():
                due = Deadline(every)
                self._beat(attempt)

    def _beat(self, attempt: Context, notes: Notes | None = None) -> bool:
        """Keep the lease, and tell what was said; return whether that arrived."""
        notes = attempt.take_notes() if notes is None else notes
        try:
            is_to_stop = self._send(beat(attempt.job, notes, self._lease_seconds))
        except (FairqError, TypeError, ValueError) as error:
            return missed_beat(attempt, notes, error) and self._beat(attempt, Notes())
        if is_to_stop:
            attempt.request_stop()
        return True

    def _complete(self, leased: LeasedJob, report: Report) -> None:
        try:
            self._send(calls.complete(leased.job_id, leased.lease, report))
        except FairqError as error:
            if (other := report_instead(leased, report, error)) is not None:
                self._complete(leased, other)


def usual_name() -> str:
    """Return a name that no other worker has at the same time."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_coroutine(handler: Any) -> bool:
    """Tell whether a handler is for an event loop."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        type(handler).__call__
    )


def beat(leased: LeasedJob, notes: Notes, lease_seconds: float) -> Call[bool]:
    """Return a heartbeat. One that hangs is given up while there is time for others."""
    timeout = max(SHORTEST_TIMEOUT_SECONDS, lease_seconds / BEATS_PER_LEASE)
    return calls.heartbeat(leased.job_id, leased.lease, notes.as_json(), timeout_seconds=timeout)


def missed_beat(attempt: Context, notes: Notes, error: Exception) -> bool:
    """Make the best of a heartbeat that failed; tell whether one without *notes* is due at once.

    What was refused would be refused again, and is no reason to lose the lease.
    """
    if _is_lost(error):
        log.warning("a lease was lost", extra={"job_id": attempt.job_id})
        attempt.lose()
        return False
    if retrying.is_passing(error):
        attempt.give_back(notes)
        return False
    log.warning("a heartbeat was refused", extra={"job_id": attempt.job_id}, exc_info=error)
    return bool(notes)


def report_instead(leased: LeasedJob, report: Report, error: FairqError) -> Report | None:
    """Return what to report when the server did not take *report*; None is nothing.

    Only a server that read it can find it unacceptable. What cannot be told is left to the lease,
    which runs out.
    """
    if isinstance(error, Refused) and error.status in _NOT_ACCEPTABLE:
        return context.unacceptable(report, str(error))
    if _is_lost(error):
        log.warning("a lease was lost", extra={"job_id": leased.job_id})
    else:
        log.error("an outcome could not be reported", extra={"job_id": leased.job_id})
    return None


def tell_trouble(state: RetryCallState) -> None:
    """Note that no work could be asked for."""
    error = state.outcome and state.outcome.exception()
    log.warning("no work could be asked for", extra={"problem": str(error)})


def _is_lost(error: Exception) -> bool:
    return isinstance(error, Refused) and error.code == _LEASE_LOST
