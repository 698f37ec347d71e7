"""The pull workers that wait for a job, and which of them takes whom."""

from collections import defaultdict, deque
from collections.abc import Iterable

from scheduler.snapshot import Ask, Candidate


class Asks:
    """Who still waits in one pass. The choosiest goes first, so that others keep their choice."""

    def __init__(self, asks: Iterable[Ask]) -> None:
        alike: dict[tuple[object, ...], deque[Ask]] = defaultdict(deque)
        for ask in sorted(asks, key=_choosiest_first):
            alike[ask.owner_id, ask.types].append(ask)
        self._waiting = list(alike.values())

    def find(self, job: Candidate) -> Ask | None:
        """Return who would take *job*, or None."""
        return next((each[0] for each in self._waiting if each and each[0].accepts(job)), None)

    def take(self, job: Candidate) -> Ask:
        """Give *job* to who takes it."""
        return next(each for each in self._waiting if each and each[0].accepts(job)).popleft()

    def are_for(self, job_type: str) -> bool:
        """Tell whether anybody waits for jobs of a type."""
        return any(
            each and (each[0].types is None or job_type in each[0].types) for each in self._waiting
        )


def _choosiest_first(ask: Ask) -> tuple[object, ...]:
    types = () if ask.types is None else tuple(sorted(ask.types))
    return (ask.owner_id is None, ask.types is None, len(types), types, ask.owner_id or 0, ask.id)
