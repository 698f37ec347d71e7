"""The web server as a process of its own: sockets, signals, bodies as they really arrive."""

import http.client
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import pytest
import socketio

from local import programs
from local.process import Program
from tests.services import ADMIN, Services, Stack, clean_environment, eventually, run_to_end
from webapp.server import raise_file_limit

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def stack(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A web server and nothing else."""
    with Stack(services, tmp_path_factory.mktemp("web")) as stack:
        stack.start("web")
        yield stack
        assert stack.stop("web") == 0


@pytest.fixture
def web(stack: Stack) -> Iterator[httpx.Client]:
    """Scripts of the administrator; a server that the test stopped is started again."""
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        body = {"name": "tests", "scopes": ["read", "submit", "work"]}
        token = client.post("/tokens", json=body, auth=ADMIN).json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client
    if not stack.is_running("web"):
        stack.start_again("web")


def test_any_job_id_comes_through_the_server(web: httpx.Client) -> None:
    for job_id in ("a/logs", "100%", "%2F", "日本"):
        web.post("/jobs", json={"type": "simulate", "job_id": job_id})

        assert web.get(f"/jobs/{quote(job_id, safe='')}").json()["job_id"] == job_id


def test_bodies_without_a_length_are_read_and_bounded(web: httpx.Client) -> None:
    def pieces(size: int) -> Iterator[bytes]:
        yield b'{"type": "simulate", "payload": {"message": "'
        yield from (b"x" * 1024 for _ in range(size // 1024))
        yield b'"}}'

    headers = {"Content-Type": "application/json"}

    small = web.post("/jobs", content=pieces(1024), headers=headers)
    large = web.post("/jobs", content=pieces(3 * 2**20), headers=headers)

    assert small.status_code == 201
    assert large.status_code == 413


def test_broken_requests_do_not_disturb_the_next(web: httpx.Client, stack: Stack) -> None:
    raw = http.client.HTTPConnection(stack.url.removeprefix("http://"), timeout=10)
    raw.connect()
    raw.sock.sendall(b"NONSENSE\r\n\r\n")
    assert b"400" in raw.sock.recv(100)
    raw.close()

    assert web.get("/healthz").status_code == 200


def connect(stack: Stack, web: httpx.Client) -> socketio.Client:
    client = socketio.Client(reconnection=False)
    token = web.headers["Authorization"].removeprefix("Bearer ")
    client.connect(stack.url, auth={"token": token}, transports=["websocket"])
    return client


def test_events_come_over_a_websocket(web: httpx.Client, stack: Stack) -> None:
    heard: list[str] = []
    client = connect(stack, web)
    client.on("job", lambda change: heard.append(change["job_id"]))

    web.post("/jobs", json={"type": "simulate", "job_id": "heard"})

    assert client.transport() == "websocket"
    eventually(lambda: "heard" in heard)
    client.disconnect()


def test_a_stop_lets_requests_finish_and_takes_no_more(web: httpx.Client, stack: Stack) -> None:
    connect(stack, web)  # an open socket holds nothing up
    with ThreadPoolExecutor() as pool, psycopg.connect(stack.database_url) as blocker:
        blocker.execute("LOCK TABLE job_types")
        asked: Future[httpx.Response] = pool.submit(web.get, "/types")
        eventually(lambda: waiting_for_locks(stack) == 1)

        os.kill(stack.pid("web"), signal.SIGTERM)
        eventually(lambda: refuses(stack))
        blocker.rollback()

        assert asked.result(timeout=10).status_code == 200
    began = time.monotonic()
    eventually(lambda: not stack.is_running("web"), within=10)
    assert time.monotonic() - began < 5
    assert "web server stopped" in stack.log("web")


def test_a_stop_lets_go_of_who_waits_for_a_job(web: httpx.Client, stack: Stack) -> None:
    asked = {"worker": "w", "wait_seconds": 60}
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(web.post, "/jobs/next", json=asked, timeout=60)
        eventually(lambda: asks(stack) == 1)

        os.kill(stack.pid("web"), signal.SIGTERM)

        assert asking.result().status_code == 204
    assert asks(stack) == 0
    eventually(lambda: not stack.is_running("web"), within=10)


def test_who_hangs_up_asks_for_no_job_any_more(web: httpx.Client, stack: Stack) -> None:
    body = b'{"worker": "w", "wait_seconds": 60}'
    with connection_to(stack) as client:
        client.sendall(
            b"POST /jobs/next HTTP/1.1\r\nHost: fairq\r\nContent-Type: application/json\r\n"
            b"Authorization: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (web.headers["Authorization"].encode(), len(body), body)
        )
        eventually(lambda: asks(stack) == 1)

    eventually(lambda: asks(stack) == 0, within=10)


def connection_to(stack: Stack) -> socket.socket:
    address = urlsplit(stack.url)
    assert address.hostname is not None
    return socket.create_connection((address.hostname, address.port or 80), timeout=30)


def asks(stack: Stack) -> int:
    with psycopg.connect(stack.database_url) as connection:
        (count,) = connection.execute("SELECT count(*) FROM asks").fetchone() or (0,)
    return int(count)


def waiting_for_locks(stack: Stack) -> int:
    with psycopg.connect(stack.database_url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    assert found is not None
    count: int = found[0]
    return count


def refuses(stack: Stack) -> bool:
    try:
        httpx.get(stack.url + "/healthz", timeout=1)
    except httpx.ConnectError:
        return True
    return False


def test_sockets_are_patched_before_anything_opens_one(web: httpx.Client, stack: Stack) -> None:
    """Requests wait for the database side by side, which threads of one loop could not."""
    with ThreadPoolExecutor(8) as pool, psycopg.connect(stack.database_url) as blocker:
        blocker.execute("LOCK TABLE job_types")
        asked = [pool.submit(web.get, "/types") for _ in range(8)]
        eventually(lambda: waiting_for_locks(stack) == 8)

        alive = web.get("/healthz").status_code
        blocker.rollback()

        assert alive == 200
        assert [one.result(timeout=10).status_code for one in asked] == [200] * 8
    assert "MonkeyPatchWarning" not in stack.log("web")


def test_the_log_holds_ids_and_no_secrets(web: httpx.Client, stack: Stack) -> None:
    web.get("/jobs?q=very-secret", headers={"X-Request-ID": "find-me"})

    eventually(lambda: "find-me" in stack.log("web"))
    assert "very-secret" not in stack.log("web")
    assert "fq_" not in stack.log("web")


def test_unusable_settings_are_told_together() -> None:
    environment = {**clean_environment(), "DATABASE_URL": "sqlite://", "FAIRQ_PORT": "x"}
    program = Program(
        name="web",
        command=programs.web(environment).command,
        environment=environment,
        directory=programs.ROOT,
    )

    with pytest.raises(AssertionError) as ended:
        run_to_end(program)

    told = str(ended.value)
    assert all(name in told for name in ("DATABASE_URL", "REDIS_URL", "FAIRQ_PORT"))
    assert "Traceback" not in told


def test_as_many_clients_may_connect_as_the_system_allows() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1] - 1, limits[1]))

        raise_file_limit()

        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    eventually(
        lambda: threading.active_count() <= before, saying=lambda: str(threading.enumerate())
    )
