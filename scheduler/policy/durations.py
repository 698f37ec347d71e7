"""How long a job is expected to run."""

from datetime import timedelta

from scheduler.policy.parameters import EXPECTED_DEFAULT, EXPECTED_LEAST


def expected_duration(
    learned: timedelta | None, estimated: timedelta | None, timeout: timedelta | None
) -> timedelta:
    """Return what is *learned* of the type, else what the submitter *estimated*, else a guess.

    The *timeout* bounds it from above and is never itself the estimate.
    """
    expected = learned or estimated or EXPECTED_DEFAULT
    if timeout is not None:
        expected = min(expected, timeout)
    return max(expected, EXPECTED_LEAST)
