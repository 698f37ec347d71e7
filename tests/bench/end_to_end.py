"""How fast jobs are taken in, admitted and completed by a whole Fairq, and what memory it takes."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg

from tests.services import Services, Stack, eventually
from tests.system.client import Client, at

NOOP = {"type": "simulate", "payload": {"duration_seconds": 0}}
PRIORITIES = ("critical", "high", "normal", "low")
PROCESSES = ("web", "scheduler", "worker1")


def run(services: Services, directory: Path, quick: bool) -> None:  # noqa: FBT001 - the shape of a benchmark
    """Print latencies on an idle system, then rates over a thousand jobs."""
    singles, many = (20, 100) if quick else (200, 1000)
    with Stack(services, directory, FAIRQ_WORKER_PROCESSES="8,8") as stack:
        stack.start("web", "scheduler")
        stack.start_worker()
        client = Client.admin(stack)
        _latency(client, singles)
        before = _memory(stack)
        _rates(stack, client, many, batch=True)
        _rates(stack, client, many, batch=False)
        _print_growth(before, _memory(stack))


def _latency(client: Client, count: int) -> None:
    for _ in range(3):
        _one(client)
    later = {"delay_seconds": 86_400}
    alone = tuple(_timed(lambda: client.submit(**_fields(NOOP), **later)) for _ in range(count))
    _row("POST /jobs answered, idle system", alone)
    answered, completed = zip(*(_one(client) for _ in range(count)), strict=True)
    _row("POST /jobs answered, one job after the other", answered)
    _row("POST to completed, no-op job", completed)


def _one(client: Client) -> tuple[float, float]:
    begun = time.perf_counter()
    job_id = client.submit(**_fields(NOOP))["job_id"]
    answered = time.perf_counter() - begun
    job = client.wait_for(job_id, "completed")
    # By the database's clock: polling would add its own pauses.
    return answered, (at(job, "finished_at") - at(job, "created_at")).total_seconds()


def _fields(job: dict[str, object]) -> dict[str, object]:
    return {"type_": job["type"], "payload": job["payload"]}


def _row(what: str, seconds: tuple[float, ...]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[int(len(ordered) * 0.99) - 1]
    median = statistics.median(ordered)
    print(f"{what:45} p50 {median * 1e3:7.1f} ms   p99 {p99 * 1e3:7.1f} ms   n {len(ordered)}")


def _rates(stack: Stack, client: Client, count: int, *, batch: bool) -> None:
    done_before = _completed(stack)
    jobs = [NOOP | {"priority": PRIORITIES[n % 4]} for n in range(count)]
    begun = time.perf_counter()
    accepted = _submit_batch(client, jobs) if batch else _submit_singly(client, jobs)
    eventually(lambda: _completed(stack) - done_before == count, within=600, every=0.25)
    whole = time.perf_counter() - begun
    how = "in one batch" if batch else "one by one"
    print(
        f"{count} jobs of mixed priority {how:14} accepted {count / accepted:7.0f}/s"
        f"   admitted {_admission_rate(stack, count):7.0f}/s   end to end {count / whole:6.0f}/s"
    )


def _timed(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def _submit_batch(client: Client, jobs: list[dict[str, object]]) -> float:
    return _timed(lambda: client.submit_batch(jobs))


def _submit_singly(client: Client, jobs: list[dict[str, object]]) -> float:
    return _timed(lambda: [client.call("POST", "/jobs", json=job) for job in jobs])


def _query(stack: Stack, statement: str, *parameters: object) -> float:
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute(statement, parameters).fetchone()
    return float(row[0]) if row else 0.0


def _completed(stack: Stack) -> int:
    return int(_query(stack, "SELECT count(*) FROM jobs WHERE status = 'completed'"))


def _admission_rate(stack: Stack, count: int) -> float:
    return _query(
        stack,
        "SELECT count(*) / greatest(extract(epoch FROM max(at) - min(at)), 0.001)"
        " FROM (SELECT at FROM job_events WHERE verb = 'admit' ORDER BY seq DESC LIMIT %s) AS last",
        count,
    )


def _memory(stack: Stack) -> dict[str, float]:
    return {name: _tree_mb(stack.pid(name)) for name in PROCESSES}


def _tree_mb(pid: int) -> float:
    process = psutil.Process(pid)
    tree = [process, *process.children(recursive=True)]
    return sum(one.memory_info().rss for one in tree) / 2**20


def _print_growth(before: dict[str, float], after: dict[str, float]) -> None:
    for name in PROCESSES:
        growth = after[name] - before[name]
        print(f"memory of {name:12} {after[name]:7.0f} MB   grown by {growth:6.1f} MB")
