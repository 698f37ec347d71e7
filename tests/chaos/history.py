"""Reading what a run has left behind in the database."""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from scheduler.states import FINISHED, Condition, JobStatus, Outcome
from tests.chaos.record import Attempt, Edge, Event, Job

_JOBS = """
SELECT jobs.id, users.username AS owner, jobs.job_id AS name, jobs.status, jobs.attempt,
       CAST(jobs.cpu_units AS float8) AS cpu_units, jobs.memory_mb,
       COALESCE(CAST(jobs.payload ->> 'records' AS boolean), false) AS records
FROM jobs JOIN users ON users.id = jobs.owner_id
"""

_EVENTS = """
SELECT seq, job_id AS job, verb, status, attempt, at,
       CAST(data ->> 'epoch' AS bigint) AS epoch, data ->> 'worker' AS worker
FROM job_events ORDER BY seq
"""

_LEFT = """
SELECT (SELECT count(*) FROM ready) AS ready, (SELECT count(*) FROM active) AS active,
       (SELECT count(*) FROM outbox) AS outbox, (SELECT count(*) FROM timers) AS timers,
       (SELECT count(*) FROM feed) AS feed,
       (SELECT count(*) FROM jobs WHERE status <> ALL(%s)) AS unfinished
"""

_ATTEMPTS = "SELECT job_id, attempt, outcome FROM attempts"
_EDGES = "SELECT child_id, parent_id, condition FROM dependencies"
_EFFECTS = "SELECT job_id, attempt, deliveries FROM chaos.effects"


class History:
    """One database, read directly and not over the wires that are in trouble."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def jobs(self) -> Mapping[int, Job]:
        rows = (Job(**row | {"status": JobStatus(row["status"])}) for row in self._rows(_JOBS))
        return {job.id: job for job in rows}

    def events(self) -> Sequence[Event]:
        rows = self._rows(_EVENTS)
        return [Event(**row | {"status": JobStatus(row["status"])}) for row in rows]

    def outcomes(self) -> Mapping[Attempt, Outcome | None]:
        return {
            (row["job_id"], row["attempt"]): Outcome(row["outcome"]) if row["outcome"] else None
            for row in self._rows(_ATTEMPTS)
        }

    def edges(self) -> Sequence[Edge]:
        return [
            Edge(row["child_id"], row["parent_id"], Condition(row["condition"]))
            for row in self._rows(_EDGES)
        ]

    def effects(self) -> Mapping[Attempt, int]:
        return {(row["job_id"], row["attempt"]): row["deliveries"] for row in self._rows(_EFFECTS)}

    def left(self) -> Mapping[str, int]:
        """Return what is not done, by where it is."""
        (row,) = self._rows(_LEFT, [sorted(FINISHED)])
        return row

    def _rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchall()
