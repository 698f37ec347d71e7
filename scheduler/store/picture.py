"""Reading what the policy decides on, and writing back what it remembers."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.policy.durations import expected_duration
from scheduler.snapshot import (
    Account,
    Candidate,
    Caps,
    Clock,
    Group,
    Limits,
    Reservation,
    Resources,
    Running,
    Snapshot,
)
from scheduler.states import JobClass
from scheduler.store import fleet
from scheduler.store.leader import Memory
from scheduler.store.moves import fetch, run
from scheduler.store.policy import current_policy

FRONT = 1_000
"""About how many waiting jobs one pass looks at, over all owners."""

SHORTEST_WINDOW, LONGEST_WINDOW = 8, 100
"""Bounds of how many jobs of one owner's line are looked at."""

# Owners are found by skipping from one to the next in the key, not by reading every waiting job.
_OWNERS = text("""
WITH RECURSIVE skip AS (
    (SELECT owner_id FROM ready ORDER BY owner_id LIMIT 1)
    UNION ALL
    SELECT (SELECT owner_id FROM ready WHERE owner_id > skip.owner_id ORDER BY owner_id LIMIT 1)
    FROM skip WHERE skip.owner_id IS NOT NULL
)
SELECT owner_id FROM skip WHERE owner_id IS NOT NULL
""")

_WINDOWS = text("""
SELECT line.job_id AS id, line.owner_id, line.job_type, line.job_class, line.rank,
       CAST(line.cpu_units AS float8) AS cpu_units, line.memory_mb, line.expected_seconds,
       line.ready_at
FROM unnest(CAST(:owners AS bigint[])) AS wanted(owner_id)
CROSS JOIN LATERAL (
    SELECT * FROM ready WHERE ready.owner_id = wanted.owner_id
    ORDER BY rank, job_id LIMIT :window
) AS line
""")

_ACTIVE = text("""
SELECT job_id AS id, attempt, owner_id, job_type, CAST(cpu_units AS float8) AS cpu_units,
       memory_mb, expected_seconds, admitted_at, claimed_at AS started_at, charge, express
FROM active
""")

_ACCOUNTS = text("""
WITH wanted AS (
    SELECT owner_id FROM unnest(CAST(:owners AS bigint[])) AS named(owner_id)
    UNION
    SELECT owner_id FROM meters WHERE tag IS NOT NULL
)
SELECT users.id AS owner_id, users.group_id, users.weight * COALESCE(groups.weight, 1) AS weight,
       CAST(users.cap_cpu_units AS float8) AS cap_cpu_units, users.cap_memory_mb,
       users.cap_running_jobs, COALESCE(meters.meter, 0) AS meter,
       COALESCE(meters.express_meter, 0) AS express_meter, meters.tag
FROM wanted JOIN users ON users.id = wanted.owner_id
LEFT JOIN groups ON groups.id = users.group_id
LEFT JOIN meters ON meters.owner_id = users.id
""")

_GROUPS = text("""
SELECT id, CAST(cap_cpu_units AS float8) AS cap_cpu_units, cap_memory_mb, cap_running_jobs
FROM groups WHERE id = ANY(:groups)
""")

_WRITE_METERS = text("""
INSERT INTO meters (owner_id, meter, express_meter, tag)
SELECT owner_id, meter, express_meter, tag
FROM jsonb_to_recordset(CAST(:meters AS jsonb)) AS written(
    owner_id bigint, meter float8, express_meter float8, tag float8)
ORDER BY owner_id
ON CONFLICT (owner_id) DO UPDATE
SET meter = excluded.meter, express_meter = excluded.express_meter, tag = excluded.tag
""")


def read_snapshot(
    session: Session,
    memory: Memory,
    *,
    now: datetime,
    involved: Iterable[int] = (),
    durations: Mapping[str, timedelta] = MappingProxyType({}),
) -> Snapshot:
    """Read everything one pass decides on.

    *involved* owners get an account in any case; *durations* are what is known of job types.
    """
    candidates = _candidates(session, durations)
    running = tuple(_running(row) for row in fetch(session, _ACTIVE))
    owners = {job.owner_id for job in candidates} | {job.owner_id for job in running}
    accounts = _accounts(session, owners | set(involved))
    return Snapshot(
        now=now,
        candidates=candidates,
        running=running,
        accounts=accounts,
        groups=_groups(session, accounts.values()),
        clock=clock_from_json(memory.clock),
        reservation=reservation_from_json(memory.reservation),
        limits=read_limits(session),
    )


def read_limits(session: Session) -> Limits:
    """Read what there is and what the policy allows to be used of it."""
    policy, capacity = current_policy(session), fleet.capacity(session)
    room = Resources(float(capacity.cpu_units), capacity.memory_mb, capacity.slots)
    return Limits(
        capacity=room if capacity.slots else None,
        type_caps={
            name: rule["max_running"]
            for name, rule in policy.types.items()
            if rule.get("max_running") is not None
        },
        paused_classes=frozenset(JobClass(name) for name in _paused(policy.classes)),
        paused_types=frozenset(_paused(policy.types)),
    )


def write_accounts(session: Session, accounts: Iterable[Account]) -> None:
    """Keep what owners have received."""
    rows = [
        {
            "owner_id": account.owner_id,
            "meter": account.meter,
            "express_meter": account.express_meter,
            "tag": account.tag,
        }
        for account in accounts
    ]
    if rows:
        run(session, _WRITE_METERS, meters=json.dumps(rows, allow_nan=False))


def to_memory(clock: Clock, reservation: Reservation | None) -> Memory:
    """Turn what the policy remembers into JSON."""
    return Memory(_to_json(clock), _to_json(reservation) if reservation else None)


def clock_from_json(fields: Mapping[str, Any]) -> Clock:
    """Read a clock as it was kept; an empty one is a new one."""
    advanced_at = fields.get("advanced_at")
    return Clock(**{**fields, "advanced_at": advanced_at and datetime.fromisoformat(advanced_at)})


def reservation_from_json(fields: Mapping[str, Any] | None) -> Reservation | None:
    """Read a reservation as it was kept."""
    if fields is None:
        return None
    instants = {name: datetime.fromisoformat(fields[name]) for name in ("since", "promised_at")}
    return Reservation(**{**fields, **instants})


def _to_json(value: Clock | Reservation) -> dict[str, Any]:
    return {
        name: field.isoformat() if isinstance(field, datetime) else field
        for name, field in asdict(value).items()
    }


def _candidates(session: Session, durations: Mapping[str, timedelta]) -> tuple[Candidate, ...]:
    owners = list(run(session, _OWNERS).scalars())
    if not owners:
        return ()
    window = max(SHORTEST_WINDOW, min(LONGEST_WINDOW, FRONT // len(owners)))
    rows = fetch(session, _WINDOWS, owners=owners, window=window)
    return tuple(_candidate(row, durations.get(row["job_type"])) for row in rows)


def _candidate(row: dict[str, Any], learned: timedelta | None) -> Candidate:
    unlearned = timedelta(seconds=row["expected_seconds"])
    return Candidate(
        id=row["id"],
        owner_id=row["owner_id"],
        job_type=row["job_type"],
        job_class=JobClass(row["job_class"]),
        rank=row["rank"],
        cpu_units=row["cpu_units"],
        memory_mb=row["memory_mb"],
        expected=expected_duration(learned, unlearned, None),
        waiting_since=row["ready_at"],
    )


def _running(row: dict[str, Any]) -> Running:
    return Running(expected=timedelta(seconds=row.pop("expected_seconds")), **row)


def _accounts(session: Session, owners: set[int]) -> dict[int, Account]:
    rows = fetch(session, _ACCOUNTS, owners=sorted(owners))
    return {row["owner_id"]: Account(caps=_caps(row), **row) for row in rows}


def _groups(session: Session, accounts: Iterable[Account]) -> dict[int, Group]:
    wanted = sorted({account.group_id for account in accounts if account.group_id is not None})
    rows = fetch(session, _GROUPS, groups=wanted) if wanted else []
    return {row["id"]: Group(row["id"], _caps(row)) for row in rows}


def _caps(row: dict[str, Any]) -> Caps:
    return Caps(
        cpu_units=row.pop("cap_cpu_units"),
        memory_mb=row.pop("cap_memory_mb"),
        running_jobs=row.pop("cap_running_jobs"),
    )


def _paused(rules: Mapping[str, Any]) -> list[str]:
    return [name for name, rule in rules.items() if rule.get("paused")]
