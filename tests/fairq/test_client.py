import inspect
from datetime import UTC, datetime
from typing import Any

import pytest

from fairq import AsyncClient, Client, Dependency, NoAnswer, NotFinished, Refused, Submission
from fairq.client import WAIT_SECONDS
from tests.fairq.conftest import TOKEN
from tests.fairq.double import (
    NOON,
    Asked,
    Double,
    Events,
    Reply,
    Silence,
    event,
    job,
    refusal,
)

AWAY = Reply(503, {"code": "unavailable", "detail": "away"}, {"Retry-After": "0"})


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in methods
            if not name.startswith("__")
        }

    assert calls(Client) == calls(AsyncClient)


def test_a_client_proves_who_asks(client: Any, double: Double) -> None:
    double.on("GET", "/me", Reply(200, {"username": "ann", "role": "user"}))

    assert client.me().username == "ann"
    (asked,) = double.requests
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["user-agent"].startswith("fairq/")


# Submitting


def test_a_submission_says_what_it_was_given_and_nothing_else(client: Any, double: Double) -> None:
    double.on("POST", "/jobs", Reply(201, job("a")))

    client.submit(
        "simulate",
        {"n": 1},
        job_id="a",
        priority="high",
        tags=["x"],
        depends_on=["b", Dependency(job_id="c", when="finished")],
        resource_requirements={"cpu_units": 2},
        delay_seconds=0,
    )

    assert double.bodies("POST", "/jobs") == [
        {
            "type": "simulate",
            "payload": {"n": 1},
            "job_id": "a",
            "priority": "high",
            "tags": ["x"],
            "depends_on": ["b", {"job_id": "c", "when": "finished"}],
            "resource_requirements": {"cpu_units": 2},
            "delay_seconds": 0,
        }
    ]


def test_a_submission_without_an_id_keeps_its_key_over_all_tries(
    client: Any, double: Double
) -> None:
    double.on("POST", "/jobs", Silence(), AWAY, Reply(201, job("made")))

    assert client.submit("simulate").job_id == "made"
    keys = [asked.headers["idempotency-key"] for asked in double.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_two_submissions_have_two_keys(client: Any, double: Double) -> None:
    double.on("POST", "/jobs", Reply(201, job()))

    client.submit("simulate")
    client.submit("simulate")

    one, other = double.requests
    assert one.headers["idempotency-key"] != other.headers["idempotency-key"]


def test_a_submission_with_an_id_needs_no_key(client: Any, double: Double) -> None:
    double.on("POST", "/jobs", Silence(), Reply(200, job("a", duplicate=True)))

    assert client.submit("simulate", job_id="a").duplicate
    assert all("idempotency-key" not in asked.headers for asked in double.requests)


def test_many_jobs_go_as_one_batch(client: Any, double: Double) -> None:
    answered = {"jobs": [job("a"), job("b")], "created": 2, "duplicates": 0}
    double.on("POST", "/jobs/batch", Reply(201, answered))

    jobs = client.submit_many(Submission("simulate", {"n": n}) for n in range(2))

    assert [one.job_id for one in jobs] == ["a", "b"]
    (asked,) = double.requests
    assert [one["payload"] for one in asked.body["jobs"]] == [{"n": 0}, {"n": 1}]
    assert "idempotency-key" in asked.headers


def test_a_workflow_goes_as_one_batch(client: Any, double: Double) -> None:
    double.on("POST", "/jobs/batch", Reply(201, {"jobs": [job("a"), job("b")]}))
    flow = client.workflow()
    a, b = flow.job("simulate", job_id="a"), flow.job("simulate", job_id="b")
    a >> b

    assert [one.job_id for one in flow.submit()] == ["a", "b"]
    (body,) = double.bodies("POST", "/jobs/batch")
    assert body["jobs"][1]["depends_on"] == ["a"]


# Trying again


def test_a_read_is_tried_again_while_the_server_is_away(client: Any, double: Double) -> None:
    double.on("GET", "/jobs/a", Silence(), AWAY, refusal("rate_limited", 429), Reply(200, job()))

    assert client.job("a").job_id == "a"
    assert len(double.requests) == 4


@pytest.mark.parametrize("call", ["cancel", "retry"])
def test_a_change_is_not_repeated(client: Any, double: Double, call: str) -> None:
    method = {"cancel": "PATCH", "retry": "POST"}[call]
    double.on(method, f"/jobs/a/{call}", Silence(), Reply(200, job()))

    with pytest.raises(NoAnswer, match="does not answer"):
        getattr(client, call)("a")

    assert len(double.requests) == 1


def test_a_refusal_is_not_tried_again(client: Any, double: Double) -> None:
    with pytest.raises(Refused):
        client.job("nobody")

    assert len(double.requests) == 1


def test_nobody_waits_longer_than_they_are_willing_to(client: Any, double: Double) -> None:
    double.on("GET", "/jobs/a", Reply(503, {"code": "unavailable"}, {"Retry-After": "3600"}))

    with pytest.raises(Refused) as refused:
        client.job("a")

    assert refused.value.retry_after == 3600
    assert len(double.requests) == 1


def test_a_server_that_is_not_there_is_named() -> None:
    named = pytest.raises(NoAnswer, match=r"http://127\.0\.0\.1:1 does not answer")

    with Client("http://127.0.0.1:1", TOKEN, patience_seconds=0) as nobody, named:
        nobody.stats()


# Refusals


def test_a_refusal_carries_what_the_server_said(client: Any, double: Double) -> None:
    errors = [{"path": "payload.n", "message": "must be a number"}]
    double.on(
        "POST", "/jobs", refusal("validation_failed", 422, errors=errors, request_id="r-1", more=1)
    )

    with pytest.raises(Refused) as caught:
        client.submit("simulate")

    refused = caught.value
    assert (refused.code, refused.status) == ("validation_failed", 422)
    assert [(one.path, one.message) for one in refused.errors] == [
        ("payload.n", "must be a number")
    ]
    assert refused.request_id == "r-1"
    assert refused.details["more"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        Reply(200, ["no job"]),
        Reply(200, {"page": "of a proxy"}),
        Reply(500, "no problem details"),
        Reply(302, None, {"Location": "https://elsewhere.example.org/"}),
    ],
)
def test_an_answer_of_something_else_is_refused(client: Any, double: Double, answer: Reply) -> None:
    double.on("PATCH", "/jobs/a/cancel", answer)

    with pytest.raises(Refused) as caught:
        client.cancel("a")

    assert caught.value.code == "unexpected_answer"
    assert "elsewhere.example.org" in caught.value.detail or answer.status != 302


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("7", 7),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30),
        ("Sun, 01 Mar 2026 11:00:00 GMT", None),
        ("soon", None),
    ],
)
def test_a_refusal_tells_when_to_come_back(
    client: Any,
    double: Double,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    seconds: float | None,
) -> None:
    monkeypatch.setattr("fairq.clock.now", lambda: datetime(2026, 3, 1, 12, tzinfo=UTC))
    double.on("PATCH", "/jobs/a/cancel", Reply(503, {}, {"Retry-After": asked}))

    with pytest.raises(Refused) as caught:
        client.cancel("a")

    assert caught.value.retry_after == seconds


def test_an_answer_that_cannot_be_read_is_none(client: Any, double: Double) -> None:
    double.on("PATCH", "/jobs/a/cancel", Reply(200, b"no gzip", {"Content-Encoding": "gzip"}))

    with pytest.raises(NoAnswer):
        client.cancel("a")


def test_what_a_newer_server_tells_is_kept(client: Any, double: Double) -> None:
    double.on("GET", "/jobs/a", Reply(200, job(mood="good", progress={"fraction": 1, "eta": 3})))

    found = client.job("a")

    assert found.as_json()["mood"] == "good"
    assert found.as_json()["progress"]["eta"] == 3


# One job


@pytest.mark.parametrize("job_id", ["a/b", "..", ".", "a b?c#d%2F", "next", "ärger"])
def test_any_id_is_one_part_of_the_path(client: Any, double: Double, job_id: str) -> None:
    double.on("PATCH", "/jobs/a/cancel", Reply(200, job()))

    with pytest.raises(Refused, match="not_found"):
        client.cancel(job_id)

    (asked,) = double.requests
    assert asked.segments == ["jobs", job_id, "cancel"]


def test_a_job_of_somebody_else_is_meant_by_its_owner(client: Any, double: Double) -> None:
    double.on("GET", "/jobs/a", Reply(200, job("a", owner="bob")))
    double.on("PATCH", "/jobs/a/cancel", Reply(200, job("a", "cancelled", owner="bob")))

    assert client.cancel(client.job("a", owner="bob")).status == "cancelled"
    assert [asked.query for asked in double.requests] == [{"owner": ["bob"]}, {"owner": ["bob"]}]


def test_waiting_asks_again_until_the_job_is_finished(client: Any, double: Double) -> None:
    running, done = Reply(202, job("a", "running")), Reply(200, job("a", "completed", result=42))
    double.on("GET", "/jobs/a/wait", running, running, done)

    assert client.wait("a").result == 42
    asked = double.asked("GET", "/jobs/a/wait")
    assert [one.query["timeout_seconds"] for one in asked] == [[str(WAIT_SECONDS)]] * 3


def test_waiting_ends_when_the_time_is_over(client: Any, double: Double) -> None:
    double.on("GET", "/jobs/a/wait", Reply(202, job("a", "running")))

    with pytest.raises(NotFinished, match="still running") as caught:
        client.wait("a", timeout_seconds=0)

    assert caught.value.job.status == "running"
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("last", [Silence(), AWAY])
def test_waiting_ends_when_the_time_is_over_while_the_server_is_away(
    client: Any, double: Double, last: Any
) -> None:
    double.on("GET", "/jobs/a/wait", Reply(202, job("a", "running")), Silence(), last)

    with pytest.raises(NotFinished, match="still running") as caught:
        client.wait("a", timeout_seconds=0.5)

    assert caught.value.job.status == "running"


def test_a_job_that_was_never_seen_is_not_known_to_be_finished(client: Any, double: Double) -> None:
    double.on("GET", "/jobs/a/wait", Reply(503, {}, {"Retry-After": "7"}))

    with pytest.raises(NotFinished, match="a could not be seen to finish") as caught:
        client.wait("a", timeout_seconds=5)

    assert caught.value.job is None
    assert len(double.requests) == 1


def test_waiting_ends_though_the_server_hangs(
    client: Any, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(_asked: Asked) -> Silence:
        double.wait_for_end()
        return Silence()

    monkeypatch.setattr("fairq.calls.GRACE_SECONDS", 0.1)
    double.on("GET", "/jobs/a/wait", hang)

    with pytest.raises(NotFinished):
        client.wait("a", timeout_seconds=0.2)


def test_attempts_are_read(client: Any, double: Double) -> None:
    double.on(
        "GET",
        "/jobs/a/attempts",
        Reply(200, {"attempts": [{"attempt": 1, "outcome": "failed"}], "next_cursor": "more"}),
        Reply(200, {"attempts": [{"attempt": 2}], "next_cursor": None}),
    )

    assert [one.outcome for one in client.attempts("a")] == ["failed", None]


# Lists


def test_a_list_is_read_page_after_page(client: Any, double: Double) -> None:
    double.on(
        "GET",
        "/jobs",
        Reply(200, {"jobs": [job("a"), job("b")], "next_cursor": "more"}),
        Reply(200, {"jobs": [], "next_cursor": "still"}),
        Reply(200, {"jobs": [job("c")], "next_cursor": None}),
    )

    found = client.jobs(
        status=["running", "queued"],
        tag=["x", "y"],
        created_after=datetime(2026, 3, 1, 12, tzinfo=UTC),
        limit=2,
    )

    assert [one.job_id for one in found] == ["a", "b", "c"]
    wanted = {
        "status": ["running,queued"],
        "tag": ["x", "y"],
        "created_after": ["2026-03-01T12:00:00+00:00"],
        "limit": ["2"],
    }
    assert [asked.query for asked in double.requests] == [
        wanted,
        wanted | {"cursor": ["more"]},
        wanted | {"cursor": ["still"]},
    ]


def test_no_page_is_read_before_it_is_wanted(client: Any, double: Double) -> None:
    double.on("GET", "/jobs", Reply(200, {"jobs": [job("a")], "next_cursor": "more"}))

    found = iter(client.jobs())

    assert next(found).job_id == "a"
    assert len(double.requests) == 1
    found.close()


def test_service_figures_are_read(client: Any, double: Double) -> None:
    double.on("GET", "/stats", Reply(200, {"at": NOON, "of": "own", "jobs": {"ready": 3}}))
    pulling = {"name": "p1", "asked_by": "ann", "asked_at": NOON, "running": []}
    told = {"workers": [{"name": "w1"}], "pull_workers": [pulling], "capacity": {}}
    double.on("GET", "/workers", Reply(200, told))
    double.on(
        "GET",
        "/types",
        Reply(200, {"types": [{"name": "report"}], "next_cursor": "more"}),
        Reply(200, {"types": [{"name": "simulate"}], "next_cursor": None}),
    )

    assert client.stats().jobs == {"ready": 3}
    assert [(one.name, one.executor, one.asked_by) for one in client.workers()] == [
        ("w1", "celery", None),
        ("p1", "pull", "ann"),
    ]
    assert [one.name for one in client.types()] == ["report", "simulate"]


# Many jobs at a time


def test_many_jobs_are_counted_and_dealt_with(client: Any, double: Double) -> None:
    told = {"action": "tag", "dry_run": True, "count": 2, "more": True, "not_found": 0}
    double.on(
        "POST",
        "/jobs/bulk",
        Reply(200, told | {"job_id": None}),
        Reply(202, told | {"dry_run": False, "job_id": "job_1"}),
        Reply(202, told | {"dry_run": False, "job_id": "job_2"}),
    )
    when = datetime(2026, 3, 1, tzinfo=UTC)

    counted = client.bulk("cancel", tag=["a", "b"], created_before=when, dry_run=True)
    named = client.bulk("prioritise", "a", "b", owner="ann", set_priority="high")
    tagged = client.bulk("tag", status="ready", add_tags=["x"])

    assert (counted.count, counted.more, counted.job_id) == (2, True, None)
    assert (named.job_id, tagged.job_id) == ("job_1", "job_2")
    assert double.bodies("POST", "/jobs/bulk") == [
        {
            "action": "cancel",
            "filter": {"tag": ["a", "b"], "created_before": when.isoformat()},
            "dry_run": True,
        },
        {
            "action": "prioritise",
            "job_ids": ["a", "b"],
            "owner": "ann",
            "priority": "high",
            "dry_run": False,
        },
        {"action": "tag", "filter": {"status": "ready"}, "add_tags": ["x"], "dry_run": False},
    ]


@pytest.mark.parametrize(
    ("job_ids", "wanted", "says"),
    [([], {}, "say which"), (["a"], {"type": "simulate"}, "not both")],
)
def test_nobody_means_many_jobs_by_saying_nothing_or_two_things(
    client: Any, job_ids: list[str], wanted: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        client.bulk("cancel", *job_ids, **wanted)


# Dead letters


def test_dead_letters_are_listed_one_by_one_or_in_groups(client: Any, double: Double) -> None:
    letter = job("a", "failed", fingerprint="f1")
    group = {"fingerprint": "f1", "type": "simulate", "count": 3}
    double.on(
        "GET",
        "/dead-letters",
        Reply(200, {"jobs": [letter], "next_cursor": None}),
        Reply(200, {"groups": [group], "next_cursor": None}),
    )

    assert [one.fingerprint for one in client.dead_letters(type="simulate")] == ["f1"]
    assert [one.count for one in client.dead_letter_groups()] == [3]
    assert [asked.query for asked in double.requests] == [{"type": ["simulate"]}, {"group": ["1"]}]


def test_dead_letters_run_again_until_none_is_left(client: Any, double: Double) -> None:
    double.on(
        "POST",
        "/dead-letters/retry",
        Reply(200, {"retried": 2, "skipped": 0, "next_cursor": "more"}),
        Reply(200, {"retried": 1, "skipped": 1, "next_cursor": None}),
    )

    cleared = client.retry_dead_letters(fingerprint="f1", payload={"n": 2})

    assert (cleared.done, cleared.skipped) == (3, 1)
    meant = {"filter": {"fingerprint": "f1"}, "payload": {"n": 2}}
    assert double.bodies("POST", "/dead-letters/retry") == [meant, meant | {"cursor": "more"}]


def test_dead_letters_are_discarded_by_name(client: Any, double: Double) -> None:
    double.on("POST", "/dead-letters/discard", Reply(200, {"discarded": 2, "next_cursor": None}))

    assert client.discard_dead_letters("a", "b", owner="ann").done == 2
    assert double.bodies("POST", "/dead-letters/discard") == [
        {"job_ids": ["a", "b"], "owner": "ann"}
    ]


def test_all_dead_letters_are_meant_by_saying_so(client: Any, double: Double) -> None:
    double.on("POST", "/dead-letters/discard", Reply(200, {"discarded": 2, "next_cursor": None}))

    client.discard_dead_letters(everything=True, owner="ann")

    assert double.bodies("POST", "/dead-letters/discard") == [{"filter": {"owner": "ann"}}]


@pytest.mark.parametrize("call", ["retry_dead_letters", "discard_dead_letters"])
@pytest.mark.parametrize(
    ("job_ids", "wanted", "says"),
    [
        ([], {}, "say which"),
        ([], {"owner": "ann"}, "say which"),
        ([], {"type": None}, "say which"),
        (["a"], {"type": "simulate"}, "not both"),
        (["a"], {"everything": True}, "not both"),
    ],
)
def test_nobody_means_dead_letters_by_saying_nothing_or_two_things(
    client: Any, call: str, job_ids: list[str], wanted: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        getattr(client, call)(*job_ids, **wanted)


# Schedules


def test_a_schedule_is_made_changed_run_and_deleted(client: Any, double: Double) -> None:
    answered = Reply(200, {"name": "nightly", "cron": "0 3 * * *", "next_runs": [NOON]})
    double.on("POST", "/schedules", answered)
    double.on("PATCH", "/schedules/nightly", answered)
    double.on("GET", "/schedules/nightly", answered)
    double.on("GET", "/schedules", Reply(200, {"schedules": [answered.body], "next_cursor": None}))
    double.on("POST", "/schedules/nightly/run", Reply(201, job("a", schedule="nightly")))
    double.on("DELETE", "/schedules/nightly", Reply(204))

    made = client.create_schedule("nightly", Submission("simulate", {"n": 1}), cron="0 3 * * *")
    client.update_schedule("nightly", Submission("simulate", {"n": 2}), paused=True)

    assert made.next_runs == [datetime(2026, 3, 1, 12, tzinfo=UTC)]
    assert [one.name for one in client.schedules()] == [client.schedule("nightly").name]
    assert client.run_schedule("nightly").schedule == "nightly"
    assert client.delete_schedule("nightly") is None
    assert double.bodies("POST", "/schedules") == [
        {
            "name": "nightly",
            "template": {"type": "simulate", "payload": {"n": 1}},
            "cron": "0 3 * * *",
        }
    ]
    assert double.bodies("PATCH", "/schedules/nightly") == [
        {"template": {"type": "simulate", "payload": {"n": 2}}, "paused": True}
    ]


# Streams


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairq.http.REOPEN_SECONDS", 0.01)


def moved(job_id: str, seq: int, **more: Any) -> str:
    """Write a change of a job the way the stream tells it."""
    return event({"job_id": job_id, "seq": seq} | more, number=seq, kind="job")


def test_changes_arrive_and_go_on_where_the_connection_broke(client: Any, double: Double) -> None:
    live = event({"seq": 6}, number=6, kind="live")
    resume = event({"seq": 8}, kind="resume")
    double.on(
        "GET",
        "/jobs/stream",
        Events(("retry: 1000\n\n", live), breaks=True),
        Events((moved("a", 7), ": still here\n\n"), breaks=True),
        AWAY,
        Events((moved("b", 8, status="failed", verb="fail"), resume)),
        Events((moved("c", 9),), stays=True),
    )

    changes = iter(client.stream(owner="ann"))
    seen = [next(changes) for _ in range(3)]
    changes.close()

    assert [(one.job_id, one.seq) for one in seen] == [("a", 7), ("b", 8), ("c", 9)]
    assert (seen[1].status, seen[1].verb) == ("failed", "fail")
    asked = double.asked("GET", "/jobs/stream")
    assert [one.headers.get("last-event-id") for one in asked] == [None, "6", "7", "7", "8"]
    assert {one.headers["accept"] for one in asked} == {"text/event-stream"}
    assert {tuple(one.query["owner"]) for one in asked} == {("ann",)}


def test_a_stream_goes_on_where_another_program_stopped(client: Any, double: Double) -> None:
    double.on("GET", "/jobs/stream", Events((moved("a", 9),), stays=True))

    changes = iter(client.stream(after=8))
    next(changes)
    changes.close()

    assert double.requests[0].headers["last-event-id"] == "8"


def test_a_gap_in_a_stream_is_told(client: Any, double: Double) -> None:
    reload = event({"seq": 90}, number=90, kind="reload")
    double.on("GET", "/jobs/stream", Events((reload, moved("a", 91)), stays=True))

    changes = iter(client.stream(after=1))
    gap, change = next(changes), next(changes)
    changes.close()

    assert (gap.is_gap, gap.seq) == (True, 90)
    assert (change.is_gap, change.job_id) == (False, "a")


def test_a_stream_that_is_refused_raises(client: Any, double: Double) -> None:
    double.on("GET", "/jobs/stream", refusal("insufficient_scope", 403))

    with pytest.raises(Refused, match="insufficient_scope"):
        next(iter(client.stream()))


def test_something_else_than_a_stream_is_refused(client: Any, double: Double) -> None:
    double.on("GET", "/jobs/stream", Reply(200, job()))

    with pytest.raises(Refused, match="unexpected_answer"):
        next(iter(client.stream()))


# Logs


def line(message: str) -> dict[str, Any]:
    return {"at": NOON, "attempt": 1, "level": "info", "message": message}


def test_a_log_is_read_page_after_page(client: Any, double: Double) -> None:
    double.on(
        "GET",
        "/jobs/a/logs",
        Reply(200, {"logs": [line("one")], "next_cursor": "more"}),
        Reply(200, {"logs": [line("two")], "next_cursor": None}),
    )

    assert [one.message for one in client.logs("a")] == ["one", "two"]


def told(message: str, number: int) -> str:
    """Write a line the way the stream of a log tells it."""
    return event(line(message), number=number, kind="log")


def test_a_log_is_followed_to_the_end_of_the_job(client: Any, double: Double) -> None:
    resume = event({"seq": 2}, kind="resume")
    end = event({"status": "completed"}, kind="end")
    double.on(
        "GET",
        "/jobs/a/logs",
        Events((told("one", 1),), breaks=True),
        Events((told("two", 2), resume)),
        Events((told("three", 3), end, told("never", 4))),
    )

    assert [one.message for one in client.logs("a", follow=True)] == ["one", "two", "three"]
    asked = double.asked("GET", "/jobs/a/logs")
    assert [one.headers.get("last-event-id") for one in asked] == [None, "1", "2"]
    assert {tuple(one.query["follow"]) for one in asked} == {("1",)}
