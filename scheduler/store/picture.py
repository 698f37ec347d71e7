"""Reading what the policy decides on, and writing back what it remembers."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from math import fsum
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.policy.durations import Durations
from scheduler.policy.meters import effective_weight
from scheduler.policy.rules import AccountTerms, Rules, rules_of, under
from scheduler.policy.starts import Starts
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
from scheduler.states import Executor, JobClass
from scheduler.store import durations, fleet, offers
from scheduler.store.leader import Memory
from scheduler.store.moves import fetch, run
from scheduler.store.policy import PolicyContent, content_of, current_policy

FRONT = 1_000
"""About how many waiting jobs one pass looks at, over all owners."""

SHORTEST_WINDOW = 8
"""How many jobs of one owner's line are looked at, at least."""

LONGEST_WINDOW = 100
"""Likewise, at most."""

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

_LINE = """
SELECT line.job_id AS id, line.owner_id, line.job_type, line.job_class, line.tags, line.rank,
       CAST(line.cpu_units AS float8) AS cpu_units, line.memory_mb, line.expected_seconds,
       line.timeout_seconds, line.ready_at, line.executor
"""

_WINDOWS = text(f"""{_LINE}
FROM unnest(CAST(:owners AS bigint[])) AS wanted(owner_id)
CROSS JOIN LATERAL (
    SELECT * FROM ready WHERE ready.owner_id = wanted.owner_id
    ORDER BY rank, job_id LIMIT :window
) AS line
""")

# Reading on from a cursor does not step over what has been taken from the beginning of a line.
_MORE = text(f"""{_LINE}
FROM jsonb_to_recordset(CAST(:cursors AS jsonb))
    AS last(owner_id bigint, rank bigint, job_id bigint)
CROSS JOIN LATERAL (
    SELECT * FROM ready
    WHERE ready.owner_id = last.owner_id AND (ready.rank, ready.job_id) > (last.rank, last.job_id)
    ORDER BY rank, job_id LIMIT :window
) AS line
""")

_ACTIVE = text("""
SELECT job_id AS id, attempt, owner_id, job_type, CAST(cpu_units AS float8) AS cpu_units,
       memory_mb, expected_seconds, admitted_at, claimed_at AS started_at, charge, express,
       executor
FROM active
""")

_ACCOUNTS = text("""
SELECT users.id AS owner_id, users.username, users.paused, users.group_id,
       groups.name AS group_name, users.weight * COALESCE(groups.weight, 1) AS weight,
       CAST(users.cap_cpu_units AS float8) AS cap_cpu_units, users.cap_memory_mb,
       users.cap_running_jobs, COALESCE(meters.meter, 0) AS meter,
       COALESCE(meters.express_meter, 0) AS express_meter, meters.tag
FROM users
LEFT JOIN groups ON groups.id = users.group_id
LEFT JOIN meters ON meters.owner_id = users.id
WHERE users.id = ANY(:owners)
""")

_IN_LINE = text("SELECT owner_id FROM meters WHERE tag IS NOT NULL")

_GROUPS = text("""
SELECT id, CAST(cap_cpu_units AS float8) AS cap_cpu_units, cap_memory_mb, cap_running_jobs
FROM groups
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


class Known(NamedTuple):
    """What turns rows into what the policy sees."""

    rules: Rules
    durations: Durations
    now: datetime


class Window(NamedTuple):
    """Some jobs of one line, without gaps, and where the line goes on behind them."""

    jobs: list[Candidate]
    last: tuple[int, int]  # rank and job, as the table has them


class Owner(NamedTuple):
    """An account, and what the rules say of its owner's jobs."""

    account: Account
    terms: AccountTerms


def read_snapshot(session: Session, memory: Memory, *, now: datetime) -> Snapshot:
    """Read everything one pass decides on, for whoever does not keep it in memory.

    Of many who wait, only the lines of those are read who have received least; the others count
    with their weight.
    """
    policy = content_of(current_policy(session))
    known = Known(rules_of(policy.rules), durations.read(session), now)
    running = read_running(session)
    waiting = read_owners(session)
    involved = {*waiting, *read_in_line(session), *(job.owner_id for job in running)}
    owners = read_accounts(session, involved, known)
    accounts = {owner: each.account for owner, each in owners.items()}
    clock = clock_from_json(memory.clock)
    in_order = sorted(waiting, key=lambda owner: (_place(accounts[owner], clock), owner))
    front, behind = in_order[:FRONT], [accounts[owner] for owner in in_order[FRONT:]]
    windows = read_windows(session, front, window_for(len(waiting)), owners, known)
    starts = starts_from_json(memory.starts)
    return Snapshot(
        now=now,
        candidates=tuple(job for window in windows.values() for job in window.jobs),
        running=running,
        # Who has no candidates is taken to have left the line, and would lose the place in it.
        accounts=accounts | {each.owner_id: _keeping_place(each) for each in behind},
        groups=read_groups(session),
        clock=clock,
        reservation=reservation_from_json(memory.reservation),
        limits=read_limits(session, policy, starts, now=now),
        unseen_weight=fsum(
            effective_weight(each.weight) for each in behind if each.tag is not None
        ),
    )


def _place(account: Account, clock: Clock) -> float:
    return max(account.meter, clock.virtual_now) if account.tag is None else account.tag


def _keeping_place(account: Account) -> Account:
    return account if account.tag is None else replace(account, meter=account.tag, tag=None)


def window_for(owners: int) -> int:
    """Return how many jobs of each line are looked at when so many owners wait."""
    return max(SHORTEST_WINDOW, min(LONGEST_WINDOW, FRONT // max(1, owners)))


def read_owners(session: Session) -> list[int]:
    """Return who waits."""
    return list(run(session, _OWNERS).scalars())


def read_in_line(session: Session) -> list[int]:
    """Return who waited at the last pass."""
    return list(run(session, _IN_LINE).scalars())


def read_windows(
    session: Session, wanted: Sequence[int], window: int, owners: Mapping[int, Owner], known: Known
) -> dict[int, Window]:
    """Return the first jobs of the lines of the owners *wanted*; *owners* holds all of those."""
    rows = fetch(session, _WINDOWS, owners=list(wanted), window=window) if wanted else []
    return _lines(rows, owners, known)


def read_on(
    session: Session,
    last: Mapping[int, tuple[int, int]],
    window: int,
    owners: Mapping[int, Owner],
    known: Known,
) -> dict[int, Window]:
    """Return the jobs that follow the *last* known ones of some owners' lines."""
    body = json.dumps(
        [{"owner_id": owner, "rank": rank, "job_id": job} for owner, (rank, job) in last.items()]
    )
    return _lines(fetch(session, _MORE, cursors=body, window=window), owners, known)


def read_running(session: Session) -> tuple[Running, ...]:
    """Return everything that holds resources."""
    return tuple(_running(row) for row in fetch(session, _ACTIVE))


def read_accounts(session: Session, owners: Iterable[int], known: Known) -> dict[int, Owner]:
    """Return what the accounts of *owners* are under the rules."""
    rows = fetch(session, _ACCOUNTS, owners=sorted(owners))
    return {row["owner_id"]: _owner(row, known) for row in rows}


def read_groups(session: Session) -> dict[int, Group]:
    """Return all groups."""
    return {row["id"]: Group(row["id"], _caps(row)) for row in fetch(session, _GROUPS)}


def read_limits(
    session: Session, policy: PolicyContent, starts: Starts, *, now: datetime, ahead: int = 0
) -> Limits:
    """Read what there is and what the policy allows to be used of it.

    *ahead* are the jobs that may wait beside the worker processes.
    """
    capacity = fleet.capacity(session)
    room = Resources(float(capacity.cpu_units), capacity.memory_mb, capacity.slots + ahead)
    return Limits(
        capacity=room if capacity.slots else None,
        type_caps=policy.max_running,
        type_starts=starts.left(policy.max_per_minute, now),
        paused_classes=policy.paused_classes,
        paused_types=policy.paused_types,
        asks=offers.waiting(session),
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


def to_memory(clock: Clock, reservation: Reservation | None, starts: Starts) -> Memory:
    """Turn what the policy remembers into JSON."""
    known = {name: [each.timestamp() for each in at] for name, at in starts.known().items()}
    return Memory(_to_json(clock), _to_json(reservation) if reservation else None, known)


def starts_from_json(fields: Mapping[str, Any]) -> Starts:
    """Read the starts of the last minute as they were kept."""
    return Starts(
        {name: [datetime.fromtimestamp(at, UTC) for at in each] for name, each in fields.items()}
    )


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


def _lines(
    rows: Iterable[dict[str, Any]], owners: Mapping[int, Owner], known: Known
) -> dict[int, Window]:
    found: dict[int, Window] = {}
    for row in rows:
        owner, last = row["owner_id"], (row["rank"], row["id"])
        jobs = found[owner].jobs if owner in found else []
        jobs.append(_candidate(row, owners[owner].terms, known))
        found[owner] = Window(jobs, last)
    return found


def _candidate(row: dict[str, Any], owner: AccountTerms, known: Known) -> Candidate:
    terms = known.rules.job(owner, row["job_type"], row["tags"])
    expected = known.durations.expected(
        row["job_type"],
        row["owner_id"],
        estimated=timedelta(seconds=row["expected_seconds"]),
        timeout=timedelta(seconds=row["timeout_seconds"]),
    )
    job = Candidate(
        id=row["id"],
        owner_id=row["owner_id"],
        job_type=sys.intern(row["job_type"]),
        job_class=JobClass(row["job_class"]),
        rank=row["rank"],
        cpu_units=row["cpu_units"],
        memory_mb=row["memory_mb"],
        expected=expected.duration,
        waiting_since=row["ready_at"],
        spread=expected.spread,
        executor=Executor(row["executor"]),
    )
    return under(terms, job)


def _running(row: dict[str, Any]) -> Running:
    expected = timedelta(seconds=row.pop("expected_seconds"))
    return Running(expected=expected, executor=Executor(row.pop("executor")), **row)


def _owner(row: dict[str, Any], known: Known) -> Owner:
    terms = known.rules.account(
        row["username"], row["group_name"], row["weight"], _caps(row), known.now
    )
    account = Account(
        owner_id=row["owner_id"],
        group_id=row["group_id"],
        weight=terms.weight,
        caps=terms.caps,
        meter=row["meter"],
        express_meter=row["express_meter"],
        tag=row["tag"],
        paused=row["paused"],
    )
    return Owner(account, terms)


def _caps(row: dict[str, Any]) -> Caps:
    return Caps(
        cpu_units=row.pop("cap_cpu_units"),
        memory_mb=row.pop("cap_memory_mb"),
        running_jobs=row.pop("cap_running_jobs"),
    )
