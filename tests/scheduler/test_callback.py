"""What is sent, how it is signed, and when it is tried again."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.callback import (
    BACKOFF,
    MOST_TRIES,
    Call,
    Reply,
    body,
    headers,
    next_try,
    sign,
)
from scheduler.retry import JITTER
from tests.factories import NOON

ABOUT = {"job_id": "it", "result": {"ü": [1.5, None]}}
DRAWS = st.floats(0, 1)


def make_call(**fields: Any) -> Call:
    return Call(
        **{
            "id": 1,
            "number": 1,
            "used": 1,
            "delivery_id": "d-1",
            "url": "https://example.org/",
            "about": ABOUT,
            "secrets": ["fqs_a"],
            "at": NOON,
            **fields,
        }
    )


def test_the_body_is_the_job_and_the_id_of_the_delivery() -> None:
    content = body(make_call())

    assert json.loads(content) == {"delivery_id": "d-1", **ABOUT}


def test_the_body_is_the_same_at_every_try() -> None:
    first = body(make_call())

    assert body(make_call(number=7, used=7, at=NOON + timedelta(hours=1))) == first


def test_a_signature_holds_for_one_body_one_time_and_one_secret() -> None:
    signed = sign("fqs_a", "1768478400", b"{}")

    # What others compute: printf '1768478400.{}' | openssl dgst -sha256 -hmac fqs_a
    assert signed == "v1=856f2fc7ff63721dac73e06e3fe25f094167af4ac33e2031f45559bbc41cc693"
    assert sign("fqs_b", "1768478400", b"{}") != signed
    assert sign("fqs_a", "1768478401", b"{}") != signed
    assert sign("fqs_a", "1768478400", b"[]") != signed


def test_headers_tell_the_delivery_its_time_and_a_signature_by_each_secret() -> None:
    call = make_call(secrets=["fqs_new", "fqs_old"])
    content = body(call)

    told = headers(call, content)

    assert told["Fairq-Delivery"] == "d-1"
    assert told["Fairq-Timestamp"] == "1768478400"
    assert told["Fairq-Signature"].split(",") == [
        sign("fqs_new", "1768478400", content),
        sign("fqs_old", "1768478400", content),
    ]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_the_end_of_it(status: int) -> None:
    assert Reply(1, status_code=status).is_success
    assert next_try(make_call(), Reply(1, status_code=status), draw=0.5) is None


FAILURES = [Reply(1, status_code=status) for status in (301, 302, 307, 400, 401, 404, 410, 500)]


@pytest.mark.parametrize("reply", [*FAILURES, Reply(1, error="no answer")])
def test_anything_else_is_tried_again(reply: Reply) -> None:
    assert not reply.is_success
    assert next_try(make_call(), reply, draw=0.5) == timedelta(seconds=10)


def test_what_would_fail_again_is_let_be() -> None:
    assert next_try(make_call(), Reply(1, error="private", hopeless=True), draw=0.5) is None


def test_tries_that_a_person_forgave_do_not_count() -> None:
    tried_out = make_call(number=MOST_TRIES, used=MOST_TRIES)
    forgiven = make_call(number=MOST_TRIES + 1, used=1)

    assert next_try(tried_out, FAILURES[0], draw=0.5) is None
    assert next_try(forgiven, FAILURES[0], draw=0.5) == timedelta(seconds=10)


@given(st.integers(1, MOST_TRIES - 1), DRAWS, DRAWS)
def test_each_delay_is_longer_than_the_one_before_up_to_the_longest(
    used: int, draw: float, other: float
) -> None:
    longest = timedelta(seconds=BACKOFF["max_delay_seconds"])

    before = next_try(make_call(used=max(used - 1, 1)), FAILURES[0], draw=other)
    delay = next_try(make_call(used=used), FAILURES[0], draw=draw)

    assert delay is not None
    assert before is not None
    assert timedelta(seconds=9) <= delay <= longest
    assert delay > before or used == 1 or delay >= longest * (1 - JITTER)


@given(st.lists(DRAWS, min_size=MOST_TRIES, max_size=MOST_TRIES))
def test_all_delays_together_are_about_a_day(draws: list[float]) -> None:
    calls = [make_call(used=used) for used in range(1, MOST_TRIES + 1)]

    delays = [
        next_try(call, FAILURES[0], draw=draw) for call, draw in zip(calls, draws, strict=True)
    ]

    assert delays[-1] is None
    whole = sum((delay for delay in delays if delay is not None), timedelta(0))
    assert timedelta(hours=20) <= whole <= timedelta(hours=26)
