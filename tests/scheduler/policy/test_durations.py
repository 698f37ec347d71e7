from datetime import timedelta

from scheduler.policy.durations import expected_duration
from scheduler.policy.parameters import EXPECTED_DEFAULT, EXPECTED_LEAST

MINUTE = timedelta(minutes=1)


def test_history_goes_before_the_submitters_estimate() -> None:
    assert expected_duration(MINUTE, 2 * MINUTE, None) == MINUTE
    assert expected_duration(None, 2 * MINUTE, None) == 2 * MINUTE


def test_without_either_a_short_guess_is_taken_and_never_the_timeout() -> None:
    assert expected_duration(None, None, 600 * MINUTE) == EXPECTED_DEFAULT


def test_nothing_is_expected_to_outlive_its_timeout() -> None:
    assert expected_duration(MINUTE, None, MINUTE / 2) == MINUTE / 2


def test_every_job_is_expected_to_take_some_time() -> None:
    assert expected_duration(timedelta(microseconds=1), None, None) == EXPECTED_LEAST
    assert expected_duration(None, timedelta(0), timedelta(0)) == EXPECTED_LEAST
