"""Named cases of the rules, each on one snapshot."""

from collections import Counter
from datetime import timedelta

import pytest

from scheduler.policy.admission import Grounds
from scheduler.policy.plan import plan
from scheduler.policy.reasons import HoldCode, sentence
from scheduler.snapshot import (
    Account,
    Caps,
    Clock,
    Group,
    Limits,
    Reservation,
    Resources,
)
from scheduler.states import JobClass
from tests.scheduler.policy.machine import EIGHT, NOON, admitted, job, running, seconds, snapshot

CRITICAL, HIGH, NORMAL, LOW = JobClass.CRITICAL, JobClass.HIGH, JobClass.NORMAL, JobClass.LOW
ONE = Limits(Resources(1, 4096, 64))


# Whose turn it is


def test_the_owner_who_received_least_goes_next() -> None:
    accounts = [Account(1, meter=5, tag=5), Account(2, meter=4, tag=4)]

    made = plan(snapshot([job(1, 1), job(2, 2)], accounts=accounts, limits=ONE))

    assert admitted(made) == [2]


def test_owners_share_starts_by_weight_within_one_pass() -> None:
    jobs = [job(10 * owner + i, owner) for owner in (1, 2) for i in range(8)]
    accounts = [Account(1, weight=3), Account(2, weight=1)]

    made = plan(snapshot(jobs, accounts=accounts))

    assert Counter(each.owner_id for each in made.admissions) == {1: 6, 2: 2}
    assert 2 in [each.owner_id for each in made.admissions][:4]


def test_a_weight_beyond_the_bounds_overrides_nobody() -> None:
    jobs = [job(10 * owner + i, owner) for owner in (1, 2) for i in range(8)]
    accounts = [Account(1, weight=1000), Account(2, weight=1)]

    made = plan(snapshot(jobs, accounts=accounts))

    assert Counter(each.owner_id for each in made.admissions) == {1: 6, 2: 2}


def test_a_larger_job_costs_its_owner_more() -> None:
    jobs = [job(1, 1, cpu=4), *(job(10 + i, 2) for i in range(4)), job(2, 1, cpu=4)]

    made = plan(snapshot(jobs))

    assert admitted(made) == [1, 10, 11, 12, 13]


def test_the_charge_is_the_dominant_share_times_the_expected_seconds() -> None:
    made = plan(snapshot([job(1, cpu=2, memory=2048, expected=6)]))

    assert made.admissions[0].charge == pytest.approx(0.5 * 6)
    assert made.accounts[0].meter == pytest.approx(3)


def test_a_user_who_comes_back_from_idleness_starts_at_virtual_now() -> None:
    accounts = [Account(1, meter=0), Account(2, meter=1000, tag=1000)]
    jobs = [job(10 * owner + i, owner) for owner in (1, 2) for i in range(8)]

    made = plan(snapshot(jobs, accounts=accounts, clock=Clock(1000)))

    assert Counter(each.owner_id for each in made.admissions) == {1: 4, 2: 4}
    assert made.accounts[0].meter > 1000


def test_newcomers_enter_beside_those_whom_a_burst_has_left_behind() -> None:
    burst = Account(1, meter=90, tag=90, express_meter=90)
    others = [Account(owner, meter=tag, tag=tag) for owner, tag in ((2, 4.0), (3, 5.0), (4, 6.0))]
    jobs = [job(owner, owner) for owner in range(1, 6)]

    made = plan(snapshot(jobs, accounts=[burst, *others], clock=Clock(20), limits=ONE))

    assert made.order == (2, 3, 5, 4, 1)  # 5 is level with 3


def test_a_user_in_line_is_owed_no_more_than_the_lag_limit() -> None:
    accounts = [Account(1, meter=0, tag=0), Account(2, meter=1000, tag=1000)]
    jobs = [job(1, 1), job(2, 1), job(3, 2)]

    made = plan(snapshot(jobs, accounts=accounts, clock=Clock(1000), limits=ONE))

    # 600 s of the owner's half of the machine, and then what the job is charged.
    assert [(each.meter, each.tag) for each in made.accounts] == [(710, 710)]


def test_virtual_now_is_never_behind_all_who_could_go() -> None:
    accounts = [Account(1, meter=50, tag=50), Account(2, meter=70, tag=70)]
    blocker = [running(9, owner=1, cpu=8, expected=10)]

    made = plan(snapshot([job(1, 1), job(2, 2)], blocker, accounts=accounts, clock=Clock(0)))

    assert made.clock.virtual_now == 40


def test_an_owner_at_a_cap_does_not_hold_virtual_now_back() -> None:
    accounts = [Account(1, meter=5, tag=5, caps=Caps(running_jobs=0)), Account(2, tag=70)]

    made = plan(snapshot([job(1, 1), job(2, 2)], accounts=accounts, clock=Clock(0)))

    assert made.clock.virtual_now == 70


def test_a_line_that_empties_loses_its_tag() -> None:
    made = plan(snapshot([job(1)], accounts=[Account(1, tag=0), Account(2, tag=3)]))

    assert [account.tag for account in made.accounts] == [None, None]


def test_running_longer_than_expected_counts_at_once() -> None:
    late = running(9, owner=1, expected=1, charge=0.125)
    now = NOON + seconds(100)
    accounts = [Account(1, meter=0, tag=0), Account(2, meter=5, tag=5)]
    jobs = [job(1, 1, cpu=7), job(2, 2, cpu=7)]

    made = plan(snapshot(jobs, [late], accounts=accounts, now=now))

    assert admitted(made) == [2]


def test_ties_go_to_the_earlier_submission_then_to_the_smaller_id() -> None:
    earlier = job(3, 3, ready_at=NOON - seconds(1))

    made = plan(snapshot([job(2, 2), job(1, 1), earlier], limits=ONE))

    assert made.order == (3, 1, 2)


# Classes


def test_a_users_jobs_go_critical_then_high_then_normal_then_low() -> None:
    jobs = [job(i, 1, each) for i, each in enumerate((LOW, NORMAL, HIGH, CRITICAL), start=1)]

    made = plan(snapshot(jobs, limits=ONE))

    assert admitted(made) == [4]
    assert made.order == (4, 3, 2, 1)


def test_a_smaller_level_goes_first_inside_a_class() -> None:
    jobs = [job(1, level=6), job(2, level=5), job(3, level=4)]

    assert plan(snapshot(jobs, limits=ONE)).order == (3, 2, 1)


def test_equal_jobs_of_a_user_go_in_the_order_submitted() -> None:
    jobs = [job(i, ready_at=NOON - seconds(i)) for i in range(1, 6)]

    assert plan(snapshot(jobs, limits=ONE)).order == (5, 4, 3, 2, 1)


def test_an_old_low_job_passes_its_owners_new_normal_one() -> None:
    old = job(1, 1, LOW, ready_at=NOON - timedelta(minutes=11))

    assert admitted(plan(snapshot([job(2, 1), old], limits=ONE))) == [1]


def test_critical_and_high_jump_everybodys_line() -> None:
    accounts = [Account(1, meter=50, tag=50), Account(2, tag=0), Account(3, meter=50, tag=50)]
    jobs = [job(1, 1, CRITICAL), job(2, 2), job(3, 3, HIGH)]

    made = plan(snapshot(jobs, accounts=accounts, limits=ONE))

    assert made.order == (1, 3, 2)
    assert made.admissions[0].grounds is Grounds.EXPRESS


def test_a_critical_job_jumps_its_owners_own_older_jobs() -> None:
    older = [job(i, ready_at=NOON - timedelta(hours=7)) for i in (1, 2)]

    assert admitted(plan(snapshot([*older, job(3, 1, CRITICAL)], limits=ONE))) == [3]


def test_beyond_the_allowance_critical_jobs_wait_for_their_owners_turn() -> None:
    accounts = [Account(1, express_meter=500, tag=1, meter=1), Account(2, tag=0)]
    jobs = [job(1, 1), job(2, 1, CRITICAL), job(3, 2), job(4, 2)]

    made = plan(snapshot(jobs, accounts=accounts))

    assert made.order == (3, 2, 4, 1)
    assert not any(admission.express for admission in made.admissions)


def test_the_allowance_is_seconds_of_the_owners_share_among_all_in_line() -> None:
    jobs = [job(i, 1, CRITICAL, cpu=8, expected=16) for i in range(9)]
    others = [job(100 + owner, owner) for owner in range(2, 5)]
    limits = Limits(Resources(64, 32768, 64))

    made = plan(snapshot([*jobs, *others], limits=limits, clock=Clock(mean_cost=0.001)))

    # 120 s over four owners of weight 1 is 30 on the meter; a job is 2, and 2 2/3 with the refill.
    assert sum(admission.express for admission in made.admissions) == 8


def test_the_allowance_is_at_least_eight_average_jobs() -> None:
    owners = range(2, 1002)
    jobs = [job(i, 1, CRITICAL) for i in range(20)]
    others = [job(100 + owner, owner) for owner in owners]
    limits = Limits(Resources(8 * 20, 4096 * 20, 200))

    made = plan(snapshot([*jobs, *others], limits=limits, clock=Clock(mean_cost=10 / 160)))

    assert sum(admission.express for admission in made.admissions) == 9


def test_the_allowance_of_high_is_smaller_than_that_of_critical() -> None:
    accounts = [Account(1, express_meter=60), Account(2, express_meter=60)]

    made = plan(snapshot([job(1, 1, HIGH), job(2, 2, CRITICAL)], accounts=accounts))

    assert {each.id: each.express for each in made.admissions} == {2: True, 1: False}


def test_express_work_of_all_together_closes_the_lanes_high_first() -> None:
    jobs = [job(1, 1, HIGH), job(2, 2, CRITICAL), job(3, 3, HIGH)]

    half = plan(snapshot(jobs, clock=Clock(express_load=40)))
    full = plan(snapshot(jobs, clock=Clock(express_load=70)))

    assert [each.id for each in half.admissions if each.express] == [2]
    assert not any(each.express for each in full.admissions)


def test_express_meters_behind_virtual_now_are_all_alike() -> None:
    accounts = [Account(1, express_meter=0), Account(2, express_meter=50)]
    older = job(2, 2, CRITICAL, ready_at=NOON - seconds(1))

    made = plan(
        snapshot([job(1, 1, CRITICAL), older], accounts=accounts, limits=ONE, clock=Clock(100))
    )

    assert admitted(made) == [2]


def test_express_work_that_runs_longer_than_expected_uses_up_the_allowance() -> None:
    late = running(9, expected=1, express=True)
    jobs = [job(1, 1, CRITICAL), job(2, 2, CRITICAL)]

    made = plan(snapshot(jobs, [late], now=NOON + seconds(600)))

    assert {each.id: each.express for each in made.admissions} == {2: True, 1: False}


def test_the_lanes_close_in_the_middle_of_a_pass() -> None:
    jobs = [job(i, i, CRITICAL, cpu=8, memory=128, expected=20) for i in range(1, 9)]
    limits = Limits(Resources(64, 4096 * 8, 64))

    made = plan(snapshot(jobs, limits=limits, clock=Clock(express_load=55)))

    assert [each.express for each in made.admissions] == [True, True, True, *[False] * 5]


def test_fresh_low_jobs_defer_to_other_owners_work() -> None:
    accounts = [Account(1, meter=0, tag=0), Account(2, meter=10, tag=10)]

    made = plan(snapshot([job(1, 1, LOW), job(2, 2)], accounts=accounts, limits=ONE))

    assert admitted(made) == [2]


def test_an_old_low_job_defers_to_nobody() -> None:
    accounts = [Account(1, meter=0, tag=0), Account(2, meter=10, tag=10)]
    old = job(1, 1, LOW, ready_at=NOON - timedelta(minutes=11))

    assert admitted(plan(snapshot([old, job(2, 2)], accounts=accounts, limits=ONE))) == [1]


# Room, reservation and gap


def test_a_job_that_is_next_and_does_not_fit_gets_a_reservation() -> None:
    busy = [running(9, owner=2, cpu=6, expected=30)]

    made = plan(snapshot([job(1, cpu=4)], busy))

    assert made.reservation == Reservation(1, 1, NOON, NOON + seconds(30))
    assert made.holds[1].code is HoldCode.RESOURCES
    assert sentence(made.holds[1]) == "Waits for 4 CPU units; 2 are free now."


@pytest.mark.parametrize(
    ("filler", "enters"),
    [
        ({"cpu": 2, "expected": 30}, [2]),  # ends in time
        ({"cpu": 2, "expected": 31}, []),  # would delay it
        ({"cpu": 1, "expected": 999}, [2]),  # fits beside it
    ],
)
def test_only_what_does_not_delay_the_reservation_uses_the_gap(
    filler: dict[str, float], enters: list[int]
) -> None:
    busy = [running(9, owner=2, cpu=5, expected=30)]
    jobs = [job(1, 1, cpu=7), job(2, 2, **filler, ready_at=NOON + seconds(1))]

    made = plan(snapshot(jobs, busy))

    assert admitted(made) == enters
    assert all(each.grounds is Grounds.GAP for each in made.admissions)


def test_a_job_that_would_delay_the_reservation_is_told_whom_room_is_kept_for() -> None:
    busy = [running(9, owner=2, cpu=5, expected=30)]

    made = plan(snapshot([job(1, 1, cpu=7), job(2, 2, cpu=2, expected=31)], busy))

    assert made.holds[2].code is HoldCode.RESOURCES
    assert made.holds[2].kept_for == 1
    assert "kept for it" in sentence(made.holds[2])


def test_room_beside_the_reservation_is_given_away_once() -> None:
    busy = [running(9, owner=2, cpu=4, expected=30)]
    jobs = [job(1, 1, cpu=7), job(2, 2, expected=999), job(3, 3, expected=999)]

    made = plan(snapshot(jobs, busy))

    assert admitted(made) == [2]
    assert made.holds[3].kept_for == 1


def test_memory_is_reserved_like_cpu() -> None:
    busy = [running(9, owner=2, memory=3000, expected=30)]
    jobs = [job(1, 1, memory=2048), job(2, 2, memory=1000, expected=10), job(3, 3, memory=1000)]

    made = plan(snapshot(jobs, busy))

    assert admitted(made) == [2]
    assert sentence(made.holds[1]) == "Waits for 2048 MB of memory; 96 are free now."


def test_a_reservation_keeps_its_first_moment_while_the_same_job_is_next() -> None:
    kept = Reservation(1, 1, NOON - seconds(3), NOON + seconds(10))
    busy = [running(9, owner=2, cpu=6, expected=30)]

    made = plan(snapshot([job(1, cpu=4)], busy, reservation=kept))

    assert made.reservation == Reservation(1, 1, NOON - seconds(3), NOON + seconds(30))


def test_a_hard_reservation_keeps_its_promise() -> None:
    hard = Reservation(1, 1, NOON - seconds(5), NOON + seconds(10))
    busy = [running(9, 2, cpu=6, expected=30)]

    made = plan(snapshot([job(1, 1, cpu=4), job(2, 2, cpu=4)], busy, reservation=hard))

    assert made.reservation == hard


def test_whoever_has_a_hard_reservation_is_next_behind_critical_express_work_only() -> None:
    hard = Reservation(1, 1, NOON - seconds(5), NOON + seconds(10))
    accounts = [Account(1, meter=99, tag=99), Account(2, meter=90, tag=90)]
    jobs = [job(1, 1, cpu=4), job(2, 2, cpu=4), job(3, 4, CRITICAL, cpu=4, expected=9)]
    busy = [running(9, 3, cpu=8, expected=10)]

    made = plan(snapshot(jobs, busy, accounts=accounts, reservation=hard, clock=Clock(90)))

    assert made.order == (3, 1, 2)
    assert [made.holds[each].before for each in made.order] == [0, 1, 2]


def test_a_hard_reservation_is_served_first_when_it_fits() -> None:
    hard = Reservation(1, 1, NOON - seconds(5), NOON)
    accounts = [Account(1, meter=99, tag=99), Account(2, tag=90)]
    jobs = [job(1, 1, cpu=4), job(2, 2, cpu=4), job(3, 2, HIGH, cpu=4)]

    made = plan(
        snapshot(jobs, [running(9, cpu=4)], accounts=accounts, reservation=hard, clock=Clock(90))
    )

    assert [(each.id, each.grounds) for each in made.admissions] == [(1, Grounds.RESERVED)]
    assert made.reservation is not None
    assert made.reservation.job_id == 3


def test_critical_express_work_goes_before_a_hard_reservation_within_its_slip() -> None:
    hard = Reservation(1, 1, NOON - seconds(5), NOON - seconds(50))
    busy = [running(9, 3, cpu=4, expected=100)]

    within = plan(
        snapshot(
            [job(1, 1, cpu=4), job(2, 2, CRITICAL, cpu=4, expected=10)], busy, reservation=hard
        )
    )
    beyond = plan(
        snapshot(
            [job(1, 1, cpu=4), job(2, 2, CRITICAL, cpu=4, expected=11)], busy, reservation=hard
        )
    )

    assert admitted(within) == [2]
    assert within.reservation == hard
    assert admitted(beyond) == [1]


def test_a_hard_reservation_belongs_to_the_head_of_its_line() -> None:
    hard = Reservation(1, 1, NOON - seconds(60), NOON + seconds(1))
    jobs = [job(1, 1, LOW, cpu=4), job(2, 1, NORMAL, cpu=6), job(3, 2, cpu=4)]

    waits = plan(snapshot(jobs, [running(9, 3, cpu=6, expected=30)], reservation=hard))
    starts = plan(snapshot(jobs, [running(9, 3, cpu=2)], reservation=hard))

    assert waits.reservation == Reservation(2, 1, hard.since, NOON + seconds(30))
    assert [(each.id, each.grounds) for each in starts.admissions] == [(2, Grounds.RESERVED)]


def test_a_soft_reservation_gives_way_to_whoever_has_received_less() -> None:
    soft = Reservation(1, 1, NOON - seconds(4), NOON + seconds(10))
    accounts = [Account(1, meter=99, tag=99), Account(2, meter=90, tag=90)]
    jobs = [job(1, 1, cpu=4), job(2, 2, cpu=4)]

    made = plan(
        snapshot(jobs, [running(9, 2, cpu=4)], accounts=accounts, reservation=soft, clock=Clock(90))
    )

    assert admitted(made) == [2]
    assert made.reservation is not None
    assert made.reservation.since == NOON - seconds(4)


def test_critical_express_work_may_push_a_hard_reservation_up_to_the_slip() -> None:
    hard = Reservation(1, 1, NOON - seconds(5), NOON + seconds(10))
    busy = [running(9, 2, cpu=4, expected=10)]

    short = plan(
        snapshot([job(1, cpu=8), job(2, 2, CRITICAL, expected=70)], busy, reservation=hard)
    )
    long = plan(snapshot([job(1, cpu=8), job(2, 2, CRITICAL, expected=71)], busy, reservation=hard))
    high = plan(snapshot([job(1, cpu=8), job(2, 2, HIGH, expected=11)], busy, reservation=hard))

    assert admitted(short) == [2]
    assert short.reservation == hard
    assert admitted(long) == []
    assert admitted(high) == []


def test_a_reservation_delayed_too_far_lets_in_only_what_fits_beside_it() -> None:
    hard = Reservation(1, 1, NOON - seconds(90), NOON - seconds(60))
    busy = [running(9, 2, cpu=5, started_at=NOON - seconds(90), expected=30)]
    jobs = [job(1, cpu=7), job(2, 2, cpu=2, expected=0.5), job(3, 3, expected=0.5)]

    made = plan(snapshot(jobs, busy, reservation=hard))

    assert admitted(made) == [3]


def test_the_reservation_of_a_job_that_is_gone_is_dropped() -> None:
    hard = Reservation(7, 1, NOON - seconds(9), NOON)

    assert plan(snapshot([job(1)], reservation=hard)).reservation is None


def test_waiting_for_a_worker_process_alone_reserves_nothing() -> None:
    limits = Limits(Resources(8, 4096, 1))

    made = plan(snapshot([job(1)], [running(9)], limits=limits))

    assert made.reservation is None
    assert sentence(made.holds[1]) == "Waits for a worker process; none is free now."


def test_of_the_jobs_that_lack_room_only_the_first_waits_for_it_the_others_for_their_turn() -> None:
    busy = [running(9, 9, cpu=8)]

    made = plan(snapshot([job(1, 1), job(2, 2), job(3, 1)], busy))

    assert {i: hold.code for i, hold in made.holds.items()} == {
        1: HoldCode.RESOURCES,
        2: HoldCode.TURN,
        3: HoldCode.TURN,
    }
    assert sentence(made.holds[3]) == (
        "Waits for its turn: 2 jobs go first, 1 of them by the same owner."
    )


def test_a_shrunken_machine_admits_nothing_until_it_has_room() -> None:
    busy = [running(i, cpu=2) for i in range(4)]

    made = plan(snapshot([job(9)], busy, limits=Limits(Resources(4, 4096, 4))))

    assert admitted(made) == []
    assert "none is free" in sentence(made.holds[9])


def test_an_owners_small_job_that_passes_its_first_one_leaves_that_ones_place_alone() -> None:
    accounts = [Account(1, meter=5, tag=5)]
    jobs = [job(1, 1, cpu=8), job(2, 1, expected=8, ready_at=NOON + seconds(1))]

    made = plan(snapshot(jobs, [running(9, 2, expected=30)], accounts=accounts))

    assert admitted(made) == [2]
    assert [(each.tag, each.meter) for each in made.accounts if each.owner_id == 1] == [(5, 6)]


# Caps, pauses and workers


def test_an_owners_cap_holds_up_that_owner_only() -> None:
    accounts = [Account(1, caps=Caps(running_jobs=1))]

    made = plan(snapshot([job(1, 1), job(2, 1), job(3, 2)], accounts=accounts))

    assert set(admitted(made)) == {1, 3}
    assert made.holds[2].code is HoldCode.USER_CAP


@pytest.mark.parametrize("caps", [Caps(cpu_units=3), Caps(memory_mb=300), Caps(running_jobs=2)])
def test_what_runs_counts_towards_the_owners_caps(caps: Caps) -> None:
    jobs = [job(i, 1, job_type=str(i)) for i in range(3)]

    made = plan(
        snapshot(jobs, [running(9, 1, cpu=1.5, memory=150)], accounts=[Account(1, caps=caps)])
    )

    assert admitted(made) == [0]
    assert {hold.code for hold in made.holds.values()} == {HoldCode.USER_CAP}


def test_a_groups_cap_is_shared_by_its_members() -> None:
    accounts = [Account(1, group_id=5), Account(2, group_id=5), Account(3)]
    groups = [Group(5, Caps(cpu_units=2))]
    jobs = [job(i, owner) for i, owner in enumerate((1, 2, 1, 2, 3))]

    made = plan(snapshot(jobs, accounts=accounts, groups=groups))

    assert sorted(admitted(made)) == [0, 1, 4]
    assert made.holds[2].of_group
    assert "the group's own limit" in sentence(made.holds[2])


def test_smaller_jobs_pass_a_first_job_at_its_owners_cap_for_a_while_only() -> None:
    accounts = [Account(1, caps=Caps(cpu_units=4))]
    busy = [running(9, 1, cpu=1)]
    jobs = [job(1, 1, cpu=4), job(2, 1, cpu=1, ready_at=NOON + seconds(1))]

    soon = plan(snapshot(jobs, busy, accounts=accounts, now=NOON + seconds(29)))
    later = plan(snapshot(jobs, busy, accounts=accounts, now=NOON + seconds(31)))

    assert admitted(soon) == [2]
    assert admitted(later) == []
    assert later.holds[2].code is HoldCode.USER_CAP
    assert "behind the owner's first job" in sentence(later.holds[2])


def test_a_first_job_larger_than_its_owners_cap_does_not_stop_the_line() -> None:
    accounts = [Account(1, caps=Caps(cpu_units=2))]
    jobs = [job(1, 1, cpu=4), job(2, 1, cpu=1, ready_at=NOON + seconds(1))]

    made = plan(snapshot(jobs, accounts=accounts, now=NOON + timedelta(hours=1)))

    assert admitted(made) == [2]


def test_a_types_cap_holds_up_that_type_only() -> None:
    limits = Limits(EIGHT, type_caps={"report": 2})
    jobs = [job(i, i, job_type="report") for i in range(3)] + [job(3, 1)]

    made = plan(snapshot(jobs, [running(9, job_type="report")], limits=limits))

    assert sorted(admitted(made)) == [0, 3]
    assert {made.holds[i].code for i in (1, 2)} == {HoldCode.TYPE_CAP}


def test_a_job_at_a_cap_gets_no_reservation() -> None:
    accounts = [Account(1, caps=Caps(cpu_units=4))]
    busy = [running(8, 1, cpu=4), running(9, 2, cpu=4)]

    made = plan(snapshot([job(1, 1, cpu=4), job(2, 2, cpu=2)], busy, accounts=accounts))

    assert made.reservation is not None
    assert made.reservation.job_id == 2


def test_paused_classes_and_types_stand_in_no_line() -> None:
    limits = Limits(EIGHT, paused_classes=frozenset({LOW}), paused_types=frozenset({"report"}))
    jobs = [job(1, 1, LOW), job(2, 1, job_type="report"), job(3, 2)]

    made = plan(snapshot(jobs, limits=limits, accounts=[Account(1, tag=0)]))

    assert admitted(made) == [3]
    assert sentence(made.holds[1]) == "Waits until low jobs are resumed."
    assert sentence(made.holds[2]) == "Waits until report jobs are resumed."
    assert made.order == (3, 2, 1)
    assert made.accounts[0].tag is None


def test_without_workers_all_wait_for_one_and_keep_their_places() -> None:
    accounts = [Account(1, meter=3, tag=3), Account(2, meter=2, tag=2)]

    made = plan(snapshot([job(1, 1), job(2, 2)], accounts=accounts, limits=Limits(None)))

    assert {hold.code for hold in made.holds.values()} == {HoldCode.NO_WORKER}
    assert made.order == (2, 1)
    assert made.reservation is None
    assert made.accounts == ()


def test_a_job_larger_than_the_machine_waits_for_more_workers_and_reserves_nothing() -> None:
    made = plan(snapshot([job(1, cpu=16), job(2)]))

    assert admitted(made) == [2]
    assert made.reservation is None
    assert "all together offer 8 CPU units" in sentence(made.holds[1])


def test_fractions_of_a_unit_fill_the_machine_exactly() -> None:
    jobs = [job(i, cpu=0.1) for i in range(90)]

    assert len(plan(snapshot(jobs, limits=Limits(Resources(8, 65536, 90)))).admissions) == 80
