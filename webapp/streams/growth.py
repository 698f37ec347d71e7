"""The tables that streams tell of: they grow, and rows go out in the order of their numbers."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Row, Select, any_, cast, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute, Session

from scheduler.clock import to_rfc3339
from scheduler.models import Job, JobEvent, JobLog, User
from webapp import live_messages, serialise
from webapp.answers import json_body
from webapp.streams.horizon import Look, Writers

# Whoever writes to a table locks it first, and until their transaction ends. No name comes back.
_WRITERS = text("""
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation = CAST(:name AS regclass)
""")


@dataclass(frozen=True, slots=True)
class Told:
    """A row as clients are told it; *key* decides who hears of it."""

    number: int
    key: int
    name: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A table that grows: the number of a row, whom it concerns, and what is told of it.

    *at_once* rows are looked at, or read, in one statement; less than an outlet holds.
    """

    table: str
    at_once: int
    number: InstrumentedAttribute[int]
    key: InstrumentedAttribute[int]
    rows: Select[Any]
    tell: Callable[[Row[Any]], Told]

    def look(self, session: Session, after: int | None) -> Look:
        """Tell what is visible behind a number; without one, what the newest row is."""
        if after is None:
            newest = session.scalar(select(func.max(self.number)))
            return Look(None, newest) if newest else Look(0, 0)
        ahead = (
            select(
                self.number.label("number"),
                func.row_number().over(order_by=self.number).label("place"),
            )
            .where(self.number > after)
            .order_by(self.number)
            .limit(self.at_once)
            .subquery()
        )
        number = ahead.c.number
        whole, last, count = session.execute(
            select(
                func.max(number).filter(number == after + ahead.c.place),
                func.max(number),
                func.count(),
            )
        ).one()
        return Look(whole, last, is_full=count == self.at_once)

    def writers(self, session: Session) -> Writers:
        """Return the transactions that have written to the table and not yet ended."""
        return frozenset(session.scalars(_WRITERS, {"name": self.table}))

    def read(
        self,
        session: Session,
        keys: Collection[int] | None,
        *,
        after: int,
        until: int | None = None,
        limit: int | None = None,
    ) -> list[Told]:
        """Return rows in the order of their numbers, for some keys or for all."""
        wanted = self.rows.where(self.number > after).order_by(self.number).limit(limit)
        if until is not None:
            wanted = wanted.where(self.number <= until)
        if keys is not None:
            wanted = wanted.where(self.key == any_(cast(list(keys), ARRAY(BigInteger))))
        return [self.tell(row) for row in session.execute(wanted)]


def _move_told(row: Row[Any]) -> Told:
    columns = row._asdict()
    owner_id, owner = columns.pop("owner_id"), columns.pop("username")
    change = live_messages.of_move({**columns, "at": to_rfc3339(row.at)}, owner)
    return Told(row.seq, owner_id, "job", json_body(change))


def _line_told(row: Row[Any]) -> Told:
    line: JobLog = row[0]
    return Told(line.id, line.job_id, "log", json_body(serialise.log_to_json(line)))


MOVES = Growth(
    table=JobEvent.__tablename__,
    at_once=1000,
    number=JobEvent.seq,
    key=JobEvent.owner_id,
    rows=select(
        JobEvent.seq,
        JobEvent.owner_id,
        User.username,
        Job.job_id,
        JobEvent.verb,
        JobEvent.status,
        JobEvent.attempt,
        JobEvent.at,
        JobEvent.data,
    )
    .join(Job, Job.id == JobEvent.job_id)
    .join(User, User.id == JobEvent.owner_id),
    tell=_move_told,
)
"""Every change of every job; whoever may see the owner's jobs hears of it."""

LINES = Growth(
    table=JobLog.__tablename__,
    at_once=100,
    number=JobLog.id,
    key=JobLog.job_id,
    rows=select(JobLog),
    tell=_line_told,
)
"""Every line of every log; whoever follows the job hears of it."""
