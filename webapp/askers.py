"""The pull workers there are: those that hold jobs, and those that asked for one lately.

What they hold is known by their leases. That they asked is a note in Redis and no more: a broker
that is away or has forgotten hides only who is idle.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis, RedisError
from sqlalchemy.orm import Session

from scheduler.states import Executor
from webapp import queries
from webapp.queries import Running

LATELY = timedelta(minutes=10)
"""How long it is remembered that a worker asked."""

MOST = 1_000
"""How many workers are remembered, those that asked last."""

_KEY = "fairq:askers"


@dataclass(frozen=True, slots=True)
class Asker:
    """A pull worker by the name it gives itself, whose token it used, and when it asked last."""

    name: str
    user_id: int
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class PullWorker:
    """A pull worker as operators see it."""

    name: str
    asked_by: str | None
    asked_at: datetime | None
    running: list[Running]


def note(redis: Redis, name: str, user_id: int, *, now: datetime) -> None:
    """Remember that a worker asks now."""
    with suppress(RedisError), redis.pipeline(transaction=False) as pipeline:
        pipeline.zadd(_KEY, {json.dumps([name, user_id]): now.timestamp()})
        pipeline.zremrangebyscore(_KEY, "-inf", (now - LATELY).timestamp())
        pipeline.zremrangebyrank(_KEY, 0, -MOST - 1)
        pipeline.expire(_KEY, LATELY)
        pipeline.execute()


def lately(redis: Redis, *, now: datetime) -> dict[str, Asker]:
    """Return who asked lately, by name; of several with one name, the one that asked last."""
    try:
        found: Any = redis.zrangebyscore(_KEY, (now - LATELY).timestamp(), "+inf", withscores=True)
    except RedisError:
        return {}
    named = ((*json.loads(member), score) for member, score in found)
    return {
        name: Asker(name, user_id, datetime.fromtimestamp(score, UTC))
        for name, user_id, score in named
    }


def pull_workers(session: Session, redis: Redis, *, now: datetime) -> list[PullWorker]:
    """Return the pull workers that asked lately or hold a job, by name."""
    running = queries.running_on(session, Executor.PULL)
    asked = lately(redis, now=now)
    usernames = queries.names_of(session, {each.user_id for each in asked.values()})
    return [
        _pull_worker(name, asked.get(name), usernames, running.get(name, []))
        for name in sorted({*running, *asked})
    ]


def _pull_worker(
    name: str, asker: Asker | None, usernames: Mapping[int, str], running: list[Running]
) -> PullWorker:
    if asker is None:
        return PullWorker(name, None, None, running)
    return PullWorker(name, usernames.get(asker.user_id), asker.asked_at, running)
