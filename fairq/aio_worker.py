"""A pull worker for handlers that are coroutines."""

import asyncio
import signal
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from fairq import calls, context, retrying
from fairq.calls import Call
from fairq.clock import Deadline
from fairq.context import Cancelled, Context, Report
from fairq.errors import FairqError
from fairq.models import LeasedJob
from fairq.worker import (
    BEATS_PER_LEASE,
    LEASE_SECONDS,
    NOTES_SECONDS,
    WAIT_SECONDS,
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
        with _stopping_on_signals(self.stop):
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
            retry=retry_if_exception(retrying.is_passing),
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
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _work(self, leased: LeasedJob) -> None:
        attempt = Context(leased)
        handling = asyncio.ensure_future(self._handler(attempt, leased.payload))
        alive = asyncio.create_task(self._keep_alive(attempt, handling))
        try:
            report = await self._report(attempt, handling)
        finally:
            handling.cancel()
            alive.cancel()
            await asyncio.gather(alive, return_exceptions=True)
        if attempt.has_notes():
            await self._beat(attempt)
        if not attempt.is_lost():
            await self._complete(leased, report)

    async def _report(self, attempt: Context, handling: "asyncio.Future[Any]") -> Report:
        # Waited for, not awaited: that way a handler that was cancelled is told from this worker.
        await asyncio.wait([handling])
        if handling.cancelled():
            return context.failure(Cancelled())
        error = handling.exception()
        if error is None:
            return context.success(handling.result())
        if not isinstance(error, Exception | Cancelled):
            raise error
        if isinstance(error, Exception):
            attempt.error("".join(traceback.format_exception(error)))
        return context.failure(error)

    async def _keep_alive(self, attempt: Context, handling: "asyncio.Future[Any]") -> None:
        every = self._lease_seconds / BEATS_PER_LEASE
        due = Deadline(every)
        while not attempt.is_lost():
            await asyncio.sleep(min(NOTES_SECONDS, every))
            if attempt.has_notes() or due.is_over():
                await self._beat(attempt)
                due = Deadline(every)
            if attempt.cancelled():
                handling.cancel()

    async def _beat(self, attempt: Context) -> None:
        notes, leased = attempt.take_notes(), attempt.job
        call = calls.heartbeat(leased.job_id, leased.lease, notes.as_json())
        try:
            is_to_stop = await self._send(call)
        except FairqError as error:
            missed_beat(attempt, notes, error)
        else:
            if is_to_stop:
                attempt.request_stop()

    async def _complete(self, leased: LeasedJob, report: Report) -> None:
        try:
            await self._send(calls.complete(leased.job_id, leased.lease, report))
        except FairqError as error:
            if (other := report_instead(leased, error)) is not None:
                await self._send(calls.complete(leased.job_id, leased.lease, other))


@contextmanager
def _stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call *stop* on the first SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    listened_for = (signal.SIGTERM, signal.SIGINT)

    def on_signal() -> None:
        restore()
        stop()

    def restore() -> None:
        for number in listened_for:
            loop.remove_signal_handler(number)

    for number in listened_for:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        restore()
