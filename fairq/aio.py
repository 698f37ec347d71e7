"""The client for programs on asyncio: the same names, awaited."""

import asyncio
import logging
import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from functools import partial
from typing import Any, Self, TypeVar, Unpack

import httpx
from httpx_sse import EventSource, ServerSentEvent
from tenacity import AsyncRetrying

from fairq import calls, http, retrying
from fairq.aio_worker import AsyncHandler, AsyncPullWorker
from fairq.calls import BulkFilter, Call, Cleared, DeadLetterFilter, JobFilter, Timing
from fairq.client import PATIENCE_SECONDS, TIMEOUT_SECONDS, WAIT_SECONDS
from fairq.clock import Deadline
from fairq.errors import FairqError, NotFinished
from fairq.models import (
    Account,
    Attempt,
    Bulk,
    Change,
    DeadLetter,
    DeadLetterGroup,
    Job,
    JobType,
    LogLine,
    Page,
    Schedule,
    Stats,
    Worker,
)
from fairq.sign_in import SignIn
from fairq.submission import Fields, Submission
from fairq.worker import Terms
from fairq.workflow import Workflow

T = TypeVar("T")

log = logging.getLogger(__name__)


class AsyncClient:
    """A connection to a server, as ``Client`` is one, for the tasks of one event loop."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        sign_in = SignIn.found(url, token)
        self._patience_seconds = patience_seconds
        self._timeout_seconds = timeout_seconds
        self._http = httpx.AsyncClient(**http.options(sign_in, timeout_seconds))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # Submitting

    async def submit(
        self, type_: str, payload: Mapping[str, Any] | None = None, /, **fields: Unpack[Fields]
    ) -> Job:
        """Submit a job. One that is there with the same content comes back as ``duplicate``."""
        return await self.send(calls.submit(Submission(type_, payload or {}, **fields)))

    async def submit_many(self, submissions: Iterable[Submission]) -> list[Job]:
        """Submit jobs, all or none; they may wait for one another in any order."""
        return await self.send(calls.submit_many(list(submissions)))

    def workflow(self) -> Workflow[Awaitable[list[Job]]]:
        """Return an empty graph of jobs, to be filled and submitted as a whole."""
        return Workflow(self.submit_many)

    # One job

    async def job(self, job: str | Job, *, owner: str | None = None) -> Job:
        """Read a job."""
        return await self.send(calls.job(job, owner))

    async def attempts(self, job: str | Job, *, owner: str | None = None) -> list[Attempt]:
        """Read every try at a job, first to last."""
        return [one async for one in self._items(partial(calls.attempts, job, owner))]

    async def wait(
        self, job: str | Job, timeout_seconds: float | None = None, *, owner: str | None = None
    ) -> Job:
        """Return a job once it is finished, however it ended. Raises NotFinished after the time.

        So it does where the server is away when the time is over.
        """
        deadline, seen = Deadline(timeout_seconds), job
        while True:
            patience = deadline.left(at_most=self._patience_seconds)
            asking = AsyncRetrying(**retrying.policy(patience))
            try:
                found: Job = await asking(self._look, job, deadline, owner)
            except FairqError as error:
                if patience < self._patience_seconds and retrying.is_passing(error):
                    raise NotFinished(seen) from error
                raise
            if found.is_finished:
                return found
            if deadline.is_over():
                raise NotFinished(found)
            seen = found

    async def cancel(self, job: str | Job, *, owner: str | None = None) -> Job:
        """Cancel a job: at once while it waits, as soon as it has stopped while it runs."""
        return await self.send(calls.cancel(job, owner))

    async def retry(self, job: str | Job, *, owner: str | None = None) -> Job:
        """Run a failed or cancelled job again, with fresh attempts."""
        return await self.send(calls.retry(job, owner))

    async def bulk(
        self,
        action: str,
        *job_ids: str,
        set_priority: str | int | None = None,
        add_tags: Sequence[str] | None = None,
        remove_tags: Sequence[str] | None = None,
        dry_run: bool = False,
        **wanted: Unpack[BulkFilter],
    ) -> Bulk:
        """Cancel, retry, prioritise or tag many jobs: those named, or all that match.

        A job does it in the background: wait for its ``job_id``, and its result tells with how
        many it was done. *dry_run* only counts. *set_priority* goes with ``prioritise``.
        """
        changes = {"priority": set_priority, "add_tags": add_tags, "remove_tags": remove_tags}
        return await self.send(calls.bulk(action, job_ids, wanted, changes, dry_run=dry_run))

    def logs(
        self, job: str | Job, *, follow: bool = False, owner: str | None = None
    ) -> AsyncIterator[LogLine]:
        """Yield what a job wrote, oldest first; *follow* goes on until it is finished."""
        if follow:
            return self._followed(job, owner)
        return self._items(partial(calls.logs, job, owner))

    async def stream(
        self, *, after: int | None = None, owner: str | None = None
    ) -> AsyncIterator[Change]:
        """Yield every change of one's jobs from now on, or *after* the one with that ``seq``.

        A connection that is lost is made again, and nothing is missed meanwhile; where that was
        not possible, the next change ``is_gap``.
        """
        last_id = None if after is None else str(after)
        while True:
            async with aclosing(self._listen(calls.stream(owner), last_id)) as events:
                async for event in events:
                    last_id = event.id or last_id
                    if (change := http.change(event)) is not None:
                        yield change
            await asyncio.sleep(http.REOPEN_SECONDS)

    # Lists

    def jobs(self, **wanted: Unpack[JobFilter]) -> AsyncIterator[Job]:
        """Yield jobs, newest first, page after page; ``limit`` is the size of a page."""
        return self._items(partial(calls.jobs, wanted))

    def dead_letters(self, **wanted: Unpack[DeadLetterFilter]) -> AsyncIterator[DeadLetter]:
        """Yield jobs that failed for good and were not discarded, the latest failure first."""
        return self._items(partial(calls.dead_letters, wanted))

    def dead_letter_groups(
        self, **wanted: Unpack[DeadLetterFilter]
    ) -> AsyncIterator[DeadLetterGroup]:
        """Yield dead letters in groups of alike errors."""
        return self._items(partial(calls.dead_letter_groups, wanted))

    async def retry_dead_letters(
        self,
        *job_ids: str,
        payload: Mapping[str, Any] | None = None,
        everything: bool = False,
        **wanted: Unpack[DeadLetterFilter],
    ) -> Cleared:
        """Run dead letters again, those named, all that match or *everything*; tell how many.

        *payload* is merged into their payloads; None in it takes a field away.
        """
        meant = calls.meant(job_ids, wanted, everything=everything)
        return await self._clear(partial(calls.retry_dead_letters, meant, payload))

    async def discard_dead_letters(
        self, *job_ids: str, everything: bool = False, **wanted: Unpack[DeadLetterFilter]
    ) -> Cleared:
        """Take out of the list those named, all that match or *everything*; tell how many."""
        meant = calls.meant(job_ids, wanted, everything=everything)
        return await self._clear(partial(calls.discard_dead_letters, meant))

    # Schedules

    def schedules(self) -> AsyncIterator[Schedule]:
        """Yield schedules."""
        return self._items(calls.schedules)

    async def schedule(self, name: str) -> Schedule:
        """Read a schedule."""
        return await self.send(calls.schedule(name))

    async def create_schedule(
        self, name: str, job: Submission, **timing: Unpack[Timing]
    ) -> Schedule:
        """Have *job* submitted by the clock: give ``cron`` or ``every_seconds``."""
        return await self.send(calls.create_schedule(name, job, timing))

    async def update_schedule(
        self, name: str, job: Submission | None = None, **timing: Unpack[Timing]
    ) -> Schedule:
        """Change what a schedule submits, and when; ``paused=True`` stops it."""
        return await self.send(calls.update_schedule(name, job, timing))

    async def delete_schedule(self, name: str) -> None:
        """Delete a schedule; jobs it submitted stay."""
        await self.send(calls.delete_schedule(name))

    async def run_schedule(self, name: str) -> Job:
        """Submit the job of a schedule now, whatever the clock says."""
        return await self.send(calls.run_schedule(name))

    # Service

    async def me(self) -> Account:
        """Read one's own account."""
        return await self.send(calls.me())

    async def workers(self) -> list[Worker]:
        """Read every worker, of Celery and pulling, for operators."""
        return await self.send(calls.workers())

    async def stats(self) -> Stats:
        """Read figures of now and of the last hour: own ones, everybody's for operators."""
        return await self.send(calls.stats())

    async def types(self) -> list[JobType]:
        """Read what can be submitted."""
        return [one async for one in self._items(calls.types)]

    # Working

    def worker(
        self, types: Iterable[str] | None = None, **terms: Unpack[Terms]
    ) -> Callable[[AsyncHandler], AsyncPullWorker]:
        """Make a function the handler of jobs of these types, or of any that workers may pull.

        ::

            @client.worker(types=["thumbnail"])
            async def thumbnail(context, payload):
                context.progress(0.5, "half way")
                return {"width": 100}

            await thumbnail.run()
        """
        return lambda handler: AsyncPullWorker(self.send, handler, types, **terms)

    # How it is done

    async def send(self, call: Call[T]) -> T:
        """Send a call of ``fairq.calls``, again while the server is away if that is safe."""
        if not call.is_safe:
            return await self._exchange(call)
        answer: T = await AsyncRetrying(**retrying.policy(self._patience_seconds))(
            self._exchange, call
        )
        return answer

    async def _exchange(self, call: Call[T]) -> T:
        timeout = http.seconds_for(call, self._timeout_seconds)
        try:
            answer = await self._http.request(**http.request(call), timeout=timeout)
        except httpx.RequestError as error:
            raise http.no_answer(error, self._http.base_url) from error
        return http.answered(call, answer)

    async def _look(self, job: str | Job, deadline: Deadline, owner: str | None) -> Job:
        left = deadline.left(at_most=math.inf)
        return await self._exchange(calls.wait(job, min(WAIT_SECONDS, left), owner, left=left))

    async def _items(self, page_of: Callable[[str | None], Call[Page[T]]]) -> AsyncIterator[T]:
        cursor = None
        while True:
            page = await self.send(page_of(cursor))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _clear(self, part_of: Callable[[str | None], Call[Cleared]]) -> Cleared:
        total = Cleared()
        while True:
            total += await self.send(part_of(total.next_cursor))
            if total.next_cursor is None:
                return total

    async def _followed(self, job: str | Job, owner: str | None) -> AsyncIterator[LogLine]:
        call, last_id = calls.follow_logs(job, owner), None
        while True:
            async with aclosing(self._listen(call, last_id)) as events:
                async for event in events:
                    last_id = event.id or last_id
                    if event.event == http.END:
                        return
                    if event.event == http.LINE:
                        yield call.read(event.json())
            await asyncio.sleep(http.REOPEN_SECONDS)

    async def _listen(
        self, call: Call[Any], last_id: str | None
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """Yield events until the server ends the stream; a broken connection is made again."""
        while True:
            async with aclosing(await self._opened(call, last_id)) as answer:
                try:
                    async for event in EventSource(answer).aiter_sse():
                        last_id = event.id or last_id
                        if event.data:
                            yield event
                except httpx.TransportError as error:
                    log.info("a stream broke", extra={"problem": str(error)})
                else:
                    return
            await asyncio.sleep(http.REOPEN_SECONDS)

    async def _opened(self, call: Call[Any], last_id: str | None) -> httpx.Response:
        policy = retrying.policy(self._patience_seconds)
        return await AsyncRetrying(**policy)(self._open, call, last_id)

    async def _open(self, call: Call[Any], last_id: str | None) -> httpx.Response:
        timeout = httpx.Timeout(self._timeout_seconds, read=http.SILENCE_SECONDS)
        request = self._http.build_request(**http.listening(call, last_id), timeout=timeout)
        try:
            answer = await self._http.send(request, stream=True)
            if not http.is_stream(answer):
                await answer.aread()
        except httpx.RequestError as error:
            raise http.no_answer(error, self._http.base_url) from error
        return http.stream_of(answer)
