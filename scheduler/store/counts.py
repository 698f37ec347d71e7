"""How often jobs were admitted and how their attempts ended, counted since it is.

Written by the leader alone, from what a turn admits and takes in: nobody waits at a counter, and
each end is counted with the transaction that takes it in, exactly once.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.states import Outcome
from scheduler.store.dependencies import FeedRow
from scheduler.store.moves import Move, fetch, run

ADMITTED = "admitted"
"""What is counted beside the outcomes of attempts."""

_ADD = text("""
INSERT INTO counts (owner_id, what, number, seconds)
SELECT owner_id, what, number, seconds
FROM jsonb_to_recordset(CAST(:counted AS jsonb)) AS counted(
    owner_id bigint, what text, number bigint, seconds float8)
ORDER BY owner_id, what
ON CONFLICT (owner_id, what) DO UPDATE
SET number = counts.number + excluded.number, seconds = counts.seconds + excluded.seconds
""")

_READ = text("""
SELECT what, CAST(sum(number) AS bigint) AS number, sum(seconds) AS seconds
FROM counts WHERE CAST(:owner AS bigint) IS NULL OR owner_id = :owner
GROUP BY what
""")


@dataclass(frozen=True, slots=True)
class Count:
    """How often something has happened, and how long it took in all."""

    number: int = 0
    seconds: float = 0.0

    def plus(self, seconds: float) -> "Count":
        """Return the count with one more."""
        return Count(self.number + 1, self.seconds + seconds)


def counted(admitted: Iterable[Move], taken: Iterable[FeedRow]) -> dict[tuple[int, str], Count]:
    """Return what there is to count, by owner and kind. Pure."""
    events = [(move.owner_id, ADMITTED, 0.0) for move in admitted]
    events += [
        (row.owner_id, row.outcome, row.used_seconds or 0.0)
        for row in taken
        if row.outcome is not None
    ]
    found: dict[tuple[int, str], Count] = {}
    for owner, what, seconds in events:
        found[owner, what] = found.get((owner, what), Count()).plus(seconds)
    return found


def add(session: Session, admitted: Iterable[Move], taken: Iterable[FeedRow]) -> None:
    """Count what a turn has admitted, and the ends it has taken in."""
    rows = [
        {"owner_id": owner, "what": what, "number": count.number, "seconds": count.seconds}
        for (owner, what), count in counted(admitted, taken).items()
    ]
    if rows:
        run(session, _ADD, counted=json.dumps(rows, allow_nan=False))


def read(session: Session, owner_id: int | None = None) -> dict[str, Count]:
    """Return what was counted of one owner's jobs, or of everybody's; zeros included."""
    found = {
        row["what"]: Count(row["number"], row["seconds"])
        for row in fetch(session, _READ, owner=owner_id)
    }
    return {what: found.get(what, Count()) for what in (ADMITTED, *map(str, Outcome))}
