"""How many jobs of a type started within the last minute, where that is limited."""

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

MINUTE = timedelta(minutes=1)


class Starts:
    """The instants at which jobs of limited types were admitted, within the last minute."""

    def __init__(self, known: Mapping[str, Iterable[datetime]] | None = None) -> None:
        self._of_type = {name: deque(instants) for name, instants in (known or {}).items()}

    def note(self, job_type: str, now: datetime) -> None:
        """Note that a job of a limited type was admitted."""
        self._of_type.setdefault(job_type, deque()).append(now)

    def left(self, most: Mapping[str, int], now: datetime) -> dict[str, int]:
        """Return how many more jobs of each type may start now, of *most* in any minute."""
        self._forget(most, now)
        return {name: max(0, n - len(self._of_type.get(name, ()))) for name, n in most.items()}

    def known(self) -> dict[str, list[datetime]]:
        """Return all that is known, to be kept."""
        return {name: list(instants) for name, instants in self._of_type.items()}

    def _forget(self, most: Mapping[str, int], now: datetime) -> None:
        self._of_type = {name: each for name, each in self._of_type.items() if name in most}
        for instants in self._of_type.values():
            while instants and now - instants[0] >= MINUTE:
                instants.popleft()
