from typing import Any

import pytest

from scheduler.simulate.jobs import JobList
from scheduler.simulate.reading import read_scenario
from scheduler.simulate.scenario import Scenario
from scheduler.simulate.workload import Workload, draw, listed
from scheduler.snapshot import Caps, Group, Resources
from scheduler.states import JobClass

MANY = {"backlog": 4000}


def drawn(
    seconds: Any = 2,
    arrivals: Any = MANY,
    *,
    seed: int = 1,
    hours: float = 1,
    count: int = 1,
    **jobs: Any,
) -> Workload:
    shapes = [{"cpu_units": 2, "seconds": seconds}]
    users = {
        "name": "ann",
        "count": count,
        "jobs": [{"arrivals": arrivals, "shapes": shapes} | jobs],
    }
    return draw(Scenario.model_validate({"hours": hours, "capacity": {}, "users": [users]}), seed)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("name", ["everyday", "long-tailed", "sharded"])
def test_equal_seeds_give_equal_workloads(name: str) -> None:
    found = read_scenario(name)
    assert isinstance(found, Scenario)

    assert draw(found, 3) == draw(found, 3)
    assert draw(found, 3) != draw(found, 4)


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    [
        (3, 3, 3),
        ({"uniform": [2, 4]}, 2, 4),
        ({"exponential": 3}, 0, 60),
        ({"list": [1, 2, 6]}, 1, 6),
    ],
)
def test_durations_have_the_mean_they_say(seconds: Any, least: float, most: float) -> None:
    found = [arrival.seconds for arrival in drawn(seconds).arrivals]

    assert least <= min(found) <= max(found) <= most
    assert mean(found) == pytest.approx(3, rel=0.05)


def test_a_pareto_has_most_of_its_jobs_below_its_mean_and_a_few_far_beyond() -> None:
    found = sorted(arrival.seconds for arrival in drawn({"pareto": 3}).arrivals)

    assert found[0] >= 3 * 0.6 / 1.6
    assert found[len(found) // 2] == pytest.approx(1.125 * 2 ** (1 / 1.6), rel=0.05)
    assert found[-1] > 60


def test_a_load_is_the_part_of_the_machine_that_is_asked_for() -> None:
    found = drawn({"uniform": [2, 6]}, {"poisson": {"rate": {"load": 0.7}}}, hours=20, count=5)

    asked = sum(found.share(arrival) * arrival.seconds for arrival in found.arrivals)
    assert asked / (20 * 3600) == pytest.approx(0.7, rel=0.03)
    assert len({arrival.owner_id for arrival in found.arrivals}) == 5


def test_a_rate_is_of_each_user() -> None:
    found = drawn(2, {"poisson": {"rate": {"per_hour": 60}}}, hours=10, count=4)

    assert len(found.arrivals) == pytest.approx(2400, rel=0.06)


@pytest.mark.parametrize(
    ("arrivals", "instants"),
    [
        ({"backlog": 2}, [0, 0]),
        ({"burst": {"at": 30, "jobs": 3}}, [30, 30, 30]),
        ({"periodic": {"every": 1000, "after": 60}}, [60, 1060, 2060, 3060]),
        ({"periodic": {"every": 1000, "until": 1500}}, [0, 1000]),
    ],
)
def test_jobs_arrive_when_it_says(arrivals: Any, instants: list[float]) -> None:
    assert [arrival.at for arrival in drawn(2, arrivals).arrivals] == instants


def test_classes_and_expectations_are_as_told() -> None:
    found = drawn(2, classes={"critical": 1, "low": 3}, expected={"times": 5}).arrivals

    low = sum(arrival.job_class is JobClass.LOW for arrival in found)
    assert low / len(found) == pytest.approx(0.75, abs=0.03)
    assert {arrival.expected for arrival in found} == {10}
    assert {arrival.expected for arrival in drawn(2).arrivals} == {None}
    assert len({arrival.expected for arrival in drawn(2, expected={"noise": 1}).arrivals}) > 100


def test_the_capacity_is_what_the_workers_of_an_instant_offer() -> None:
    story = {
        "users": [{"name": "ann"}],
        "workers": [
            {"cpu_units": 4, "memory_mb": 100, "processes": 2, "comes_at": 10, "goes_at": 40},
            {"cpu_units": 8, "memory_mb": 50, "processes": 1, "count": 2, "comes_at": 20},
        ],
    }

    found = draw(Scenario.model_validate(story), 1)

    assert found.capacities == (
        (0.0, None),
        (10.0, Resources(4, 100, 2)),
        (20.0, Resources(20, 200, 4)),
        (40.0, Resources(16, 100, 2)),
    )
    assert found.capacity_at(39) == Resources(20, 200, 4)


def test_users_alike_share_their_caps_where_it_says_so() -> None:
    alike = {"name": "team", "count": 2, "weight": 3, "caps": {"running_jobs": 4}}
    story = {"capacity": {}, "users": [alike | {"shared_caps": {"cpu_units": 2}}, {"name": "bob"}]}

    found = draw(Scenario.model_validate(story), 1)

    assert found.groups == (Group(1, Caps(cpu_units=2)),)
    assert [(a.group_id, a.weight) for a in found.accounts.values()] == [(1, 3), (1, 3), (None, 1)]
    assert found.accounts[2].caps == Caps(running_jobs=4)
    assert [party.owners for party in found.parties] == [{1, 2}, {3}]


def test_listed_jobs_arrive_at_once_with_the_sizes_and_classes_they_name() -> None:
    given = {
        "name": "mine",
        "users": [{"username": "gold", "weight": 3}],
        "jobs": [
            {"owner": "gold", "priority": 9, "payload": {"duration_seconds": 0.2}},
            {"priority": "critical", "resource_requirements": {"cpu_units": 4}},
        ],
    }

    found = listed(JobList.model_validate(given))

    first, second = found.arrivals
    assert (first.job_class, first.seconds, first.at) == (JobClass.LOW, 0.2, 0)
    assert (second.job_class, second.cpu_units, second.at) == (JobClass.CRITICAL, 4, 0)
    assert [account.weight for account in found.accounts.values()] == [3, 1]
