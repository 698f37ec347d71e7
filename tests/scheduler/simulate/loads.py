"""Workloads for tests, and an engine that is watched while it decides."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import count
from random import Random

from scheduler.policy.admission import Decision
from scheduler.policy.engine import Engine
from scheduler.simulate.workload import Arrival, Party, Workload
from scheduler.snapshot import Account, Candidate, Resources, Running
from scheduler.states import DEFAULT_LEVEL, JobClass

EIGHT = Resources(8, 4096, 1000)
NORMAL = JobClass.NORMAL

_numbers = count(1)


def arrival(
    owner: int = 1,
    at: float = 0.0,
    seconds: float = 4.0,
    *,
    cpu: float = 1,
    memory: int = 128,
    job_class: JobClass = NORMAL,
    job_type: str = "simulate",
    expected: float | None = None,
    name: str = "",
) -> Arrival:
    """Make a job whose duration is expected exactly, unless it says otherwise; 0 is unknown."""
    return Arrival(
        id=next(_numbers),
        owner_id=owner,
        at=at,
        job_type=job_type,
        level=DEFAULT_LEVEL[job_class],
        cpu_units=cpu,
        memory_mb=memory,
        seconds=seconds,
        expected=seconds if expected is None else expected or None,
        name=name,
    )


def load(
    arrivals: Iterable[Arrival],
    *,
    accounts: Iterable[Account] = (),
    capacities: tuple[tuple[float, Resources | None], ...] = ((0.0, EIGHT),),
    hours: float = 1.0,
    drain: bool = True,
    type_caps: Mapping[str, int] | None = None,
) -> Workload:
    """Make a workload; every owner is a party of its own."""
    jobs = sorted(arrivals, key=lambda job: (job.at, job.id))
    known = {job.owner_id: Account(job.owner_id) for job in jobs}
    known |= {account.owner_id: account for account in accounts}
    return Workload(
        arrivals=tuple(jobs),
        accounts=known,
        parties=tuple(Party(f"owner {owner}", frozenset({owner})) for owner in sorted(known)),
        capacities=capacities,
        arrive_for=hours * 3600,
        drain=drain,
        type_caps=type_caps,
    )


def some_job(random: Random, owner: int, *, until: float = 300) -> Arrival:
    """Make any job at all, misjudged by up to three times."""
    seconds = random.uniform(0.2, 60)
    return arrival(
        owner,
        random.choice([0.0, random.uniform(0, until)]),
        seconds,
        cpu=random.choice([0.5, 1, 2, 4, 8]),
        memory=random.choice([128, 1024, 4096]),
        job_class=random.choice(list(JobClass)),
        job_type=random.choice(["email", "report"]),
        expected=seconds * 3 ** random.uniform(-1, 1),
    )


class Watched(Engine):
    """An engine that notices when virtual time or a meter goes back."""

    def advance(self, now: datetime, running: Iterable[Running]) -> None:
        before = self.clock.virtual_now
        super().advance(now, running)
        assert self.clock.virtual_now >= before

    def add(self, job: Candidate) -> None:
        before = self.accounts[job.owner_id]
        super().add(job)
        _assert_not_less(before, self.accounts[job.owner_id])

    def decide(self, now: datetime, running: Iterable[Running]) -> Decision:
        before, virtual_now = dict(self.accounts), self.clock.virtual_now
        decided = super().decide(now, running)
        assert self.clock.virtual_now >= virtual_now
        for owner, account in self.accounts.items():
            _assert_not_less(before[owner], account)
        return decided


def _assert_not_less(before: Account, after: Account) -> None:
    assert after.meter >= before.meter
    assert after.express_meter >= before.express_meter
    assert after.tag is None or before.tag is None or after.tag >= before.tag
