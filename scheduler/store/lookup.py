"""Reading about one job, for whoever explains it. Nothing is changed."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, text, tuple_
from sqlalchemy.orm import Session

from scheduler.models import Dependency, Job, Ready, User
from scheduler.states import JobStatus


@dataclass(frozen=True, slots=True)
class Parent:
    """A job that another still waits for."""

    job_id: str
    status: JobStatus
    condition: str


def see_one_moment(session: Session) -> None:
    """Let this transaction see one moment and change nothing; its first statement."""
    session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))


def jobs_named(session: Session, name: str, owner: str | None) -> list[tuple[Job, str]]:
    """Return the jobs of this name with their owners' names, of one *owner* if it is given."""
    found = select(Job, User.username).join(User, User.id == Job.owner_id)
    found = found.where(Job.job_id == name).order_by(User.username)
    if owner is not None:
        found = found.where(func.lower(User.username) == owner.lower())
    return [(job, username) for job, username in session.execute(found)]


def open_parents(session: Session, job: Job) -> list[Parent]:
    """Return the jobs that a blocked one still waits for."""
    rows = session.execute(
        select(Job.job_id, Job.status, Dependency.condition)
        .join(Dependency, Dependency.parent_id == Job.id)
        .where(Dependency.child_id == job.id, ~Dependency.met)
        .order_by(Job.id)
    )
    return [Parent(name, JobStatus(status), condition) for name, status, condition in rows]


def lengths_of_lines(session: Session) -> Sequence[tuple[int, int]]:
    """Return who waits, and how many jobs of theirs do."""
    rows = session.execute(select(Ready.owner_id, func.count()).group_by(Ready.owner_id))
    return [(owner, count) for owner, count in rows]


def own_ahead(session: Session, job: Job) -> int:
    """Return how many ready jobs stand before a job in its owner's line."""
    before = tuple_(Ready.rank, Ready.job_id) < tuple_(job.rank, job.id)
    counted = select(func.count()).where(Ready.owner_id == job.owner_id, before)
    return session.execute(counted).scalar_one()
