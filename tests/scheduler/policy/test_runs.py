"""What holds over whole runs of a machine: shares, bounds, and that everything starts."""

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from scheduler.policy.admission import is_hard
from scheduler.policy.meters import effective_weight
from scheduler.policy.parameters import ALLOWANCE_JOBS, ALLOWANCE_TIME, EXPRESS_REFILL
from scheduler.policy.plan import Plan
from scheduler.snapshot import Account, Candidate, Caps, Limits, Resources, Snapshot
from scheduler.states import JobClass, class_of
from tests.scheduler.policy.machine import EIGHT, NOON, Machine, job, seconds

CRITICAL, HIGH, NORMAL, LOW = JobClass.CRITICAL, JobClass.HIGH, JobClass.NORMAL, JobClass.LOW
WHOLE = (Phase.explicit, Phase.reuse, Phase.generate)  # a whole run takes too long to shrink
FEW = settings(max_examples=8, deadline=None, phases=WHOLE)
FEWER = settings(FEW, max_examples=2)
randoms = st.randoms(use_true_random=True)


def backlog(
    random: Random, owner: int, count: int, classes: Iterable[JobClass] = (NORMAL,)
) -> list[Candidate]:
    return [
        job(
            1000 * owner + i,
            owner,
            random.choice(list(classes)),
            cpu=random.choice([1, 1, 2, 4]),
            expected=random.uniform(1, 10),
        )
        for i in range(count)
    ]


def misjudge(machine: Machine, random: Random, jobs: Iterable[Candidate]) -> None:
    """Let jobs take up to three times as long as expected, or a third of it."""
    for each in jobs:
        factor = 3 ** random.uniform(-1, 1)
        machine.really[each.id] = each.expected.total_seconds() * factor


def after(seen: Snapshot, made: Plan) -> dict[int, Account]:
    return {**seen.accounts, **{account.owner_id: account for account in made.accounts}}


WEIGHTS = {1: 4.0, 2: 2.0, 3: 1.0}


def saturated(random: Random) -> Machine:
    machine = Machine(window=12, accounts={o: Account(o, weight=w) for o, w in WEIGHTS.items()})
    for owner in WEIGHTS:
        machine.submit(
            job(
                1000 * owner + i,
                owner,
                cpu=random.choice([1, 1, 2]),
                expected=random.uniform(1, 4),
            )
            for i in range(800)
        )
    return machine


def furthest_from_due(machine: Machine) -> float:
    """How far an owner is from its due share, as a part of it."""
    assert all(machine.lines[owner] for owner in WEIGHTS)
    received = {owner: machine.received(owner) for owner in WEIGHTS}
    due = sum(received[owner] * weight for owner, weight in WEIGHTS.items()) / 7
    return max(abs(each - due) / due for each in received.values())


@FEWER
@given(randoms)
def test_saturated_owners_receive_their_shares_within_five_percent(random: Random) -> None:
    machine = saturated(random)

    machine.run(until=NOON + seconds(300))

    assert furthest_from_due(machine) <= 0.05


@FEWER
@given(randoms)
def test_misjudged_durations_cost_owners_no_more_than_two_jobs_beyond_that(random: Random) -> None:
    machine = saturated(random)
    factors = {1: 2.0, 2: 1.0, 3: 0.5}
    for each in machine.arrivals:
        machine.really[each.id] = each.expected.total_seconds() * factors[each.owner_id]

    machine.run(until=NOON + seconds(300))

    due, longest = 300 / 7, 2 * 4 * 2 / 8
    assert furthest_from_due(machine) <= 0.05 + 2 * longest / due


@FEW
@given(randoms, st.integers(2, 8), st.booleans())
def test_whatever_classes_they_submit_nobody_gets_far_ahead(
    random: Random,
    count: int,
    misjudged: bool,  # noqa: FBT001 - drawn by position
) -> None:
    weights = {owner: random.choice([0.25, 0.5, 1, 1, 2, 4]) for owner in range(1, count + 1)}
    machine = Machine(window=8, accounts={o: Account(o, weight=w) for o, w in weights.items()})
    longest: dict[int, float] = {}
    for owner in weights:
        classes = [CRITICAL] if owner == 1 else random.choice([[NORMAL], [LOW, HIGH], [*JobClass]])
        jobs = backlog(random, owner, 300, classes)
        machine.submit(jobs)
        if misjudged:
            misjudge(machine, random, jobs)
        longest[owner] = max(cost(each, machine) for each in jobs)

    for seen, made in machine.steps(until=NOON + seconds(120)):
        for owner, account in after(seen, made).items():
            weight = effective_weight(account.weight)
            largest = longest[owner] / weight
            allowance = max(
                ALLOWANCE_TIME[CRITICAL].total_seconds() / sum(weights.values()),
                ALLOWANCE_JOBS[CRITICAL] * made.clock.mean_cost / EXPRESS_REFILL / weight,
            )
            virtual_now = made.clock.virtual_now
            assert account.meter <= virtual_now + allowance + 2 * largest
            assert account.express_meter <= virtual_now + allowance + 2 * largest / EXPRESS_REFILL


def cost(each: Candidate, machine: Machine) -> float:
    expected = each.expected.total_seconds()
    return max(each.cpu_units / 8, each.memory_mb / 4096) * max(
        expected, machine.really.get(each.id, expected)
    )


@FEW
@given(randoms, st.integers(20, 80))
def test_finite_work_all_starts(random: Random, count: int) -> None:
    owners = range(1, 5)
    machine = Machine(
        limits=Limits(EIGHT, type_caps={"report": 1}),
        accounts={1: Account(1, caps=Caps(cpu_units=8, running_jobs=2)), 2: Account(2, weight=4)},
    )
    jobs = [some_job(random, i, random.choice(owners)) for i in range(count)]
    machine.submit(jobs)
    misjudge(machine, random, jobs)

    for seen, _ in machine.steps():
        assert EIGHT.covers(sum((one.need for one in seen.running), Resources(0, 0, 0)))

    assert len(machine.started) == count
    assert not machine.running
    assert machine.clock.express_load >= 0


def some_job(random: Random, job_id: int, owner: int) -> Candidate:
    level = random.randint(0, 10)
    return job(
        job_id,
        owner,
        class_of(level),
        level=level,
        cpu=random.choice([0.5, 1, 2, 4, 8]),
        memory=random.choice([128, 1024, 4096]),
        expected=random.uniform(0.2, 60),
        job_type=random.choice(["email", "report"]),
        ready_at=NOON + seconds(random.choice([0, 0, random.uniform(0, 300)])),
    )


@settings(FEW, max_examples=25)
@given(randoms)
def test_no_backfilled_job_delays_a_hard_reservation_when_predictions_are_exact(
    random: Random,
) -> None:
    machine = Machine()
    classes = {1: HIGH, 2: NORMAL, 3: NORMAL, 4: LOW}
    machine.submit(
        job(
            i,
            1 + i % 4,
            classes[1 + i % 4],
            cpu=random.choice([1, 1, 2, 6, 8]),
            memory=random.choice([128, 512, 3000]),
            expected=random.uniform(1, 30),
            ready_at=NOON + seconds(random.uniform(0, 120)),
        )
        for i in range(60)
    )
    promises = {}

    for seen, _ in machine.steps():
        kept = seen.reservation
        if kept is not None and is_hard(kept, seen.now):
            promises.setdefault(kept.job_id, kept.promised_at)

    late = [i for i, at in promises.items() if machine.started[i] - at > seconds(0.001)]
    assert promises
    assert not late


def test_a_stream_of_light_jobs_does_not_starve_a_heavy_one() -> None:
    machine = Machine()
    machine.submit(
        job(i, 1 + i % 5, expected=4, ready_at=NOON + seconds(i * 0.5)) for i in range(600)
    )
    heavy = job(1000, 9, cpu=8, expected=8, ready_at=NOON + seconds(60))
    machine.submit([heavy])

    machine.run(until=NOON + seconds(300))

    assert machine.started[1000] - heavy.waiting_since < seconds(20)


def test_the_machine_stays_busy_while_room_is_kept() -> None:
    machine = Machine()
    machine.submit(job(i, 1 + i % 5, expected=4) for i in range(500))
    machine.submit(
        job(1000 + i, 9, cpu=8, expected=8, ready_at=NOON + seconds(30 * i)) for i in range(6)
    )

    machine.run(until=NOON + seconds(200))

    assert sum(machine.used.values()) > 0.95 * 200


def test_a_flood_of_critical_jobs_delays_nobody_beyond_the_allowance() -> None:
    machine = Machine(window=8)
    machine.submit(job(10_000 + i, 1, CRITICAL, expected=4) for i in range(600))
    others = [
        job(owner * 100 + i, owner, expected=4, ready_at=NOON + seconds(20 * i))
        for owner in range(2, 10)
        for i in range(8)
    ]
    machine.submit(others)

    machine.run(until=NOON + seconds(300))

    waits = [(machine.started[each.id] - each.waiting_since).total_seconds() for each in others]
    assert max(waits) < 40
    assert machine.received(1) > 0.3 * 300


def test_a_critical_job_starts_at_once_on_a_machine_full_of_its_owners_short_jobs() -> None:
    machine = Machine()
    machine.submit(job(i, 1 + i % 4, expected=4) for i in range(400))
    urgent = [
        job(1000 + i, 1 + i % 4, CRITICAL, expected=4, ready_at=NOON + seconds(20 * i + 10))
        for i in range(8)
    ]
    machine.submit(urgent)

    machine.run(until=NOON + seconds(190))

    assert all(machine.started[each.id] - each.waiting_since <= seconds(4) for each in urgent)


def test_a_low_job_does_not_wait_for_ever_behind_its_owners_normal_ones() -> None:
    machine = Machine(limits=Limits(Resources(1, 4096, 8)))
    machine.submit(job(i, expected=10, ready_at=NOON + seconds(9 * i)) for i in range(200))
    machine.submit([job(1000, 1, LOW, expected=10)])

    machine.run(until=NOON + seconds(1800))

    assert seconds(600) <= machine.started[1000] - NOON < seconds(760)


# The scenarios that are played against the running system, on the policy alone


def test_with_one_processor_busy_critical_starts_before_normal_before_low() -> None:
    machine = Machine(limits=Limits(Resources(1, 4096, 8)))
    machine.submit(
        [
            job(1, expected=2),
            job(2, 1, NORMAL, ready_at=NOON + seconds(1)),
            job(3, 1, CRITICAL, ready_at=NOON + seconds(1.1)),
            job(4, 1, LOW, ready_at=NOON + seconds(1.2)),
        ]
    )

    machine.run()

    assert sorted(machine.started, key=machine.started.__getitem__) == [1, 3, 2, 4]


def test_two_heavy_jobs_run_at_once_and_light_ones_fill_what_no_heavy_one_can_use() -> None:
    machine = Machine()
    classes = [HIGH, HIGH, NORMAL, NORMAL, NORMAL]
    machine.submit(
        job(i, 1, each, cpu=4, memory=2048, expected=1, job_type="data_processing")
        for i, each in enumerate(classes, start=1)
    )
    machine.submit(
        job(i, 1, memory=256, expected=0.4, job_type="send_email") for i in range(11, 16)
    )
    machine.submit([job(20, 1, memory=256, expected=9, ready_at=NOON + seconds(2.5))])

    for seen, _ in machine.steps():
        assert sum(one.cpu_units == 4 for one in seen.running) <= 2

    started = {i: (at - NOON).total_seconds() for i, at in machine.started.items()}
    assert [started[i] for i in (1, 2, 3, 4, 5)] == [0, 0, 1, 1, 2]
    assert all(started[i] == 2 for i in (11, 12, 13, 14))
    assert started[15] == 2.4


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_weight_three_gets_three_starts_for_each_start_of_weight_one(processes: int) -> None:
    machine = Machine(
        limits=Limits(Resources(8, 4096, processes)),
        accounts={1: Account(1, weight=3), 2: Account(2, weight=1)},
    )
    machine.submit(job(i, owner=1 + i // 30, expected=0.2, memory=16) for i in range(60))

    machine.run()

    order = [1 + i // 30 for i in machine.started]
    while_both_wait = order[: max(i for i, owner in enumerate(order) if owner == 1)]
    assert 2 in order[:4]
    assert len(while_both_wait) >= 36
    for n in range(4, len(while_both_wait) + 1):
        assert abs(order[:n].count(1) - 3 * n / 4) <= 1
    assert machine.now - NOON == 0.2 * seconds(-(-60 // processes))
