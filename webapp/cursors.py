"""Pages of a list: where the next one goes on, written down such that clients need not read it."""

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from webapp.errors import Problem

PLACES = 2**63  # those of a bigint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def one_page(
    session: Session,
    wanted: Select[*tuple[Any, ...]],
    place: ColumnElement[Any] | InstrumentedAttribute[Any],
    *,
    limit: int,
    cursor: str | None,
    newest_first: bool = False,
) -> tuple[Sequence[Any], str | None]:
    """Return one page of *wanted* in the order of *place*, and the next cursor.

    No two rows have the same place, a whole number or a name. Raises a 422 problem for a cursor
    that is not one of ours.
    """
    if cursor is not None:
        read = read_name if place.type.python_type is str else read_cursor
        wanted = wanted.where(place < read(cursor) if newest_first else place > read(cursor))
    order = place.desc() if newest_first else place.asc()
    rows = session.execute(wanted.add_columns(place).order_by(order).limit(limit + 1)).all()
    return rows[:limit], write_cursor(rows[limit - 1][-1]) if len(rows) > limit else None


def write_cursor(*places: int | str) -> str:
    """Write down where the next page starts."""
    written = json.dumps(places, ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(written).decode().rstrip("=")


def read_cursor(cursor: str) -> int:
    """Read what ``write_cursor`` wrote of one place. Raises a 422 problem for anything else."""
    return read_places(cursor, 1)[0]


def read_places(cursor: str, count: int) -> list[int]:
    """Read what ``write_cursor`` wrote of so many places. Raises a 422 problem for another one."""
    return _read(cursor, count, _is_number)


def read_name(cursor: str) -> str:
    """Read what ``write_cursor`` wrote of one name. Raises a 422 problem for anything else."""
    name: str = _read(cursor, 1, _is_name)[0]
    return name


def place_of(instant: datetime) -> int:
    """Return an instant as a place, to the microsecond that is kept of it."""
    return (instant - _EPOCH) // _MICROSECOND


def instant_at(place: int) -> datetime:
    """Read what ``place_of`` returned. Raises a 422 problem for what is beyond all time."""
    try:
        return _EPOCH + place * _MICROSECOND
    except OverflowError:
        raise foreign_cursor() from None


def foreign_cursor() -> Problem:
    """Return the answer to a cursor that is not one of ours."""
    return Problem("invalid_cursor", "The cursor is not one that a list here has given out.")


def _read(cursor: str, count: int, is_place: Callable[[Any], bool]) -> list[Any]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        match json.loads(base64.urlsafe_b64decode(padded.encode())):
            case [*places] if len(places) == count and all(map(is_place, places)):
                return places
    except (ValueError, RecursionError):
        pass
    raise foreign_cursor()


def _is_number(given: Any) -> bool:
    return type(given) is int and 0 <= given < PLACES


def _is_name(given: Any) -> bool:
    return isinstance(given, str) and given.isprintable()
