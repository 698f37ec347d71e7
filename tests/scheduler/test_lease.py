"""One leader at a time, whatever happens to it."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from scheduler.database import make_engine
from scheduler.errors import LeadershipLost
from scheduler.lease import FROZEN_AFTER, Lease
from scheduler.models import SchedulerLease
from scheduler.settings import Settings
from scheduler.store import leader
from tests.racing import all_at_once, committed
from tests.services import eventually


@pytest.fixture
def ann(committed_engine: Engine) -> Iterator[Lease]:
    lease = Lease(committed_engine, holder="ann")
    yield lease
    lease.release()


@pytest.fixture
def bob(committed_engine: Engine, settings: Settings) -> Iterator[Lease]:
    """The lease of another process, with connections of its own."""
    engine = make_engine(settings)
    lease = Lease(engine, holder="bob")
    yield lease
    lease.release()
    engine.dispose()


def _row(engine: Engine) -> SchedulerLease:
    return committed(engine, lambda session: session.get_one(SchedulerLease, 1))


def _cut(engine: Engine) -> None:
    """End the server's side of the leader's connection."""
    pid = _row(engine).backend_pid
    with engine.connect() as connection:
        assert connection.execute(
            text("SELECT pg_terminate_backend(:pid)"), {"pid": pid}
        ).scalar_one()


def _renewed(engine: Engine, ago: timedelta) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE scheduler_lease SET renewed_at = now() - CAST(:ago AS interval)"),
            {"ago": ago},
        )


def test_one_leads_and_the_other_stands_by(
    committed_engine: Engine, ann: Lease, bob: Lease
) -> None:
    assert [ann.hold(), bob.hold(), ann.hold(), bob.hold()] == [True, False, True, False]
    assert (ann.epoch, bob.epoch) == (1, 0)
    assert _row(committed_engine).holder == "ann"


def test_of_many_who_try_at_once_one_leads(committed_engine: Engine) -> None:
    leases = [Lease(committed_engine, holder=str(number)) for number in range(5)]

    held = all_at_once(committed_engine, [lambda _, each=each: each.hold() for each in leases])

    assert sorted(held) == [False, False, False, False, True]
    for lease in leases:
        lease.release()


def test_whoever_releases_lets_another_one_lead(ann: Lease, bob: Lease) -> None:
    ann.hold()

    ann.release()
    ann.release()

    eventually(bob.hold, within=FROZEN_AFTER.total_seconds() / 2)
    assert bob.epoch == ann.epoch + 1


def test_releasing_what_was_never_held_is_harmless(ann: Lease) -> None:
    ann.release()

    assert ann.hold()


def test_a_standby_takes_over_when_the_leaders_connection_is_cut(
    committed_engine: Engine, ann: Lease, bob: Lease
) -> None:
    ann.hold()
    _cut(committed_engine)

    eventually(bob.hold, within=5)

    with pytest.raises(SQLAlchemyError):
        ann.hold()
    assert not ann.hold()
    assert _row(committed_engine).holder == "bob"


def test_a_leader_that_was_cut_off_is_fenced_before_it_notices(
    committed_engine: Engine, ann: Lease, bob: Lease
) -> None:
    ann.hold()
    _cut(committed_engine)
    eventually(bob.hold, within=5)

    with pytest.raises(LeadershipLost), Session(committed_engine) as session:
        leader.fence(session, epoch=ann.epoch)
    with Session(committed_engine) as session:
        leader.fence(session, epoch=bob.epoch)


def test_a_leader_that_noticed_may_lead_again_in_a_new_epoch(
    committed_engine: Engine, ann: Lease
) -> None:
    ann.hold()
    _cut(committed_engine)
    with pytest.raises(SQLAlchemyError):
        eventually(lambda: not ann.hold(), within=5)

    eventually(ann.hold, within=5)

    assert ann.epoch == 2


def test_a_leader_that_stopped_renewing_is_unseated(
    committed_engine: Engine, ann: Lease, bob: Lease
) -> None:
    ann.hold()
    _renewed(committed_engine, FROZEN_AFTER + timedelta(seconds=1))

    assert not bob.hold()

    eventually(bob.hold, within=5)
    assert bob.epoch == 2


def test_a_leader_that_renews_is_left_alone(
    committed_engine: Engine, ann: Lease, bob: Lease
) -> None:
    ann.hold()
    _renewed(committed_engine, FROZEN_AFTER - timedelta(seconds=2))

    assert not bob.hold()

    assert ann.hold()


def test_holding_renews(committed_engine: Engine, ann: Lease, bob: Lease) -> None:
    ann.hold()
    _renewed(committed_engine, FROZEN_AFTER + timedelta(seconds=1))
    ann.hold()

    assert not bob.hold()

    assert ann.hold()
    assert ann.held_at == _row(committed_engine).renewed_at


def test_whoever_has_lost_the_lead_does_not_renew_it(committed_engine: Engine, ann: Lease) -> None:
    ann.hold()
    committed(committed_engine, lambda s: leader.take_over(s, holder="bob", backend_pid=0))
    renewed_at = _row(committed_engine).renewed_at

    with pytest.raises(LeadershipLost):
        ann.renew()

    assert _row(committed_engine).renewed_at == renewed_at
    eventually(ann.hold)  # in a new epoch
    assert ann.epoch == 3


def test_a_lease_whose_row_somebody_holds_is_kept(
    committed_engine: Engine, settings: Settings
) -> None:
    engine = make_engine(settings, lock_timeout=timedelta(milliseconds=50))
    lease = Lease(engine, holder="ann")
    lease.hold()

    with Session(committed_engine) as session:
        leader.fence(session, epoch=lease.epoch)
        with pytest.raises(SQLAlchemyError):
            lease.hold()

    assert lease.hold()
    assert lease.epoch == 1
    lease.release()
    engine.dispose()


def test_every_turn_renews(committed_engine: Engine, ann: Lease, bob: Lease) -> None:
    ann.hold()
    _renewed(committed_engine, FROZEN_AFTER + timedelta(seconds=1))
    committed(committed_engine, lambda session: leader.fence(session, epoch=ann.epoch))

    assert not bob.hold()

    assert ann.hold()
