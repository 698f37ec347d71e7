"""One turn of the parent's thread at a time, with processes that are only numbers."""

import os
import signal
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from scheduler import retry
from scheduler.dispatch import HARD_LIMIT_GRACE_SECONDS
from scheduler.events import WAKE_KEY
from scheduler.models import JobType, Worker
from scheduler.states import Executor, JobStatus
from scheduler.store import fleet, work
from scheduler.store.cancellation import cancel
from scheduler.store.fleet import TypeSpec, Wishes, WorkerOffer
from tasks.fleet import CANCEL_GRACE, REPORT_PATIENCE, Fleet
from tasks.ledger import Ledger
from tasks.watcher import LEASE
from tests.tasks.conftest import Jobs, Wanted

NAME = "w1@test"
SPEC = TypeSpec("simulate", "", None, 1, 128, 60, dict(retry.DEFAULTS), (Executor.CELERY,))
ALIVE, OTHER = 70_001, 70_002


class Numbers:
    """Processes by number; those taken out have died."""

    def __init__(self) -> None:
        self.started = {ALIVE, OTHER}
        self.alive = {ALIVE, OTHER}
        self.reporting: set[int] = set()

    def living(self) -> set[int]:
        return set(self.alive)

    def lost(self) -> set[int]:
        return self.started - self.alive

    def forget(self, pid: int) -> None:
        self.started.discard(pid)

    def is_reporting(self, pid: int) -> bool:
        return pid in self.reporting


class Post:
    """A fleet thread that is turned by hand."""

    def __init__(self, ledger: Ledger, jobs: Jobs) -> None:
        self.jobs = jobs
        self.processes = Numbers()
        self.interrupting = False
        self.wishes: list[Wishes] = []
        self.now = 1000.0
        self.fleet = Fleet(
            ledger,
            self.processes,
            offer(),
            [SPEC],
            drain=timedelta(seconds=20),
            is_interrupting=lambda: self.interrupting,
            steer=self.wishes.append,
        )

    def turn(self, *, after: float = 0.0) -> None:
        self.now += after
        self.fleet.listen(0)
        self.fleet.turn(self.now)

    def running(self, pid: int, count: int = 1) -> list[Wanted]:
        attempts = [self.jobs.queue() for _ in range(count)]
        self.jobs.run(
            lambda session: work.start(session, attempts, worker=NAME, pid=pid, lease=LEASE)
        )
        return attempts

    def die(self, pid: int) -> None:
        self.processes.alive.discard(pid)


def offer() -> WorkerOffer:
    return WorkerOffer(NAME, "first", "here", 1, 2, 8, 2, 4.0, 2048, ["high"])


@pytest.fixture
def post(ledger: Ledger, jobs: Jobs) -> Post:
    return Post(ledger, jobs)


@pytest.fixture
def worker(committed_engine: Engine) -> Callable[[], Worker]:
    def look() -> Worker:
        with Session(committed_engine, expire_on_commit=False) as session:
            return session.get_one(Worker, NAME)

    return look


def test_the_first_turn_registers_the_worker_and_its_types_and_wakes_the_scheduler(
    post: Post, worker: Callable[[], Worker], committed_engine: Engine, redis_client: Redis
) -> None:
    post.turn()

    assert (worker().state, worker().processes, worker().cpu_units) == ("online", 2, 4)
    with Session(committed_engine) as session:
        assert session.scalars(select(JobType.name)).all() == ["simulate"]
    assert redis_client.llen(WAKE_KEY) == 1


def test_a_heartbeat_tells_how_many_processes_there_are(
    post: Post, worker: Callable[[], Worker]
) -> None:
    post.turn()
    before = worker().heartbeat_at
    post.turn(after=1)
    assert worker().heartbeat_at == before

    post.turn(after=5)
    assert worker().heartbeat_at > before
    post.processes.alive.add(70_003)
    post.turn(after=0.5)

    assert worker().processes == 3


def test_a_worker_that_was_forgotten_arrives_again(
    post: Post, worker: Callable[[], Worker], committed_engine: Engine
) -> None:
    post.turn()
    with committed_engine.begin() as connection:
        connection.execute(text("DELETE FROM workers"))

    post.turn(after=5)
    post.turn(after=5)

    assert worker().state == "online"


def test_a_draining_worker_says_so_at_once_and_leaves_in_the_end(
    post: Post, worker: Callable[[], Worker]
) -> None:
    post.turn()

    post.fleet.drain()
    post.turn(after=0.1)
    assert worker().state == "draining"

    post.fleet.say_farewell()
    assert worker().state == "stopped"


def test_a_drain_that_takes_too_long_is_ended_once(
    post: Post, kills: list[tuple[int, int]]
) -> None:
    post.fleet.drain()
    post.fleet.listen(0)
    since = time.monotonic()

    post.fleet._stop_in_time(since + 19)
    assert kills == []
    post.fleet._stop_in_time(since + 21)
    post.fleet._stop_in_time(since + 22)

    assert kills == [(os.getpid(), signal.SIGQUIT)]


def test_a_worker_is_told_within_two_seconds_what_operators_want(post: Post) -> None:
    post.turn()
    assert post.wishes == [Wishes(draining=False, processes=8)]

    post.jobs.run(lambda session: fleet.drain(session, NAME))
    post.jobs.run(lambda session: fleet.resize(session, NAME, by=-3))
    post.turn(after=2)

    assert post.wishes[-1] == Wishes(draining=True, processes=5)


def test_a_drain_by_an_operator_has_no_end_of_its_own(
    post: Post, kills: list[tuple[int, int]]
) -> None:
    post.turn()
    post.jobs.run(lambda session: fleet.drain(session, NAME))
    post.turn(after=2)

    post.fleet._stop_in_time(time.monotonic() + 3600)

    assert kills == []


def test_leases_of_what_living_processes_hold_are_renewed(
    post: Post, committed_engine: Engine
) -> None:
    mine, others = post.running(ALIVE)[0], post.running(99_999)[0]
    with committed_engine.begin() as connection:
        connection.execute(text("UPDATE active SET lease_until = now() - interval '1 hour'"))

    post.turn()

    renewed, left = post.jobs.active(mine), post.jobs.active(others)
    assert renewed is not None
    assert left is not None
    assert renewed.lease_until is not None
    assert left.lease_until is not None
    assert (renewed.lease_until - left.lease_until).total_seconds() > 3600


def test_what_a_worker_of_the_same_name_and_process_had_is_neither_renewed_nor_killed_for(
    post: Post, kills: list[tuple[int, int]], committed_engine: Engine
) -> None:
    before, own = post.running(ALIVE)[0], post.running(ALIVE)[0]
    _ran_for(committed_engine, before, 3600)
    with committed_engine.begin() as connection:
        connection.execute(text("UPDATE active SET lease_until = now()"))
    lease_was = _lease(post, before)

    post.turn()
    post.turn(after=5)

    assert _lease(post, before) == lease_was < _lease(post, own)
    assert kills == []
    post.die(ALIVE)
    post.turn(after=1)
    assert post.jobs.status(before) is JobStatus.RUNNING
    assert post.jobs.look(own).error_type == "WorkerLost"


def test_a_worker_that_arrives_again_keeps_what_it_holds(
    post: Post, committed_engine: Engine
) -> None:
    own = post.running(ALIVE)[0]
    post.turn()
    _ran_for(committed_engine, own, 3600)
    with committed_engine.begin() as connection:
        connection.execute(text("UPDATE active SET lease_until = now(), timeout_seconds = 7200"))
        connection.execute(text("DELETE FROM workers"))
    lease_was = _lease(post, own)

    post.turn(after=5)
    post.turn(after=5)

    assert _lease(post, own) > lease_was


def _lease(post: Post, attempt: Wanted) -> datetime:
    held = post.jobs.active(attempt)
    assert held is not None
    assert held.lease_until is not None
    return held.lease_until


def test_what_a_dead_process_ran_is_lost_and_counts_as_a_crash(post: Post) -> None:
    lost, kept = post.running(ALIVE)[0], post.running(OTHER)[0]
    post.turn()

    post.die(ALIVE)
    post.turn(after=0.5)

    job = post.jobs.look(lost)
    assert (job.status, job.error_type, job.crashes) == (JobStatus.RETRYING, "WorkerLost", 1)
    assert post.jobs.status(kept) is JobStatus.RUNNING


def test_a_death_is_dealt_with_once(post: Post) -> None:
    attempt = post.running(ALIVE)[0]
    post.die(ALIVE)

    post.turn()
    post.fleet.look_now()
    post.turn()

    assert post.jobs.look(attempt).crashes == 1


def test_an_attempt_that_was_reported_before_its_process_died_stays_as_it_is(post: Post) -> None:
    attempt = post.running(ALIVE)[0]
    post.jobs.run(lambda session: work.succeed(session, [work.Success(*attempt, "done")]))

    post.die(ALIVE)
    post.turn()

    assert post.jobs.status(attempt) is JobStatus.COMPLETED


def test_of_several_claimed_attempts_only_one_is_lost_and_the_rest_given_back(post: Post) -> None:
    attempts = post.running(ALIVE, count=3)

    post.die(ALIVE)
    post.turn()

    statuses = [post.jobs.status(attempt) for attempt in attempts]
    assert sorted(statuses) == [JobStatus.READY, JobStatus.READY, JobStatus.RETRYING]


def test_no_innocent_is_lost_when_postgres_goes_away_while_a_death_is_dealt_with(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = post.running(ALIVE, count=3)
    post.turn()
    post.die(ALIVE)

    with monkeypatch.context() as patch:
        patch.setattr("tasks.fleet.work.give_back", _away)
        post.fleet._try(post.fleet.turn, post.now + 0.5)
    post.turn(after=1)

    statuses = [post.jobs.status(attempt) for attempt in attempts]
    assert sorted(statuses) == [JobStatus.READY, JobStatus.READY, JobStatus.RETRYING]


def test_a_process_killed_for_its_time_limit_says_so_although_told_twice(post: Post) -> None:
    attempts = post.running(ALIVE, count=2)

    post.fleet.time_limit_passed(attempts[1:])
    post.turn()
    post.fleet.time_limit_passed(attempts[1:])
    post.die(ALIVE)
    post.turn()

    job = post.jobs.look(attempts[1])
    assert (job.error_type, job.crashes) == ("TimeLimitExceeded", 0)
    assert post.jobs.status(attempts[0]) is JobStatus.READY


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Which processes were sent what; none is."""
    kills: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: kills.append((pid, number)))
    return kills


def _ran_for(engine: Engine, attempt: Wanted, seconds: float) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE active SET claimed_at = now() - make_interval(secs => :s) WHERE job_id = :j"
            ),
            {"s": seconds, "j": attempt[0]},
        )


def test_a_process_whose_job_goes_on_after_its_time_is_killed_after_the_grace(
    post: Post, kills: list[tuple[int, int]], committed_engine: Engine
) -> None:
    attempt = post.running(ALIVE)[0]
    post.running(OTHER)

    post.turn()

    _ran_for(committed_engine, attempt, 60 + HARD_LIMIT_GRACE_SECONDS - 1)
    post.turn(after=3)
    assert kills == []
    _ran_for(committed_engine, attempt, 60 + HARD_LIMIT_GRACE_SECONDS)
    post.turn(after=3)
    assert kills == [(ALIVE, signal.SIGKILL)]

    post.die(ALIVE)
    post.turn()
    assert post.jobs.look(attempt).error_type == "TimeLimitExceeded"


def test_a_process_that_has_only_to_report_is_left_alone(
    post: Post, kills: list[tuple[int, int]], committed_engine: Engine
) -> None:
    attempt = post.running(ALIVE)[0]
    post.processes.reporting.add(ALIVE)
    post.turn()
    _ran_for(committed_engine, attempt, 1000)

    post.turn(after=3)

    assert kills == []


def test_a_process_that_cannot_report_although_postgres_is_there_is_killed_after_a_while(
    post: Post, kills: list[tuple[int, int]]
) -> None:
    stuck = post.running(ALIVE)[0]
    post.processes.reporting = {ALIVE, OTHER}
    patience = REPORT_PATIENCE.total_seconds()
    post.turn()

    post.running(OTHER)  # another one each time: it gets on
    post.turn(after=patience - 2)
    assert kills == []
    post.turn(after=2)
    assert kills == [(ALIVE, signal.SIGKILL)]

    post.die(ALIVE)
    post.turn()
    assert post.jobs.look(stuck).error_type == "WorkerLost"


def test_the_time_in_which_postgres_is_away_does_not_count(
    post: Post, kills: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    post.running(ALIVE)
    post.processes.reporting = {ALIVE}
    post.turn()

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "once", _away)
        post.fleet._try(post.fleet.turn, post.now + 3)
    post.turn(after=60)

    assert kills == []


def _away(*_: object, **__: object) -> None:
    raise OperationalError("", {}, Exception("the server is away"))


def test_a_process_that_does_not_stop_for_a_cancel_is_killed_after_the_grace(
    post: Post, kills: list[tuple[int, int]]
) -> None:
    attempt = post.running(ALIVE)[0]
    post.running(OTHER)
    post.jobs.run(lambda session: cancel(session, attempt[0]))

    post.turn()
    post.turn(after=CANCEL_GRACE.total_seconds() - 1)
    assert kills == []
    post.turn(after=3)
    assert kills == [(ALIVE, signal.SIGKILL)]

    post.die(ALIVE)
    post.turn()
    assert post.jobs.status(attempt) is JobStatus.CANCELLED


def test_a_cold_stop_gives_back_what_it_cut_short(post: Post) -> None:
    attempt = post.running(ALIVE)[0]
    post.turn()

    post.interrupting = True
    post.die(ALIVE)
    post.turn()

    job = post.jobs.look(attempt)
    assert (job.status, job.attempts_forgiven, job.crashes) == (JobStatus.READY, 1, 0)


def test_messages_nobody_began_are_given_back_once_that_is_sure(post: Post) -> None:
    waiting, begun = post.jobs.queue(), post.running(ALIVE)[0]
    sure = False
    post.fleet.give_back(lambda: [waiting, begun] if sure else None)

    post.turn()
    assert post.jobs.status(waiting) is JobStatus.QUEUED
    sure = True
    post.turn()

    assert post.jobs.status(waiting) is JobStatus.READY
    assert post.jobs.status(begun) is JobStatus.RUNNING


def test_the_thread_outlives_postgres_being_away_and_says_farewell(
    post: Post, worker: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter(range(2))
    once = Ledger.once

    def sometimes_away(ledger: Ledger, act: Any, *, durable: bool) -> Any:
        if next(refusals, None) is not None:
            raise OperationalError("", {}, Exception("the server is away"))
        return once(ledger, act, durable=durable)

    monkeypatch.setattr(Ledger, "once", sometimes_away)
    monkeypatch.setattr("tasks.fleet._LOOK_SECONDS", 0.01)

    post.fleet.start()
    deadline = time.monotonic() + 10
    while not post.fleet._arrived and time.monotonic() < deadline:
        post.fleet.look_now()
    assert worker().state == "online"
    post.fleet.close()

    assert worker().state == "stopped"
