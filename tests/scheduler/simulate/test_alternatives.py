from collections.abc import Iterable

import pytest

from scheduler.simulate.alternatives import Alternative, Order
from scheduler.simulate.loop import Simulation
from scheduler.simulate.workload import Arrival
from scheduler.snapshot import Account, Caps, Resources
from scheduler.states import JobClass
from tests.scheduler.simulate.loads import EIGHT, arrival, load

CRITICAL, NORMAL = JobClass.CRITICAL, JobClass.NORMAL
ONE = Resources(1, 4096, 8)


def started(order: Order, jobs: Iterable[Arrival], capacity: Resources = ONE) -> list[str]:
    """Return the names of jobs in the order of their starts, behind one that runs already."""
    everything = [arrival(9, seconds=2, name="first"), *jobs]
    workload = load(everything, capacities=((0, capacity),))
    runs = Simulation(workload, Alternative(order)).run()
    return [run.job.name for run in sorted(runs, key=lambda run: run.started or 0)[1:]]


def two_users() -> list[Arrival]:
    """Make the work of a busy user, and of another who comes later, with an urgent job each."""
    return [
        arrival(1, 0.1, name="a1"),
        arrival(1, 0.2, name="a2"),
        arrival(1, 0.3, name="a urgent", job_class=CRITICAL),
        arrival(2, 0.4, name="b1"),
        arrival(2, 0.5, name="b urgent", job_class=CRITICAL),
    ]


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (Order.FIRST_COME, ["a1", "a2", "a urgent", "b1", "b urgent"]),
        (Order.STRICT_CLASS, ["a urgent", "b urgent", "a1", "a2", "b1"]),
        (Order.CLASS_THEN_FAIR, ["a urgent", "b urgent", "a1", "b1", "a2"]),
        (Order.FAIR_THEN_CLASS, ["a urgent", "b urgent", "a1", "b1", "a2"]),
    ],
)
def test_each_alternative_has_its_order(order: Order, names: list[str]) -> None:
    assert started(order, two_users()) == names


def test_class_before_fairness_lets_one_user_go_on_and_fairness_before_class_does_not() -> None:
    jobs = [arrival(1, 0.1, name=f"a{i}", job_class=CRITICAL) for i in range(3)]
    jobs += [arrival(2, 0.2, name="b")]

    assert started(Order.CLASS_THEN_FAIR, jobs) == ["a0", "a1", "a2", "b"]
    assert started(Order.FAIR_THEN_CLASS, jobs) == ["a0", "b", "a1", "a2"]


def test_weights_count() -> None:
    jobs = [arrival(owner, name=str(owner)) for owner in (1, 2) for _ in range(20)]
    workload = load(jobs, capacities=((0, ONE),), accounts=[Account(1, weight=3)])

    runs = Simulation(workload, Alternative(Order.FAIR_THEN_CLASS)).run()

    first = sorted(runs, key=lambda run: run.started or 0)[:16]
    assert sum(run.job.owner_id == 1 for run in first) == pytest.approx(12, abs=1)


def test_small_jobs_fill_the_gap_before_the_first_that_lacks_room_and_do_not_delay_it() -> None:
    jobs = [
        arrival(1, 0.1, 4, cpu=8, name="wide"),
        arrival(1, 0.2, 5, name="long"),
        arrival(2, 0.3, 1, name="short"),
    ]

    assert started(Order.FIRST_COME, jobs, EIGHT) == ["short", "wide", "long"]


def test_caps_hold() -> None:
    jobs = [arrival(1, seconds=1) for _ in range(3)] + [arrival(2, seconds=1)]
    capped = Account(1, caps=Caps(running_jobs=1))

    runs = Simulation(load(jobs, accounts=[capped]), Alternative(Order.FIRST_COME)).run()

    assert [run.started for run in runs] == [0, 1, 2, 0]
