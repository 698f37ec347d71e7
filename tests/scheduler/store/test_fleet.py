"""The workers, what they offer, and what that allows."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from scheduler.models import JobType, PolicyVersion, Worker
from scheduler.states import Executor
from scheduler.store import fleet
from scheduler.store.fleet import Capacity, LargestJob, TypeSpec, Wishes, WorkerOffer
from tests.factories import make_worker

OFFER = WorkerOffer(
    name="w1@host",
    incarnation="1",
    host="host",
    pid=12,
    processes_min=2,
    processes_max=8,
    processes=2,
    cpu_units=4.5,
    memory_mb=1000,
    queues=["high", "low"],
)
SPEC = TypeSpec(
    name="render",
    description="Renders.",
    payload_schema={"type": "object"},
    cpu_units=1.5,
    memory_mb=200,
    timeout_seconds=60.0,
    retry_config={"max_attempts": 2},
    executors=(Executor.CELERY, Executor.PULL),
)
SECOND = timedelta(seconds=1)


def _silent_for(session: Session, name: str, how_long: timedelta) -> None:
    session.execute(
        text("UPDATE workers SET heartbeat_at = now() - CAST(:ago AS interval) WHERE name = :name"),
        {"ago": how_long, "name": name},
    )
    session.expire_all()


def _worker(session: Session, name: str = OFFER.name) -> Worker:
    return session.get_one(Worker, name, populate_existing=True)


def test_an_empty_fleet_offers_nothing(session: Session) -> None:
    assert fleet.capacity(session) == Capacity(Decimal(0), 0, 0)
    assert fleet.live_workers(session) == []


def test_the_capacity_is_what_all_workers_offer_together(session: Session) -> None:
    fleet.arrive(session, OFFER)
    fleet.arrive(session, replace(OFFER, name="w2@host", cpu_units=0.5, processes_max=3))

    assert fleet.capacity(session) == Capacity(Decimal(5), 2000, 11)
    assert [worker.name for worker in fleet.live_workers(session)] == ["w1@host", "w2@host"]


def test_a_worker_is_entered_as_it_introduces_itself(session: Session) -> None:
    fleet.arrive(session, OFFER)

    worker = _worker(session)
    assert (worker.host, worker.pid, worker.state) == ("host", 12, "online")
    assert (worker.processes_min, worker.processes_max, worker.processes) == (2, 8, 2)
    assert (worker.queues, worker.heartbeat_at) == (["high", "low"], worker.started_at)


def test_a_worker_that_starts_again_replaces_itself(session: Session) -> None:
    fleet.arrive(session, OFFER)
    fleet.leave(session, OFFER.name, "1")

    fleet.arrive(session, replace(OFFER, incarnation="2", cpu_units=1.0, pid=99))

    assert fleet.capacity(session) == Capacity(Decimal(1), 1000, 8)
    assert (_worker(session).pid, _worker(session).incarnation) == (99, "2")


@pytest.mark.parametrize(("beyond", "offers"), [(-SECOND, True), (SECOND, False)])
def test_a_silent_worker_offers_nothing(
    session: Session, beyond: timedelta, *, offers: bool
) -> None:
    fleet.arrive(session, OFFER)

    _silent_for(session, OFFER.name, fleet.SILENCE + beyond)

    assert (fleet.capacity(session).slots > 0) == offers
    assert (len(fleet.live_workers(session)) > 0) == offers


def test_a_heartbeat_is_noted(session: Session) -> None:
    fleet.arrive(session, OFFER)
    _silent_for(session, OFFER.name, 2 * fleet.SILENCE)

    assert fleet.beat_worker(session, OFFER.name, "1", processes=5, state="online")

    assert (_worker(session).processes, fleet.capacity(session).slots) == (5, 8)


def test_a_draining_worker_lives_and_offers_nothing(session: Session) -> None:
    fleet.arrive(session, OFFER)

    fleet.beat_worker(session, OFFER.name, "1", processes=2, state="draining")

    assert fleet.capacity(session).slots == 0
    assert [worker.state for worker in fleet.live_workers(session)] == ["draining"]


def test_a_worker_that_left_is_gone(session: Session) -> None:
    fleet.arrive(session, OFFER)

    fleet.leave(session, OFFER.name, "1")

    assert (_worker(session).state, _worker(session).processes) == ("stopped", 0)
    assert (fleet.capacity(session).slots, fleet.live_workers(session)) == (0, [])


def test_a_worker_that_left_has_to_arrive_again(session: Session) -> None:
    fleet.arrive(session, OFFER)
    fleet.leave(session, OFFER.name, "1")

    assert not fleet.beat_worker(session, OFFER.name, "1", processes=1, state="online")
    assert not fleet.beat_worker(session, "unknown", "1", processes=1, state="online")


def test_late_words_of_an_older_incarnation_change_nothing(session: Session) -> None:
    fleet.arrive(session, OFFER)
    fleet.arrive(session, replace(OFFER, incarnation="2"))

    fleet.leave(session, OFFER.name, "1")

    assert not fleet.beat_worker(session, OFFER.name, "1", processes=1, state="draining")
    assert (_worker(session).state, fleet.capacity(session).slots) == ("online", 8)


@pytest.mark.parametrize(
    ("cpu_cap", "memory_cap", "expected"),
    [
        (None, None, Capacity(Decimal("4.5"), 1000, 8)),
        (Decimal(3), None, Capacity(Decimal(3), 1000, 8)),
        (None, 10, Capacity(Decimal("4.5"), 10, 8)),
        (Decimal(100), 10_000, Capacity(Decimal("4.5"), 1000, 8)),
        (Decimal(0), 0, Capacity(Decimal(0), 0, 8)),
    ],
)
def test_the_policy_caps_what_workers_offer(
    session: Session, cpu_cap: Decimal | None, memory_cap: int | None, expected: Capacity
) -> None:
    fleet.arrive(session, OFFER)
    session.execute(update(PolicyVersion).values(cap_cpu_units=cpu_cap, cap_memory_mb=memory_cap))

    assert fleet.capacity(session) == expected
    assert fleet.offered(session) == Capacity(Decimal("4.5"), 1000, 8)
    assert fleet.largest_job(session) == LargestJob(expected.cpu_units, expected.memory_mb)


def test_without_a_worker_only_the_policy_says_how_large_a_job_may_be(session: Session) -> None:
    make_worker(session, state="draining")
    assert fleet.largest_job(session) == LargestJob(None, None)

    session.execute(update(PolicyVersion).values(cap_cpu_units=2))

    assert fleet.largest_job(session) == LargestJob(Decimal(2), None)


def test_types_are_registered_and_registered_anew(session: Session) -> None:
    other = replace(SPEC, name="other", payload_schema=None, executors=(Executor.PULL,))
    fleet.register_types(session, [SPEC, other])

    fleet.register_types(session, [replace(SPEC, memory_mb=300, description="Faster.")])

    types = {each.name: each for each in session.scalars(select(JobType))}
    render = types["render"]
    assert set(types) == {"render", "other"}
    assert (render.memory_mb, render.description, render.cpu_units) == (
        300,
        "Faster.",
        Decimal("1.5"),
    )
    assert (render.payload_schema, render.retry_config) == ({"type": "object"}, {"max_attempts": 2})
    assert render.executors == [Executor.CELERY, Executor.PULL]
    assert (types["other"].payload_schema, types["other"].executors) == (None, [Executor.PULL])


# What operators want


def test_a_worker_that_is_to_drain_lives_and_offers_nothing_until_it_is_resumed(
    session: Session,
) -> None:
    fleet.arrive(session, OFFER)
    assert fleet.wishes(session, OFFER.name) == Wishes(draining=False, processes=8)

    assert fleet.drain(session, OFFER.name)
    asked_at = _worker(session).drain_requested_at
    assert fleet.drain(session, OFFER.name)

    assert fleet.capacity(session) == Capacity(Decimal(0), 0, 0)
    assert fleet.largest_job(session) == LargestJob(None, None)
    assert fleet.wishes(session, OFFER.name) == Wishes(draining=True, processes=8)
    assert [fleet.state_of(each) for each in fleet.live_workers(session)] == ["draining"]
    assert _worker(session).drain_requested_at == asked_at
    assert fleet.resume(session, OFFER.name)
    assert (fleet.capacity(session).slots, fleet.state_of(_worker(session))) == (8, "online")


def test_a_drain_outlives_heartbeats_and_restarts_and_a_size_does_not(session: Session) -> None:
    fleet.arrive(session, OFFER)
    fleet.drain(session, OFFER.name)
    fleet.resize(session, OFFER.name, by=-3)

    fleet.beat_worker(session, OFFER.name, "1", processes=5, state="online")
    assert fleet.wishes(session, OFFER.name) == Wishes(draining=True, processes=5)
    fleet.arrive(session, replace(OFFER, incarnation="2", processes_max=6))

    assert fleet.wishes(session, OFFER.name) == Wishes(draining=True, processes=6)


def test_processes_are_offered_as_far_as_a_worker_may_have_them(session: Session) -> None:
    fleet.arrive(session, OFFER)
    fleet.arrive(session, replace(OFFER, name="w2@host"))

    assert not fleet.resize(session, OFFER.name, by=1)
    assert fleet.resize(session, OFFER.name, by=-6)
    assert not fleet.resize(session, OFFER.name, by=-1)
    assert fleet.capacity(session).slots == 2 + 8

    assert fleet.resize(session, OFFER.name, by=3)
    assert fleet.capacity(session).slots == 5 + 8


@pytest.mark.parametrize("gone", ["silent", "stopped", "about to stop"])
def test_nothing_can_be_wanted_of_a_worker_that_is_gone(session: Session, gone: str) -> None:
    fleet.arrive(session, OFFER)
    fleet.arrive(session, replace(OFFER, name="w2@host"))
    assert fleet.is_up(session, OFFER.name)

    match gone:
        case "silent":
            _silent_for(session, OFFER.name, fleet.SILENCE + SECOND)
        case "stopped":
            fleet.leave(session, OFFER.name, "1")
        case _:
            fleet.beat_worker(session, OFFER.name, "1", processes=2, state="draining")

    assert fleet.is_up(session, OFFER.name) is False
    assert not fleet.drain(session, OFFER.name)
    assert not fleet.resume(session, OFFER.name)
    assert not fleet.resize(session, OFFER.name, by=-1)
    assert fleet.wishes(session, OFFER.name) == Wishes(draining=False, processes=8)


def test_nobody_knows_a_worker_that_never_was(session: Session) -> None:
    assert fleet.is_up(session, "nobody") is None
    assert fleet.wishes(session, "nobody") is None
    assert not fleet.drain(session, "nobody")
