"""What is explained is what was decided, on snapshots nobody thought of."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given

from scheduler.policy.admission import Grounds
from scheduler.policy.explanation import Explanation, explain, explain_beyond, missing
from scheduler.policy.parameters import ALLOWANCE_TIME, EXPRESS_BURST, EXPRESS_REFILL
from scheduler.policy.plan import Plan, plan
from scheduler.policy.reasons import Hold, HoldCode
from scheduler.snapshot import (
    NOTHING,
    Account,
    Candidate,
    Clock,
    Limits,
    Reservation,
    Resources,
    Snapshot,
)
from scheduler.states import Executor, JobClass
from tests.scheduler.policy.machine import NOON, job, running, seconds, snapshot
from tests.scheduler.policy.test_promises import SOME, After, on_machine, snapshots, total

ONE = Limits(Resources(1, 4096, 64))


def all_of(seen: Snapshot) -> tuple[Plan, dict[Candidate, Explanation]]:
    made = plan(seen)
    return made, {each: explain(seen, made, each.id) for each in seen.candidates}


@SOME
@given(snapshots)
def test_what_the_plan_admits_is_said_to_go_now_and_by_which_rule(seen: Snapshot) -> None:
    made, explained = all_of(seen)
    grounds = {each.id: each.grounds for each in made.admissions}

    for each, about in explained.items():
        assert about.grounds == grounds.get(each.id)
        assert (about.hold is None) == (each.id in grounds)
        assert (about.position == 0) == (each.id in grounds)


@SOME
@given(snapshots)
def test_what_the_plan_holds_has_the_plans_own_reason(seen: Snapshot) -> None:
    made, explained = all_of(seen)

    for each, about in explained.items():
        assert about.hold == made.holds.get(each.id)


@SOME
@given(snapshots)
def test_positions_are_the_order_of_the_plan(seen: Snapshot) -> None:
    made, explained = all_of(seen)
    waiting = [job_id for job_id in made.order if job_id in made.holds]
    ahead: Counter[int] = Counter()
    by_id = {each.id: about for each, about in explained.items()}
    owner_of = {each.id: each.owner_id for each in seen.candidates}

    for position, job_id in enumerate(waiting, start=1):
        assert by_id[job_id].position == position
        assert by_id[job_id].own_before == ahead[owner_of[job_id]]
        ahead[owner_of[job_id]] += 1


@SOME
@given(snapshots)
def test_what_is_missing_would_make_room_and_nothing_less_would(seen: Snapshot) -> None:
    made, explained = all_of(seen)
    after = After(seen, made)
    capacity = seen.limits.capacity or NOTHING

    for each, about in explained.items():
        is_alone = about.hold is not None and about.hold.code is HoldCode.NO_WORKER
        held = NOTHING if is_alone else total(on_machine(after.busy))
        if each.executor is Executor.PULL and is_alone:
            assert about.missing == NOTHING
            continue
        if about.hold is None or about.hold.code not in {HoldCode.RESOURCES, HoldCode.NO_WORKER}:
            continue
        if about.hold.kept_for is not None:
            assert about.missing == NOTHING
            continue
        need = held + each.need
        assert about.missing != NOTHING
        assert (capacity + about.missing).covers(need)
        for less in a_little_less(about.missing):
            assert not (capacity + less).covers(need)


def a_little_less(lack: Resources) -> list[Resources]:
    steps = [
        replace(lack, cpu_units=lack.cpu_units - 0.001) if lack.cpu_units else None,
        replace(lack, memory_mb=lack.memory_mb - 1) if lack.memory_mb else None,
        replace(lack, slots=lack.slots - 1) if lack.slots else None,
    ]
    return [step for step in steps if step is not None]


@SOME
@given(snapshots)
def test_a_reservation_is_told_to_its_holder_and_to_those_who_have_to_leave_it(
    seen: Snapshot,
) -> None:
    made, explained = all_of(seen)

    for each, about in explained.items():
        concerned = about.hold is not None and (
            about.hold.kept_for is not None
            or (made.reservation is not None and made.reservation.job_id == each.id)
        )
        assert about.reservation == (made.reservation if concerned else None)


@SOME
@given(snapshots)
def test_the_share_is_measured_after_the_pass(seen: Snapshot) -> None:
    made, explained = all_of(seen)
    after = {**seen.accounts, **{each.owner_id: each for each in made.accounts}}

    for each, about in explained.items():
        account = after[each.owner_id]
        assert about.received.virtual_now == made.clock.virtual_now
        assert about.received.meter in {account.tag, account.meter}
        assert (about.received.ahead > 0) == (about.received.meter > made.clock.virtual_now)


@SOME
@given(snapshots)
def test_only_urgent_jobs_have_an_allowance_and_it_is_never_negative(seen: Snapshot) -> None:
    made, explained = all_of(seen)

    for each, about in explained.items():
        assert (about.allowance is None) == (each.job_class in {JobClass.NORMAL, JobClass.LOW})
        if about.allowance is not None:
            assert about.allowance.left >= 0
            load = made.clock.express_load
            assert about.allowance.is_open == (load <= EXPRESS_BURST[each.job_class])
        if about.grounds is Grounds.EXPRESS:
            assert about.allowance is not None


def critical(express_meter: float, *, others: int = 0) -> Explanation:
    accounts = [Account(1, express_meter=express_meter)]
    jobs = [job(1, 1, JobClass.CRITICAL), *(job(10 + i, 10 + i) for i in range(others))]
    seen = snapshot(jobs, [running(9, 5)], accounts=accounts, limits=ONE, clock=Clock(100.0))
    return explain(seen, plan(seen), 1)


def test_a_rested_owner_has_the_whole_allowance() -> None:
    whole = ALLOWANCE_TIME[JobClass.CRITICAL].total_seconds() * EXPRESS_REFILL

    about = critical(0.0)

    assert about.allowance is not None
    assert about.allowance.left == pytest.approx(whole)
    assert about.allowance.is_open


def test_express_work_that_time_has_not_paid_back_lessens_the_allowance() -> None:
    lefts = [found.left for at in (100, 140, 180, 220, 260) if (found := critical(at).allowance)]

    assert lefts == pytest.approx([90, 60, 30, 0, 0])


def test_the_allowance_of_time_is_shared_by_all_in_line() -> None:
    alone, among = critical(0.0).allowance, critical(0.0, others=3).allowance

    assert alone is not None
    assert among is not None
    assert among.left == pytest.approx(alone.left / 4)


def test_running_express_work_beyond_its_charge_counts() -> None:
    overdue = running(9, 1, charge=0.5, expected=1, express=True, started_at=NOON - seconds(40))
    seen = snapshot([job(1, 1, JobClass.CRITICAL)], [overdue], limits=ONE, clock=Clock(0.0))
    rested = critical(0.0).allowance
    about = explain(seen, plan(seen), 1).allowance

    assert about is not None
    assert rested is not None
    assert about.left < rested.left


def test_a_cap_says_how_much_is_missing_under_it() -> None:
    hold = Hold(HoldCode.USER_CAP, need=Resources(2, 512), available=Resources(0.5, 1024, 3))

    assert missing(hold) == Resources(1.5, 0, 0)


def test_nothing_is_missing_behind_another_job_or_a_turn() -> None:
    behind = Hold(HoldCode.USER_CAP, need=Resources(2, 512), behind_first=True)

    gap = Hold(HoldCode.RESOURCES, need=Resources(2, 512), kept_for=3)

    assert missing(behind) == NOTHING
    assert missing(gap) == NOTHING
    assert missing(Hold(HoldCode.TURN, before=3)) == NOTHING
    assert missing(Hold(HoldCode.PAUSED, need=Resources(2, 512))) == NOTHING
    assert missing(None) == NOTHING


def test_a_job_beyond_the_plan_is_about_where_the_curve_puts_it() -> None:
    kept = Reservation(9, 2, NOON, NOON)
    seen = snapshot([job(1, 1)], [running(9, 5)], limits=ONE, reservation=kept)
    far = job(77, 1, JobClass.HIGH)

    about = explain_beyond(seen, plan(seen), far, 4321)

    assert (about.position, about.is_exact) == (4321, False)
    assert about.hold == Hold(HoldCode.TURN, before=4320)
    assert about.allowance is not None
    assert about.reservation is None
