"""The thread beside a handler, beside real handlers and on real Postgres."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from scheduler.models import JobLog
from scheduler.settings import Settings
from scheduler.states import JobStatus
from scheduler.store.cancellation import cancel
from tasks import watcher
from tasks.catalogue import Catalogue, Payload, job_type
from tasks.context import Cancelled, Context
from tasks.ledger import Ledger
from tasks.runner import Runner
from tasks.watcher import NOTE_SECONDS
from tests.services import eventually
from tests.tasks.conftest import Jobs, Wanted

pytestmark = pytest.mark.timeout(120, method="thread")

FAR = timedelta(hours=1)


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.fixture
def runner(ledger: Ledger, catalogue: Catalogue, settings: Settings) -> Iterator[Runner]:
    runner = Runner(ledger, catalogue, {}, settings)
    yield runner
    runner.close()


@pytest.fixture
def attempt(jobs: Jobs) -> Wanted:
    return jobs.queue("watched")


def request_cancel(jobs: Jobs, attempt: Wanted) -> None:
    jobs.run(lambda session: cancel(session, attempt[0]))


def test_a_handler_that_looks_sees_that_it_is_to_stop(
    runner: Runner, catalogue: Catalogue, jobs: Jobs, attempt: Wanted
) -> None:
    cleaned = []

    @job_type("watched", payload=Payload, catalogue=catalogue)
    def handler(context: Context, _payload: Payload) -> None:
        request_cancel(jobs, attempt)
        eventually(context.cancelled, within=5)
        cleaned.append(1)
        context.raise_if_cancelled()

    runner.run([attempt], worker="w")

    assert cleaned
    assert jobs.status(attempt) is JobStatus.CANCELLED


def test_a_waiting_handler_is_woken_to_stop(
    runner: Runner, catalogue: Catalogue, jobs: Jobs, attempt: Wanted
) -> None:
    @job_type("watched", payload=Payload, catalogue=catalogue)
    def handler(context: Context, _payload: Payload) -> None:
        request_cancel(jobs, attempt)
        context.wait(60)

    runner.run([attempt], worker="w")

    assert jobs.status(attempt) is JobStatus.CANCELLED


def test_a_handler_that_never_looks_is_made_to_stop(
    runner: Runner, catalogue: Catalogue, jobs: Jobs, attempt: Wanted
) -> None:
    @job_type("watched", payload=Payload, catalogue=catalogue)
    def handler(_context: Context, _payload: Payload) -> None:
        request_cancel(jobs, attempt)
        while True:
            pass

    runner.run([attempt], worker="w")

    assert jobs.status(attempt) is JobStatus.CANCELLED
    assert jobs.attempt(attempt).error_type == "Cancelled"  # and not its time limit


def test_a_handler_that_finishes_although_asked_to_stop_has_completed(
    runner: Runner, catalogue: Catalogue, jobs: Jobs, attempt: Wanted
) -> None:
    @job_type("watched", payload=Payload, catalogue=catalogue)
    def handler(context: Context, _payload: Payload) -> str:
        request_cancel(jobs, attempt)
        eventually(context.cancelled, within=5)
        return "done"

    runner.run([attempt], worker="w")

    assert (jobs.status(attempt), jobs.look(attempt).result) == (JobStatus.COMPLETED, "done")


def test_a_handler_that_fails_although_asked_to_stop_is_cancelled(
    runner: Runner, catalogue: Catalogue, jobs: Jobs, attempt: Wanted
) -> None:
    @job_type("watched", payload=Payload, catalogue=catalogue)
    def handler(_context: Context, _payload: Payload) -> None:
        request_cancel(jobs, attempt)
        raise ValueError

    runner.run([attempt], worker="w")

    assert jobs.status(attempt) is JobStatus.CANCELLED


def test_an_attempt_that_was_taken_away_is_stopped(
    runner: Runner, catalogue: Catalogue, jobs: Jobs, attempt: Wanted, committed_engine: Engine
) -> None:
    stopped: list[BaseException] = []

    @job_type("watched", payload=Payload, catalogue=catalogue)
    def handler(context: Context, _payload: Payload) -> None:
        with committed_engine.begin() as connection:
            connection.execute(text("UPDATE active SET attempt = attempt + 1"))
        try:
            context.wait(60)
        except Cancelled as cancelled:
            stopped.append(cancelled)
            raise

    runner.run([attempt], worker="w")

    assert stopped


def test_the_lease_is_renewed_while_a_handler_runs(
    runner: Runner, catalogue: Catalogue, jobs: Jobs, attempt: Wanted
) -> None:
    leases: list[Any] = []

    def lease() -> Any:
        active = jobs.active(attempt)
        return active and active.lease_until

    @job_type("watched", payload=Payload, catalogue=catalogue)
    def handler(_context: Context, _payload: Payload) -> None:
        leases.append(lease())
        eventually(lambda: lease() > leases[0], within=5)

    runner.run([attempt], worker="w")

    assert leases
    assert jobs.status(attempt) is JobStatus.COMPLETED


def test_what_a_handler_says_is_written_while_it_runs_and_not_more_than_needed(
    runner: Runner,
    catalogue: Catalogue,
    jobs: Jobs,
    attempt: Wanted,
    committed_engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[int] = []
    write_notes = watcher.write_notes

    def counting(*arguments: Any) -> Any:
        written.append(1)
        return write_notes(*arguments)

    def lines() -> int:
        with Session(committed_engine) as session:
            return len(session.scalars(select(JobLog.id)).all())

    @job_type("watched", payload=Payload, catalogue=catalogue)
    def handler(context: Context, _payload: Payload) -> None:
        for step in range(60):
            context.progress(step / 60, f"step {step}")
            context.info(f"line {step}")
            context.wait(0.01)
        eventually(lambda: jobs.look(attempt).progress_message == "step 59", within=5)
        assert lines() == 60

    monkeypatch.setattr(watcher, "write_notes", counting)
    began = time.monotonic()
    runner.run([attempt], worker="w")
    took = time.monotonic() - began

    assert jobs.status(attempt) is JobStatus.COMPLETED
    assert 1 <= len(written) <= took / NOTE_SECONDS + 1


def test_a_short_job_costs_no_statement_of_the_watcher(
    runner: Runner,
    catalogue: Catalogue,
    attempt: Wanted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_by: list[str] = []
    once = Ledger.once

    def noting(ledger: Ledger, act: Any, *, durable: bool) -> Any:
        asked_by.append(threading.current_thread().name)
        return once(ledger, act, durable=durable)

    monkeypatch.setattr(Ledger, "once", noting)
    job_type("watched", payload=Payload, catalogue=catalogue)(lambda _c, _p: None)

    runner.run([attempt], worker="w")

    assert asked_by == ["MainThread", "MainThread"]
