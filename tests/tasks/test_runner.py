"""Handlers run in this very thread, as they do in a worker's process; outcomes go to Postgres."""

import itertools
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from redis import Redis, retry
from redis.backoff import NoBackoff
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from local.home import free_port
from scheduler.events import LIVE_CHANNEL, WAKE_KEY, Announcer
from scheduler.models import JobEvent, JobLog
from scheduler.settings import Settings
from scheduler.states import JobStatus
from scheduler.store.cancellation import cancel
from tasks import watcher
from tasks.catalogue import Catalogue, Payload, Timed, job_type
from tasks.context import CancelJob, Cancelled, Context, DoNotRetry, RetryAfter, Snooze
from tasks.ledger import Ledger
from tasks.runner import Runner
from tests.services import eventually
from tests.tasks.conftest import Jobs, Wanted

pytestmark = pytest.mark.timeout(120, method="thread")

WORKER = "here@test"
Act = Callable[[Context], Any]


class Counted(Timed):
    count: int = 1


class Bench:
    """A runner whose one kind of job does what the test says."""

    def __init__(self, ledger: Ledger, jobs: Jobs, settings: Settings) -> None:
        self.catalogue = Catalogue()
        self.tasks: dict[str, Any] = {}
        self.jobs = jobs
        self.runner = Runner(ledger, self.catalogue, self.tasks, settings)
        self._names = itertools.count()

    def kind(self, act: Act) -> str:
        name = f"kind{next(self._names)}"

        @job_type(name, payload=Payload, catalogue=self.catalogue)
        def handler(context: Context, _payload: Payload) -> Any:
            return act(context)

        return name

    def run(self, act: Act, **columns: Any) -> Wanted:
        attempt = self.jobs.queue(self.kind(act), **columns)
        self.runner.run([attempt], worker=WORKER)
        return attempt


@pytest.fixture
def bench(ledger: Ledger, jobs: Jobs, settings: Settings) -> Iterator[Bench]:
    bench = Bench(ledger, jobs, settings)
    yield bench
    bench.runner.close()


def raiser(error: BaseException) -> Act:
    def act(_context: Context) -> Any:
        raise error

    return act


def spin(_context: Context) -> None:
    while True:
        pass


def test_a_job_is_claimed_run_and_completed(bench: Bench, committed_engine: Engine) -> None:
    attempt = bench.run(lambda context: {"by": context.owner})

    job = bench.jobs.look(attempt)
    assert (job.status, job.worker) == (JobStatus.COMPLETED, WORKER)
    assert job.result["by"].startswith("user")
    assert bench.jobs.active(attempt) is None
    with Session(committed_engine) as session:
        verbs = session.scalars(select(JobEvent.verb).order_by(JobEvent.seq)).all()
    assert verbs == ["start", "succeed"]


def test_the_handler_gets_its_payload_as_a_model(bench: Bench) -> None:
    @job_type("counted", payload=Counted, catalogue=bench.catalogue)
    def counted(_context: Context, payload: Counted) -> int:
        return payload.count

    attempt = bench.jobs.queue("counted", payload={"count": 3})
    bench.runner.run([attempt], worker=WORKER)

    assert bench.jobs.look(attempt).result == 3


def test_use_of_memory_and_cpu_is_recorded(bench: Bench) -> None:
    def work(_context: Context) -> None:
        block = bytearray(200 * 2**20)
        block[::4096] = b"x" * len(block[::4096])
        sum(range(3_000_000))

    heavy, light = bench.run(work, memory_mb=300), bench.run(lambda _: None)

    assert 190 < bench.jobs.attempt(heavy).peak_memory_mb < 210
    assert bench.jobs.attempt(heavy).cpu_seconds > 0.02
    assert bench.jobs.attempt(light).peak_memory_mb < 20


ENDINGS = [
    (raiser(ValueError("no\x00")), JobStatus.RETRYING, "ValueError", "no\N{REPLACEMENT CHARACTER}"),
    (raiser(MemoryError()), JobStatus.RETRYING, "MemoryExceeded", "more than its 128 MB"),
    (raiser(CancelJob("nothing to do")), JobStatus.CANCELLED, None, ""),
    (raiser(Snooze(60)), JobStatus.RETRYING, None, ""),
    (raiser(SystemExit(3)), JobStatus.RETRYING, "SystemExit", "3"),
    (raiser(KeyboardInterrupt()), JobStatus.RETRYING, "KeyboardInterrupt", "KeyboardInterrupt"),
    (raiser(Cancelled()), JobStatus.RETRYING, "Cancelled", "Cancelled"),
    (raiser(DoNotRetry("never")), JobStatus.FAILED, "DoNotRetry", "never"),
    (raiser(RetryAfter(60, "later")), JobStatus.RETRYING, "RetryAfter", "later"),
    (lambda _: float("nan"), JobStatus.FAILED, "ResultInvalid", "not JSON"),
    (lambda _: object(), JobStatus.FAILED, "ResultInvalid", "not JSON"),
    (lambda _: "x" * 1_000_000, JobStatus.FAILED, "ResultInvalid", "more than"),
    (lambda _: "a\x00", JobStatus.FAILED, "ResultInvalid", "NUL"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("act", "status", "error", "said"), ENDINGS, ids=[f"{e[2]}-{e[3]}" for e in ENDINGS]
)
def test_whatever_a_handler_does_ends_its_attempt_only(
    bench: Bench, act: Act, status: JobStatus, error: str | None, said: str
) -> None:
    attempt = bench.run(act)

    job = bench.jobs.look(attempt)
    assert (job.status, job.error_type) == (status, error)
    assert said in (job.error_message or "")
    assert bench.jobs.status(bench.run(lambda _: 1)) is JobStatus.COMPLETED


def test_a_job_that_cancels_itself_says_why(bench: Bench) -> None:
    attempt = bench.run(raiser(CancelJob("nothing to do")))

    assert bench.jobs.look(attempt).reason == "cancelled_by_itself"
    assert bench.jobs.attempt(attempt).error_message == "nothing to do"


def test_a_job_that_is_put_off_is_due_when_it_said(bench: Bench) -> None:
    attempt = bench.run(raiser(Snooze(3600)))

    job, tried = bench.jobs.look(attempt), bench.jobs.attempt(attempt)
    assert job.due_at is not None
    assert tried.finished_at is not None
    assert (job.due_at - tried.finished_at).total_seconds() == pytest.approx(3600)
    assert (job.attempts_forgiven, tried.outcome) == (1, "snoozed")


YEAR = timedelta(days=365)


@pytest.mark.parametrize(
    ("seconds", "waits"),
    [(1e20, YEAR), (4e11, YEAR), (math.inf, YEAR), (math.nan, timedelta()), (-5, timedelta())],
)
@pytest.mark.parametrize("wish", [RetryAfter, Snooze, lambda wait: Retry("busy", when=wait)])
def test_nobody_is_put_off_for_more_than_a_year(
    bench: Bench, wish: Callable[[float], Exception], seconds: float, waits: timedelta
) -> None:
    def task() -> None:
        raise wish(seconds)

    bench.tasks["shop.task"] = task
    attempt = bench.jobs.queue("shop.task")
    bench.runner.run([attempt], worker=WORKER)

    job, tried = bench.jobs.look(attempt), bench.jobs.attempt(attempt)
    assert job.status == JobStatus.RETRYING
    assert job.due_at is not None
    assert tried.finished_at is not None
    assert job.due_at - tried.finished_at == waits


class Unsaid(RetryAfter):
    """A wish that does not tell how long it is."""

    def __init__(self) -> None:
        Exception.__init__(self, "later")


def test_an_error_that_cannot_be_read_is_a_plain_failure(bench: Bench) -> None:
    attempt = bench.run(raiser(Unsaid()))

    job = bench.jobs.look(attempt)
    assert (job.status, job.error_type) == (JobStatus.RETRYING, "Unsaid")
    assert "could not be read: AttributeError" in (job.error_message or "")


def test_a_time_limit_that_the_handler_raises_itself_is_its_own_error(bench: Bench) -> None:
    attempt = bench.run(raiser(SoftTimeLimitExceeded()))

    job = bench.jobs.look(attempt)
    assert (job.status, job.error_type) == (JobStatus.RETRYING, "SoftTimeLimitExceeded")


# Memory


def _fill(megabytes: int) -> bytearray:
    block = bytearray(megabytes * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    return block


def test_a_job_may_hold_what_it_asked_for(bench: Bench) -> None:
    def work(context: Context) -> int:
        held = _fill(90)
        context.wait(1.5)
        return len(held)

    attempt = bench.run(work, memory_mb=100)

    assert bench.jobs.status(attempt) is JobStatus.COMPLETED


@pytest.mark.parametrize("swallows", [False, True])
def test_a_job_that_holds_more_is_ended_with_a_clear_error(bench: Bench, *, swallows: bool) -> None:
    def work(_context: Context) -> None:
        held = [_fill(200)]
        try:
            spin(_context)
        except Exception:
            if not swallows:
                raise
        held.clear()

    attempt = bench.run(work, memory_mb=100)

    job = bench.jobs.look(attempt)
    assert (job.status, job.error_type) == (JobStatus.RETRYING, "MemoryExceeded")
    assert "more than its 100 MB" in (job.error_message or "")
    assert bench.jobs.attempt(attempt).peak_memory_mb > 150
    assert bench.jobs.status(bench.run(lambda _: 1)) is JobStatus.COMPLETED


def test_memory_of_children_counts(bench: Bench) -> None:
    hog = "b = bytearray(200 * 2**20); b[::4096] = b'x' * len(b[::4096]); input()"

    def work(_context: Context) -> None:
        with subprocess.Popen([sys.executable, "-c", hog], stdin=subprocess.PIPE) as child:
            try:
                spin(_context)
            finally:
                child.kill()

    attempt = bench.run(work, memory_mb=100)

    assert bench.jobs.look(attempt).error_type == "MemoryExceeded"


def test_a_request_for_far_more_is_refused_at_once(bench: Bench) -> None:
    attempt = bench.run(lambda _: len(bytearray(10 * 2**30)), memory_mb=100)

    job = bench.jobs.look(attempt)
    assert (job.error_type, job.error_message) == (
        "MemoryExceeded",
        "asked for far more than its 100 MB",
    )


def test_a_job_that_holds_on_to_its_memory_ends_with_its_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, exits = threading.Event(), []

    def leave(code: int) -> None:
        exits.append(code)
        over.set()

    monkeypatch.setattr(watcher, "MEMORY_GRACE", timedelta(seconds=0.5))
    monkeypatch.setattr("tasks.watcher.os._exit", leave)
    monkeypatch.setattr("tasks.watcher.logging.shutdown", lambda: None)

    def work(_context: Context) -> None:
        held = _fill(200)
        try:
            spin(_context)
        except BaseException:  # noqa: BLE001 - a handler that will not hear
            over.wait(20)
        del held

    attempt = bench.run(work, memory_mb=100)

    job = bench.jobs.look(attempt)
    assert exits[0] == 1
    assert (job.status, job.error_type) == (JobStatus.RETRYING, "MemoryExceeded")
    assert "did not stop" in (job.error_message or "")


# Time


def test_a_job_that_asks_for_time_gets_what_its_type_allows(
    bench: Bench, committed_engine: Engine
) -> None:
    left = []

    def work(context: Context) -> None:
        with committed_engine.begin() as connection:  # as admission does by the type
            connection.execute(text("UPDATE active SET max_timeout_seconds = 2"))
        left.append(context.extend(60))
        context.wait(60)

    attempt = bench.run(work, timeout_seconds=1.0)

    job = bench.jobs.look(attempt)
    assert 1.5 < left[0] <= 2
    assert job.error_type == "TimeLimitExceeded"
    tried = bench.jobs.attempt(attempt)
    assert tried.finished_at is not None
    assert (tried.finished_at - tried.started_at).total_seconds() > 1.8


def test_without_postgres_a_job_keeps_the_time_it_has(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("", {}, Exception("the server is away"))

    def work(context: Context) -> float:
        with monkeypatch.context() as patch:
            patch.setattr("tasks.runner.work.give_time", away)
            return context.extend(1000)

    attempt = bench.run(work, timeout_seconds=30.0)

    assert 0 < bench.jobs.look(attempt).result <= 30


def test_the_traceback_begins_in_the_handler(bench: Bench) -> None:
    attempt = bench.run(raiser(ValueError("bad")))

    told = bench.jobs.attempt(attempt).traceback
    assert told is not None
    assert "raise error" in told
    assert "tasks/runner.py" not in told


def test_retry_after_chooses_when_the_next_attempt_starts(bench: Bench) -> None:
    attempt = bench.run(raiser(RetryAfter(600)))

    job = bench.jobs.look(attempt)
    ended = bench.jobs.attempt(attempt).finished_at
    assert job.due_at is not None
    assert ended is not None
    assert (job.due_at - ended).total_seconds() == pytest.approx(600, abs=1)


def test_a_payload_that_does_not_fit_fails_for_good_and_says_where(bench: Bench) -> None:
    job_type("counted", payload=Counted, catalogue=bench.catalogue)(lambda _c, _p: None)

    attempt = bench.jobs.queue("counted", payload={"count": "many", "more": 1})
    bench.runner.run([attempt], worker=WORKER)

    job = bench.jobs.look(attempt)
    assert (job.status, job.error_type) == (JobStatus.FAILED, "PayloadInvalid")
    assert "count: " in (job.error_message or "")
    assert "more: " in (job.error_message or "")


def test_a_type_this_worker_does_not_know_is_left_to_another(bench: Bench) -> None:
    attempt = bench.jobs.queue("unheard_of")
    bench.runner.run([attempt], worker=WORKER)

    job = bench.jobs.look(attempt)
    assert (job.status, job.error_type) == (JobStatus.RETRYING, "UnknownToThisWorker")


def test_a_job_is_stopped_after_its_time(bench: Bench) -> None:
    began = time.monotonic()

    attempt = bench.run(spin, timeout_seconds=0.2)

    job = bench.jobs.look(attempt)
    assert (job.status, job.error_type) == (JobStatus.RETRYING, "TimeLimitExceeded")
    assert job.error_message == "stopped after 0.2 s"
    assert time.monotonic() - began < 10


def test_a_second_message_for_the_same_attempt_runs_nothing(bench: Bench) -> None:
    runs: list[int] = []
    attempt = bench.run(lambda context: runs.append(context.attempt))

    bench.runner.run([attempt], worker=WORKER)

    assert runs == [1]


def test_a_late_report_of_a_lost_attempt_changes_nothing(
    bench: Bench, committed_engine: Engine
) -> None:
    def lose_the_attempt(context: Context) -> str:
        with committed_engine.begin() as connection:
            connection.execute(text("UPDATE jobs SET attempt = attempt + 1"))
            connection.execute(text("UPDATE active SET attempt = attempt + 1"))
        return "too late"

    attempt = bench.run(lose_the_attempt)

    job = bench.jobs.look(attempt)
    assert (job.status, job.result) == (JobStatus.RUNNING, None)


def test_attempts_of_one_message_run_in_order_and_are_all_reported(bench: Bench) -> None:
    order: list[str] = []
    kind = bench.kind(lambda context: order.append(context.job_id))
    attempts = [bench.jobs.queue(kind) for _ in range(5)]
    gone = bench.jobs.queue(kind)
    bench.jobs.run(lambda session: cancel(session, gone[0]))

    bench.runner.run([*attempts[:2], gone, *attempts[2:]], worker=WORKER)

    assert order == [bench.jobs.look(attempt).job_id for attempt in attempts]
    assert {bench.jobs.status(attempt) for attempt in attempts} == {JobStatus.COMPLETED}
    assert bench.jobs.status(gone) is JobStatus.CANCELLED


def test_a_failure_between_successes_is_reported_with_them(bench: Bench) -> None:
    good, bad = bench.kind(lambda _: 1), bench.kind(raiser(DoNotRetry("no")))
    attempts = [bench.jobs.queue(kind) for kind in (good, bad, good)]

    bench.runner.run(attempts, worker=WORKER)

    assert [bench.jobs.status(attempt) for attempt in attempts] == [
        JobStatus.COMPLETED,
        JobStatus.FAILED,
        JobStatus.COMPLETED,
    ]


def test_the_rest_of_a_message_is_given_back_when_one_job_takes_long(bench: Bench) -> None:
    def take_long(_context: Context) -> None:
        eventually(lambda: bench.jobs.status(second) is JobStatus.READY)

    first = bench.jobs.queue(bench.kind(take_long))
    second = bench.jobs.queue(bench.kind(lambda _: pytest.fail("was given back")))

    bench.runner.run([first, second], worker=WORKER)

    assert bench.jobs.status(first) is JobStatus.COMPLETED
    assert bench.jobs.look(second).attempts_forgiven == 1


def test_a_success_is_reported_while_the_next_job_of_its_message_runs(bench: Bench) -> None:
    def wait_for_first(_context: Context) -> None:
        eventually(lambda: bench.jobs.status(first) is JobStatus.COMPLETED)

    first = bench.jobs.queue(bench.kind(lambda _: 1))
    second = bench.jobs.queue(bench.kind(wait_for_first))

    bench.runner.run([first, second], worker=WORKER)

    assert bench.jobs.status(second) is JobStatus.COMPLETED


def test_lines_written_last_are_kept_with_the_outcome(
    bench: Bench, committed_engine: Engine
) -> None:
    def talk(context: Context) -> None:
        context.info("hello")
        context.progress(0.4, "nearly")
        raise DoNotRetry("no")

    attempt = bench.run(talk)

    job = bench.jobs.look(attempt)
    assert (job.progress_fraction, job.progress_message) == (0.4, "nearly")
    with Session(committed_engine) as session:
        lines = session.execute(select(JobLog.job_id, JobLog.attempt, JobLog.message)).all()
    assert lines == [(*attempt, "hello")]


def test_moves_and_lines_are_told_after_the_commit_and_the_scheduler_is_woken(
    bench: Bench, redis_client: Redis
) -> None:
    with redis_client.pubsub(ignore_subscribe_messages=True) as ear:
        ear.subscribe(LIVE_CHANNEL)
        eventually(lambda: redis_client.pubsub_numsub(LIVE_CHANNEL)[0][1] == 1)

        bench.run(lambda context: context.info("hello"))

        told = [eventually(partial(ear.get_message, timeout=0.1)) for _ in range(3)]
    bodies = [json.loads(message["data"]) for message in told]
    assert [body["kind"] for body in bodies] == ["moves", "moves", "log"]
    assert [body["moves"][0]["verb"] for body in bodies[:2]] == ["start", "succeed"]
    assert bodies[2]["lines"][0]["message"] == "hello"
    assert redis_client.llen(WAKE_KEY) == 1


def test_a_plain_celery_task_gets_its_payload_as_keywords(bench: Bench) -> None:
    bench.tasks["shop.add"] = lambda a, b: a + b

    attempt = bench.jobs.queue("shop.add", payload={"a": 1, "b": 2})
    bench.runner.run([attempt], worker=WORKER)

    assert bench.jobs.look(attempt).result == 3


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (Ignore(), JobStatus.COMPLETED, None),
        (Retry("busy", when=60), JobStatus.RETRYING, "RetryAfter"),
        (Reject("no", requeue=False), JobStatus.FAILED, "DoNotRetry"),
        (Reject("later", requeue=True), JobStatus.RETRYING, "Reject"),
    ],
)
def test_celerys_own_ways_to_end_a_task_are_understood(
    bench: Bench, error: Exception, status: JobStatus, name: str | None
) -> None:
    def task() -> None:
        raise error

    bench.tasks["shop.task"] = task
    attempt = bench.jobs.queue("shop.task")
    bench.runner.run([attempt], worker=WORKER)

    assert (bench.jobs.status(attempt), bench.jobs.look(attempt).error_type) == (status, name)


def test_a_claim_whose_answer_was_lost_is_found_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, lost = Ledger.once, iter([True])

    def without_answer(ledger: Ledger, act: Any, *, durable: bool) -> Any:
        answer = once(ledger, act, durable=durable)
        if next(lost, False):
            raise OperationalError("", {}, Exception("the connection went away"))
        return answer

    monkeypatch.setattr(Ledger, "once", without_answer)
    kind = bench.kind(lambda _: 1)
    attempts = [bench.jobs.queue(kind) for _ in range(2)]

    bench.runner.run(attempts, worker=WORKER)

    assert [bench.jobs.status(attempt) for attempt in attempts] == [JobStatus.COMPLETED] * 2


def test_an_outcome_is_kept_until_postgres_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter(range(3))
    once = Ledger.once

    def sometimes_away(ledger: Ledger, act: Any, *, durable: bool) -> Any:
        if over.is_set() and next(refusals, None) is not None:
            raise OperationalError("", {}, Exception("the server is away"))
        return once(ledger, act, durable=durable)

    over = threading.Event()
    monkeypatch.setattr(Ledger, "once", sometimes_away)

    attempt = bench.run(lambda _: over.set())

    assert bench.jobs.status(attempt) is JobStatus.COMPLETED
    assert next(refusals, None) is None


def test_nothing_escapes_when_redis_is_away(
    committed_engine: Engine, jobs: Jobs, settings: Settings
) -> None:
    nowhere = Redis(port=free_port(), retry=retry.Retry(NoBackoff(), 0))
    bench = Bench(Ledger(committed_engine, Announcer(nowhere)), jobs, settings)

    attempt = bench.run(lambda context: context.info("hello"))

    bench.runner.close()
    assert jobs.status(attempt) is JobStatus.COMPLETED
    with Session(committed_engine) as session:
        assert session.scalar(select(func.count()).select_from(JobLog)) == 1
