from scheduler.simulate.estimates import Tally, score
from scheduler.simulate.playing import setting_of
from scheduler.simulate.reading import read_scenario


def test_the_range_of_an_estimate_holds_the_start_in_75_to_90_of_100_cases() -> None:
    found = score(setting_of(read_scenario("everyday"), seed=1, hours=1).workload, every=3)

    assert found.asked > 400
    assert 0.75 <= found.part <= 0.90


def test_a_tally_says_what_was_off() -> None:
    assert Tally(within=8, early=1, late=1).sentence() == (
        "80.0 % of 10 estimated starts lay in their range, 1 before it and 1 after it"
    )
