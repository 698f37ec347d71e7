"""However often something is asked for or delivered, it happens once."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import psycopg
import pytest

from tests.services import Stack
from tests.system.client import Client

CLIENTS = 50


@pytest.mark.parametrize("by", ["job_id", "Idempotency-Key"])
def test_the_same_job_from_fifty_clients_is_one_job(stack: Stack, admin: Client, by: str) -> None:
    stack.start_worker()
    barrier = Barrier(CLIENTS)
    job: dict[str, Any] = {"type": "simulate", "payload": {"result": 1}}
    headers = {"Idempotency-Key": "the same"} if by == "Idempotency-Key" else {}
    if by == "job_id":
        job["job_id"] = "the_same"

    def submit(_number: int) -> httpx.Response:
        barrier.wait(30)
        return admin.call("POST", "/jobs", json=job, headers=headers)

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(submit, range(CLIENTS)))

    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: CLIENTS - 1}
    assert Counter(answer.json()["duplicate"] for answer in answers) == {
        False: 1,
        True: CLIENTS - 1,
    }
    (job_id,) = {answer.json()["job_id"] for answer in answers}
    admin.wait_for(job_id, "completed")
    with psycopg.connect(stack.database_url) as connection:
        count = "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM attempts)"
        assert connection.execute(count).fetchone() == (1, 1)
