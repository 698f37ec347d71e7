"""Keeping how estimated starts have come true: one row a day for each method and class."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.policy.experience import (
    Bounds,
    Case,
    Experience,
    Method,
    Score,
    Verdict,
    experience_of,
)
from scheduler.states import JobClass
from scheduler.store.moves import fetch, run

_READ = text("""
SELECT DISTINCT ON (method, job_class) method, job_class, lower, upper
FROM estimate_scores ORDER BY method, job_class, day DESC
""")

_ADD = text("""
INSERT INTO estimate_scores (day, method, job_class, within, early, late, lower, upper)
SELECT CAST(now() AT TIME ZONE 'UTC' AS date), method, job_class, within, early, late, lower, upper
FROM jsonb_to_recordset(CAST(:scores AS jsonb)) AS scores(
    method text, job_class text, within bigint, early bigint, late bigint, lower float8,
    upper float8)
ORDER BY method, job_class
ON CONFLICT (day, method, job_class) DO UPDATE
SET within = estimate_scores.within + excluded.within,
    early = estimate_scores.early + excluded.early,
    late = estimate_scores.late + excluded.late,
    lower = excluded.lower, upper = excluded.upper
""")

_SUM = text("""
SELECT method, CAST(sum(within) AS bigint) AS within, CAST(sum(early) AS bigint) AS early,
       CAST(sum(late) AS bigint) AS late
FROM estimate_scores
WHERE day > CAST(now() AT TIME ZONE 'UTC' - CAST(:span AS interval) AS date)
GROUP BY method
""")


@dataclass(frozen=True, slots=True)
class Tally:
    """How many jobs started within, before and after the range they were told."""

    within: int = 0
    early: int = 0
    late: int = 0

    @property
    def scored(self) -> int:
        """All of them."""
        return self.within + self.early + self.late

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.within + other.within, self.early + other.early, self.late + other.late)


def read(session: Session) -> Experience:
    """Return where ranges began and ended when they were last scored."""
    return experience_of(
        Score(
            Case(Method(row["method"]), JobClass(row["job_class"])),
            {},
            Bounds(row["lower"], row["upper"]),
        )
        for row in fetch(session, _READ)
    )


def add(session: Session, scores: Iterable[Score]) -> None:
    """Add *scores* to those of today. Only the leader writes here."""
    rows = [
        {
            "method": score.case.method,
            "job_class": score.case.job_class,
            "lower": score.bounds.lower,
            "upper": score.bounds.upper,
        }
        | {str(verdict): score.verdicts.get(verdict, 0) for verdict in Verdict}
        for score in scores
    ]
    if rows:
        run(session, _ADD, scores=json.dumps(rows, allow_nan=False))


def tallies(session: Session, *, span: timedelta) -> dict[Method, Tally]:
    """Return how estimates of the last days have come true, by method."""
    found = {Method(row.pop("method")): Tally(**row) for row in fetch(session, _SUM, span=span)}
    return {method: found.get(method, Tally()) for method in Method}
