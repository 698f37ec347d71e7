"""What everybody has received of the machine lately, slice by slice of time.

Written by the leader alone, in the transaction that takes in what ended; so what a person received
over an hour or a day is a sum over few rows, however many jobs it was.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.store.moves import fetch, run

SLICE = timedelta(minutes=5)
"""How exactly it is known when somebody received what."""

SLICES_KEPT = timedelta(days=1, hours=1)
"""For how long that is known."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Slice = tuple[datetime, int]
"""The beginning of a slice of time, and an owner."""

_ADD = text("""
INSERT INTO received (since, owner_id, machine_seconds)
SELECT since, owner_id, machine_seconds
FROM jsonb_to_recordset(CAST(:received AS jsonb)) AS added(
    since timestamptz, owner_id bigint, machine_seconds float8)
ORDER BY since, owner_id
ON CONFLICT (since, owner_id) DO UPDATE
SET machine_seconds = received.machine_seconds + excluded.machine_seconds
""")

_READ = text("""
SELECT owner_id, sum(machine_seconds) AS machine_seconds
FROM received WHERE since >= :since GROUP BY owner_id
""")

_FORGET = text("DELETE FROM received WHERE since < :before")


def beginning_of_slice(instant: datetime) -> datetime:
    """Return when the slice began that *instant* is in."""
    return _EPOCH + (instant - _EPOCH) // SLICE * SLICE


def add(session: Session, received: Mapping[Slice, float]) -> None:
    """Add to what was received in some slices. Only the leader writes here."""
    rows = [
        {"since": since.isoformat(), "owner_id": owner, "machine_seconds": machine_seconds}
        for (since, owner), machine_seconds in received.items()
    ]
    if rows:
        run(session, _ADD, received=json.dumps(rows, allow_nan=False))


def read(session: Session, *, since: datetime) -> dict[int, float]:
    """Return the machine-seconds of everybody who received some in the slices from *since* on."""
    return {row["owner_id"]: row["machine_seconds"] for row in fetch(session, _READ, since=since)}


def forget(session: Session, *, now: datetime) -> None:
    """Forget slices that nobody asks about any more."""
    run(session, _FORGET, before=now - SLICES_KEPT)
