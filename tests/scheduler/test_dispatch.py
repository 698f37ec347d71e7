"""What reaches Celery's queues, and what happens when nobody is there to take it."""

import base64
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError as BrokerAway
from redis import Redis

from local.home import free_port
from scheduler import dispatch
from scheduler.dispatch import HARD_LIMIT_GRACE_SECONDS, RUN_TASK, Dispatcher, Sent
from scheduler.states import JobClass
from scheduler.store.admission import Parcel
from tests.chaos.proxy import Proxy
from tests.services import Services


@pytest.fixture
def dispatcher(services: Services, redis_client: Redis) -> Dispatcher:
    return Dispatcher(Celery(broker=services.redis_url))


def _messages(redis: Redis, queue: str) -> list[dict[str, object]]:
    """Return what lies in a queue, the next one first."""
    return [json.loads(body) for body in reversed(redis.lrange(queue, 0, -1))]


def test_a_parcel_is_a_message_in_the_queue_of_its_class(
    dispatcher: Dispatcher, redis_client: Redis
) -> None:
    dispatcher.send([Parcel(7, 2, JobClass.HIGH, 1.5)])

    (message,) = _messages(redis_client, JobClass.HIGH)
    headers = message["headers"]
    args, kwargs, _ = json.loads(base64.b64decode(str(message["body"])))
    assert (args, kwargs) == ([[[7, 2]]], {})
    assert isinstance(headers, dict)
    assert (headers["task"], headers["id"]) == (RUN_TASK, "7:2")
    assert headers["timelimit"] == [1.5 + HARD_LIMIT_GRACE_SECONDS, 1.5]
    assert (headers["eta"], headers["expires"], headers["ignore_result"]) == (None, None, True)


def test_messages_of_a_queue_are_taken_in_the_order_they_were_sent(
    dispatcher: Dispatcher, redis_client: Redis
) -> None:
    dispatcher.send([Parcel(number, 1, JobClass.LOW, 60.0) for number in range(5)])

    ids = [message["headers"]["id"] for message in _messages(redis_client, JobClass.LOW)]  # type: ignore[index]
    assert ids == [f"{number}:1" for number in range(5)]


def test_a_broker_that_is_away_is_said_to_be_at_once(tmp_path: Path) -> None:
    dispatcher = Dispatcher(Celery(broker=f"redis://127.0.0.1:{free_port()}"))
    began = time.monotonic()

    sent = dispatcher.send([Parcel(7, 2, JobClass.HIGH, 1.5)])

    assert sent.count == 0
    assert isinstance(sent.problem, BrokerAway)
    assert time.monotonic() - began < 2  # a turn that waits here is taken for frozen


def test_what_the_broker_does_not_take_ends_the_sending_and_what_went_out_is_told(
    services: Services, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Celery(broker=services.redis_url)
    dispatcher, really_send = Dispatcher(app), app.send_task

    def send_task(*given: Any, **named: Any) -> Any:
        if named["task_id"] == "3:1":
            raise ConnectionResetError("gone")
        return really_send(*given, **named)

    monkeypatch.setattr(app, "send_task", send_task)

    sent = dispatcher.send([Parcel(number, 1, JobClass.LOW, 60.0) for number in range(1, 6)])

    assert sent.count == 2
    assert isinstance(sent.problem, ConnectionResetError)
    assert len(_messages(redis_client, JobClass.LOW)) == 2


def test_sending_ends_when_it_takes_too_long(
    dispatcher: Dispatcher, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "SENDING", timedelta(0))

    sent = dispatcher.send([Parcel(number, 1, JobClass.LOW, 60.0) for number in range(5)])

    assert sent == Sent(1)
    assert len(_messages(redis_client, JobClass.LOW)) == 1


def test_a_broker_that_came_back_is_used_again(
    services: Services, redis_client: Redis, dispatcher: Dispatcher
) -> None:
    dispatcher.send([Parcel(1, 1, JobClass.LOW, 60.0)])
    redis_client.client_kill_filter(_type="normal", skipme=True)

    _send_until_it_works(dispatcher, Parcel(2, 1, JobClass.LOW, 60.0))

    assert len(_messages(redis_client, JobClass.LOW)) == 2


def test_a_broker_whose_connections_died_without_a_word_is_given_up_and_used_again(
    services: Services, redis_client: Redis
) -> None:
    with Proxy(services.redis_url) as wire:
        dispatcher = Dispatcher(Celery(broker=wire.through(services.redis_url)))
        dispatcher.send([Parcel(1, 1, JobClass.LOW, 60.0)])
        wire.deafen()

        _send_until_it_works(dispatcher, Parcel(2, 1, JobClass.LOW, 60.0))

    assert len(_messages(redis_client, JobClass.LOW)) == 2


def _send_until_it_works(dispatcher: Dispatcher, parcel: Parcel) -> None:
    """Send as turns do: what failed is sent again by the next one."""
    for _ in range(3):
        if dispatcher.send([parcel]).count:
            return
    raise AssertionError("the broker is back, and nothing could be sent")
