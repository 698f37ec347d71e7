"""The engine, kept from pass to pass, decides what a plan of everything decides."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from scheduler.policy.engine import Engine
from scheduler.policy.plan import plan
from scheduler.policy.reasons import HoldCode
from scheduler.snapshot import Account, Candidate, Caps, Group, Limits, Resources, Running
from scheduler.states import JobClass
from tests.scheduler.policy.machine import EIGHT, NOON, Machine, job, running, seconds

WHOLE = (Phase.explicit, Phase.reuse, Phase.generate)
SOME = settings(max_examples=6, deadline=None, phases=WHOLE)
randoms = st.randoms(use_true_random=True)
CRITICAL, LOW = JobClass.CRITICAL, JobClass.LOW


class Watched(Machine):
    """A machine whose events, some of them out of the blue, an engine is told of."""

    def __init__(self, limits: Limits, accounts: list[Account], groups: list[Group]) -> None:
        super().__init__(limits=limits, window=10_000)
        self.accounts = {account.owner_id: account for account in accounts}
        self.groups = {group.group_id: group for group in groups}
        self.random = Random(0)  # noqa: S311 - makes load, hides nothing
        self.engine = Engine(self.clock)
        self.engine.set_limits(limits)
        for group in groups:
            self.engine.set_group(group)
        for account in accounts:
            self.engine.set_account(account)

    def _arrive(self) -> None:
        super()._arrive()
        something_else_happens(self, self.random)

    def _arrived(self, new: Candidate) -> None:
        self.engine.add(new)

    def _passes(self) -> None:
        self.engine.advance(self.now, self.running.values())

    def _ended(self, one: Running, used: float) -> None:
        self.engine.end(one, used)

    def withdraw(self, gone: Candidate) -> None:
        self.lines[gone.owner_id].remove(gone)
        self.engine.remove(gone.owner_id, gone.id)
        self._leave_lines()

    def change(self, limits: Limits) -> None:
        self.limits = limits
        self.engine.set_limits(limits)
        self._leave_lines()

    def _leave_lines(self) -> None:
        """Whoever waits for nothing any more is out of line at once, not at the next pass."""
        for owner, account in self.accounts.items():
            if self.engine.accounts[owner].tag is None:
                self.accounts[owner] = replace(account, tag=None)


def some_load(random: Random) -> list[Candidate]:
    return [
        job(
            number,
            random.randint(1, 6),
            random.choice(list(JobClass)),
            cpu=random.choice([0.5, 1, 1, 2, 4, 7]),
            memory=random.choice([64, 128, 1024]),
            expected=random.choice([0.3, 1, 1, 3, 10, 40]),
            job_type=random.choice(["email", "report", "export"]),
            ready_at=NOON + seconds(random.choice([0, 0, random.uniform(0, 60)])),
        )
        for number in range(1, 70)
    ]


def some_machine(random: Random) -> Watched:
    limits = Limits(EIGHT, type_caps={"export": 2})
    accounts = [
        Account(
            owner,
            group_id=random.choice([None, 1]),
            weight=random.choice([0.5, 1, 1, 2, 4]),
            caps=Caps(running_jobs=random.choice([None, None, 2])),
        )
        for owner in range(1, 7)
    ]
    machine = Watched(limits, accounts, [Group(1, Caps(cpu_units=5))])
    machine.random = random
    load = some_load(random)
    machine.submit(load)
    for each in load:
        machine.really[each.id] = each.expected.total_seconds() * random.choice([0.5, 1, 1, 4])
    return machine


def something_else_happens(machine: Watched, random: Random) -> None:
    match random.randrange(12):
        case 0:
            waiting = [each for line in machine.lines.values() for each in line]
            if waiting:
                machine.withdraw(random.choice(waiting))
        case 1:
            room = random.choice([Resources(8, 4096, 64), Resources(6, 4096, 5), None])
            paused = random.choice([frozenset(), frozenset({LOW})])
            machine.change(Limits(room, type_caps={"export": 2}, paused_classes=paused))


@SOME
@given(randoms)
def test_it_decides_what_a_plan_of_everything_decides(random: Random) -> None:
    machine = some_machine(random)

    for seen, made in machine.steps(until=NOON + seconds(90)):
        decided = machine.engine.decide(seen.now, seen.running)

        assert [each.id for each in decided.admissions] == [each.id for each in made.admissions]
        assert [each.grounds for each in decided.admissions] == [
            each.grounds for each in made.admissions
        ]
        assert decided.reservation == made.reservation
        assert decided.clock.virtual_now == pytest.approx(made.clock.virtual_now)


@SOME
@given(randoms)
def test_its_accounts_are_those_of_the_plans(random: Random) -> None:
    machine = some_machine(random)

    for seen, _ in machine.steps(until=NOON + seconds(60)):
        machine.engine.decide(seen.now, seen.running)

    for owner, account in machine.accounts.items():
        known = machine.engine.accounts[owner]
        assert known.meter == pytest.approx(account.meter)
        assert known.express_meter == pytest.approx(account.express_meter)
        assert known.tag == (None if account.tag is None else pytest.approx(account.tag))


@SOME
@given(randoms)
def test_the_front_is_planned_like_everything(random: Random) -> None:
    machine = some_machine(random)

    for seen, made in machine.steps(until=NOON + seconds(20)):
        whole = plan(machine.engine.front(seen.now, seen.running, 10_000))

        assert whole.order == made.order
        assert whole.holds == made.holds
        machine.engine.decide(seen.now, seen.running)


def queued(count: int, owner: int = 1, **more: object) -> list[Candidate]:
    return [job(100 * owner + i, owner, **more) for i in range(count)]  # type: ignore[arg-type]


def furnished(*accounts: Account, limits: Limits | None = None) -> Engine:
    engine = Engine()
    engine.set_limits(limits or Limits(EIGHT))
    for account in accounts:
        engine.set_account(account)
    return engine


def test_a_line_that_goes_on_behind_what_is_known_keeps_its_place() -> None:
    engine = furnished(Account(1), Account(2))
    engine.extend(1, queued(4), has_more=True)

    engine.decide(NOON, ())

    assert engine.accounts[1].tag == pytest.approx(engine.accounts[1].meter)
    assert engine.thin_lines(3) == [1]
    assert engine.thin_lines(3) == []


def test_a_line_read_anew_keeps_its_place() -> None:
    engine = furnished(Account(1), limits=Limits(Resources(2, 4096, 9)))
    engine.extend(1, queued(4))
    engine.decide(NOON, ())
    tag = engine.accounts[1].tag

    engine.drop(1)
    engine.extend(1, queued(4)[2:])
    engine.settle(1)
    engine.decide(NOON, [running(9, cpu=2)])

    assert engine.accounts[1].tag == tag is not None


def test_an_owner_of_whom_nothing_waits_any_more_leaves_the_line() -> None:
    engine = furnished(Account(1), limits=Limits(Resources(1, 4096, 9)))
    engine.extend(1, queued(2))
    engine.decide(NOON, ())

    engine.drop(1)
    engine.settle(1)

    assert engine.accounts[1].tag is None
    assert not engine.waits(1)


def test_jobs_of_a_paused_owner_wait_until_resumed() -> None:
    engine = furnished(Account(1, paused=True))
    engine.extend(1, queued(2))
    assert engine.decide(NOON, ()).admissions == ()
    assert {hold.code for hold in engine.barred().values()} == {HoldCode.PAUSED}

    engine.set_account(Account(1))

    assert len(engine.decide(NOON, ()).admissions) == 2


def test_a_change_of_weight_keeps_the_meters() -> None:
    engine = furnished(Account(1), limits=Limits(Resources(1, 4096, 9)))
    engine.extend(1, queued(3))
    engine.decide(NOON, ())
    before = engine.accounts[1]

    engine.set_account(Account(1, weight=4))

    after = engine.accounts[1]
    assert after.weight == 4
    assert (after.meter, after.tag) == (before.meter, before.tag)


def test_low_jobs_that_grow_old_defer_no_more() -> None:
    limits = Limits(Resources(8, 4096, 1))  # nothing is reserved for who lacks a process only
    ahead = Account(2, meter=5, tag=5)
    busy = [running(9, owner=2, expected=2000)]

    for later, goes in ((599, 2), (601, 1)):
        engine = furnished(Account(1, tag=0), ahead, limits=limits)
        engine.extend(1, queued(1, 1, job_class=LOW))
        engine.extend(2, queued(5, 2))
        engine.decide(NOON, busy)
        (admitted,) = engine.decide(NOON + seconds(later), ()).admissions
        assert admitted.owner_id == goes


def test_starts_in_a_minute_are_counted_within_a_pass() -> None:
    engine = furnished(Account(1), limits=Limits(EIGHT, type_starts={"simulate": 3}))
    engine.extend(1, queued(5))

    assert len(engine.decide(NOON, ()).admissions) == 3


def test_an_owner_can_be_forgotten_and_met_again() -> None:
    engine = furnished(Account(1))
    engine.extend(1, queued(1))
    engine.decide(NOON, ())

    engine.forget(1)
    engine.set_account(Account(1, meter=77))

    assert engine.accounts[1].meter == 77
