import pytest

from scheduler.policy.engine import Engine
from scheduler.simulate.loop import Run, Simulation
from scheduler.simulate.workload import Workload
from scheduler.snapshot import Resources
from tests.scheduler.simulate.loads import EIGHT, arrival, load

ONE = Resources(1, 4096, 8)


def runs(workload: Workload) -> list[Run]:
    return list(Simulation(workload, Engine()).run())


def starts(workload: Workload) -> list[float | None]:
    return [run.started for run in runs(workload)]


def test_a_job_starts_when_there_is_room_and_ends_when_it_has_run() -> None:
    workload = load([arrival(seconds=3), arrival(at=1, seconds=2)], capacities=((0, ONE),))

    assert [(run.started, run.ended, run.wait()) for run in runs(workload)] == [
        (0, 3, 0),
        (3, 5, 2),
    ]


def test_a_run_goes_on_until_all_have_started_or_ends_with_the_arrivals() -> None:
    jobs = [arrival(seconds=3000) for _ in range(3)]

    assert starts(load(jobs, capacities=((0, ONE),))) == [0, 3000, 6000]
    assert starts(load(jobs, capacities=((0, ONE),), drain=False)) == [0, 3000, None]


def test_nothing_starts_while_no_worker_is_there() -> None:
    workload = load([arrival()], capacities=((0, None), (7, ONE)))

    assert starts(workload) == [7]


def test_what_runs_on_a_worker_that_goes_ends_and_nothing_takes_its_place() -> None:
    jobs = [arrival(seconds=10) for _ in range(8)] + [arrival(at=5)]

    assert starts(load(jobs, capacities=((0, EIGHT), (2, ONE)))) == [0] * 8 + [10]


def test_jobs_that_never_fit_end_no_run_and_hold_none_up() -> None:
    workload = load([arrival(cpu=9), arrival()])

    assert starts(workload) == [None, 0]


def test_asked_at_intervals_the_policy_decides_at_their_ends_only() -> None:
    workload = load([arrival(at=0.3, seconds=1), arrival(at=0.6)], capacities=((0, ONE),))
    workload = Workload(**{**vars(workload), "decides_every": 0.5})

    assert starts(workload) == [0.5, 1.5]


def test_how_long_a_type_takes_is_learned_from_those_that_have_ended() -> None:
    unknown = [arrival(at=at, seconds=20, job_type="new", expected=0) for at in (0, 30, 60)]
    simulation = Simulation(load(unknown), Engine())

    seen = [
        job.expected.total_seconds()
        for decided in simulation.steps()
        for job in simulation.running.values()
        if decided.admissions
    ]

    assert seen == pytest.approx([1, 20, 20])


def test_the_policy_is_told_what_jobs_really_used() -> None:
    engine = Engine()
    simulation = Simulation(load([arrival(1, seconds=8, expected=1), arrival(2, at=20)]), engine)

    simulation.run()

    assert engine.accounts[1].meter == pytest.approx(8 / 8)
