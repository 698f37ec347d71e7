"""Streams of a whole Fairq: everything is told, once and in order, whatever goes on around them."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from scheduler.states import DISCARD
from tests.services import OwnServices, Stack, eventually
from tests.system.client import Body, Client
from tests.webapp.streams.clients import Reader, Socket, events_of

NOOP = {"type": "simulate", "payload": {"duration_seconds": 0}}
WHOLE_LIFE = ["submit", "admit", "start", "succeed"]


@pytest.fixture
def token(admin: Client) -> str:
    return admin.token


def recorded(stack: Stack, after: int) -> list[int]:
    """Return the number of every change that was written down since, in order."""
    with psycopg.connect(stack.database_url) as connection:
        rows = connection.execute(
            "SELECT seq FROM job_events WHERE seq > %s ORDER BY seq", (after,)
        ).fetchall()
    return [row[0] for row in rows]


def test_a_job_is_followed_from_its_submission_to_its_last_line(
    stack: Stack, admin: Client, token: str
) -> None:
    stack.start_worker()
    with events_of(stack.url, token) as changes:
        changes.wait_for("live")
        payload = {"duration_seconds": 0.5, "log_lines": 20, "message": "hello"}
        job_id = admin.submit(payload=payload)["job_id"]
        with events_of(stack.url, token, f"/jobs/{job_id}/logs?follow=1") as log:
            waited = admin.call("GET", f"/jobs/{job_id}/wait?timeout_seconds=60")
            [end] = log.wait_for("end")
            told = changes.wait_for("job", len(WHOLE_LIFE))

    assert (waited.status_code, waited.json()["status"]) == (200, "completed")
    assert [one.data["verb"] for one in told] == WHOLE_LIFE
    assert [one.id for one in told] == recorded(stack, changes.ids("live")[0] or 0)
    lines = [one.data["message"] for one in log.heard if one.name == "log"]
    assert lines == ["hello", *(f"line {n} of 20" for n in range(1, 21))]
    assert (log.heard[-1], end.data) == (end, {"status": "completed"})


def test_jobs_of_pull_workers_are_told_to_their_owner_alone(stack: Stack, admin: Client) -> None:
    ann, bob = admin.make_user("ann"), admin.make_user("bob")
    with events_of(stack.url, ann.token) as anns, Socket(stack.url) as bobs:
        bobs.say(token=bob.token)
        for listener in (anns, bobs):
            listener.wait_for("live")
        job_id = ann.submit("scan", executor="pull")["job_id"]
        handed = ann.call("POST", "/jobs/next", json={"worker": "w", "wait_seconds": 20}).json()
        with events_of(stack.url, ann.token, f"/jobs/{job_id}/logs?follow=1") as log:
            report(ann, handed, "heartbeat", logs=[{"level": "info", "message": "half way"}])
            log.wait_for("log")
            report(ann, handed, "complete", status="failed", retryable=False)
            [end] = log.wait_for("end")
        ann.call("POST", "/dead-letters/discard", json={"job_ids": [job_id]})
        ann.call("POST", f"/jobs/{job_id}/retry")
        own = bob.submit("scan", executor="pull")["job_id"]

        told = anns.wait_for("job", 6)
        bobs.wait_for("job")

        assert end.data == {"status": "failed"}
        assert [one.data["message"] for one in log.heard if one.name == "log"] == ["half way"]
        assert {one.data["job_id"] for one in told} == {job_id}
        assert [one.data["verb"] for one in told] == [
            "submit",
            "admit",
            "start",
            "fail",
            DISCARD,
            "run_again",
        ]
        assert [one.data["job_id"] for one in bobs.heard if one.name == "job"] == [own]


def report(worker: Client, handed: Body, what: str, **fields: Any) -> None:
    path = f"/jobs/{handed['job_id']}/{what}"
    answer = worker.call("POST", path, json={"lease": handed["lease"], **fields})
    assert answer.status_code == 200, answer.text


class Restless:
    """A client that hangs up every now and then, and resumes from the last event it was told."""

    def __init__(self, stack: Stack, token: str, start: int, *, seed: int) -> None:
        self.told: list[int] = []
        self.names: set[str] = set()
        self._stack = stack
        self._token = token
        self._last = start
        self._reader: Reader | None = None
        self._chance = random.Random(seed)  # noqa: S311 - where to hang up
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def last(self) -> int | None:
        """Return the last event it was told so far."""
        ids = self._reader.ids() if self._reader else []
        return ids[-1] if ids else self._last

    def stop(self) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._over.is_set():
            patience = self._chance.randint(1, 200)
            with self._connect() as reader:
                self._reader = reader
                eventually(
                    lambda reader=reader, patience=patience: (
                        len(reader.ids()) >= patience or reader.is_over() or self._over.is_set()
                    ),
                    within=120,
                )
            # What came in while it hung up was told, too.
            ids = [number for number in reader.ids() if number is not None]
            self.told += ids
            self.names |= {event.name for event in reader.heard}
            self._last = ids[-1] if ids else self._last

    def _connect(self) -> Reader:
        if self._chance.random() < 0.5:
            return events_of(self._stack.url, self._token, after=self._last)
        socket = Socket(self._stack.url)
        socket.say(token=self._token, last_event_id=self._last)
        return socket


def test_under_load_every_change_is_told_once_and_in_order(
    stack: Stack, admin: Client, token: str
) -> None:
    """Submissions large and small, the leader and the worker all write at a time."""
    stack.start_worker()
    start = max([0, *recorded(stack, 0)])
    clients = [Restless(stack, token, start, seed=seed) for seed in range(4)]

    with ThreadPoolExecutor() as pool:
        sizes = (1, 3, 100) * 6
        batches = [pool.submit(admin.submit_batch, [NOOP] * size) for size in sizes]
        jobs = [job for batch in batches for job in batch.result(timeout=120)]
    admin.wait_for_all(jobs, within=120)
    expected = recorded(stack, start)
    eventually(lambda: all(one.last() == expected[-1] for one in clients))
    for client in clients:
        client.stop()

    assert len(expected) == len(WHOLE_LIFE) * len(jobs)
    for client in clients:
        assert client.told == expected
        assert client.names <= {"job", "live"}


def test_streams_go_on_without_redis(own: OwnServices, own_stack: Stack) -> None:
    admin = Client.admin(own_stack)
    with events_of(own_stack.url, admin.token) as changes, ThreadPoolExecutor() as pool:
        changes.wait_for("live")
        own.stop_valkey()
        job_id = admin.submit()["job_id"]
        log = events_of(own_stack.url, admin.token, f"/jobs/{job_id}/logs?follow=1")
        waiting = pool.submit(admin.call, "GET", f"/jobs/{job_id}/wait?timeout_seconds=120")
        with psycopg.connect(own_stack.database_url) as connection:
            connection.execute(
                "INSERT INTO job_logs (job_id, attempt, at, level, message)"
                " SELECT id, 1, now(), 'info', 'written meanwhile' FROM jobs WHERE job_id = %s",
                (job_id,),
            )
        [line] = log.wait_for("log")
        changes.wait_for("job")
        admin.call("PATCH", f"/jobs/{job_id}/cancel")

        assert waiting.result(timeout=60).status_code == 200
        assert log.wait_for("end")[0].data == {"status": "cancelled"}
        assert line.data["message"] == "written meanwhile"
        log.close()
        eventually(lambda: changes.heard[-1].data["verb"] == "cancel")
    own.start_valkey()
    admin.close()


def test_streams_outlive_a_restart_of_postgres(own: OwnServices, own_stack: Stack) -> None:
    admin = Client.admin(own_stack)
    with events_of(own_stack.url, admin.token) as changes:
        [live] = changes.wait_for("live")
        before = admin.submit()
        admin.wait_for(before["job_id"], "completed")
        own.restart_postgres()
        after = eventually(lambda: _submitted(admin))
        eventually(lambda: _status(admin, after) == "completed")
        expected = recorded(own_stack, live.id or 0)

        changes.wait_for("job", len(expected))

        assert changes.ids() == expected
        assert not changes.is_over()
    admin.close()


def _submitted(admin: Client) -> str | None:
    answer = admin.call("POST", "/jobs", json=NOOP)
    return str(answer.json()["job_id"]) if answer.status_code == 201 else None


def _status(admin: Client, job_id: str) -> str | None:
    answer = admin.call("GET", f"/jobs/{job_id}")
    return str(answer.json()["status"]) if answer.status_code == 200 else None
