"""A scheduler with a dispatcher that remembers, on real services; tests play the workers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from threading import Thread
from typing import TypeVar

from kombu.exceptions import OperationalError as BrokerAway
from redis import Redis
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from scheduler.dispatch import Sent
from scheduler.lease import Lease
from scheduler.models import Active, Job
from scheduler.service import Scheduler, Turn
from scheduler.states import JobStatus
from scheduler.store import work
from scheduler.store.admission import Parcel
from scheduler.store.submission import Submission, submit
from tests.factories import PID, WORKER, make_type, make_worker
from tests.racing import committed
from tests.services import eventually

T = TypeVar("T")

LEASE = timedelta(seconds=30)


class Recorder:
    """Takes parcels as Celery would, unless it is away, and so many at a time."""

    def __init__(self) -> None:
        self.takes: int | None = None
        self.sent: list[Parcel] = []
        self.away = False

    def send(self, parcels: Sequence[Parcel]) -> Sent:
        if self.away:
            return Sent(0, BrokerAway("nobody listens"))
        taken = parcels[: self.takes]
        self.sent += taken
        return Sent(len(taken))

    def jobs(self) -> list[int]:
        return [parcel.job_id for parcel in self.sent]


class Installation:
    """One scheduler on a database, with shortcuts for everybody else who writes there."""

    def __init__(self, engine: Engine, redis: Redis, *, holder: str = "test") -> None:
        self.engine = engine
        self.dispatcher = Recorder()
        self.lease = Lease(engine, holder=holder)
        self.scheduler = Scheduler(engine, redis, self.dispatcher, self.lease)

    def tick(self, after: timedelta = timedelta(0)) -> Turn:
        """Take a turn as the leader, *after* so long from now."""
        eventually(self.lease.hold)  # a predecessor's lock goes a moment after its connection
        return self.scheduler.tick(self.now() + after)

    def ticks(self) -> Turn:
        """Take turns until there is nothing more to do."""
        while (turn := self.tick()).moves:
            pass
        return turn

    def now(self) -> datetime:
        return self.do(lambda session: session.scalars(select(func.clock_timestamp())).one())

    def do(self, act: Callable[[Session], T]) -> T:
        """Do *act* in a transaction of its own."""
        return committed(self.engine, act)

    def submit(self, owner_id: int, *submissions: Submission) -> tuple[int, ...]:
        return self.do(lambda session: submit(session, owner_id, submissions, batch=True).ids)

    def start(self, *jobs: int) -> None:
        """Start jobs that are queued, as a worker."""
        wanted = [(job, self.job(job).attempt) for job in jobs]
        claims, _ = self.do(
            lambda session: work.start(session, wanted, worker=WORKER, pid=PID, lease=LEASE)
        )
        assert len(claims) == len(jobs)

    def succeed(self, *jobs: int, after: timedelta = timedelta(0)) -> None:
        """End jobs that run, *after* having run so long."""
        reports = [work.Success(job, self.job(job).attempt, None) for job in jobs]

        def end(session: Session) -> int:
            session.execute(
                text("UPDATE active SET claimed_at = now() - :after WHERE job_id = ANY(:jobs)"),
                {"after": after, "jobs": list(jobs)},
            )
            return len(work.succeed(session, reports))

        assert self.do(end) == len(jobs)

    def fail(self, job: int) -> None:
        """End a job that runs, for good."""
        failure = work.Failure(job, self.job(job).attempt, "E", "no", retryable=False)
        assert self.do(lambda session: work.fail(session, failure))

    def job(self, job: int) -> Job:
        return self.do(lambda session: session.get_one(Job, job))

    def statuses(self, *jobs: int) -> list[JobStatus]:
        return [JobStatus(self.job(job).status) for job in jobs]

    def in_status(self, status: JobStatus) -> list[int]:
        """Return the jobs in a status, oldest first."""
        wanted = select(Job.id).where(Job.status == status).order_by(Job.id)
        return self.do(lambda session: list(session.scalars(wanted)))

    def reserved(self) -> tuple[float, int, int]:
        """Return what admitted and running jobs hold: CPU, memory, processes."""
        held = select(
            func.coalesce(func.sum(Active.cpu_units), 0),
            func.coalesce(func.sum(Active.memory_mb), 0),
            func.count(),
        )
        cpu_units, memory_mb, slots = self.do(lambda session: session.execute(held).one())
        return float(cpu_units), int(memory_mb), slots


def furnish(session: Session) -> None:
    """Make a type, and a worker that stays alive."""
    make_type(session)
    make_worker(session)
    session.execute(text("UPDATE workers SET heartbeat_at = now() + interval '1 hour'"))


@contextmanager
def running(scheduler: Scheduler) -> Iterator[Thread]:
    """Run a scheduler's loop while the block runs; it must end well and soon after."""
    problems: list[BaseException] = []

    def loop() -> None:
        try:
            scheduler.run()
        except BaseException as problem:  # noqa: BLE001 - shown by the test
            problems.append(problem)

    thread = Thread(target=loop)
    thread.start()
    try:
        yield thread
    finally:
        scheduler.stop()
        thread.join(timeout=20)
    assert not thread.is_alive()
    assert problems == []
