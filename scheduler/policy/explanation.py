"""Why a job waits, in every number that mattered: read off the plan that left it waiting. Pure.

Nothing is decided here a second time. What the plan does not hold, such as the allowance that is
left, is worked out from the same snapshot with the same terms.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from math import fsum

from scheduler.policy.admission import Grounds
from scheduler.policy.durations import Expected
from scheduler.policy.experience import Estimate
from scheduler.policy.meters import effective_weight
from scheduler.policy.ordering import EXPRESS_LANES, Terms, is_open
from scheduler.policy.parameters import EXPRESS_REFILL
from scheduler.policy.plan import Plan
from scheduler.policy.reasons import Hold, HoldCode
from scheduler.snapshot import (
    NOTHING,
    Account,
    Candidate,
    Reservation,
    Resources,
    Running,
    Snapshot,
)


@dataclass(frozen=True, slots=True)
class Received:
    """An owner's meter against virtual now, the unit being machine-seconds divided by weight."""

    meter: float
    virtual_now: float
    weight: float

    @property
    def ahead(self) -> float:
        """Machine-seconds the owner has had beyond its share; below zero: what it is owed."""
        return (self.meter - self.virtual_now) * self.weight


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an owner may still take past everybody's line, in machine-seconds.

    *is_open*: everybody's express work together leaves room for more of this class.
    """

    left: float
    is_open: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """One job in one pass. *hold* is None for a job that the pass admits, and *grounds* for others.

    *position* is 1 for the job that goes next of those that wait; 0 for one that goes now. Beyond
    the plan it is about right and *is_exact* is false.
    """

    job_id: int
    grounds: Grounds | None
    hold: Hold | None
    position: int
    own_before: int
    received: Received
    allowance: Allowance | None  # of critical and high jobs
    missing: Resources
    reservation: Reservation | None  # that it holds or has to leave alone
    is_exact: bool = True
    expected: Expected | None = None
    rules: tuple[str, ...] = ()
    start: Estimate | None = None


def explain(snapshot: Snapshot, made: Plan, job_id: int) -> Explanation:
    """Explain what *made*, the plan of *snapshot*, does with one of its candidates."""
    job = next(each for each in snapshot.candidates if each.id == job_id)
    accounts = {**snapshot.accounts, **{each.owner_id: each for each in made.accounts}}
    hold = made.holds.get(job_id)
    before = _before(made, job_id)
    owner_of = {each.id: each.owner_id for each in snapshot.candidates}
    return Explanation(
        job_id=job_id,
        grounds=next((each.grounds for each in made.admissions if each.id == job_id), None),
        hold=hold,
        position=0 if hold is None else len(before) + 1,
        own_before=sum(owner_of[each] == job.owner_id for each in before),
        received=_received(accounts[job.owner_id], made),
        allowance=_allowance(job, accounts[job.owner_id], snapshot, made),
        missing=missing(hold),
        reservation=_reservation(hold, job, made),
    )


def explain_beyond(snapshot: Snapshot, made: Plan, job: Candidate, position: int) -> Explanation:
    """Explain a job that is too far back for the plan, and stands at about *position*."""
    account = {each.owner_id: each for each in made.accounts}.get(job.owner_id)
    account = account or snapshot.accounts[job.owner_id]
    return Explanation(
        job_id=job.id,
        grounds=None,
        hold=Hold(HoldCode.TURN, before=position - 1),
        position=position,
        own_before=0,
        received=_received(account, made),
        allowance=_allowance(job, account, snapshot, made),
        missing=NOTHING,
        reservation=None,
        is_exact=False,
    )


def missing(hold: Hold | None) -> Resources:
    """Return how much more room would let the job in, where room is what it waits for."""
    if hold is None or hold.kept_for is not None or hold.behind_first:
        return NOTHING
    if hold.code not in {HoldCode.RESOURCES, HoldCode.USER_CAP, HoldCode.NO_WORKER}:
        return NOTHING
    lack = hold.need - hold.available
    return Resources(max(0.0, lack.cpu_units), max(0, lack.memory_mb), max(0, lack.slots))


def _before(made: Plan, job_id: int) -> list[int]:
    """Return the waiting jobs that go before a job."""
    if job_id not in made.holds:
        return []
    waiting = [each for each in made.order if each in made.holds]
    return waiting[: waiting.index(job_id)]


def _received(account: Account, made: Plan) -> Received:
    meter = account.meter if account.tag is None else account.tag
    return Received(meter, made.clock.virtual_now, effective_weight(account.weight))


def _allowance(
    job: Candidate, account: Account, snapshot: Snapshot, made: Plan
) -> Allowance | None:
    lane = EXPRESS_LANES.get(job.job_class)
    if lane is None:
        return None
    terms, weight = _terms(snapshot, made), effective_weight(account.weight)
    used = account.express_meter + _express_excess(account, snapshot, weight)
    ahead = max(0.0, used - terms.virtual_now)
    left = terms.allowance(job.job_class, weight) * job.allowance - ahead
    share = max(0.0, left) * weight * EXPRESS_REFILL
    return Allowance(share, is_open(lane, made.clock.express_load))


def _terms(snapshot: Snapshot, made: Plan) -> Terms:
    in_line = {job.owner_id for job in snapshot.candidates}
    weight = fsum(effective_weight(snapshot.accounts[owner].weight) for owner in in_line)
    return Terms(
        virtual_now=made.clock.virtual_now,
        weight=(weight + snapshot.unseen_weight) or 1.0,
        mean_cost=made.clock.mean_cost,
        deferred_from=0,
    )


def _express_excess(account: Account, snapshot: Snapshot, weight: float) -> float:
    """What running express jobs have used beyond their charge, in the unit of the meter."""
    return _excess(snapshot.running, account.owner_id, snapshot.now) / weight / EXPRESS_REFILL


def _excess(running: Iterable[Running], owner_id: int, now: datetime) -> float:
    mine = (each for each in running if each.owner_id == owner_id and each.express)
    return fsum(max(0.0, each.consumed(now) - each.charge) for each in mine)


def _reservation(hold: Hold | None, job: Candidate, made: Plan) -> Reservation | None:
    kept = made.reservation
    if kept is None or hold is None or kept.job_id not in {hold.kept_for, job.id}:
        return None
    return kept
