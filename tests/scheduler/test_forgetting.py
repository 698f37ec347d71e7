"""Who forgets what was kept long enough, beside the scheduler."""

from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from scheduler import forgetting
from scheduler.forgetting import Forgetter, Keep
from scheduler.models import Job
from scheduler.states import JobStatus
from scheduler.store import retention
from tests.factories import make_job, make_user
from tests.racing import committed
from tests.services import eventually

DAY = timedelta(days=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def forgetter(committed_engine: Engine) -> Forgetter:
    return Forgetter(committed_engine, Keep(finished=DAY, failed=DAY))


def _finished(engine: Engine, *ends: object) -> None:
    def make(session: Session) -> None:
        owner = make_user(session)
        for end in ends:
            make_job(session, owner, JobStatus.COMPLETED, finished_at=end)

    committed(engine, make)


def _left(engine: Engine) -> int | None:
    return committed(engine, lambda session: session.scalar(select(func.count(Job.id))))


def test_the_term_goes_by_the_clock_of_the_database(
    committed_engine: Engine, forgetter: Forgetter
) -> None:
    _finished(committed_engine, func.now() - 1.1 * DAY, func.now() - 0.9 * DAY)

    assert forgetter.forget() == 1
    assert _left(committed_engine) == 1


def test_it_goes_on_at_once_while_there_are_more(
    committed_engine: Engine, forgetter: Forgetter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "FORGET_BATCH", 2)
    _finished(committed_engine, *[LONG_AGO] * 5)

    thread = _started(forgetter)

    eventually(lambda: _left(committed_engine) == 0, within=10)
    _stop(forgetter, thread)


def test_it_survives_a_database_that_is_away(
    committed_engine: Engine, forgetter: Forgetter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "FORGET_EVERY", timedelta(milliseconds=10))
    _finished(committed_engine, LONG_AGO)
    really_forget, failures = retention.forget_finished, iter(range(2))

    def forget(session: Session, **wanted: object) -> int:
        if next(failures, None) is not None:
            raise OperationalError("DELETE", {}, Exception("away"))
        return really_forget(session, **wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(retention, "forget_finished", forget)

    thread = _started(forgetter)

    eventually(lambda: _left(committed_engine) == 0, within=10)
    _stop(forgetter, thread)


def test_whoever_was_stopped_before_it_began_does_nothing(
    committed_engine: Engine, forgetter: Forgetter
) -> None:
    _finished(committed_engine, LONG_AGO)
    forgetter.stop()
    forgetter.stop()

    forgetter.run()

    assert _left(committed_engine) == 1


def _started(forgetter: Forgetter) -> Thread:
    thread = Thread(target=forgetter.run)
    thread.start()
    return thread


def _stop(forgetter: Forgetter, thread: Thread) -> None:
    forgetter.stop()
    thread.join(timeout=10)
    assert not thread.is_alive()
