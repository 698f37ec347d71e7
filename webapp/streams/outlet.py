"""What one client of a stream has yet to be sent.

A tail fills it and never waits, the client's own greenlet empties it.
"""

from collections import deque
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum

import gevent
from gevent.event import Event

from webapp.streams.growth import Told

OUTLET_BYTES = 1024 * 1024
"""What is held for one client. One that does not keep up is to come back and read what it missed.

A tail puts in less than that at once, or a burst would cut off everybody.
"""

CHUNK_BYTES = 64 * 1024
"""What is sent in one go."""

PARTING = timedelta(seconds=5)
"""How long a client that was told to go may take to hear of it."""


class Ending(StrEnum):
    """Why a stream ends."""

    DONE = "done"  # everything was sent
    GONE = "gone"  # the client has left
    SLOW = "slow"  # it does not keep up
    OUTAGE = "outage"  # the database is away
    STOPPING = "stopping"  # this process ends
    UNWELCOME = "unauthenticated"  # it may listen no longer


class Outlet:
    """A bounded queue, a bell, and the reason to end, once there is one."""

    def __init__(self, sever: Callable[[], None]) -> None:
        """Take *sever*, which cuts the connection however busy it is."""
        self._sever = sever
        self._held: deque[Told] = deque()
        self._bytes = 0
        self._bell = Event()
        self._cut: gevent.Greenlet | None = None
        self.ending: Ending | None = None
        self.has_missed = False

    def put(self, told: Told) -> None:
        """Take something to be sent; too much of it ends the stream."""
        if self.ending is not None:
            return
        self._bytes += len(told.body)
        if self._held and self._bytes > OUTLET_BYTES:
            self.end(Ending.SLOW)
            return
        self._held.append(told)
        self._bell.set()

    def miss(self) -> None:
        """Note that something will never be put in: whoever listens is to load again."""
        self.has_missed = True
        self._bell.set()

    def take(self) -> list[Told]:
        """Return what is to be sent next, as much as goes in one chunk."""
        taken: list[Told] = []
        size = 0
        while self._held and size < CHUNK_BYTES:
            taken.append(self._held.popleft())
            size += len(taken[-1].body)
        self._bytes -= size
        return taken

    def wait(self, longest: timedelta) -> bool:
        """Wait until there may be something to do; tell whether there may."""
        rung: bool = self._bell.wait(longest.total_seconds())
        self._bell.clear()
        return rung

    def ring(self) -> None:
        """Make whoever waits look."""
        self._bell.set()

    def end(self, ending: Ending) -> None:
        """End the stream; the first reason counts. A client too slow to hear of it is cut off."""
        if self.ending is not None:
            return
        self.ending = ending
        self._held.clear()
        self._cut = gevent.spawn_later(PARTING.total_seconds(), self._sever)
        self._bell.set()

    def close(self) -> None:
        """Note that the client was told, or is not there any more."""
        if self._cut is not None:
            self._cut.kill(block=False)
