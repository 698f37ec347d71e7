"""Parts that die in the middle of a run lose no job."""

from collections import Counter
from collections.abc import Callable

import psycopg
import pytest

from tests.services import Stack, eventually
from tests.system.client import Client
from tests.system.history import assert_never_above, history

JOBS = 40
CAPACITY = {"cpu_units": 8.0, "memory_mb": 4096}


def _kill_and_start(name: str) -> Callable[[Stack], None]:
    def act(stack: Stack) -> None:
        stack.kill(name)
        stack.start_again(name)

    return act


def _flush(stack: Stack) -> None:
    stack.services.flush_redis()


ACCIDENTS: dict[str, Callable[[Stack], None]] = {
    "Redis is emptied": _flush,
    "the scheduler is killed": _kill_and_start("scheduler"),
    "the web process is killed": _kill_and_start("web"),
    "the worker is killed": _kill_and_start("worker1"),
}


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_no_job_is_lost_when(stack: Stack, admin: Client, accident: str) -> None:
    stack.start_worker()
    jobs = admin.submit_batch(
        {"type": "simulate", "job_id": f"job_{n}", "payload": {"duration_seconds": 0.3}}
        for n in range(JOBS)
    )
    eventually(lambda: len(admin.get("/jobs", status="completed")["jobs"]) >= 3)

    ACCIDENTS[accident](stack)

    done = admin.wait_for_all(jobs, within=90)
    assert Counter(job["status"] for job in done.values()) == {"completed": JOBS}
    steps = history(stack.database_url)
    assert Counter(step.verb for step in steps)["succeed"] == JOBS
    assert_never_above(steps, **CAPACITY)


def test_a_standby_takes_over_within_seconds_of_the_leaders_death(
    stack: Stack, admin: Client
) -> None:
    stack.start("scheduler2")
    stack.start_worker()

    stack.kill("scheduler")

    job = admin.submit(payload={"duration_seconds": 0})
    assert admin.wait_for(job["job_id"], "completed", within=10)
    with psycopg.connect(stack.database_url) as connection:
        epochs = connection.execute(
            "SELECT (data ->> 'epoch')::int FROM job_events WHERE verb = 'admit'"
        ).fetchall()
    assert epochs == [(2,)]


def test_a_second_worker_raises_the_capacity_and_leaves_without_losing_jobs(
    stack: Stack, admin: Client
) -> None:
    stack.start_worker("worker1", FAIRQ_WORKER_PROCESSES="2,2")
    eventually(lambda: admin.get("/stats")["capacity"]["cpu_units"] == 8)

    stack.start_worker("worker2", FAIRQ_WORKER_PROCESSES="2,2", FAIRQ_WORKER_CPU_UNITS="6")

    eventually(lambda: admin.get("/stats")["capacity"]["cpu_units"] == 14)
    names = {worker["name"].partition("@")[0] for worker in admin.get("/workers")["workers"]}
    assert names == {"worker1", "worker2"}
    jobs = admin.submit_batch(
        {"type": "simulate", "payload": {"duration_seconds": 0.5}} for _ in range(16)
    )
    eventually(
        lambda: (
            {"worker1", "worker2"}
            <= {
                job["worker"].partition("@")[0]
                for job in admin.get("/jobs", status="running,completed")["jobs"]
            }
        )
    )
    assert stack.stop("worker2") == 0
    done = admin.wait_for_all(jobs)
    assert {job["status"] for job in done.values()} == {"completed"}
    assert {job["attempt"] for job in done.values()} <= {1, 2}
    eventually(lambda: admin.get("/stats")["capacity"]["cpu_units"] == 8)


@pytest.mark.timeout(400)
def test_a_thousand_jobs_of_mixed_priority_are_all_completed(stack: Stack, admin: Client) -> None:
    stack.start_worker(FAIRQ_WORKER_PROCESSES="8,8")
    priorities = ["critical", "high", "normal", "low"]
    wanted = [
        {"type": "simulate", "priority": priorities[n % 4], "payload": {"duration_seconds": 0}}
        for n in range(1000)
    ]

    admin.submit_batch(wanted[:500])
    for one in wanted[500:]:
        admin.submit(**{"type_": one["type"], **{k: v for k, v in one.items() if k != "type"}})

    def succeeded() -> int:
        return Counter(step.verb for step in history(stack.database_url))["succeed"]

    eventually(lambda: succeeded() == 1000, within=300, every=1)
    assert_never_above(history(stack.database_url), **CAPACITY)
