from dataclasses import replace
from datetime import timedelta
from math import exp
from random import Random

import pytest

from scheduler.policy.experience import (
    Bounds,
    Case,
    Estimate,
    Experience,
    Method,
    Scorer,
    Verdict,
)
from scheduler.policy.forecast import estimate, forecast
from scheduler.policy.parameters import FORECAST_ADMISSIONS
from scheduler.snapshot import Account, Caps, Limits, Resources
from scheduler.states import JobClass
from tests.scheduler.policy.machine import NOON, Machine, job, running, seconds, snapshot

ONE = Limits(Resources(1, 4096, 64))


def test_a_job_that_would_start_now_is_estimated_to_start_now() -> None:
    assert estimate(snapshot([job(1)]), [1]) == {1: Estimate(NOON, NOON, Method.SIMULATION)}


def test_a_forecast_waits_for_the_jobs_that_have_to_end_first() -> None:
    seen = snapshot([job(1, expected=10), job(2)], [running(9, expected=4)], limits=ONE)

    found = forecast(seen, [2, 1])

    assert [found[i].wait for i in (1, 2)] == [seconds(4), seconds(14)]
    assert {each.method for each in found.values()} == {Method.SIMULATION}


def test_an_estimate_is_a_range_around_the_forecast() -> None:
    seen = snapshot([job(1, expected=10), job(2)], [running(9, expected=4)], limits=ONE)

    found = estimate(seen, [2, 1])

    for number, wait in ((1, seconds(4)), (2, seconds(14))):
        assert NOON <= found[number].earliest < NOON + wait < found[number].latest
    assert found[1].latest - found[1].earliest < found[2].latest - found[2].earliest


def test_a_range_reaches_as_far_as_experience_with_such_jobs_says() -> None:
    seen = snapshot([job(1)], [running(9, expected=4)], limits=ONE)
    width = forecast(seen, [1])[1].width
    normal, low = (Case(Method.SIMULATION, each) for each in (JobClass.NORMAL, JobClass.LOW))

    sure = estimate(seen, [1], experience=Experience({normal: Bounds(-0.5, 1), low: Bounds(-5, 5)}))

    # One second of blur is added before stretching and taken off after.
    assert sure[1].earliest - NOON == seconds(5 * exp(-0.5 * width) - 1)
    assert sure[1].latest - NOON == seconds(5 * exp(width) - 1)


def test_the_less_is_known_of_how_long_jobs_take_the_wider_the_range() -> None:
    busy = [replace(running(9, expected=4), spread=spread) for spread in (0.1, 0.5, 1.0)]
    widths = [forecast(snapshot([job(1)], [each], limits=ONE), [1])[1].width for each in busy]

    assert widths == sorted(set(widths))


def test_what_many_jobs_take_together_is_surer_than_what_one_takes() -> None:
    jobs = [replace(job(i, expected=4), spread=1.0) for i in range(1, 60)]

    found = forecast(snapshot(jobs, limits=ONE), [2, 59])

    assert found[59].width < found[2].width


def test_jobs_of_wide_spread_are_played_with_their_mean_not_with_their_middle() -> None:
    jobs = [replace(job(i, expected=4), spread=1.0) for i in range(1, 30)]

    wait = forecast(snapshot(jobs, limits=ONE), [29])[29].wait

    assert wait.total_seconds() == pytest.approx(28 * 4 * exp(0.5), rel=0.01)


def test_the_longer_a_job_has_run_the_longer_it_is_taken_to_go_on() -> None:
    ran = [1, 4, 16, 64]
    busy = [
        replace(running(9, expected=4, started_at=NOON - seconds(each)), spread=1.0) for each in ran
    ]
    waits = [forecast(snapshot([job(1)], [each], limits=ONE), [1])[1].wait for each in busy]

    assert waits == sorted(set(waits))
    assert waits[-1] > seconds(10)


def test_an_estimate_follows_the_policy_not_the_order_of_submission() -> None:
    jobs = [job(1, expected=10), job(2, 1, JobClass.CRITICAL, expected=7)]

    assert forecast(snapshot(jobs, limits=ONE), [1])[1].wait == seconds(7)


def test_an_urgent_job_behind_many_others_is_estimated_for_its_place_in_the_order() -> None:
    jobs = [job(i, expected=2) for i in range(1, 500)]
    urgent = job(500, 2, JobClass.CRITICAL)

    found = forecast(snapshot([*jobs, urgent], [running(900, expected=4)], limits=ONE), [500])

    assert found[500].wait == seconds(4)
    assert found[500].method is Method.SIMULATION


def test_a_heavy_job_is_estimated_for_when_room_is_kept_for_it() -> None:
    light = [job(i, expected=5, ready_at=NOON + seconds(1)) for i in range(10, 40)]
    seen = snapshot([job(1, cpu=8), *light], [running(9, cpu=4, expected=20)])

    assert forecast(seen, [1])[1].wait == seconds(20)


def test_estimates_agree_with_what_happens_when_nothing_else_does() -> None:
    machine = Machine()
    machine.submit(
        job(i, i % 5, cpu=1 + i % 3, expected=1 + i % 7, memory=64 * (1 + i % 4))
        for i in range(120)
    )
    seen, _ = next(machine.steps())

    found = forecast(seen, range(120))
    machine.run()

    early = sorted(found[i].wait / (at - NOON) for i, at in machine.started.items() if at > NOON)
    assert 0.9 < early[len(early) // 2] < 1.1
    assert early[len(early) // 10] > 1 / 3
    assert early[-len(early) // 10] < 2


def test_beyond_the_jobs_played_forward_the_rate_goes_on() -> None:
    jobs = [job(i, expected=2) for i in range(1, 1001)]

    found = forecast(snapshot(jobs, limits=ONE), [1000])

    assert found[1000].method is Method.RATE
    assert found[1000].wait == pytest.approx(seconds(1998), rel=0.02)


def test_jobs_admitted_at_once_do_not_hide_the_rate_of_those_after_them() -> None:
    limits = Limits(Resources(300, 4096 * 300, 300))
    jobs = [job(i, i % 10, expected=2 + i % 3) for i in range(1, 1001)]

    found = forecast(snapshot(jobs, limits=limits), [200, 999])

    assert found[200].wait == seconds(0)
    assert seconds(5) < found[999].wait < seconds(12)


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

    assert forecast(seen, [1])[1].wait == seconds(30)


def test_overdue_jobs_are_taken_to_end_soon() -> None:
    overdue = running(9, expected=4, started_at=NOON - timedelta(hours=1))

    found = forecast(snapshot([job(1)], [overdue], limits=ONE), [1])

    assert seconds(0) < found[1].wait <= seconds(2)


def test_the_number_of_jobs_played_forward_is_bounded() -> None:
    jobs = [job(i, expected=2) for i in range(1, FORECAST_ADMISSIONS + 3)]

    found = estimate(snapshot(jobs, limits=ONE), [job.id for job in jobs])

    methods = [found[i].method for i in range(1, FORECAST_ADMISSIONS + 3)]
    assert methods == [Method.SIMULATION] * (FORECAST_ADMISSIONS + 1) + [Method.RATE]


def everyday(machine: Machine, hours: float) -> None:
    """100 users, load 0.85 of 8 CPUs, mostly small jobs and some wide ones."""
    chance = Random(7)  # noqa: S311 - makes a load
    shapes = [("light", 1, 128, 2, 4), ("mid", 2, 256, 4, 12), ("wide", 4, 2048, 6, 18)]
    shapes += [("huge", 6, 512, 10, 30)]
    classes = [JobClass.CRITICAL, JobClass.HIGH, JobClass.NORMAL, JobClass.LOW]
    at, number, jobs = 0.0, 0, []
    while (at := at + chance.expovariate(0.85 * 8 / 11.94)) < hours * 3600:
        kind, cpu, memory, least, most = chance.choices(shapes, [78, 12, 6, 4])[0]
        made = job(
            number := number + 1,
            chance.randint(1, 100),
            chance.choices(classes, [5, 15, 60, 20])[0],
            cpu=cpu,
            memory=memory,
            expected=(least + most) / 2,
            job_type=kind,
            ready_at=NOON + seconds(at),
        )
        jobs.append(replace(made, spread=0.35))
        machine.really[number] = chance.uniform(least, most)
    machine.submit(jobs)


def test_on_an_everyday_load_ranges_hold_four_starts_out_of_five() -> None:
    machine, scorer = Machine(), Scorer()
    everyday(machine, hours=0.4)
    told_at = NOON - seconds(1)

    for seen, made in machine.steps():
        scorer.started(dict.fromkeys((each.id for each in made.admissions), seen.now))
        if seen.now - told_at >= seconds(1):
            told_at = seen.now
            found = estimate(seen, [*made.holds], decided=made, experience=scorer.experience)
            scorer.publish(found, {each.id: each.job_class for each in seen.candidates})

    verdicts = dict.fromkeys(Verdict, 0)
    for score in scorer.take():
        for verdict, count in score.verdicts.items():
            verdicts[verdict] += count
    assert sum(verdicts.values()) > 300
    assert 0.75 <= verdicts[Verdict.WITHIN] / sum(verdicts.values()) <= 0.9
