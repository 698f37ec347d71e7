"""What the end of one job means for those that wait for it. The leader's work alone.

A finishing transaction only writes to the feed; here its rows are taken in and each edge is
settled once, by whoever flips ``met``, so that a child counts every parent exactly once.

The work of one turn is bounded. What a failure cancels is found by walking down from it, so many
jobs at a time; each cancelled job is told to the feed as ended, and whatever the walk did not
reach is found from there. Revival, its opposite, goes down level by level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.states import FINISHED, Condition, FeedKind
from scheduler.store.lines import JOIN_LINE, PLACE
from scheduler.store.moves import OUTCOME, Move, fetch, make, run, verb

EDGES_AT_ONCE = 5_000
"""How many edges are met in one turn: one job may have a hundred thousand dependents."""

JOBS_AT_ONCE = 2_000
"""How many jobs are cancelled, or revived, in one turn because of others."""

LEVELS_AT_ONCE = 50
"""How far down a graph jobs are revived in one turn; each level takes a statement."""


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
    root: str | None = None  # of a revived job: because of whom others were cancelled
    outcome: str | None = None  # of the attempt that ended, if one had begun


_TAKE = text("""
WITH taken AS (
    DELETE FROM feed WHERE seq IN (SELECT seq FROM feed ORDER BY seq LIMIT :limit)
    RETURNING *
)
SELECT kind, taken.job_id, taken.owner_id, CAST(taken.cpu_units AS float8) AS cpu_units,
       taken.memory_mb, charge, express, used_seconds, jobs.type AS job_type,
       lasted_seconds, taken.rank, taken.root, taken.outcome
FROM taken LEFT JOIN jobs ON jobs.id = taken.job_id ORDER BY seq
""")

_SATISFIED = """(
    d.condition = :when_finished
    OR (d.condition = :when_completed AND p.status = :is_completed)
    OR (d.condition = :when_failed AND p.status = :is_failed)
)"""

_EDGES = f"""
SELECT d.child_id, d.parent_id, COALESCE(p.reason_job_id, p.job_id) AS root,
       {_SATISFIED} AS satisfied
FROM dependencies AS d
    JOIN jobs AS p ON p.id = d.parent_id
    JOIN jobs AS c ON c.id = d.child_id
WHERE NOT d.met AND p.status = ANY(:final) AND c.status IN (:is_scheduled, :is_blocked)
  AND (d.parent_id = ANY(:ended) OR d.child_id = ANY(:linked))
"""

# Tells the leader once more of what it has not done to the end.
_AGAIN = """
again AS (
    INSERT INTO feed (kind, job_id, owner_id)
    SELECT told.kind, jobs.id, jobs.owner_id
    FROM jobs JOIN (
        SELECT 'ended' AS kind, unnest(CAST(:ended AS bigint[])) AS id
        UNION ALL SELECT 'linked', unnest(CAST(:linked AS bigint[]))
    ) AS told USING (id)
    WHERE (SELECT count(*) FROM first) = :at_once
),
"""

_MEET = verb(
    f"""
WITH first AS ({_EDGES} AND {_SATISFIED} LIMIT :at_once),
{_AGAIN}
met AS (
    UPDATE dependencies SET met = true
    FROM first
    WHERE dependencies.child_id = first.child_id AND dependencies.parent_id = first.parent_id
      AND NOT dependencies.met
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

# A job that is cancelled meets the condition of those that wait for any end, and of nobody else.
_DOOM = verb(
    f"""
WITH RECURSIVE edge AS ({_EDGES}),
doomed AS (
    SELECT child_id AS id, root FROM edge WHERE NOT satisfied
    UNION
    SELECT d.child_id, doomed.root
    FROM doomed
        JOIN dependencies AS d ON d.parent_id = doomed.id
        JOIN jobs AS c ON c.id = d.child_id
    WHERE NOT d.met AND d.condition <> :when_finished
      AND c.status IN (:is_scheduled, :is_blocked)
),
first AS (SELECT * FROM doomed LIMIT :at_once),
{_AGAIN}
reached AS (SELECT id, min(root) AS root FROM first GROUP BY id),
target AS (
    SELECT jobs.id, jobs.status, jobs.due_at, jobs.start_by, reached.root
    FROM jobs JOIN reached USING (id)
    WHERE jobs.status IN (:is_scheduled, :is_blocked)
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
              ) AS data,
              {OUTCOME}
)
""",
    ends=True,
)

# One level: of those cancelled because of the same job, whoever waits for another one of them as
# well comes after it, or would be cancelled once more because of it.
_REVIVE = verb(
    """
WITH begun AS (
    SELECT told.id, told.root
    FROM unnest(CAST(:revived AS bigint[]), CAST(:roots AS text[])) AS told(id, root)
        JOIN jobs USING (id)
    WHERE jobs.status NOT IN (:is_failed, :is_cancelled)
),
first AS (
    SELECT DISTINCT c.id, begun.root
    FROM begun
        JOIN dependencies AS d ON d.parent_id = begun.id
        JOIN jobs AS c ON c.id = d.child_id
    WHERE c.reason = :dependency_failed AND c.reason_job_id = begun.root
      AND NOT EXISTS (
          SELECT FROM dependencies AS other JOIN jobs AS q ON q.id = other.parent_id
          WHERE other.child_id = c.id AND NOT other.met
            AND q.reason = :dependency_failed AND q.reason_job_id = begun.root
      )
    LIMIT :at_once
),
target AS (
    SELECT jobs.id, first.root, (
        SELECT count(*) FROM dependencies WHERE child_id = jobs.id AND NOT met
    ) AS edges
    FROM jobs JOIN first USING (id)
    WHERE jobs.status = ANY(:to_blocked) AND jobs.reason = :dependency_failed
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs
),
fed AS (
    INSERT INTO feed (kind, job_id, owner_id)
    SELECT 'linked', jobs.id, jobs.owner_id FROM jobs JOIN target USING (id)
),
moved AS (
    UPDATE jobs
    SET status = :is_blocked, open_dependencies = target.edges, reason = NULL,
        reason_job_id = NULL, finished_at = NULL, due_at = NULL, start_by = NULL
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.id, jobs.owner_id, jobs.job_id, 'run_again' AS verb, jobs.status, jobs.attempt,
              jsonb_build_object(
                  'from', CAST(:is_cancelled AS text), 'root', target.root
              ) AS data
)
"""
)

_LATER = text("""
INSERT INTO feed (kind, job_id, owner_id, root)
SELECT 'revived', jobs.id, jobs.owner_id, told.root
FROM unnest(CAST(:revived AS bigint[]), CAST(:roots AS text[])) AS told(id, root)
    JOIN jobs USING (id)
""")

_CONDITIONS = {f"when_{condition}": str(condition) for condition in Condition}


def take(session: Session, *, limit: int) -> list[FeedRow]:
    """Take the oldest rows out of the feed."""
    rows = fetch(session, _TAKE, limit=limit)
    return [FeedRow(**{**row, "kind": FeedKind(row["kind"])}) for row in rows]


def resolve(session: Session, rows: Sequence[FeedRow]) -> list[Move]:
    """Settle what *rows* are about.

    Children of ended jobs become ready, or are cancelled with everything behind them that cannot
    come about any more; children that were cancelled because of a job that runs again wait again.
    What is too much for one turn is told to the feed, and so goes on in the next.
    """
    revived = [(row.job_id, row.root) for row in rows if row.kind is FeedKind.REVIVED]
    ended = [row.job_id for row in rows if row.kind is FeedKind.ENDED]
    linked = [row.job_id for row in rows if row.kind in _MAY_BE_SETTLED]
    moves = _revive(session, revived)
    if not (ended or linked):
        return moves
    parameters = {
        "ended": ended,
        "linked": linked,
        "final": sorted(FINISHED),
        **_CONDITIONS,
    }
    moves += make(session, _MEET, **parameters, at_once=EDGES_AT_ONCE)
    return moves + make(session, _DOOM, **parameters, at_once=JOBS_AT_ONCE)


_MAY_BE_SETTLED = frozenset({FeedKind.LINKED, FeedKind.REVIVED})
"""After these a job may wait for others that have ended already."""

_Begun = Sequence[tuple[int, str | None]]
"""Jobs that wait or run again, each with the one because of whom others were cancelled."""


def _revive(session: Session, begun: _Begun) -> list[Move]:
    """Let those wait again that were cancelled because of a job that runs again, level by level."""
    moves: list[Move] = []
    for _ in range(LEVELS_AT_ONCE):
        if not begun or len(moves) >= JOBS_AT_ONCE:
            break
        most = JOBS_AT_ONCE - len(moves)
        level = make(session, _REVIVE, **_told(begun), at_once=most)
        moves += level
        below = [(move.id, (move.data or {})["root"]) for move in level]
        # Of a level that was cut short the rest is found from where this part of it was.
        begun = [*begun, *below] if len(level) == most else below
    if begun:
        run(session, _LATER, **_told(begun))
    return moves


def _told(begun: _Begun) -> dict[str, list[Any]]:
    return {"revived": [job for job, _ in begun], "roots": [root for _, root in begun]}
