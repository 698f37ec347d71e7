"""Doing one thing to many jobs: which are meant, how many they are, and leaving it to a worker."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from flask import g
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.errors import UnknownType
from scheduler.models import Job
from scheduler.states import DEFAULT_LEVEL, BulkAction, JobClass
from scheduler.store import finding
from scheduler.store.audit import record
from scheduler.store.bulk import APPLIES_TO, KIND
from scheduler.store.finding import Count, Filter, Range, among
from scheduler.store.moves import Move
from scheduler.store.submission import Submission, submit
from webapp import access, queries
from webapp.access import Account
from webapp.errors import RETRY_SOON, FieldError, Problem
from webapp.extensions import db
from webapp.schemas.bulk import BulkFilter, BulkRequest

_LEVEL = DEFAULT_LEVEL[JobClass.CRITICAL]
"""Who wants a thousand jobs cancelled does not want to wait behind them."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The jobs that are *meant*, how many of them take the action, and how a worker is *told*.

    A walk begins behind the id *after*.
    """

    count: Count
    told: dict[str, Any]
    meant: int
    not_found: int = 0
    after: int = 0


def choose(account: Account, asked: BulkRequest) -> Chosen:
    """Find out which jobs are meant. Raises a 422 problem where there can be none."""
    if asked.filter is not None:
        return _matching(account, asked.action, asked.filter)
    ids = access.find_ids(account, asked.job_ids or (), asked.owner)
    named, found = len(set(asked.job_ids or ())), _count_of(db.session(), asked.action, ids)
    return Chosen(found, {"jobs": sorted(ids)}, meant=named, not_found=named - len(ids))


def accept(account: Account, asked: BulkRequest, chosen: Chosen) -> list[Move]:
    """Submit the job that does it, without committing, and write down that an operator asked.

    Raises a 503 problem as long as no worker has registered its type.
    """
    wish = {
        "action": asked.action,
        "priority_level": asked.priority,
        "add_tags": asked.add_tags,
        "remove_tags": asked.remove_tags,
    }
    one = Submission(
        type=KIND,
        payload=wish | _payload(chosen),
        description=f"{asked.action} {chosen.count.count}{'+' if chosen.count.more else ''} jobs",
        priority_level=_LEVEL,
        job_class=JobClass.CRITICAL,
        request_id=g.request_id,
    )
    is_relief = asked.action is BulkAction.CANCEL
    try:
        moves = submit(db.session(), account.id, [one], batch=False, beyond_backlog=is_relief).moves
    except UnknownType as refusal:
        detail = f"No worker has registered the type {KIND} yet; start one of this version."
        raise Problem("unavailable", detail, headers={"Retry-After": str(RETRY_SOON)}) from refusal
    if account.sees_everybody:
        told = {"bulk": moves[0].job_id, "count": chosen.count.count}
        described = asked.model_dump(mode="json", exclude_unset=True, exclude={"job_ids"})
        record(db.session(), access.actor(), "jobs.bulk", "jobs", described | told)
    return moves


def _payload(chosen: Chosen) -> dict[str, Any]:
    skipped = {"not_found": chosen.not_found} if chosen.not_found else {}
    return {
        **chosen.told,
        "expected": None if chosen.count.more else chosen.meant,
        "so_far": {"after": chosen.after, "skipped": skipped},
    }


def _matching(account: Account, action: BulkAction, asked: BulkFilter) -> Chosen:
    session, wanted = db.session(), _narrowed(queries.filter_of(asked), action)
    within = _range(session, access.whose(account, asked.owner), wanted)
    told = {"owner_id": within.owner_id, "up_to": within.up_to, "filter": _written(wanted)}
    found = finding.count(session, within, wanted)
    return Chosen(found, told, meant=found.count, after=within.after)


def _narrowed(wanted: Filter, action: BulkAction) -> Filter:
    """Leave only those of the statuses asked for that take the action."""
    fit = APPLIES_TO[action]
    statuses = fit & frozenset(wanted.statuses) if wanted.statuses else fit
    if not statuses:
        message = f"names no status that {action} applies to: {', '.join(sorted(fit))}"
        errors = [FieldError("filter.status", message)]
        raise Problem("validation_failed", f"filter.status {message}.", errors)
    return replace(wanted, statuses=statuses)


def _range(session: Session, owner_id: int | None, wanted: Filter) -> Range:
    """Return between which ids the jobs are: none that is made later, and none out of the time."""
    after, before = wanted.created_after, wanted.created_before
    least = None if after is None else session.scalar(queries.first_after(after))
    most = None if before is None else session.scalar(queries.last_before(before))
    newest = finding.newest(session)
    return Range(owner_id, (least or 1) - 1, newest if most is None else min(newest, most))


def _written(wanted: Filter) -> dict[str, Any]:
    """Return a filter as JSON holds it; whose jobs are meant is told apart."""
    written = asdict(wanted)
    del written["owner"]
    for name in ("statuses", "types", "classes", "levels"):
        written[name] = sorted(written[name])
    for name in ("created_after", "created_before"):
        written[name] = written[name] and written[name].isoformat()
    return written


def _count_of(session: Session, action: BulkAction, ids: Sequence[int]) -> Count:
    fit = Job.status.in_(sorted(APPLIES_TO[action]))
    found = session.scalar(select(func.count()).where(among(Job.id, ids), fit))
    return Count(found or 0, more=False)
