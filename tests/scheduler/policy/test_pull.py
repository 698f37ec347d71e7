"""Jobs for pull workers: beside the machine, in the same order."""

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.policy.admission import Grounds
from scheduler.policy.asks import Asks
from scheduler.policy.forecast import estimate
from scheduler.policy.parameters import RESERVATION_HARDENS
from scheduler.policy.plan import decide, plan
from scheduler.policy.reasons import HoldCode, sentence
from scheduler.snapshot import Account, Ask, Candidate, Caps, Limits, Reservation, Resources
from scheduler.states import Executor, JobClass
from tests.scheduler.policy.machine import EIGHT, NOON, admitted, job, running, snapshot

HOUR = timedelta(hours=1)


def pull(job_id: int, owner: int = 1, **more: object) -> Candidate:
    return job(job_id, owner, executor=Executor.PULL, **more)  # type: ignore[arg-type]


def asked(*asks: Ask, capacity: Resources | None = EIGHT, **more: object) -> Limits:
    return Limits(capacity, asks=asks, **more)  # type: ignore[arg-type]


def test_nobody_is_admitted_for_a_pull_worker_before_one_asks() -> None:
    made = plan(snapshot([pull(1)]))

    assert admitted(made) == []
    hold = made.holds[1]
    assert hold.code is HoldCode.NO_WORKER
    assert sentence(hold) == "Waits until a pull worker asks for it."


def test_every_ask_gets_one_job_in_the_order_of_the_line() -> None:
    made = plan(snapshot([pull(n) for n in (3, 1, 2)], limits=asked(Ask(10), Ask(11))))

    assert [(each.id, each.ask) for each in made.admissions] == [(1, 10), (2, 11)]
    assert made.holds[3].code is HoldCode.NO_WORKER


def test_a_pull_worker_needs_no_room_on_the_machine_and_takes_none() -> None:
    limits = asked(Ask(10), capacity=Resources(1, 128, 1))

    made = plan(snapshot([pull(1, cpu=64, memory=99999), job(2)], limits=limits))

    assert sorted(admitted(made)) == [1, 2]


def test_pull_workers_are_served_while_no_celery_worker_is_alive() -> None:
    made = plan(snapshot([pull(1), job(2)], limits=asked(Ask(10), capacity=None)))

    assert admitted(made) == [1]
    assert made.holds[2].code is HoldCode.NO_WORKER


def test_the_caps_of_an_owner_hold_for_both_kinds_of_workers_together() -> None:
    accounts = [Account(1, caps=Caps(running_jobs=1))]

    made = plan(snapshot([pull(1), job(2)], [running(3)], accounts=accounts, limits=asked(Ask(10))))

    assert admitted(made) == []
    assert {hold.code for hold in made.holds.values()} == {HoldCode.USER_CAP}


def test_an_ask_takes_only_what_it_names() -> None:
    jobs = [pull(1, 1, job_type="scan"), pull(2, 2, job_type="scan"), pull(3, 2, job_type="print")]
    scans_of_two = Ask(10, frozenset({"scan"}), 2)

    assert admitted(plan(snapshot(jobs, limits=asked(scans_of_two)))) == [2]


def test_an_ask_for_one_owner_finds_that_owners_job_behind_everybody_elses() -> None:
    jobs = [pull(n, owner=n) for n in range(1, 31)]

    for made in (plan, decide):
        seen = snapshot(jobs, limits=asked(Ask(10, owner_id=30)))
        assert [each.id for each in made(seen).admissions] == [30]


def test_who_is_choosy_is_given_a_job_before_who_takes_any() -> None:
    jobs = [pull(1, job_type="scan"), pull(2, job_type="print")]
    anything, scans = Ask(10), Ask(11, frozenset({"scan"}))

    made = plan(snapshot(jobs, limits=asked(anything, scans)))

    assert {each.id: each.ask for each in made.admissions} == {1: 11, 2: 10}


def test_who_brings_a_processor_for_own_jobs_does_not_pay_for_using_it() -> None:
    own, shared = Ask(10, owner_id=1), Ask(11)

    made = plan(snapshot([pull(1, 1), pull(2, 2)], limits=asked(own, shared)))

    charges = {each.id: each.charge for each in made.admissions}
    assert charges[1] == 0
    assert charges[2] > 0
    assert {each.owner_id for each in made.accounts if each.meter > 0} == {2}


def test_a_running_pull_job_gives_no_room_on_the_machine_back() -> None:
    """The room kept for a job that lacks it comes free when jobs on the machine end."""
    limits = Limits(Resources(2, 4096, 8))
    on_machine = running(1, cpu=2, expected=100, started_at=NOON)
    elsewhere = running(2, 2, cpu=2, expected=10, started_at=NOON, executor=Executor.PULL)

    made = plan(snapshot([job(3, 3, cpu=2)], [on_machine, elsewhere], limits=limits))

    assert made.reservation is not None
    assert made.reservation.promised_at == NOON + timedelta(seconds=100)


def test_room_is_never_kept_for_a_pull_job() -> None:
    kept = Reservation(1, 1, NOON - 2 * RESERVATION_HARDENS, NOON)
    jobs = [pull(1, cpu=99), job(2, 2)]

    made = plan(snapshot(jobs, reservation=kept))

    assert made.reservation is None
    assert admitted(made) == [2]


def test_a_pull_job_for_which_room_was_kept_goes_to_who_asks_for_it() -> None:
    kept = Reservation(1, 1, NOON - 2 * RESERVATION_HARDENS, NOON)

    made = plan(snapshot([pull(1, cpu=99)], reservation=kept, limits=asked(Ask(10))))

    assert [(each.id, each.grounds) for each in made.admissions] == [(1, Grounds.TURN)]


def test_virtual_time_does_not_wait_for_jobs_that_nobody_asks_for() -> None:
    accounts = [Account(1, meter=0, tag=0), Account(2, meter=50, tag=50)]
    waiting = [pull(1, 1), job(2, 2)]

    made = plan(snapshot(waiting, [running(3, 3, cpu=8)], accounts=accounts))

    assert made.clock.virtual_now == 50


def test_a_pull_job_beside_kept_room_is_admitted_by_its_turn() -> None:
    busy = [running(1, cpu=8, expected=1000)]

    made = plan(snapshot([job(2, 2, cpu=8), pull(3, 3)], busy, limits=asked(Ask(10))))

    assert made.reservation is not None
    assert [(each.id, each.grounds) for each in made.admissions] == [(3, Grounds.TURN)]


def test_an_owners_pull_job_that_nobody_asks_for_holds_none_of_its_others_back() -> None:
    accounts = [Account(1, caps=Caps(cpu_units=2))]
    jobs = [pull(1, cpu=2, ready_at=NOON - HOUR), job(2)]

    made = plan(snapshot(jobs, [running(3)], accounts=accounts))

    assert admitted(made) == [2]


def test_nobody_can_say_when_a_pull_worker_will_ask() -> None:
    seen = snapshot([pull(1), pull(2)], limits=asked(Ask(10)))

    assert estimate(seen, [1, 2]).keys() == {1}


def test_pull_jobs_of_several_owners_are_handed_out_by_weight() -> None:
    owners = {1: 1.0, 2: 1.0, 3: 2.0}
    jobs = [pull(owner * 100 + n, owner) for owner in owners for n in range(40)]
    accounts = [Account(owner, weight=weight) for owner, weight in owners.items()]
    asks = tuple(Ask(n) for n in range(40))

    made = plan(snapshot(jobs, accounts=accounts, limits=asked(*asks)))

    assert Counter(each.owner_id for each in made.admissions) == {1: 10, 2: 10, 3: 20}


def test_urgent_pull_jobs_go_first() -> None:
    jobs = [pull(1, 1), pull(2, 2, job_class=JobClass.CRITICAL)]

    assert admitted(plan(snapshot(jobs, limits=asked(Ask(10))))) == [2]


@given(st.permutations([Ask(1), Ask(2, frozenset("a")), Ask(3, frozenset("ab")), Ask(4, None, 1)]))
def test_which_ask_takes_a_job_does_not_depend_on_their_order(asks: list[Ask]) -> None:
    waiting = Asks(asks)

    assert [waiting.take(pull(1, 1, job_type="a")).id for _ in asks] == [4, 2, 3, 1]
    assert waiting.find(pull(1, 1, job_type="a")) is None
    assert not waiting.are_for("a")


_OWNERS = st.sampled_from([None, 1, 2, 3])
_TYPES = st.sampled_from([None, frozenset(), frozenset("a"), frozenset("b"), frozenset("ab")])


@given(
    st.lists(st.tuples(_TYPES, _OWNERS)),
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 4]), st.sampled_from("abc"))),
)
def test_the_choosiest_of_those_who_may_takes_a_job(
    asking: list[tuple[frozenset[str] | None, int | None]], waiting: list[tuple[int, str]]
) -> None:
    left = [Ask(number, *wanted) for number, wanted in enumerate(asking)]
    asks = Asks(left)

    for number, (owner, job_type) in enumerate(waiting):
        one = pull(number, owner, job_type=job_type)
        assert asks.are_for(job_type) == any(_is_for(ask, job_type) for ask in left)
        found = asks.find(one)
        who_may = [ask for ask in left if ask.accepts(one)]
        assert (found is None) == (not who_may)
        if found is not None:
            assert _choice(found) == min(map(_choice, who_may))
            assert asks.take(one) == found
            left.remove(found)


def _is_for(ask: Ask, job_type: str) -> bool:
    return ask.types is None or job_type in ask.types


def _choice(ask: Ask) -> tuple[bool, bool, int]:
    return (ask.owner_id is None, ask.types is None, len(ask.types or ()))


def test_what_others_ask_for_costs_an_owner_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn that looks at every ask makes passes over many owners as long as both together."""
    looked_at: list[Ask] = []
    accepts = Ask.accepts
    monkeypatch.setattr(Ask, "accepts", lambda ask, job: looked_at.append(ask) or accepts(ask, job))
    many = range(1, 101)
    asks = [Ask(owner, frozenset({"scan"}), owner) for owner in many]
    jobs = [pull(owner, owner, job_type="print") for owner in many]

    for made in (plan, decide):
        assert made(snapshot(jobs, limits=asked(*asks))).admissions == ()

    assert len(looked_at) <= 10 * len(jobs)
