"""Who changed what, when, from where: written in the transaction of the change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.models import AuditEntry, Job, User
from scheduler.store.finding import among

JOBS_NAMED = 20
"""Of many jobs in one entry, how many the log names."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change: an account over HTTP, or whoever has a shell."""

    name: str
    id: int | None = None
    address: str | None = None
    request_id: str | None = None


COMMAND_LINE = Actor("command line")
"""No account is called so: names have no spaces."""


def record(
    session: Session, by: Actor, action: str, target: str, detail: Mapping[str, Any] | None = None
) -> None:
    """Write down that *by* does *action* to *target*, such as ``users.change`` to ``users/ann``.

    *detail* is JSON and holds no secrets: everybody who may read the log sees it.
    """
    session.add(
        AuditEntry(
            at=func.now(),
            actor_id=by.id,
            actor=by.name,
            address=by.address,
            request_id=by.request_id,
            action=action,
            target=target,
            detail=dict(detail or {}),
        )
    )
    session.flush()


def record_about_jobs(
    session: Session,
    by: Actor,
    action: str,
    jobs: Sequence[int],
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write down what *by* does to many jobs, an entry for each owner but themselves."""
    named = (
        select(User.username, Job.job_id)
        .join(User, User.id == Job.owner_id)
        .where(among(Job.id, jobs), User.id != by.id)
        .order_by(User.username, Job.id)
    )
    for owner, rows in groupby(session.execute(named), key=lambda row: row.username):
        record_together(session, by, action, owner, [row.job_id for row in rows], detail)


def record_together(
    session: Session,
    by: Actor,
    action: str,
    owner: str,
    job_ids: Sequence[str],
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write down what *by* does to some jobs of one owner, in one entry."""
    target = f"jobs/{owner}/{job_ids[0]}" if len(job_ids) == 1 else f"jobs/{owner}"
    told = {"count": len(job_ids), "job_ids": list(job_ids[:JOBS_NAMED]), **(detail or {})}
    record(session, by, action, target, told)
