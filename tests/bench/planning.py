"""How fast one turn decides, without a database."""

import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scheduler.policy.plan import plan
from scheduler.snapshot import Account, Candidate, Clock, Limits, Resources, Snapshot
from scheduler.states import JobClass
from tests.services import Services

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
CLASSES = tuple(JobClass)


def run(_services: Services, _directory: Path, quick: bool) -> None:  # noqa: FBT001 - the shape of a benchmark
    """Print the time of a turn over fronts of several sizes."""
    for owners, window, slots in ((10, 100, 8), (100, 20, 8), (100, 20, 200)):
        snapshot = _snapshot(owners, window, slots)
        times = sorted(_turn(snapshot) for _ in range(3 if quick else 30))
        print(
            f"{owners:4} owners x {window:3} waiting jobs, {slots:3} free slots"
            f"   p50 {statistics.median(times) * 1e3:6.1f} ms   max {times[-1] * 1e3:6.1f} ms"
        )


def _turn(snapshot: Snapshot) -> float:
    begun = time.perf_counter()
    plan(snapshot)
    return time.perf_counter() - begun


def _snapshot(owners: int, window: int, slots: int) -> Snapshot:
    candidates = tuple(
        Candidate(
            id=owner * window + place,
            owner_id=owner,
            job_type="simulate",
            job_class=CLASSES[place % len(CLASSES)],
            rank=place,
            cpu_units=1.0 + place % 3,
            memory_mb=128,
            expected=timedelta(seconds=2),
            waiting_since=NOON,
        )
        for owner in range(owners)
        for place in range(window)
    )
    return Snapshot(
        now=NOON,
        candidates=candidates,
        running=(),
        accounts={owner: Account(owner) for owner in range(owners)},
        groups={},
        clock=Clock(advanced_at=NOON),
        reservation=None,
        limits=Limits(Resources(float(slots), slots * 512, slots)),
    )
