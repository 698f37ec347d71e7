"""Telling whoever asked for it that a job has ended: what couriers take, and what came of it.

The verb that ends a job leaves a row; see ``moves``. A courier takes it for a while, and a note
names the try it is about, so that a courier presumed dead changes nothing. Only rows of these
tables are locked here, never one of a job.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.callback import Call, Reply
from scheduler.clock import to_rfc3339
from scheduler.store.moves import fetch, run

LEASE = timedelta(seconds=60)
"""How long a taken callback is left to its courier.

Nothing is sent later than TIMEOUT after it was taken, so there is one delivery at a time; the rest
is for names that resolve slowly and a database that is slow to note.
"""

AT_ONCE_PER_OWNER = 4
"""How many callbacks of one owner are on their way at a time: a receiver that does not answer must
not take every sender there is."""

LOGGED_PER_JOB = 100
"""How many tries are remembered of a job, the newest: a day of them, three times over."""

OVERLAP = timedelta(hours=24)
"""How long the secret before the present one signs as well."""

SECRET_PREFIX = "fqs_"  # noqa: S105 - what secrets begin with, so that scanners find leaked ones


@dataclass(frozen=True, slots=True)
class Secret:
    """What signs an owner's callbacks, and until when the one before does."""

    secret: str
    made_at: datetime
    previous_until: datetime | None


_IS_DUE = "due_at <= now() AND (taken_until IS NULL OR taken_until <= now())"

# Owner by owner, those with the least on its way first; who waits behind ten thousand of somebody
# else's is found as fast as if there were none of them. Only what is chosen is locked, so that
# others find the rest at the same moment.
_TAKE = text(f"""
WITH RECURSIVE owners AS (
    (SELECT owner_id FROM callbacks WHERE due_at IS NOT NULL ORDER BY owner_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT owner_id FROM callbacks
        WHERE due_at IS NOT NULL AND owner_id > owners.owner_id ORDER BY owner_id LIMIT 1
    )
    FROM owners WHERE owners.owner_id IS NOT NULL
),
due AS (
    SELECT one.id, one.due_at, sent.count
           + row_number() OVER (PARTITION BY owners.owner_id ORDER BY one.due_at, one.id) AS place
    FROM owners
    CROSS JOIN LATERAL (
        SELECT count(*) FROM callbacks WHERE owner_id = owners.owner_id AND taken_until > now()
    ) AS sent
    CROSS JOIN LATERAL (
        SELECT id, due_at FROM callbacks
        WHERE owner_id = owners.owner_id AND {_IS_DUE}
        ORDER BY due_at, id LIMIT GREATEST(:per_owner - sent.count, 0)
    ) AS one
),
chosen AS (SELECT id FROM due ORDER BY place, due_at, id LIMIT :limit),
held AS (
    SELECT id FROM callbacks WHERE id = ANY(ARRAY(SELECT id FROM chosen)) AND {_IS_DUE}
    FOR UPDATE SKIP LOCKED
),
taken AS (
    UPDATE callbacks SET taken_until = now() + CAST(:lease AS interval), tries = tries + 1
    FROM held WHERE callbacks.id = held.id
    RETURNING callbacks.*
)
SELECT taken.id, taken.owner_id, taken.tries, taken.tries_forgiven, taken.delivery_id,
       taken.outcome, now() AS at, jobs.callback_url, jobs.job_id, jobs.type, jobs.created_at,
       jobs.request_id, users.username
FROM taken JOIN jobs ON jobs.id = taken.job_id JOIN users ON users.id = taken.owner_id
ORDER BY taken.due_at, taken.id
""")

# One after the other, so that the log of a job has its tries in their order.
_NOTE = text("""
WITH noted AS (
    UPDATE callbacks
    SET taken_until = NULL, due_at = now() + CAST(:again_in AS interval),
        delivered_at = CASE WHEN :delivered THEN now() END,
        gave_up_at = CASE WHEN NOT :delivered AND CAST(:again_in AS interval) IS NULL
                          THEN now() END
    WHERE id = :id AND tries = :number AND taken_until IS NOT NULL
    RETURNING id, job_id
),
logged AS (
    INSERT INTO callback_deliveries (callback_id, number, at, status_code, error, milliseconds)
    SELECT id, :number, :at, :status_code, :error, :milliseconds FROM noted
)
SELECT job_id FROM noted
""")

_FORGET_TRIES = text("""
DELETE FROM callback_deliveries WHERE id IN (
    SELECT callback_deliveries.id
    FROM callback_deliveries JOIN callbacks ON callbacks.id = callback_deliveries.callback_id
    WHERE callbacks.job_id = :job ORDER BY callback_deliveries.id DESC OFFSET :kept
)
""")

# One that a courier is about is just being sent.
_SEND_AGAIN = text("""
UPDATE callbacks
SET due_at = now(), delivered_at = NULL, gave_up_at = NULL, taken_until = NULL,
    tries_forgiven = tries
WHERE id = (SELECT max(id) FROM callbacks WHERE job_id = :job)
  AND (taken_until IS NULL OR taken_until <= now())
RETURNING id
""")

_ENSURE_SECRETS = text("""
INSERT INTO callback_secrets (user_id, secret, made_at)
SELECT owner, secret, now()
FROM unnest(CAST(:owners AS bigint[]), CAST(:secrets AS text[])) AS made(owner, secret)
ORDER BY owner
ON CONFLICT DO NOTHING
""")

_SECRETS = text("""
SELECT user_id, secret, made_at,
       CASE WHEN previous_until > now() THEN previous END AS previous,
       CASE WHEN previous_until > now() THEN previous_until END AS previous_until
FROM callback_secrets WHERE user_id = ANY(:owners)
""")

_ROTATE = text("""
INSERT INTO callback_secrets (user_id, secret, made_at) VALUES (:owner, :secret, now())
ON CONFLICT (user_id) DO UPDATE
SET secret = excluded.secret, made_at = excluded.made_at, previous = callback_secrets.secret,
    previous_until = now() + CAST(:overlap AS interval)
""")


def take(session: Session, *, limit: int) -> list[Call]:
    """Take callbacks that are due, *limit* at most and no owner's before all others'.

    They are this courier's for LEASE; one that others have taken is left alone.
    """
    rows = fetch(session, _TAKE, limit=limit, per_owner=AT_ONCE_PER_OWNER, lease=LEASE)
    signing = _signing(session, {row["owner_id"] for row in rows})
    return [_call(row, signing[row["owner_id"]]) for row in rows]


def _call(row: Mapping[str, Any], signing: Sequence[str]) -> Call:
    return Call(
        id=row["id"],
        number=row["tries"],
        used=row["tries"] - row["tries_forgiven"],
        delivery_id=str(row["delivery_id"]),
        url=row["callback_url"],
        about=_about(row),
        secrets=signing,
        at=row["at"],
    )


def _about(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job as it ended, in the words of an answer."""
    end = row["outcome"]
    error = {"type": end["error_type"], "message": end["error_message"]}
    return {
        "job_id": row["job_id"],
        "owner": row["username"],
        "type": row["type"],
        "status": end["status"],
        "reason": end["reason"],
        "result": end["result"],
        "error": error if error["type"] is not None else None,
        "attempt": end["attempt"],
        "created_at": to_rfc3339(row["created_at"]),
        "started_at": _instant(end["started_at"]),
        "finished_at": _instant(end["finished_at"]),
        "request_id": row["request_id"],
    }


def _instant(kept: str | None) -> str | None:
    return None if kept is None else to_rfc3339(datetime.fromisoformat(kept))


def note(session: Session, call: Call, reply: Reply, *, again_in: timedelta | None) -> bool:
    """Write down what came of a try: delivered, to be tried again, or given up.

    False if the try is not the last one any more, was noted before, or its job was forgotten; then
    nothing changes.
    """
    noted = run(
        session,
        _NOTE,
        id=call.id,
        number=call.number,
        at=call.at,
        delivered=reply.is_success,
        again_in=again_in,
        status_code=reply.status_code,
        error=reply.error,
        milliseconds=reply.milliseconds,
    ).first()
    if noted is None:
        return False
    run(session, _FORGET_TRIES, job=noted.job_id, kept=LOGGED_PER_JOB)
    return True


def send_again(session: Session, job: int) -> bool:
    """Make the last callback of a job due at once, with fresh tries; False if there was none to.

    One that is on its way is left as it is.
    """
    return run(session, _SEND_AGAIN, job=job).first() is not None


def secret_of(session: Session, owner_id: int) -> Secret:
    """Return what signs an owner's callbacks, made when it is first asked for."""
    row = _secrets(session, [owner_id])[owner_id]
    return Secret(row["secret"], row["made_at"], row["previous_until"])


def rotate_secret(session: Session, owner_id: int) -> Secret:
    """Sign an owner's callbacks with a new secret, and for OVERLAP with the one before as well."""
    run(session, _ROTATE, owner=owner_id, secret=_new_secret(), overlap=OVERLAP)
    return secret_of(session, owner_id)


def _signing(session: Session, owners: set[int]) -> dict[int, Sequence[str]]:
    rows = _secrets(session, sorted(owners)) if owners else {}
    return {
        owner: [one for one in (row["secret"], row["previous"]) if one]
        for owner, row in rows.items()
    }


def _secrets(session: Session, owners: Sequence[int]) -> dict[int, dict[str, Any]]:
    found = {row["user_id"]: row for row in fetch(session, _SECRETS, owners=list(owners))}
    missing = [owner for owner in owners if owner not in found]
    if not missing:
        return found
    made = [_new_secret() for _ in missing]
    run(session, _ENSURE_SECRETS, owners=missing, secrets=made)
    return {row["user_id"]: row for row in fetch(session, _SECRETS, owners=list(owners))}


def _new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(32)
