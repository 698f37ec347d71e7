"""How what a job used is spread over time."""

from datetime import datetime, timedelta

import pytest

from scheduler.accounting import received, used
from scheduler.snapshot import Resources
from scheduler.states import FeedKind
from scheduler.store.dependencies import FeedRow
from scheduler.store.received import SLICE, SLICES_KEPT
from tests.factories import NOON

MINUTE = timedelta(minutes=1)
OWNER = 7


def spread(*, ran: timedelta, used: float, until: datetime) -> dict[timedelta, float]:
    row = FeedRow(
        FeedKind.ENDED, 1, OWNER, 1.0, 1, 1.0, express=False, used_seconds=ran.total_seconds(),
        job_type=None,
    )  # fmt: skip
    found = received(row, used, until)
    assert {owner for _, owner in found} <= {OWNER}
    return {since - NOON: amount for (since, _), amount in found.items()}


@pytest.mark.parametrize(("charge", "machine_seconds"), [(0.0, 0.0), (1.0, 30.0)])
def test_of_a_job_that_a_new_leader_does_not_know_the_charge_tells_whose_worker_it_used(
    charge: float, machine_seconds: float
) -> None:
    row = FeedRow(
        FeedKind.ENDED, 1, OWNER, 4.0, 1, charge, express=False, used_seconds=60, job_type=None
    )

    assert used(row, None, Resources(8, 1024, 8)) == machine_seconds


def test_a_short_job_counts_where_it_ended() -> None:
    assert spread(ran=MINUTE, used=3.0, until=NOON + 2 * MINUTE) == {timedelta(0): 3.0}


def test_a_long_job_counts_in_every_slice_it_ran_in() -> None:
    found = spread(ran=8 * MINUTE, used=16.0, until=NOON + 6 * MINUTE)

    assert found == {-SLICE: pytest.approx(4), timedelta(0): pytest.approx(10), SLICE: 2}


def test_what_was_long_ago_is_left_out() -> None:
    days = 10 * SLICES_KEPT

    found = spread(ran=days, used=10.0, until=NOON)

    assert sum(found.values()) == pytest.approx(1)
    assert min(found) >= -SLICES_KEPT


def test_a_job_that_never_ran_has_received_nothing() -> None:
    assert spread(ran=timedelta(0), used=0.0, until=NOON) == {}
