"""The leader's memory stays level with the database, by what it is told and by looking."""

import logging
from datetime import timedelta
from decimal import Decimal

import pytest
from redis import Redis
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import OperationalError

from scheduler import mirror
from scheduler.mirror import SWEEP_EVERY, Mirror
from scheduler.models import Active, Duration, Meter
from scheduler.policy.durations import Durations, Lasted
from scheduler.states import JobStatus
from scheduler.store import durations, leader, picture
from scheduler.store.cancellation import cancel
from tests.factories import make_submission, make_user
from tests.scheduler.installation import Installation

S = JobStatus
SECOND = timedelta(seconds=1)
WHOLE = make_submission(cpu_units=Decimal(8))


def _user(here: Installation, **columns: object) -> int:
    return here.do(lambda session: make_user(session, **columns).id)


def _known(here: Installation, owner: int) -> list[int]:
    memory = here.scheduler._memory.mirror
    assert isinstance(memory, Mirror)
    return [job.id for job in memory.engine.line_of(owner)]


def _busy(here: Installation) -> int:
    """Let somebody hold the machine for good, so that whoever else comes waits."""
    (job,) = here.submit(_user(here), WHOLE)
    here.tick()
    assert here.statuses(job) == [S.QUEUED]
    return job


def _no_one_tells(here: Installation) -> None:
    here.do(lambda session: session.execute(text("DELETE FROM feed WHERE kind = 'lined'")))


# Being told


def test_what_joins_and_leaves_a_line_is_known_with_the_next_turn(here: Installation) -> None:
    _busy(here)
    owner = _user(here)
    jobs = list(here.submit(owner, WHOLE, WHOLE, WHOLE))
    here.tick()
    assert _known(here, owner) == jobs

    here.do(lambda session: cancel(session, jobs[1]))
    here.tick()

    assert _known(here, owner) == [jobs[0], jobs[2]]


def test_a_line_that_empties_is_forgotten_with_its_owner(here: Installation) -> None:
    _busy(here)
    owner = _user(here)
    (job,) = here.submit(owner, WHOLE)
    here.tick()

    here.do(lambda session: cancel(session, job))
    here.tick()

    assert _known(here, owner) == []
    assert owner not in here.scheduler._memory.mirror.engine.accounts  # type: ignore[union-attr]


def test_a_long_line_is_read_on_in_its_order(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "LONGEST_WINDOW", 8)
    jobs = list(here.submit(_user(here), *[make_submission()] * 40))

    while len(here.dispatcher.jobs()) < len(jobs):
        here.tick()
        here.start(*here.in_status(S.QUEUED))
        here.succeed(*here.in_status(S.RUNNING))

    assert here.dispatcher.jobs() == jobs


def test_jobs_behind_what_is_known_are_not_read_before_their_time(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "LONGEST_WINDOW", 8)
    _busy(here)
    owner = _user(here)
    first = list(here.submit(owner, *[WHOLE] * 10))
    here.tick()
    read = []
    really = picture.read_windows
    monkeypatch.setattr(
        picture, "read_windows", lambda *given: read.extend(given[1]) or really(*given)
    )

    here.submit(owner, WHOLE)
    here.tick()

    assert _known(here, owner) == first[:8]
    assert read == []


def test_lines_are_read_in_parts_after_a_takeover_those_furthest_behind_first(
    here: Installation,
    committed_engine: Engine,
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirror, "READ_AT_ONCE", 1)
    long = make_submission(cpu_units=Decimal(8), estimated_seconds=100.0)
    ahead, behind = _user(here), _user(here)
    here.submit(ahead, *[long] * 3)
    here.tick()
    (waiting,) = here.submit(behind, WHOLE)
    here.tick()
    here.lease.release()
    successor = Installation(committed_engine, redis_client)

    assert successor.tick().busy
    assert (_known(successor, behind), _known(successor, ahead)) == ([waiting], [])
    assert not successor.tick().busy
    assert len(_known(successor, ahead)) == 2
    successor.lease.release()


def test_what_a_lost_turn_had_decided_is_forgotten_with_it(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.tick()
    owner = _user(here)
    (job,) = here.submit(owner, make_submission(estimated_seconds=800.0, timeout_seconds=1000.0))

    def lose(*_given: object, **_named: object) -> None:
        raise OperationalError("COMMIT", {}, Exception("the connection is gone"))

    with monkeypatch.context() as trouble:
        trouble.setattr(leader, "remember", lose)
        with pytest.raises(OperationalError):
            here.tick()
    here.tick()

    assert here.dispatcher.jobs() == [job]
    charge = here.do(lambda session: session.get_one(Active, job).charge)
    assert charge <= here.do(lambda session: session.get_one(Meter, owner).meter) < 1.5 * charge


# Looking


def test_a_sweep_finds_what_nobody_told(
    here: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    _busy(here)
    owner, other = _user(here), _user(here)
    (gone,) = here.submit(other, WHOLE)
    here.tick()
    (new,) = here.submit(owner, WHOLE)
    here.do(lambda session: cancel(session, gone))
    _no_one_tells(here)
    here.tick(SECOND)
    assert _known(here, owner) == []

    with caplog.at_level(logging.WARNING):
        here.tick(SWEEP_EVERY + SECOND)

    assert (_known(here, owner), _known(here, other)) == ([new], [])
    assert "lines repaired" in caplog.messages


def test_a_sweep_that_finds_nothing_says_nothing(
    here: Installation, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "LONGEST_WINDOW", 8)
    here.submit(_user(here), *[make_submission(cpu_units=Decimal(4))] * 30)
    for turn in range(3):
        here.tick(turn * SECOND)
        here.start(*here.in_status(S.QUEUED))
        here.succeed(*here.in_status(S.RUNNING))
    here.tick()

    with caplog.at_level(logging.WARNING):
        here.tick(SWEEP_EVERY + SECOND)

    assert caplog.messages == []


def test_a_sweep_forgets_durations_that_no_leader_will_read(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durations, "DURATIONS_KEPT", 3)
    _, changed = Durations().learn(Lasted("report", owner, 3) for owner in (1, 2, 3, 4))
    here.do(lambda session: durations.write(session, changed))

    here.tick()
    before = here.do(lambda session: session.scalar(select(func.count()).select_from(Duration)))
    here.tick(SWEEP_EVERY + SECOND)

    assert before == 5
    assert here.do(lambda s: s.scalar(select(func.count()).select_from(Duration))) == 3


# Limits


def test_no_more_jobs_of_a_type_start_in_a_minute_than_may_over_a_takeover(
    here: Installation, committed_engine: Engine, redis_client: Redis
) -> None:
    here.do(
        lambda session: session.execute(
            text('UPDATE policy_versions SET types = \'{"simulate": {"max_per_minute": 3}}\'')
        )
    )
    here.submit(_user(here), *[make_submission()] * 8)
    assert here.tick().admitted == 3
    here.lease.release()
    successor = Installation(committed_engine, redis_client)

    assert successor.tick(30 * SECOND).admitted == 0
    assert successor.tick(61 * SECOND).admitted == 3
    successor.lease.release()
