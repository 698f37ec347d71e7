"""When a failed attempt is followed by another, exactly as the contract says."""

from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import retry

SOME_SECONDS = st.just(0.0) | st.floats(min_value=1e-6, max_value=365 * 86_400)
SLIGHTLY = 1e-6  # timedeltas count microseconds


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "max_attempts": draw(st.integers(1, 1000)),
        "strategy": draw(st.sampled_from(retry.STRATEGIES)),
        "base_delay_seconds": draw(SOME_SECONDS),
        "backoff_multiplier": draw(st.floats(min_value=1, max_value=1000)),
        "max_delay_seconds": draw(SOME_SECONDS),
        "jitter": draw(st.booleans()),
    }


def _promised(config: dict[str, Any], retry_number: int) -> float:
    """The formula of the contract, in exact arithmetic."""
    base, multiplier = (
        Fraction(config["base_delay_seconds"]),
        Fraction(config["backoff_multiplier"]),
    )
    by_strategy = {
        "exponential": base * multiplier ** (retry_number - 1),
        "linear": base * retry_number,
        "fixed": base,
        "none": base,
    }
    return float(min(by_strategy[config["strategy"]], Fraction(config["max_delay_seconds"])))


def _close_to(seconds: float) -> Any:
    return pytest.approx(seconds, rel=1e-9, abs=SLIGHTLY)


@given(config=configs(), number=st.integers(1, 1000), draw=st.floats(0, 1))
def test_without_jitter_a_delay_is_the_one_of_the_contract(
    config: dict[str, Any], number: int, draw: float
) -> None:
    waited = retry.delay(config | {"jitter": False}, number, draw=draw)

    assert waited.total_seconds() == _close_to(_promised(config, number))


@given(config=configs(), number=st.integers(1, 1000), draw=st.floats(0, 1))
def test_jitter_moves_a_delay_by_a_tenth_at_most_and_never_past_the_cap(
    config: dict[str, Any], number: int, draw: float
) -> None:
    exact = _promised(config, number)

    waited = retry.delay(config | {"jitter": True}, number, draw=draw).total_seconds()

    assert 0.9 * exact - SLIGHTLY <= waited <= 1.1 * exact + SLIGHTLY
    assert waited <= config["max_delay_seconds"] + SLIGHTLY


@pytest.mark.parametrize(("draw", "seconds"), [(0.0, 9.0), (0.5, 10.0), (1.0, 11.0)])
def test_jitter_spreads_over_the_whole_tenth(draw: float, seconds: float) -> None:
    config = dict(retry.DEFAULTS) | {"strategy": "fixed", "base_delay_seconds": 10}

    assert retry.delay(config, 1, draw=draw) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("strategy", "seconds"),
    [("exponential", [2, 6, 18, 50, 50]), ("linear", [2, 4, 6, 8, 10]), ("fixed", [2] * 5)],
)
def test_the_strategies_by_example(strategy: str, seconds: list[int]) -> None:
    config = {
        "max_attempts": 9,
        "strategy": strategy,
        "base_delay_seconds": 2,
        "backoff_multiplier": 3,
        "max_delay_seconds": 50,
        "jitter": False,
    }

    waits = [retry.delay(config, number, draw=0.5).total_seconds() for number in range(1, 6)]

    assert waits == seconds


def test_the_defaults_are_those_of_the_contract() -> None:
    assert dict(retry.DEFAULTS) == {
        "max_attempts": 3,
        "strategy": "exponential",
        "base_delay_seconds": 1,
        "backoff_multiplier": 2,
        "max_delay_seconds": 3600,
        "jitter": True,
    }


@given(config=configs(), used=st.integers(1, 2000))
def test_there_are_as_many_attempts_as_the_job_may_have(config: dict[str, Any], used: int) -> None:
    allowed = 1 if config["strategy"] == "none" else config["max_attempts"]

    assert retry.has_attempts_left(config, used) == (used < allowed)


@given(seconds=st.floats() | st.integers(-(10**400), 10**400))
def test_every_delay_can_be_kept(seconds: float) -> None:
    assert timedelta(0) <= retry.bounded(seconds) <= retry.LONGEST
