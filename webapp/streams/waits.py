"""Who waits for jobs to finish."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import BigInteger, any_, cast, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from scheduler.models import Job
from scheduler.states import JobStatus, is_final
from webapp.live_messages import JobKey


@dataclass(frozen=True, slots=True)
class Awaited:
    """A job that somebody waits for."""

    id: int
    key: JobKey

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return what has to be known of *job* to wait for it."""
        return cls(job.id, (job.owner_id, job.job_id))


@dataclass(frozen=True, slots=True, eq=False)
class _Wait:
    job: Awaited
    ring: Callable[[], None]


class Waits:
    """Rings whoever waits for a job once it may have finished: they look for themselves."""

    def __init__(self) -> None:
        self._by_job: dict[JobKey, set[_Wait]] = {}

    def __bool__(self) -> bool:
        """Tell whether anybody waits."""
        return bool(self._by_job)

    @contextmanager
    def waiting(self, job: Awaited, ring: Callable[[], None]) -> Iterator[None]:
        """Have *ring* called while the block runs."""
        wait = _Wait(job, ring)
        here = self._by_job.setdefault(job.key, set())
        here.add(wait)
        try:
            yield
        finally:
            here.discard(wait)
            if not here:
                del self._by_job[job.key]

    def hear(self, moves: Sequence[Mapping[str, Any]]) -> None:
        """Take moves as they were announced."""
        for move in moves:
            if is_final(JobStatus(move["status"])):
                self._ring((move["owner_id"], move["job_id"]))

    def poll(self, session: Session) -> None:
        """Look at all jobs that are waited for, should a message have been lost."""
        keys = {wait.job.id: key for key, waits in self._by_job.items() for wait in waits}
        wanted = Job.id == any_(cast(list(keys), ARRAY(BigInteger)))
        finished = session.scalars(select(Job.id).where(wanted, Job.finished_at.is_not(None)))
        for job in finished.all():
            self._ring(keys[job])

    def ring_all(self) -> None:
        """Make everybody look."""
        for key in list(self._by_job):
            self._ring(key)

    def _ring(self, key: JobKey) -> None:
        for wait in list(self._by_job.get(key, ())):
            wait.ring()
