"""What the ticks of schedules do: the leader makes their jobs, inside its turn.

The jobs of some ticks and the note that these are seen to are one transaction. Should a tick come
up again all the same, the name of its job is taken, and nothing is doubled.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler.database import is_in_the_way
from scheduler.errors import (
    BacklogFull,
    FairqError,
    JobIdConflict,
    OwnerInactive,
    SubmissionRefused,
    TimingInvalid,
)
from scheduler.states import UNFINISHED, CancelReason, CatchUp, Overlap, Role
from scheduler.store.cancellation import cancel_all
from scheduler.store.moves import Move, fetch, run
from scheduler.store.schedules import job_name, submission_of
from scheduler.store.submission import Submission, Submitted, submit
from scheduler.ticks import due, timing_of

ROOM_EXPECTED_AFTER = timedelta(seconds=10)
"""When ticks that wait for room in a full backlog are tried again."""

TRIED_AGAIN_AFTER = timedelta(minutes=1)
"""When ticks are tried again whose jobs could not be made for a reason that nobody foresaw."""

INTERNAL_ERROR = "internal_error"
"""The code of such a reason, as of one that ends a request."""

PATIENCE = timedelta(milliseconds=500)
"""How long a turn may take and still wait for others, who are submitting a job of the same name."""

_Row = Mapping[str, Any]

# Owner by owner, so that the many schedules of one keep nobody else's waiting.
_DUE = text("""
WITH due AS (
    SELECT id, row_number() OVER (PARTITION BY owner_id ORDER BY due_at, id) AS place
    FROM schedules WHERE NOT paused AND due_at <= :now
)
SELECT schedules.id, schedules.owner_id, name, template, cron, every_seconds, timezone, overlap,
       catch_up, next_at,
       (SELECT active AND role <> :viewer FROM users WHERE users.id = schedules.owner_id) AS may_own
FROM due JOIN schedules USING (id)
WHERE NOT schedules.paused AND schedules.due_at <= :now
ORDER BY due.place, schedules.due_at, schedules.id LIMIT :limit
FOR NO KEY UPDATE OF schedules SKIP LOCKED
""")

_UNFINISHED = """
SELECT id FROM jobs
WHERE owner_id = :owner AND schedule = :schedule AND status = ANY(:unfinished)
"""
_HAS_UNFINISHED = text(f"SELECT EXISTS ({_UNFINISHED})")

# A job that somebody is moving at this moment makes its schedule wait for the next turn.
_TAKE_UNFINISHED = text(f"{_UNFINISHED} ORDER BY id FOR NO KEY UPDATE NOWAIT")

_SEEN_TO = text("""
UPDATE schedules
SET next_at = :next_at, due_at = :due_at, paused = paused OR :stopped,
    last_job_id = COALESCE(:job_id, last_job_id), last_run_at = COALESCE(:ran_at, last_run_at),
    skipped = skipped + :skipped, last_skipped_at = COALESCE(:skipped_at, last_skipped_at),
    last_error_code = COALESCE(:error_code, last_error_code),
    last_error = COALESCE(:error, last_error), last_error_at = COALESCE(:error_at, last_error_at)
WHERE id = :id
""")
_NOTHING = dict.fromkeys(
    ("job_id", "ran_at", "skipped_at", "error_code", "error", "error_at"), None
) | {"skipped": 0, "stopped": False}

_PATIENT_UNTIL = text("SELECT clock_timestamp() + CAST(:patience AS interval)")

# In milliseconds, of which none would be no limit.
_WAIT_UNTIL = text("""
SELECT set_config('lock_timeout', CAST(GREATEST(1, CEIL(
    1000 * EXTRACT(epoch FROM CAST(:until AS timestamptz) - clock_timestamp()))) AS text), true)
""")
_WAIT_AS_BEFORE = text("SET LOCAL lock_timeout TO DEFAULT")


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """What became of the ticks of a turn; *has_more*: some are still due."""

    moves: list[Move]
    has_more: bool


@dataclass(slots=True)
class _Jobs:
    """The jobs of some ticks, and why there are no more of them."""

    ticks: Sequence[datetime] = ()
    moves: list[Move] = field(default_factory=list)
    skipped: Sequence[datetime] = ()  # an earlier job is unfinished
    without_room: Sequence[datetime] = ()  # their jobs wait for room in the backlog
    refusal: SubmissionRefused | None = None


def make_due(session: Session, *, now: datetime, limit: int, ticks: int) -> Made:
    """Make the jobs of ticks that are due: of *limit* schedules, and about *ticks* at most.

    What is refused, or fails, is noted on its schedule, and keeps no other from its jobs.
    """
    rows = fetch(session, _DUE, now=now, limit=limit, viewer=Role.VIEWER)
    if not rows:
        return Made([], has_more=False)
    until, most = run(session, _PATIENT_UNTIL, patience=PATIENCE).scalar_one(), ticks // len(rows)
    made = []
    for row in rows:
        run(session, _WAIT_UNTIL, until=until)
        made.append(_see_to_apart(session, row, now, max(1, most)))
    run(session, _WAIT_AS_BEFORE)
    seen_to = [one for one in made if one is not None]
    has_more = len(seen_to) == limit or any(one.has_more for one in seen_to)
    return Made([move for one in seen_to for move in one.moves], has_more)


def _see_to_apart(session: Session, row: _Row, now: datetime, most: int) -> Made | None:
    """See to the ticks of one schedule; None leaves them for another turn, as others are at it."""
    try:
        with session.begin_nested():
            return _see_to(session, row, now, most)
    except DBAPIError as problem:
        if problem.connection_invalidated:
            raise
        if is_in_the_way(problem):
            return None
        return _put_off(session, row, problem, now)
    except Exception as problem:  # noqa: BLE001 - one schedule must not stop the turns of all
        return _put_off(session, row, problem, now)


def _put_off(session: Session, row: _Row, problem: Exception, now: datetime) -> Made:
    """Note what went wrong, and try again later: no tick is lost that has come to its job then."""
    log.error(
        "ticks put off",
        extra={"schedule": row["name"], "owner_id": row["owner_id"]},
        exc_info=problem,
    )
    said = f"{type(problem).__name__}: {problem}".partition("\n")[0]
    became = {"error_code": INTERNAL_ERROR, "error": said, "error_at": now}
    _note(session, row, row["next_at"], now + TRIED_AGAIN_AFTER, **became)
    return Made([], has_more=False)


def _see_to(session: Session, row: _Row, now: datetime, most: int) -> Made:
    next_at, catch_up = row["next_at"], CatchUp(row["catch_up"])
    try:
        timing = timing_of(row["cron"], row["every_seconds"], row["timezone"], tick=next_at)
        found = due(timing, catch_up, next_at=next_at, now=now, most=most)
    except TimingInvalid as problem:
        _note(session, row, next_at, now, stopped=True, **_error(problem, problem.field, now))
        return Made([], has_more=False)
    jobs = _make_jobs(session, row, found.ticks, waits_for_room=catch_up is CatchUp.ALL)
    if jobs.without_room:
        next_at, due_at = jobs.without_room[0], now + ROOM_EXPECTED_AFTER
    else:
        # Behind what came due meanwhile, so that catching up keeps nobody waiting.
        next_at, due_at = found.next_at, max(found.next_at, now)
    _note(session, row, next_at, due_at, **_outcome(row, jobs, now))
    return Made(jobs.moves, has_more=due_at <= now)


def _make_jobs(
    session: Session, row: _Row, ticks: Sequence[datetime], *, waits_for_room: bool
) -> _Jobs:
    """Make a job of each of *ticks*, as far as overlap and the owner's backlog allow."""
    skips = row["overlap"] == Overlap.SKIP
    if ticks and not row["may_own"]:
        return _Jobs(refusal=OwnerInactive())
    if ticks and skips and run(session, _HAS_UNFINISHED, **_earlier(row)).scalar_one():
        return _Jobs(skipped=ticks)
    jobs = _Jobs()
    while ticks:
        wanted = ticks[:1] if skips else ticks
        try:
            jobs.moves = _submit(session, row, wanted)
            jobs.ticks, jobs.skipped = wanted, ticks[len(wanted) :]
            break
        except JobIdConflict as refusal:
            jobs.refusal, taken = refusal, refusal.job_id
            ticks = [tick for tick in ticks if job_name(row["name"], tick) != taken]
        except BacklogFull as refusal:
            jobs.refusal, fit = refusal, len(wanted) // 2
            jobs.without_room = ticks[fit:] if waits_for_room else ()
            ticks = ticks[:fit]
        except SubmissionRefused as refusal:  # one is refused as all of them are
            jobs.refusal = refusal
            break
    return jobs


def _submit(session: Session, row: _Row, ticks: Sequence[datetime]) -> list[Move]:
    """Make the jobs of *ticks*, all or none, each in the place of earlier ones if told so."""
    wanted = [
        submission_of(row["template"], job_id=job_name(row["name"], tick), schedule=row["name"])
        for tick in ticks
    ]
    with session.begin_nested():
        if row["overlap"] != Overlap.REPLACE:
            return _take_in(session, row, wanted).moves
        earlier = list(run(session, _TAKE_UNFINISHED, **_earlier(row)).scalars())
        moves = cancel_all(session, earlier, reason=CancelReason.REPLACED)
        submitted = _take_in(session, row, wanted)
        replaced = cancel_all(session, submitted.ids[:-1], reason=CancelReason.REPLACED)
        return moves + submitted.moves + replaced


def _take_in(session: Session, row: _Row, wanted: Sequence[Submission]) -> Submitted:
    # They fitted when the schedule was made: now they wait, should a large worker be away.
    return submit(session, row["owner_id"], wanted, batch=False, of_any_size=True)


def _earlier(row: _Row) -> dict[str, Any]:
    return {
        "owner": row["owner_id"],
        "schedule": row["name"],
        "unfinished": sorted(UNFINISHED),
    }


def _outcome(row: _Row, jobs: _Jobs, now: datetime) -> dict[str, Any]:
    """Return what there is to remember of ticks that were seen to."""
    became: dict[str, Any] = {}
    if jobs.ticks:
        became |= {"job_id": job_name(row["name"], jobs.ticks[-1]), "ran_at": jobs.ticks[-1]}
    if jobs.skipped:
        became |= {"skipped": len(jobs.skipped), "skipped_at": jobs.skipped[-1]}
    if jobs.refusal is not None:
        became |= _error(jobs.refusal, jobs.refusal.path, now)
    return became


def _error(problem: FairqError, path: str, now: datetime) -> dict[str, Any]:
    message = f"{path}: {problem}" if path else str(problem)
    return {"error_code": problem.code, "error": message, "error_at": now}


def _note(session: Session, row: _Row, next_at: datetime, due_at: datetime, **became: Any) -> None:
    """Note how far a schedule has come and what became of its ticks."""
    run(session, _SEEN_TO, id=row["id"], next_at=next_at, due_at=due_at, **(_NOTHING | became))
