"""What this installation has recorded, as a workload to be played again."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from math import ceil
from typing import Any

from sqlalchemy.orm import Session

from scheduler.errors import ScenarioInvalid
from scheduler.policy.durations import Durations
from scheduler.policy.rules import rules_of
from scheduler.policy.starts import Starts
from scheduler.simulate.figures import Window
from scheduler.simulate.loop import Run
from scheduler.simulate.playing import Outcome, Setting, summed_up
from scheduler.simulate.scenario import MANY
from scheduler.simulate.workload import Arrival, Party, Workload
from scheduler.snapshot import Account, Resources
from scheduler.store import history, picture
from scheduler.store.history import Recorded
from scheduler.store.policy import content_of, current_policy

AS_IT_WAS = "as it was"
OTHERS = "others"
_TOLD_BY_NAME = 12
"""So many owners, those who asked for most, get a row of their own."""


def past(
    session: Session, *, since: datetime, until: datetime, sizes: Mapping[str, Any]
) -> tuple[Setting, Outcome]:
    """Read the jobs that became ready since an instant and have run.

    Returns them as a setting, and how they fared as it was. Machine, weights and caps are those of
    today, since what they were is not recorded; with no worker alive, the machine is the one of
    *sizes*. Raises ScenarioInvalid when there is nothing to play, or nothing to play it on.
    """
    jobs = history.recorded(session, since=since, until=until)
    if not jobs:
        raise ScenarioInvalid(["nothing has run in that time"])
    seconds = (until - since).total_seconds()
    workload = Workload(
        arrivals=tuple(_arrival(job, since) for job in jobs),
        parties=tuple(_parties(jobs)),
        arrive_for=seconds,
        **_installation(session, jobs, until, sizes),
    )
    about = f"{len(jobs)} jobs of {len(workload.accounts)} users, since {since:%Y-%m-%d %H:%M} UTC"
    setting = Setting("history", about, workload, Window(0.0, seconds))
    pairs = zip(jobs, workload.arrivals, strict=True)
    runs = tuple(_run(job, arrival, since) for job, arrival in pairs)
    return setting, summed_up(setting, runs, AS_IT_WAS)


def _installation(
    session: Session, jobs: Iterable[Recorded], now: datetime, sizes: Mapping[str, Any]
) -> dict[str, Any]:
    """Read what is true of the machine and of the owners, without what they have received."""
    policy = content_of(current_policy(session))
    known = picture.Known(rules_of(policy.rules), Durations(), now)
    owners = picture.read_accounts(session, {job.owner_id for job in jobs}, known)
    limits = picture.read_limits(session, policy, Starts(), now=now)
    return {
        "accounts": {
            owner: Account(owner, each.account.group_id, each.account.weight, each.account.caps)
            for owner, each in owners.items()
        },
        "groups": tuple(picture.read_groups(session).values()),
        "capacities": ((0.0, limits.capacity or _machine(sizes)),),
        "type_caps": limits.type_caps,
    }


def _machine(sizes: Mapping[str, Any]) -> Resources:
    if not {"cpu_units", "memory_mb"} <= sizes.keys():
        raise ScenarioInvalid(["capacity: no worker is alive, so say cpu=... and memory=..."])
    return Resources(**{"slots": MANY, **sizes})


def _arrival(job: Recorded, since: datetime) -> Arrival:
    return Arrival(
        id=job.id,
        owner_id=job.owner_id,
        at=(job.ready_at - since).total_seconds(),
        job_type=job.job_type,
        level=job.level,
        cpu_units=job.cpu_units,
        memory_mb=job.memory_mb,
        seconds=job.seconds,
        estimated=job.estimated_seconds,
    )


def _run(job: Recorded, arrival: Arrival, since: datetime) -> Run:
    started = (job.started_at - since).total_seconds()
    return Run(arrival, started, started + job.seconds)


def _parties(jobs: Collection[Recorded]) -> Iterator[Party]:
    """Yield the owners who asked for most one by one, and the others together."""
    names = {job.owner_id: job.username for job in jobs}
    work = Counter[int]()
    for job in jobs:
        work[job.owner_id] += ceil(job.cpu_units * job.seconds)
    most = [owner for owner, _ in work.most_common(_TOLD_BY_NAME)]
    yield from (Party(names[owner], frozenset({owner})) for owner in most)
    if others := names.keys() - most:
        yield Party(OTHERS, frozenset(others))
