"""Handing jobs to workers that ask for them over HTTP, and taking in what becomes of them."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.errors import JobNotFound
from scheduler.models import Active, Attempt, Job
from scheduler.states import Outcome
from scheduler.store import leases, offers, work
from scheduler.store.moves import Move
from scheduler.store.offers import Offer, Wanted
from scheduler.store.work import Failure, Success
from webapp import askers
from webapp.access import Account, visible_jobs
from webapp.errors import Problem
from webapp.extensions import db
from webapp.services import services
from webapp.submitting import finish

EAGER = timedelta(seconds=1)
"""How long who would not wait does so for a job that is there and was not admitted yet."""

LOOK_AGAIN = timedelta(seconds=2)
"""How often who waits looks whether the message that calls was lost."""

FOR_GOOD = timedelta(days=36_500)
"""The lease of who reports the end of a job and nothing before."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Who asks for what, and how long it may keep a job without a sign of life."""

    name: str
    user_id: int  # of whose token it uses
    wanted: Wanted
    lease: timedelta


@dataclass(frozen=True, slots=True)
class Handed:
    """An attempt that is the worker's once *moves* are committed, and its lease."""

    job: Job
    lease: str
    until: datetime
    moves: Sequence[Move]


@dataclass(frozen=True, slots=True)
class Said:
    """What a worker tells while it works; None where it tells nothing."""

    fraction: float | None = None
    message: str | None = None
    lines: tuple[work.LogLine, ...] = ()


def owner_served(account: Account) -> int | None:
    """Return whose jobs the workers of *account* are given: None is everybody's."""
    return None if account.sees_everybody else account.id


def hand_out(worker: Worker, *, wait: timedelta, is_there: Callable[[], bool]) -> Handed | None:
    """Return the next job for *worker* in the order of the policy; None if none comes in time.

    The caller commits, once the answer is made. Without *wait* too it waits a moment for a job
    that is there and not admitted yet. Who has gone, as *is_there* tells, is handed nothing: that
    would cost the job an attempt.
    """
    askers.note(services().redis, worker.name, worker.user_id, now=clock.now())
    deadline = time.monotonic() + wait.total_seconds()
    while True:
        left = timedelta(seconds=max(0.0, deadline - time.monotonic()))
        offer = _ask(worker.wanted, left, is_there)
        if offer is None:
            return None
        if not is_there():
            finish(work.give_back(db.session(), [offer]))
            return None
        # A job that is cancelled in this moment leaves time to ask for another.
        if (handed := _claim(worker, offer)) is not None:
            return handed


def job_under(account: Account, job_id: str, lease: str) -> Job:
    """Return the job of which an attempt was handed out under *lease*.

    Raises JobNotFound, or a 409 problem if the lease is not, or no longer, one of that job.
    """
    session = db.session()
    named = select(Job).where(visible_jobs(account), Job.job_id == job_id)
    job = session.scalar(named.join(Attempt).where(Attempt.lease == lease))
    if job is not None:
        return job
    if session.scalar(named.limit(1)) is None:
        raise JobNotFound(job_id)
    raise _lease_lost()


def note(job: Job, lease: str, said: Said) -> leases.Renewed:
    """Keep what a worker says of its job, and let the lease last anew. Commits."""
    session, announcer = db.session(), services().announcer
    renewed = leases.renew(session, job.id, lease)
    if renewed is None:
        raise _lease_lost()
    numbers = _keep(session, job, renewed.attempt, said)
    session.commit()
    if said.fraction is not None or said.message is not None:
        announcer.progress(job.owner_id, job.job_id, renewed.attempt, said.fraction, said.message)
    if numbers:
        lines = list(zip(numbers, said.lines, strict=True))
        announcer.log(job.owner_id, job.job_id, renewed.attempt, lines)
    return renewed


def end_well(job: Job, lease: str, result: object) -> list[Move]:
    """Record that the attempt under *lease* ended well; saying so again changes nothing."""
    return _end(
        job,
        lease,
        Outcome.COMPLETED,
        lambda session, attempt: work.succeed(session, [Success(job.id, attempt, result)]),
    )


def end_badly(job: Job, lease: str, failed: Callable[[int], Failure]) -> list[Move]:
    """Record that the attempt under *lease* failed; saying so again changes nothing."""
    return _end(
        job,
        lease,
        Outcome.FAILED,
        lambda session, attempt: work.fail(session, failed(attempt)),
    )


def _ask(wanted: Wanted, wait: timedelta, is_there: Callable[[], bool]) -> Offer | None:
    """Return what is offered within *wait*, or a moment, while whoever asks is there."""
    session, desk = db.session(), services().desk
    if wait <= timedelta(0):
        if not offers.may_come(session, wanted):
            return None
        wait = EAGER
    ask = offers.put_up(session, wanted, patience=wait)
    with desk.expecting(ask) as served:
        session.commit()
        services().announcer.wake()
        deadline = time.monotonic() + wait.total_seconds()
        while (left := deadline - time.monotonic()) > 0 and desk.is_open and is_there():
            if served.wait(min(left, LOOK_AGAIN.total_seconds())) or _is_served(session, ask):
                break
    offer = offers.take_down(session, ask)
    session.commit()
    return offer


def _is_served(session: Session, ask: int) -> bool:
    served = offers.is_served(session, ask)
    session.rollback()  # the connection is not held while waiting
    return served


def _claim(worker: Worker, offer: Offer) -> Handed | None:
    session, lease = db.session(), secrets.token_urlsafe(16)
    _, moves = work.start(
        session, [offer], worker=worker.name, pid=None, lease=worker.lease, token=lease
    )
    row = session.execute(
        select(Job, Active.lease_until)
        .join(Active, Active.job_id == Job.id)
        .where(Job.id == offer.job_id, Job.attempt == offer.attempt)
    ).first()
    if not moves or row is None or row.lease_until is None:
        session.rollback()
        return None
    return Handed(row.Job, lease, row.lease_until, moves)


def _keep(session: Session, job: Job, attempt: int, said: Said) -> list[int]:
    if said.fraction is not None or said.message is not None:
        work.set_progress(session, job.id, attempt, said.fraction, said.message)
    return work.append_logs(session, job.id, attempt, said.lines) if said.lines else []


def _end(
    job: Job, lease: str, outcome: Outcome, act: Callable[[Session, int], list[Move]]
) -> list[Move]:
    session = db.session()
    attempt = leases.held_under(session, job.id, lease)
    if attempt is not None:
        return act(session, attempt)
    # Whoever was asked to stop may say anything: the job is cancelled.
    if leases.reported_under(session, job.id, lease) in {outcome, Outcome.CANCELLED}:
        return []
    raise _lease_lost()


def _lease_lost() -> Problem:
    return Problem(
        "lease_lost",
        "The lease is over, or was never one of this job; nothing was changed. Ask for another.",
    )
