from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairq import CycleFound, Dependency, Submission, Workflow
from fairq.submission import job_id_of
from fairq.workflow import refuse_cycle


def keep(submissions: list[Submission]) -> list[Submission]:
    return submissions


def flow_of(*names: str) -> tuple[Workflow[list[Submission]], ...]:
    flow = Workflow(keep)
    return (flow, *(flow.job("simulate", job_id=name) for name in names))


def edges(submissions: list[Submission]) -> set[tuple[str, str]]:
    return {
        (job_id_of(parent), str(one.job_id)) for one in submissions for parent in one.depends_on
    }


def test_arrows_say_who_waits_for_whom() -> None:
    flow, a, b, c, d = flow_of("a", "b", "c", "d")

    a >> [b, c] >> d

    assert edges(flow.submit()) == {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")}


def test_arrows_go_from_many_to_many() -> None:
    flow, a, b, c, d = flow_of("a", "b", "c", "d")

    [a, b] >> c
    [a, b] >> d

    assert edges(flow.submit()) == {("a", "c"), ("b", "c"), ("a", "d"), ("b", "d")}


def test_an_arrow_may_wait_for_another_end() -> None:
    flow, a, b, c = flow_of("a", "b", "c")

    a.when("failed") >> b >> c

    assert [list(one.depends_on) for one in flow.submit()] == [
        [],
        [Dependency(job_id="a", when="failed")],
        ["b"],
    ]


def test_jobs_that_are_there_already_can_be_waited_for() -> None:
    flow = Workflow(keep)
    first = flow.job("simulate", job_id="a", depends_on=["yesterday"])
    first >> flow.job("simulate", depends_on=[first.job_id, "yesterday"])

    assert [one.depends_on for one in flow.submit()] == [("yesterday",), ("yesterday", "a")]


def test_jobs_without_an_id_get_different_ones() -> None:
    flow = Workflow(keep)

    nodes = [flow.job("simulate") for _ in range(3)]

    assert len({node.job_id for node in nodes}) == 3
    assert all(node.job_id.startswith("job_") for node in nodes)
    assert [one.job_id for one in flow.submit()] == [node.job_id for node in nodes]


def test_a_cycle_is_named_and_nothing_is_sent() -> None:
    sent: list[object] = []
    flow = Workflow(sent.append)
    a, b, c = (flow.job("simulate", job_id=name) for name in "abc")
    a >> b >> c >> a

    with pytest.raises(CycleFound) as caught:
        flow.submit()

    assert sorted(caught.value.cycle[1:]) == ["a", "b", "c"]
    assert caught.value.cycle[0] == caught.value.cycle[-1]
    assert " → " in str(caught.value)
    assert not sent


def test_a_job_cannot_wait_for_itself() -> None:
    flow, a = flow_of("a")
    a >> a

    with pytest.raises(CycleFound):
        flow.submit()


numbers = st.integers(0, 7)


@given(st.sets(st.tuples(numbers, numbers)))
def test_arrows_that_lead_forward_are_never_a_cycle(pairs: set[tuple[int, int]]) -> None:
    flow = Workflow(keep)
    nodes = [flow.job("simulate", job_id=str(number)) for number in range(8)]
    forward = {(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]}
    for one, other in forward:
        nodes[one] >> nodes[other]

    assert edges(flow.submit()) == {(str(one), str(other)) for one, other in forward}


@given(st.lists(numbers, min_size=1, unique=True), st.sets(st.tuples(numbers, numbers)))
def test_any_ring_is_refused_whatever_else_there_is(
    ring: list[int], pairs: set[tuple[int, int]]
) -> None:
    rounds = set(zip(ring, [*ring[1:], ring[0]], strict=True))
    parents: dict[int, list[int]] = {number: [] for number in range(8)}
    for one, other in rounds | pairs:
        parents[other].append(one)
    jobs = [
        Submission("simulate", job_id=str(number), depends_on=[str(one) for one in waited_for])
        for number, waited_for in parents.items()
    ]

    with pytest.raises(CycleFound) as caught:
        refuse_cycle(jobs)

    cycle = [int(name) for name in caught.value.cycle]
    assert set(pairwise(cycle)) <= rounds | pairs
