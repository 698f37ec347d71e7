"""Circles in a batch: found exactly when there is one, and named as they are."""

import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from scheduler.graph import find_cycle

Parents = dict[str, list[str]]

NAMES = "abcdefg"
GRAPHS = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES + "xy"), max_size=4), max_size=len(NAMES)
)
ACYCLIC = st.permutations(NAMES).flatmap(
    lambda order: st.fixed_dictionaries(
        {
            job: st.lists(st.sampled_from(order[:place] or ("outside",)), max_size=4)
            for place, job in enumerate(order)
        }
    )
)


def _waits_for_itself(parents: Parents) -> bool:
    """Brute force: some job is among those it waits for, over any number of steps."""
    for job in parents:
        seen: set[str] = set()
        front = set(parents[job])
        while front:
            seen |= front
            front = {up for each in front for up in parents.get(each, ())} - seen
        if job in seen:
            return True
    return False


@given(parents=GRAPHS)
def test_a_circle_is_found_exactly_when_there_is_one(parents: Parents) -> None:
    assert (find_cycle(parents) is not None) == _waits_for_itself(parents)


@given(parents=GRAPHS)
def test_a_circle_that_is_named_is_real(parents: Parents) -> None:
    cycle = find_cycle(parents) or []

    assert all(parent in parents[job] for job, parent in pairwise(cycle))
    assert cycle[:1] == cycle[-1:]
    assert len(set(cycle)) == max(0, len(cycle) - 1)


@given(parents=ACYCLIC)
def test_jobs_that_wait_for_earlier_ones_only_are_no_circle(parents: Parents) -> None:
    assert find_cycle(parents) is None


def test_a_circle_is_named_in_the_order_of_waiting() -> None:
    parents = {"job_a": ["job_c"], "job_b": ["job_a"], "job_c": ["job_b"]}

    assert find_cycle(parents) == ["job_a", "job_c", "job_b", "job_a"]


def test_the_order_of_a_batch_does_not_change_what_is_named() -> None:
    parents = {"job_c": ["job_b"], "job_a": ["job_c"], "job_b": ["job_a"]}

    assert find_cycle(parents) == ["job_a", "job_c", "job_b", "job_a"]


def test_a_job_that_waits_for_itself_is_a_circle() -> None:
    assert find_cycle({"a": ["a"]}) == ["a", "a"]


def test_a_job_behind_a_circle_is_not_named_as_part_of_it() -> None:
    assert find_cycle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]


def test_the_same_parent_named_twice_is_no_circle() -> None:
    assert find_cycle({"a": ["b", "b"], "b": []}) is None


def test_a_hundred_thousand_jobs_are_checked_in_a_moment() -> None:
    count = 100_000
    chain = {str(job): [str(job + 1)] for job in range(count)}
    circle = chain | {str(count): ["0"]}
    began = time.perf_counter()

    assert find_cycle(chain) is None
    assert len(find_cycle(circle) or []) == count + 2

    assert time.perf_counter() - began < 10
