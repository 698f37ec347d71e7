import json
from collections.abc import Iterable
from heapq import heapify, heapreplace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.policy import curve as curve_module
from scheduler.policy.curve import (
    Curve,
    Queued,
    curve_from_json,
    curve_to_json,
    make_curve,
    position_on,
    start_on,
)
from scheduler.policy.experience import Bounds, Case, Experience, Method
from scheduler.policy.parameters import CURVE_POINTS
from scheduler.snapshot import Clock
from scheduler.states import JobClass
from tests.scheduler.policy.machine import NOON, seconds

lines = st.builds(
    Queued,
    tag=st.floats(0, 1e4),
    weight=st.floats(0.25, 4),
    waiting=st.integers(1, 500),
    mean_cost=st.floats(0.001, 10),
)


def drawn(owners: Iterable[Queued], **more: object) -> Curve:
    return make_curve(owners, clock=Clock(7.0, 1.0), **more)  # type: ignore[arg-type]  # by name


def counted(owners: Iterable[Queued], key: float) -> float:
    return sum(min(each.waiting, max(0.0, (key - each.tag) / each.step)) for each in owners)


def test_the_first_of_one_line_goes_next_and_the_others_after_it() -> None:
    curve = drawn([Queued(5.0, 1.0, 10, 2.0)])

    places = [position_on(curve, 5.0, own, 1.0, 2.0) for own in range(10)]

    assert places == list(range(1, 11))


def test_jobs_of_two_equal_owners_take_turns() -> None:
    curve = drawn([Queued(0.0, 1.0, 10, 1.0)] * 2)

    assert [position_on(curve, 0.0, own, 1.0, 1.0) for own in range(4)] == [1, 3, 5, 7]


def test_an_owner_of_double_weight_is_passed_by_half_as_many() -> None:
    curve = drawn([Queued(0.0, 2.0, 1000, 1.0), *[Queued(0.0, 1.0, 1000, 1.0)] * 4])

    assert position_on(curve, 0.0, 100, 2.0, 1.0) == 301
    assert position_on(curve, 0.0, 100, 1.0, 1.0) == 601


def test_an_owner_who_has_received_much_waits_for_the_others_to_catch_up() -> None:
    curve = drawn([Queued(0.0, 1.0, 50, 1.0), Queued(10.0, 1.0, 50, 1.0)])

    assert position_on(curve, 10.0, 0, 1.0, 1.0) == 11


def test_without_lines_everybody_is_next() -> None:
    curve = drawn([Queued(3.0, 1.0, 0, 1.0)])

    assert position_on(curve, 3.0, 0, 1.0) == 1


@given(st.lists(lines, min_size=1, max_size=60))
def test_few_owners_are_counted_exactly(owners: list[Queued]) -> None:
    curve = drawn(owners)
    total = sum(each.waiting for each in owners)

    assert curve.at(max(each.tag + each.waiting * each.step for each in owners)) == (
        pytest.approx(total, rel=1e-6)
    )
    for each in owners:
        assert curve.at(each.tag) == pytest.approx(counted(owners, each.tag), rel=1e-4, abs=0.5)


@given(st.lists(lines, min_size=1, max_size=300), st.floats(-10, 2e4), st.floats(0, 1e4))
def test_the_curve_is_short_and_never_falls(
    owners: list[Queued], key: float, further: float
) -> None:
    curve = drawn(owners)

    assert len(curve.keys) == len(curve.before) <= CURVE_POINTS
    assert list(curve.keys) == sorted(set(curve.keys))
    assert 0 <= curve.at(key) <= curve.at(key + further)
    assert curve.at(key) <= sum(each.waiting for each in owners) * (1 + 1e-6)


@given(st.lists(lines, min_size=1, max_size=20), st.data())
def test_a_job_comes_after_those_of_its_own_line_before_it(
    owners: list[Queued], data: st.DataObject
) -> None:
    curve, mine = drawn(owners), data.draw(st.sampled_from(owners))
    places = [position_on(curve, mine.tag, own, mine.weight, mine.mean_cost) for own in range(20)]

    assert places == sorted(places)
    assert all(place > own for own, place in enumerate(places))


def test_places_are_near_those_of_taking_turns_one_by_one() -> None:
    chance = Random(3)  # noqa: S311 - makes lines
    owners = [
        Queued(chance.uniform(0, 50), chance.choice([0.5, 1, 2, 4]), chance.randint(1, 60), 1.0)
        for _ in range(400)
    ]
    curve = drawn(owners)
    heap = [(each.tag, number, 0) for number, each in enumerate(owners)]
    heapify(heap)
    taken = 0

    while heap[0][0] < float("inf"):
        tag, number, own = heap[0]
        mine = owners[number]
        about = position_on(curve, mine.tag, own, mine.weight, 1.0)
        taken += 1
        assert abs(about - taken) < 0.05 * sum(each.waiting for each in owners)
        following = tag + mine.step if own + 1 < mine.waiting else float("inf")
        heapreplace(heap, (following, number, own + 1))


def test_of_very_many_lines_a_part_stands_for_all_and_long_ones_for_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance = Random(4)  # noqa: S311 - makes lines
    owners = [
        Queued(chance.uniform(0, 100), chance.choice([0.5, 1, 2, 4]), chance.randint(1, 9), 1.0)
        for _ in range(5000)
    ]
    owners.append(Queued(20.0, 1.0, 30_000, 0.01))
    monkeypatch.setattr(curve_module, "CURVE_SAMPLE", 500)
    curve = drawn(owners)

    for key in range(0, 120, 7):
        assert curve.at(key) == pytest.approx(counted(owners, key), rel=0.1, abs=600)


def test_starts_are_estimated_by_the_rate_as_far_off_as_experience_says() -> None:
    low = Experience({Case(Method.RATE, JobClass.LOW): Bounds(-0.5, 4)})
    curve = drawn([Queued(0.0, 1.0, 100, 1.0)], starts=2.0, experience=low)

    usual = start_on(curve, 41, JobClass.NORMAL, NOON)
    sure = start_on(curve, 41, JobClass.LOW, NOON)

    assert usual is not None
    assert sure is not None
    assert usual.earliest < NOON + seconds(20) < usual.latest
    assert usual.method is Method.RATE
    assert usual.earliest < sure.earliest < usual.latest < sure.latest


def test_without_a_rate_no_start_is_estimated() -> None:
    assert start_on(drawn([Queued(0.0, 1.0, 9, 1.0)]), 5, JobClass.LOW, NOON) is None


@given(st.lists(lines, max_size=10), st.none() | st.floats(0, 100))
def test_a_curve_survives_being_written_down(owners: list[Queued], starts: float | None) -> None:
    curve = drawn(owners, starts=starts)

    read = curve_from_json(json.loads(json.dumps(curve_to_json(curve))))

    assert list(read.keys) == list(curve.keys)
    assert list(read.before) == list(curve.before)
    assert (read.mean_cost, read.virtual_now) == (1.0, 7.0)
    assert (read.starts, read.bounds) == (starts, curve.bounds)
