"""All streams and waiting calls of one web process, fed by the one subscription of its relay."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from flask import Flask
from gevent.lock import BoundedSemaphore
from sqlalchemy.orm import Session
from ulid import ULID

from webapp.audience import Audience, Client
from webapp.errors import Problem
from webapp.extensions import db
from webapp.streams.growth import LINES, MOVES
from webapp.streams.outlet import Ending, Outlet
from webapp.streams.tail import DOUBT_PATIENCE, Tail
from webapp.streams.waits import Waits

READERS = 5
"""Streams and waiting calls that use a database connection at a time.

Others wait for their turn, so that a thousand of them that come back at once leave most
connections to requests.
"""

PER_ACCOUNT = 1_000
"""Streams and waiting calls of one account at a time, in one web process.

A stream whose client has gone counts until that is noticed, when something is sent to it.
"""

RETRY_PLACE = 5
"""Seconds after which one of an account's streams has perhaps ended."""

_EXTENSION = "fairq_streams"


class Streams:
    """The tails, who waits, and who listens."""

    def __init__(self, app: Flask) -> None:
        self.moves = Tail(MOVES, DOUBT_PATIENCE)
        self.lines = Tail(LINES)
        self.waits = Waits()
        self.is_stopping = False
        self._app = app
        self._audience = Audience()
        self._outlets: dict[str, Outlet] = {}
        self._taken: Counter[int] = Counter()
        self.turns = BoundedSemaphore(READERS)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Lend a session; the connection goes back when the block ends."""
        with self.turns, self._app.app_context():
            yield db.session()

    @contextmanager
    def place_of(self, account_id: int) -> Iterator[None]:
        """Count one more of an account while the block runs. Raises a 429 at the limit."""
        if self._taken[account_id] >= PER_ACCOUNT:
            detail = f"The limit of streams and waiting calls for each user is {PER_ACCOUNT}."
            raise Problem("rate_limited", detail, headers={"Retry-After": str(RETRY_PLACE)})
        self._taken[account_id] += 1
        try:
            yield
        finally:
            self._taken[account_id] -= 1

    @contextmanager
    def attended(self, outlet: Outlet) -> Iterator[str]:
        """Look after an outlet while the block runs; gives it a name."""
        name = str(ULID())
        self._outlets[name] = outlet
        if self.is_stopping:
            outlet.end(Ending.STOPPING)
        try:
            yield name
        finally:
            del self._outlets[name]
            self._audience.leave(name)
            outlet.close()

    def admit(self, name: str, client: Client) -> None:
        """Note who is behind an outlet, to cut them off once they may listen no longer."""
        self._audience.arrive(name, client)

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take a message of the live channel. It is a hint: what is told is read from Postgres."""
        match message["kind"]:
            case "moves":
                self.moves.ring()
                self.waits.hear(message["moves"])
            case "log":
                self.lines.ring()

    def follow(self, tail: Tail) -> None:
        """Wait for news of a table, and read it."""
        tail.wait()
        with self._app.app_context():
            tail.step(db.session())

    def poll(self) -> None:
        """Look for what no message told of."""
        if self.waits:
            with self._app.app_context():
                self.waits.poll(db.session())

    def recheck(self, session: Session, now: datetime) -> None:
        """End the streams of who may no longer listen."""
        for name in self._audience.no_longer_welcome(session, now):
            self._outlets[name].end(Ending.UNWELCOME)

    def stop(self) -> None:
        """End every stream, and have waiting calls answer with what they know."""
        self.is_stopping = True
        for outlet in list(self._outlets.values()):
            outlet.end(Ending.STOPPING)
        self.waits.ring_all()


def init_app(app: Flask) -> None:
    """Give *app* a home for its streams."""
    app.extensions[_EXTENSION] = Streams(app)


def streams_of(app: Flask) -> Streams:
    """Return the streams of *app*."""
    found: Streams = app.extensions[_EXTENSION]
    return found
