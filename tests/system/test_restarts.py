"""Processes that are restarted under load fail no job and forget no cancel."""

import itertools
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import psycopg
import pytest

from tests.services import Stack, eventually
from tests.system.client import Client
from tests.system.history import assert_never_above, history

CAPACITY = {"cpu_units": 16.0, "memory_mb": 8192}
_BETWEEN_SUBMISSIONS = 0.05
_BETWEEN_TRIES = 0.1


class Load:
    """Submits one job after the other until it is told to stop, however often it has to ask."""

    def __init__(self, client: Client) -> None:
        self.accepted: list[str] = []
        self._client = client
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        self._thread.start()
        yield
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        for number in itertools.count():
            if self._over.wait(_BETWEEN_SUBMISSIONS):
                return
            self._submit(f"job_{number}", 0.1 + 0.3 * (number % 4))

    def _submit(self, job_id: str, seconds: float) -> None:
        job = {"type": "simulate", "job_id": job_id, "payload": {"duration_seconds": seconds}}
        while not self._is_accepted(job):
            self._over.wait(_BETWEEN_TRIES)
        self.accepted.append(job_id)

    def _is_accepted(self, job: dict[str, object]) -> bool:
        try:
            answer = self._client.call("POST", "/jobs", json=job)
        except httpx.TransportError:  # the server is being restarted; whether it took the job
            return False  # shows the next try
        assert answer.status_code in {200, 201, 503}, answer.text
        return answer.status_code != 503


@pytest.mark.timeout(300)
def test_every_process_is_restarted_under_load_and_no_job_fails(
    stack: Stack, admin: Client
) -> None:
    stack.start("scheduler2")
    workers = ("worker1", "worker2")
    for name in workers:
        stack.start_worker(name)
    load = Load(admin)

    with load.going_on():
        for name in ("scheduler", "worker1", "web", "scheduler2", "worker2"):
            done = len(load.accepted)
            assert stack.stop(name) == 0, stack.log(name)
            stack.start_again(name)
            eventually(lambda done=done: len(load.accepted) >= done + 10)

    ends = "completed,failed,cancelled"
    jobs = {job["job_id"]: job for job in _all(admin)}
    assert set(jobs) == set(load.accepted)
    eventually(lambda: not admin.get("/jobs", status="pending,active,retrying")["jobs"], within=60)
    assert Counter(job["status"] for job in _all(admin, status=ends)) == {"completed": len(jobs)}
    assert _outcomes(stack) <= {"completed", "interrupted"}
    assert_never_above(history(stack.database_url), **CAPACITY)


def _all(client: Client, **params: str) -> list[dict[str, str]]:
    jobs, cursor = [], None
    while True:
        page = client.get("/jobs", limit=500, **params, **({"cursor": cursor} if cursor else {}))
        jobs += page["jobs"]
        if (cursor := page["next_cursor"]) is None:
            return jobs


def _outcomes(stack: Stack) -> set[str]:
    with psycopg.connect(stack.database_url) as connection:
        return {row[0] for row in connection.execute("SELECT DISTINCT outcome FROM attempts")}


def test_a_cancel_outlives_every_process(stack: Stack, admin: Client) -> None:
    stack.start_worker()
    job = admin.submit(payload={"duration_seconds": 600})["job_id"]
    admin.wait_for(job, "running")
    os.kill(stack.pid("worker1"), signal.SIGSTOP)
    for child in _children(stack, "worker1"):
        os.kill(child, signal.SIGSTOP)

    assert admin.call("PATCH", f"/jobs/{job}/cancel").json()["status"] == "running"
    for name in ("worker1", "scheduler", "web"):
        stack.kill(name)
    with psycopg.connect(stack.database_url) as connection:  # as it is when its time has passed
        connection.execute("UPDATE active SET lease_until = now()")
    for name in ("scheduler", "web", "worker1"):
        stack.start_again(name)

    ended = admin.wait_for(job, "cancelled")
    assert ended["reason"] == "cancelled_by_user"
    assert len(admin.get(f"/jobs/{job}/attempts")["attempts"]) == 1


def _children(stack: Stack, name: str) -> list[int]:
    return [child.pid for child in psutil.Process(stack.pid(name)).children(recursive=True)]


def test_a_cancelled_job_that_is_given_back_does_not_run_again(stack: Stack, admin: Client) -> None:
    stack.start_worker(FAIRQ_DRAIN_SECONDS="0")
    job = admin.submit(payload={"duration_seconds": 600})["job_id"]
    admin.wait_for(job, "running")
    for child in _children(stack, "worker1"):
        os.kill(child, signal.SIGSTOP)  # so that the job does not hear of it

    admin.call("PATCH", f"/jobs/{job}/cancel")
    for child in _children(stack, "worker1"):
        os.kill(child, signal.SIGCONT)
    stack.stop("worker1")

    assert admin.wait_for(job, "cancelled")["reason"] == "cancelled_by_user"
