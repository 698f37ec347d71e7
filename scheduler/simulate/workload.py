"""Jobs with their instants and true durations, drawn from a scenario. Pure.

Equal scenarios and seeds give equal workloads.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, cycle, islice
from math import fsum
from random import Random

from scheduler.policy.meters import dominant_share
from scheduler.simulate.jobs import JobList
from scheduler.simulate.scenario import (
    PARETO_TAIL,
    Arrivals,
    Expected,
    Jobs,
    MostHeld,
    Rate,
    Scenario,
    Seconds,
    Shape,
    Size,
    Users,
)
from scheduler.snapshot import Account, Caps, Group, Limits, Resources
from scheduler.states import DEFAULT_LEVEL, JobClass, class_of


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job that will arrive; instants are seconds from the beginning."""

    id: int
    owner_id: int
    at: float
    job_type: str
    level: int
    cpu_units: float
    memory_mb: int
    seconds: float  # how long it really runs
    expected: float | None = None  # how long it is taken to run, in place of what is learned
    estimated: float | None = None  # what its submitter says, until something is learned
    name: str = ""

    @property
    def job_class(self) -> JobClass:
        """Its priority class."""
        return class_of(self.level)


@dataclass(frozen=True, slots=True)
class Party:
    """A number of owners whose results are told together."""

    name: str
    owners: frozenset[int]


@dataclass(frozen=True)
class Workload:
    """Everything that will happen, whoever decides.

    ``capacities`` is what there is from each instant on, the first one from the beginning.
    """

    arrivals: tuple[Arrival, ...]  # by instant
    accounts: Mapping[int, Account]
    parties: tuple[Party, ...]
    capacities: tuple[tuple[float, Resources | None], ...]
    groups: tuple[Group, ...] = ()
    type_caps: Mapping[str, int] | None = None
    arrive_for: float = 0.0
    drain: bool = True
    decides_every: float = 0.0

    def limits(self, capacity: Resources | None) -> Limits:
        """What there is and what may be used of it, with a capacity of this workload."""
        return Limits(capacity, type_caps=self.type_caps or {})

    def capacity_at(self, at: float) -> Resources | None:
        """What there is at an instant."""
        return [capacity for since, capacity in self.capacities if since <= at][-1]

    def share(self, job: Arrival) -> float:
        """The part of the machine that a job takes, of the largest there ever is."""
        return dominant_share(job.cpu_units, job.memory_mb, self._whole)

    @cached_property
    def _whole(self) -> Resources:
        return largest(self.capacities)


def largest(capacities: Iterable[tuple[float, Resources | None]]) -> Resources:
    """Return the most there ever is."""
    return max((there for _, there in capacities if there), key=lambda there: there.cpu_units)


def draw(scenario: Scenario, seed: int) -> Workload:
    """Draw what a scenario says, with the chance of *seed*."""
    parties, accounts, groups = _people(scenario.users)
    capacities = tuple(_capacities(scenario))
    whole = largest(capacities)
    random = Random(seed)  # noqa: S311 - chance that can be repeated, not a secret
    drawn = [
        arrival
        for users, party in zip(scenario.users, parties, strict=True)
        for jobs in users.jobs
        for arrival in _Drawing(jobs, sorted(party.owners), whole, scenario.seconds).draw(random)
    ]
    random.shuffle(drawn)  # or those named first would come first of all who come at once
    drawn.sort(key=lambda arrival: arrival.at)
    return Workload(
        arrivals=tuple(replace(arrival, id=number) for number, arrival in enumerate(drawn, 1)),
        accounts=accounts,
        parties=parties,
        capacities=capacities,
        groups=groups,
        type_caps=scenario.type_caps,
        arrive_for=scenario.seconds,
        drain=scenario.drain,
        decides_every=scenario.decides_every,
    )


def listed(jobs: JobList) -> Workload:
    """Let a list of jobs arrive at once, in its order.

    Shares are of the time that all of it takes when the machine is never idle.
    """
    names = dict.fromkeys([owner.username for owner in jobs.users])
    names |= dict.fromkeys(job.owner for job in jobs.jobs)
    weights = {owner.username: owner.weight for owner in jobs.users}
    ids = {name: number for number, name in enumerate(names, 1)}
    workload = Workload(
        arrivals=tuple(
            Arrival(
                id=number,
                owner_id=ids[job.owner],
                at=0.0,
                job_type=job.type,
                level=job.level,
                cpu_units=job.resource_requirements.cpu_units,
                memory_mb=job.resource_requirements.memory_mb,
                seconds=job.payload.duration_seconds,
                estimated=job.estimated_seconds,
                name=job.job_id,
            )
            for number, job in enumerate(jobs.jobs, 1)
        ),
        accounts={i: Account(i, weight=weights.get(name, 1.0)) for name, i in ids.items()},
        parties=tuple(Party(name, frozenset({i})) for name, i in ids.items()),
        capacities=((0.0, _resources(jobs.capacity)),),
    )
    work = fsum(workload.share(job) * job.seconds for job in workload.arrivals)
    return replace(workload, arrive_for=work)


def _people(
    everybody: Iterable[Users],
) -> tuple[tuple[Party, ...], dict[int, Account], tuple[Group, ...]]:
    parties: list[Party] = []
    accounts: dict[int, Account] = {}
    groups: list[Group] = []
    ids = count(1)
    for number, users in enumerate(everybody, 1):
        owners = list(islice(ids, users.count))
        group = None
        if users.shared_caps is not None:
            group = number
            groups.append(Group(number, _caps(users.shared_caps)))
        parties.append(Party(users.name, frozenset(owners)))
        for owner in owners:
            accounts[owner] = Account(owner, group, users.weight, _caps(users.caps))
    return tuple(parties), accounts, tuple(groups)


def _caps(held: MostHeld) -> Caps:
    return Caps(held.cpu_units, held.memory_mb, held.running_jobs)


def _resources(size: Size) -> Resources:
    return Resources(size.cpu_units, size.memory_mb, size.processes)


def _capacities(scenario: Scenario) -> Iterator[tuple[float, Resources | None]]:
    """Yield what there is from each instant on at which a worker comes or goes."""
    if scenario.capacity is not None:
        yield 0.0, _resources(scenario.capacity)
        return
    changes = {worker.comes_at for worker in scenario.workers} | {0.0}
    changes |= {worker.goes_at for worker in scenario.workers if worker.goes_at is not None}
    for at in sorted(changes):
        here = [
            _resources(worker)
            for worker in scenario.workers
            if worker.comes_at <= at and (worker.goes_at is None or at < worker.goes_at)
            for _ in range(worker.count)
        ]
        yield at, sum(here[1:], here[0]) if here else None


class _Drawing:
    """The jobs that a number of users submit of one kind."""

    def __init__(self, jobs: Jobs, owners: list[int], whole: Resources, seconds: float) -> None:
        self._jobs = jobs
        self._owners = owners
        self._whole = whole
        self._seconds = seconds
        self._in_turn = {id(shape): cycle(shape.seconds.list or ()) for shape in jobs.shapes}

    def draw(self, random: Random) -> Iterator[Arrival]:
        """Draw them, owner by owner or instant by instant."""
        for at, owner in self._submissions(random):
            yield self._arrival(at, owner, random)

    def _submissions(self, random: Random) -> Iterator[tuple[float, int]]:
        arrivals = self._jobs.arrivals
        for at in _instants(arrivals, self._seconds):
            yield from ((at, owner) for owner in self._owners)
        if arrivals.poisson is not None:
            until = min(arrivals.poisson.until or self._seconds, self._seconds)
            per_second = self._per_second(arrivals.poisson.rate)
            at = arrivals.poisson.after
            while (at := at + random.expovariate(per_second)) < until:
                yield at, random.choice(self._owners)

    def _per_second(self, rate: Rate) -> float:
        """How often all the users together submit."""
        if rate.per_hour is not None:
            return len(self._owners) * rate.per_hour / 3600
        return (rate.load or 0.0) / self._mean_cost()

    def _mean_cost(self) -> float:
        shapes = self._jobs.shapes
        parts = sum(shape.part for shape in shapes)
        return sum(shape.part / parts * self._share(shape) * shape.seconds.mean for shape in shapes)

    def _share(self, shape: Shape) -> float:
        return dominant_share(shape.cpu_units, shape.memory_mb, self._whole)

    def _arrival(self, at: float, owner: int, random: Random) -> Arrival:
        shapes, classes = self._jobs.shapes, self._jobs.classes
        (shape,) = random.choices(shapes, [each.part for each in shapes])
        (job_class,) = random.choices(list(classes), list(classes.values()))
        seconds = _seconds(shape.seconds, self._in_turn[id(shape)], random)
        return Arrival(
            id=0,
            owner_id=owner,
            at=at,
            job_type=shape.type,
            level=DEFAULT_LEVEL[job_class],
            cpu_units=shape.cpu_units,
            memory_mb=shape.memory_mb,
            seconds=seconds,
            expected=_expected(self._jobs.expected, seconds, random),
        )


def _instants(arrivals: Arrivals, seconds: float) -> Iterator[float]:
    """Yield when every user submits a job."""
    if arrivals.backlog is not None:
        yield from [0.0] * arrivals.backlog
    if arrivals.burst is not None:
        yield from [arrivals.burst.at] * arrivals.burst.jobs
    if arrivals.periodic is not None:
        periodic = arrivals.periodic
        until = min(periodic.until or seconds, seconds)
        turns = count()
        while (at := periodic.after + next(turns) * periodic.every) < until:
            yield at


def _seconds(given: Seconds, in_turn: Iterator[float], random: Random) -> float:
    if given.uniform is not None:
        return random.uniform(*given.uniform)
    if given.exponential is not None:
        return random.expovariate(1 / given.exponential)
    if given.pareto is not None:
        least = given.pareto * (PARETO_TAIL - 1) / PARETO_TAIL
        return least * random.paretovariate(PARETO_TAIL)
    return given.fixed or next(in_turn)


def _expected(given: Expected, seconds: float, random: Random) -> float | None:
    if given.noise is not None:
        return seconds * random.lognormvariate(0, given.noise)
    if given.learned:
        return None
    return seconds * (given.times or 1.0)
