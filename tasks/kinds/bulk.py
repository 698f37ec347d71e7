"""Dealing with many jobs in the background: what ``POST /jobs/bulk`` leaves to a worker.

It acts with the rights its owner has at that moment, batch by batch. Each batch, and how far it
is with it, are one transaction: whoever comes after a lost worker goes on behind the last one.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator
from sqlalchemy import ColumnElement, Engine, NullPool, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler.database import make_engine, open_redis
from scheduler.events import Announcer
from scheduler.job_request import TAGS_LIMIT
from scheduler.models import Job, User
from scheduler.settings import Settings
from scheduler.states import BulkAction, JobClass, JobStatus, Role
from scheduler.store.audit import Actor, record_about_jobs
from scheduler.store.bulk import KIND, Dealt, Wish, deal, keep_place
from scheduler.store.finding import Filter, Range, in_statuses, other_conditions, walk
from tasks.catalogue import Payload, job_type
from tasks.context import Context, DoNotRetry
from tasks.ledger import is_away

BATCH = 200
"""Jobs that are dealt with, and locked, at a time."""

_AUDITED = {
    BulkAction.CANCEL: "jobs.cancel",
    BulkAction.RETRY: "jobs.retry",
    BulkAction.PRIORITISE: "jobs.change",
    BulkAction.TAG: "jobs.change",
}

log = logging.getLogger(__name__)

_OVERSEERS = {Role.OPERATOR, Role.ADMIN}


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must consist of printable characters")
    return text


Tag = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
Tags = Annotated[list[Tag], Field(max_length=TAGS_LIMIT)]


class Sought(Payload):
    """Which jobs are meant: those that match all of this."""

    statuses: list[JobStatus] = Field(default_factory=list)
    types: list[str] = Field(default_factory=list)
    classes: list[JobClass] = Field(default_factory=list)
    levels: list[int] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)
    text: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


class SoFar(Payload):
    """What has been done: all jobs up to an id have been seen to."""

    after: int = 0
    done: int = 0
    skipped: dict[str, int] = Field(default_factory=dict)


class Bulk(Payload):
    """What is to be done, and to which jobs: those named by their numbers, or all that match."""

    action: BulkAction
    priority_level: int | None = Field(None, ge=0, le=10)
    add_tags: Tags = Field(default_factory=list)
    remove_tags: Tags = Field(default_factory=list)
    owner_id: int | None = Field(None, description="Whose jobs; everybody's if there is none.")
    filter: Sought | None = None
    jobs: list[int] = Field(default_factory=list)
    up_to: int = Field(0, description="The newest job there was when this was asked for.")
    expected: int | None = Field(None, description="How many jobs matched then, if counted.")
    so_far: SoFar = SoFar()

    @model_validator(mode="after")
    def _what_the_action_needs(self) -> Self:
        if self.action is BulkAction.PRIORITISE and self.priority_level is None:
            raise ValueError("prioritise needs a priority_level")
        return self


@job_type(
    KIND,
    payload=Bulk,
    description="Cancels, retries, prioritises or tags many jobs; made by POST /jobs/bulk.",
    cpu_units=0.1,
    timeout_seconds=6 * 3600,
    max_timeout_seconds=24 * 3600,
    retry_config={"max_attempts": 10, "max_delay_seconds": 60},
)
def bulk(context: Context, payload: Bulk) -> dict[str, Any]:
    """Deal with the jobs, the oldest first, and tell with how many and why others were skipped."""
    with _connected(context.settings) as (engine, announcer):
        return _Errand(context, payload, engine, announcer).run()


@contextmanager
def _connected(settings: Settings) -> Iterator[tuple[Engine, Announcer]]:
    engine, redis = make_engine(settings, poolclass=NullPool), open_redis(settings)
    try:
        yield engine, Announcer(redis)
    finally:
        redis.close()
        engine.dispose()


@dataclass(frozen=True, slots=True)
class _Asker:
    """Whose errand it is, what of all jobs they may touch, and as whom the audit log knows them."""

    actor: Actor
    may_touch: Sequence[ColumnElement[bool]]
    is_overseer: bool


class _Errand:
    """One attempt at dealing with many jobs."""

    def __init__(
        self, context: Context, payload: Bulk, engine: Engine, announcer: Announcer
    ) -> None:
        self._context = context
        self._payload = payload
        self._engine = engine
        self._announcer = announcer
        self._wish = Wish(
            action=payload.action,
            priority_level=payload.priority_level,
            add_tags=payload.add_tags,
            remove_tags=payload.remove_tags,
        )
        self._filter = None if payload.filter is None else Filter(**payload.filter.model_dump())
        self._after = payload.so_far.after
        self._done = payload.so_far.done
        self._skipped = Counter(payload.so_far.skipped)

    def run(self) -> dict[str, Any]:
        """Deal with what is left."""
        for batch in self._batches():
            self._context.raise_if_cancelled()
            self._deal(batch)
            self._show()
        return {"action": self._payload.action, "done": self._done, "skipped": dict(self._skipped)}

    def _batches(self) -> Iterator[Sequence[int]]:
        for ids in self._stretches():
            others = [number for number in ids if number != self._context.number]
            for start in range(0, len(others), BATCH):
                yield others[start : start + BATCH]

    def _stretches(self) -> Iterator[Sequence[int]]:
        if self._filter is None:
            yield sorted({number for number in self._payload.jobs if number > self._after})
            return
        with Session(self._engine) as session:
            asker = _asker(session, self._context.number)
            whose = self._payload.owner_id if asker.is_overseer else asker.actor.id
            within = Range(whose, self._after, self._payload.up_to)
            for ids in walk(session, within, self._filter):
                session.rollback()  # nothing is held while others are at work
                self._context.raise_if_cancelled()
                yield ids

    def _deal(self, batch: Sequence[int]) -> None:
        """Deal with a batch; where it fails, with its jobs one by one."""
        try:
            self._settle(batch)
        except DBAPIError as problem:
            if is_away(problem):
                raise
            if len(batch) == 1:
                told = {"job": batch[0], "bulk": self._context.job_id}
                log.exception("a job was left out", extra=told)
                self._leave_out(batch[0])
                return
            for number in batch:
                self._deal([number])

    def _settle(self, batch: Sequence[int]) -> None:
        with Session(self._engine) as session, session.begin():
            asker = _asker(session, self._context.number)
            dealt = self._act(session, batch, asker)
            if asker.is_overseer:
                told = {"bulk": self._context.job_id, **self._wish.told()}
                action = _AUDITED[self._wish.action]
                record_about_jobs(session, asker.actor, action, dealt.done, told)
            self._keep(session, batch[-1], dealt)
        self._take(batch[-1], dealt)
        if dealt.moves:
            self._announcer.tell(dealt.moves)
            self._announcer.wake()

    def _act(self, session: Session, batch: Sequence[int], asker: _Asker) -> Dealt:
        if self._filter is None:
            return deal(session, self._wish, batch, asker.may_touch, others="not_found")
        matching = [*asker.may_touch, *in_statuses(self._filter), *other_conditions(self._filter)]
        return deal(session, self._wish, batch, matching, others="no_longer_matching")

    def _leave_out(self, number: int) -> None:
        dealt = Dealt(skipped=Counter({"error": 1}))
        with Session(self._engine) as session, session.begin():
            self._keep(session, number, dealt)
        self._take(number, dealt)

    def _keep(self, session: Session, last: int, dealt: Dealt) -> None:
        so_far = {
            "after": last,
            "done": self._done + len(dealt.moves),
            "skipped": self._skipped + dealt.skipped,
        }
        if not keep_place(session, self._context.number, self._context.attempt, so_far):
            raise DoNotRetry("this attempt was given to another worker")

    def _take(self, last: int, dealt: Dealt) -> None:
        self._after = last
        self._done += len(dealt.moves)
        self._skipped += dealt.skipped

    def _show(self) -> None:
        seen, expected = self._done + self._skipped.total(), self._payload.expected
        fraction = seen / expected if expected else None
        self._context.progress(fraction, f"{self._done} done, {self._skipped.total()} skipped")


def _asker(session: Session, number: int) -> _Asker:
    """Return whose job this is. Raises DoNotRetry if they may not change jobs any more."""
    found = session.execute(
        select(User, Job.request_id).join(Job, Job.owner_id == User.id).where(Job.id == number)
    ).one()
    owner = found.User
    if not owner.active or owner.role == Role.VIEWER:
        raise DoNotRetry(f"{owner.username} may not change jobs any more")
    is_overseer = owner.role in _OVERSEERS
    mine = [] if is_overseer else [Job.owner_id == owner.id]
    return _Asker(Actor(owner.username, owner.id, request_id=found.request_id), mine, is_overseer)
