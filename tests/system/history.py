"""What was reserved at every moment, read from the recorded history and from nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

HOLDING = {"admit"}
LETTING_GO = {"succeed", "fail", "retry", "requeue", "cancel"}


@dataclass(frozen=True)
class Step:
    """One recorded move, with what its job asks for and where it came from."""

    seq: int
    job_id: str
    verb: str
    came_from: str | None
    cpu_units: float
    memory_mb: int


@dataclass(frozen=True)
class Reserved:
    """What was held after one step, and by which jobs."""

    cpu_units: float
    memory_mb: int
    jobs: frozenset[str]


def history(database_url: str, *, after: int = 0) -> list[Step]:
    """Return every move of every job in the order it was written, those *after* a step only."""
    with (
        psycopg.connect(database_url) as connection,
        connection.cursor(row_factory=class_row(Step)) as cursor,
    ):
        cursor.execute(
            "SELECT e.seq, j.job_id, e.verb, e.data ->> 'from' AS came_from,"
            " j.cpu_units::float8 AS cpu_units, j.memory_mb"
            " FROM job_events e JOIN jobs j ON j.id = e.job_id WHERE e.seq > %s ORDER BY e.seq",
            (after,),
        )
        return cursor.fetchall()


def reserved(steps: list[Step]) -> Iterator[Reserved]:
    """Yield what was held after each step that took or let go."""
    held: dict[str, Step] = {}
    for step in steps:
        if step.verb in HOLDING:
            assert step.job_id not in held, f"{step.job_id} was admitted twice"
            held[step.job_id] = step
        elif step.verb in LETTING_GO:
            held.pop(step.job_id, None)
        else:
            continue
        yield Reserved(
            sum(one.cpu_units for one in held.values()),
            sum(one.memory_mb for one in held.values()),
            frozenset(held),
        )


def assert_never_above(steps: list[Step], *, cpu_units: float, memory_mb: int) -> None:
    """Check that no moment held more than this, and that the last one held nothing."""
    moments = list(reserved(steps))
    assert moments, "nothing was ever admitted"
    assert max(moment.cpu_units for moment in moments) <= cpu_units
    assert max(moment.memory_mb for moment in moments) <= memory_mb
    assert moments[-1].jobs == frozenset()
