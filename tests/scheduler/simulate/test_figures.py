from dataclasses import replace

import pytest

from scheduler.simulate.figures import ALL, Waits, Window, figures, percentile
from scheduler.simulate.fluid import due
from scheduler.simulate.loop import Run
from scheduler.simulate.workload import Arrival, Workload
from scheduler.snapshot import Account, Resources
from scheduler.states import JobClass
from tests.scheduler.simulate.loads import EIGHT, arrival, load

WHOLE = Window(0, 100)


def done(job: Arrival, started: float) -> Run:
    return Run(job, started, started + job.seconds)


def wide(owner: int, at: float = 0, seconds: float = 10) -> Arrival:
    return arrival(owner, at, seconds, cpu=8)


def after(workload: Workload, runs: list[Run], instant: float) -> dict[int, float]:
    (found,) = due(workload, runs, [instant])
    return found


def test_waits_are_told_by_class_of_those_who_are_watched() -> None:
    mine = [arrival(1, job_class=JobClass.HIGH) for _ in range(3)]
    others = [arrival(2), arrival(2)]
    runs = [done(job, 5.0 * i) for i, job in enumerate(mine)] + [done(others[0], 50)]

    found = figures(
        load([*mine, *others]), [*runs, Run(others[1])], window=WHOLE, watch=["owner 1"]
    )

    assert found.watched == {"high": Waits(3, 5, 10, 10), ALL: Waits(3, 5, 10, 10)}
    assert found.parties["owner 2"].waits[ALL] == Waits(1, 50, 50, 50)
    assert (found.started, found.left_waiting) == (4, 1)


@pytest.mark.parametrize(("part", "value"), [(0.5, 50), (0.99, 99), (1, 100), (0.001, 1)])
def test_a_percentile_is_the_value_that_so_many_do_not_exceed(part: float, value: int) -> None:
    assert percentile(range(1, 101), part) == value


def test_of_two_who_always_have_work_each_is_due_its_weight() -> None:
    jobs = [wide(owner) for owner in (1, 2) for _ in range(20)]
    workload = load(jobs, accounts=[Account(1, weight=3)])
    runs = [done(job, 10 * i) for i, job in enumerate(jobs)]

    assert after(workload, runs, 80) == pytest.approx({1: 60, 2: 20})


def test_who_asks_for_less_leaves_the_rest_to_the_others() -> None:
    jobs = [wide(1), *(wide(2) for _ in range(20))]
    runs = [done(job, 10 * i) for i, job in enumerate(jobs)]

    assert after(load(jobs), runs, 80) == pytest.approx({1: 10, 2: 70})


def test_who_comes_later_is_due_nothing_of_what_was_given_before() -> None:
    jobs = [*(wide(1) for _ in range(20)), *(wide(2, at=40) for _ in range(20))]
    runs = [done(job, 10 * i) for i, job in enumerate(jobs)]

    assert after(load(jobs), runs, 60) == pytest.approx({1: 50, 2: 10})


def test_the_ideal_gives_no_more_than_the_machine_gave() -> None:
    jobs = [wide(1), wide(2), wide(1, at=50)]
    runs = [done(jobs[0], 0), done(jobs[1], 30), done(jobs[2], 60)]

    assert sum(after(load(jobs), runs, 35).values()) == pytest.approx(15)
    assert sum(after(load(jobs), runs, 90).values()) == pytest.approx(30)


def test_shares_are_what_was_received_beside_what_was_due() -> None:
    jobs = [wide(owner) for owner in (1, 2) for _ in range(10)]
    runs = [done(job, 10 * i) for i, job in enumerate(jobs)]

    found = figures(load(jobs), runs, window=WHOLE)

    first, second = (party.share for party in found.parties.values())
    assert (first.received, first.due) == pytest.approx((1, 0.5))
    assert (second.received, second.due) == pytest.approx((0, 0.5))
    assert found.furthest == pytest.approx(1)
    assert found.jain == pytest.approx(0.5)


def test_use_is_the_larger_of_cpu_and_memory_and_busy_while_somebody_waits() -> None:
    jobs = [arrival(cpu=4, seconds=50), arrival(memory=4096, at=20, seconds=20)]
    runs = [done(jobs[0], 0), done(jobs[1], 60)]

    found = figures(load(jobs), runs, window=WHOLE)

    assert found.used == pytest.approx((50 * 0.5 + 20 * 1) / 100)
    assert found.busy == pytest.approx(30 * 0.5 / 40)


def test_use_is_of_what_there_is_at_each_instant() -> None:
    job = arrival(cpu=4, seconds=100)
    workload = load([job], capacities=((0, EIGHT), (50, Resources(4, 4096, 8))))

    assert figures(workload, [done(job, 0)], window=WHOLE).used == pytest.approx(0.75)
    assert figures(
        replace(workload, capacities=((0, EIGHT),)), [done(job, 0)], window=Window(90, 100)
    ).used == pytest.approx(0.5)
