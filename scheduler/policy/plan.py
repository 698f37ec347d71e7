"""Who goes next: one pass over a snapshot.

1. Set apart what cannot run whoever's turn it is: paused, or larger than the machine.
2. Let virtual time pass; place owners who come back from idleness at virtual now.
3. Serve the hard reservation first, if there is one.
4. Take the least key until nobody is left: admit and charge, or note why not. The first job
   that lacks room gets the reservation; after it only what leaves its start alone goes in.
5. Put those left into the order in which they would be taken, and give each its one reason.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from scheduler.policy.admission import Admission, Round, cost, is_hard
from scheduler.policy.capacity import Rooms
from scheduler.policy.lineup import Lineup, line_up, stored
from scheduler.policy.ordering import Lane, Line, Turn, Turns, series_of, standing
from scheduler.policy.reasons import Hold, HoldCode
from scheduler.snapshot import Account, Candidate, Clock, Reservation, Resources, Snapshot

_OF_THE_WHOLE_SERIES = frozenset({HoldCode.USER_CAP, HoldCode.TYPE_CAP, HoldCode.NO_WORKER})


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and what to remember for the next pass.

    ``order`` is every candidate in the order the policy takes them, the admitted ones first.
    ``accounts`` are those that changed. An admission that turns out to be impossible is taken
    back with ``meters.correct`` and nothing used.
    """

    admissions: tuple[Admission, ...]
    holds: Mapping[int, Hold]
    order: tuple[int, ...]
    accounts: tuple[Account, ...]
    clock: Clock
    reservation: Reservation | None


def plan(snapshot: Snapshot) -> Plan:
    """Decide which candidates to admit now.

    The plan exceeds no capacity and no cap, admits each job at most once, and gives every job
    passed over exactly one reason. Equal snapshots give equal plans, whatever the order of
    their parts.
    """
    rooms = Rooms(snapshot)
    lineup = line_up(snapshot, rooms)
    turns = Round(snapshot, lineup, rooms)
    turns.play()
    accounts = _changed(snapshot, lineup)
    left = _in_order(snapshot, lineup, turns)
    apart = sorted((job for job in snapshot.candidates if job.id in lineup.apart), key=standing)
    return Plan(
        admissions=tuple(turns.admissions),
        holds={**_explained(left, turns, rooms.machine.free()), **lineup.apart},
        order=tuple(each.id for part in (turns.admissions, left, apart) for each in part),
        accounts=accounts,
        clock=replace(lineup.clock, express_load=turns.express_load),
        reservation=turns.reservation,
    )


def _changed(snapshot: Snapshot, lineup: Lineup) -> tuple[Account, ...]:
    after = (
        (account, stored(account, lineup.lines.get(owner)))
        for owner, account in sorted(snapshot.accounts.items())
    )
    return tuple(new for old, new in after if new != old)


def _in_order(snapshot: Snapshot, lineup: Lineup, played: Round) -> list[Candidate]:
    """Put the jobs left into the order in which they would be taken if there were room."""
    lines = {
        owner: Line(line.remaining(), replace(line.meters), lineup.terms)
        for owner, line in lineup.lines.items()
    }
    order: list[Candidate] = []
    load = played.express_load
    kept = played.reservation
    if kept is not None and is_hard(kept, snapshot.now):
        first = lines[kept.owner_id].find(kept.job_id, load)
        order.extend(_taken(first, snapshot.limits.capacity) if first else ())
    turns = Turns(lines.values(), load)
    while (turn := turns.next()) is not None:
        express = turn.lane is not Lane.ORDINARY
        order.extend(_taken(turn, snapshot.limits.capacity))
        turns.express_load += cost(order[-1], snapshot.limits.capacity) if express else 0.0
        turns.put_back(turn.line)
    return order


def _taken(turn: Turn, capacity: Resources | None) -> Iterator[Candidate]:
    job = turn.job
    turn.line.admit(turn, cost(job, capacity))
    yield job


def _explained(left: list[Candidate], played: Round, free: Resources) -> dict[int, Hold]:
    """Give every job of *left*, which is in order, its one reason."""
    holds: dict[int, Hold] = {}
    first_of_series: dict[tuple[object, ...], Hold] = {}
    ahead: Counter[int] = Counter()
    for before, job in enumerate(left):
        series = series_of(job)
        hold = played.holds.get(job.id) or _inherited(first_of_series.get(series), job)
        if hold.code is HoldCode.RESOURCES and hold.kept_for is None:
            is_next = before == 0 or job.id == played.first_lacking
            hold = replace(hold, code=hold.code if is_next else HoldCode.TURN, available=free)
        first_of_series.setdefault(series, hold)
        holds[job.id] = replace(hold, before=before, own_before=ahead[job.owner_id])
        ahead[job.owner_id] += 1
    return holds


def _inherited(first: Hold | None, job: Candidate) -> Hold:
    """The reason of a job that was not looked at: the first of its series was held."""
    if first is not None and first.code in _OF_THE_WHOLE_SERIES:
        return first
    return Hold(HoldCode.TURN, need=job.need)
