"""The pull workers that wait for a job, and which of them takes whom."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator

from scheduler.snapshot import Ask, Candidate


class Asks:
    """Who still waits in one pass. The choosiest goes first, so that others keep their choice.

    Whatever is asked here is asked of every owner who waits, so it looks at no other owner's asks.
    """

    def __init__(self, asks: Iterable[Ask]) -> None:
        alike: dict[tuple[object, ...], deque[Ask]] = {}
        self._by_owner: dict[int | None, list[deque[Ask]]] = defaultdict(list)
        self._by_type: Counter[str | None] = Counter()
        for ask in sorted(asks, key=_choosiest_first):
            if (ask.owner_id, ask.types) not in alike:
                self._by_owner[ask.owner_id].append(deque())
                alike[ask.owner_id, ask.types] = self._by_owner[ask.owner_id][-1]
            alike[ask.owner_id, ask.types].append(ask)
            self._by_type.update(_types(ask))

    def find(self, job: Candidate) -> Ask | None:
        """Return who would take *job*, or None."""
        return next((each[0] for each in self._accepting(job)), None)

    def take(self, job: Candidate) -> Ask:
        """Give *job* to who takes it."""
        ask = next(self._accepting(job)).popleft()
        self._by_type.subtract(_types(ask))
        return ask

    def are_for(self, job_type: str) -> bool:
        """Tell whether anybody waits for jobs of a type."""
        return self._by_type[job_type] > 0 or self._by_type[None] > 0

    def _accepting(self, job: Candidate) -> Iterator[deque[Ask]]:
        for owner in (job.owner_id, None):
            for each in self._by_owner.get(owner, ()):
                if each and each[0].accepts(job):
                    yield each


def _types(ask: Ask) -> Iterable[str | None]:
    return (None,) if ask.types is None else ask.types


def _choosiest_first(ask: Ask) -> tuple[object, ...]:
    types = () if ask.types is None else tuple(sorted(ask.types))
    return (ask.owner_id is None, ask.types is None, len(types), types, ask.owner_id or 0, ask.id)
