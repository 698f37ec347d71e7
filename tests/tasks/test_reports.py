"""What becomes of an outcome when the connection is broken, or Postgres cannot keep it."""

import os
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from redis import Redis
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from scheduler.database import make_engine
from scheduler.events import Announcer
from scheduler.models import JobLog
from scheduler.settings import Settings
from scheduler.states import JobStatus
from scheduler.store import work
from scheduler.store.work import Claim, Failure, LogLine
from tasks.context import Notes
from tasks.ledger import Ledger, is_away
from tasks.reports import Report, Reports
from tests.factories import NOON
from tests.tasks.conftest import Jobs


@pytest.fixture
def claim(jobs: Jobs) -> Claim:
    lease, wanted = timedelta(seconds=30), [jobs.queue()]
    claims, _ = jobs.run(lambda s: work.start(s, wanted, worker="here", pid=1, lease=lease))
    found: Claim = claims[0]
    return found


def _failure(claim: Claim, said: str, *lines: LogLine) -> Report:
    failure = Failure(claim.id, claim.attempt, "ValueError", said)
    return Report(claim, failure, Notes(None, lines))


def _take_away_sockets(engine: Engine, count: int) -> None:
    """Let the connections of a pool find another file under the numbers of their sockets."""
    with ExitStack() as stack, Path(os.devnull).open("rb") as other:
        for connection in [stack.enter_context(engine.connect()) for _ in range(count)]:
            driver: Any = connection.connection.dbapi_connection
            os.dup2(other.fileno(), driver.fileno())


@pytest.mark.usefixtures("committed_engine")
def test_a_handler_that_closes_all_sockets_does_not_lose_its_outcome(
    jobs: Jobs, claim: Claim, settings: Settings, redis_client: Redis
) -> None:
    engine = make_engine(settings, pool_size=3)
    _take_away_sockets(engine, 3)

    Reports(Ledger(engine, Announcer(redis_client))).add(_failure(claim, "as it was"))

    job = jobs.look((claim.id, claim.attempt))
    assert (job.error_type, job.error_message) == ("ValueError", "as it was")
    engine.dispose()


@pytest.mark.parametrize("unkeepable", ["a\x00", "a\ud800"])
def test_an_outcome_that_cannot_be_kept_is_a_failure_that_says_so(
    jobs: Jobs, claim: Claim, ledger: Ledger, unkeepable: str
) -> None:
    Reports(ledger).add(_failure(claim, unkeepable))

    job = jobs.look((claim.id, claim.attempt))
    assert (job.status, job.error_type) == (JobStatus.FAILED, "OutcomeRefused")
    assert "could not be kept: " in (job.error_message or "")


def test_a_report_whose_answer_was_lost_is_written_once_and_told_no_more(
    jobs: Jobs,
    claim: Claim,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    committed_engine: Engine,
) -> None:
    once, lost, told = Ledger.once, iter([True]), []

    def without_answer(ledger: Ledger, act: Any, *, durable: bool) -> Any:
        answer = once(ledger, act, durable=durable)
        if next(lost, False):
            raise OperationalError("", {}, Exception("the connection went away"))
        return answer

    monkeypatch.setattr(Ledger, "once", without_answer)
    monkeypatch.setattr(ledger.announcer, "log", lambda *said: told.append(said))

    Reports(ledger).add(_failure(claim, "no", LogLine(NOON, "info", "the last words")))

    assert jobs.look((claim.id, claim.attempt)).error_message == "no"
    with Session(committed_engine) as session:
        assert session.scalars(select(JobLog.message)).all() == ["the last words"]
    assert told == []


@pytest.mark.parametrize(
    ("orig", "away"),
    [
        (psycopg.ProgrammingError("can't change 'autocommit' now"), True),
        (psycopg.InternalError("got no result from the query"), True),
        (psycopg.DatabaseError("lost synchronization with server"), True),
        (errors.AdminShutdown(), True),
        (errors.DeadlockDetected(), True),
        (errors.TooManyConnections(), True),
        (psycopg.DataError("cannot contain NUL"), False),
        (errors.ProgramLimitExceeded(), False),
        (errors.InvalidTextRepresentation(), False),
        (errors.CheckViolation(), False),
        (errors.UndefinedColumn(), False),
    ],
    ids=lambda each: type(each).__name__,
)
def test_only_what_the_server_refuses_or_the_driver_cannot_write_is_no_outage(
    orig: psycopg.Error, *, away: bool
) -> None:
    problem: Any = DBAPIError.instance("", {}, orig, psycopg.Error)

    assert is_away(problem) is away
