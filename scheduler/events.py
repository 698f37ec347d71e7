"""Telling others what happened, after it was committed.

All of it is best effort: a broker that is away loses messages and never jobs, because the
scheduler looks by itself and pages fetch again when they reconnect.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis, RedisError
from redis import TimeoutError as RedisTimeout

from scheduler.clock import to_rfc3339
from scheduler.policy.curve import Curve, curve_from_json, curve_to_json
from scheduler.store.moves import Move
from scheduler.store.work import LogLine

LIVE_CHANNEL = "fairq:live"
"""Where browsers' servers listen for what changed."""

WAKE_KEY = "fairq:wake"
"""A list whose first item wakes the leading scheduler."""

_STANDING_KEY = "fairq:standing:"
_STANDING_SECONDS = 10  # a leader that is gone must not be quoted for long
_CURVE_KEY = "fairq:curve"
_CURVE_SECONDS = 30  # it is drawn less often, and says no more than *about*

_PAUSE_SECONDS = 1.0  # a broker that does not even refuse holds up whoever tells it something

log = logging.getLogger(__name__)


class Announcer:
    """Tells browsers and the scheduler that something changed."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._away = False
        self._again_at = 0.0

    def tell(self, moves: Sequence[Move]) -> None:
        """Publish moves to whoever may see their jobs."""
        if moves:
            self._publish({"kind": "moves", "moves": [_move_to_json(move) for move in moves]})

    def offers(self, asks: Sequence[int]) -> None:
        """Call the pull workers whose asks were served."""
        if asks:
            self._publish({"kind": "offers", "asks": list(asks)})

    def progress(
        self, owner_id: int, job_id: str, attempt: int, fraction: float | None, message: str | None
    ) -> None:
        """Publish how far a running job is."""
        self._publish(
            {
                "kind": "progress",
                "owner_id": owner_id,
                "job_id": job_id,
                "attempt": attempt,
                "fraction": fraction,
                "message": message,
            }
        )

    def log(
        self, owner_id: int, job_id: str, attempt: int, lines: Sequence[tuple[int, LogLine]]
    ) -> None:
        """Publish lines a job wrote, each with the id it was kept under."""
        shown = [
            {"id": number, "at": to_rfc3339(line.at), "level": line.level, "message": line.message}
            for number, line in lines
        ]
        self._publish(
            {
                "kind": "log",
                "owner_id": owner_id,
                "job_id": job_id,
                "attempt": attempt,
                "lines": shown,
            }
        )

    def wake(self) -> None:
        """Make the leading scheduler look now; many calls share one look."""
        self._attempt(self._push_wake)

    def _push_wake(self) -> None:
        pipeline = self._redis.pipeline()
        pipeline.lpush(WAKE_KEY, 1)
        pipeline.ltrim(WAKE_KEY, 0, 0)
        pipeline.execute()

    def _publish(self, message: Mapping[str, Any]) -> None:
        self._attempt(lambda: self._redis.publish(LIVE_CHANNEL, json.dumps(message)))

    def _attempt(self, act: Callable[[], object]) -> None:
        if time.monotonic() < self._again_at:
            return
        try:
            act()
        except RedisError as problem:
            self._went_away(problem)
        else:
            self._away = False

    def _went_away(self, problem: RedisError) -> None:
        if not self._away:
            log.warning("broker away, changes are not announced", extra={"problem": str(problem)})
        self._away = True
        if isinstance(problem, RedisTimeout):
            self._again_at = time.monotonic() + _PAUSE_SECONDS


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a waiting job stands, by the pass that left it waiting."""

    position: int
    code: str
    message: str
    earliest: datetime | None = None
    latest: datetime | None = None
    method: str | None = None


def write_standings(redis: Redis, by_owner: Mapping[int, Mapping[int, Standing]]) -> None:
    """Keep for a moment what the leader knows of each owner's waiting jobs."""
    pipeline = redis.pipeline(transaction=False)
    for owner, standings in by_owner.items():
        body = {job: _standing_to_json(standing) for job, standing in standings.items()}
        pipeline.set(f"{_STANDING_KEY}{owner}", json.dumps(body), ex=_STANDING_SECONDS)
    pipeline.execute()


def read_standing(redis: Redis, owner_id: int) -> dict[int, Standing]:
    """Return what the leader last knew of an owner's waiting jobs; nothing if that is unknown."""
    return read_standings(redis, [owner_id])[owner_id]


def read_standings(redis: Redis, owner_ids: Sequence[int]) -> dict[int, dict[int, Standing]]:
    """Return likewise what is known of the waiting jobs of several owners, in one question."""
    try:
        kept = redis.mget([f"{_STANDING_KEY}{owner}" for owner in owner_ids]) if owner_ids else []
    except RedisError:
        kept = [None] * len(owner_ids)
    return {owner: _standings_of(body) for owner, body in zip(owner_ids, kept, strict=True)}


def write_curve(redis: Redis, curve: Curve) -> None:
    """Keep for a moment how many jobs go before a place that the standings do not reach."""
    redis.set(_CURVE_KEY, json.dumps(curve_to_json(curve)), ex=_CURVE_SECONDS)


def read_curve(redis: Redis) -> Curve | None:
    """Return the leader's last curve, or None if there is none."""
    try:
        body = redis.get(_CURVE_KEY)
    except RedisError:
        return None
    return curve_from_json(json.loads(body)) if isinstance(body, str) else None


def _move_to_json(move: Move) -> dict[str, Any]:
    # Written out, because asdict copies deeply and batches are large. The internal id stays here:
    # outside a job goes by its owner and job_id.
    return {
        "seq": move.seq,
        "job_id": move.job_id,
        "owner_id": move.owner_id,
        "verb": move.verb,
        "status": move.status,
        "attempt": move.attempt,
        "at": to_rfc3339(move.at),
        "data": move.data,
    }


def _standing_to_json(standing: Standing) -> dict[str, Any]:
    # Written out for the same reason as moves.
    return {
        "position": standing.position,
        "code": standing.code,
        "message": standing.message,
        "earliest": standing.earliest and to_rfc3339(standing.earliest),
        "latest": standing.latest and to_rfc3339(standing.latest),
        "method": standing.method,
    }


def _standings_of(body: object) -> dict[int, Standing]:
    if not isinstance(body, str):
        return {}
    return {int(job): _standing_from_json(fields) for job, fields in json.loads(body).items()}


def _standing_from_json(fields: Mapping[str, Any]) -> Standing:
    earliest, latest = fields["earliest"], fields["latest"]
    return Standing(
        position=fields["position"],
        code=fields["code"],
        message=fields["message"],
        earliest=datetime.fromisoformat(earliest) if earliest else None,
        latest=datetime.fromisoformat(latest) if latest else None,
        method=fields["method"],
    )
