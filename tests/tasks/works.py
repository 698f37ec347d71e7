"""A real worker for tests: its processes, its jobs, and what became of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import psutil
import redis
from celery import Celery
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from local import programs
from local.process import Process
from scheduler.database import make_engine
from scheduler.dispatch import Dispatcher
from scheduler.models import Worker
from scheduler.states import FINISHED, JobClass, JobStatus
from scheduler.store import fleet
from scheduler.store.admission import Parcel
from scheduler.store.cancellation import cancel
from tests.conftest import make_settings
from tests.services import Services, eventually
from tests.tasks.conftest import Jobs, Wanted

_DRAINS = "] drain"
"""What the worker says when it takes no more work."""


class Works:
    """A worker on a database of its own. One at a time: they would take each other's messages."""

    def __init__(self, services: Services, home: Path, **changes: str) -> None:
        services.flush_redis()
        url = services.fresh_database()
        self.settings = make_settings(services, home, DATABASE_URL=url, **changes)
        self.engine: Engine = make_engine(self.settings)
        self.jobs = Jobs(self.engine)
        self.lines: list[str] = []
        self._sender = Celery("sender", broker=services.redis_url)
        self._dispatcher = Dispatcher(self._sender)
        environment = {
            **programs.inherited_environment(),
            "DATABASE_URL": url,
            "REDIS_URL": services.redis_url,
            "FAIRQ_HOME": str(home),
            "FAIRQ_SECRET_KEY": self.settings.secret_key,
            "FAIRQ_WORKER_PROCESSES": "4,2",
            **changes,
        }
        program = programs.worker(environment, name="works")
        self._program = replace(
            program, command=(*program.command, "-I", "tests.tasks.misbehaving")
        )

    def __enter__(self) -> Self:
        self.process = Process(self._program, self.lines.append)
        try:
            eventually(self._is_ready, saying=self.log)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def start_again(self) -> None:
        """Kill the worker, and start it as it was started before."""
        self.process.kill()
        self.lines.clear()
        self.__enter__()

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self._sender.close()
        self.engine.dispose()

    def _is_ready(self) -> bool:
        said = any(line.endswith(" ready.") for line in self.lines)
        return said and self.entry() is not None

    def log(self) -> str:
        return "\n".join(self.lines)

    def drain(self) -> None:
        """Want the worker to take no new work, and wait until it does not."""
        eventually(self.is_listening, saying=self.log)
        drained = self.log().count(_DRAINS)
        self.jobs.run(lambda session: fleet.drain(session, self.name()))
        eventually(lambda: self.log().count(_DRAINS) > drained, saying=self.log)
        # Before, there may be a moment between two waits; from now on there is no other wait.
        eventually(lambda: not self.is_listening(), saying=self.log)

    def resume(self) -> None:
        """Want the worker to take work again."""
        self.jobs.run(lambda session: fleet.resume(session, self.name()))

    def name(self) -> str:
        entry = self.entry()
        assert entry is not None
        return entry.name

    def waiting(self) -> int:
        """Return how many messages no worker has taken."""
        with redis.Redis.from_url(self.settings.redis_url) as client:
            return sum(client.llen(job_class) for job_class in JobClass)

    def is_listening(self) -> bool:
        """Tell whether somebody waits for messages."""
        with redis.Redis.from_url(self.settings.redis_url) as client:
            return any(
                one["cmd"] == "brpop" and "b" in one["flags"] for one in client.client_list()
            )

    def next_heartbeat(self) -> None:
        """Wait until the worker has told once more that it lives."""
        before = self.entry()
        assert before is not None
        eventually(lambda: (now := self.entry()) and now.heartbeat_at > before.heartbeat_at)

    def entry(self) -> Worker | None:
        with Session(self.engine, expire_on_commit=False) as session:
            return session.scalar(select(Worker))

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def submit(self, kind: str = "simulate", **columns: Any) -> Wanted:
        attempt = self.jobs.queue(kind, **columns)
        self.send(attempt)
        return attempt

    def send(self, attempt: Wanted) -> None:
        job = self.jobs.look(attempt)
        sent = self._dispatcher.send([Parcel(*attempt, job.job_class, job.timeout_seconds)])
        assert sent.count == 1, sent.problem

    def wait(self, attempt: Wanted, *wanted: JobStatus) -> JobStatus:
        statuses = set(wanted) or FINISHED
        eventually(lambda: self.jobs.status(attempt) in statuses, saying=self.log)
        return self.jobs.status(attempt)

    def running(self, kind: str = "simulate", **columns: Any) -> Wanted:
        attempt = self.submit(kind, **columns)
        self.wait(attempt, JobStatus.RUNNING)
        return attempt

    def cancel(self, attempt: Wanted) -> None:
        self.jobs.run(lambda session: cancel(session, attempt[0]))

    def pid_of(self, attempt: Wanted) -> int:
        active = self.jobs.active(attempt)
        assert active is not None
        assert active.pid is not None
        return active.pid
