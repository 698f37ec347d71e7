"""Who changed what, when, from where: written in the transaction of the change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from scheduler.models import AuditEntry


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change: an account over HTTP, or whoever has a shell."""

    name: str
    id: int | None = None
    address: str | None = None
    request_id: str | None = None


COMMAND_LINE = Actor("command line")
"""No account is called so: names have no spaces."""


def record(
    session: Session, by: Actor, action: str, target: str, detail: Mapping[str, Any] | None = None
) -> None:
    """Write down that *by* does *action* to *target*, such as ``users.change`` to ``users/ann``.

    *detail* is JSON and holds no secrets: everybody who may read the log sees it.
    """
    session.add(
        AuditEntry(
            at=func.now(),
            actor_id=by.id,
            actor=by.name,
            address=by.address,
            request_id=by.request_id,
            action=action,
            target=target,
            detail=dict(detail or {}),
        )
    )
    session.flush()
