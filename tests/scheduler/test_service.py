"""One turn of the scheduler after the other, and the loop that takes them."""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from psycopg.errors import LockNotAvailable
from redis import Redis
from sqlalchemy import Engine, event, func, select, text, update
from sqlalchemy.orm import Session

from scheduler import mirror, service
from scheduler.database import make_engine, open_redis
from scheduler.dispatch import Sent
from scheduler.errors import LeadershipLost
from scheduler.events import LIVE_CHANNEL, Announcer, read_standing
from scheduler.lease import Lease
from scheduler.models import Active, JobEvent, Meter, Outbox, SchedulerLease
from scheduler.settings import Settings
from scheduler.states import Condition, Executor, JobClass, JobStatus, Outcome
from scheduler.store import admission, counts, leader, moves, offers, received, work
from scheduler.store.cancellation import cancel
from tests.conftest import make_settings
from tests.factories import MINUTE, PID, WORKER, make_submission, make_user
from tests.racing import committed, one_after_the_other
from tests.scheduler.installation import Installation, furnish, running
from tests.services import OwnServices, eventually

S = JobStatus
SECOND = timedelta(seconds=1)
MARKER = "fairq:marker"


@pytest.fixture
def impatient(
    committed_engine: Engine, settings: Settings, redis_client: Redis
) -> Iterator[Installation]:
    """An installation that hardly waits for locks."""
    engine = make_engine(settings, lock_timeout=timedelta(milliseconds=50))
    installation = Installation(engine, redis_client)
    installation.do(furnish)
    yield installation
    installation.lease.release()
    engine.dispose()


def _user(here: Installation, **columns: object) -> int:
    return here.do(lambda session: make_user(session, **columns).id)


# A job's way


def test_a_submitted_job_is_admitted_sent_and_told_in_one_turn(
    here: Installation, redis_client: Redis
) -> None:
    listener = redis_client.pubsub()
    listener.subscribe(LIVE_CHANNEL)
    assert listener.get_message(timeout=5)
    (job,) = here.submit(_user(here), make_submission("mine", timeout_seconds=9.0))

    turn = here.tick()

    parcel = admission.Parcel(job, 1, JobClass.NORMAL, 9.0)
    assert (turn.admitted, turn.published, turn.busy) == (1, 1, False)
    assert here.dispatcher.sent == [parcel]
    assert here.statuses(job) == [S.QUEUED]
    assert here.do(lambda s: s.get_one(Active, job).published_at)
    assert here.do(lambda s: s.scalars(select(Outbox)).all()) == []
    message = listener.get_message(timeout=5)
    assert message
    (move,) = json.loads(message["data"])["moves"]
    assert (move["verb"], move["job_id"], move["status"]) == ("admit", "mine", S.QUEUED)


def test_what_turns_admit_and_take_in_is_counted_once(here: Installation) -> None:
    owner = _user(here)
    one, other = here.submit(owner, make_submission(), make_submission())
    here.tick()
    here.start(one, other)
    here.succeed(one, after=4 * SECOND)

    here.ticks()
    here.fail(other)
    here.ticks()

    found = here.do(lambda session: counts.read(session, owner))
    numbers = {what: count.number for what, count in found.items() if count.number}
    assert numbers == {counts.ADMITTED: 2, Outcome.COMPLETED: 1, Outcome.FAILED: 1}
    assert found[Outcome.COMPLETED].seconds == pytest.approx(4, abs=0.5)
    since = received.beginning_of_slice(here.now() - MINUTE)
    shares = here.do(lambda session: received.read(session, since=since))
    assert shares[owner] == pytest.approx(4 / 8, rel=0.2)  # one CPU of eight


def test_pull_workers_are_called_whose_asks_a_turn_has_served(
    here: Installation, redis_client: Redis
) -> None:
    wanted = make_submission("mine", executor=Executor.PULL, type="scan")
    (job,) = here.submit(_user(here), wanted)
    first, second = (
        here.do(lambda session: offers.put_up(session, offers.Wanted(), patience=MINUTE))
        for _ in range(2)
    )
    listener = redis_client.pubsub()
    listener.subscribe(LIVE_CHANNEL)
    assert listener.get_message(timeout=5)

    turn = here.tick()

    assert turn.served == (first,)
    assert here.dispatcher.sent == []
    assert listener.get_message(timeout=5)  # the move
    message = listener.get_message(timeout=5)
    assert message
    assert json.loads(message["data"]) == {"kind": "offers", "asks": [first]}
    assert here.do(lambda session: offers.take_down(session, first)) == (job, 1)
    assert here.do(lambda session: offers.take_down(session, second)) is None


def test_a_job_whose_ask_is_taken_down_while_it_is_decided_is_next_for_another(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = here.submit(_user(here), make_submission(executor=Executor.PULL, type="scan"))
    first = here.do(lambda session: offers.put_up(session, offers.Wanted(), patience=MINUTE))
    admit = admission.admit

    def admit_too_late(session: Session, *given: Any, **named: Any) -> Any:
        offers.take_down(session, first)
        return admit(session, *given, **named)

    with monkeypatch.context() as moment:
        moment.setattr(admission, "admit", admit_too_late)
        turn = here.tick()
    assert turn.served == ()
    second = here.do(lambda session: offers.put_up(session, offers.Wanted(), patience=MINUTE))

    assert here.tick().served == (second,)
    assert here.statuses(job) == [S.QUEUED]


def test_a_job_that_is_cancelled_while_it_is_decided_calls_nobody(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.submit(_user(here), make_submission("mine", executor=Executor.PULL, type="scan"))
    here.do(lambda session: offers.put_up(session, offers.Wanted(), patience=MINUTE))
    monkeypatch.setattr(admission, "admit", lambda *_, **__: [])

    assert here.tick().served == ()


def test_a_turn_with_nothing_to_do_does_nothing(here: Installation) -> None:
    here.tick()

    assert here.tick() == service.Turn()


def test_messages_leave_in_the_order_of_classes(here: Installation) -> None:
    owner = _user(here)
    names = ["low", "normal", "high", "critical"]
    jobs = here.submit(owner, *[make_submission(job_class=JobClass(name)) for name in names])

    here.tick()

    assert here.dispatcher.jobs() == list(reversed(jobs))
    assert [parcel.queue for parcel in here.dispatcher.sent] == names[::-1]


def test_equal_jobs_leave_in_the_order_they_were_submitted(here: Installation) -> None:
    jobs = here.submit(_user(here), *[make_submission()] * 8)

    here.tick()

    assert here.dispatcher.jobs() == list(jobs)


def test_the_end_of_a_job_lets_its_dependents_go_in_the_same_turn(here: Installation) -> None:
    parent, child, other = here.submit(
        _user(here),
        make_submission("parent"),
        make_submission("child", depends_on=(("parent", Condition.COMPLETED),)),
        make_submission("other", depends_on=(("parent", Condition.FAILED),)),
    )
    here.tick()
    assert here.dispatcher.jobs() == [parent]
    here.start(parent)
    here.succeed(parent)

    turn = here.tick()

    assert [(move.id, move.verb) for move in turn.moves] == [
        (child, "release"),
        (other, "cancel"),
        (child, "admit"),
    ]
    assert here.dispatcher.jobs() == [parent, child]
    assert turn.busy


def test_a_chain_behind_a_failure_is_cancelled_turn_by_turn(here: Installation) -> None:
    names = [f"step{n}" for n in range(12)]
    chain = [
        make_submission(
            name, depends_on=((names[place - 1], Condition.COMPLETED),) if place else ()
        )
        for place, name in enumerate(names)
    ]
    first, *rest = here.submit(_user(here), *chain)
    here.tick()
    here.start(first)
    here.fail(first)

    here.ticks()

    assert here.statuses(*rest) == [S.CANCELLED] * 11
    assert {here.job(job).reason_job_id for job in rest} == {"step0"}


def test_a_job_whose_time_has_come_is_admitted_in_that_turn(here: Installation) -> None:
    (job,) = here.submit(_user(here), make_submission(delay_seconds=30.0))

    assert here.tick(29 * SECOND).moves == ()
    turn = here.tick(31 * SECOND)

    assert [move.verb for move in turn.moves] == ["release", "admit"]
    assert here.dispatcher.jobs() == [job]


def test_a_lost_attempt_is_retried(here: Installation) -> None:
    (job,) = here.submit(
        _user(here), make_submission(retry_config={"jitter": False, "base_delay_seconds": 0.0})
    )
    here.tick()
    here.start(job)
    here.do(lambda s: s.execute(update(Active).values(lease_until=func.now() - SECOND)))

    moves = [*here.tick().moves, *here.tick(SECOND).moves]

    assert [move.verb for move in moves] == ["retry", "release", "admit"]
    assert [parcel.attempt for parcel in here.dispatcher.sent] == [1, 2]


@pytest.mark.parametrize("seconds", [29, 31])
def test_a_turn_that_let_as_many_timers_fire_as_it_may_is_followed_at_once(
    here: Installation, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    monkeypatch.setattr(service, "TIMER_BATCH", 2)
    here.submit(_user(here), *[make_submission(delay_seconds=30.0)] * 3)
    here.tick()

    turns = [here.tick(seconds * SECOND) for _ in range(2)]

    assert [turn.busy for turn in turns] == [seconds > 30, False]
    assert [turn.admitted for turn in turns] == ([2, 1] if seconds > 30 else [0, 0])


def test_a_job_that_somebody_holds_is_admitted_later_and_in_no_haste(
    here: Installation, committed_engine: Engine
) -> None:
    (job,) = here.submit(_user(here), make_submission())
    with Session(committed_engine) as session:
        moves.lock(session, [job])
        turns = [here.tick() for _ in range(2)]

    assert [(turn.admitted, turn.busy) for turn in turns] == [(0, False)] * 2
    assert here.tick().admitted == 1


# Caps


def test_no_more_is_admitted_than_there_is(here: Installation) -> None:
    large = make_submission(cpu_units=Decimal(3), memory_mb=1000)
    jobs = here.submit(_user(here), *[large] * 4)

    here.tick()

    assert here.dispatcher.jobs() == list(jobs[:2])
    here.start(*jobs[:2])
    here.succeed(jobs[0])
    here.tick()
    assert here.dispatcher.jobs() == list(jobs[:3])
    assert here.reserved() == (6.0, 2000, 2)


def test_without_a_worker_jobs_wait_and_are_told_so(
    here: Installation, redis_client: Redis
) -> None:
    here.do(lambda s: s.execute(text("UPDATE workers SET heartbeat_at = now() - interval '1 h'")))
    owner = _user(here)
    (job,) = here.submit(owner, make_submission())

    assert here.tick().admitted == 0
    assert read_standing(redis_client, owner)[job].code == "no_worker"


@pytest.mark.parametrize("seed", range(2))
def test_the_reserved_total_never_passes_the_capacity(
    here: Installation, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Turns here follow each other at once, so the window beside the slots may have any size.
    monkeypatch.setattr(mirror, "RUN_AHEAD", timedelta(0))
    chance = random.Random(seed)  # noqa: S311 - makes load, hides nothing
    owners = [_user(here, weight=weight) for weight in (1.0, 2.0, 0.5)]
    for _ in range(15):
        _something_happens(here, owners, chance)

        here.tick()

        cpu_units, memory_mb, slots = here.reserved()
        assert cpu_units <= 8
        assert memory_mb <= 4096
        assert slots <= 8
    assert here.in_status(S.RUNNING) or here.in_status(S.COMPLETED)
    _drain(here)
    assert here.reserved() == (0.0, 0, 0)


def _something_happens(here: Installation, owners: list[int], chance: random.Random) -> None:
    here.submit(chance.choice(owners), *[_random_submission(chance) for _ in range(4)])
    for job in here.in_status(S.QUEUED):
        match chance.randrange(4):
            case 0:
                here.do(lambda s, job=job: cancel(s, job))
            case 1 | 2:
                here.start(job)
    for job in here.in_status(S.RUNNING):
        match chance.randrange(4):
            case 0:
                here.fail(job)
            case 1 | 2:
                here.succeed(job)


def _random_submission(chance: random.Random) -> object:
    return make_submission(
        job_class=chance.choice(list(JobClass)),
        cpu_units=Decimal(chance.choice(["0.1", "0.7", "1", "2.5", "8"])),
        memory_mb=chance.choice([1, 100, 700, 4096]),
    )


def _drain(here: Installation) -> None:
    """Let everything run to its end."""
    while any(here.in_status(status) for status in (S.READY, S.QUEUED, S.RUNNING)):
        here.start(*here.in_status(S.QUEUED))
        here.succeed(*here.in_status(S.RUNNING))
        here.tick()


# Fairness


def test_users_receive_in_the_proportion_of_their_weights(here: Installation) -> None:
    heavy, light = _user(here, weight=3.0), _user(here, weight=1.0)
    submissions = [make_submission(estimated_seconds=10.0)] * 60
    here.submit(light, *submissions)
    here.submit(heavy, *submissions)
    received: Counter[int] = Counter()

    for place in range(10):
        here.tick(place * 10 * SECOND)
        jobs = here.in_status(S.QUEUED)
        received.update(here.job(job).owner_id for job in jobs)
        here.start(*jobs)
        here.succeed(*jobs, after=10 * SECOND)

    assert received.total() == 80
    assert received[heavy] == pytest.approx(60, abs=2)


def test_a_new_scheduler_goes_on_with_what_everybody_has_received(
    here: Installation, committed_engine: Engine, redis_client: Redis
) -> None:
    greedy, modest = _user(here), _user(here)
    submissions = [make_submission(estimated_seconds=100.0)] * 8
    here.submit(greedy, *submissions)
    here.tick()
    here.submit(greedy, *submissions)
    here.submit(modest, *submissions)
    here.tick()
    meters = here.do(lambda s: {row.owner_id: row.meter for row in s.scalars(select(Meter))})
    here.lease.release()
    successor = Installation(committed_engine, redis_client)
    jobs = here.in_status(S.QUEUED)
    here.start(*jobs)
    here.succeed(*jobs, after=100 * SECOND)

    successor.tick()

    owners = Counter(here.job(job).owner_id for job in successor.dispatcher.jobs())
    assert meters[greedy] > meters.get(modest, 0)
    assert owners[modest] > owners[greedy]
    successor.lease.release()


def test_what_a_job_really_used_replaces_what_it_was_charged(here: Installation) -> None:
    owner = _user(here)
    wanted = make_submission(cpu_units=Decimal(4), estimated_seconds=100.0, timeout_seconds=1000.0)
    (job,) = here.submit(owner, wanted)
    here.tick()
    charged = here.do(lambda s: s.get_one(Meter, owner).meter)
    here.start(job)
    here.succeed(job, after=10 * SECOND)

    here.tick()

    used = here.do(lambda s: s.get_one(Meter, owner).meter)
    assert charged - used == pytest.approx(0.5 * 90, rel=0.01)


def test_what_a_job_really_used_counts_when_a_new_leader_takes_in_its_end(
    here: Installation, committed_engine: Engine, redis_client: Redis
) -> None:
    owner = _user(here)
    wanted = make_submission(cpu_units=Decimal(4), estimated_seconds=100.0, timeout_seconds=1000.0)
    (job,) = here.submit(owner, wanted)
    here.tick()
    here.start(job)
    here.succeed(job, after=10 * SECOND)
    here.lease.release()
    successor = Installation(committed_engine, redis_client)

    successor.tick()

    used = here.do(lambda s: s.get_one(Meter, owner).meter)
    assert used == pytest.approx(0.5 * 10, rel=0.01)
    successor.lease.release()


def test_a_job_cancelled_between_plan_and_admission_is_not_charged(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = _user(here)
    kept, gone = here.submit(owner, *[make_submission(estimated_seconds=50.0)] * 2)
    really_admit = admission.admit

    def admit(session: Session, *args: object, **kwargs: object) -> object:
        here.do(lambda s: cancel(s, gone))
        return really_admit(session, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(admission, "admit", admit)

    turn = here.tick()

    assert [move.id for move in turn.moves] == here.dispatcher.jobs() == [kept]
    assert here.statuses(kept, gone) == [S.QUEUED, S.CANCELLED]
    charge = here.do(lambda s: s.get_one(Active, kept).charge)
    assert here.do(lambda s: s.get_one(Meter, owner).meter) == pytest.approx(charge)


# The broker


def test_what_could_not_be_sent_is_sent_later(here: Installation) -> None:
    (job,) = here.submit(_user(here), make_submission())
    here.dispatcher.away = True
    assert here.tick().published == 0
    assert here.statuses(job) == [S.QUEUED]

    here.dispatcher.away = False

    assert here.tick().published == 1
    assert here.dispatcher.jobs() == [job]
    assert here.tick().published == 0


def test_what_the_broker_did_not_take_is_sent_by_the_next_turn_at_once_and_nothing_twice(
    here: Installation,
) -> None:
    jobs = here.submit(_user(here), *[make_submission()] * 3)
    here.dispatcher.takes = 2

    turns = [here.tick() for _ in range(3)]

    assert [(turn.published, turn.busy) for turn in turns] == [(2, True), (1, False), (0, False)]
    assert here.dispatcher.jobs() == list(jobs)


def test_what_went_out_before_the_broker_went_away_is_not_sent_again(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = here.submit(_user(here), *[make_submission()] * 3)
    really_send = here.dispatcher.send

    def send(parcels: Sequence[admission.Parcel]) -> Sent:
        return replace(really_send(parcels[:2]), problem=ConnectionResetError("gone"))

    with monkeypatch.context() as moment:
        moment.setattr(here.dispatcher, "send", send)
        turn = here.tick()

    assert (turn.published, turn.busy) == (2, False)
    here.tick()
    assert here.dispatcher.jobs() == list(jobs)


def test_a_message_nobody_claims_is_sent_again(here: Installation) -> None:
    claimed, unclaimed = here.submit(_user(here), *[make_submission()] * 2)
    here.tick()
    here.start(claimed)
    assert here.tick().published == 0
    here.do(
        lambda s: s.execute(
            update(Active).values(published_at=func.now() - service.UNCLAIMED_AFTER - SECOND)
        )
    )

    assert here.tick().published == 1
    assert here.dispatcher.jobs() == [claimed, unclaimed, unclaimed]
    assert here.tick().published == 0


def test_a_message_whose_claim_never_ends_keeps_no_turn_waiting_and_is_sent_again(
    impatient: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = impatient.submit(_user(impatient), make_submission())
    really_send = impatient.dispatcher.send
    with Session(impatient.engine) as worker:

        def send(parcels: Sequence[admission.Parcel]) -> Sent:
            work.start(worker, [(job, 1)], worker=WORKER, pid=PID, lease=MINUTE)
            return really_send(parcels)

        with monkeypatch.context() as moment:
            moment.setattr(impatient.dispatcher, "send", send)
            assert impatient.tick().published == 1
    long_ago = func.now() - service.UNCLAIMED_AFTER - SECOND
    impatient.do(lambda s: s.execute(update(Active).values(admitted_at=long_ago)))

    assert impatient.tick().published == 1
    assert impatient.dispatcher.jobs() == [job, job]


def test_a_broker_that_forgot_everything_is_told_again(
    here: Installation, redis_client: Redis
) -> None:
    jobs = here.submit(_user(here), *[make_submission()] * 3)
    here.tick()
    here.start(jobs[0])
    redis_client.flushall()

    here.tick()

    assert here.dispatcher.jobs() == [*jobs, *jobs[1:]]
    assert here.tick().published == 0


def test_the_marker_is_left_once_there_was_a_turn(here: Installation, redis_client: Redis) -> None:
    assert not redis_client.exists(MARKER)

    here.tick()

    assert redis_client.exists(MARKER)


def test_without_a_worker_nothing_is_sent_again(here: Installation, redis_client: Redis) -> None:
    here.submit(_user(here), make_submission())
    here.tick()
    here.do(lambda s: s.execute(text("DELETE FROM workers")))
    redis_client.flushall()

    assert here.tick().published == 0


# Standings


def test_waiting_jobs_are_told_where_they_stand(here: Installation, redis_client: Redis) -> None:
    owner, other = _user(here), _user(here)
    whole = make_submission(cpu_units=Decimal(8), estimated_seconds=60.0)
    mine = here.submit(owner, *[whole] * 3)
    (theirs,) = here.submit(other, whole)

    here.tick()

    standings = read_standing(redis_client, owner) | read_standing(redis_client, other)
    admitted = here.dispatcher.jobs()
    waiting = {*mine, theirs} - set(admitted)
    assert set(standings) == waiting
    assert sorted(standing.position for standing in standings.values()) == [1, 2, 3]
    first = next(standing for standing in standings.values() if standing.position == 1)
    assert (first.code, first.method) == ("resources", "simulation")
    assert first.message
    assert first.earliest
    assert first.latest
    assert first.earliest < first.latest


def test_who_waits_no_more_is_forgotten(here: Installation, redis_client: Redis) -> None:
    owner = _user(here)
    whole = make_submission(cpu_units=Decimal(8))
    first, second = here.submit(owner, whole, whole)
    here.tick()
    assert set(read_standing(redis_client, owner)) == {second}
    here.start(first)
    here.succeed(first)

    here.tick(2 * SECOND)

    assert read_standing(redis_client, owner) == {}


# Fencing


def _take_over(session: Session) -> int:
    return leader.take_over(session, holder="successor", backend_pid=0)


def test_a_leader_of_an_epoch_that_is_over_changes_nothing(here: Installation) -> None:
    (job,) = here.submit(_user(here), make_submission(delay_seconds=1.0))
    here.tick()
    here.do(_take_over)

    with pytest.raises(LeadershipLost):
        here.scheduler.tick(here.now() + 2 * SECOND)

    assert here.statuses(job) == [S.SCHEDULED]
    assert here.dispatcher.sent == []


def test_without_the_fence_it_would_admit(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = here.submit(_user(here), make_submission(delay_seconds=1.0))
    here.tick()
    here.do(_take_over)
    monkeypatch.setattr(leader, "fence", _let_anybody_pass)

    with suppress(LeadershipLost):  # once it has admitted
        here.scheduler.tick(here.now() + 2 * SECOND)

    assert here.statuses(job) == [S.QUEUED]


def _let_anybody_pass(session: Session, *, epoch: int) -> leader.Memory:
    return leader.Memory(session.get_one(SchedulerLease, 1).clock, None)


def test_a_turn_under_way_is_over_before_a_successor_begins(committed_engine: Engine) -> None:
    epoch = committed(committed_engine, _take_over)

    _, successors = one_after_the_other(
        committed_engine, lambda s: leader.fence(s, epoch=epoch), _take_over
    )

    assert successors == epoch + 1


def test_a_turn_that_waited_for_a_successor_is_not_taken(committed_engine: Engine) -> None:
    epoch = committed(committed_engine, _take_over)

    with pytest.raises(LeadershipLost):
        one_after_the_other(committed_engine, _take_over, lambda s: leader.fence(s, epoch=epoch))


def test_what_the_policy_remembers_is_kept_by_its_own_epoch_only(
    committed_engine: Engine,
) -> None:
    epoch = committed(committed_engine, _take_over)
    memory = leader.Memory({"virtual_now": 7.0}, None)
    committed(committed_engine, lambda s: leader.remember(s, memory, epoch=epoch))

    stale = leader.Memory({"virtual_now": 1.0}, None)
    committed(committed_engine, lambda s: leader.remember(s, stale, epoch=epoch - 1))

    assert committed(committed_engine, lambda s: leader.fence(s, epoch=epoch)) == memory


def test_a_leader_whose_turn_took_long_renews_before_and_after_it_publishes(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.submit(_user(here), make_submission())
    really_remember, really_send = leader.remember, here.dispatcher.send
    ages: list[timedelta] = []

    def look(*_: object) -> None:
        ages.append(here.do(lambda s: s.scalars(text(_SILENT_FOR)).one()))

    def remember(session: Session, *given: Any, **named: Any) -> None:
        really_remember(session, *given, **named)
        session.execute(text(_LONG_SILENT))

    def send(parcels: Sequence[admission.Parcel]) -> Sent:
        look()
        here.do(lambda session: session.execute(text(_LONG_SILENT)))
        return really_send(parcels)

    monkeypatch.setattr(leader, "remember", remember)
    monkeypatch.setattr(here.dispatcher, "send", send)
    monkeypatch.setattr(service, "write_standings", look)

    here.tick()

    assert len(ages) == 2
    assert max(ages) < MINUTE


_SILENT_FOR = "SELECT clock_timestamp() - renewed_at FROM scheduler_lease"
_LONG_SILENT = "UPDATE scheduler_lease SET renewed_at = now() - interval '1 hour'"


@pytest.mark.parametrize("ends", [True, False])
def test_turns_that_end_jobs_wait_for_the_disk_and_others_do_not(
    committed_engine: Engine,
    settings: Settings,
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
    *,
    ends: bool,
) -> None:
    engine = make_engine(settings, durable=False)
    here = Installation(engine, redis_client)
    here.do(furnish)
    start_by = here.now() + 30 * SECOND if ends else None
    here.submit(_user(here, paused=True), make_submission(start_by=start_by))
    really_wait = admission.waiting_parcels
    commits: list[str] = []

    def waiting_parcels(session: Session, *, limit: int) -> list[admission.Parcel]:
        event.listen(
            session, "before_commit", lambda s: commits.append(s.scalar(text(_HOW_IT_COMMITS)))
        )
        return really_wait(session, limit=limit)

    monkeypatch.setattr(admission, "waiting_parcels", waiting_parcels)

    here.tick(MINUTE)
    here.lease.release()
    engine.dispose()

    assert commits == ["on" if ends else "off"]


_HOW_IT_COMMITS = "SHOW synchronous_commit"


# The loop


def test_a_loop_starts_and_stops_in_any_order(
    committed_engine: Engine, redis_client: Redis
) -> None:
    for place in range(10):
        installation = Installation(committed_engine, redis_client)
        scheduler = installation.scheduler
        if place % 3 == 0:
            scheduler.stop()
        with running(scheduler):
            if place % 3 == 1:
                eventually(lambda lease=installation.lease: lease.epoch)
            scheduler.stop()
            scheduler.stop()

    successor = Lease(committed_engine, holder="successor")
    eventually(successor.hold)
    successor.release()


def test_a_wake_ends_the_pause(
    here: Installation, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PAUSE", timedelta(seconds=60))
    owner = _user(here)
    with running(here.scheduler):
        eventually(lambda: redis_client.exists(MARKER))
        for _ in range(3):
            (job,) = here.submit(owner, make_submission())
            Announcer(redis_client).wake()
            eventually(lambda job=job: job in here.dispatcher.jobs(), within=5)
        here.scheduler.stop()
        Announcer(redis_client).wake()


def test_without_a_wake_a_job_is_found_all_the_same(here: Installation) -> None:
    with running(here.scheduler):
        (job,) = here.submit(_user(here), make_submission())

        eventually(lambda: here.dispatcher.jobs() == [job], within=5)


def test_a_turn_that_meets_what_others_hold_is_taken_again_at_once_by_the_same_leader(
    impatient: Installation, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PAUSE", timedelta(seconds=60))
    here = impatient
    waits = (("parent", Condition.COMPLETED),)
    parent, child = here.submit(
        _user(here), make_submission("parent"), make_submission("child", depends_on=waits)
    )
    here.tick()
    here.start(parent)
    here.succeed(parent)
    problems: list[object] = []
    event.listen(here.engine, "handle_error", lambda met: problems.append(met.original_exception))

    with Session(here.engine) as session:
        moves.lock(session, [child])
        with running(here.scheduler):
            eventually(lambda: len(problems) > 1, within=5)
            session.rollback()
            eventually(lambda: here.dispatcher.jobs() == [parent, child], within=5)
            here.scheduler.stop()
            Announcer(redis_client).wake()

    assert all(isinstance(problem, LockNotAvailable) for problem in problems)
    assert here.lease.epoch == 1


def test_leaders_that_lose_their_connections_admit_everything_once_and_within_the_caps(
    here: Installation, committed_engine: Engine, redis_client: Redis
) -> None:
    owner = _user(here)
    one, other = (Installation(committed_engine, redis_client, holder=name) for name in "ab")
    small = make_submission(cpu_units=Decimal(2))
    with running(one.scheduler), running(other.scheduler):
        for _ in range(5):
            jobs = here.submit(owner, *[small] * 6)
            eventually(lambda: here.in_status(S.QUEUED))
            here.do(lambda s: s.execute(text(_CUT_THE_LEADER)))
            _work_off(here, len(jobs))

    assert max(one.lease.epoch, other.lease.epoch) == 6  # every cut began a new one
    admitted = here.do(
        lambda s: s.execute(
            select(func.count(), func.count(func.distinct(JobEvent.job_id))).where(
                JobEvent.verb == "admit"
            )
        ).one()
    )
    assert tuple(admitted) == (30, 30)
    assert here.do(lambda s: s.scalar(text(_MOST_RESERVED))) <= 8


_CUT_THE_LEADER = """
SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND granted AND datname = current_database()
"""

_MOST_RESERVED = """
SELECT max(held) FROM (
    SELECT sum(CASE verb WHEN 'admit' THEN 2 WHEN 'succeed' THEN -2 ELSE 0 END)
        OVER (ORDER BY seq) AS held
    FROM job_events
) AS history
"""


def _work_off(here: Installation, count: int) -> None:
    """Play the worker until so many more jobs are completed."""
    done = len(here.in_status(S.COMPLETED)) + count

    def all_done() -> bool:
        jobs = here.in_status(S.QUEUED)
        if jobs:
            here.start(*jobs)
            here.succeed(*jobs)
        return len(here.in_status(S.COMPLETED)) == done

    eventually(all_done)


@pytest.mark.slow
def test_the_loop_survives_a_database_and_a_broker_that_go_away(tmp_path: Path) -> None:
    with OwnServices(tmp_path / "services") as services:
        settings = make_settings(services, tmp_path, DATABASE_URL=services.fresh_database())
        engine = make_engine(settings)
        here = Installation(engine, open_redis(settings))
        here.do(furnish)
        owner = _user(here)
        with running(here.scheduler) as thread:
            for go_away, come_back in (
                (services.stop_postgres, services.start_postgres),
                (services.kill_postgres, services.start_postgres),
                (services.kill_valkey, services.start_valkey),
            ):
                go_away()
                come_back()
                _still_works(here, owner)
                assert thread.is_alive()
        engine.dispose()


def _still_works(here: Installation, owner: int) -> None:
    (job,) = here.submit(owner, make_submission())
    eventually(lambda: job in here.dispatcher.jobs())
