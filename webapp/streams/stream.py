"""What a stream says, from what a client missed to its end."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from scheduler.models import Job, JobEvent
from scheduler.states import JobStatus, is_final
from webapp.answers import json_body
from webapp.streams.growth import Told
from webapp.streams.home import Streams
from webapp.streams.outlet import Ending, Outlet
from webapp.streams.tail import DOUBT_POLL, EVERYBODY, Tail
from webapp.streams.waits import Awaited
from webapp.streams.wire import Wire

log = logging.getLogger(__name__)

KEEP_ALIVE = timedelta(seconds=15)
"""How long a stream is silent at most. Proxies end connections that are silent for a minute."""

RESUME_LIMIT = 10_000
"""Changes that a client may have missed and is still told; after more it is to load again."""

RESUMABLE = frozenset({Ending.SLOW, Ending.OUTAGE, Ending.STOPPING})
"""Endings after which a client is to come back and name the last number it was told."""


class Stream(ABC):
    """One client's stream of rows of one table, in the order of their numbers, each once."""

    def __init__(
        self,
        streams: Streams,
        tail: Tail,
        outlet: Outlet,
        wire: Wire,
        *,
        key: int | None,
        after: int | None,
    ) -> None:
        """Take whose rows to tell, and the number they follow; None for whatever it is now."""
        self._streams = streams
        self._tail = tail
        self._outlet = outlet
        self._wire = wire
        self._key = key
        self._last = after
        self._start: int | None = None

    def prepare(self) -> None:
        """Let a stream that starts now start before its client hears of it."""
        if self._last is None:
            with self._outages():
                self._last = self._join()

    def run(self) -> Iterator[bytes]:
        """Yield what is to be sent until client or server end it.

        The outlet is attended to, and the stream closed afterwards.
        """
        with self._outages():
            if self._outlet.ending is None:
                yield from self._go()
        if self._outlet.ending in RESUMABLE:
            yield self._say("resume")
        yield self._wire.farewell(self._outlet.ending or Ending.DONE)

    def close(self) -> None:
        """Hear of nothing more."""
        self._tail.leave(self._outlet, self._key)

    @contextmanager
    def _outages(self) -> Iterator[None]:
        """End the stream where the database fails."""
        try:
            yield
        except SQLAlchemyError as problem:
            log.warning("a stream was interrupted", extra={"problem": type(problem).__name__})
            self._outlet.end(Ending.OUTAGE)

    @abstractmethod
    def _go(self) -> Iterator[bytes]:
        """Yield everything but the ending."""

    def _join(self) -> int | None:
        """Have news put into the outlet; return the number that they follow. None: it is over."""
        while self._outlet.ending is None and self._start is None:
            with self._streams.reading() as session:
                self._start = self._tail.join(session, self._outlet, self._key)
            if self._start is None:
                self._outlet.wait(DOUBT_POLL)
        return self._start

    def _news(self) -> Iterator[bytes]:
        """Yield what there is to be sent now; wait for it if there is nothing."""
        yield self._wire.replies()
        told = [one for one in self._outlet.take() if one.number > (self._last or 0)]
        if told:
            yield from self._tell(told)
        elif self._outlet.has_missed:
            self._outlet.has_missed = False
            yield self._say("reload", self._last)
        elif not self._outlet.wait(KEEP_ALIVE):
            yield self._wire.keep_alive()

    def _pages(self, until: int | None) -> Iterator[bytes]:
        """Yield the rows that follow the last one told. No connection is held while they leave."""
        growth, keys = self._tail.growth, None if self._key is EVERYBODY else [self._key]
        while self._outlet.ending is None:
            with self._streams.reading() as session:
                page = growth.read(
                    session, keys, after=self._last or 0, until=until, limit=growth.at_once
                )
            if page:
                yield from self._tell(page)
            if len(page) < growth.at_once:
                return

    def _tell(self, rows: Sequence[Told]) -> Iterator[bytes]:
        yield b"".join(self._wire.tell(row.name, row.number, row.body) for row in rows)
        self._last = rows[-1].number

    def _say(self, name: str, number: int | None = None) -> bytes:
        return self._wire.tell(name, number, json_body({"seq": self._last}))


class MoveStream(Stream):
    """Every change of the jobs of an owner, or of everybody."""

    def __init__(
        self,
        streams: Streams,
        outlet: Outlet,
        wire: Wire,
        *,
        owner_id: int | None,
        after: int | None,
        kept_since: datetime,
    ) -> None:
        """Take where to resume, None for now; events older than *kept_since* may be missing."""
        super().__init__(streams, streams.moves, outlet, wire, key=owner_id, after=after)
        self._kept_since = kept_since

    def _go(self) -> Iterator[bytes]:
        if self._start is None:
            yield from self._catch_up()
        if self._outlet.ending is None:
            # The last events may be of others: nothing before them is left to be told.
            self._last = max(self._last or 0, self._start or 0)
            yield self._say("live", self._last)
        while self._outlet.ending is None:
            yield from self._news()

    def _catch_up(self) -> Iterator[bytes]:
        """Tell what was missed, or that it cannot be told, and join those who hear what follows."""
        resumes = self._can_resume()
        if resumes:
            yield from self._pages(self._tail.reach or 0)
        start = self._join()
        if resumes:
            yield from self._pages(start)
        elif start is not None:
            self._last = start
            yield self._say("reload", start)

    def _can_resume(self) -> bool:
        with self._streams.reading() as session:
            return can_resume(session, self._key, self._last or 0, kept_since=self._kept_since)


def can_resume(session: Session, owner_id: int | None, after: int, *, kept_since: datetime) -> bool:
    """Tell whether everything that followed an event is there, and little enough to be told.

    An event that is gone, or as old as events that may be gone, is no place to resume from; nor
    is a number that no event here has. Before the first one there was nothing to be lost.
    """
    at = session.scalar(select(JobEvent.at).where(JobEvent.seq == after))
    if after > 0 and (at is None or at < kept_since):
        return False
    missed = select(JobEvent.seq).where(JobEvent.seq > after).limit(RESUME_LIMIT + 1)
    if owner_id is not None:
        missed = missed.where(JobEvent.owner_id == owner_id)
    count = session.scalar(select(func.count()).select_from(missed.subquery())) or 0
    return count <= RESUME_LIMIT


class LineStream(Stream):
    """The log of a job: what is there, then new lines, and its end once the job has finished."""

    def __init__(
        self, streams: Streams, outlet: Outlet, wire: Wire, *, job: Awaited, after: int
    ) -> None:
        super().__init__(streams, streams.lines, outlet, wire, key=job.id, after=after)
        self._job = job
        self._may_have_ended = True

    def _go(self) -> Iterator[bytes]:
        with self._streams.waits.waiting(self._job, self._note_end):
            yield from self._pages(self._tail.reach or 0)
            self._join()
            while self._outlet.ending is None:
                if self._may_have_ended:
                    yield from self._look()
                else:
                    yield from self._news()

    def _note_end(self) -> None:
        self._may_have_ended = True
        self._outlet.ring()

    def _look(self) -> Iterator[bytes]:
        """Tell what was there when the stream joined; end it if the job has finished."""
        self._may_have_ended = False
        # Before the lines are read: the last of them come with the end of the job.
        status = self._status()
        has_finished = status is None or is_final(status)
        yield from self._pages(None if has_finished else self._start)
        if has_finished and self._outlet.ending is None:
            yield self._wire.tell("end", None, json_body({"status": status}))
            self._outlet.end(Ending.DONE)

    def _status(self) -> JobStatus | None:
        with self._streams.reading() as session:
            status = session.scalar(select(Job.status).where(Job.id == self._key))
        return None if status is None else JobStatus(status)
