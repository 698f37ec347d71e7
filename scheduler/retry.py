"""Whether and when a failed attempt is followed by another. Pure."""

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
JITTER = 0.1
"""Jitter moves a delay by at most this part of it, either way."""

_LARGEST_POWER = 1e9  # of a multiplier; far beyond any cap and far below overflow


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
    seconds = min(seconds, float(config["max_delay_seconds"]))
    if config["jitter"]:
        seconds *= 1 + JITTER * (2 * draw - 1)
    return timedelta(seconds=seconds)


def has_attempts_left(config: Mapping[str, Any], used: int) -> bool:
    """Tell whether a job that used *used* attempts gets another."""
    return config["strategy"] != "none" and used < int(config["max_attempts"])


def _power(multiplier: float, exponent: int) -> float:
    try:
        return min(multiplier**exponent, _LARGEST_POWER)
    except OverflowError:
        return _LARGEST_POWER
