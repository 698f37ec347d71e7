"""What the leader does with a database that holds many waiting jobs."""

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from redis import Redis
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from scheduler.database import make_engine, open_redis
from scheduler.models import Job
from scheduler.policy.plan import plan
from scheduler.service import PLACES_EVERY
from scheduler.store import submission
from scheduler.store.picture import FRONT
from tests.conftest import make_settings
from tests.factories import make_submission, make_type, make_worker
from tests.scheduler.installation import Installation
from tests.services import Services
from webapp.places import far_back

SLOTS = 512

_USERS = """
INSERT INTO users (username, password_hash, role, created_at)
SELECT 'user' || n, '', 'user', now() FROM generate_series(1, :owners) AS n
"""

_JOBS = """
INSERT INTO jobs (owner_id, job_id, type, status, job_class, priority_level, payload, cpu_units,
                  memory_mb, retry_config, timeout_seconds, executor, content_hash, rank_offset,
                  rank, created_at, ready_at)
SELECT (SELECT min(id) FROM users WHERE username = 'user1') + n % :owners, 'filled-' || n,
       'simulate', 'ready', 'normal', 5, '{}', 1, 64, '{}', 60, 'celery', '', 0,
       CAST(EXTRACT(epoch FROM now()) * 1000000 AS bigint) + n, now(), now()
FROM generate_series(1, :jobs) AS n
"""

_LINES = """
INSERT INTO ready (owner_id, rank, job_id, job_type, job_class, cpu_units, memory_mb,
                   expected_seconds, timeout_seconds, ready_at, executor)
SELECT owner_id, rank, id, type, job_class, cpu_units, memory_mb, 1, timeout_seconds, ready_at,
       executor
FROM jobs WHERE status = 'ready'
"""

_WORK_OFF = """
WITH freed AS (DELETE FROM active RETURNING *),
ended AS (
    UPDATE jobs SET status = 'completed', finished_at = now(), worker = 'bench', started_at = now()
    FROM freed WHERE jobs.id = freed.job_id
)
INSERT INTO feed (kind, job_id, owner_id, cpu_units, memory_mb, charge, express, used_seconds)
SELECT 'ended', job_id, owner_id, cpu_units, memory_mb, charge, express, 1 FROM freed
"""


def run(services: Services, directory: Path, quick: bool) -> None:  # noqa: FBT001 - the shape of a benchmark
    """Print figures of the leader's path through Postgres."""
    owners, jobs, ticks = (100, 5_000, 5) if quick else (10_000, 1_000_000, 40)
    settings = make_settings(services, directory, DATABASE_URL=services.fresh_database())
    engine = make_engine(settings, durable=False)
    _fill(engine, owners, jobs)
    print(f"{owners} owners, {jobs} jobs waiting, {SLOTS} processes")
    redis = open_redis(settings)
    here = Installation(engine, redis)
    _takeover(here)
    _admissions(here, engine, ticks)
    _submissions(here, engine, 5 if quick else 20)
    _standings(here)
    _places(here, redis, jobs)
    here.lease.release()
    engine.dispose()


def _fill(engine: Engine, owners: int, jobs: int) -> None:
    with Session(engine) as session, session.begin():
        make_type(session)
        make_worker(session)
        session.execute(
            text(
                "UPDATE workers SET cpu_units = :slots, memory_mb = 999999, processes_max = :slots,"
                " processes_limit = :slots, heartbeat_at = now() + interval '1 hour'"
            ),
            {"slots": SLOTS},
        )
        session.execute(text(_USERS), {"owners": owners})
        session.execute(text(_JOBS), {"owners": owners, "jobs": jobs})
        session.execute(text(_LINES))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _takeover(here: Installation) -> None:
    before = psutil.Process().memory_info().rss
    begun = time.perf_counter()
    first = here.tick()
    to_first = time.perf_counter() - begun
    while here.tick().busy:
        pass
    everything = time.perf_counter() - begun
    grown = (psutil.Process().memory_info().rss - before) / 2**20
    print(
        f"takeover: first {first.admitted} admissions after {to_first:.2f} s, "
        f"every line read after {everything:.2f} s, memory grown by {grown:.0f} MB"
    )


def _admissions(here: Installation, engine: Engine, ticks: int) -> None:
    admitted, times = 0, []
    for _ in range(ticks):
        with Session(engine) as session, session.begin():
            session.execute(text(_WORK_OFF))
        begun = time.perf_counter()
        admitted += here.tick().admitted
        times.append(time.perf_counter() - begun)
    print(
        f"plan, admit, outbox: {admitted / sum(times):.0f} admissions/s, "
        f"turn p50 {statistics.median(times) * 1e3:.0f} ms"
    )


def _submissions(here: Installation, engine: Engine, batches: int) -> None:
    batch = [make_submission()] * 1_000
    owner = here.do(lambda session: session.scalars(text("SELECT min(id) FROM users")).one())

    def submit(session: Session) -> object:
        return submission.submit(session, owner, batch, batch=True)

    times = [_timed(lambda: here.do(submit)) for _ in range(batches)]
    print(f"submission in batches of 1,000: {1_000 * batches / sum(times):.0f} jobs/s")


def _standings(here: Installation) -> None:
    mirror = here.scheduler._memory.mirror
    assert mirror
    now = here.now()
    times = [_timed(lambda: plan(mirror.front(now, FRONT))) for _ in range(10)]
    print(f"places and reasons of the first {FRONT}: {statistics.median(times) * 1e3:.0f} ms")


def _places(here: Installation, redis: Redis, jobs: int) -> None:
    here.tick(PLACES_EVERY)  # draws the curve
    now, chance = here.now(), random.Random(1)  # noqa: S311 - picks jobs, hides nothing

    def place(session: Session) -> object:
        job = session.scalars(select(Job).where(Job.job_id == wanted)).one()
        return far_back(session, redis, [job], now=now)

    times = []
    for _ in range(100):
        wanted = f"filled-{chance.randint(jobs // 2, jobs)}"
        times.append(_timed(lambda: here.do(place)))
    ordered = sorted(times)
    print(
        f"place and reason of any job: p50 {statistics.median(ordered) * 1e3:.1f} ms,"
        f" p99 {ordered[98] * 1e3:.1f} ms"
    )


def _timed(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun
