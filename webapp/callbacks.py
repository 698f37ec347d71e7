"""What was told about a job's ends, and what came of it."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.models import Callback, CallbackDelivery, Job
from scheduler.states import CallbackState
from webapp.answers import utc
from webapp.cursors import one_page


def callbacks_of(
    session: Session, job: Job, *, limit: int, cursor: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return one page of the callbacks of *job*, newest first, and the next cursor."""
    wanted = select(Callback).where(Callback.job_id == job.id)
    rows, onward = one_page(
        session, wanted, Callback.id, limit=limit, cursor=cursor, newest_first=True
    )
    tries = _tries(session, [number for _, number in rows])
    return [_to_json(one, tries.get(number, ())) for one, number in rows], onward


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
