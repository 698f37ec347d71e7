"""What every plan promises, on snapshots nobody thought of."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.policy.admission import Decision
from scheduler.policy.ordering import standing
from scheduler.policy.parameters import CAPPED_PATIENCE
from scheduler.policy.plan import Plan, decide, plan
from scheduler.policy.reasons import Hold, HoldCode, sentence
from scheduler.snapshot import (
    NOTHING,
    Account,
    Ask,
    Candidate,
    Caps,
    Clock,
    Group,
    Limits,
    Reservation,
    Resources,
    Running,
    Snapshot,
)
from scheduler.states import Executor, JobClass, class_of
from tests.scheduler.policy.machine import NOON, job, running, seconds

OWNERS, GROUPS, TYPES = (1, 2, 3, 4), (1, 2), ("email", "report", "export")
AGES = (0, 0, 1, 10, 31, 700, 4000, 22000)
SIZES, MEMORIES = (0.1, 0.5, 1, 1, 2, 4, 6), (16, 128, 128, 512, 2048)
DURATIONS = (0.2, 1, 5, 20, 300)
EXECUTORS = (Executor.CELERY, Executor.CELERY, Executor.PULL)
SOME = settings(max_examples=100, deadline=None)


def some_job(random: Random, job_id: int) -> Candidate:
    level = random.randint(0, 10)
    return job(
        job_id,
        random.choice(OWNERS),
        class_of(level),
        level=level,
        cpu=random.choice(SIZES),
        memory=random.choice(MEMORIES),
        expected=random.choice(DURATIONS),
        job_type=random.choice(TYPES),
        ready_at=NOON - seconds(random.choice(AGES)),
        executor=random.choice(EXECUTORS),
    )


def some_running(random: Random, job_id: int) -> Running:
    return running(
        job_id,
        random.choice(OWNERS),
        cpu=random.choice(SIZES),
        memory=random.choice(MEMORIES),
        expected=random.choice(DURATIONS),
        job_type=random.choice(TYPES),
        started_at=random.choice([None, NOON - seconds(random.choice(AGES))]),
        express=random.choice([True, False]),
        executor=random.choice(EXECUTORS),
    )


def some_caps(random: Random) -> Caps:
    return Caps(
        cpu_units=random.choice([None, None, 0.5, 2, 4]),
        memory_mb=random.choice([None, None, 256, 2048]),
        running_jobs=random.choice([None, None, 1, 3]),
    )


def some_meter(random: Random) -> float:
    return random.choice([0, 1, random.uniform(0, 50), random.uniform(0, 2000)])


def some_account(random: Random, owner: int) -> Account:
    tag = random.choice([None, some_meter(random)])
    return Account(
        owner,
        group_id=random.choice([None, *GROUPS]),
        weight=random.choice([0.1, 0.5, 1, 1, 2, 4, 9]),
        caps=some_caps(random),
        meter=some_meter(random) + (tag or 0),
        express_meter=some_meter(random),
        tag=tag,
    )


def some_ask(random: Random, ask_id: int) -> Ask:
    types = frozenset(random.sample(TYPES, random.randint(1, 2)))
    return Ask(ask_id, random.choice([None, types]), random.choice([None, None, *OWNERS]))


def some_limits(random: Random) -> Limits:
    capacity = Resources(
        random.choice([2, 8, 16.5]), random.choice([1024, 4096]), random.randint(0, 24)
    )
    return Limits(
        capacity=random.choice([capacity, capacity, capacity, None]),
        type_caps={name: random.randint(0, 3) for name in random.sample(TYPES, 1)},
        type_starts={name: random.randint(0, 3) for name in random.sample(TYPES, 1)},
        paused_classes=frozenset(random.sample(list(JobClass), random.choice([0, 0, 1]))),
        paused_types=frozenset(random.sample(TYPES, random.choice([0, 0, 1]))),
        asks=tuple(some_ask(random, i) for i in range(random.choice([0, 1, 3, 9]))),
    )


def some_reservation(random: Random, jobs: list[Candidate]) -> Reservation | None:
    if not jobs or random.choice([True, False]):
        return None
    holder = random.choice(jobs)
    since = NOON - seconds(random.choice([0, 2, 5, 30, 400]))
    promised_at = NOON + seconds(random.choice([-200, -30, 0, 10, 100]))
    return Reservation(holder.id, holder.owner_id, since, promised_at)


def some_snapshot(random: Random, waiting: int, busy: int) -> Snapshot:
    jobs = [some_job(random, i) for i in range(1, waiting + 1)]
    limits = some_limits(random)
    return Snapshot(
        now=NOON,
        candidates=tuple(jobs),
        running=what_fits([some_running(random, 100 + i) for i in range(busy)], limits),
        accounts={owner: some_account(random, owner) for owner in OWNERS},
        groups={group: Group(group, some_caps(random)) for group in GROUPS},
        clock=Clock(
            some_meter(random),
            mean_cost=random.choice([0.01, 0.1, 1]),
            express_load=random.choice([0, 20, 40, 80]),
            advanced_at=random.choice([None, NOON, NOON - seconds(3)]),
        ),
        reservation=some_reservation(random, jobs),
        limits=limits,
    )


def what_fits(jobs: list[Running], limits: Limits) -> tuple[Running, ...]:
    """As many of the jobs as the machine has room for."""
    capacity = limits.capacity or NOTHING
    counts = range(len(jobs), -1, -1)
    return tuple(
        next(jobs[:n] for n in counts if capacity.covers(total(on_machine(jobs[:n]))) or n == 0)
    )


def on_machine(jobs: Iterable[Candidate | Running]) -> list[Candidate | Running]:
    return [each for each in jobs if each.executor is Executor.CELERY]


snapshots = st.builds(
    some_snapshot,
    st.randoms(use_true_random=True),
    waiting=st.integers(0, 25),
    busy=st.integers(0, 6),
)


def total(jobs: Iterable[Candidate | Running]) -> Resources:
    return sum((each.need for each in jobs), NOTHING)


class After:
    """What runs once a plan is carried out, counted without the policy's own arithmetic."""

    def __init__(self, seen: Snapshot, made: Plan) -> None:
        self.seen = seen
        by_id = {each.id: each for each in seen.candidates}
        self.admitted = [by_id[admission.id] for admission in made.admissions]
        self.left = [each for each in seen.candidates if each not in self.admitted]
        self.busy: list[Candidate | Running] = [*seen.running, *self.admitted]
        taken = {admission.ask for admission in made.admissions}
        self.asks = [each for each in seen.limits.asks if each.id not in taken]

    def of_owner(self, owner: int) -> list[Candidate | Running]:
        return [each for each in self.busy if each.owner_id == owner]

    def of_group(self, group: int) -> list[Candidate | Running]:
        known = self.seen.accounts
        return [each for each in self.busy if known[each.owner_id].group_id == group]

    def of_type(self, job_type: str) -> list[Candidate | Running]:
        return [each for each in self.busy if each.job_type == job_type]

    def starts_of(self, job_type: str) -> int:
        return sum(each.job_type == job_type for each in self.admitted)

    def has_room(self, waiting: Candidate) -> bool:
        if waiting.executor is Executor.PULL:
            return is_asked_for(waiting, self.asks)
        busy = on_machine(self.busy)
        return (self.seen.limits.capacity or NOTHING).covers(total([*busy, waiting]))

    def could_ever_run(self, waiting: Candidate) -> bool:
        if waiting.executor is Executor.PULL:
            return is_asked_for(waiting, self.seen.limits.asks)
        return (self.seen.limits.capacity or NOTHING).covers(waiting.need)

    def is_capped(self, waiting: Candidate) -> bool:
        account = self.seen.accounts[waiting.owner_id]
        group = self.seen.groups.get(account.group_id or 0)
        limit = self.seen.limits.type_caps.get(waiting.job_type)
        starts = self.seen.limits.type_starts.get(waiting.job_type)
        return (
            not under(account.caps, [*self.of_owner(account.owner_id), waiting])
            or (
                group is not None
                and not under(group.caps, [*self.of_group(group.group_id), waiting])
            )
            or (limit is not None and len(self.of_type(waiting.job_type)) >= limit)
            or (starts is not None and self.starts_of(waiting.job_type) >= starts)
        )

    def is_paused(self, waiting: Candidate) -> bool:
        limits = self.seen.limits
        return waiting.job_class in limits.paused_classes or waiting.job_type in limits.paused_types

    def waits_behind_its_owners_first(self, waiting: Candidate) -> bool:
        in_line = [
            each
            for each in self.left
            if each.owner_id == waiting.owner_id
            and not self.is_paused(each)
            and self.could_ever_run(each)
        ]
        first = min(in_line, key=standing, default=None)
        if first is None or not self.is_capped(first):
            return False
        return self.seen.now - first.waiting_since >= CAPPED_PATIENCE


def is_asked_for(waiting: Candidate, asks: Iterable[Ask]) -> bool:
    return any(
        (ask.types is None or waiting.job_type in ask.types)
        and ask.owner_id in {None, waiting.owner_id}
        for ask in asks
    )


def under(caps: Caps, jobs: list[Candidate | Running]) -> bool:
    held = total(jobs)
    return (
        (caps.cpu_units is None or held.cpu_units <= caps.cpu_units)
        and (caps.memory_mb is None or held.memory_mb <= caps.memory_mb)
        and (caps.running_jobs is None or held.slots <= caps.running_jobs)
    )


@SOME
@given(snapshots)
def test_no_plan_exceeds_the_machine_or_a_cap(seen: Snapshot) -> None:
    after = After(seen, plan(seen))

    assert (seen.limits.capacity or NOTHING).covers(total(on_machine(after.busy)))
    for owner in {each.owner_id for each in after.admitted}:
        account = seen.accounts[owner]
        assert under(account.caps, after.of_owner(owner))
        if account.group_id is not None:
            assert under(seen.groups[account.group_id].caps, after.of_group(account.group_id))
    for job_type in {each.job_type for each in after.admitted}:
        limit = seen.limits.type_caps.get(job_type)
        assert limit is None or len(after.of_type(job_type)) <= limit
        starts = seen.limits.type_starts.get(job_type)
        assert starts is None or after.starts_of(job_type) <= starts
    assert not any(after.is_paused(each) for each in after.admitted)


@SOME
@given(snapshots)
def test_only_offered_jobs_are_admitted_each_at_most_once(seen: Snapshot) -> None:
    ids = [admission.id for admission in plan(seen).admissions]

    assert len(ids) == len(set(ids))
    assert set(ids) <= {each.id for each in seen.candidates}


@SOME
@given(snapshots)
def test_jobs_of_a_user_alike_in_size_and_class_start_in_order(seen: Snapshot) -> None:
    made = plan(seen)
    place = {job_id: index for index, job_id in enumerate(made.order)}
    alike = defaultdict(list)
    for each in sorted(seen.candidates, key=standing):
        size = (each.cpu_units, each.memory_mb)
        shape = (each.owner_id, each.job_type, size, each.job_class, each.executor)
        alike[shape].append(each.id)

    for series in alike.values():
        assert sorted(series, key=place.__getitem__) == series
        held = [job_id in made.holds for job_id in series]
        assert held == sorted(held)


@SOME
@given(snapshots)
def test_without_a_reservation_nothing_that_fits_and_is_allowed_waits(seen: Snapshot) -> None:
    made = plan(seen)
    after = After(seen, made)

    for waiting in after.left:
        if made.reservation is None or waiting.executor is Executor.PULL:
            assert (
                not after.has_room(waiting)
                or after.is_paused(waiting)
                or after.is_capped(waiting)
                or after.waits_behind_its_owners_first(waiting)
            ), made.holds[waiting.id]


@SOME
@given(snapshots)
def test_every_job_passed_over_has_one_reason_and_it_is_true(seen: Snapshot) -> None:
    made = plan(seen)
    after = After(seen, made)

    assert set(made.holds) == {each.id for each in after.left}
    for waiting in after.left:
        hold = made.holds[waiting.id]
        assert is_true(hold, waiting, after), hold
        assert sentence(hold).startswith("Waits ")
        if hold.kept_for is not None:
            assert made.reservation is not None
            assert made.reservation.job_id == hold.kept_for


def is_true(hold: Hold, waiting: Candidate, after: After) -> bool:
    is_pull = waiting.executor is Executor.PULL
    nobody = not (after.has_room(waiting) if is_pull else after.could_ever_run(waiting))
    truth = {
        HoldCode.PAUSED: after.is_paused(waiting),
        HoldCode.NO_WORKER: nobody,
        HoldCode.TYPE_CAP: after.is_capped(waiting),
        HoldCode.USER_CAP: after.is_capped(waiting) or after.waits_behind_its_owners_first(waiting),
        HoldCode.RESOURCES: (hold.kept_for is not None or not after.has_room(waiting))
        and not is_pull,
        HoldCode.TURN: hold.before > 0,
    }
    return truth[hold.code]


@SOME
@given(snapshots)
def test_every_pull_worker_is_given_one_job_at_most_and_one_it_asked_for(seen: Snapshot) -> None:
    made = plan(seen)
    jobs = {each.id: each for each in seen.candidates}
    asks = {each.id: each for each in seen.limits.asks}

    given_to = [admission.ask for admission in made.admissions if admission.ask is not None]
    assert len(given_to) == len(set(given_to))
    for admission in made.admissions:
        job = jobs[admission.id]
        assert (admission.ask is not None) == (job.executor is Executor.PULL)
        if admission.ask is not None:
            ask = asks[admission.ask]
            assert ask.types is None or job.job_type in ask.types
            assert ask.owner_id in {None, job.owner_id}


@SOME
@given(snapshots)
def test_the_order_holds_every_candidate_once_the_admitted_ones_first(seen: Snapshot) -> None:
    made = plan(seen)

    assert sorted(made.order) == sorted(each.id for each in seen.candidates)
    ids = [admission.id for admission in made.admissions]
    assert list(made.order[: len(ids)]) == ids


@SOME
@given(snapshots, st.randoms(use_true_random=False))
def test_a_plan_depends_on_what_is_known_not_on_its_order(seen: Snapshot, random: Random) -> None:
    def shuffled(items: Iterable[Any]) -> list[Any]:
        mixed = list(items)
        random.shuffle(mixed)
        return mixed

    other = Snapshot(
        now=seen.now,
        candidates=tuple(shuffled(seen.candidates)),
        running=tuple(shuffled(seen.running)),
        accounts=dict(shuffled(seen.accounts.items())),
        groups=dict(shuffled(seen.groups.items())),
        clock=seen.clock,
        reservation=seen.reservation,
        limits=replace(seen.limits, asks=tuple(shuffled(seen.limits.asks))),
    )

    assert plan(seen) == plan(seen)
    assert plan(other) == plan(seen)


@SOME
@given(snapshots)
def test_deciding_without_reasons_decides_the_same(seen: Snapshot) -> None:
    made, decided = plan(seen), decide(seen)

    assert decided == Decision(made.admissions, made.accounts, made.clock, made.reservation)


@SOME
@given(snapshots)
def test_virtual_time_and_meters_never_go_back(seen: Snapshot) -> None:
    made = plan(seen)

    assert made.clock.virtual_now >= seen.clock.virtual_now
    for account in made.accounts:
        before = seen.accounts[account.owner_id]
        assert account.meter >= before.meter
        assert account.express_meter >= before.express_meter
        assert account.tag is None or before.tag is None or account.tag >= before.tag


@SOME
@given(snapshots)
def test_every_admission_is_charged_to_its_owner(seen: Snapshot) -> None:
    made = plan(seen)
    meters_after = {account.owner_id: account.meter for account in made.accounts}

    for owner in {admission.owner_id for admission in made.admissions}:
        account = seen.accounts[owner]
        weight = min(max(account.weight, 0.25), 4)
        charged = sum(each.charge for each in made.admissions if each.owner_id == owner)
        assert meters_after[owner] >= account.meter + charged / weight - 1e-6
