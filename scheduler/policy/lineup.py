"""Who stands where when a pass begins: virtual now, everybody's line, and what stays out of it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import fsum

from scheduler.policy.capacity import Room, Rooms, amount, room_of
from scheduler.policy.meters import advance, effective_weight, rank, weight_of
from scheduler.policy.ordering import Line, Meters, Terms, standing
from scheduler.policy.parameters import EXPRESS_REFILL
from scheduler.policy.reasons import Hold, HoldCode
from scheduler.snapshot import Account, Candidate, Clock, Limits, Running, Snapshot
from scheduler.states import DEFAULT_LEVEL, JobClass


@dataclass(frozen=True, slots=True)
class Lineup:
    """The lines at the start of a pass, and the jobs that are out of line with the reason."""

    clock: Clock
    terms: Terms
    lines: Mapping[int, Line]
    apart: Mapping[int, Hold]


@dataclass(frozen=True, slots=True)
class _Outstanding:
    """How the running jobs of one owner stand against their charges, in machine-seconds."""

    unused: float = 0.0
    excess: float = 0.0
    express_excess: float = 0.0


def line_up(snapshot: Snapshot, rooms: Rooms) -> Lineup:
    """Let virtual time pass and draw up the lines."""
    apart = _apart(snapshot)
    waiting = _by_owner(job for job in snapshot.candidates if job.id not in apart)
    outstanding = _outstanding(snapshot)
    clock = advance(snapshot.clock, snapshot.running, snapshot.accounts, snapshot.now)
    able = _able(waiting, snapshot, rooms)
    floor = min((_received(snapshot.accounts[o], outstanding[o]) for o in able), default=0.0)
    clock = replace(clock, virtual_now=max(clock.virtual_now, floor))
    terms = _terms(clock, waiting, snapshot)
    lines = {
        owner: Line(jobs, _meters(snapshot.accounts[owner], outstanding[owner], terms), terms)
        for owner, jobs in waiting.items()
    }
    return Lineup(clock, terms, lines, apart)


def stored(account: Account, line: Line | None) -> Account:
    """Return *account* with what a pass made of its meters; without a line it has no tag."""
    if line is None:
        return account if account.tag is None else replace(account, tag=None)
    meters = line.meters
    return replace(
        account,
        meter=meters.meter,
        express_meter=meters.express_meter,
        tag=meters.tag if line.head is not None else None,
    )


def _apart(snapshot: Snapshot) -> dict[int, Hold]:
    capacity = snapshot.limits.capacity
    machine = None if capacity is None else room_of(capacity)
    holds = ((job.id, _bar(job, snapshot.limits, machine)) for job in snapshot.candidates)
    return {job_id: hold for job_id, hold in holds if hold is not None}


def _bar(job: Candidate, limits: Limits, machine: Room | None) -> Hold | None:
    """Tell what keeps a job from running whoever's turn it is."""
    if job.job_class in limits.paused_classes:
        return Hold(HoldCode.PAUSED, what=job.job_class)
    if job.job_type in limits.paused_types:
        return Hold(HoldCode.PAUSED, what=job.job_type)
    if machine is not None and not machine.fits(amount(job)):
        return Hold(HoldCode.NO_WORKER, need=job.need, available=machine.free())
    return None


def _by_owner(jobs: Iterable[Candidate]) -> dict[int, list[Candidate]]:
    lines: dict[int, list[Candidate]] = defaultdict(list)
    for job in jobs:
        lines[job.owner_id].append(job)
    return dict(sorted(lines.items()))


def _outstanding(snapshot: Snapshot) -> dict[int, _Outstanding]:
    by_owner: dict[int, list[Running]] = defaultdict(list)
    for job in snapshot.running:
        by_owner[job.owner_id].append(job)
    found = {owner: _sum(jobs, snapshot) for owner, jobs in by_owner.items()}
    return defaultdict(_Outstanding, found)


def _sum(jobs: list[Running], snapshot: Snapshot) -> _Outstanding:
    left = [(job.charge - job.consumed(snapshot.now), job.express) for job in jobs]
    return _Outstanding(
        unused=fsum(rest for rest, _ in left if rest > 0),
        excess=fsum(-rest for rest, _ in left if rest < 0),
        express_excess=fsum(-rest for rest, express in left if rest < 0 and express),
    )


def _able(
    waiting: Mapping[int, list[Candidate]], snapshot: Snapshot, rooms: Rooms
) -> Iterable[int]:
    """The owners who were in line already and whose first job is under no cap."""
    if snapshot.limits.capacity is None:
        return ()
    return (
        owner
        for owner, jobs in waiting.items()
        if snapshot.accounts[owner].tag is not None
        and _is_under_no_cap(min(jobs, key=standing), rooms)
    )


def _is_under_no_cap(job: Candidate, rooms: Rooms) -> bool:
    return rooms.refusal(job, amount(job)) is None


def _received(account: Account, outstanding: _Outstanding) -> float:
    """The place of an owner's first job, less what is charged and not used yet."""
    owed = (outstanding.excess - outstanding.unused) / effective_weight(account.weight)
    return (account.tag or 0.0) + owed


def _terms(clock: Clock, waiting: Iterable[int], snapshot: Snapshot) -> Terms:
    normal = DEFAULT_LEVEL[JobClass.NORMAL]
    return Terms(
        virtual_now=clock.virtual_now,
        weight=weight_of(waiting, snapshot.accounts) or 1.0,
        mean_cost=clock.mean_cost,
        deferred_from=rank(snapshot.now, JobClass.NORMAL, normal),
    )


def _meters(account: Account, outstanding: _Outstanding, terms: Terms) -> Meters:
    weight = effective_weight(account.weight)
    meters = Meters(
        weight=weight,
        meter=account.meter,
        tag=account.meter if account.tag is None else account.tag,
        express_meter=account.express_meter,
        excess=outstanding.excess / weight,
        express_excess=outstanding.express_excess / weight / EXPRESS_REFILL,
    )
    meters.raise_to(terms.virtual_now if account.tag is None else terms.oldest_debt())
    return meters
