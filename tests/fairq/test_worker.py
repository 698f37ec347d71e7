"""Pull workers of both kinds. A handler is written once, and made a coroutine for asyncio."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from fairq import AsyncClient, Client, Context, DoNotRetry, Refused
from fairq.worker import Terms
from tests.fairq.conftest import TOKEN
from tests.fairq.double import Asked, Double, Reply, Silence, leased, refusal
from tests.services import eventually

Handler = Callable[[Context, dict[str, Any]], Any]
NEXT, BEAT, DONE = "/jobs/next", "/jobs/a/heartbeat", "/jobs/a/complete"
AWAY = Reply(503, {"code": "unavailable", "detail": "away"}, {"Retry-After": "0"})
LOST = refusal("lease_lost", 409)
QUICK: Terms = {"name": "w1", "lease_seconds": 0.15, "wait_seconds": 0.1}


class Place:
    """Where a handler works: on its own, or on an event loop."""

    def __init__(self, double: Double) -> None:
        self.double = double
        double.on("POST", NEXT, Reply(200, leased("a", payload={"n": 7})), Reply(204))
        double.on("POST", BEAT, Reply(200, {"cancel": False}))
        double.on("POST", DONE, Reply(200, leased("a")))

    def turn(self, handler: Handler, **terms: Any) -> Any:
        """Let *handler* do one job."""
        raise NotImplementedError

    def run(self, handler: Handler) -> None:
        """Let *handler* do jobs until it is told to stop."""
        raise NotImplementedError

    def asked(self, path: str) -> list[Any]:
        return self.double.bodies("POST", path)

    def report(self) -> Any:
        (body,) = self.asked(DONE)
        return body


class Plain(Place):
    def turn(self, handler: Handler, **terms: Any) -> Any:
        with Client(self.double.url, TOKEN, patience_seconds=2) as client:
            return client.worker(["simulate"], **QUICK | terms)(handler).turn()

    def run(self, handler: Handler) -> None:
        with Client(self.double.url, TOKEN, patience_seconds=2) as client:
            client.worker(["simulate"], **QUICK)(handler).run()


class OnLoop(Place):
    def turn(self, handler: Handler, **terms: Any) -> Any:
        async def act() -> Any:
            async with AsyncClient(self.double.url, TOKEN, patience_seconds=2) as client:
                worker = client.worker(["simulate"], **QUICK | terms)(_coroutine(handler))
                return await worker.turn()

        return asyncio.run(act())

    def run(self, handler: Handler) -> None:
        async def act() -> None:
            async with AsyncClient(self.double.url, TOKEN, patience_seconds=2) as client:
                await client.worker(["simulate"], **QUICK)(_coroutine(handler)).run()

        asyncio.run(act())


def _coroutine(handler: Handler) -> Any:
    """Make a handler that blocks one that lets the loop go on meanwhile."""

    async def handle(context: Context, payload: dict[str, Any]) -> Any:
        waiting = asyncio.ensure_future(asyncio.to_thread(handler, context, payload))
        try:
            return await asyncio.shield(waiting)
        finally:
            await asyncio.wait([waiting])  # the thread hears of a cancel through its context

    return handle


@pytest.fixture(params=[Plain, OnLoop])
def place(request: pytest.FixtureRequest, double: Double) -> Place:
    made: Place = request.param(double)
    return made


# What is asked and reported


def test_a_job_is_pulled_run_and_reported(place: Place) -> None:
    seen: list[Any] = []

    def handler(context: Context, payload: dict[str, Any]) -> Any:
        seen.append((context.job_id, context.owner, context.attempt, payload))
        return {"doubled": payload["n"] * 2}

    assert place.turn(handler).job_id == "a"
    assert seen == [("a", "ann", 1, {"n": 7})]
    assert place.asked(NEXT) == [
        {"worker": "w1", "types": ["simulate"], "lease_seconds": 0.15, "wait_seconds": 0.1}
    ]
    assert place.report() == {
        "lease": "lease-1",
        "status": "completed",
        "result": {"doubled": 14},
    }


def test_without_a_job_nothing_is_run(place: Place) -> None:
    place.double.on("POST", NEXT, Reply(204))

    assert place.turn(lambda *_: pytest.fail("nothing to run")) is None
    assert not place.asked(DONE)


@pytest.mark.parametrize(
    ("error", "is_retryable"), [(ValueError("odd"), True), (DoNotRetry("odd"), False)]
)
def test_what_a_handler_raises_is_reported(
    place: Place, error: Exception, *, is_retryable: bool
) -> None:
    def handler(_context: Context, _payload: Any) -> None:
        raise error

    place.turn(handler)

    assert place.report() == {
        "lease": "lease-1",
        "status": "failed",
        "error": {"type": type(error).__name__, "message": "odd"},
        "retryable": is_retryable,
    }
    logged = [line for beat in place.asked(BEAT) for line in beat.get("logs", [])]
    assert any("Traceback" in line["message"] for line in logged)


def test_a_result_that_is_not_json_is_a_failure(place: Place) -> None:
    place.turn(lambda *_: float("nan"))

    assert place.report()["error"]["type"] == "ResultInvalid"
    assert place.report()["retryable"] is False


def test_a_result_that_the_server_does_not_take_is_a_failure(place: Place) -> None:
    place.double.on("POST", DONE, refusal("too_large", 413), Reply(200, leased("a")))

    place.turn(lambda *_: "large")

    refused, reported = place.asked(DONE)
    assert refused["result"] == "large"
    assert reported["error"]["type"] == "OutcomeRefused"
    assert "too_large" in reported["error"]["message"]


def test_an_outcome_is_told_again_while_the_server_is_away(place: Place) -> None:
    place.double.on("POST", DONE, Silence(), AWAY, Reply(200, leased("a")))

    place.turn(lambda *_: 42)

    assert [body["result"] for body in place.asked(DONE)] == [42, 42, 42]


# Heartbeats


def test_a_lease_is_kept_while_the_handler_works(place: Place) -> None:
    def handler(_context: Context, _payload: Any) -> None:
        eventually(lambda: len(place.asked(BEAT)) >= 3)

    place.turn(handler)

    assert {body["lease"] for body in place.asked(BEAT)} == {"lease-1"}


def test_progress_and_lines_are_told_with_heartbeats(place: Place) -> None:
    def handler(context: Context, _payload: Any) -> None:
        context.progress(0.5, "half way")
        context.info("one")
        eventually(lambda: place.asked(BEAT))
        context.warning("two")

    place.turn(handler)

    told = place.asked(BEAT)
    assert told[0]["progress"] == {"fraction": 0.5, "message": "half way"}
    lines = [(line["level"], line["message"]) for body in told for line in body.get("logs", [])]
    assert lines == [("info", "one"), ("warning", "two")]


def test_what_a_lost_heartbeat_told_comes_with_the_next(place: Place) -> None:
    place.double.on("POST", BEAT, Silence(), Reply(200, {}))

    def handler(context: Context, _payload: Any) -> None:
        context.info("kept")
        eventually(lambda: len(place.asked(BEAT)) >= 2)

    place.turn(handler)

    assert [body["logs"][0]["message"] for body in place.asked(BEAT)[:2]] == ["kept", "kept"]
    assert place.report()["status"] == "completed"


def test_a_cancel_reaches_the_handler(place: Place) -> None:
    place.double.on("POST", BEAT, Reply(200, {}), Reply(200, {"cancel": True}))

    def handler(context: Context, _payload: Any) -> None:
        context.wait(60)
        pytest.fail("it was to stop")

    place.turn(handler)

    assert place.report()["error"]["type"] == "Cancelled"
    assert place.report()["retryable"] is False


def test_nothing_is_reported_under_a_lost_lease(place: Place) -> None:
    place.double.on("POST", BEAT, LOST)

    def handler(context: Context, _payload: Any) -> None:
        context.info("somebody else's by now")
        context.wait(60)

    place.turn(handler)

    assert place.asked(BEAT)
    assert not place.asked(DONE)


def test_a_lease_that_is_lost_at_the_end_ends_nothing_else(place: Place) -> None:
    place.double.on("POST", DONE, LOST)

    assert place.turn(lambda *_: 42).job_id == "a"
    assert len(place.asked(DONE)) == 1


# The loop


def test_a_worker_outlives_a_server_that_goes_away(place: Place) -> None:
    work = Reply(200, leased("a"))
    place.double.on("POST", NEXT, Silence(), AWAY, refusal("rate_limited", 429), work)

    assert place.turn(lambda *_: 42).job_id == "a"
    assert len(place.asked(NEXT)) == 4


def test_a_worker_that_may_not_work_ends(place: Place) -> None:
    place.double.on("POST", NEXT, refusal("insufficient_scope", 403))

    with pytest.raises(Refused, match="insufficient_scope"):
        place.run(lambda *_: None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_end_and_be_reported(place: Place, number: signal.Signals) -> None:
    more = Reply(200, leased("a"))
    place.double.on("POST", NEXT, more)
    begun: list[str] = []

    def handler(context: Context, _payload: Any) -> str:
        begun.append(context.job_id)
        os.kill(os.getpid(), number)
        return "finished"

    before = signal.getsignal(number)
    place.run(handler)

    assert begun == ["a"]
    assert place.report()["result"] == "finished"
    assert signal.getsignal(number) == before


def test_a_signal_ends_a_worker_that_waits_for_the_server(place: Place) -> None:
    def away(_asked: Asked) -> Reply:
        if len(place.asked(NEXT)) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return Reply(503, {"code": "unavailable"}, {"Retry-After": "0"})

    place.double.on("POST", NEXT, away)

    place.run(lambda *_: None)

    assert not place.asked(DONE)


def test_a_worker_in_a_thread_is_stopped_by_hand(double: Double) -> None:
    double.on("POST", NEXT, Reply(204))
    with Client(double.url, TOKEN) as client:
        worker = client.worker(**QUICK)(lambda *_: None)
        thread = threading.Thread(target=worker.run)
        thread.start()
        eventually(lambda: double.requests)
        worker.stop()
        thread.join(10)

    assert not thread.is_alive()
    assert double.requests[0].body == {"worker": "w1", "lease_seconds": 0.15, "wait_seconds": 0.1}


# What a context refuses


def test_only_known_levels_can_be_written(place: Place) -> None:
    place.turn(lambda context, _: context.log("loud", "hello"))

    assert "a level is one of" in place.report()["error"]["message"]


def test_a_handler_that_writes_without_end_does_not_fill_the_memory(place: Place) -> None:
    def handler(context: Context, _payload: Any) -> int:
        for number in range(5000):
            context.debug(str(number))
        return len(context.take_notes().lines)

    place.turn(handler, lease_seconds=30)

    assert place.report()["result"] == 1000
