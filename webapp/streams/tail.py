"""Reads what is new in a table, once for everybody who listens here."""

import logging
import time
from collections.abc import Iterable
from datetime import timedelta
from itertools import chain

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from webapp.streams.growth import Growth, Told
from webapp.streams.horizon import Doubt, Horizon, Writers, advance
from webapp.streams.outlet import Ending, Outlet

log = logging.getLogger(__name__)

POLL = timedelta(seconds=2)
"""How often a tail looks by itself: what the loss of a message costs at most."""

DOUBT_POLL = timedelta(milliseconds=50)
"""How often it looks at numbers that are missing while somebody listens."""

DOUBT_PATIENCE = timedelta(seconds=10)
"""How long rows wait for a transaction that may hold numbers before theirs.

A program that submits in a transaction of its own may leave it open for as long as it likes.
"""

EVERYBODY = None
"""The key of outlets that hear of every row."""


class Tail:
    """One reader of a growing table, and the outlets that hear of its rows.

    Rows go out in the order of their numbers, each once, and none before everything below its
    number is settled. So whoever knows the last number they were told has missed nothing before.
    With *patience* rows wait no longer than that for a transaction that does not end. Once it has
    ended, whoever listens has missed its rows, and is told.
    """

    def __init__(self, growth: Growth, patience: timedelta | None = None) -> None:
        self.growth = growth
        self._patience = patience
        self._horizon = Horizon()
        self._doubted_since = 0.0
        self._overdue: Writers = frozenset()
        self._outlets: dict[int | None, set[Outlet]] = {}
        self._turn = BoundedSemaphore()
        self._bell = Event()

    @property
    def reach(self) -> int | None:
        """The number up to which everything was told; None before anything is known."""
        return self._horizon.number

    def ring(self) -> None:
        """Make the next look come now. Does nothing if nobody would hear of it."""
        if self._outlets:
            self._bell.set()

    def wait(self) -> None:
        """Wait until it is time to look."""
        in_doubt = self._outlets and self._horizon.doubt is not None
        self._bell.wait((DOUBT_POLL if in_doubt else POLL).total_seconds())
        self._bell.clear()

    def step(self, session: Session) -> None:
        """Read what is new, and put it where it is waited for."""
        with self._turn:
            self._advance(session)
            while self._horizon.is_behind:
                gevent.sleep(0)  # those who were put something send it before there is more
                self._advance(session)

    def join(self, session: Session, outlet: Outlet, key: int | None) -> int | None:
        """Let an outlet hear of what follows; return the number that it follows.

        None, and nothing has changed: that is not known yet, and it is worth asking again soon.
        """
        self.step(session)
        if self.reach is not None:
            self._outlets.setdefault(key, set()).add(outlet)
        return self.reach

    def leave(self, outlet: Outlet, key: int | None) -> None:
        """Put nothing more into an outlet. Harmless for one that never joined."""
        here = self._outlets.get(key, set())
        here.discard(outlet)
        if not here:
            self._outlets.pop(key, None)

    def _advance(self, session: Session) -> None:
        growth, before = self.growth, self._horizon
        ended = self._overdue and self._overdue - growth.writers(session)
        after = advance(
            before,
            lambda number: growth.look(session, number),
            lambda: growth.writers(session) - self._overdue,
        )
        news = self._news(session, before.number, after.number)
        # Not before they are read: what fails on the way is read again in the next turn.
        self._horizon = after
        self._overdue -= ended
        self._judge(before.doubt, after.doubt)
        self._put(news)
        if ended:
            for outlet in chain.from_iterable(self._outlets.values()):
                outlet.miss()

    def _judge(self, before: Doubt | None, doubt: Doubt | None) -> None:
        """Wait no longer for transactions that were waited for long enough."""
        if doubt is None or self._patience is None:
            return
        if before is None or before.until != doubt.until:
            self._doubted_since = time.monotonic()
        elif time.monotonic() - self._doubted_since > self._patience.total_seconds():
            self._overdue |= doubt.writers

    def _news(self, session: Session, before: int | None, after: int | None) -> list[Told]:
        if not self._outlets or before is None or after is None or before == after:
            return []
        keys = (
            None
            if EVERYBODY in self._outlets
            else [key for key in self._outlets if key is not None]
        )
        try:
            return self.growth.read(session, keys, after=before, until=after)
        except DataError:
            session.rollback()
            return self._readable(session, before, after)

    def _readable(self, session: Session, before: int, after: int) -> list[Told]:
        """Return the news that can be read, and end the streams that would hear of other rows."""
        found: dict[int, Told] = {}
        for key, outlets in list(self._outlets.items()):
            keys = None if key is EVERYBODY else [key]
            try:
                rows = self.growth.read(session, keys, after=before, until=after)
            except DataError as problem:
                session.rollback()
                log.warning(
                    "a row cannot be read", extra={"key": key, "problem": str(problem.orig)}
                )
                for outlet in outlets:
                    outlet.end(Ending.OUTAGE)
            else:
                found |= {told.number: told for told in rows}
        return [found[number] for number in sorted(found)]

    def _put(self, news: Iterable[Told]) -> None:
        for told in news:
            for key in (told.key, EVERYBODY):
                for outlet in self._outlets.get(key, ()):
                    outlet.put(told)
