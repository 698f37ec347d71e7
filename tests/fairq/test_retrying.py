from typing import Any

import pytest
from tenacity import Future, RetryCallState

from fairq import retrying
from fairq.errors import NoAnswer, Refused


def after(error: BaseException, tries: int = 1) -> RetryCallState:
    """Return the state of a call that has failed so often, with *error* last."""
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = tries
    future = Future(tries)
    future.set_exception(error)
    state.outcome = future
    return state


def refused(status: int, **more: Any) -> Refused:
    return Refused(status, {"code": "x", "detail": "y"}, **more)


def test_a_server_that_says_when_to_come_back_is_believed() -> None:
    assert retrying.pause(after(refused(429, retry_after=7), tries=5)) == 7


def test_without_a_word_the_pause_grows_up_to_a_bound() -> None:
    def longest(tries: int) -> float:
        return max(retrying.pause(after(NoAnswer("http://x", OSError()), tries)) for _ in range(50))

    assert longest(1) < longest(4) < longest(20) <= 10


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_passes_is_worth_another_try(status: int) -> None:
    assert retrying.is_passing(refused(status))
    assert retrying.is_passing(NoAnswer("http://x", OSError("away")))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500])
def test_what_would_be_refused_again_is_not(status: int) -> None:
    assert not retrying.is_passing(refused(status))
    assert not retrying.is_passing(ValueError())


@pytest.mark.parametrize("status", [500, 501, 503])
def test_who_has_nothing_else_to_do_asks_again_after_any_fault_of_the_server(status: int) -> None:
    assert retrying.may_pass(refused(status))
    assert retrying.may_pass(NoAnswer("http://x", OSError("away")))
    assert not retrying.may_pass(refused(403))
    assert not retrying.may_pass(ValueError())
