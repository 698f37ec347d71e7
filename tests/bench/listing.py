"""What a page of the list of jobs costs under each filter, with two million jobs in the table."""

import random
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from redis import Redis
from sqlalchemy import ColumnElement, select, text, true
from sqlalchemy.orm import Session

from scheduler.database import make_engine, open_redis
from scheduler.models import Job, User
from scheduler.states import FINISHED, PENDING, JobStatus
from scheduler.store.finding import Filter
from tests.conftest import make_settings
from tests.factories import NOON, make_type
from tests.services import Services
from webapp import cursors, queries

PAGE = 50
GOAL_MS = 50
"""What 95 of 100 pages are to stay under, whatever is asked for."""

_USERS = """
INSERT INTO users (username, password_hash, role, created_at)
SELECT 'user' || n, '', 'user', now() FROM generate_series(1, :owners) AS n
"""

# Every tenth job is of the first user; a thousandth has not finished; few types, tags and words
# are rare.
_JOBS = """
INSERT INTO jobs (owner_id, job_id, type, status, reason, job_class, priority_level, description,
                  tags, payload, cpu_units, memory_mb, retry_config, timeout_seconds, executor,
                  content_hash, rank_offset, created_at, ready_at, finished_at, error_type,
                  error_fingerprint)
SELECT CASE WHEN n % 10 = 0 THEN first.id ELSE first.id + n % :owners END, 'filled-' || n,
       CASE WHEN n % 50000 = 0 THEN 'rare' ELSE 'kind' || n % 8 END, status,
       CASE WHEN status = 'cancelled' THEN 'cancelled_by_user' END,
       (ARRAY['critical', 'high', 'normal', 'low'])[1 + n % 4], (ARRAY[0, 2, 5, 8])[1 + n % 4],
       'resize picture ' || md5(CAST(n AS text)), ARRAY['nightly', 'run-' || n / 100],
       jsonb_build_object('n', n), 1, 64, '{}', 60, 'celery', '', 0,
       CAST(:begun AS timestamptz) + n * interval '1 s', :begun,
       CASE WHEN status <> 'blocked' THEN CAST(:begun AS timestamptz) + n * interval '1 s' END,
       CASE WHEN status = 'failed' THEN 'ValueError' END,
       CASE WHEN status = 'failed' THEN '0123abcd' END
FROM generate_series(CAST(:since AS int), CAST(:until AS int)) AS n
CROSS JOIN (SELECT min(id) AS id FROM users WHERE username = 'user1') AS first
CROSS JOIN LATERAL (SELECT CASE WHEN n % 1000 = 1 THEN 'blocked' WHEN n % 100 = 2 THEN 'failed'
                                WHEN n % 100 = 3 THEN 'cancelled' ELSE 'completed' END AS status)
"""

_SEARCHED = """
INSERT INTO searched
SELECT id, type, created_at, tags,
       concat_ws(chr(10), job_id, description, array_to_string(tags, chr(10)))
FROM jobs
"""
_AT_ONCE = 100_000


class Case(NamedTuple):
    """A list that is asked for: its filter for a number between 1 and that of jobs."""

    name: str
    wanted: Callable[[int], Filter]


CASES = (
    Case("everything", lambda _: Filter()),
    Case("pending", lambda _: Filter(statuses=PENDING)),
    Case("finished", lambda _: Filter(statuses=FINISHED)),
    Case("failed", lambda _: Filter(statuses={JobStatus.FAILED})),
    Case("common type", lambda _: Filter(types={"kind3"})),
    Case("rare type", lambda _: Filter(types={"rare"})),
    Case("a level", lambda _: Filter(levels={0})),
    Case("common tag", lambda _: Filter(tags=["nightly"])),
    Case("rare tag", lambda n: Filter(tags=[f"run-{n // 100}"])),
    Case("common word", lambda _: Filter(text="picture")),
    Case("rare word", lambda n: Filter(text=f"filled-{n}")),
    Case("absent word", lambda _: Filter(text="absent")),
    Case("two letters", lambda _: Filter(text="zz")),
    Case("before", lambda n: Filter(created_before=NOON + timedelta(seconds=n))),
    Case("after", lambda n: Filter(created_after=NOON + timedelta(seconds=n))),
    Case(
        "failed, common word, before",
        lambda n: Filter(
            statuses={JobStatus.FAILED},
            text="picture",
            created_before=NOON + timedelta(seconds=n),
        ),
    ),
)


def run(services: Services, directory: Path, quick: bool) -> None:  # noqa: FBT001 - the shape of a benchmark
    """Print how long pages take, for a user and for an operator, at the front and anywhere."""
    owners, jobs, rounds = (20, 20_000, 3) if quick else (1_000, 2_000_000, 40)
    settings = make_settings(services, directory, DATABASE_URL=services.fresh_database())
    engine = make_engine(settings, durable=False)
    with Session(engine) as session:
        _fill(session, owners, jobs)
        print(f"{jobs} jobs of {owners} owners; ms a page of {PAGE}; to stay under {GOAL_MS}")
        print(
            f"{'':28}{'user p50':>10}{'p95':>8}{'all p50':>10}{'p95':>8}{'deep p50':>10}{'p95':>8}"
        )
        redis = open_redis(settings)
        for case in CASES:
            columns = _measure(session, redis, case, jobs, rounds)
            print(f"{case.name:28}" + "".join(f"{p50:>10.1f}{p95:>8.1f}" for p50, p95 in columns))
        redis.close()
    engine.dispose()


def _fill(session: Session, owners: int, jobs: int) -> None:
    make_type(session)
    session.execute(text(_USERS), {"owners": owners})
    for since in range(1, jobs + 1, _AT_ONCE):
        until = min(jobs, since + _AT_ONCE - 1)
        about = {"owners": owners, "since": since, "until": until, "begun": NOON}
        session.execute(text(_JOBS), about)
        session.commit()
    session.execute(text(_SEARCHED))
    session.commit()
    connection = session.get_bind().engine.connect()  # type: ignore[union-attr]
    with connection.execution_options(isolation_level="AUTOCOMMIT") as alone:
        alone.execute(text("VACUUM ANALYZE"))


def _measure(
    session: Session, redis: Redis, case: Case, jobs: int, rounds: int
) -> Iterator[tuple[float, float]]:
    """Yield p50 and p95 for the first user, for everybody, and for everybody from anywhere on."""
    first = session.scalars(select(User.id).where(User.username == "user1")).one()
    mine, everybodys = Job.owner_id == first, true()
    for visible, is_deep in ((mine, False), (everybodys, False), (everybodys, True)):
        yield _times(session, redis, visible, case, jobs, rounds, is_deep=is_deep)


def _times(
    session: Session,
    redis: Redis,
    visible: ColumnElement[bool],
    case: Case,
    jobs: int,
    rounds: int,
    *,
    is_deep: bool,
) -> tuple[float, float]:
    chance, times = random.Random(1), []  # noqa: S311 - picks jobs, hides nothing
    for _ in range(rounds + 1):
        wanted = case.wanted(chance.randint(jobs // 10, jobs))
        check = queries._check_of(wanted, oldest_first=False)
        cursor = cursors.write_cursor(chance.randint(jobs // 10, jobs), check) if is_deep else None
        begun = time.perf_counter()
        queries.list_jobs(session, redis, visible, wanted, limit=PAGE, cursor=cursor)
        times.append((time.perf_counter() - begun) * 1e3)
        session.rollback()
    ordered = sorted(times[1:])  # the first one warms up
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]
