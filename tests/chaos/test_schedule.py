"""What goes wrong is a function of the seed, and leaves room to recover."""

from itertools import combinations, pairwise

import pytest

from tests.chaos.schedule import ALONE_PART, NATURES, Kind, Strike, schedule

SEEDS = range(1, 21)
SECONDS = 180.0


def strikes(seed: int) -> list[Strike]:
    return schedule(seed, SECONDS)


def test_a_seed_strikes_the_same_every_time_and_no_other_does() -> None:
    assert strikes(1) == strikes(1)
    assert len({tuple(strikes(seed)) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_comes_in_a_run(seed: int) -> None:
    assert {strike.kind for strike in strikes(seed)} == set(Kind)


@pytest.mark.parametrize("seed", SEEDS)
def test_strikes_come_in_order_and_are_over_before_the_end(seed: int) -> None:
    ats = [strike.at for strike in strikes(seed)]

    assert ats == sorted(ats)
    assert all(strike.at + strike.lasts < SECONDS for strike in strikes(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_two_strikes_on_one_part_never_overlap(seed: int) -> None:
    for one, other in combinations(strikes(seed), 2):
        if one.part == other.part:
            assert one.at + one.lasts < other.at, (one, other)


@pytest.mark.parametrize("seed", SEEDS)
def test_in_the_first_part_outages_come_alone_and_in_the_rest_they_overlap(seed: int) -> None:
    outages = [strike for strike in strikes(seed) if NATURES[strike.kind].is_outage]
    alone = [strike for strike in outages if strike.at < SECONDS * ALONE_PART]
    storm = outages[len(alone) :]

    assert all(other.at - one.at - one.lasts >= 3 for one, other in pairwise(alone))
    assert any(other.at < one.at + one.lasts for one, other in pairwise(storm))


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_with_a_promise_comes_alone(seed: int) -> None:
    calm = [strike.kind for strike in strikes(seed) if strike.at < SECONDS * ALONE_PART]

    assert calm.count(Kind.CHILD_KILLED) == 4
    assert {Kind.LEADER_KILLED, Kind.REDIS_EMPTIED, Kind.WORKER_KILLED} <= set(calm)


def test_what_is_left_out_leaves_the_rest_as_it_was() -> None:
    whole, without = strikes(1), schedule(1, SECONDS, frozenset({Kind.DISK_FULL}))

    assert without == [strike for strike in whole if strike.kind is not Kind.DISK_FULL]


@pytest.mark.parametrize("seconds", [20.0, 40.0, 1800.0])
def test_a_run_may_be_short_or_long(seconds: float) -> None:
    found = schedule(1, seconds)

    assert found
    assert all(strike.at + strike.lasts < seconds for strike in found)
    assert max(other.at - one.at for one, other in pairwise(found)) < 40
