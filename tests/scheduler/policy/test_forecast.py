from datetime import timedelta

import pytest

from scheduler.policy.forecast import Estimate, Method, estimate
from scheduler.policy.parameters import FORECAST_ADMISSIONS
from scheduler.snapshot import Account, Caps, Limits, Resources
from scheduler.states import JobClass
from tests.scheduler.policy.machine import NOON, Machine, job, running, seconds, snapshot

ONE = Limits(Resources(1, 4096, 64))


def test_a_job_that_would_start_now_is_estimated_to_start_now() -> None:
    assert estimate(snapshot([job(1)]), [1]) == {1: Estimate(NOON, NOON, Method.SIMULATION)}


def test_an_estimate_runs_from_the_forecast_wait_to_three_times_it() -> None:
    seen = snapshot([job(1, expected=10), job(2)], [running(9, expected=4)], limits=ONE)

    found = estimate(seen, [2, 1])

    assert found == {
        1: (NOON + seconds(4), NOON + seconds(12), Method.SIMULATION),
        2: (NOON + seconds(14), NOON + seconds(42), Method.SIMULATION),
    }


def test_an_estimate_follows_the_policy_not_the_order_of_submission() -> None:
    jobs = [job(1, expected=10), job(2, 1, JobClass.CRITICAL, expected=7)]

    assert estimate(snapshot(jobs, limits=ONE), [1])[1].earliest == NOON + seconds(7)


def test_an_urgent_job_behind_many_others_is_estimated_for_its_place_in_the_order() -> None:
    jobs = [job(i, expected=2) for i in range(1, 500)]
    urgent = job(500, 2, JobClass.CRITICAL)

    found = estimate(snapshot([*jobs, urgent], [running(900, expected=4)], limits=ONE), [500])

    assert found[500] == (NOON + seconds(4), NOON + seconds(12), Method.SIMULATION)


def test_a_heavy_job_is_estimated_for_when_room_is_kept_for_it() -> None:
    light = [job(i, expected=5, ready_at=NOON + seconds(1)) for i in range(10, 40)]
    seen = snapshot([job(1, cpu=8), *light], [running(9, cpu=4, expected=20)])

    assert estimate(seen, [1])[1].earliest == NOON + seconds(20)


def test_estimates_agree_with_what_happens_when_nothing_else_does() -> None:
    machine = Machine()
    machine.submit(
        job(i, i % 5, cpu=1 + i % 3, expected=1 + i % 7, memory=64 * (1 + i % 4))
        for i in range(120)
    )
    seen, _ = next(machine.steps())

    found = estimate(seen, range(120))
    machine.run()

    early = sorted(
        (found[i].earliest - NOON) / (at - NOON) for i, at in machine.started.items() if at > NOON
    )
    assert 0.9 < early[len(early) // 2] < 1.1
    assert early[len(early) // 10] > 1 / 3
    assert early[-len(early) // 10] < 2


def test_beyond_the_jobs_played_forward_the_rate_goes_on() -> None:
    jobs = [job(i, expected=2) for i in range(1, 1001)]

    found = estimate(snapshot(jobs, limits=ONE), [1000])

    assert found[1000].method is Method.RATE
    assert found[1000].earliest - NOON == pytest.approx(seconds(1998), rel=0.02)


def test_jobs_admitted_at_once_do_not_hide_the_rate_of_those_after_them() -> None:
    limits = Limits(Resources(300, 4096 * 300, 300))
    jobs = [job(i, i % 10, expected=2 + i % 3) for i in range(1, 1001)]

    found = estimate(snapshot(jobs, limits=limits), [200, 999])

    assert found[200].earliest == NOON
    assert seconds(5) < found[999].earliest - NOON < seconds(12)


def test_what_nothing_known_would_start_has_no_estimate() -> None:
    limits = Limits(Resources(8, 4096, 8), paused_classes=frozenset({JobClass.LOW}))
    capped = [Account(2, caps=Caps(running_jobs=0))]
    jobs = [job(1), job(2, 1, JobClass.LOW), job(3, 2), job(4, cpu=16)]

    found = estimate(snapshot(jobs, accounts=capped, limits=limits), [1, 2, 3, 4, 5])

    assert set(found) == {1}
    assert estimate(snapshot(jobs, limits=Limits(None)), [1]) == {}


def test_a_job_at_its_owners_cap_is_estimated_for_when_there_is_room_under_it() -> None:
    accounts = [Account(1, caps=Caps(running_jobs=1))]
    seen = snapshot([job(1)], [running(9, expected=30)], accounts=accounts)

    assert estimate(seen, [1])[1].earliest == NOON + seconds(30)


def test_overdue_jobs_are_taken_to_end_soon() -> None:
    overdue = running(9, expected=4, started_at=NOON - timedelta(hours=1))

    found = estimate(snapshot([job(1)], [overdue], limits=ONE), [1])

    assert NOON < found[1].earliest <= NOON + seconds(2)


def test_the_number_of_jobs_played_forward_is_bounded() -> None:
    jobs = [job(i, expected=2) for i in range(1, FORECAST_ADMISSIONS + 3)]

    found = estimate(snapshot(jobs, limits=ONE), [job.id for job in jobs])

    methods = [found[i].method for i in range(1, FORECAST_ADMISSIONS + 3)]
    assert methods == [Method.SIMULATION] * (FORECAST_ADMISSIONS + 1) + [Method.RATE]
