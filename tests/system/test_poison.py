"""Jobs that attack the process they run in end as failed; the worker and everybody else go on."""

from collections import Counter
from typing import Any

import pytest

from tests.services import Stack, eventually
from tests.system.client import Body, Client

MISBEHAVING = "tests.tasks.misbehaving"
AT_ONCE = {"strategy": "fixed", "base_delay_seconds": 0, "jitter": False, "max_attempts": 20}
ONCE = {"strategy": "none"}

POISON: dict[str, tuple[dict[str, Any], str, str]] = {
    "odd.segfault": (AT_ONCE, "TooManyCrashes", "died 3 times"),
    "odd.vanish": (AT_ONCE, "TooManyCrashes", "died 3 times"),
    "odd.kill_itself": (AT_ONCE, "TooManyCrashes", "died 3 times"),
    "odd.run_out_of_memory": (ONCE, "MemoryExceeded", "more than its 128 MB"),
    "odd.ask_for_10_gb": (ONCE, "MemoryExceeded", "far more than its 128 MB"),
    "odd.loop_in_c": (ONCE, "TimeLimitExceeded", "killed: it did not stop"),
    "odd.swallow_the_limit": (ONCE, "TimeLimitExceeded", "killed: it did not stop"),
    "odd.close_connections": (ONCE, "ValueError", "closed every connection"),
    "odd.close_sockets": (ONCE, "ValueError", "closed every socket"),
    "odd.exit": (ONCE, "SystemExit", "enough"),
    "odd.raise_base_exception": (ONCE, "Odd", "not an exception"),
    "odd.raise_unpicklable": (ONCE, "Unpicklable", "exception str() failed"),
    "odd.raise_huge": (ONCE, "ValueError", "xxx"),
    "odd.return_unpicklable": (ONCE, "ResultInvalid", "not JSON"),
    "odd.return_huge": (ONCE, "ResultInvalid", "more than"),
}
"""By task: how it is tried, and the error that it ends with."""


@pytest.fixture
def worker(stack: Stack, admin: Client) -> int:
    """The process of a worker that knows the poison."""
    stack.start_worker(include=MISBEHAVING, FAIRQ_WORKER_PROCESSES="4,4")
    eventually(lambda: set(POISON) <= {each["name"] for each in admin.get("/types")["types"]})
    return stack.pid("worker1")


def _poison(kind: str) -> Body:
    retry_config, *_ = POISON[kind]
    return {"type": kind, "job_id": kind, "retry_config": retry_config, "timeout_seconds": 1.5}


@pytest.mark.timeout(300)
def test_poison_ends_as_failed_with_a_clear_error_and_stops_nobody(
    stack: Stack, admin: Client, worker: int
) -> None:
    poisoner, victim = admin.make_user("poisoner"), admin.make_user("victim")
    poison = poisoner.submit_batch(_poison(kind) for kind in POISON)
    jobs = victim.submit_batch(
        {"type": "simulate", "payload": {"duration_seconds": 0.2}} for _ in range(30)
    )

    done = victim.wait_for_all(jobs, within=120)
    failed = poisoner.wait_for_all(poison, within=120)

    assert Counter(job["status"] for job in done.values()) == {"completed": 30}
    assert {job["attempt"] for job in done.values()} == {1}
    for kind, (_, error, said) in POISON.items():
        job = failed[kind]
        assert (job["status"], job["error"]["type"]) == ("failed", error), kind
        assert said in job["error"]["message"], kind
    assert stack.is_running("worker1")
    assert stack.pid("worker1") == worker
    after = victim.submit(payload={"duration_seconds": 0})
    assert victim.wait_for(after["job_id"], "completed")


@pytest.mark.usefixtures("worker")
def test_ten_jobs_that_kill_their_process_at_once_stop_nobody(stack: Stack, admin: Client) -> None:
    poisoner, victim = admin.make_user("poisoner"), admin.make_user("victim")
    kinds = ["odd.segfault", "odd.vanish", "odd.kill_itself", "odd.loop_in_c", "odd.exit"] * 2

    poison = poisoner.submit_batch(
        _poison(kind) | {"job_id": f"poison_{n}"} for n, kind in enumerate(kinds)
    )
    jobs = victim.submit_batch(
        {"type": "simulate", "payload": {"duration_seconds": 0.2}} for _ in range(20)
    )

    done = victim.wait_for_all(jobs, within=120)
    failed = poisoner.wait_for_all(poison, within=120)
    assert Counter(job["status"] for job in done.values()) == {"completed": 20}
    assert Counter(job["status"] for job in failed.values()) == {"failed": 10}
    assert stack.is_running("worker1")
