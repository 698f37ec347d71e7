"""A pull worker for handlers that are coroutines."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from fairq import calls, context, retrying
from fairq.calls import Call
from fairq.clock import Deadline
from fairq.context import Cancelled, Context, Notes, Report
from fairq.errors import FairqError
from fairq.models import LeasedJob
from fairq.signals import stopping_on_signals
from fairq.worker import (
    BEATS_PER_LEASE,
    LEASE_SECONDS,
    NOTES_SECONDS,
    WAIT_SECONDS,
    beat,
    is_coroutine,
    missed_beat,
    report_instead,
    tell_trouble,
    usual_name,
)

T = TypeVar("T")

AsyncHandler = Callable[[Context, dict[str, Any]], Awaitable[Any]]
"""Takes a context and the payload, returns something JSON can hold."""


class AsyncSend(Protocol):
    """Sends a call, and returns its answer."""

    async def __call__(self, call: Call[T], /) -> T:
        """Raise a FairqError when there is none."""
        ...


class AsyncPullWorker:
    """Runs the jobs it pulls, one after the other. A handler that is to stop is cancelled."""

    def __init__(
        self,
        send: AsyncSend,
        handler: AsyncHandler,
        types: Iterable[str] | None = None,
        *,
        name: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        if not is_coroutine(handler):
            raise TypeError("the handler is no coroutine: make it one of a Client's worker")
        self._send = send
        self._handler = handler
        self._lease_seconds = lease_seconds
        self._ask = calls.next_job(
            name or usual_name(), types, lease_seconds=lease_seconds, wait_seconds=wait_seconds
        )
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Work until ``stop()``, SIGTERM or Ctrl-C; what was begun is finished and reported.

        A second signal acts as if nobody had listened for the first.
        """
        loop = asyncio.get_running_loop()
        with stopping_on_signals(partial(loop.call_soon_threadsafe, self.stop)):
            while not self._stop.is_set():
                await self.turn()

    def stop(self) -> None:
        """Take no more jobs. For the thread of the event loop."""
        self._stop.set()

    async def turn(self) -> LeasedJob | None:
        """Ask for a job; if there is one, run it, report it and return it."""
        leased = await self._next()
        if leased is not None:
            await self._work(leased)
        return leased

    async def _next(self) -> LeasedJob | None:
        # If the answer was lost with a job in it, its lease runs out; asking again costs nothing.
        asking = AsyncRetrying(
            retry=retry_if_exception(retrying.may_pass),
            wait=retrying.pause,
            stop=self._is_to_stop,
            sleep=self._sleep,
            before_sleep=tell_trouble,
            retry_error_callback=lambda _: None,
        )
        leased: LeasedJob | None = await asking(self._send, self._ask)
        return leased

    def _is_to_stop(self, _state: RetryCallState) -> bool:
        return self._stop.is_set()

    async def _sleep(self, seconds: float) -> None:
        await _is_set(self._stop, seconds)

    async def _work(self, leased: LeasedJob) -> None:
        attempt, over = Context(leased), asyncio.Event()
        handling = asyncio.create_task(self._report(attempt))
        alive = asyncio.create_task(self._keep_alive(attempt, handling, over))
        try:
            # Waited for, not awaited: that way a handler that was cancelled is told from this
            # worker. The heartbeats are let end: one that is cancelled loses what it was to tell.
            await asyncio.wait([handling])
            over.set()
            await asyncio.wait([alive])
        finally:
            handling.cancel()
            alive.cancel()
            await asyncio.gather(alive, return_exceptions=True)
        while attempt.has_notes() and await self._beat(attempt):
            pass
        if not attempt.is_lost():
            await self._complete(leased, _report_of(handling))

    async def _report(self, attempt: Context) -> Report:
        try:
            return context.success(await self._handler(attempt, attempt.job.payload))
        except Cancelled as stopped:
            return context.failure(stopped)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported whatever happened
            attempt.error(context.traceback_of(error))
            return context.failure(error)

    async def _keep_alive(
        self, attempt: Context, handling: "asyncio.Task[Report]", over: asyncio.Event
    ) -> None:
        every = self._lease_seconds / BEATS_PER_LEASE
        due = Deadline(every)
        is_told = False
        while not attempt.is_lost() and not await _is_set(over, due.left(at_most=NOTES_SECONDS)):
            if attempt.has_notes() or due.is_over():
                due = Deadline(every)
                await self._beat(attempt)
            if attempt.cancelled() and not is_told:
                is_told = handling.cancel()

    async def _beat(self, attempt: Context, notes: Notes | None = None) -> bool:
        """Keep the lease, and tell what was said; return whether that arrived."""
        notes = attempt.take_notes() if notes is None else notes
        try:
            is_to_stop = await self._send(beat(attempt.job, notes, self._lease_seconds))
        except (FairqError, TypeError, ValueError) as error:
            return missed_beat(attempt, notes, error) and await self._beat(attempt, Notes())
        if is_to_stop:
            attempt.request_stop()
        return True

    async def _complete(self, leased: LeasedJob, report: Report) -> None:
        try:
            await self._send(calls.complete(leased.job_id, leased.lease, report))
        except FairqError as error:
            if (other := report_instead(leased, report, error)) is not None:
                await self._complete(leased, other)


def _report_of(handling: "asyncio.Task[Report]") -> Report:
    return context.failure(Cancelled()) if handling.cancelled() else handling.result()


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Wait so long for *event* at most, and tell whether it has come."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return event.is_set()
    return True
