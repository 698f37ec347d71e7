from datetime import timedelta
from math import exp, log
from random import Random
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.policy import durations as durations_module
from scheduler.policy.durations import (
    ANYBODY,
    Durations,
    Lasted,
    Learned,
    Source,
    known,
)
from scheduler.policy.parameters import (
    DURATION_MEMORY,
    EXPECTED_DEFAULT,
    EXPECTED_LEAST,
    OWN_HISTORY,
    SPREAD_UNKNOWN,
)

MINUTE = timedelta(minutes=1)
ANN, BEN = 1, 2

times = st.floats(0.01, 1e5)


def after(*seconds: float, owner: int = ANN, job_type: str = "report") -> Durations:
    learned, _ = Durations().learn(Lasted(job_type, owner, each) for each in seconds)
    return learned


def test_without_history_the_submitters_estimate_is_taken() -> None:
    expected = Durations().expected("report", ANN, MINUTE, None)

    assert expected == (MINUTE, SPREAD_UNKNOWN, Source.ESTIMATE)


def test_with_nothing_known_a_short_guess_is_taken_and_never_the_timeout() -> None:
    expected = Durations().expected("report", ANN, None, 600 * MINUTE)

    assert expected == (EXPECTED_DEFAULT, SPREAD_UNKNOWN, Source.DEFAULT)


def test_history_of_the_type_goes_before_the_submitters_estimate() -> None:
    expected = after(8).expected("report", BEN, MINUTE, None)

    assert expected.source is Source.TYPE
    assert expected.duration.total_seconds() == pytest.approx(8)


def test_an_owner_with_enough_history_is_told_apart_from_the_others() -> None:
    learned = after(*[4] * 50, owner=BEN)
    learned, _ = learned.learn([Lasted("report", ANN, 60)] * (OWN_HISTORY - 1))
    before = learned.expected("report", ANN)
    learned, _ = learned.learn([Lasted("report", ANN, 60)])

    assert before.source is Source.TYPE
    assert learned.expected("report", ANN).source is Source.OWN
    assert learned.expected("report", ANN).duration.total_seconds() == pytest.approx(60)
    assert learned.expected("report", BEN).duration.total_seconds() == pytest.approx(4)
    assert learned.expected("email", BEN).source is Source.DEFAULT


def test_nothing_is_expected_to_outlive_its_timeout() -> None:
    assert after(90).expected("report", ANN, None, MINUTE).duration == MINUTE
    assert Durations().expected("report", ANN, 2 * MINUTE, MINUTE).duration == MINUTE


def test_every_job_is_expected_to_take_some_time() -> None:
    assert after(0.0).expected("report", ANN).duration == EXPECTED_LEAST
    assert Durations().expected("report", ANN, timedelta(0), timedelta(0)).duration == (
        EXPECTED_LEAST
    )


def test_one_endless_attempt_does_not_move_what_is_expected_far() -> None:
    learned = after(*[10] * 50, 10_000)

    assert learned.expected("report", ANN).duration.total_seconds() < 20


def test_a_change_of_what_a_type_takes_shows_within_a_few_attempts() -> None:
    learned = after(*[1] * 500, *[100] * 2 * DURATION_MEMORY)

    assert learned.expected("report", ANN).duration.total_seconds() > 50


def test_few_attempts_that_lasted_alike_leave_the_next_one_open() -> None:
    spreads = [after(*[10] * count).expected("report", ANN).spread for count in (1, 2, 5, 50)]

    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] > 0.7 * SPREAD_UNKNOWN
    assert spreads[-1] < 0.4 * SPREAD_UNKNOWN


@given(st.lists(times, min_size=1, max_size=DURATION_MEMORY))
def test_of_few_attempts_all_count_alike(lasted: list[float]) -> None:
    logs = [log(each) for each in lasted]
    learned = after(*lasted).types["report"]

    assert learned.count == len(lasted)
    assert learned.mean == pytest.approx(fmean(logs), abs=1e-9)
    assert learned.variance == pytest.approx(pstdev(logs) ** 2, abs=1e-6)


@given(st.lists(times, min_size=1, max_size=60))
def test_what_is_expected_lies_among_what_was_seen(lasted: list[float]) -> None:
    expected = after(*lasted).expected("report", ANN)

    assert min(lasted) * 0.999 <= expected.duration.total_seconds() <= max(lasted) * 1.001
    assert expected.spread > 0


def test_the_spread_comes_near_that_of_the_durations() -> None:
    random = Random(5)  # noqa: S311 - makes durations
    learned = after(*(exp(random.gauss(2, 0.6)) for _ in range(300))).types["report"]

    assert learned.seconds == pytest.approx(exp(2), rel=0.4)
    assert 0.35 < learned.spread < 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), times), max_size=30))
def test_learning_at_once_or_one_by_one_is_the_same(ended: list[tuple[str, int, float]]) -> None:
    at_once, changed = Durations().learn(Lasted(*each) for each in ended)
    one_by_one = Durations()
    for each in ended:
        one_by_one, _ = one_by_one.learn([Lasted(*each)])

    assert at_once == one_by_one
    assert set(changed) == {(each[0], owner) for each in ended for owner in (ANYBODY, each[1])}
    assert known(changed.items()) == at_once


def test_learning_leaves_what_was_known_before_alone() -> None:
    before = after(10)
    before.learn([Lasted("report", ANN, 99)])

    assert before == after(10)


def test_the_pairs_that_ended_longest_ago_are_forgotten_and_types_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durations_module, "DURATIONS_KEPT", 3)
    learned = Durations()
    for owner in (1, 2, 3, 1, 4):
        learned, _ = learned.learn([Lasted(f"type{owner}", owner, 10)])

    assert [owner for _, owner in learned.pairs] == [3, 1, 4]
    assert set(learned.types) == {"type1", "type2", "type3", "type4"}


def test_a_learned_value_is_what_it_was_made_of() -> None:
    assert Learned(log(3), 0.0, 7).seconds == pytest.approx(3)
