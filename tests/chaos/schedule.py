"""What goes wrong, when, to whom and for how long: a pure function of a seed.

The first part of a run strikes one by one what has a promised time to recover, so that nothing else
lengthens it. The rest is a storm: every kind of fault, overlapping, though never two of them on the
same part.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from types import MappingProxyType

WORKERS = 3
SCHEDULERS = ("scheduler", "scheduler2")
WORKER_NAMES = tuple(f"worker{number}" for number in range(1, WORKERS + 1))
CLOCKS = ("web", *SCHEDULERS, *WORKER_NAMES)
"""The processes whose clocks can jump."""

MOST_DRAWS = 2**32


class Kind(StrEnum):
    """What can go wrong."""

    CHILD_KILLED = "pool process killed"
    WORKER_KILLED = "worker killed"
    WORKER_FROZEN = "worker frozen beyond its leases"
    LEADER_KILLED = "leading scheduler killed"
    LEADER_FROZEN = "leading scheduler frozen"
    STANDBY_KILLED = "scheduler standing by killed"
    WEB_KILLED = "web killed"
    REDIS_EMPTIED = "Redis emptied"
    REDIS_RESTARTED = "Redis restarted"
    REDIS_KILLED = "Redis killed"
    REDIS_LOST = "Redis killed, its data lost"
    REDIS_CUT = "connections to Redis cut"
    REDIS_SLOW = "connections to Redis slow"
    REDIS_HALVED = "messages from and to Redis halved"
    REDIS_SILENT = "connections to Redis silent"
    REDIS_DEAF = "connections to Redis dead without a word"
    POSTGRES_RESTARTED = "Postgres restarted"
    POSTGRES_KILLED = "Postgres killed"
    BACKEND_KILLED = "one process of Postgres killed"
    POSTGRES_CUT = "connections to Postgres cut"
    POSTGRES_SLOW = "connections to Postgres slow"
    POSTGRES_HALVED = "messages from and to Postgres halved"
    POSTGRES_SILENT = "connections to Postgres silent"
    DISK_FULL = "disk of Postgres full"
    CLOCK_JUMPED = "clock of a process jumped"


@dataclass(frozen=True, slots=True)
class Nature:
    """The part a kind of fault strikes, and how many seconds it lasts, at least and at most.

    *is_outage*: others wait meanwhile for what it takes away, so that their recovery tells nothing.
    """

    part: str
    lasts: tuple[float, float]
    is_outage: bool = True


NATURES: Mapping[Kind, Nature] = MappingProxyType(
    {
        Kind.CHILD_KILLED: Nature("processes", (0.0, 0.0), is_outage=False),
        Kind.WORKER_KILLED: Nature("worker", (2.0, 6.0), is_outage=False),
        Kind.WORKER_FROZEN: Nature("worker", (33.0, 36.0), is_outage=False),
        Kind.LEADER_KILLED: Nature("schedulers", (3.0, 5.0)),
        Kind.LEADER_FROZEN: Nature("schedulers", (7.0, 10.0)),
        Kind.STANDBY_KILLED: Nature("schedulers", (1.0, 3.0), is_outage=False),
        Kind.WEB_KILLED: Nature("web", (0.0, 2.0), is_outage=False),
        Kind.REDIS_EMPTIED: Nature("redis", (0.0, 0.0)),
        Kind.REDIS_RESTARTED: Nature("redis", (0.0, 4.0)),
        Kind.REDIS_KILLED: Nature("redis", (0.0, 4.0)),
        Kind.REDIS_LOST: Nature("redis", (0.0, 4.0)),
        Kind.REDIS_CUT: Nature("redis wire", (0.0, 0.0)),
        Kind.REDIS_SLOW: Nature("redis wire", (3.0, 6.0)),
        Kind.REDIS_HALVED: Nature("redis wire", (3.0, 6.0)),
        Kind.REDIS_SILENT: Nature("redis wire", (3.0, 8.0)),
        Kind.REDIS_DEAF: Nature("redis wire", (0.0, 0.0)),
        Kind.POSTGRES_RESTARTED: Nature("postgres", (0.0, 4.0)),
        Kind.POSTGRES_KILLED: Nature("postgres", (0.0, 4.0)),
        Kind.BACKEND_KILLED: Nature("postgres", (0.0, 0.0)),
        Kind.POSTGRES_CUT: Nature("postgres wire", (0.0, 0.0)),
        Kind.POSTGRES_SLOW: Nature("postgres wire", (3.0, 6.0)),
        Kind.POSTGRES_HALVED: Nature("postgres wire", (3.0, 6.0)),
        Kind.POSTGRES_SILENT: Nature("postgres wire", (3.0, 8.0)),
        Kind.DISK_FULL: Nature("postgres", (3.0, 6.0)),
        Kind.CLOCK_JUMPED: Nature("clocks", (2.0, 8.0), is_outage=False),
    }
)


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault: so many seconds after the beginning, for so long; *draw* chooses the victim."""

    at: float
    kind: Kind
    lasts: float
    draw: int

    @property
    def part(self) -> str:
        """What it strikes; two strikes on the same part never overlap."""
        part = NATURES[self.kind].part
        return f"{part} {self.draw % WORKERS + 1}" if part == "worker" else part


ALONE_PART = 0.5
"""How much of a run is for faults that come alone."""

_CALM_FIRST = 3.0  # until there is work to be disturbed
_PROMISED: Mapping[Kind, float] = MappingProxyType(
    {Kind.LEADER_KILLED: 10.0, Kind.REDIS_EMPTIED: 10.0, Kind.CHILD_KILLED: 5.0}
)
"""What has a promised time to recover, and how long it is left alone for that."""

_OTHERS_ALONE = 12.0
"""How long any other kind of fault is."""

_WITH_A_LOST_WORKER = (0.0, 9.0, 15.0, 21.0)
"""When, in the time a lost worker's leases take to end, it and then pool processes are killed."""

_LEASES_TAKE = 36.0
_LONG = frozenset({Kind.WORKER_KILLED, Kind.WORKER_FROZEN})
_GAPS = (0.2, 5.6)  # between strikes of the storm
_AFTERWARDS = 2.0  # until the same part may be struck again: it has to be back


def schedule(seed: int, seconds: float, without: frozenset[Kind] = frozenset()) -> list[Strike]:
    """Return the strikes of a run of so many seconds; all are lifted before its end."""
    chance = Random(seed)  # noqa: S311 - makes trouble, hides nothing
    alone = list(_one_by_one(chance, seconds * ALONE_PART))
    storm = list(_storm(chance, seconds * ALONE_PART, seconds))
    return [strike for strike in alone + storm if strike.kind not in without]


def _one_by_one(chance: Random, until: float) -> Iterator[Strike]:
    """Strike what is promised something, then others, and in the end a worker."""
    now, has_time = _CALM_FIRST, until >= 2 * _LEASES_TAKE
    until -= _LEASES_TAKE if has_time else 0.0
    for kind in _calm_order(chance):
        if now + min(_PROMISED.values()) > until:
            break
        alone_for = _PROMISED.get(kind, _OTHERS_ALONE)
        if now + alone_for <= until:
            yield _strike(chance, now, kind)
            now += alone_for
    for after in _WITH_A_LOST_WORKER if has_time else ():
        yield _strike(chance, until + after, Kind.CHILD_KILLED if after else Kind.WORKER_KILLED)


def _calm_order(chance: Random) -> Iterator[Kind]:
    """Name kinds that can come alone, without end: those with a promise, and two others."""
    others = [kind for kind in Kind if kind not in _PROMISED and kind not in _LONG]
    while True:
        yield from chance.sample(list(_PROMISED), len(_PROMISED))
        yield from chance.sample(others, 2)


def _storm(chance: Random, now: float, end: float) -> Iterator[Strike]:
    """Strike in an order by chance, every kind once before any comes again."""
    free_at: dict[str, float] = {}
    deck: list[Kind] = []
    while now < end:
        # What lasts longest comes first, or it would never fit in.
        deck = deck or [Kind.WORKER_FROZEN, *chance.sample(list(Kind), len(Kind))]
        for place, kind in enumerate(deck):
            strike = _strike(chance, now, kind)
            over = now + strike.lasts + _AFTERWARDS
            if over <= end and now >= free_at.get(strike.part, 0.0):
                free_at[strike.part] = over
                del deck[place]
                yield strike
                break
        now += chance.uniform(*_GAPS)


def _strike(chance: Random, at: float, kind: Kind) -> Strike:
    lasts = chance.uniform(*NATURES[kind].lasts)
    return Strike(round(at, 2), kind, round(lasts, 2), chance.randrange(MOST_DRAWS))
