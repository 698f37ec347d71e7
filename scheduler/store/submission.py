"""Taking jobs in: all of a submission, or none of it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session
from ulid import ULID

from scheduler import retry
from scheduler.errors import (
    BacklogFull,
    DependencyCycle,
    JobIdConflict,
    NeverFits,
    PayloadInvalid,
    SubmissionRefused,
    TimeoutTooLong,
    UnknownDependency,
    UnknownType,
    WrongExecutor,
)
from scheduler.graph import find_cycle
from scheduler.models import JobType
from scheduler.payloads import Schemas
from scheduler.policy.meters import rank_offset
from scheduler.states import Condition, Executor, JobClass
from scheduler.store import fleet
from scheduler.store.backlog import Limit, backlog_limits
from scheduler.store.lines import JOIN_LINE
from scheduler.store.moves import Move, make, run, verb
from scheduler.store.searching import WORDS

UNREGISTERED_TIMEOUT = timedelta(hours=1)
"""How long jobs of types run that pull workers run and nobody has registered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job somebody asks for; None leaves a choice to the job's type."""

    type: str
    job_id: str | None = None
    payload: Mapping[str, Any]
    description: str | None = None
    tags: tuple[str, ...] = ()
    priority_level: int
    job_class: JobClass
    depends_on: tuple[tuple[str, Condition], ...] = ()
    cpu_units: Decimal | None = None
    memory_mb: int | None = None
    retry_config: Mapping[str, Any] | None = None
    timeout_seconds: float | None = None
    estimated_seconds: float | None = None
    run_at: datetime | None = None
    delay_seconds: float | None = None
    start_by: datetime | None = None
    executor: Executor | None = None
    callback_url: str | None = None
    idempotency_key: str | None = None
    request_id: str | None = None
    schedule: str | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submission: internal ids in its order, and which of them were there."""

    ids: tuple[int, ...]
    created: int
    duplicates: frozenset[int]
    moves: list[Move]


_SUBMIT = verb(
    f"""
WITH wanted AS (
    SELECT * FROM jsonb_to_recordset(CAST(:jobs AS jsonb)) AS wanted(
        place bigint, job_id text, type text, job_class text, priority_level smallint,
        description text, tags jsonb, payload jsonb, cpu_units numeric, memory_mb bigint,
        retry_config jsonb, timeout_seconds float8, estimated_seconds float8, executor text,
        callback_url text, start_by timestamptz, idempotency_key text, content_hash text,
        request_id text, schedule text, rank_offset bigint, dependencies bigint,
        run_at timestamptz, delay_seconds float8)
),
timed AS (
    SELECT *, COALESCE(run_at, now() + make_interval(secs => delay_seconds)) AS start_at
    FROM wanted
),
placed AS (
    SELECT *, CASE
        WHEN start_at > now() THEN :is_scheduled
        WHEN dependencies > 0 THEN :is_blocked
        ELSE :is_ready END AS status
    FROM timed ORDER BY place
),
-- Ids follow the order of the submission; rows are written in the order of their names, so that
-- two submissions of the same jobs meet at the first of them and cannot block each other.
numbered AS (
    SELECT *, nextval(pg_get_serial_sequence('jobs', 'id')) AS id FROM placed
),
moved AS (
    INSERT INTO jobs (
        id, owner_id, job_id, type, status, job_class, priority_level, description, tags, payload,
        cpu_units, memory_mb, retry_config, timeout_seconds, estimated_seconds, executor,
        callback_url, start_by, idempotency_key, content_hash, request_id, schedule, rank_offset,
        open_dependencies, created_at, run_at, due_at, ready_at, rank)
    SELECT id, :owner, job_id, type, status, job_class, priority_level, description,
           ARRAY(SELECT jsonb_array_elements_text(tags)), payload, cpu_units, memory_mb,
           retry_config, timeout_seconds, estimated_seconds, executor, callback_url, start_by,
           idempotency_key, decode(content_hash, 'hex'), request_id, schedule, rank_offset,
           dependencies, now(), start_at,
           CASE WHEN status = :is_scheduled THEN start_at END,
           CASE WHEN status = :is_ready THEN now() END,
           CASE WHEN status = :is_ready
                THEN CAST(EXTRACT(epoch FROM now()) * 1000000 AS bigint) + rank_offset END
    FROM numbered ORDER BY job_id
    ON CONFLICT DO NOTHING
    RETURNING *, 'submit' AS verb, CAST(NULL AS jsonb) AS data
),
timers_set AS (
    INSERT INTO timers (fire_at, job_id, kind)
    SELECT due_at, id, 'due' FROM moved WHERE due_at IS NOT NULL
    UNION ALL
    SELECT start_by, id, 'deadline' FROM moved WHERE start_by IS NOT NULL
),
fed AS (
    INSERT INTO feed (kind, job_id, owner_id)
    SELECT 'linked', id, owner_id FROM moved WHERE open_dependencies > 0
),
searchable AS (
    INSERT INTO searched (job_id, type, created_at, tags, text)
    SELECT id, type, created_at, tags, {WORDS} FROM moved
)"""
    + JOIN_LINE
)

_LINK = text("""
INSERT INTO dependencies (child_id, parent_id, condition)
SELECT * FROM unnest(CAST(:children AS bigint[]), CAST(:parents AS bigint[]),
                     CAST(:conditions AS text[]))
""")

_EXISTING = text("""
SELECT id, job_id, idempotency_key, content_hash FROM jobs
WHERE owner_id = :owner AND (job_id = ANY(:names) OR idempotency_key = ANY(:keys))
""")


def submit(
    session: Session,
    owner_id: int,
    submissions: Sequence[Submission],
    *,
    batch: bool,
    beyond_backlog: bool = False,
    of_any_size: bool = False,
) -> Submitted:
    """Take in all *submissions* of one owner, or none.

    Jobs may wait for each other in any order and for jobs that exist. A job that exists with the
    same content is answered as a duplicate. Raises a SubmissionRefused whose path names the field;
    *batch* tells whether fields are reached through ``jobs.N``. What is to relieve a full backlog
    may go *beyond_backlog*; what is to wait for a worker that is large enough may be *of_any_size*.
    """
    intake = _Intake(session, owner_id, submissions, batch=batch)
    return intake.run(beyond_backlog=beyond_backlog, of_any_size=of_any_size)


def check(session: Session, owner_id: int, submission: Submission) -> None:
    """Raise the SubmissionRefused that a submission would meet now, but for a full backlog."""
    _Intake(session, owner_id, [submission], batch=False).check()


class _Intake:
    """One submission on its way in: checked as a whole, written in three statements."""

    def __init__(
        self, session: Session, owner_id: int, submissions: Sequence[Submission], *, batch: bool
    ) -> None:
        self._session = session
        self._owner_id = owner_id
        self._submissions = submissions
        self._batch = batch
        self._names = [one.job_id or f"job_{str(ULID()).lower()}" for one in submissions]
        self._hashes = [_content_hash(one) for one in submissions]

    def check(self, *, of_any_size: bool = False) -> tuple[Mapping[str, JobType], dict[str, int]]:
        """Return the types by name, and the existing jobs that new ones wait for."""
        self._check_names()
        self._check_cycles()
        types = self._types()
        self._check_executors(types)
        self._check_payloads(types)
        if not of_any_size:
            self._check_sizes(types)
        self._check_timeouts(types)
        return types, self._find_parents()

    def run(self, *, beyond_backlog: bool, of_any_size: bool) -> Submitted:
        types, parents = self.check(of_any_size=of_any_size)
        if not beyond_backlog:
            self._check_backlog()
        rows = [self._row(place, types[one.type]) for place, one in enumerate(self._submissions)]
        moves = make(self._session, _SUBMIT, jobs=json.dumps(rows), owner=self._owner_id)
        created = {move.job_id: move.id for move in moves}
        ids = self._all_ids(created)
        self._link(created, parents | dict(zip(self._names, ids, strict=True)))
        duplicates = frozenset(ids) - frozenset(created.values())
        return Submitted(tuple(ids), len(created), duplicates, moves)

    def _path(self, place: int, field: str) -> str:
        return f"jobs.{place}.{field}" if self._batch else field

    def _check_names(self) -> None:
        seen: dict[str, int] = {}
        for place, name in enumerate(self._names):
            if name in seen:
                raise SubmissionRefused(
                    f"job_id {name!r} stands in this batch twice", path=self._path(place, "job_id")
                )
            seen[name] = place

    def _check_cycles(self) -> None:
        waits_for = {
            name: [parent for parent, _ in one.depends_on]
            for name, one in zip(self._names, self._submissions, strict=True)
        }
        cycle = find_cycle(waits_for)
        if cycle:
            place = self._names.index(cycle[0])
            raise DependencyCycle(cycle, path=self._path(place, "depends_on"))

    def _types(self) -> dict[str, JobType]:
        wanted = {one.type for one in self._submissions}
        found = self._session.scalars(select(JobType).where(JobType.name.in_(wanted)))
        types = {job_type.name: job_type for job_type in found}
        for place, one in enumerate(self._submissions):
            if one.type in types:
                continue
            if one.executor is not Executor.PULL:
                raise UnknownType(
                    f"no worker has registered the job type {one.type!r};"
                    " a type for pull workers needs none, but executor: pull",
                    path=self._path(place, "type"),
                )
            types[one.type] = _unregistered(one.type)
        return types

    def _check_executors(self, types: Mapping[str, JobType]) -> None:
        for place, one in enumerate(self._submissions):
            allowed = types[one.type].executors
            if one.executor is not None and one.executor not in allowed:
                raise WrongExecutor(
                    f"jobs of the type {one.type!r} are run by {' or '.join(allowed)}",
                    path=self._path(place, "executor"),
                )

    def _check_payloads(self, types: Mapping[str, JobType]) -> None:
        schemas = Schemas({name: job_type.payload_schema for name, job_type in types.items()})
        for place, one in enumerate(self._submissions):
            misfit = schemas.misfit(one.type, one.payload)
            if misfit:
                raise PayloadInvalid(misfit.message, path=self._path(place, misfit.path))

    def _check_sizes(self, types: Mapping[str, JobType]) -> None:
        largest = fleet.largest_job(self._session)
        for place, one in enumerate(self._submissions):
            job_type = types[one.type]
            if _executor(one, job_type) is Executor.PULL:
                continue
            cpu_units = one.cpu_units or job_type.cpu_units
            memory_mb = one.memory_mb or job_type.memory_mb
            too_much = largest.lacks(cpu_units, memory_mb)
            if too_much:
                raise NeverFits(too_much, path=self._path(place, "resource_requirements"))

    def _check_timeouts(self, types: Mapping[str, JobType]) -> None:
        for place, one in enumerate(self._submissions):
            longest = types[one.type].max_timeout_seconds
            if longest is not None and (one.timeout_seconds or 0) > longest:
                raise TimeoutTooLong(
                    f"jobs of the type {one.type!r} run for {longest:g} s at most",
                    path=self._path(place, "timeout_seconds"),
                )

    def _find_parents(self) -> dict[str, int]:
        """Return the existing jobs that new ones wait for, by name."""
        inside = set(self._names)
        outside = {
            parent
            for one in self._submissions
            for parent, _ in one.depends_on
            if parent not in inside
        }
        if not outside:
            return {}
        found = {row.job_id: row.id for row in self._existing(names=outside)}
        for place, one in enumerate(self._submissions):
            for number, (parent, _) in enumerate(one.depends_on):
                if parent not in inside and parent not in found:
                    raise UnknownDependency(
                        f"there is no job {parent!r} to wait for",
                        path=self._path(place, f"depends_on.{number}"),
                    )
        return found

    def _check_backlog(self) -> None:
        for limit in backlog_limits(self._session, self._owner_id):
            if limit.waiting + len(self._submissions) > limit.cap:
                self._refuse_beyond(limit)

    def _refuse_beyond(self, limit: Limit) -> None:
        """Refuse what passes the limit, not counting jobs that are there already."""
        known = {row.id for row in self._existing(names=set(self._names), keys=self._keys())}
        new = len(self._submissions) - len(known)
        if new and limit.waiting + new > limit.cap:
            raise BacklogFull(
                f"{limit.waiting} unfinished jobs and {new} more pass {limit.name};"
                " submit again when some have finished"
            )

    def _row(self, place: int, job_type: JobType) -> dict[str, Any]:
        one = self._submissions[place]
        return {
            "place": place,
            "job_id": self._names[place],
            "type": one.type,
            "job_class": one.job_class,
            "priority_level": one.priority_level,
            "description": one.description,
            "tags": one.tags,
            "payload": one.payload,
            "cpu_units": str(one.cpu_units or job_type.cpu_units),
            "memory_mb": one.memory_mb or job_type.memory_mb,
            "retry_config": {
                **retry.DEFAULTS,
                **job_type.retry_config,
                **(one.retry_config or {}),
            },
            "timeout_seconds": one.timeout_seconds or job_type.timeout_seconds,
            "estimated_seconds": one.estimated_seconds,
            "executor": _executor(one, job_type),
            "callback_url": one.callback_url,
            "start_by": one.start_by and one.start_by.isoformat(),
            "idempotency_key": one.idempotency_key,
            "content_hash": self._hashes[place].hex(),
            "request_id": one.request_id,
            "schedule": one.schedule,
            "rank_offset": rank_offset(one.job_class, one.priority_level),
            "dependencies": len({parent for parent, _ in one.depends_on}),
            "run_at": one.run_at and one.run_at.isoformat(),
            "delay_seconds": one.delay_seconds,
        }

    def _all_ids(self, created: Mapping[str, int]) -> list[int]:
        """Return the id of every job of the submission, new or known before."""
        if len(created) == len(self._names):
            return [created[name] for name in self._names]
        rows = self._existing(names=set(self._names) - set(created), keys=self._keys())
        by_name = {row.job_id: row for row in rows}
        by_key = {row.idempotency_key: row for row in rows if row.idempotency_key}
        ids = []
        for place, (name, one) in enumerate(zip(self._names, self._submissions, strict=True)):
            if name in created:
                ids.append(created[name])
                continue
            known = by_name.get(name) or by_key[one.idempotency_key]
            if bytes(known.content_hash) != self._hashes[place]:
                raise JobIdConflict(known.job_id, path=self._path(place, "job_id"))
            ids.append(known.id)
        return ids

    def _keys(self) -> list[str]:
        return [one.idempotency_key for one in self._submissions if one.idempotency_key]

    def _existing(self, *, names: set[str], keys: Sequence[str] = ()) -> list[Any]:
        rows = run(
            self._session, _EXISTING, owner=self._owner_id, names=sorted(names), keys=list(keys)
        )
        return list(rows.all())

    def _link(self, created: Mapping[str, int], ids: Mapping[str, int]) -> None:
        edges = [
            (created[name], ids[parent], condition)
            for name, one in zip(self._names, self._submissions, strict=True)
            if name in created
            for parent, condition in dict(one.depends_on).items()
        ]
        if edges:
            children, parents, conditions = zip(*edges, strict=True)
            run(
                self._session,
                _LINK,
                children=list(children),
                parents=list(parents),
                conditions=list(conditions),
            )


def _executor(one: Submission, job_type: JobType) -> Executor:
    return one.executor or Executor(job_type.executors[0])


def _unregistered(name: str) -> JobType:
    """Return what is assumed of a type that pull workers run and nobody has registered."""
    return JobType(
        name=name,
        payload_schema=None,
        cpu_units=Decimal(1),
        memory_mb=128,
        timeout_seconds=UNREGISTERED_TIMEOUT.total_seconds(),
        max_timeout_seconds=None,
        retry_config={},
        executors=[Executor.PULL],
    )


def _content_hash(submission: Submission) -> bytes:
    """Digest what a submission asks for; who asked, and under which key, is not part of it."""
    content = [
        submission.type,
        submission.payload,
        submission.description,
        submission.tags,
        submission.priority_level,
        sorted(dict(submission.depends_on).items()),
        submission.cpu_units and f"{submission.cpu_units.normalize():f}",
        submission.memory_mb,
        submission.retry_config,
        submission.timeout_seconds,
        submission.estimated_seconds,
        submission.run_at and submission.run_at.astimezone(UTC).isoformat(),
        submission.delay_seconds,
        submission.start_by and submission.start_by.astimezone(UTC).isoformat(),
        submission.executor,
        submission.callback_url,
    ]
    body = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(body.encode()).digest()
