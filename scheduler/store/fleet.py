"""The workers, what they offer and what they can run."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from scheduler.models import Worker
from scheduler.states import Executor
from scheduler.store.moves import fetch, run

SILENCE = timedelta(seconds=15)
"""A worker that has not been heard of for this long offers nothing. Three missed heartbeats."""


@dataclass(frozen=True, slots=True)
class TypeSpec:
    """A kind of job as it is registered."""

    name: str
    description: str
    payload_schema: dict[str, Any] | None
    cpu_units: float
    memory_mb: int
    timeout_seconds: float
    retry_config: dict[str, Any]
    executors: tuple[Executor, ...]
    max_timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerOffer:
    """A worker as it introduces itself."""

    name: str
    incarnation: str
    host: str
    pid: int
    processes_min: int
    processes_max: int
    processes: int
    cpu_units: float
    memory_mb: int
    queues: list[str]


class Wishes(NamedTuple):
    """What operators want of a worker."""

    draining: bool  # it takes no new work
    processes: int  # the most it may have


@dataclass(frozen=True, slots=True)
class Capacity:
    """What there is in all. Without slots nothing can start."""

    cpu_units: Decimal
    memory_mb: int
    slots: int


@dataclass(frozen=True, slots=True)
class LargestJob:
    """The most one job may ask for; None where nobody knows."""

    cpu_units: Decimal | None
    memory_mb: int | None

    def lacks(self, cpu_units: Decimal, memory_mb: int) -> str | None:
        """Return what is wrong with a job of this size; None if there is room for it."""
        if self.cpu_units is not None and cpu_units > self.cpu_units:
            return f"asks for {cpu_units:f} CPU units; there are {self.cpu_units:f} in all"
        if self.memory_mb is not None and memory_mb > self.memory_mb:
            return f"asks for {memory_mb} MB of memory; there are {self.memory_mb} in all"
        return None


_REGISTER_TYPES = text("""
INSERT INTO job_types (name, description, payload_schema, cpu_units, memory_mb, timeout_seconds,
                       max_timeout_seconds, retry_config, executors, registered_at)
SELECT name, description, payload_schema, cpu_units, memory_mb, timeout_seconds,
       max_timeout_seconds, retry_config,
       ARRAY(SELECT jsonb_array_elements_text(executors)), now()
FROM jsonb_to_recordset(CAST(:specs AS jsonb)) AS spec(
    name text, description text, payload_schema jsonb, cpu_units numeric, memory_mb bigint,
    timeout_seconds float8, max_timeout_seconds float8, retry_config jsonb, executors jsonb)
ORDER BY name
ON CONFLICT (name) DO UPDATE
SET description = excluded.description, payload_schema = excluded.payload_schema,
    cpu_units = excluded.cpu_units, memory_mb = excluded.memory_mb,
    timeout_seconds = excluded.timeout_seconds,
    max_timeout_seconds = excluded.max_timeout_seconds, retry_config = excluded.retry_config,
    executors = excluded.executors, registered_at = excluded.registered_at
""")

# A drain is kept: a worker that an operator took out of service stays out when it starts again.
_ARRIVE = text("""
INSERT INTO workers (name, incarnation, host, pid, state, processes_min, processes_max,
                     processes_limit, processes, cpu_units, memory_mb, queues, started_at,
                     heartbeat_at)
VALUES (:name, :incarnation, :host, :pid, 'online', :processes_min, :processes_max,
        :processes_max, :processes, :cpu_units, :memory_mb, :queues, now(), now())
ON CONFLICT (name) DO UPDATE
SET incarnation = excluded.incarnation, host = excluded.host, pid = excluded.pid,
    state = excluded.state, processes_min = excluded.processes_min,
    processes_max = excluded.processes_max, processes_limit = excluded.processes_limit,
    processes = excluded.processes,
    cpu_units = excluded.cpu_units, memory_mb = excluded.memory_mb, queues = excluded.queues,
    started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at
""")

_BEAT = text("""
UPDATE workers SET heartbeat_at = now(), processes = :processes, state = :state
WHERE name = :name AND incarnation = :incarnation AND state <> 'stopped'
RETURNING name
""")

_LEAVE = text("""
UPDATE workers SET state = 'stopped', processes = 0, heartbeat_at = now()
WHERE name = :name AND incarnation = :incarnation
""")

_WISHES = text("""
SELECT drain_requested_at IS NOT NULL AS draining, processes_limit AS processes
FROM workers WHERE name = :name
""")

_IS_UP = "state = 'online' AND heartbeat_at > now() - CAST(:silence AS interval)"

TAKES_WORK = f"{_IS_UP} AND drain_requested_at IS NULL"
"""The condition on ``workers`` that a worker takes jobs; ``:silence`` is SILENCE."""

_DRAIN = text(f"""
UPDATE workers SET drain_requested_at = COALESCE(drain_requested_at, now())
WHERE name = :name AND {_IS_UP}
RETURNING name
""")

_RESUME = text(f"""
UPDATE workers SET drain_requested_at = NULL WHERE name = :name AND {_IS_UP} RETURNING name
""")

_RESIZE = text(f"""
UPDATE workers SET processes_limit = processes_limit + :by
WHERE name = :name AND {_IS_UP}
  AND processes_limit + :by BETWEEN processes_min AND processes_max
RETURNING name
""")

_IS_UP_NOW = text(f"SELECT {_IS_UP} FROM workers WHERE name = :name")

_OFFER = f"""
SELECT COALESCE(sum(cpu_units), 0) AS cpu_units,
       CAST(COALESCE(sum(memory_mb), 0) AS bigint) AS memory_mb,
       CAST(COALESCE(sum(processes_limit), 0) AS bigint) AS slots
FROM workers
WHERE {TAKES_WORK}
"""

_OFFERED = text(_OFFER)

_CAPACITY = text(f"""
WITH policy AS (
    SELECT cap_cpu_units, cap_memory_mb FROM policy_versions ORDER BY version DESC LIMIT 1
),
offered AS ({_OFFER})
SELECT LEAST(offered.cpu_units, policy.cap_cpu_units) AS cpu_units,
       LEAST(offered.memory_mb, policy.cap_memory_mb) AS memory_mb, offered.slots
FROM offered CROSS JOIN policy
""")


_LARGEST_JOB = text(f"""
WITH policy AS (
    SELECT cap_cpu_units, cap_memory_mb FROM policy_versions ORDER BY version DESC LIMIT 1
),
offered AS (
    SELECT sum(cpu_units) AS cpu_units, sum(memory_mb) AS memory_mb FROM workers
    WHERE {TAKES_WORK}
)
SELECT LEAST(offered.cpu_units, policy.cap_cpu_units) AS cpu_units,
       CAST(LEAST(offered.memory_mb, policy.cap_memory_mb) AS bigint) AS memory_mb
FROM offered CROSS JOIN policy
""")


def register_types(session: Session, specs: Sequence[TypeSpec]) -> None:
    """Make kinds of jobs known, or known anew."""
    body = json.dumps([asdict(spec) for spec in specs], allow_nan=False)
    run(session, _REGISTER_TYPES, specs=body)


def arrive(session: Session, offer: WorkerOffer) -> None:
    """Enter a worker that has just started."""
    run(session, _ARRIVE, **asdict(offer))


def beat_worker(
    session: Session, name: str, incarnation: str, *, processes: int, state: str
) -> bool:
    """Note that a worker lives; False if it has to arrive again."""
    row = run(
        session, _BEAT, name=name, incarnation=incarnation, processes=processes, state=state
    ).first()
    return row is not None


def leave(session: Session, name: str, incarnation: str) -> None:
    """Note that a worker has stopped."""
    run(session, _LEAVE, name=name, incarnation=incarnation)


def wishes(session: Session, name: str) -> Wishes | None:
    """Return what operators want of a worker; None if it is not known."""
    rows = fetch(session, _WISHES, name=name)
    return Wishes(**rows[0]) if rows else None


def drain(session: Session, name: str) -> bool:
    """Let a worker that is up take no new work until it is resumed; False if it is not up.

    Its capacity is not offered from now on, and what it runs goes on.
    """
    return run(session, _DRAIN, name=name, silence=SILENCE).first() is not None


def resume(session: Session, name: str) -> bool:
    """Let a worker that is up take work again; False if it is not up."""
    return run(session, _RESUME, name=name, silence=SILENCE).first() is not None


def resize(session: Session, name: str, *, by: int) -> bool:
    """Let a worker have so many processes more, or fewer, until it starts again.

    False if it is not up, or that would be beyond the bounds it was started with.
    """
    return run(session, _RESIZE, name=name, by=by, silence=SILENCE).first() is not None


def is_up(session: Session, name: str) -> bool | None:
    """Tell whether a worker lives and is not about to stop; None if there never was one."""
    up: bool | None = run(session, _IS_UP_NOW, name=name, silence=SILENCE).scalar_one_or_none()
    return up


def state_of(worker: Worker) -> str:
    """Return the state of a worker: as it says, unless an operator has asked it to drain."""
    asked = worker.state == "online" and worker.drain_requested_at is not None
    return "draining" if asked else worker.state


def live_workers(session: Session) -> list[Worker]:
    """Return the workers that have been heard of lately, draining ones included."""
    heard = text("workers.heartbeat_at > now() - CAST(:silence AS interval)")
    return list(
        session.scalars(
            select(Worker)
            .where(Worker.state != "stopped", heard.bindparams(silence=SILENCE))
            .order_by(Worker.name)
        )
    )


def offered(session: Session) -> Capacity:
    """Return what the live workers offer together, whatever the policy says."""
    return Capacity(**fetch(session, _OFFERED, silence=SILENCE)[0])


def capacity(session: Session) -> Capacity:
    """Return what the live workers offer together, or less where the policy caps it."""
    return Capacity(**fetch(session, _CAPACITY, silence=SILENCE)[0])


def largest_job(session: Session) -> LargestJob:
    """Return how large a job may be to fit some day.

    With no worker alive only the policy tells: the job waits for a worker.
    """
    return LargestJob(**fetch(session, _LARGEST_JOB, silence=SILENCE)[0])
