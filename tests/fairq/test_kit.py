"""The test kit, used as applications use it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairq import AsyncClient, Client, Dependency, Refused, Submission
from fairq.recording import Submitted
from fairq.testing import MOST_SNOOZES, JobRun, RunJob
from tasks.catalogue import CATALOGUE, Payload, job_type
from tasks.context import CancelJob, Context, DoNotRetry, RetryAfter, Snooze

pytest_plugins = ["fairq.plugin"]

Drain = Callable[[], dict[str, JobRun]]


class Number(Payload):
    n: int = 0


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Job types for one test: put a function under a name."""
    monkeypatch.setattr(CATALOGUE, "_kinds", dict(CATALOGUE._kinds))

    class Kinds(dict[str, Any]):
        def __setitem__(self, name: str, handler: Any) -> None:
            job_type(name, payload=Number)(handler)

    return Kinds()


# Recording


def test_what_an_application_submits_is_recorded(fairq_submitted: Submitted) -> None:
    with Client() as client:
        client.submit("simulate", {"n": 1}, job_id="a", priority="high")
        client.submit_many([Submission("simulate", {"n": 2}), Submission("other")])

    assert len(fairq_submitted) == 3
    assert fairq_submitted[0] == Submission("simulate", {"n": 1}, job_id="a", priority="high")
    assert [one.payload for one in fairq_submitted.of_type("simulate")] == [{"n": 1}, {"n": 2}]
    assert len({one.job_id for one in fairq_submitted}) == 3


def test_an_application_on_asyncio_is_recorded_too(fairq_submitted: Submitted) -> None:
    async def act() -> str:
        async with AsyncClient() as client:
            flow = client.workflow()
            flow.job("simulate") >> flow.job("simulate", job_id="last")
            return (await flow.submit())[1].status

    assert asyncio.run(act()) == "blocked"
    assert fairq_submitted[-1].job_id == "last"
    assert len(list(fairq_submitted[-1].depends_on)) == 1


def test_what_was_submitted_can_be_read_and_cancelled(fairq_submitted: Submitted) -> None:
    with Client() as client:
        submitted = client.submit("simulate", job_id="a/b")

        assert client.job("a/b").status == submitted.status == "ready"
        assert client.cancel("a/b").reason == "cancelled_by_user"
        with pytest.raises(Refused, match="not_cancellable"):
            client.cancel("a/b")
        assert client.wait("a/b").status == "cancelled"


def test_the_same_job_twice_is_one_job(fairq_submitted: Submitted) -> None:
    with Client() as client:
        client.submit("simulate", {"n": 1}, job_id="a")

        assert client.submit("simulate", {"n": 1}, job_id="a").duplicate
        with pytest.raises(Refused, match="job_id_conflict"):
            client.submit("simulate", {"n": 2}, job_id="a")

    assert len(fairq_submitted) == 1


@pytest.mark.parametrize(
    ("jobs", "code"),
    [
        ([Submission("x", depends_on=["nobody"])], "unknown_dependency"),
        (
            [
                Submission("x", job_id="a", depends_on=["b"]),
                Submission("x", job_id="b", depends_on=["a"]),
            ],
            "dependency_cycle",
        ),
    ],
)
def test_what_the_server_would_refuse_is_refused(
    fairq_submitted: Submitted, jobs: list[Submission], code: str
) -> None:
    with Client() as client, pytest.raises(Refused, match=code):
        client.submit_many(jobs)

    assert len(fairq_submitted) == 0


@pytest.mark.parametrize("known", ["known", "first"])
def test_of_a_batch_with_a_conflict_nothing_is_recorded(
    fairq_submitted: Submitted, known: str
) -> None:
    with Client() as client:
        client.submit("simulate", job_id="known")
        jobs = [Submission("simulate", job_id=one) for one in ("first", "second")]

        with pytest.raises(Refused, match="job_id_conflict"):
            client.submit_many([*jobs, Submission("simulate", {"n": 1}, job_id=known)])
        with pytest.raises(Refused, match="not_found"):
            client.job("first")

    assert [one.job_id for one in fairq_submitted] == ["known"]


def test_nothing_is_sent_anywhere(fairq_submitted: Submitted) -> None:
    with Client() as client:
        client.submit("simulate", job_id="a")

        for ask in (
            client.stats,
            lambda: next(client.stream()),
            lambda: next(client.logs("a", follow=True)),
        ):
            with pytest.raises(LookupError, match="is not answered"):
                ask()
        with pytest.raises(LookupError, match="nothing runs before drain"):
            client.wait("a")


# Running one job


def test_a_handler_runs_with_its_payload(run_job: RunJob, kinds: dict[str, Any]) -> None:
    def handler(context: Context, payload: Number) -> dict[str, Any]:
        context.progress(0.5, "half")
        context.progress(1)
        context.info("nearly")
        context.warning("done")
        return {"doubled": payload.n * 2, "job": context.job_id, "attempt": context.attempt}

    kinds["double"] = handler

    run = run_job("double", {"n": 21}, attempt=2, job_id="a")

    assert run.status == "completed"
    assert run.result == {"doubled": 42, "job": "a", "attempt": 2}
    assert run.progress == ((0.5, "half"), (1, None))
    assert run.logs == (("info", "nearly"), ("warning", "done"))
    assert run.exception is None


def test_ready_types_run_without_anybody_to_wait_for(run_job: RunJob) -> None:
    run = run_job("simulate", {"duration_seconds": 3600, "steps": 4, "result": 42})

    assert run.result == 42
    assert [fraction for fraction, _ in run.progress] == [0.25, 0.5, 0.75, 1]


def test_files_of_a_handler_go_to_the_test(run_job: RunJob, tmp_path: Path) -> None:
    written = run_job("generate_report").result["file"]

    assert tmp_path in Path(written).parents


@pytest.mark.parametrize("payload", [{"n": "many"}, {"m": 1}])
def test_a_payload_is_checked(
    run_job: RunJob, kinds: dict[str, Any], payload: dict[str, Any]
) -> None:
    kinds["never"] = lambda *_: pytest.fail("its payload is wrong")

    run = run_job("never", payload)

    assert run.status == "failed"
    assert run.error is not None
    assert run.error.type == "PayloadInvalid"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("odd"), {"status": "retrying", "delay_seconds": None, "is_snoozed": False}),
        (DoNotRetry("odd"), {"status": "failed"}),
        (RetryAfter(60, "odd"), {"status": "retrying", "delay_seconds": 60, "is_snoozed": False}),
        (Snooze(30), {"status": "retrying", "delay_seconds": 30, "is_snoozed": True}),
        (CancelJob("nothing to do"), {"status": "cancelled", "reason": "nothing to do"}),
    ],
)
def test_what_a_handler_raises_becomes_of_the_job(
    run_job: RunJob, kinds: dict[str, Any], error: Exception, expected: dict[str, Any]
) -> None:
    def handler(*_: Any) -> None:
        raise error

    kinds["raises"] = handler

    run = run_job("raises")

    assert {name: getattr(run, name) for name in expected} == expected
    assert run.exception is error


def test_the_last_attempt_is_the_last(run_job: RunJob, kinds: dict[str, Any]) -> None:
    def handler(context: Context, _payload: Number) -> None:
        raise RetryAfter(5, f"last: {context.is_last_attempt}")

    kinds["raises"] = handler

    run = run_job("raises", attempt=2, retry_config={"max_attempts": 2})

    assert (run.status, run.delay_seconds) == ("failed", None)
    assert run.error is not None
    assert run.error.message == "last: True"
    assert run_job("raises", attempt=2).status == "retrying"


def test_a_job_that_is_to_stop_stops(run_job: RunJob) -> None:
    run = run_job("simulate", {"duration_seconds": 1}, is_cancelled=True)

    assert (run.status, run.progress) == ("cancelled", ())


def test_a_result_must_be_json(run_job: RunJob, kinds: dict[str, Any]) -> None:
    kinds["odd"] = lambda *_: object()

    assert "is not JSON" in str(run_job("odd").error)


def test_a_type_that_nobody_made_is_named(run_job: RunJob) -> None:
    with pytest.raises(LookupError, match=r"no job type named nothing, only .*simulate"):
        run_job("nothing")


# Running everything


def test_everything_runs_in_the_order_of_dependencies(
    fairq_submitted: Submitted, drain: Drain, kinds: dict[str, Any]
) -> None:
    order: list[str] = []
    kinds["note"] = lambda context, _: order.append(context.job_id)
    with Client() as client:
        flow = client.workflow()
        d, b, c, a = (flow.job("note", job_id=name) for name in "dbca")
        a >> [b, c] >> d
        flow.submit()

        runs = drain()

        assert [run.status for run in runs.values()] == ["completed"] * 4
        assert order[0] == "a"
        assert order[-1] == "d"
        assert sorted(order) == ["a", "b", "c", "d"]
        assert client.wait("d").is_completed
        assert drain() == {}


def test_results_are_told_to_the_application(fairq_submitted: Submitted, drain: Drain) -> None:
    with Client() as client:
        good = client.submit("simulate", {"result": 42})
        bad = client.submit("simulate", {"fail_attempts": 1, "retryable": False})
        drain()

        assert client.wait(good).result == 42
        failed = client.wait(bad)
        assert (failed.status, failed.error and failed.error.type) == ("failed", "DoNotRetry")


def test_a_job_is_tried_as_often_as_it_may(fairq_submitted: Submitted, drain: Drain) -> None:
    with Client() as client:
        client.submit("simulate", {"fail_attempts": 2}, job_id="third")
        client.submit(
            "simulate", {"fail_attempts": 2}, job_id="never", retry_config={"max_attempts": 2}
        )

    runs = drain()

    assert (runs["third"].status, runs["third"].attempt) == ("completed", 3)
    assert (runs["never"].status, runs["never"].attempt) == ("failed", 2)


def test_what_cannot_run_any_more_is_cancelled(fairq_submitted: Submitted, drain: Drain) -> None:
    def after(when: str) -> list[Dependency]:
        return [Dependency(job_id="bad", when=when)]

    with Client() as client:
        client.submit("simulate", {"fail_attempts": 9}, job_id="bad")
        client.submit("simulate", job_id="completed", depends_on=["bad"])
        client.submit("simulate", job_id="behind", depends_on=["completed"])
        client.submit("simulate", job_id="failed", depends_on=after("failed"))
        client.submit("simulate", job_id="finished", depends_on=after("finished"))

    runs = drain()

    assert {name: run.status for name, run in runs.items()} == {
        "bad": "failed",
        "completed": "cancelled",
        "behind": "cancelled",
        "failed": "completed",
        "finished": "completed",
    }
    assert runs["behind"].reason == "dependency_failed"


def test_jobs_may_submit_jobs(
    fairq_submitted: Submitted, drain: Drain, kinds: dict[str, Any]
) -> None:
    def handler(_context: Context, payload: Number) -> int:
        if payload.n:
            with Client() as client:
                client.submit("countdown", {"n": payload.n - 1})
        return payload.n

    kinds["countdown"] = handler
    with Client() as client:
        client.submit("countdown", {"n": 3})

    assert [run.result for run in drain().values()] == [3, 2, 1, 0]


def test_a_job_that_is_put_off_runs_again(
    fairq_submitted: Submitted, drain: Drain, kinds: dict[str, Any]
) -> None:
    attempts: list[int] = []

    def handler(context: Context, payload: Number) -> None:
        attempts.append(context.attempt)
        if len(attempts) <= payload.n:
            raise Snooze(60)

    kinds["later"] = handler
    with Client() as client:
        client.submit("later", {"n": 2}, job_id="a")
        assert drain()["a"].status == "completed"
        assert attempts == [1, 1, 1]

        client.submit("later", {"n": 10 * MOST_SNOOZES}, job_id="b")
        with pytest.raises(RuntimeError, match="b is put off for ever"):
            drain()
