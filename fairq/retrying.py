"""When a call is sent again, and after which pause. The same for both clients."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypedDict

from tenacity import RetryCallState, retry_if_exception, wait_random_exponential

from fairq.clock import Deadline
from fairq.errors import NoAnswer, Refused

_AWAY = frozenset({429, 502, 503, 504})
"""Not now: too much, or the server, or what stands before it, is away."""

_spread = wait_random_exponential(multiplier=0.2, max=10)
"""Grows from try to try, and keeps clients that lost the same server from coming back together."""


class Policy(TypedDict):
    """What tenacity is told."""

    retry: Callable[[RetryCallState], bool]
    wait: Callable[[RetryCallState], float]
    stop: Callable[[RetryCallState], bool]
    reraise: bool


def policy(patience_seconds: float) -> Policy:
    """Try again until *patience_seconds* are over, or would be after the pause asked for.

    The last try is at their end.
    """
    end = Deadline(patience_seconds)

    def stop(state: RetryCallState) -> bool:
        asked = _asked(state)
        return end.is_over() or (asked is not None and asked > end.left(at_most=patience_seconds))

    def wait(state: RetryCallState) -> float:
        return pause(state) if _asked(state) is not None else end.left(at_most=pause(state))

    return Policy(retry=retry_if_exception(is_passing), wait=wait, stop=stop, reraise=True)


def is_passing(error: BaseException) -> bool:
    """Tell whether the same call may succeed later."""
    return isinstance(error, NoAnswer) or (isinstance(error, Refused) and error.status in _AWAY)


def may_pass(error: BaseException) -> bool:
    """Tell whether it is worth asking again for who does nothing else: a fault may be mended."""
    return is_passing(error) or (
        isinstance(error, Refused) and error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


def pause(state: RetryCallState) -> float:
    """Return the seconds to the next try: as many as the server asks for, if it does."""
    asked = _asked(state)
    return _spread(state) if asked is None else asked


def _asked(state: RetryCallState) -> float | None:
    error: Any = state.outcome and state.outcome.exception()
    return error.retry_after if isinstance(error, Refused) else None
