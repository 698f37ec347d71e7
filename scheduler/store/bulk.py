"""Doing one thing to many jobs, a few at a time, and remembering how far that is."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, select, text
from sqlalchemy.orm import Session

from scheduler.job_request import BULK, TAGS_LIMIT
from scheduler.models import Job
from scheduler.states import UNFINISHED, WAITING, BulkAction, CancelReason, JobStatus
from scheduler.store.cancellation import cancel_all
from scheduler.store.changing import Change, change
from scheduler.store.finding import among
from scheduler.store.moves import Move, lock, run
from scheduler.store.revival import run_again

KIND = BULK

APPLIES_TO: Mapping[BulkAction, frozenset[JobStatus]] = {
    BulkAction.CANCEL: frozenset(UNFINISHED),
    BulkAction.RETRY: frozenset({JobStatus.FAILED, JobStatus.CANCELLED}),
    BulkAction.PRIORITISE: frozenset(WAITING),
    BulkAction.TAG: frozenset(WAITING),
}
"""The statuses in which a job takes an action."""

UNCHANGED = "unchanged"
"""Why jobs are skipped that are as they are to be, or were asked to stop before."""

TOO_MANY_TAGS = "too_many_tags"

_KEEP = text("""
UPDATE jobs SET payload = payload || jsonb_build_object('so_far', CAST(:so_far AS jsonb))
WHERE id = :job AND attempt = :attempt AND status = :is_running
RETURNING id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be done to each job."""

    action: BulkAction
    priority_level: int | None = None
    add_tags: Sequence[str] = ()
    remove_tags: Collection[str] = ()

    def told(self) -> dict[str, Any]:
        """Return what of it is written down beside the action."""
        given = {
            "priority_level": self.priority_level,
            "add_tags": list(self.add_tags) or None,
            "remove_tags": sorted(self.remove_tags) or None,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Dealt:
    """What became of some jobs: moves of those it was done to, and why others were left alone."""

    moves: list[Move] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> list[int]:
        """The jobs it was done to."""
        return [move.id for move in self.moves]


def deal(
    session: Session,
    wish: Wish,
    jobs: Sequence[int],
    conditions: Sequence[ColumnElement[bool]],
    *,
    others: str,
) -> Dealt:
    """Do what is wished to those of *jobs* that meet the *conditions*; skip the *others* as such.

    It is done as a person would do it to each of them.
    """
    lock(session, jobs)
    columns = (Job.id, Job.status, Job.tags, Job.priority_level)
    rows = session.execute(select(*columns).where(among(Job.id, jobs), *conditions)).all()
    skipped = Counter({others: len(jobs) - len(rows)})
    skipped.update(row.status for row in rows if row.status not in APPLIES_TO[wish.action])
    fit = [row for row in rows if row.status in APPLIES_TO[wish.action]]
    moves, refused = _ACTS[wish.action](session, wish, fit)
    skipped.update(refused)
    skipped[UNCHANGED] += len(fit) - len(moves) - refused.total()
    return Dealt(moves, +skipped)


def keep_place(session: Session, job: int, attempt: int, so_far: Mapping[str, Any]) -> bool:
    """Write into the payload of a job how far it is. False: this attempt does not run any more."""
    kept = run(session, _KEEP, job=job, attempt=attempt, so_far=json.dumps(so_far))
    return kept.first() is not None


def tags_of(wish: Wish, tags: Sequence[str]) -> tuple[str, ...]:
    """Return the *tags* of a job as they are wished, in their order, each once."""
    kept = [tag for tag in tags if tag not in wish.remove_tags]
    return tuple(dict.fromkeys([*kept, *wish.add_tags]))


_Row = Row[int, str, list[str], int]
_Act = Callable[[Session, Wish, Sequence[_Row]], tuple[list[Move], Counter[str]]]


def _cancel(session: Session, _wish: Wish, rows: Sequence[_Row]) -> tuple[list[Move], Counter[str]]:
    jobs = [row.id for row in rows]
    return cancel_all(session, jobs, reason=CancelReason.BY_USER), Counter()


def _retry(session: Session, _wish: Wish, rows: Sequence[_Row]) -> tuple[list[Move], Counter[str]]:
    return run_again(session, [row.id for row in rows]), Counter()


def _prioritise(
    session: Session, wish: Wish, rows: Sequence[_Row]
) -> tuple[list[Move], Counter[str]]:
    wanted = Change(priority_level=wish.priority_level)
    moves: list[Move] = []
    for row in rows:
        if row.priority_level != wish.priority_level:
            moves += change(session, row.id, wanted)
    return moves, Counter()


def _tag(session: Session, wish: Wish, rows: Sequence[_Row]) -> tuple[list[Move], Counter[str]]:
    moves: list[Move] = []
    refused: Counter[str] = Counter()
    for row in rows:
        tags = tags_of(wish, row.tags)
        if len(tags) > TAGS_LIMIT:
            refused[TOO_MANY_TAGS] += 1
        elif list(tags) != list(row.tags):
            moves += change(session, row.id, Change(tags=tags))
    return moves, refused


_ACTS: Mapping[BulkAction, _Act] = {
    BulkAction.CANCEL: _cancel,
    BulkAction.RETRY: _retry,
    BulkAction.PRIORITISE: _prioritise,
    BulkAction.TAG: _tag,
}
