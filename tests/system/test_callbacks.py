"""Whoever asked for it is called back by the real scheduler, whoever dies meanwhile."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.readme import documented_check
from tests.services import Services, Stack, eventually
from tests.site import Site
from tests.system.client import Client


@pytest.fixture
def stack(services: Services, tmp_path: Path) -> Iterator[Stack]:
    """A Fairq that may call this host."""
    with Stack(services, tmp_path, FAIRQ_ALLOW_PRIVATE_HTTP="yes") as stack:
        stack.start("web", "scheduler")
        yield stack


def _states(client: Client, job_id: str) -> list[str]:
    return [one["state"] for one in client.get(f"/jobs/{job_id}/callbacks")["callbacks"]]


def _wait_until_delivered(client: Client, job_id: str) -> None:
    eventually(lambda: _states(client, job_id) == ["delivered"], every=0.1)


def _deliveries(site: Site) -> Counter[str]:
    return Counter(asked.headers["Fairq-Delivery"] for asked in site.seen)


def test_the_end_of_a_job_is_delivered_signed_and_logged(
    stack: Stack, admin: Client, site: Site
) -> None:
    stack.start_worker()
    ann = admin.make_user("ann")
    secret = ann.get("/me/callback-secret")["secret"]
    wanted = {
        "done": {"payload": {"duration_seconds": 0, "result": {"answer": 42}}},
        "failed": {
            "payload": {"duration_seconds": 0, "fail_attempts": 1},
            "retry_config": {"max_attempts": 1},
        },
        "cancelled": {"delay_seconds": 3600},
    }
    for name, fields in wanted.items():
        ann.submit(job_id=name, callback_url=site.url(f"/{name}"), **fields)
    ann.submit(job_id="quiet", payload={"duration_seconds": 0})

    ann.call("PATCH", "/jobs/cancelled/cancel")

    for name in wanted:
        _wait_until_delivered(ann, name)
    told = {asked.path.strip("/"): json.loads(asked.body) for asked in site.seen}
    assert {name: body["status"] for name, body in told.items()} == {
        "done": "completed",
        "failed": "failed",
        "cancelled": "cancelled",
    }
    assert told["done"]["result"] == {"answer": 42}
    is_from_fairq = documented_check()
    for asked in site.seen:
        assert is_from_fairq(secret, asked.headers, asked.body)
        assert not is_from_fairq("fqs_wrong", asked.headers, asked.body)
    shown = ann.job("failed")
    for field in ("job_id", "owner", "status", "error", "attempt", "finished_at", "request_id"):
        assert told["failed"][field] == shown[field], field
    (callback,) = ann.get("/jobs/done/callbacks")["callbacks"]
    assert [one["status_code"] for one in callback["tries"]] == [200]
    assert _states(ann, "quiet") == []


def test_a_scheduler_that_is_killed_while_it_calls_loses_no_callback(
    stack: Stack, admin: Client, site: Site
) -> None:
    site.silent.add("/done")
    admin.submit(job_id="it", callback_url=site.url("/done"), delay_seconds=3600)
    admin.call("PATCH", "/jobs/it/cancel")
    eventually(lambda: site.seen)

    stack.kill("scheduler")
    site.silent.remove("/done")
    assert _states(admin, "it") == ["pending"]
    with psycopg.connect(stack.database_url) as connection:
        taken = "UPDATE callbacks SET taken_until = now() WHERE taken_until > now()"
        assert connection.execute(taken).rowcount == 1
    stack.start_again("scheduler")

    _wait_until_delivered(admin, "it")
    assert list(_deliveries(site).values()) == [2]
    (callback,) = admin.get("/jobs/it/callbacks")["callbacks"]
    assert [one["number"] for one in callback["tries"]] == [2]


def test_schedulers_side_by_side_call_once_for_each_end(
    stack: Stack, admin: Client, site: Site
) -> None:
    stack.start("scheduler2")
    stack.start_worker()
    jobs = admin.submit_batch(
        {"type": "simulate", "payload": {"duration_seconds": 0}, "callback_url": site.url("/x")}
        for _ in range(30)
    )

    admin.wait_for_all(jobs)

    for job in jobs:
        _wait_until_delivered(admin, job["job_id"])
    arrived = _deliveries(site)
    assert (len(arrived), set(arrived.values())) == (30, {1})


def test_a_scheduler_that_is_told_to_stop_does_so_while_it_calls(
    stack: Stack, admin: Client, site: Site
) -> None:
    admin.submit(job_id="it", callback_url=site.url("/silence"), delay_seconds=3600)
    admin.call("PATCH", "/jobs/it/cancel")
    eventually(lambda: site.seen)

    assert stack.stop("scheduler") == 0

    assert "courier stopped" in stack.log("scheduler")


def test_receivers_that_never_answer_hold_up_no_job(
    stack: Stack, admin: Client, site: Site
) -> None:
    stack.start_worker()
    admin.submit_batch(
        {
            "type": "simulate",
            "job_id": f"silent{number}",
            "delay_seconds": 3600,
            "callback_url": site.url("/silence"),
        }
        for number in range(20)
    )
    for number in range(20):
        admin.call("PATCH", f"/jobs/silent{number}/cancel")
    eventually(lambda: site.seen)

    jobs = admin.submit_batch(
        {"type": "simulate", "payload": {"duration_seconds": 0}} for _ in range(20)
    )

    done = admin.wait_for_all(jobs)
    assert {job["status"] for job in done.values()} == {"completed"}
    assert "delivered" not in _states(admin, "silent0")


def test_no_address_that_is_called_is_in_a_log(stack: Stack, admin: Client, site: Site) -> None:
    stack.start_worker()
    url = site.url("/x?key=sesame").replace("127.0.0.1", "ann:sesame@127.0.0.1")

    admin.submit(job_id="it", type="http_request", payload={"url": url}, callback_url=url)

    _wait_until_delivered(admin, "it")
    assert [asked.method for asked in site.seen] == ["GET", "POST"]
    logs = {name: stack.log(name) for name in ("web", "scheduler", "worker1")}
    assert {name for name, log in logs.items() if "sesame" in log} == set()
