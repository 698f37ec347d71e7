"""How fast the policy decides alone: no database, no broker, jobs that end in made-up time."""

import gc
import random
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from pathlib import Path

from scheduler.policy.admission import Admission
from scheduler.policy.engine import Engine
from scheduler.policy.meters import rank
from scheduler.policy.ordering import standing
from scheduler.snapshot import Account, Candidate, Limits, Resources, Running
from scheduler.states import DEFAULT_LEVEL, JobClass
from tests.services import Services

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
SHAPES = ((1, 128, 3.0), (1, 128, 2.0), (2, 256, 8.0), (4, 2048, 12.0), (6, 512, 20.0))
SHAPE_WEIGHTS = (40, 38, 12, 6, 4)
CLASS_WEIGHTS = dict(zip(JobClass, (5, 15, 60, 20), strict=True))
WINDOW = 8
"""Jobs known of each line: what the leader holds where so many wait."""


def run(_services: Services, _directory: Path, quick: bool) -> None:  # noqa: FBT001 - the shape of a benchmark
    """Print admissions per second of processor time, and the time of a tick."""
    sizes = ((100, 8, 4),) if quick else ((10_000, 8, 4), (10_000, 64, 16), (100_000, 64, 16))
    for owners, cpu_units, ends in sizes:
        waiting = 1_000_000 if not quick else 5_000
        load = _Load(owners, waiting // owners, cpu_units)
        times, admitted = load.play(ticks=50 if quick else 600, ends=ends)
        ordered = sorted(times)
        print(
            f"{owners:7} owners, {waiting:8} jobs waiting, {cpu_units:3} CPU units"
            f"   {admitted / load.seconds:6.0f} admissions/s"
            f"   tick p50 {ordered[len(ordered) // 2] * 1e3:5.1f} ms"
            f"   p99 {ordered[int(len(ordered) * 0.99)] * 1e3:5.1f} ms"
            f"   {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:5.0f} MB"
        )


class _Load:
    """Owners who all have work, and a machine that runs it."""

    def __init__(self, owners: int, each: int, cpu_units: int) -> None:
        self.engine = Engine()
        self.seconds = 0.0  # of processor time that the policy took
        self._random = random.Random(1)  # noqa: S311 - makes load, hides nothing
        self._ids = iter(range(1, 2**62))
        self._left = dict.fromkeys(range(1, owners + 1), each)
        self._running: dict[int, Running] = {}
        self._ends: list[tuple[datetime, int]] = []
        self.engine.set_limits(Limits(Resources(cpu_units, cpu_units * 512, cpu_units)))
        for owner in self._left:
            account = Account(owner, weight=self._random.choice([1, 1, 1, 2, 4]), tag=0.0)
            self.engine.set_account(account)
            self._read_on(owner)
        gc.collect()
        gc.freeze()

    def play(self, ticks: int, ends: int) -> tuple[list[float], int]:
        """Take so many ticks, each after some jobs ended; return their times and the starts."""
        now, times, admitted = NOON, [], 0
        self._tick(now)  # fills the machine
        for _ in range(ticks):
            over = [heappop(self._ends) for _ in range(min(ends, len(self._ends)))]
            now = over[-1][0] if over else now
            begun = time.process_time()
            for _, job_id in over:
                job = self._running.pop(job_id)
                self.engine.end(job, job.consumed(now))
            admitted += self._tick(now)
            times.append(time.process_time() - begun)
        self.seconds = sum(times)
        return times, admitted

    def _tick(self, now: datetime) -> int:
        self.engine.advance(now, self._running.values())
        decided = self.engine.decide(now, self._running.values())
        for one in decided.admissions:
            self._start(one, now)
        for owner in self.engine.thin_lines(WINDOW // 2):
            self._read_on(owner)
        return len(decided.admissions)

    def _start(self, admission: Admission, now: datetime) -> None:
        self._running[admission.id] = admission.running(now, started_at=now)
        really = admission.job.expected * self._random.uniform(0.5, 1.5)
        heappush(self._ends, (now + really, admission.id))

    def _read_on(self, owner: int) -> None:
        count = min(WINDOW, self._left[owner])
        self._left[owner] -= count
        jobs = sorted(self._jobs(owner, count), key=standing)
        self.engine.extend(owner, jobs, has_more=self._left[owner] > 0)

    def _jobs(self, owner: int, count: int) -> Iterator[Candidate]:
        classes, weights = list(CLASS_WEIGHTS), list(CLASS_WEIGHTS.values())
        for _ in range(count):
            (cpu_units, memory_mb, seconds), *_ = self._random.choices(SHAPES, SHAPE_WEIGHTS)
            (job_class,) = self._random.choices(classes, weights)
            ready_at = NOON - timedelta(seconds=self._random.uniform(0, 3600))
            yield Candidate(
                id=next(self._ids),
                owner_id=owner,
                job_type=f"type{cpu_units}",
                job_class=job_class,
                rank=rank(ready_at, job_class, DEFAULT_LEVEL[job_class]),
                cpu_units=cpu_units,
                memory_mb=memory_mb,
                expected=timedelta(seconds=seconds),
                waiting_since=ready_at,
            )
