"""What an account has received of the machine, what it is due, and what its limits leave."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.models import Job, Ready
from scheduler.policy.durations import Durations
from scheduler.policy.rules import rules_of
from scheduler.snapshot import Caps, Running
from scheduler.store import picture, received
from scheduler.store.backlog import backlog_limits
from scheduler.store.policy import content_of, current_policy
from scheduler.store.received import beginning_of_slice
from webapp import queries
from webapp.access import Account
from webapp.answers import utc

WINDOWS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
"""What shares are told over."""


@dataclass(frozen=True, slots=True)
class Window:
    """A time that has passed, and what everybody received in it, in machine-seconds."""

    since: datetime
    until: datetime
    received: Mapping[int, float]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.until - self.since).total_seconds()


def usage(session: Session, account: Account, *, now: datetime) -> dict[str, Any]:
    """Return shares, limits and backlog of *account*."""
    running = picture.read_running(session)
    windows = {name: _window(session, span, running, now) for name, span in WINDOWS.items()}
    wanting = {*picture.read_owners(session), *(job.owner_id for job in running), account.id}
    involved = wanting.union(*(window.received for window in windows.values()))
    policy = content_of(current_policy(session))
    owners = picture.read_accounts(
        session, involved, picture.Known(rules_of(policy.rules), Durations(), now)
    )
    weights = {owner: each.account.weight for owner, each in owners.items()}
    backlog = _backlog(session, account.id, now)
    shares = {name: share(account.id, window, wanting, weights) for name, window in windows.items()}
    return {
        "at": utc(now),
        "weight": weights[account.id],
        "shares": shares,
        "limits": [
            *_limits(session, account.id, owners, running),
            *_backlog_limits(session, account.id, backlog["unfinished"]),
        ],
        "backlog": backlog,
    }


def share(
    owner: int, window: Window, wanting: Collection[int], weights: Mapping[int, float]
) -> dict[str, Any]:
    """Return what *owner* was due and received of the machine over a window. Pure.

    Due is its part by weight among those who received something then or want something now.
    """
    involved = {owner, *wanting, *window.received}
    due = weights[owner] / sum(weights[each] for each in involved if each in weights)
    machine_seconds = window.received.get(owner, 0.0)
    return {
        "since": utc(window.since),
        "due": round(due, 6),
        "received": round(machine_seconds / window.seconds, 6),
        "machine_seconds": round(machine_seconds, 3),
    }


def running_since(running: Iterable[Running], since: datetime, now: datetime) -> dict[int, float]:
    """Return what jobs that still run have used after *since*, by owner. Pure."""
    found: dict[int, float] = {}
    for job in running:
        if job.started_at is not None:
            seconds = (now - max(job.started_at, since)).total_seconds()
            used = job.share * max(0.0, seconds)
            found[job.owner_id] = found.get(job.owner_id, 0.0) + used
    return found


def _window(session: Session, span: timedelta, running: Iterable[Running], now: datetime) -> Window:
    since = beginning_of_slice(now - span)
    ended, present = received.read(session, since=since), running_since(running, since, now)
    both = {owner: ended.get(owner, 0.0) + present.get(owner, 0.0) for owner in {*ended, *present}}
    return Window(since, now, both)


def _limits(
    session: Session, owner_id: int, owners: Mapping[int, picture.Owner], running: Sequence[Running]
) -> list[dict[str, Any]]:
    """Return the owner's limits, and those of its group, with what is held under them."""
    account = owners[owner_id].account
    own = [job for job in running if job.owner_id == owner_id]
    if account.group_id is None:
        return _held(account.caps, own, of="own")
    shared = [job for job in running if owners[job.owner_id].account.group_id == account.group_id]
    caps = picture.read_groups(session)[account.group_id].caps
    return _held(account.caps, own, of="own") + _held(caps, shared, of="group")


def _held(caps: Caps, running: Sequence[Running], *, of: str) -> list[dict[str, Any]]:
    cpu_units = round(sum(job.cpu_units for job in running), 3)
    memory_mb = sum(job.memory_mb for job in running)
    return [
        _limit("cpu_units", of, caps.cpu_units, cpu_units),
        _limit("memory_mb", of, caps.memory_mb, memory_mb),
        _limit("running_jobs", of, caps.running_jobs, len(running)),
    ]


def _backlog_limits(session: Session, owner_id: int, unfinished: int) -> list[dict[str, Any]]:
    limits = list(backlog_limits(session, owner_id))
    own = next((each.cap for each in limits if not each.of_group), None)
    return [
        _limit("backlog", "own", own, unfinished),
        *(_limit("backlog", "group", each.cap, each.waiting) for each in limits if each.of_group),
    ]


def _limit(name: str, of: str, limit: float | None, used: float) -> dict[str, Any]:
    return {"name": name, "of": of, "limit": limit, "used": used}


def _backlog(session: Session, owner_id: int, now: datetime) -> dict[str, Any]:
    oldest = session.scalar(select(func.min(Ready.ready_at)).where(Ready.owner_id == owner_id))
    by_status = queries.count_by_status(session, Job.owner_id == owner_id)
    return {
        "unfinished": sum(by_status.values()),
        "jobs": by_status,
        "oldest_ready_seconds": None
        if oldest is None
        else max(0.0, (now - oldest).total_seconds()),
    }
