"""A pull worker for handlers that are plain functions.

It asks for a job, keeps the lease alive in a thread while the handler runs, and reports how it
ended. What a worker whose lease is over would report is somebody else's to report.
"""

import logging
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol, TypedDict, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event
from tenacity.stop import stop_when_event_set

from fairq import calls, context, retrying
from fairq.calls import Call
from fairq.clock import Deadline
from fairq.context import Cancelled, Context, Report
from fairq.errors import FairqError, NoAnswer, Refused
from fairq.models import LeasedJob

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

LEASE_LOST = "lease_lost"

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
        self._send = send
        self._handler = handler
        self._lease_seconds = lease_seconds
        self._ask = calls.next_job(
            name or usual_name(), types, lease_seconds=lease_seconds, wait_seconds=wait_seconds
        )
        self._stop = threading.Event()

    def run(self) -> None:
        """Work until ``stop()``, SIGTERM or Ctrl-C; what was begun is finished and reported.

        A second signal acts as if nobody had asked for the first.
        """
        with stopping_on_signals(self.stop):
            while not self._stop.is_set():
                self.turn()

    def stop(self) -> None:
        """Take no more jobs. Safe from any thread and from signal handlers."""
        self._stop.set()

    def turn(self) -> LeasedJob | None:
        """Ask for a job; if there is one, run it, report it and return it."""
        leased = self._next()
        if leased is not None:
            self._work(leased)
        return leased

    def _next(self) -> LeasedJob | None:
        # If the answer was lost with a job in it, its lease runs out; asking again costs nothing.
        asking = Retrying(
            retry=retry_if_exception(retrying.is_passing),
            wait=retrying.pause,
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            before_sleep=tell_trouble,
            retry_error_callback=lambda _: None,
        )
        leased: LeasedJob | None = asking(self._send, self._ask)
        return leased

    def _work(self, leased: LeasedJob) -> None:
        attempt = Context(leased)
        with self._heartbeats(attempt):
            report = self._report(attempt)
        if attempt.has_notes():
            self._beat(attempt)
        if not attempt.is_lost():
            self._complete(leased, report)

    def _report(self, attempt: Context) -> Report:
        try:
            return context.success(self._handler(attempt, attempt.job.payload))
        except Cancelled as stopped:
            return context.failure(stopped)
        except Exception as error:  # noqa: BLE001 - the attempt is reported whatever happened
            attempt.error(traceback.format_exc())
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
        while not over.wait(min(NOTES_SECONDS, every)) and not attempt.is_lost():
            if attempt.has_notes() or due.is_over():
                self._beat(attempt)
                due = Deadline(every)

    def _beat(self, attempt: Context) -> None:
        notes, leased = attempt.take_notes(), attempt.job
        try:
            is_to_stop = self._send(calls.heartbeat(leased.job_id, leased.lease, notes.as_json()))
        except FairqError as error:
            missed_beat(attempt, notes, error)
        else:
            if is_to_stop:
                attempt.request_stop()

    def _complete(self, leased: LeasedJob, report: Report) -> None:
        try:
            self._send(calls.complete(leased.job_id, leased.lease, report))
        except FairqError as error:
            if (other := report_instead(leased, error)) is not None:
                self._send(calls.complete(leased.job_id, leased.lease, other))


def usual_name() -> str:
    """Return a name that no other worker has at the same time."""
    return f"{socket.gethostname()}:{os.getpid()}"


def missed_beat(attempt: Context, notes: context.Notes, error: FairqError) -> None:
    """Make the best of a heartbeat that failed: the next may arrive, unless the lease is over."""
    if isinstance(error, Refused) and error.code == LEASE_LOST:
        log.warning("a lease was lost", extra={"job_id": attempt.job_id})
        attempt.lose()
    elif retrying.is_passing(error):
        attempt.give_back(notes)
    else:
        log.warning("a heartbeat was refused", extra={"job_id": attempt.job_id}, exc_info=error)


def report_instead(leased: LeasedJob, error: FairqError) -> Report | None:
    """Return what to report when the server did not take the report; None is nothing.

    What cannot be told is left to the lease, which runs out.
    """
    if isinstance(error, NoAnswer) or retrying.is_passing(error):
        log.error("an outcome could not be reported", extra={"job_id": leased.job_id})
        return None
    if isinstance(error, Refused) and error.code == LEASE_LOST:
        log.warning("a lease was lost", extra={"job_id": leased.job_id})
        return None
    return context.unacceptable(str(error))


def tell_trouble(state: RetryCallState) -> None:
    """Note that no work could be asked for."""
    error = state.outcome and state.outcome.exception()
    log.warning("no work could be asked for", extra={"problem": str(error)})


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call *stop* on the first SIGTERM or SIGINT; only the main thread can listen for them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        restore()
        stop()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {one: signal.signal(one, on_signal) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        restore()
