"""Who goes next: one pass over a snapshot.

1. Set apart what cannot run whoever's turn it is: paused, or larger than the machine.
2. Let virtual time pass; place owners who come back from idleness beside those who wait.
3. Serve the hard reservation first, if there is one.
4. Take the least key until nobody is left: admit and charge, or note why not. The first job
   that lacks room gets the reservation; after it only what leaves its start alone goes in.
5. Put those left into the order in which they would be taken, and give each its one reason.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from scheduler.policy.admission import BEHIND, Decision, Round, cost, is_hard
from scheduler.policy.engine import Engine
from scheduler.policy.ordering import standing
from scheduler.policy.reasons import Hold, HoldCode
from scheduler.snapshot import Candidate, Snapshot


@dataclass(frozen=True, slots=True)
class Plan(Decision):
    """A decision with the place of every candidate and the reason of every one passed over.

    ``order`` is every candidate in the order the policy takes them, the admitted ones first.
    """

    order: tuple[int, ...]
    holds: Mapping[int, Hold]


def decide(snapshot: Snapshot) -> Decision:
    """Decide what ``plan`` decides, without places and reasons: for when nobody asks."""
    return Engine.of(snapshot).decide(snapshot.now, snapshot.running)


def plan(snapshot: Snapshot) -> Plan:
    """Decide which candidates to admit now.

    The plan exceeds no capacity and no cap, admits each job at most once, and gives every job
    passed over exactly one reason. Equal snapshots give equal plans, whatever the order of
    their parts.
    """
    engine = Engine.of(snapshot)
    played = engine.play(snapshot.now, snapshot.running, thorough=True)
    reasons, barred = played.reasons(), engine.barred()
    played.queue.reopen()
    decision = engine.conclude(played)
    left = _in_order(played, snapshot)
    apart = sorted((job for job in snapshot.candidates if job.id in barred), key=standing)
    return Plan(
        admissions=decision.admissions,
        accounts=decision.accounts,
        clock=decision.clock,
        reservation=decision.reservation,
        order=tuple(each.id for part in (decision.admissions, left, apart) for each in part),
        holds={**dict(_placed(left, reasons, played)), **barred},
    )


def _in_order(played: Round, snapshot: Snapshot) -> list[Candidate]:
    """Put the jobs left into the order in which they would be taken if there were room."""
    express_load = played.express_load
    turns = played.queue.turns(express_load)
    urgent: list[Candidate] = []
    others: list[Candidate] = []
    while (turn := turns.next()) is not None:
        (urgent if turn.is_critical_express else others).append(turn.job)
        charge = cost(turn.job, snapshot.limits.capacity)
        express_load += charge if turn.is_express else 0.0
        turns.count(express_load)
        played.queue.take(turn, charge)
    kept = played.reservation
    if kept is not None and is_hard(kept, snapshot.now):
        others.sort(key=lambda job: job.id != kept.job_id)
    return urgent + others


def _placed(
    left: list[Candidate], reasons: Mapping[int, Hold], played: Round
) -> Iterator[tuple[int, Hold]]:
    """Add to every reason how many jobs go first; of those that lack room only one is next."""
    ahead: Counter[int] = Counter()
    for before, job in enumerate(left):
        hold, own = reasons[job.id], ahead[job.owner_id]
        if hold.code is HoldCode.RESOURCES and hold.kept_for is None:
            is_next = before == 0 or job.id == played.first_lacking
            hold = replace(hold, available=played.rooms.machine.free()) if is_next else BEHIND
        if hold is BEHIND:
            yield job.id, Hold(HoldCode.TURN, before=before, own_before=own)
        else:
            yield job.id, replace(hold, before=before, own_before=own)
        ahead[job.owner_id] += 1
