"""Keeping the books between two turns: what ended jobs used, and how long types take. Pure.

An ended job is known by its row of the feed; while it ran, the leader knew it as running.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from scheduler.policy import meters
from scheduler.policy.admission import Admission
from scheduler.policy.parameters import DURATION_MEMORY
from scheduler.snapshot import Account, Candidate, Clock, Running, Snapshot
from scheduler.store.dependencies import FeedRow
from scheduler.store.moves import Move

Known = Mapping[int, Running]
"""The jobs that ran, or were admitted, when the leader last looked."""


def ran_since(
    known: Known, present: Iterable[Running], ended: Iterable[FeedRow], now: datetime
) -> list[Running]:
    """Return the jobs that ran since the last turn, those that ended meanwhile included."""
    running = {job.id: job for job in present}
    used = {row.job_id: row.used_seconds for row in ended if row.used_seconds}
    gone = [
        replace(job, started_at=now - timedelta(seconds=used[job.id]))
        for job in known.values()
        if job.id not in running and job.id in used
    ]
    return [*running.values(), *gone]


def take_in(
    snapshot: Snapshot, ended: Sequence[FeedRow], known: Known
) -> tuple[Snapshot, set[int]]:
    """Let virtual time pass and put what ended jobs used in the place of their charges.

    Also returns the owners whose meters that changed.
    """
    ran = ran_since(known, snapshot.running, ended, snapshot.now)
    clock = meters.advance(snapshot.clock, ran, snapshot.accounts, snapshot.now)
    accounts = dict(snapshot.accounts)
    charged = [row for row in ended if row.charge is not None]
    for row in charged:
        accounts[row.owner_id], clock = meters.correct(
            accounts[row.owner_id],
            clock,
            charge=row.charge or 0.0,
            used=_used(snapshot, row, known.get(row.job_id)),
            express=bool(row.express),
        )
    return replace(snapshot, accounts=accounts, clock=clock), {row.owner_id for row in charged}


def _used(snapshot: Snapshot, row: FeedRow, known: Running | None) -> float:
    """Return what a job used, in machine-seconds; its charge where nobody can tell."""
    seconds = row.used_seconds or 0.0
    if known is not None:
        return known.share * seconds
    capacity = snapshot.limits.capacity
    if capacity is None or row.cpu_units is None or row.memory_mb is None:
        return row.charge or 0.0
    return meters.dominant_share(row.cpu_units, row.memory_mb, capacity) * seconds


def take_back(
    accounts: Mapping[int, Account], clock: Clock, missing: Iterable[Admission]
) -> tuple[dict[int, Account], Clock]:
    """Undo the charges of admissions that did not come about."""
    corrected = dict(accounts)
    for one in missing:
        corrected[one.owner_id], clock = meters.correct(
            corrected[one.owner_id], clock, charge=one.charge, used=0.0, express=one.express
        )
    return corrected, clock


def learn(durations: Mapping[str, timedelta], ended: Iterable[FeedRow]) -> dict[str, timedelta]:
    """Return how long jobs of each type take, moved towards what ended jobs took."""
    learned = dict(durations)
    for row in ended:
        if row.used_seconds and row.job_type is not None:
            took = timedelta(seconds=row.used_seconds)
            known = learned.get(row.job_type, took)
            learned[row.job_type] = known + (took - known) / DURATION_MEMORY
    return learned


def as_running(job: Candidate, move: Move, admitted: Admission) -> Running:
    """Return an admitted candidate as the running job it has become."""
    return Running(
        id=job.id,
        attempt=move.attempt,
        owner_id=job.owner_id,
        job_type=job.job_type,
        cpu_units=job.cpu_units,
        memory_mb=job.memory_mb,
        expected=job.expected,
        admitted_at=move.at,
        started_at=None,
        charge=admitted.charge,
        express=admitted.express,
    )
