"""Orders are a function of the seed, and each is asked for until it is answered."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scheduler.job_request import JobRequest
from scheduler.settings import Settings
from tasks.context import Context, Notebook
from tests.chaos.errand import TYPE, Errand, ErrandFailed, errand
from tests.chaos.load import OWNERS, Answers, Load, Order, orders
from tests.tasks.conftest import make_claim
from webapp.schemas.jobs import BatchRequest

TOKENS = {owner: f"token of {owner}" for owner in OWNERS}
Asked = list[tuple[str, str, Any]]


@contextmanager
def server(answer: Callable[[int], int]) -> Iterator[tuple[str, Asked]]:
    """Answer the n-th request with a status, and keep what was asked."""
    asked: Asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            asked.append((self.path, self.headers["Authorization"], json.loads(body or "null")))
            self.send_response(answer(len(asked)))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_PATCH(self) -> None:
            asked.append((self.path, self.headers["Authorization"], None))
            self.send_response(answer(len(asked)))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever).start()
        yield f"http://127.0.0.1:{served.server_port}", asked
        served.shutdown()


def sent(url: str, path: Path, *wanted: Order, patience: float = 20.0) -> tuple[Answers, bool]:
    answers = Answers(path / "answers.jsonl")
    load = Load(url, TOKENS, answers)
    load.start()
    for order in wanted:
        load.put(order)
    return answers, load.finish(patience)


def a_job(name: str = "one") -> Order:
    return Order(0.0, "ada", ({"job_id": name},))


def test_a_seed_asks_for_the_same_every_time() -> None:
    assert list(orders(1, 60.0, 20.0)) == list(orders(1, 60.0, 20.0))
    assert list(orders(1, 60.0, 20.0)) != list(orders(2, 60.0, 20.0))


def test_orders_come_at_the_rate_and_in_every_shape() -> None:
    made = list(orders(1, 180.0, 20.0))
    jobs = [job for order in made for job in order.jobs]

    assert len(jobs) == pytest.approx(3600, rel=0.1)
    assert {order.owner for order in made} == set(OWNERS)
    assert len({job["priority"] for job in jobs}) == 4
    shapes = Counter(
        "cancel" if order.cancels else "batch" if len(order.jobs) > 1 else "job" for order in made
    )
    assert min(shapes.values()) > 50
    assert sum(bool(order.needs) for order in made) > 100
    assert sum("fail_attempts" in job["payload"] for job in jobs) > 100
    assert sum("delay_seconds" in job for job in jobs) > 50


def test_every_name_is_new_and_every_reference_is_to_an_earlier_job_of_the_same_owner() -> None:
    seen: set[tuple[str, str]] = set()
    for order in orders(3, 120.0, 20.0):
        wanted = {*order.needs, *([order.cancels] if order.cancels else [])}
        assert {(order.owner, name) for name in wanted} <= seen
        names = {(order.owner, job["job_id"]) for job in order.jobs}
        assert not names & seen
        seen |= names


def test_the_server_takes_what_is_ordered() -> None:
    for order in orders(1, 30.0, 20.0):
        if len(order.jobs) == 1:
            JobRequest.model_validate_json(json.dumps(order.jobs[0]))
        elif order.jobs:
            BatchRequest.model_validate_json(json.dumps({"jobs": order.jobs}))
        for job in order.jobs:
            assert job["type"] == TYPE
            Errand.model_validate(job["payload"])


def test_an_order_is_asked_for_until_it_is_answered_and_is_the_same_each_time(
    tmp_path: Path,
) -> None:
    with server(lambda count: 503 if count < 3 else 201) as (url, asked):
        answers, finished = sent(url, tmp_path, a_job())

    assert finished
    assert asked == [("/jobs", "Bearer token of ada", {"job_id": "one"})] * 3
    assert answers.accepted == {("ada", "one")}
    assert answers.statuses == {"503": 2, "201": 1}
    (line,) = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert json.loads(line) == {"owner": "ada", "status": 201, "jobs": ["one"]}


def test_what_waits_for_another_job_is_asked_for_after_it(tmp_path: Path) -> None:
    child = Order(0.0, "ada", ({"job_id": "child"},), needs=("one",))
    cancel = Order(0.0, "ada", cancels="child")
    with server(lambda _: 200) as (url, asked):
        answers, finished = sent(url, tmp_path, cancel, child, a_job())

    assert finished
    assert [path for path, _, _ in asked] == ["/jobs", "/jobs", "/jobs/child/cancel"]
    assert answers.cancelled == {("ada", "child")}


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_an_answer_that_nobody_should_get_is_kept(tmp_path: Path, status: int) -> None:
    with server(lambda _: status) as (url, _):
        answers, finished = sent(url, tmp_path, a_job())

    assert finished
    assert not answers.accepted
    assert len(answers.wrong) == 1
    assert str(status) in answers.wrong[0]


def test_a_job_that_has_ended_cannot_be_cancelled_and_that_is_fine(tmp_path: Path) -> None:
    with server(lambda count: 201 if count == 1 else 409) as (url, _):
        answers, finished = sent(url, tmp_path, a_job(), Order(0.0, "ada", cancels="one"))

    assert finished
    assert not answers.wrong
    assert not answers.cancelled


def test_an_order_that_is_never_answered_is_told(tmp_path: Path) -> None:
    with server(lambda _: 503) as (url, _):
        answers, finished = sent(url, tmp_path, a_job(), patience=0.5)

    assert not finished
    assert not answers.accepted


def test_an_errand_fails_as_told(settings: Settings) -> None:
    context = Context(make_claim(attempt=2), settings, Notebook(lambda: None))

    with pytest.raises(ErrandFailed):
        errand(context, Errand(fail_attempts=2, records=False))
    assert errand(context, Errand(fail_attempts=1, records=False)) == 2
