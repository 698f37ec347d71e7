"""Pull workers of both kinds. A handler is written once, and made a coroutine for asyncio."""

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
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
        waiting = asyncio.ensure_future(asyncio.to_thread(_tried, handler, context, payload))
        try:
            result, end = await asyncio.shield(waiting)
        finally:
            await asyncio.wait([waiting])  # the thread hears of a cancel through its context
        if end is not None:
            raise end
        return result

    return handle


def _tried(handler: Handler, *given: Any) -> tuple[Any, SystemExit | None]:
    """Call a handler; what would end the loop that waits for the thread is an answer."""
    try:
        return handler(*given), None
    except SystemExit as end:
        return None, end


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

    report = place.report()
    assert "raise error" in report["error"].pop("traceback")
    assert report == {
        "lease": "lease-1",
        "status": "failed",
        "error": {"type": type(error).__name__, "message": "odd"},
        "retryable": is_retryable,
    }
    logged = [line for beat in place.asked(BEAT) for line in beat.get("logs", [])]
    assert any("Traceback" in line["message"] for line in logged)


def test_a_handler_that_exits_has_failed(place: Place) -> None:
    place.turn(lambda *_: sys.exit(3))

    assert place.report()["error"]["type"] == "SystemExit"
    assert place.report()["retryable"] is True


def test_of_a_long_error_the_server_is_told_what_it_takes(place: Place) -> None:
    def handler(_context: Context, _payload: Any) -> None:
        raise ValueError("x" * 20_000 + "\ud800")

    place.turn(handler)

    error = place.report()["error"]
    assert error["type"] == "ValueError"
    assert (len(error["message"]), len(error["traceback"])) == (8192, 16_000)


def test_an_error_that_cannot_be_written_is_reported(place: Place) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def handler(_context: Context, _payload: Any) -> None:
        raise Odd

    place.turn(handler)

    assert place.report()["error"]["type"] == "Odd"


@pytest.mark.parametrize("result", [float("nan"), {"half": "\ud800"}, {1, 2}])
def test_a_result_that_is_not_json_is_a_failure(place: Place, result: Any) -> None:
    place.turn(lambda *_: result)

    assert place.report()["error"]["type"] == "ResultInvalid"
    assert place.report()["retryable"] is False


def test_a_result_that_the_server_does_not_take_is_a_failure(place: Place) -> None:
    place.double.on("POST", DONE, refusal("too_large", 413), Reply(200, leased("a")))

    place.turn(lambda *_: "large")

    refused, reported = place.asked(DONE)
    assert refused["result"] == "large"
    assert reported["error"]["type"] == "OutcomeRefused"
    assert "too_large" in reported["error"]["message"]


@pytest.mark.parametrize(
    "second", [LOST, refusal("validation_failed", 422), refusal("internal_error", 500)]
)
def test_a_refusal_that_is_refused_ends_nothing(place: Place, second: Reply) -> None:
    place.double.on("POST", DONE, refusal("too_large", 413), second)

    assert place.turn(lambda *_: "large").job_id == "a"
    assert [body["status"] for body in place.asked(DONE)] == ["completed", "failed"]


def test_a_failure_that_the_server_does_not_take_can_be_retried(place: Place) -> None:
    place.double.on("POST", DONE, refusal("validation_failed", 422), Reply(200, leased("a")))

    place.turn(lambda context, _: context.log("loud", "hello"))

    _, reported = place.asked(DONE)
    assert reported["error"]["type"] == "OutcomeRefused"
    assert reported["retryable"] is True


@pytest.mark.parametrize(
    "answer",
    [
        refusal("internal_error", 500),
        refusal("forbidden", 403),
        Reply(500, b"<html>"),
        Reply(200, b"<html>"),
    ],
)
def test_what_is_no_word_about_a_result_leaves_the_job_to_its_lease(
    place: Place, answer: Reply
) -> None:
    place.double.on("POST", DONE, answer)

    assert place.turn(lambda *_: 42).job_id == "a"
    assert [body["status"] for body in place.asked(DONE)] == ["completed"]


def test_an_outcome_is_told_again_while_the_server_is_away(place: Place) -> None:
    place.double.on("POST", DONE, Silence(), AWAY, Reply(200, leased("a")))

    place.turn(lambda *_: 42)

    assert [body["result"] for body in place.asked(DONE)] == [42, 42, 42]


@pytest.mark.parametrize("fault", [refusal("internal_error", 500), Reply(500, b"<html>"), AWAY])
def test_a_fault_of_the_server_ends_no_worker_that_asks_for_work(
    place: Place, fault: Reply
) -> None:
    place.double.on("POST", NEXT, fault, Reply(200, leased("a")))

    assert place.turn(lambda *_: 42).job_id == "a"
    assert place.report()["result"] == 42


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


def test_what_a_heartbeat_on_its_way_told_is_not_lost_with_the_end(place: Place) -> None:
    ended = threading.Event()

    def last(_asked: Asked) -> Silence:
        ended.wait(10)
        with suppress(AssertionError):  # the report comes after this heartbeat
            eventually(lambda: place.asked(DONE), within=0.3)
        return Silence()

    place.double.on("POST", BEAT, last, Reply(200, {}))

    def handler(context: Context, _payload: Any) -> None:
        context.info("kept")
        eventually(lambda: place.asked(BEAT))
        ended.set()

    place.turn(handler)

    assert [body["logs"][0]["message"] for body in place.asked(BEAT)] == ["kept", "kept"]


def test_a_heartbeat_that_hangs_does_not_use_up_the_lease(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(_asked: Asked) -> Silence:
        place.double.wait_for_end()
        return Silence()

    monkeypatch.setattr("fairq.worker.SHORTEST_TIMEOUT_SECONDS", 0.1)
    place.double.on("POST", BEAT, hang, Reply(200, {}))

    def handler(_context: Context, _payload: Any) -> None:
        eventually(lambda: len(place.asked(BEAT)) >= 2, within=10)

    place.turn(handler)

    assert place.report()["status"] == "completed"


def test_a_heartbeat_whose_words_are_refused_goes_without_them_at_once(place: Place) -> None:
    place.double.on("POST", BEAT, refusal("validation_failed", 422), Reply(200, {}))

    place.turn(lambda context, _: context.info("odd"), lease_seconds=30)

    told, bare = place.asked(BEAT)
    assert told["logs"][0]["message"] == "odd"
    assert bare == {"lease": "lease-1"}
    assert place.report()["status"] == "completed"


def test_a_heartbeat_that_cannot_be_written_ends_nothing(place: Place) -> None:
    def handler(context: Context, _payload: Any) -> None:
        context._progress = {"fraction": {1, 2}}

    place.turn(handler, lease_seconds=30)

    assert place.asked(BEAT) == [{"lease": "lease-1"}]
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


def test_a_worker_can_be_stopped_in_the_midst_of_being_stopped(double: Double) -> None:
    with Client(double.url, TOKEN) as client:
        worker = client.worker(**QUICK)(lambda *_: None)

    def interrupt(*_: Any) -> Any:
        worker.stop()
        return interrupt

    def stop() -> None:
        sys.settrace(interrupt)
        worker.stop()

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    thread.join(10)

    assert not thread.is_alive()


# On an event loop


def on_loop(double: Double, act: Callable[[AsyncClient], Any]) -> None:
    """Do *act* with a client of a server that has work once."""
    OnLoop(double)

    async def run() -> None:
        async with AsyncClient(double.url, TOKEN, patience_seconds=2) as client:
            async with asyncio.timeout(20):
                await act(client)

    asyncio.run(run())


def test_a_handler_is_cancelled_once_and_may_take_its_time(double: Double) -> None:
    cancels: list[int] = []

    async def handler(_context: Context, _payload: Any) -> str:
        while len(double.asked("POST", BEAT)) < 6:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                cancels.append(1)
        return "tidied up"

    async def act(client: AsyncClient) -> None:
        double.on("POST", BEAT, Reply(200, {"cancel": True}))
        await client.worker(**QUICK)(handler).turn()

    on_loop(double, act)

    assert len(cancels) == 1
    assert double.bodies("POST", DONE)[0]["result"] == "tidied up"


def test_one_signal_stops_every_worker_of_a_loop(double: Double) -> None:
    async def handler(_context: Context, _payload: Any) -> None:
        """Do nothing."""

    async def act(client: AsyncClient) -> None:
        workers = [client.worker(name=name)(handler) for name in ("w1", "w2")]
        running = asyncio.gather(*(worker.run() for worker in workers))
        await asyncio.to_thread(
            eventually, lambda: {body["worker"] for body in double.bodies("POST", NEXT)} >= names
        )
        os.kill(os.getpid(), signal.SIGTERM)
        await running

    names = {"w1", "w2"}
    on_loop(double, act)


def test_an_application_gets_its_own_signal_handlers_back(double: Double) -> None:
    told: list[str] = []

    async def act(client: AsyncClient) -> None:
        async def handler(_context: Context, _payload: Any) -> None:
            worker.stop()

        loop, worker = asyncio.get_running_loop(), client.worker(**QUICK)(handler)
        loop.add_signal_handler(signal.SIGTERM, told.append, "the application")
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        await worker.run()
        assert before == [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.to_thread(eventually, lambda: told)
        loop.remove_signal_handler(signal.SIGTERM)

    on_loop(double, act)

    assert told == ["the application"]


def test_a_worker_runs_on_the_loop_of_any_thread(double: Double) -> None:
    async def act(client: AsyncClient) -> None:
        async def handler(_context: Context, _payload: Any) -> None:
            worker.stop()

        worker = client.worker(**QUICK)(handler)
        await worker.run()

    thread = threading.Thread(target=on_loop, args=(double, act))
    thread.start()
    thread.join(20)

    assert double.bodies("POST", DONE)


# What is refused


class OfLoop:
    async def __call__(self, context: Context, payload: Any) -> None:
        """Do nothing."""


def test_a_handler_is_of_the_kind_of_its_client(double: Double) -> None:
    with Client(double.url, TOKEN) as client, pytest.raises(TypeError, match="is a coroutine"):
        client.worker()(OfLoop())

    async def act() -> None:
        async with AsyncClient(double.url, TOKEN) as client:
            assert client.worker()(OfLoop())
            with pytest.raises(TypeError, match="is no coroutine"):
                client.worker()(lambda *_: None)  # type: ignore[arg-type,return-value]

    asyncio.run(act())


def test_progress_stays_within_its_bounds(place: Place) -> None:
    def handler(context: Context, _payload: Any) -> None:
        context.progress(50, "\ud800" * 600)
        context.progress(float("nan"))

    place.turn(handler, lease_seconds=30)

    told = place.asked(BEAT)[0]["progress"]
    assert (told["fraction"], len(told["message"])) == (1.0, 500)
    assert place.report()["error"]["message"] == "a progress must be a number from 0 to 1"


def test_lines_are_cut_and_told_in_requests_the_server_takes(place: Place) -> None:
    def handler(context: Context, _payload: Any) -> None:
        for number in range(100):
            context.info(f"{number} \ud800" + "ä" * 10_000)

    place.turn(handler, lease_seconds=30)

    told = place.asked(BEAT)
    assert all(len(json.dumps(body, ensure_ascii=False).encode()) < 2**20 for body in told)
    lines = [line["message"] for body in told for line in body["logs"]]
    assert [line.partition(" ")[0] for line in lines] == [str(number) for number in range(100)]
    assert {len(line) for line in lines} == {8192}


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
