"""Keeping the books between two turns: what ended jobs used, and how long types take. Pure.

An ended job is known by its row of the feed; while it ran, the leader knew it as running.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from scheduler.policy import meters
from scheduler.policy.durations import Lasted
from scheduler.snapshot import Resources, Running
from scheduler.store.dependencies import FeedRow
from scheduler.store.received import SLICE, SLICES_KEPT, Slice, beginning_of_slice

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


def used(row: FeedRow, known: Running | None, capacity: Resources | None) -> float:
    """Return what a job used, in machine-seconds; its charge where nobody can tell.

    One that was charged nothing ran on a worker of its owner's own.
    """
    if row.charge == 0:
        return 0.0
    seconds = row.used_seconds or 0.0
    if known is not None:
        return known.share * seconds
    if capacity is None or row.cpu_units is None or row.memory_mb is None:
        return row.charge or 0.0
    return meters.dominant_share(row.cpu_units, row.memory_mb, capacity) * seconds


def lasted(ended: Iterable[FeedRow]) -> list[Lasted]:
    """Return what ended attempts teach: those that ended by themselves, and how long they took."""
    return [
        Lasted(row.job_type, row.owner_id, row.lasted_seconds)
        for row in ended
        if row.lasted_seconds and row.job_type is not None
    ]


def received(row: FeedRow, used: float, now: datetime) -> dict[Slice, float]:
    """Return how what a job *used* up to *now* spreads over the slices in which it ran."""
    seconds = row.used_seconds or 0.0
    began = now - timedelta(seconds=seconds)
    found: dict[Slice, float] = {}
    since = beginning_of_slice(max(began, now - SLICES_KEPT))
    while since < now and seconds > 0:
        within = (min(since + SLICE, now) - max(since, began)).total_seconds()
        found[since, row.owner_id] = used * within / seconds
        since += SLICE
    return found
