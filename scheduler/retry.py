"""Whether and when a failed attempt is followed by another. Pure."""

import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

STRATEGIES = ("exponential", "linear", "fixed", "none")
DEFAULTS: Mapping[str, Any] = {
    "max_attempts": 3,
    "strategy": "exponential",
    "base_delay_seconds": 1.0,
    "backoff_multiplier": 2.0,
    "max_delay_seconds": 3600.0,
    "jitter": True,
}
LONGEST = timedelta(days=365)
"""Nothing is put off for longer, whoever asks for it."""

JITTER = 0.1
"""Jitter moves a delay by at most this part of it, either way; never past the longest delay."""


def delay(config: Mapping[str, Any], retry: int, *, draw: float) -> timedelta:
    """Return how long the *retry*-th retry (1, 2, ...) waits.

    *draw* is a number in [0, 1] that places the delay inside the jitter.
    """
    base = float(config["base_delay_seconds"])
    match config["strategy"]:
        case "exponential":
            seconds = base * _power(float(config["backoff_multiplier"]), retry - 1)
        case "linear":
            seconds = base * retry
        case _:
            seconds = base
    longest = float(config["max_delay_seconds"])
    seconds = min(seconds, longest)
    if config["jitter"]:
        seconds = min(seconds * (1 + JITTER * (2 * draw - 1)), longest)
    return bounded(seconds)


def bounded(seconds: float) -> timedelta:
    """Return *seconds* as a delay that can be kept: none below nothing, LONGEST at most."""
    wanted = max(0.0, seconds)  # in this order: what is not a number is no delay
    return timedelta(seconds=min(wanted, LONGEST.total_seconds()))


def has_attempts_left(config: Mapping[str, Any], used: int) -> bool:
    """Tell whether a job that used *used* attempts gets another."""
    return config["strategy"] != "none" and used < int(config["max_attempts"])


def _power(multiplier: float, exponent: int) -> float:
    try:
        return multiplier**exponent
    except OverflowError:
        return sys.float_info.max  # not infinity: a base of nothing times it is still nothing
