"""The leader's one row: its epoch, which fences, and the policy's memory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.errors import LeadershipLost
from scheduler.store.moves import fetch, run

SILENCE = timedelta(seconds=10)
"""A leader that has not renewed for this long leads nothing; a standby takes over sooner."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the policy remembers from pass to pass, as JSON."""

    clock: Mapping[str, Any]
    reservation: Mapping[str, Any] | None
    starts: Mapping[str, Any] = field(default_factory=dict)


_DURABLY = text("SET LOCAL synchronous_commit = on")

_TAKE_OVER = text("""
UPDATE scheduler_lease
SET epoch = epoch + 1, holder = :holder, backend_pid = :backend_pid, renewed_at = now()
WHERE id = 1
RETURNING epoch
""")

_FENCE = text("""
UPDATE scheduler_lease SET renewed_at = clock_timestamp()
WHERE id = 1 AND epoch = :epoch
RETURNING clock, reservation, starts
""")

_LEADING = text("""
SELECT holder FROM scheduler_lease
WHERE id = 1 AND renewed_at > clock_timestamp() - CAST(:silence AS interval)
""")

_REMEMBERED = text("SELECT clock, reservation, starts FROM scheduler_lease WHERE id = 1")

_REMEMBER = text("""
UPDATE scheduler_lease
SET clock = CAST(:clock AS jsonb), reservation = CAST(:reservation AS jsonb),
    starts = CAST(:starts AS jsonb)
WHERE id = 1 AND epoch = :epoch
""")


def commit_durably(session: Session) -> None:
    """Let the commit of this transaction wait for the disk, though other ones need not."""
    run(session, _DURABLY)


def take_over(session: Session, *, holder: str, backend_pid: int) -> int:
    """Begin a new epoch and return it. Waits for a turn of the old one that is under way."""
    epoch: int = run(session, _TAKE_OVER, holder=holder, backend_pid=backend_pid).scalar_one()
    return epoch


def fence(session: Session, *, epoch: int) -> Memory:
    """Make sure that *epoch* still leads until this transaction ends.

    The first statement of every turn. Raises LeadershipLost when a later epoch has begun.
    """
    row = run(session, _FENCE, epoch=epoch).first()
    if row is None:
        raise LeadershipLost(f"epoch {epoch} is over")
    return Memory(row.clock, row.reservation, row.starts)


def leading(session: Session, *, silence: timedelta) -> str | None:
    """Return who leads, or None if nobody has renewed for as long as *silence*."""
    holder: str | None = run(session, _LEADING, silence=silence).scalar_one_or_none()
    return holder


def remembered(session: Session) -> Memory:
    """Return what the policy remembers, for whoever only looks."""
    return Memory(**fetch(session, _REMEMBERED)[0])


def remember(session: Session, memory: Memory, *, epoch: int) -> None:
    """Keep what the policy has to remember."""
    run(
        session,
        _REMEMBER,
        clock=json.dumps(memory.clock),
        reservation=json.dumps(memory.reservation) if memory.reservation else None,
        starts=json.dumps(memory.starts),
        epoch=epoch,
    )
