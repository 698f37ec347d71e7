"""Where pull workers wait for their job: nobody holds a connection to the database meanwhile."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event


class Desk:
    """The asks for which somebody waits in this process."""

    def __init__(self) -> None:
        self._waiting: dict[int, Event] = {}
        self.is_open = True

    @contextmanager
    def expecting(self, ask: int) -> Iterator[Event]:
        """Wait for an ask with what this yields. Begin before the ask can be seen by others."""
        served = self._waiting[ask] = Event()
        try:
            yield served
        finally:
            del self._waiting[ask]

    def call(self, asks: Iterable[int]) -> None:
        """Let those go on whose asks were served."""
        for ask in asks:
            if ask in self._waiting:
                self._waiting[ask].set()

    def close(self) -> None:
        """Let everybody go on: the process is about to end."""
        self.is_open = False
        self.call(tuple(self._waiting))
