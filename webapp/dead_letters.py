"""Reads of dead letters: page by page, alike ones together, and counted as far as it is worth.

The latest failure comes first. Owner, fingerprint and time pick few of many by an index; type and
text are looked at one by one, over a bounded stretch that says where to go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    and_,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session
from sqlalchemy.types import Text

from scheduler.models import Job, User
from scheduler.states import JobStatus
from scheduler.store.finding import among
from webapp import queries
from webapp.cursors import instant_at, place_of, read_places, write_cursor

GROUPED_LIMIT = 10_000
"""Dead letters, the latest first, that are looked at to put alike ones together."""

SCAN_LIMIT = 20_000
"""Dead letters that one page, or one request to act, looks at for filters without an index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which dead letters are meant; None means any."""

    fingerprint: str | None = None
    type: str | None = None
    text: str | None = None
    failed_after: datetime | None = None
    failed_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list goes on: behind this dead letter."""

    failed_at: datetime
    id: int

    @classmethod
    def read(cls, cursor: str) -> Self:
        """Read what ``written`` wrote. Raises a 422 problem for anything else."""
        place, number = read_places(cursor, 2)
        return cls(instant_at(place), number)

    def written(self) -> str:
        """Write this place down as a cursor."""
        return write_cursor(place_of(self.failed_at), self.id)


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters that are alike; *example* is the latest of them."""

    fingerprint: str
    example: Job
    example_owner: str
    count: int
    first_failed_at: datetime
    last_failed_at: datetime
    owners: Sequence[str]


@dataclass(frozen=True, slots=True)
class GroupPage:
    """One page of groups, and over how many dead letters they were made."""

    groups: Sequence[Group]
    looked_at: int
    next_cursor: str | None


class Listing:
    """The statements of dead letters that match, from *start* on."""

    def __init__(
        self, visible: ColumnElement[bool], wanted: Filter, start: Place | None = None
    ) -> None:
        self._conditions = [_is_dead_letter(), visible, *_indexed(wanted)]
        self._start = start
        self._rest = _unindexed(wanted)
        self.is_bounded = bool(self._rest)

    def first(self, limit: int) -> Select[int, datetime]:
        """Return the select of the first that match: their ids, and when they failed."""
        window = self._window(SCAN_LIMIT if self.is_bounded else limit)
        return (
            select(window.c.id, window.c.finished_at)
            .where(window.c.matches)
            .order_by(window.c.finished_at.desc(), window.c.id.desc())
            .limit(limit)
        )

    def end_of_window(self) -> Select[datetime, int]:
        """Return the select of the last that is looked at, if there may be more beyond it."""
        window = self._window(SCAN_LIMIT)
        return (
            select(window.c.finished_at, window.c.id)
            .order_by(window.c.finished_at.desc(), window.c.id.desc())
            .offset(SCAN_LIMIT - 1)
            .limit(1)
        )

    def number(self, limit: int) -> Select[int]:
        """Return the select of how many match, *limit* at most."""
        return select(func.count()).select_from(self.first(limit).subquery())

    def looked_at(self) -> Select[int]:
        """Return the select of how many groups are made of."""
        return select(func.count()).select_from(self._window(GROUPED_LIMIT))

    def alike(self, limit: int, beyond: Place | None) -> Select[Any]:
        """Return the select of groups, those that failed last first, with their latest job."""
        group = self._grouped().subquery()
        last_place = (group.c.last_failed_at, group.c.example)
        ahead = [] if beyond is None else [tuple_(*last_place) < _tuple_of(beyond)]
        return (
            select(Job, User.username, group)
            .join(group, group.c.example == Job.id)
            .join(User, User.id == Job.owner_id)
            .where(*ahead)
            .order_by(*(column.desc() for column in last_place))
            .limit(limit)
        )

    def _grouped(self) -> Select[Any]:
        window = self._window(GROUPED_LIMIT)
        latest = aggregate_order_by(window.c.id, window.c.finished_at.desc(), window.c.id.desc())
        return (
            select(
                func.count().label("number"),
                func.min(window.c.finished_at).label("first_failed_at"),
                func.max(window.c.finished_at).label("last_failed_at"),
                func.array_agg(latest)[1].label("example"),
                func.array_agg(window.c.owner_id.distinct()).label("owner_ids"),
            )
            .where(window.c.matches)
            .group_by(window.c.error_fingerprint)
        )

    def _window(self, size: int) -> FromClause:
        """Return the latest of those that an index finds; it says of each whether it matches."""
        place = tuple_(Job.finished_at, Job.id)
        beyond = [] if self._start is None else [place < _tuple_of(self._start)]
        return (
            select(
                Job.id,
                Job.finished_at,
                Job.owner_id,
                Job.error_fingerprint,
                and_(true(), *self._rest).label("matches"),
            )
            .where(*self._conditions, *beyond)
            .order_by(Job.finished_at.desc(), Job.id.desc())
            .limit(size)
            .subquery()
        )


def page(
    session: Session,
    visible: ColumnElement[bool],
    wanted: Filter,
    *,
    limit: int,
    cursor: str | None = None,
) -> queries.JobPage:
    """Return one page of dead letters; it may be short of *limit* and still have a next one."""
    start = None if cursor is None else Place.read(cursor)
    ids, beyond = find_ids(session, visible, wanted, limit=limit, start=start)
    views = queries.jobs_by_ids(session, ids, are_new=False, have_links=True)
    # A job that was forgotten between the two reads is missing.
    shown = [views[number] for number in ids if number in views]
    return queries.JobPage(shown, None if beyond is None else beyond.written())


def find_ids(
    session: Session,
    visible: ColumnElement[bool],
    wanted: Filter,
    *,
    limit: int,
    start: Place | None = None,
) -> tuple[list[int], Place | None]:
    """Return the ids of the first dead letters that match, and where to go on for more."""
    listing = Listing(visible, wanted, start)
    rows = session.execute(listing.first(limit + 1)).all()
    ids = [number for number, _ in rows[:limit]]
    if len(rows) > limit:
        return ids, Place(rows[limit - 1].finished_at, ids[-1])
    end = session.execute(listing.end_of_window()).first() if listing.is_bounded else None
    return ids, None if end is None else Place(*end)


def groups(
    session: Session,
    visible: ColumnElement[bool],
    wanted: Filter,
    *,
    limit: int,
    cursor: str | None = None,
) -> GroupPage:
    """Return one page of groups of dead letters that are alike."""
    beyond = None if cursor is None else Place.read(cursor)
    listing = Listing(visible, wanted)
    rows = session.execute(listing.alike(limit + 1, beyond)).all()
    found = _groups(session, rows[:limit])
    looked_at = session.scalar(listing.looked_at()) or 0
    if len(rows) <= limit:
        return GroupPage(found, looked_at, None)
    last = found[-1]
    return GroupPage(found, looked_at, Place(last.last_failed_at, last.example.id).written())


def count(
    session: Session,
    visible: ColumnElement[bool],
    wanted: Filter,
    *,
    limit: int,
    start: Place | None = None,
) -> int:
    """Return how many dead letters match, *limit* at most."""
    return session.scalar(Listing(visible, wanted, start).number(limit)) or 0


def last_failure(session: Session, visible: ColumnElement[bool], wanted: Filter) -> datetime | None:
    """Return when the latest of the dead letters that match failed."""
    row = session.execute(Listing(visible, wanted).first(1)).first()
    return None if row is None else row.finished_at


def payloads(session: Session, ids: Sequence[int]) -> Sequence[Row[int, str, str, dict[str, Any]]]:
    """Return id, name, type and payload of those of *ids* that are dead letters."""
    return session.execute(
        select(Job.id, Job.job_id, Job.type, Job.payload)
        .where(among(Job.id, ids), _is_dead_letter())
        .order_by(Job.id)
    ).all()


def _is_dead_letter() -> ColumnElement[bool]:
    # Spelled out in the statement: Postgres does not look at a parameter to choose an index.
    failed = literal(JobStatus.FAILED, Text(), literal_execute=True)
    return and_(Job.status == failed, Job.discarded_at.is_(None))


def _indexed(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.fingerprint is not None:
        conditions.append(Job.error_fingerprint == wanted.fingerprint)
    if wanted.failed_after is not None:
        conditions.append(Job.finished_at > wanted.failed_after)
    if wanted.failed_before is not None:
        conditions.append(Job.finished_at < wanted.failed_before)
    return conditions


def _unindexed(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.type is not None:
        conditions.append(Job.type == wanted.type)
    if wanted.text:
        searched = (Job.job_id, Job.description, Job.error_type, Job.error_message)
        found = (column.icontains(wanted.text, autoescape=True) for column in searched)
        conditions.append(or_(*found))
    return conditions


def _tuple_of(place: Place) -> Any:
    return tuple_(place.failed_at, place.id)


def _groups(session: Session, rows: Sequence[Any]) -> list[Group]:
    owners = queries.names_of(session, {owner for row in rows for owner in row.owner_ids})
    return [
        Group(
            fingerprint=row.Job.error_fingerprint,
            example=row.Job,
            example_owner=row.username,
            count=row.number,
            first_failed_at=row.first_failed_at,
            last_failed_at=row.last_failed_at,
            owners=sorted((owners[owner] for owner in row.owner_ids), key=str.lower),
        )
        for row in rows
    ]
