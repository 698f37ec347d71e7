from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.policy import experience
from scheduler.policy.experience import (
    Bounds,
    Case,
    Estimate,
    Experience,
    Method,
    Score,
    Scorer,
    Verdict,
    experience_of,
)
from scheduler.policy.parameters import ESTIMATE_BOUNDS_LIMITS
from scheduler.states import JobClass
from tests.scheduler.policy.machine import NOON, seconds

SOON = Estimate(NOON + seconds(10), NOON + seconds(20), Method.SIMULATION)
NORMAL = Case(Method.SIMULATION, JobClass.NORMAL)
LOW = Case(Method.SIMULATION, JobClass.LOW)
CLASSES = dict.fromkeys(range(100), JobClass.NORMAL) | {7: JobClass.LOW}


def counts(scorer: Scorer) -> dict[Case, dict[Verdict, int]]:
    return {score.case: dict(score.verdicts) for score in scorer.take()}


@pytest.mark.parametrize(
    ("started", "verdict"),
    [
        (9, Verdict.EARLY),
        (10, Verdict.WITHIN),
        (15, Verdict.WITHIN),
        (20, Verdict.WITHIN),
        (21, Verdict.LATE),
    ],
)
def test_a_start_is_compared_with_the_range(started: float, verdict: Verdict) -> None:
    assert SOON.verdict(NOON + seconds(started)) is verdict


def test_a_job_is_scored_when_it_starts_by_what_was_published_first() -> None:
    scorer = Scorer()
    later = SOON._replace(earliest=NOON + seconds(30), latest=NOON + seconds(40))
    scorer.publish({1: SOON}, CLASSES)
    scorer.publish({1: later}, CLASSES)

    scorer.started({1: NOON + seconds(15)})
    scorer.started({1: NOON + seconds(99)})

    assert counts(scorer) == {NORMAL: {Verdict.WITHIN: 1}}


def test_methods_and_classes_are_scored_apart() -> None:
    scorer = Scorer()
    scorer.publish({1: SOON, 7: SOON, 2: SOON._replace(method=Method.RATE)}, CLASSES)

    scorer.started(dict.fromkeys((1, 2, 7), NOON))

    early = {Verdict.EARLY: 1}
    rate = Case(Method.RATE, JobClass.NORMAL)
    assert counts(scorer) == {NORMAL: early, LOW: early, rate: early}


def test_what_was_never_published_or_will_not_start_is_not_scored() -> None:
    scorer = Scorer()
    scorer.publish({1: SOON}, CLASSES)

    scorer.forget([1, 2])
    scorer.started({1: NOON, 3: NOON})

    assert scorer.take() == []


def test_a_score_is_taken_once() -> None:
    scorer = Scorer()
    scorer.publish({1: SOON}, CLASSES)
    scorer.started({1: NOON})

    assert len(scorer.take()) == 1
    assert scorer.take() == []


def test_no_more_is_remembered_than_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experience, "ESTIMATES_SCORED", 3)
    scorer = Scorer()
    scorer.publish(dict.fromkeys(range(10), SOON), CLASSES)

    scorer.started(dict.fromkeys(range(10), NOON))

    assert counts(scorer) == {NORMAL: {Verdict.EARLY: 3}}


def test_late_starts_let_ranges_end_later_and_early_ones_begin_earlier() -> None:
    late, early = Bounds().after(Verdict.LATE), Bounds().after(Verdict.EARLY)

    assert late.upper > Bounds().upper
    assert late.lower > Bounds().lower
    assert early.lower < Bounds().lower
    assert early.upper < Bounds().upper


def test_starts_within_the_range_let_it_shrink() -> None:
    bounds = Bounds().after(Verdict.WITHIN)

    assert Bounds().lower < bounds.lower < bounds.upper < Bounds().upper


def test_other_cases_learn_nothing_from_a_case() -> None:
    scorer = Scorer()
    scorer.publish({1: SOON}, CLASSES)
    scorer.started({1: NOON + timedelta(hours=1)})

    assert scorer.experience.bounds(NORMAL).upper > Bounds().upper
    assert scorer.experience.bounds(LOW) == Bounds()


def test_experience_outlives_its_leader() -> None:
    scorer = Scorer()
    scorer.publish({1: SOON, 7: SOON}, CLASSES)
    scorer.started({1: NOON, 7: NOON + timedelta(hours=1)})

    assert experience_of(scorer.take()) == scorer.experience


def test_experience_comes_from_scores() -> None:
    assert experience_of([Score(LOW, {}, Bounds(-1, 1))]) == Experience({LOW: Bounds(-1, 1)})


@given(st.lists(st.sampled_from(Verdict), max_size=300))
def test_a_range_stays_a_range(verdicts: list[Verdict]) -> None:
    bounds = Bounds()
    for verdict in verdicts:
        bounds = bounds.after(verdict)

    least, most = ESTIMATE_BOUNDS_LIMITS
    assert -most <= bounds.lower <= -least < least <= bounds.upper <= most


@given(st.floats(-1, 1.5), st.floats(0.4, 2), st.integers(0, 2**32))
def test_in_the_long_run_four_starts_out_of_five_are_within(
    middle: float, spread: float, seed: int
) -> None:
    chance, bounds = Random(seed), Bounds()  # noqa: S311 - makes starts
    within = 0
    for number in range(3000):
        start = chance.gauss(middle, spread)
        side = Verdict.EARLY if start < bounds.lower else Verdict.LATE
        verdict = Verdict.WITHIN if bounds.lower <= start <= bounds.upper else side
        within += number >= 1000 and verdict is Verdict.WITHIN
        bounds = bounds.after(verdict)

    assert 0.75 <= within / 2000 <= 0.92
