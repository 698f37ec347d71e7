"""What was told about a job's ends, and what came of it."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.models import Callback, CallbackDelivery, Job
from scheduler.states import CallbackState
from webapp.answers import utc
from webapp.queries import read_cursor, write_cursor


def callbacks_of(
    session: Session, job: Job, *, limit: int, cursor: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return one page of the callbacks of *job*, newest first, and the next cursor."""
    wanted = select(Callback).where(Callback.job_id == job.id)
    if cursor is not None:
        wanted = wanted.where(Callback.id < read_cursor(cursor))
    found = session.scalars(wanted.order_by(Callback.id.desc()).limit(limit + 1)).all()
    shown = found[:limit]
    tries = _tries(session, [one.id for one in shown])
    next_cursor = write_cursor(shown[-1].id) if len(found) > limit else None
    return [_to_json(one, tries.get(one.id, ())) for one in shown], next_cursor


def _tries(session: Session, ids: Collection[int]) -> dict[int, list[CallbackDelivery]]:
    found = session.scalars(
        select(CallbackDelivery)
        .where(CallbackDelivery.callback_id.in_(ids))
        .order_by(CallbackDelivery.callback_id, CallbackDelivery.id)
    )
    tries: dict[int, list[CallbackDelivery]] = {}
    for one in found:
        tries.setdefault(one.callback_id, []).append(one)
    return tries


def _to_json(callback: Callback, tries: Sequence[CallbackDelivery]) -> dict[str, Any]:
    return {
        "delivery_id": str(callback.delivery_id),
        "state": _state(callback),
        "status": callback.outcome["status"],
        "created_at": utc(callback.created_at),
        "next_try_at": utc(callback.due_at),
        "delivered_at": utc(callback.delivered_at),
        "gave_up_at": utc(callback.gave_up_at),
        "tries": [_try_to_json(one) for one in tries],
    }


def _state(callback: Callback) -> CallbackState:
    if callback.delivered_at is not None:
        return CallbackState.DELIVERED
    return CallbackState.PENDING if callback.gave_up_at is None else CallbackState.GIVEN_UP


def _try_to_json(one: CallbackDelivery) -> dict[str, Any]:
    return {
        "number": one.number,
        "at": utc(one.at),
        "status_code": one.status_code,
        "error": one.error,
        "milliseconds": one.milliseconds,
    }
