"""What tests of the work stand on: jobs on their way, and a ledger to write to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from scheduler.events import Announcer
from scheduler.models import Active, Attempt, Job, User
from scheduler.settings import Settings
from scheduler.states import JobStatus
from scheduler.store.work import Claim
from tasks.context import Context, Notebook
from tasks.ledger import Ledger
from tests.factories import make_job, make_user

Wanted = tuple[int, int]


class Jobs:
    """Makes jobs that wait for a worker, and looks at them; everything is committed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def queue(self, kind: str = "simulate", **columns: Any) -> Wanted:
        with Session(self._engine) as session, session.begin():
            owner = session.scalar(select(User)) or make_user(session)
            job = make_job(session, owner, JobStatus.QUEUED, type=kind, **columns)
            return job.id, job.attempt

    def look(self, attempt: Wanted) -> Job:
        with Session(self._engine, expire_on_commit=False) as session:
            return session.get_one(Job, attempt[0])

    def attempt(self, attempt: Wanted) -> Attempt:
        with Session(self._engine, expire_on_commit=False) as session:
            return session.get_one(Attempt, attempt)

    def active(self, attempt: Wanted) -> Active | None:
        with Session(self._engine, expire_on_commit=False) as session:
            return session.get(Active, attempt[0])

    def status(self, attempt: Wanted) -> JobStatus:
        return JobStatus(self.look(attempt).status)

    def run(self, act: Callable[[Session], Any]) -> Any:
        with Session(self._engine) as session, session.begin():
            return act(session)


@pytest.fixture
def jobs(committed_engine: Engine) -> Jobs:
    return Jobs(committed_engine)


@pytest.fixture
def ledger(committed_engine: Engine, redis_client: Redis) -> Ledger:
    return Ledger(committed_engine, Announcer(redis_client))


@pytest.fixture
def context(home_settings: Settings) -> Context:
    return Context(make_claim(), home_settings, Notebook(lambda: None))


@pytest.fixture
def home_settings(tmp_path: Path) -> Settings:
    """Settings of an installation that is nowhere: for what needs no services."""
    return make_home_settings(tmp_path)


def make_home_settings(home: Path, **changes: str) -> Settings:
    return Settings.from_env(
        {
            "DATABASE_URL": "postgresql://nowhere/none",
            "REDIS_URL": "redis://nowhere",
            "FAIRQ_HOME": str(home),
            "FAIRQ_SECRET_KEY": "a-secret-key-for-tests-only",
            **changes,
        }
    )


def make_claim(**fields: Any) -> Claim:
    return Claim(
        **{
            "id": 7,
            "attempt": 1,
            "job_id": "job_7",
            "owner_id": 1,
            "owner": "ann",
            "type": "simulate",
            "payload": {},
            "timeout_seconds": 60.0,
            "memory_mb": 128,
            "is_last_attempt": False,
            **fields,
        }
    )
