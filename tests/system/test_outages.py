"""While a service is away nothing is lost, and nobody has to be started again when it is back."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.services import OwnServices, Stack, eventually
from tests.system.client import Body, Client
from tests.system.history import assert_never_above, history

PROCESSES = ("web", "scheduler", "worker1")
CAPACITY = {"cpu_units": 8.0, "memory_mb": 4096}
SHORT_JOB = {"type": "simulate", "payload": {"duration_seconds": 0.3}}


@pytest.fixture
def stack(own_stack: Stack) -> Stack:
    return own_stack


@contextmanager
def nobody_restarts(stack: Stack) -> Iterator[None]:
    before = {name: stack.pid(name) for name in PROCESSES}
    yield
    assert {name: stack.pid(name) for name in PROCESSES} == before
    assert all(stack.is_running(name) for name in PROCESSES)


def _submit(admin: Client, count: int, prefix: str) -> list[Body]:
    return admin.submit_batch(SHORT_JOB | {"job_id": f"{prefix}_{n}"} for n in range(count))


def _refused(admin: Client) -> bool:
    """Tell whether a submission is refused for a moment, as it has to be."""
    answer = admin.call("POST", "/jobs", json=SHORT_JOB)
    if answer.status_code == 201:
        return False
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    return True


def _accepted(admin: Client) -> bool:
    return admin.call("POST", "/jobs", json=SHORT_JOB).status_code == 201


def _assert_all_completed(stack: Stack, admin: Client, jobs: list[Body]) -> None:
    done = admin.wait_for_all(jobs, within=90)
    assert Counter(job["status"] for job in done.values()) == {"completed": len(jobs)}
    eventually(lambda: not admin.get("/jobs", status="pending,active,retrying")["jobs"])
    assert_never_above(history(stack.database_url), **CAPACITY)


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_postgres_may_go_away(stack: Stack, admin: Client, own: OwnServices, way: str) -> None:
    jobs = _submit(admin, 30, "before")
    eventually(lambda: admin.get("/jobs", status="completed")["jobs"])

    with nobody_restarts(stack):
        own.stop_postgres() if way == "stopped" else own.kill_postgres()
        assert eventually(lambda: _refused(admin))
        assert admin.call("GET", "/readyz").status_code == 503
        assert admin.call("GET", "/healthz").status_code == 200
        own.start_postgres()

        eventually(lambda: _accepted(admin))
        eventually(lambda: admin.call("GET", "/readyz").status_code == 200)
        _assert_all_completed(stack, admin, jobs + _submit(admin, 10, "after"))
    assert {admin.job(job["job_id"])["attempt"] for job in jobs} == {1}


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_redis_may_go_away(stack: Stack, admin: Client, own: OwnServices, way: str) -> None:
    jobs = _submit(admin, 20, "before")

    with nobody_restarts(stack):
        own.stop_valkey() if way == "stopped" else own.kill_valkey()
        jobs += _submit(admin, 20, "meanwhile")
        assert admin.submit(job_id="alone")["status"] == "ready"
        assert admin.call("GET", "/readyz").status_code == 503
        own.start_valkey()

        _assert_all_completed(stack, admin, jobs + _submit(admin, 10, "after"))


@contextmanager
def full_disk(database_url: str) -> Iterator[None]:
    """Let Postgres refuse what makes jobs or their history grow, as it does on a full disk."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'could not extend file: No space left on device'"
            " USING ERRCODE = 'disk_full'; END $$"
        )
        for table in ("job_events", "jobs"):  # one lock at a time, in no transaction
            connection.execute(
                f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION full_disk()"
            )
        yield
        for table in ("job_events", "jobs"):
            connection.execute(f"DROP TRIGGER full_disk ON {table}")


def test_a_full_disk_is_like_postgres_being_away(stack: Stack, admin: Client) -> None:
    jobs = _submit(admin, 12, "before")
    running = admin.submit(job_id="running", payload={"duration_seconds": 1, "result": 7})
    admin.wait_for("running", "running")

    with nobody_restarts(stack):
        with full_disk(stack.database_url):
            assert _refused(admin)
            eventually(lambda: "postgres away" in stack.log("worker1"))
            assert admin.job("running")["status"] == "running"
        eventually(lambda: _accepted(admin))

        _assert_all_completed(stack, admin, [*jobs, running])
    assert admin.job("running")["result"] == 7
    assert admin.job("running")["attempt"] == 1
