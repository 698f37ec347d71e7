"""What others are told, and that nobody suffers when nobody can be told."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.client import PubSub

from local.home import free_port
from scheduler.database import open_redis
from scheduler.events import (
    LIVE_CHANNEL,
    WAKE_KEY,
    Announcer,
    Standing,
    read_curve,
    read_standing,
    read_standings,
    to_rfc3339,
    write_curve,
    write_standings,
)
from scheduler.policy.curve import Queued, make_curve
from scheduler.snapshot import Clock
from scheduler.states import JobStatus
from scheduler.store.moves import Move
from scheduler.store.work import LogLine
from tests.conftest import make_settings
from tests.factories import MINUTE, NOON
from tests.services import Services

MOVE = Move(
    seq=7,
    id=3,
    job_id="mine",
    owner_id=5,
    verb="start",
    status=JobStatus.RUNNING,
    attempt=2,
    at=NOON,
    data={"worker": "w"},
)


@pytest.fixture
def listener(redis_client: Redis) -> Iterator[PubSub]:
    listener = redis_client.pubsub()
    listener.subscribe(LIVE_CHANNEL)
    assert _next(listener)
    yield listener
    listener.close()


@pytest.fixture
def away(services: Services, tmp_path: Path) -> Iterator[Redis]:
    nobody = make_settings(services, tmp_path, REDIS_URL=f"redis://127.0.0.1:{free_port()}")
    with open_redis(nobody) as client:
        yield client


def _next(listener: PubSub) -> dict[str, Any] | None:
    return listener.get_message(timeout=5)


def _heard(listener: PubSub) -> dict[str, Any]:
    message = _next(listener)
    assert message
    heard: dict[str, Any] = json.loads(message["data"])
    return heard


def test_moves_are_told_without_internal_ids(redis_client: Redis, listener: PubSub) -> None:
    Announcer(redis_client).tell([MOVE])

    assert _heard(listener) == {
        "kind": "moves",
        "moves": [
            {
                "seq": 7,
                "job_id": "mine",
                "owner_id": 5,
                "verb": "start",
                "status": "running",
                "attempt": 2,
                "at": "2026-01-15T12:00:00Z",
                "data": {"worker": "w"},
            }
        ],
    }


def test_no_moves_are_not_told(redis_client: Redis, listener: PubSub) -> None:
    announcer = Announcer(redis_client)

    announcer.tell([])
    announcer.tell([MOVE])

    assert len(_heard(listener)["moves"]) == 1


def test_progress_is_told(redis_client: Redis, listener: PubSub) -> None:
    Announcer(redis_client).progress(5, "mine", 2, 0.5, "half")

    assert _heard(listener) == {
        "kind": "progress",
        "owner_id": 5,
        "job_id": "mine",
        "attempt": 2,
        "fraction": 0.5,
        "message": "half",
    }


def test_lines_are_told_with_their_ids(redis_client: Redis, listener: PubSub) -> None:
    Announcer(redis_client).log(5, "mine", 2, [(11, LogLine(NOON, "INFO", "hello"))])

    assert _heard(listener) == {
        "kind": "log",
        "owner_id": 5,
        "job_id": "mine",
        "attempt": 2,
        "lines": [{"id": 11, "at": "2026-01-15T12:00:00Z", "level": "INFO", "message": "hello"}],
    }


def test_many_wakes_are_one(redis_client: Redis) -> None:
    announcer = Announcer(redis_client)

    for _ in range(5):
        announcer.wake()

    assert redis_client.llen(WAKE_KEY) == 1


def test_a_broker_that_is_away_is_warned_of_once_and_never_raised(
    away: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    announcer, began = Announcer(away), time.monotonic()

    announcer.tell([MOVE])
    announcer.wake()
    announcer.progress(5, "mine", 2, 0.5, None)
    announcer.log(5, "mine", 2, [])

    assert time.monotonic() - began < 1  # a pause here would hold up every request
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert read_standing(away, 5) == {}
    assert read_standings(away, [5, 6]) == {5: {}, 6: {}}


def test_a_broker_that_does_not_even_answer_holds_up_one_caller_a_second(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with black_hole() as port:
        nowhere = make_settings(services, tmp_path, REDIS_URL=f"redis://127.0.0.1:{port}")
        with open_redis(nowhere, socket_timeout=0.2) as client:
            announcer, began = Announcer(client), time.monotonic()

            for _ in range(10):
                announcer.wake()

            took = time.monotonic() - began
            monkeypatch.setattr(announcer, "_again_at", time.monotonic())
            announcer.wake()
    assert 0.2 <= took < 1
    assert time.monotonic() - began >= took + 0.2


@contextmanager
def black_hole() -> Iterator[int]:
    """A port at which connections are neither taken nor refused: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as queue:
        port: int = server.getsockname()[1]
        for _ in range(3):
            waiting = queue.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


def test_a_broker_that_is_back_is_told_again(
    redis_client: Redis, away: Redis, listener: PubSub
) -> None:
    announcer = Announcer(away)
    announcer.tell([MOVE])
    announcer._redis = redis_client

    announcer.tell([MOVE])

    assert _heard(listener)["kind"] == "moves"


def test_standings_are_read_as_they_were_written(redis_client: Redis) -> None:
    known = {
        3: Standing(1, "resources", "Waits for 1 CPU unit.", NOON, NOON + MINUTE, "simulation"),
        4: Standing(2, "no_worker", "Waits for a worker."),
    }

    write_standings(redis_client, {5: known, 6: {}})

    assert read_standing(redis_client, 5) == known
    assert read_standing(redis_client, 6) == {}
    assert read_standing(redis_client, 7) == {}
    assert read_standings(redis_client, [7, 5, 6]) == {7: {}, 5: known, 6: {}}
    assert read_standings(redis_client, []) == {}


def test_standings_are_not_quoted_for_ever(redis_client: Redis) -> None:
    write_standings(redis_client, {5: {3: Standing(1, "turn", "Waits.")}})

    assert [0 < redis_client.ttl(key) <= 10 for key in redis_client.keys("fairq:standing:*")] == [
        True
    ]


def test_a_curve_is_read_as_it_was_written(redis_client: Redis) -> None:
    lines = [Queued(float(n), 1.0, 10 * n, 0.5) for n in range(1, 50)]
    curve = make_curve(lines, clock=Clock(3.0, 0.5), starts=2.0)

    assert read_curve(redis_client) is None
    write_curve(redis_client, curve)

    read = read_curve(redis_client)
    assert read is not None
    assert [read.at(key) for key in range(100)] == [curve.at(key) for key in range(100)]
    assert (read.starts, read.bounds) == (curve.starts, curve.bounds)
    assert 0 < redis_client.ttl("fairq:curve") <= 30


def test_without_a_broker_there_is_no_curve(away: Redis) -> None:
    assert read_curve(away) is None


def test_instants_are_written_as_answers_carry_them() -> None:
    assert to_rfc3339(datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)) == (
        "2026-01-02T03:04:05.000678Z"
    )
