"""What the end of one job means for those that wait for it. The leader's work alone.

A finishing transaction only writes to the feed; here its rows are taken in and each edge is
settled once, by whoever flips ``met``, so that a child counts every parent exactly once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.states import FINISHED, Condition, FeedKind
from scheduler.store.lines import JOIN_LINE, PLACE
from scheduler.store.moves import Move, fetch, make, verb


@dataclass(frozen=True, slots=True)
class FeedRow:
    """Something that happened to a job, as the leader takes it in."""

    kind: FeedKind
    job_id: int
    owner_id: int
    cpu_units: float | None
    memory_mb: int | None
    charge: float | None
    express: bool | None
    used_seconds: float | None
    job_type: str | None
    lasted_seconds: float | None = None  # None unless the attempt ended by itself
    rank: int | None = None  # the first place in the owner's line that changed


_TAKE = text("""
WITH taken AS (
    DELETE FROM feed WHERE seq IN (SELECT seq FROM feed ORDER BY seq LIMIT :limit)
    RETURNING *
)
SELECT kind, taken.job_id, taken.owner_id, CAST(taken.cpu_units AS float8) AS cpu_units,
       taken.memory_mb, charge, express, used_seconds, jobs.type AS job_type,
       lasted_seconds, taken.rank
FROM taken LEFT JOIN jobs ON jobs.id = taken.job_id ORDER BY seq
""")

_EDGES = """
WITH edge AS (
    SELECT d.child_id, d.parent_id, COALESCE(p.reason_job_id, p.job_id) AS root,
           d.condition = :when_finished
           OR (d.condition = :when_completed AND p.status = :is_completed)
           OR (d.condition = :when_failed AND p.status = :is_failed) AS satisfied
    FROM dependencies AS d JOIN jobs AS p ON p.id = d.parent_id
    WHERE NOT d.met AND p.status = ANY(:final)
      AND (d.parent_id = ANY(:ended) OR d.child_id = ANY(:linked))
),
"""

_MEET = verb(
    _EDGES
    + f"""
met AS (
    UPDATE dependencies SET met = true
    FROM edge
    WHERE dependencies.child_id = edge.child_id AND dependencies.parent_id = edge.parent_id
      AND edge.satisfied AND NOT dependencies.met
    RETURNING dependencies.child_id
),
target AS (
    SELECT jobs.id, counted.edges
    FROM jobs JOIN (SELECT child_id, count(*) AS edges FROM met GROUP BY child_id) AS counted
        ON counted.child_id = jobs.id
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs
),
counted_down AS (
    UPDATE jobs
    SET open_dependencies = open_dependencies - target.edges,
        status = CASE WHEN {{freed}} THEN :is_ready ELSE status END,
        ready_at = CASE WHEN {{freed}} THEN now() ELSE ready_at END,
        rank = CASE WHEN {{freed}} THEN {PLACE} ELSE rank END
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.*
),
moved AS (
    SELECT *, 'release' AS verb, CAST(NULL AS jsonb) AS data
    FROM counted_down WHERE status = :is_ready
)""".format(freed="status = :is_blocked AND open_dependencies = target.edges")
    + JOIN_LINE
)

_DOOM = verb(
    _EDGES
    + """
target AS (
    SELECT jobs.id, jobs.status, jobs.due_at, jobs.start_by, (
        SELECT min(root) FROM edge WHERE edge.child_id = jobs.id AND NOT edge.satisfied
    ) AS root
    FROM jobs
    WHERE jobs.id IN (SELECT child_id FROM edge WHERE NOT satisfied)
      AND jobs.status IN (:is_scheduled, :is_blocked)
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs
),
untimed AS (
    DELETE FROM timers USING target
    WHERE timers.fire_at IN (target.due_at, target.start_by) AND timers.job_id = target.id
),
fed AS (
    INSERT INTO feed (kind, job_id, owner_id)
    SELECT 'ended', jobs.id, jobs.owner_id FROM jobs JOIN target USING (id)
),
moved AS (
    UPDATE jobs
    SET status = :is_cancelled, reason = :dependency_failed, reason_job_id = target.root,
        finished_at = now()
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.id, jobs.owner_id, jobs.job_id, 'cancel' AS verb, jobs.status, jobs.attempt,
              jsonb_build_object(
                  'reason', jobs.reason, 'from', target.status, 'root', target.root
              ) AS data
)
"""
)

_CONDITIONS = {f"when_{condition}": str(condition) for condition in Condition}


def take(session: Session, *, limit: int) -> list[FeedRow]:
    """Take the oldest rows out of the feed."""
    rows = fetch(session, _TAKE, limit=limit)
    return [FeedRow(**{**row, "kind": FeedKind(row["kind"])}) for row in rows]


def resolve(session: Session, rows: Sequence[FeedRow]) -> list[Move]:
    """Settle the edges that *rows* are about: children become ready, or are cancelled.

    A cancelled child writes to the feed in turn, so a chain is settled in as many turns as it is
    long, each of them over all its branches.
    """
    ended = [row.job_id for row in rows if row.kind is FeedKind.ENDED]
    linked = [row.job_id for row in rows if row.kind is FeedKind.LINKED]
    if not (ended or linked):
        return []
    parameters = {
        "ended": ended,
        "linked": linked,
        "final": sorted(FINISHED),
        **_CONDITIONS,
    }
    return make(session, _MEET, **parameters) + make(session, _DOOM, **parameters)
