from dataclasses import replace
from datetime import timedelta

import pytest

from scheduler.policy.meters import correct, dominant_share, effective_weight, rank
from scheduler.policy.parameters import EXPRESS_REFILL
from scheduler.snapshot import Account, Clock, Resources
from scheduler.states import DEFAULT_LEVEL, JobClass, class_of
from tests.scheduler.policy.machine import EIGHT, NOON, passed, running, seconds


def place(job_class: JobClass, level: int | None = None, *, minutes: float = 0) -> int:
    chosen = DEFAULT_LEVEL[job_class] if level is None else level
    return rank(NOON + timedelta(minutes=minutes), job_class, chosen)


def test_classes_stand_in_line_as_if_submitted_earlier_by_their_head_start() -> None:
    assert place(JobClass.LOW) - place(JobClass.NORMAL) == 600 * 1_000_000
    assert place(JobClass.LOW) - place(JobClass.HIGH) == 3_600 * 1_000_000
    assert place(JobClass.LOW) - place(JobClass.CRITICAL) == 21_600 * 1_000_000


def test_an_old_low_job_stands_before_a_new_normal_one_after_ten_minutes() -> None:
    assert place(JobClass.LOW) > place(JobClass.NORMAL, minutes=9.9)
    assert place(JobClass.LOW) < place(JobClass.NORMAL, minutes=10.1)


def test_levels_of_jobs_submitted_together_stand_in_order() -> None:
    ranks = [place(class_of(level), level) for level in range(11)]

    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 11


def test_the_dominant_share_is_the_larger_fraction() -> None:
    assert dominant_share(4, 1024, EIGHT) == 0.5
    assert dominant_share(1, 1024, EIGHT) == 0.25


def test_a_job_that_asks_for_nothing_still_has_a_share() -> None:
    assert dominant_share(0, 0, EIGHT) > 0
    assert dominant_share(1, 128, Resources(0, 0, 0)) > 0


def test_weights_are_kept_between_a_quarter_and_four() -> None:
    assert [effective_weight(weight) for weight in (0.01, 1, 100)] == [0.25, 1, 4]


def test_virtual_time_moves_at_the_average_rate_while_somebody_waits() -> None:
    accounts = {1: Account(1, weight=3, tag=0), 2: Account(2, weight=1)}
    busy = [running(1, owner=1, cpu=4), running(2, owner=2, cpu=2)]

    later = passed(Clock(10, advanced_at=NOON), busy, accounts, NOON + seconds(8))

    assert later.virtual_now == pytest.approx(10 + 8 * 0.75 / 4)


def test_virtual_time_counts_a_job_from_its_start() -> None:
    accounts = {1: Account(1, tag=0)}
    busy = [running(1, cpu=8, started_at=NOON + seconds(6)), running(2, started_at=None)]

    later = passed(Clock(0, advanced_at=NOON), busy, accounts, NOON + seconds(8))

    assert later.virtual_now == pytest.approx(2)


def test_debts_fade_at_the_rate_of_the_whole_machine_while_nobody_waits() -> None:
    clock = Clock(0, express_load=5, advanced_at=NOON)

    heavy = passed(clock, [running(1)], {1: Account(1)}, NOON + seconds(8))
    light = passed(clock, [running(1)], {1: Account(1, weight=0.25)}, NOON + seconds(8))

    assert (heavy.virtual_now, light.virtual_now) == (8, 32)
    assert heavy.express_load == 0


def test_a_clock_that_jumps_neither_forgives_everything_nor_goes_back() -> None:
    clock = Clock(100, advanced_at=NOON)

    ahead = passed(clock, [], {}, NOON + timedelta(days=1))
    back = passed(clock, [], {}, NOON - timedelta(days=1))

    assert ahead.virtual_now == 160
    assert back.virtual_now == 100
    assert passed(back, [], {}, back.advanced_at + seconds(1)).virtual_now == 101


def test_express_load_is_paid_back_by_three_quarters_of_what_is_served() -> None:
    clock = Clock(express_load=10, advanced_at=NOON)

    later = passed(clock, [running(1, cpu=8)], {1: Account(1, tag=0)}, NOON + seconds(4))

    assert later.express_load == pytest.approx(10 - 4 * EXPRESS_REFILL)


def test_a_correction_puts_what_was_used_in_the_place_of_the_charge() -> None:
    account = Account(1, weight=2, meter=10, express_meter=20, tag=9)

    corrected, _ = correct(account, Clock(), charge=4, used=1, express=False)

    assert corrected == replace(account, meter=8.5, tag=7.5)


def test_a_correction_of_express_work_reaches_the_express_meters_too() -> None:
    clock = Clock(express_load=5)

    account, after = correct(Account(1, express_meter=8), clock, charge=4, used=1, express=True)

    assert account.express_meter == 8 - 3 / EXPRESS_REFILL
    assert account.tag is None
    assert after.express_load == 2


def test_the_mean_cost_follows_what_jobs_used_and_ignores_those_that_never_ran() -> None:
    clock = Clock(mean_cost=1)

    _, ran = correct(Account(1), clock, charge=1, used=51, express=False)
    _, never = correct(Account(1), clock, charge=1, used=0, express=False)

    assert ran.mean_cost == 2
    assert never.mean_cost == 1
