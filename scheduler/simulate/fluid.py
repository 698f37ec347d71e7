"""The ideal that shares are measured against: work that flows like water. Pure.

Whatever the machine really gave is given out at every instant to the owners who have work, by
their weights. So the ideal gives as much in all as was given, and blames a policy neither for
what does not fit nor for what nobody asked for.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush
from typing import NamedTuple

from scheduler.policy.meters import effective_weight
from scheduler.simulate.loop import Run
from scheduler.simulate.workload import Workload


class _Flow:
    """Virtual time, and for each owner the virtual instant at which its work runs out."""

    def __init__(self, weights: Mapping[int, float]) -> None:
        self._weights = weights
        self._virtual = 0.0
        self._weight = 0.0  # of the owners with work
        self._runs_out: dict[int, float] = {}
        self._queue: list[tuple[float, int]] = []
        self._asked: dict[int, float] = defaultdict(float)

    def ask(self, owner: int, work: float) -> None:
        """Let *work* arrive, in machine-seconds."""
        self._asked[owner] += work
        if owner not in self._runs_out:
            self._weight += self._weights[owner]
        since = self._runs_out.get(owner, self._virtual)
        self._runs_out[owner] = since + work / self._weights[owner]
        heappush(self._queue, (self._runs_out[owner], owner))

    def give(self, service: float) -> None:
        """Give *service* out, in machine-seconds."""
        while self._queue:
            runs_out, owner = self._queue[0]
            if self._runs_out.get(owner) != runs_out:  # more work has arrived since
                heappop(self._queue)
                continue
            enough = (runs_out - self._virtual) * self._weight
            if enough > service:
                self._virtual += service / self._weight
                return
            service -= enough
            self._virtual = runs_out
            self._leave(owner)

    def received(self) -> dict[int, float]:
        """Return what each owner has received."""
        return {owner: asked - self._left(owner) for owner, asked in self._asked.items()}

    def _leave(self, owner: int) -> None:
        heappop(self._queue)
        del self._runs_out[owner]
        self._weight = self._weight - self._weights[owner] if self._runs_out else 0.0

    def _left(self, owner: int) -> float:
        runs_out = self._runs_out.get(owner, self._virtual)
        return max(0.0, runs_out - self._virtual) * self._weights[owner]


class _Change(NamedTuple):
    """What changes at an instant: work arrives, or the machine gives more or less."""

    at: float
    owner: int = 0
    work: float = 0.0
    rate: float = 0.0


def due(
    workload: Workload, runs: Iterable[Run], instants: Iterable[float]
) -> Iterator[dict[int, float]]:
    """Yield what each owner is due up to each of the *instants*, in machine-seconds."""
    flow = _Flow({i: effective_weight(a.weight) for i, a in workload.accounts.items()})
    changes = deque(sorted(_changes(workload, runs)))
    now, rate = 0.0, 0.0
    for instant in instants:
        while changes and changes[0].at <= instant:
            change = changes.popleft()
            flow.give((change.at - now) * rate)
            now, rate = change.at, rate + change.rate
            if change.work:
                flow.ask(change.owner, change.work)
        flow.give((instant - now) * rate)
        now = instant
        yield flow.received()


def _changes(workload: Workload, runs: Iterable[Run]) -> Iterator[_Change]:
    for run in runs:
        share = workload.share(run.job)
        yield _Change(run.job.at, owner=run.job.owner_id, work=share * run.job.seconds)
        if run.started is not None and run.ended is not None:
            yield _Change(run.started, rate=share)
            yield _Change(run.ended, rate=-share)
