"""Which jobs a filter means: its conditions, and walks through all that match.

A walk goes from the oldest on, a bounded stretch of jobs in each statement, so that it costs no
statement more the longer the table grows, and may stop and go on anywhere.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Select,
    Text,
    and_,
    any_,
    cast,
    func,
    or_,
    select,
    true,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute, Session

from scheduler.models import Job
from scheduler.states import JobClass, JobStatus

STRETCH = 5_000
"""Jobs that one statement of a walk looks at."""

COUNT_LIMIT = 10_000
"""How many jobs are counted at most."""

STRETCHES_COUNTED = 20
"""How many stretches a count looks at, at most."""

_IN_PATTERNS = str.maketrans({sign: f"\\{sign}" for sign in "\\%_"})


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs a list is about; empty means any.

    *owner* is as asked for: a list is narrowed by what its reader may see, and by that name.
    """

    owner: str | None = None
    statuses: Collection[JobStatus] = ()
    types: Collection[str] = ()
    classes: Collection[JobClass] = ()
    levels: Collection[int] = ()
    tags: Sequence[str] = ()
    text: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """The jobs a walk goes through: whose, None for everybody's, and between which ids."""

    owner_id: int | None
    after: int
    up_to: int


@dataclass(frozen=True, slots=True)
class Count:
    """How many jobs match; with *more*, at least so many."""

    count: int
    more: bool


def walk(session: Session, within: Range, wanted: Filter) -> Iterator[Sequence[int]]:
    """Yield the ids that match of each stretch, in order; what changes meanwhile is seen."""
    after: int | None = within.after
    while after is not None:
        rows = session.execute(_stretch(Range(within.owner_id, after, within.up_to), wanted)).all()
        yield [number for number, matches in rows if matches]
        after = rows[-1].id if len(rows) == STRETCH else None


def count(session: Session, within: Range, wanted: Filter) -> Count:
    """Count the jobs that match, as far as a request may take the time."""
    found, steps = 0, walk(session, within, wanted)
    for ids in islice(steps, STRETCHES_COUNTED):
        found += len(ids)
        if found > COUNT_LIMIT:
            return Count(COUNT_LIMIT, more=True)
    return Count(found, more=next(steps, None) is not None)


def newest(session: Session) -> int:
    """Return the id that no job so far is above."""
    return session.scalar(select(func.coalesce(func.max(Job.id), 0))) or 0


def _stretch(within: Range, wanted: Filter) -> Select[int, bool]:
    window = _window(within, wanted).subquery()
    # A lone condition on an array would be read as an array.
    matches = type_coerce(and_(true(), *other_conditions(wanted)), Boolean).label("matches")
    return (
        select(Job.id, matches).join_from(window, Job, window.c.id == Job.id).order_by(window.c.id)
    )


def _window(within: Range, wanted: Filter) -> Any:
    """Return the select of the jobs of a stretch: one range of an index for each status."""
    stretches = [_of_status(within, Job.status == status) for status in sorted(wanted.statuses)]
    if not stretches:
        return _of_status(within)
    merged = union_all(*(select(each.subquery().c.id) for each in stretches)).subquery()
    return select(merged.c.id).order_by(merged.c.id).limit(STRETCH)


def _of_status(within: Range, *conditions: ColumnElement[bool]) -> Select[int]:
    owned = [] if within.owner_id is None else [Job.owner_id == within.owner_id]
    bounds = (Job.id > within.after, Job.id <= within.up_to)
    return select(Job.id).where(*owned, *bounds, *conditions).order_by(Job.id).limit(STRETCH)


def among(column: InstrumentedAttribute[int], ids: Collection[int]) -> ColumnElement[bool]:
    """Return the condition that *column* is one of *ids*."""
    # One array, because ten thousand parameters would take longer to write than to look up.
    return column == any_(cast(list(ids), ARRAY(BigInteger)))


def in_statuses(wanted: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter on the status."""
    return [Job.status.in_(sorted(wanted.statuses))] if wanted.statuses else []


def has(column: Any, words: str) -> ColumnElement[bool]:
    """Return the condition that *column* holds these *words*, in capitals or not."""
    # ILIKE itself: of lower(column), which icontains compares, there is no index.
    contained: ColumnElement[bool] = column.ilike(f"%{words.translate(_IN_PATTERNS)}%")
    return contained


def other_conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter on all but the status."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.types:
        conditions.append(Job.type.in_(sorted(wanted.types)))
    if wanted.classes or wanted.levels:
        conditions.append(
            or_(
                Job.job_class.in_(sorted(wanted.classes)),
                Job.priority_level.in_(sorted(wanted.levels)),
            )
        )
    if wanted.tags:
        conditions.append(Job.tags.op("@>")(cast(list(wanted.tags), ARRAY(Text))))
    if wanted.text:
        tags = func.array_to_string(Job.tags, "\n")
        conditions.append(
            or_(*(has(each, wanted.text) for each in (Job.job_id, Job.description, tags)))
        )
    if wanted.created_after is not None:
        conditions.append(Job.created_at > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(Job.created_at < wanted.created_before)
    return conditions
