"""What workers report: claims, heartbeats, progress, outcomes.

Every report names the attempt it is about, so that a worker presumed dead changes nothing.
"""

import json
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler import retry
from scheduler.fingerprint import fingerprint
from scheduler.states import CancelReason, Outcome
from scheduler.store.lines import JOIN_LINE
from scheduler.store.moves import OUTCOME, Move, fetch, make, run, verb

MAX_CRASHES = 3
"""A job under which so many processes died is not tried again: it may be what kills them."""

TOO_MANY_CRASHES = "TooManyCrashes"
"""The error of such a job."""

CLAIM_PATIENCE = timedelta(seconds=10)
"""How long a process goes on trying to claim what a message names."""

TIME_LIMIT = "TimeLimitExceeded"
"""The error of an attempt that took longer than it may."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt that is now this worker's to run."""

    id: int
    attempt: int
    job_id: str
    owner_id: int
    owner: str
    type: str
    payload: dict[str, Any]
    timeout_seconds: float
    memory_mb: int
    is_last_attempt: bool

    @property
    def idempotency_key(self) -> str:
        """A key for outside calls: the same for every delivery of this attempt."""
        return f"{self.id}:{self.attempt}"


@dataclass(frozen=True, slots=True)
class Success:
    """An attempt that ended well; *result* is JSON."""

    id: int
    attempt: int
    result: Any
    peak_memory_mb: float | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that ended badly.

    *lost*: nobody is there to tell how it ended. *crashed*: its process died under it.
    """

    id: int
    attempt: int
    error_type: str
    error_message: str
    traceback: str | None = None
    retryable: bool = True
    retry_after: timedelta | None = None
    lost: bool = False
    crashed: bool = False
    peak_memory_mb: float | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat learns: whether the attempt is still ours, and whether it is to stop."""

    alive: bool
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A running attempt and the process that runs it; *overdue_seconds* is how long past its time.

    Before its time is over that is negative.
    """

    id: int
    attempt: int
    pid: int
    cancel_requested_at: datetime | None
    overdue_seconds: float


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line a job wrote."""

    at: datetime
    level: str
    message: str


_START = verb("""
WITH wanted AS (
    SELECT * FROM unnest(CAST(:jobs AS bigint[]), CAST(:attempts AS bigint[]))
        AS wanted(id, attempt)
),
target AS (
    SELECT jobs.id, jobs.attempt, jobs.start_by
    FROM jobs JOIN wanted USING (id, attempt) JOIN active ON active.job_id = jobs.id
    WHERE jobs.status = ANY(:to_running)
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs, active
),
claimed AS (
    UPDATE active
    SET claimed_at = now(), worker = :worker, pid = :pid,
        lease_until = now() + CASE executor
            WHEN :by_pull THEN
                LEAST(CAST(:lease AS interval), make_interval(secs => timeout_seconds))
            ELSE CAST(:lease AS interval) END
    FROM target WHERE active.job_id = target.id
    RETURNING active.job_id, active.attempt, active.admitted_at
),
untimed AS (
    DELETE FROM timers USING target
    WHERE timers.fire_at = target.start_by AND timers.job_id = target.id
),
tried AS (
    INSERT INTO attempts (job_id, attempt, worker, pid, lease, lease_seconds, queued_at, started_at)
    SELECT job_id, attempt, :worker, :pid, :token, EXTRACT(epoch FROM CAST(:lease AS interval)),
           admitted_at, now()
    FROM claimed
),
moved AS (
    UPDATE jobs SET status = :is_running, started_at = now(), worker = :worker
    FROM claimed WHERE jobs.id = claimed.job_id
    RETURNING jobs.id, jobs.owner_id, jobs.job_id, 'start' AS verb, jobs.status, jobs.attempt,
              jsonb_build_object('worker', jobs.worker) AS data
)
""")

_CLAIMS = text("""
SELECT jobs.id, jobs.attempt, jobs.job_id, jobs.owner_id, users.username AS owner, jobs.type,
       jobs.payload, jobs.timeout_seconds, jobs.memory_mb, jobs.retry_config,
       jobs.attempts_forgiven
FROM jobs JOIN users ON users.id = jobs.owner_id
WHERE jobs.id = ANY(:jobs)
""")

_FREE = """
freed AS (
    DELETE FROM active USING target WHERE active.job_id = target.id RETURNING active.*
),
fed AS (
    INSERT INTO feed (kind, job_id, owner_id, cpu_units, memory_mb, charge, express, used_seconds,
                      lasted_seconds, outcome)
    SELECT :feed, job_id, owner_id, cpu_units, memory_mb, charge, express,
           COALESCE(EXTRACT(epoch FROM now() - claimed_at), 0),
           CASE WHEN CAST(:outcome AS text) IN (:outcome_completed, :outcome_failed)
               THEN NULLIF(LEAST(EXTRACT(epoch FROM now() - claimed_at), timeout_seconds),
                           timeout_seconds)
           END,
           CASE WHEN claimed_at IS NOT NULL THEN CAST(:outcome AS text) END
    FROM freed
),
"""

_END_ATTEMPT = """
ended AS (
    UPDATE attempts
    SET finished_at = now(), outcome = :outcome, error_type = :error_type,
        error_message = :error_message, traceback = :traceback,
        peak_memory_mb = :peak_memory_mb, cpu_seconds = :cpu_seconds
    FROM target WHERE attempts.job_id = target.id AND attempts.attempt = target.attempt
),
"""

_ONE_RUNNING = """
WITH target AS (
    SELECT id, attempt FROM jobs
    WHERE id = :id AND attempt = :attempt AND status = :is_running
    FOR NO KEY UPDATE
),
"""

_SUCCEED = verb(
    """
WITH report AS (
    SELECT * FROM jsonb_to_recordset(CAST(:reports AS jsonb)) AS report(
        id bigint, attempt bigint, result jsonb, peak_memory_mb float8, cpu_seconds float8)
),
target AS (
    SELECT jobs.id, jobs.attempt, report.result, report.peak_memory_mb, report.cpu_seconds
    FROM jobs JOIN report USING (id, attempt) JOIN active ON active.job_id = jobs.id
    WHERE jobs.status = ANY(:to_completed)
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs, active
),
"""
    + _FREE
    + f"""
ended AS (
    UPDATE attempts
    SET finished_at = now(), outcome = :outcome_completed,
        peak_memory_mb = target.peak_memory_mb, cpu_seconds = target.cpu_seconds
    FROM target WHERE attempts.job_id = target.id AND attempts.attempt = target.attempt
),
moved AS (
    UPDATE jobs
    SET status = :is_completed, finished_at = now(), result = NULLIF(target.result, 'null'),
        progress_fraction = 1, error_type = NULL, error_message = NULL
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.id, jobs.owner_id, jobs.job_id, 'succeed' AS verb, jobs.status, jobs.attempt,
              CAST(NULL AS jsonb) AS data, {OUTCOME}
)
""",
    ends=True,
)

_FAIL = verb(
    _ONE_RUNNING
    + _FREE
    + _END_ATTEMPT
    + f"""
moved AS (
    UPDATE jobs
    SET status = :is_failed, finished_at = now(), error_type = :error_type,
        error_message = :error_message, error_fingerprint = :fingerprint,
        crashes = crashes + :crashed
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.id, jobs.owner_id, jobs.job_id, 'fail' AS verb, jobs.status, jobs.attempt,
              jsonb_build_object('error', jobs.error_type) AS data, {OUTCOME}
)
""",
    ends=True,
)

_RETRY = verb(
    _ONE_RUNNING
    + _FREE
    + _END_ATTEMPT
    + """
moved AS (
    UPDATE jobs
    SET status = :is_retrying, due_at = now() + CAST(:delay AS interval), worker = NULL,
        error_type = :error_type, error_message = :error_message, crashes = crashes + :crashed
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.id, jobs.owner_id, jobs.job_id, 'retry' AS verb, jobs.status, jobs.attempt,
              jsonb_build_object('error', jobs.error_type, 'due_at', jobs.due_at) AS data,
              jobs.due_at
),
timed AS (
    INSERT INTO timers (fire_at, job_id, kind) SELECT due_at, id, 'due' FROM moved
)
"""
)

_SNOOZE = verb(
    _ONE_RUNNING
    + _FREE
    + _END_ATTEMPT
    + """
moved AS (
    UPDATE jobs
    SET status = :is_retrying, due_at = now() + CAST(:delay AS interval), worker = NULL,
        attempts_forgiven = attempts_forgiven + 1
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.id, jobs.owner_id, jobs.job_id, 'snooze' AS verb, jobs.status, jobs.attempt,
              jsonb_build_object('due_at', jobs.due_at) AS data, jobs.due_at
),
timed AS (
    INSERT INTO timers (fire_at, job_id, kind) SELECT due_at, id, 'due' FROM moved
)
"""
)

_STOP = verb(
    _ONE_RUNNING
    + _FREE
    + _END_ATTEMPT
    + f"""
moved AS (
    UPDATE jobs
    SET status = :is_cancelled, reason = COALESCE(freed.cancel_reason, :reason), finished_at = now()
    FROM target LEFT JOIN freed ON freed.job_id = target.id WHERE jobs.id = target.id
    RETURNING jobs.id, jobs.owner_id, jobs.job_id, 'cancel' AS verb, jobs.status, jobs.attempt,
              jsonb_build_object('reason', jobs.reason, 'from', CAST(:is_running AS text)) AS data,
              {OUTCOME}
)
""",
    ends=True,
)

_GIVE_BACK = verb(
    """
WITH wanted AS (
    SELECT * FROM unnest(CAST(:jobs AS bigint[]), CAST(:attempts AS bigint[]))
        AS wanted(id, attempt)
),
target AS (
    SELECT jobs.id, jobs.attempt
    FROM jobs JOIN wanted USING (id, attempt) JOIN active ON active.job_id = jobs.id
    WHERE jobs.status IN (:is_queued, :is_running)
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs, active
),
"""
    + _FREE
    + """
unsent AS (
    DELETE FROM outbox USING target WHERE outbox.job_id = target.id
),
ended AS (
    UPDATE attempts SET finished_at = now(), outcome = :outcome_interrupted
    FROM target WHERE attempts.job_id = target.id AND attempts.attempt = target.attempt
),
moved AS (
    UPDATE jobs
    SET status = :is_ready, ready_at = now(), worker = NULL, progress_fraction = NULL,
        progress_message = NULL, attempts_forgiven = attempts_forgiven + 1
    FROM target WHERE jobs.id = target.id
    RETURNING jobs.*, 'requeue' AS verb, CAST(NULL AS jsonb) AS data
)"""
    + JOIN_LINE
)

# Looks only: the verbs that follow see whether it is the attempt that runs.
_STANDING_OF = text("""
SELECT jobs.type, jobs.retry_config, jobs.attempt - jobs.attempts_forgiven AS used, jobs.crashes,
       active.cancel_requested_at IS NOT NULL AS cancel_requested
FROM jobs JOIN active ON active.job_id = jobs.id
WHERE jobs.id = :id
FOR NO KEY UPDATE OF jobs, active
""")

# Of attempts that are to be given back, those whose jobs were asked to stop: they have stopped.
_ASKED_TO_STOP = text("""
SELECT jobs.id, jobs.attempt
FROM jobs JOIN active ON active.job_id = jobs.id
    JOIN unnest(CAST(:jobs AS bigint[]), CAST(:attempts AS bigint[])) AS wanted(id, attempt)
        ON wanted.id = jobs.id AND wanted.attempt = jobs.attempt
WHERE jobs.status = :is_running AND active.cancel_requested_at IS NOT NULL
ORDER BY jobs.id
FOR NO KEY UPDATE OF jobs, active
""")

_GIVE_TIME = text("""
UPDATE active
SET timeout_seconds = GREATEST(timeout_seconds, LEAST(
    max_timeout_seconds, EXTRACT(epoch FROM now() - claimed_at) + CAST(:seconds AS float8)))
WHERE job_id = :id AND attempt = :attempt AND claimed_at IS NOT NULL
RETURNING CAST(EXTRACT(epoch FROM claimed_at - now()) + timeout_seconds AS float8)
""")

_BEAT = text("""
UPDATE active SET lease_until = now() + CAST(:lease AS interval)
WHERE job_id = :id AND attempt = :attempt AND claimed_at IS NOT NULL
RETURNING cancel_requested_at IS NOT NULL
""")

# Whose row is locked is just being reported or renewed; waiting for it could end in a deadlock
# with a report about several attempts.
_RENEW = text("""
WITH others AS (
    SELECT * FROM unnest(CAST(:jobs AS bigint[]), CAST(:attempts AS bigint[]))
        AS others(job_id, attempt)
),
free AS (
    SELECT job_id FROM active
    WHERE worker = :worker AND pid = ANY(:pids)
      AND (job_id, attempt) NOT IN (SELECT job_id, attempt FROM others)
    FOR NO KEY UPDATE SKIP LOCKED
),
renewed AS (
    UPDATE active SET lease_until = now() + CAST(:lease AS interval)
    FROM free WHERE active.job_id = free.job_id
)
SELECT job_id AS id, attempt, pid, cancel_requested_at,
       CAST(EXTRACT(epoch FROM now() - claimed_at) - timeout_seconds AS float8) AS overdue_seconds
FROM active
WHERE worker = :worker AND pid = ANY(:pids)
  AND (job_id, attempt) NOT IN (SELECT job_id, attempt FROM others)
ORDER BY job_id
""")

_CLAIMED_BEFORE = text("""
SELECT job_id, attempt FROM active
WHERE worker = :worker AND claimed_at < now() - make_interval(secs => :seconds)
""")

_JUST_CLAIMED = text("""
SELECT job_id, attempt FROM active
WHERE worker = :worker AND pid = :pid AND claimed_at > now() - CAST(:since AS interval)
""")

_HELD_BY = text("""
SELECT job_id, attempt FROM active WHERE worker = :worker AND pid = :pid
ORDER BY claimed_at, admitted_at, job_id
""")

_SET_PROGRESS = text("""
UPDATE jobs SET progress_fraction = :fraction, progress_message = :message
WHERE id = :id AND attempt = :attempt AND status = :is_running
RETURNING id
""")

_APPEND_LOGS = text("""
INSERT INTO job_logs (job_id, attempt, at, level, message)
SELECT :id, :attempt, line.at, line.level, line.message
FROM unnest(CAST(:at AS timestamptz[]), CAST(:levels AS text[]), CAST(:messages AS text[]))
    WITH ORDINALITY AS line(at, level, message, place)
WHERE EXISTS (
    SELECT FROM jobs WHERE id = :id AND attempt = :attempt AND status = :is_running
)
ORDER BY line.place
RETURNING id
""")


def start(
    session: Session,
    wanted: Sequence[tuple[int, int]],
    *,
    worker: str,
    pid: int | None,
    lease: timedelta,
    token: str | None = None,
) -> tuple[list[Claim], list[Move]]:
    """Claim attempts for one process; those that are no longer to be run are missing.

    Those that the process holds already are not: the answer to an earlier claim was lost on its
    way. A pull worker has no *pid* here and shows the *token* with every report. Its lease never
    lasts longer than the attempt may.
    """
    claimed_by = {"worker": worker, "pid": pid, "lease": lease, "token": token}
    moves = make(session, _START, **_pairs(wanted), **claimed_by)
    jobs = [move.id for move in moves]
    if pid is not None and len(jobs) < len(wanted):
        jobs += _claimed_unheard(session, wanted, worker, pid)
    rows = fetch(session, _CLAIMS, jobs=jobs)
    claims = {row["id"]: _claim(row) for row in rows}
    return [claims[job] for job in dict.fromkeys(job for job, _ in wanted) if job in claims], moves


def _claim(row: Mapping[str, Any]) -> Claim:
    columns = dict(row)
    used = columns["attempt"] - columns.pop("attempts_forgiven")
    config = columns.pop("retry_config")
    return Claim(**columns, is_last_attempt=not retry.has_attempts_left(config, used))


def succeed(session: Session, reports: Sequence[Success]) -> list[Move]:
    """Record attempts that ended well."""
    body = json.dumps([asdict(report) for report in reports], allow_nan=False)
    return make(session, _SUCCEED, reports=body, feed="ended", outcome=Outcome.COMPLETED)


def fail(session: Session, failure: Failure) -> list[Move]:
    """Record an attempt that ended badly: the job is retried, failed, or stopped as asked."""
    found = fetch(session, _STANDING_OF, id=failure.id)
    if not found:
        return []
    standing = found[0]
    if standing["cancel_requested"]:
        return _stop(session, failure, CancelReason.BY_USER)
    failure = _with_crashes(standing, failure)
    counted = _ending(failure) | {"crashed": int(failure.crashed)}
    if _is_final(standing, failure):
        alike = fingerprint(
            standing["type"], failure.error_type, failure.error_message, failure.traceback
        )
        return make(session, _FAIL, feed="ended", **counted, fingerprint=alike)
    delay = _backoff(standing, failure)
    return make(session, _RETRY, feed="released", **counted, delay=delay)


def stop(
    session: Session,
    job: int,
    attempt: int,
    *,
    reason: CancelReason = CancelReason.BY_USER,
    message: str = "stopped on request",
) -> list[Move]:
    """Record that a running attempt has stopped: its job was cancelled, or wants to be."""
    return _stop(session, Failure(job, attempt, "Cancelled", message), reason)


def snooze(session: Session, job: int, attempt: int, *, delay: timedelta) -> list[Move]:
    """Put a running job off for *delay* because its handler asks for it; that is no attempt.

    A job that was asked to stop has stopped.
    """
    if asked := _asked_to_stop(session, [(job, attempt)]):
        return stop(session, *asked[0])
    put_off = _ending(Failure(job, attempt, "Snoozed", "put off by its handler"))
    return make(
        session, _SNOOZE, feed="released", **put_off | {"outcome": Outcome.SNOOZED}, delay=delay
    )


def give_back(session: Session, wanted: Sequence[tuple[int, int]]) -> list[Move]:
    """Return attempts that did not run to their end; they are not counted.

    Those of jobs that were asked to stop have stopped.
    """
    asked = _asked_to_stop(session, wanted)
    stopped = [move for each in asked for move in stop(session, *each)]
    return stopped + make(
        session, _GIVE_BACK, **_pairs(wanted), feed="released", outcome=Outcome.INTERRUPTED
    )


def give_time(session: Session, job: int, attempt: int, *, seconds: float) -> float | None:
    """Let a running attempt go on for *seconds* from now, as far as its job's type allows.

    Returns how many seconds are left to it, which are never fewer than before; None if it is not
    the one that runs.
    """
    left: float | None = run(
        session, _GIVE_TIME, id=job, attempt=attempt, seconds=seconds
    ).scalar_one_or_none()
    return left


def _claimed_unheard(
    session: Session, wanted: Sequence[tuple[int, int]], worker: str, pid: int
) -> list[int]:
    """Return what a process has claimed in an earlier try of the same claim.

    What was claimed before that was not by this process, whose name and number are the same.
    """
    since = 2 * CLAIM_PATIENCE  # each try may take a while
    rows = run(session, _JUST_CLAIMED, worker=worker, pid=pid, since=since)
    return [row.job_id for row in rows if (row.job_id, row.attempt) in wanted]


def _asked_to_stop(session: Session, wanted: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    rows = run(session, _ASKED_TO_STOP, **_pairs(wanted))
    return [(row.id, row.attempt) for row in rows]


def _pairs(wanted: Collection[tuple[int, int]]) -> dict[str, list[int]]:
    return {
        "jobs": [job for job, _ in wanted],
        "attempts": [attempt for _, attempt in wanted],
    }


def _stop(session: Session, failure: Failure, reason: CancelReason) -> list[Move]:
    ending = _ending(failure) | {"outcome": Outcome.CANCELLED}
    return make(session, _STOP, feed="ended", **ending, reason=reason)


def _with_crashes(standing: Mapping[str, Any], failure: Failure) -> Failure:
    """Return *failure* as that of a job that is not to be tried again if it crashed too often."""
    crashes = standing["crashes"] + 1
    if not failure.crashed or crashes < MAX_CRASHES:
        return failure
    said = f"its process died {crashes} times while it ran; the last time: {failure.error_message}"
    return replace(failure, error_type=TOO_MANY_CRASHES, error_message=said, retryable=False)


def _is_final(standing: Mapping[str, Any], failure: Failure) -> bool:
    return not failure.retryable or not retry.has_attempts_left(
        standing["retry_config"], standing["used"]
    )


def _backoff(standing: Mapping[str, Any], failure: Failure) -> timedelta:
    if failure.retry_after is not None:
        return failure.retry_after
    draw = random.random()  # noqa: S311 - spreads retries, hides nothing
    return retry.delay(standing["retry_config"], standing["used"], draw=draw)


def _ending(failure: Failure) -> dict[str, Any]:
    return {
        "id": failure.id,
        "attempt": failure.attempt,
        "outcome": Outcome.LOST if failure.lost else Outcome.FAILED,
        "error_type": failure.error_type,
        "error_message": failure.error_message,
        "traceback": failure.traceback,
        "peak_memory_mb": failure.peak_memory_mb,
        "cpu_seconds": failure.cpu_seconds,
    }


def beat(session: Session, job: int, attempt: int, *, lease: timedelta) -> Beat:
    """Renew the lease of one attempt."""
    row = run(session, _BEAT, id=job, attempt=attempt, lease=lease).first()
    return Beat(alive=row is not None, cancel_requested=bool(row and row[0]))


def renew(
    session: Session,
    *,
    worker: str,
    pids: Sequence[int],
    lease: timedelta,
    others: Collection[tuple[int, int]] = (),
) -> list[Held]:
    """Renew the leases of all a worker's living processes, and tell what they hold.

    *others* are not its own, although name and process are the same. Waits for nobody: an attempt
    that is just being reported is told and not renewed.
    """
    rows = fetch(session, _RENEW, worker=worker, pids=list(pids), lease=lease, **_pairs(others))
    return [Held(**row) for row in rows]


def held_by(session: Session, *, worker: str, pid: int) -> list[tuple[int, int]]:
    """Return the attempts that one process holds, first come first."""
    rows = run(session, _HELD_BY, worker=worker, pid=pid)
    return [(row.job_id, row.attempt) for row in rows]


def claimed_before(session: Session, *, worker: str, seconds: float) -> frozenset[tuple[int, int]]:
    """Return the attempts that were claimed under a worker's name more than *seconds* ago."""
    rows = run(session, _CLAIMED_BEFORE, worker=worker, seconds=seconds)
    return frozenset((row.job_id, row.attempt) for row in rows)


def set_progress(
    session: Session, job: int, attempt: int, fraction: float | None, message: str | None
) -> bool:
    """Show how far a running attempt is; False if it is no longer the one that runs."""
    row = run(
        session, _SET_PROGRESS, id=job, attempt=attempt, fraction=fraction, message=message
    ).first()
    return row is not None


def append_logs(session: Session, job: int, attempt: int, lines: Sequence[LogLine]) -> list[int]:
    """Keep lines of a running attempt in their order and return their ids; none of any other."""
    rows = run(
        session,
        _APPEND_LOGS,
        id=job,
        attempt=attempt,
        at=[line.at for line in lines],
        levels=[line.level for line in lines],
        messages=[line.message for line in lines],
    )
    return list(rows.scalars())
