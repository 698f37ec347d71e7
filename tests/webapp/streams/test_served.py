"""Streams of the web server as a process of its own, over real sockets."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import LiteralString

import httpx
import psutil
import psycopg
import pytest
import websocket

from scheduler.states import JobStatus
from tests.services import ADMIN, Services, Stack, eventually
from tests.system.client import Client
from tests.webapp.streams.clients import Reader, Socket, events_of, raw_stream, read_until
from webapp.extensions import CONNECTIONS
from webapp.server import FINISHING

pytestmark = pytest.mark.system

CLIENTS = 100

BURST = 9_000
"""More than a connection holds in its buffers, and less than is told to who comes back."""

CONNECTIONS_OPEN = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'fairq'
"""

MANY_MOVES = """
INSERT INTO job_events (job_id, owner_id, at, verb, status, attempt, data)
SELECT jobs.id, owner_id, now(), 'start', 'ready', 0, jsonb_build_object('error', repeat('x', 700))
FROM jobs, generate_series(1, %s) WHERE job_id = %s
RETURNING seq
"""


@pytest.fixture(scope="module")
def stack(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A web server and nothing else."""
    with Stack(services, tmp_path_factory.mktemp("web")) as stack:
        stack.start("web")
        yield stack


@pytest.fixture
def admin(stack: Stack) -> Iterator[Client]:
    """Scripts of the administrator; a server that the test stopped is started again."""
    client = Client.admin(stack)
    yield client
    client.close()
    if not stack.is_running("web"):
        stack.start_again("web")


@pytest.fixture
def token(admin: Client) -> str:
    return admin.token


def bearer(token: str) -> list[str]:
    return [f"Authorization: Bearer {token}"]


def test_changes_come_as_events_and_as_messages(admin: Client, stack: Stack, token: str) -> None:
    with events_of(stack.url, token) as events, Socket(stack.url) as messages:
        messages.say(token=token)
        for reader in (events, messages):
            reader.wait_for("live")
        job_id = admin.submit()["job_id"]
        admin.call("PATCH", f"/jobs/{job_id}/cancel")

        told = [reader.wait_for("job", 2) for reader in (events, messages)]

    assert told[0] == told[1]
    assert [(one.data["job_id"], one.data["verb"]) for one in told[0]] == [
        (job_id, "submit"),
        (job_id, "cancel"),
    ]


def test_a_client_that_was_away_is_told_what_it_missed(
    admin: Client, stack: Stack, token: str
) -> None:
    with events_of(stack.url, token) as first:
        first.wait_for("live")
        admin.submit()
        [known] = first.wait_for("job")
    missed = [admin.submit()["job_id"] for _ in range(2)]

    with events_of(stack.url, token, after=known.id) as events, Socket(stack.url) as messages:
        messages.say(token=token, last_event_id=known.id)
        told = [reader.wait_for("job", 2) for reader in (events, messages)]

    assert [[one.data["job_id"] for one in jobs] for jobs in told] == [missed, missed]


def test_a_session_opens_a_websocket_from_pages_of_this_server_only(
    admin: Client, stack: Stack
) -> None:
    cookie = session_of(stack)
    with (
        Socket(stack.url, cookie=cookie, origin=stack.url) as ours,
        Socket(stack.url, cookie=cookie, origin="http://evil.test") as theirs,
    ):
        for page in (ours, theirs):
            page.say()
        ours.wait_for("live")
        eventually(theirs.is_over)

    assert theirs.closed == (1008, "unauthenticated")
    assert theirs.heard == []


def session_of(stack: Stack) -> str:
    with httpx.Client(base_url=stack.url) as browser:
        page = browser.get("/docs").text
        csrf = page.partition('name="csrf-token" content="')[2].partition('"')[0]
        form = {"username": ADMIN[0], "password": ADMIN[1], "csrf_token": csrf}
        assert browser.post("/sign-in", data=form).status_code == 302
        return f"fairq_session={browser.cookies['fairq_session']}"


def test_a_wrong_token_is_refused_before_protocols_are_switched(stack: Stack) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        Socket(stack.url, header=bearer("wrong"))

    assert refusal.value.status_code == 401
    assert b'"code":"unauthenticated"' in (refusal.value.resp_body or b"")


def test_a_connection_of_a_websocket_serves_no_further_requests(
    admin: Client, stack: Stack, token: str
) -> None:
    with Socket(stack.url, header=bearer(token)) as client:
        client.socket.send_close(4000, b"enough")
        eventually(client.is_over)

        assert client.closed == (4000, "enough")
        assert client.socket.sock.recv(1) == b""


def test_pings_of_a_client_are_answered(stack: Stack, token: str) -> None:
    client = websocket.create_connection(
        f"{stack.url.replace('http', 'ws')}/jobs/stream", timeout=30, header=bearer(token)
    )
    with closing(client):
        client.send("{}")
        client.ping("are you there")

        eventually(lambda: client.recv_data_frame(control_frame=True)[1].data == b"are you there")


def test_many_idle_clients_hold_neither_threads_nor_connections_and_all_hear(
    admin: Client, stack: Stack, token: str
) -> None:
    web = psutil.Process(stack.pid("web"))
    threads = web.num_threads()
    with ExitStack() as opened:
        clients = [
            opened.enter_context(closing(raw_stream(stack.url, token))) for _ in range(CLIENTS)
        ]
        for client in clients:
            read_until(client, b"event: live")

        held = number(stack, CONNECTIONS_OPEN)
        job_id = admin.submit()["job_id"]
        heard = [read_until(client, b"event: job") for client in clients]

        assert all(job_id.encode() in one for one in heard)
        assert web.num_threads() - threads < CLIENTS / 10
        assert held <= CONNECTIONS < CLIENTS


def number(stack: Stack, question: LiteralString) -> int:
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute(question).fetchone()
    assert row is not None
    return int(row[0])


def test_a_client_that_reads_nothing_is_cut_off_and_disturbs_nobody(
    admin: Client, stack: Stack, token: str
) -> None:
    job_id = admin.submit()["job_id"]
    with (
        closing(raw_stream(stack.url, token, buffer=4096)) as deaf,
        events_of(stack.url, token) as reader,
    ):
        read_until(deaf, b"event: live")
        [live] = reader.wait_for("live")
        here = deaf.getsockname()
        with psycopg.connect(stack.database_url) as connection:
            rows = connection.execute(MANY_MOVES, (BURST, job_id)).fetchall()
        written = [row[0] for row in rows]

        told = told_to_the_end(stack, token, reader, len(written))
        eventually(lambda: here not in peers(stack), saying="the deaf client is still served")

    assert live.id < written[0]
    assert told == written
    assert admin.call("GET", "/healthz").status_code == 200


def told_to_the_end(stack: Stack, token: str, reader: Reader, count: int) -> list[int | None]:
    """Read so many changes, coming back whenever the stream asks for it."""
    readers = [reader]

    def told() -> list[int | None]:
        return [number for one in readers for number in one.ids()]

    with ExitStack() as opened:
        while len(told()) < count:
            eventually(lambda: len(told()) >= count or readers[-1].is_over())
            if readers[-1].is_over():
                last = readers[-1].heard[-1]
                assert last.name == "resume"
                again = events_of(stack.url, token, after=last.data["seq"])
                readers.append(opened.enter_context(again))
    return told()


def peers(stack: Stack) -> set[tuple[str, int]]:
    """Return the other ends of the server's open connections."""
    open_now = psutil.Process(stack.pid("web")).net_connections("tcp")
    return {tuple(one.raddr) for one in open_now if one.raddr}


def test_waiting_ends_with_the_job(admin: Client, stack: Stack) -> None:
    job_id = admin.submit()["job_id"]
    with ThreadPoolExecutor() as pool:
        waits = [
            pool.submit(admin.call, "GET", f"/jobs/{job_id}/wait?timeout_seconds=300")
            for _ in range(5)
        ]
        admin.call("PATCH", f"/jobs/{job_id}/cancel")

        answers = [one.result(timeout=60) for one in waits]

    assert [(one.status_code, one.json()["status"]) for one in answers] == [
        (200, JobStatus.CANCELLED)
    ] * 5


def test_a_stop_takes_leave_of_everybody_and_waits_for_nobody(
    admin: Client, stack: Stack, token: str
) -> None:
    job_id = admin.submit()["job_id"]
    last = admin.get(f"/jobs/{job_id}/events")["events"][-1]["seq"]
    write_line(stack, job_id)
    with (
        ThreadPoolExecutor() as pool,
        begun(stack, pool, f"/jobs/{job_id}/wait?timeout_seconds=300") as waiting,
        closing(raw_stream(stack.url, token, buffer=4096)) as deaf,
        events_of(stack.url, token) as events,
        Socket(stack.url, header=bearer(token)) as messages,
        events_of(stack.url, token, f"/jobs/{job_id}/logs?follow=1") as lines,
    ):
        messages.say()
        for reader in (events, messages):
            reader.wait_for("live")
        read_until(deaf, b"event: live")
        lines.wait_for("log")

        os.kill(stack.pid("web"), signal.SIGTERM)
        began = time.monotonic()
        eventually(lambda: not stack.is_running("web"))
        took = time.monotonic() - began
        eventually(lambda: all(one.is_over() for one in (events, messages, lines)))

        assert took < FINISHING.total_seconds()
        assert events.problem is lines.problem is None
        for reader in (events, messages):
            assert [(one.name, one.data) for one in reader.heard][-1] == ("resume", {"seq": last})
        assert [one.name for one in lines.heard] == ["log", "resume"]
        assert messages.closed == (1001, "stopping")
        assert waiting.result(timeout=10).status_code == 202
    assert "Traceback" not in stack.log("web")


@contextmanager
def begun(stack: Stack, pool: ThreadPoolExecutor, path: str) -> Iterator[Future[httpx.Response]]:
    """Ask for something about jobs; the server has taken the request when the block begins."""
    client = Client.admin(stack)
    with closing(client), psycopg.connect(stack.database_url) as blocker:
        blocker.execute("LOCK TABLE jobs")
        asked = pool.submit(client.call, "GET", path)
        eventually(lambda: waiting_for_locks(stack))
        blocker.rollback()
        yield asked


def waiting_for_locks(stack: Stack) -> int:
    return number(stack, "SELECT count(*) FROM pg_locks WHERE NOT granted")


def write_line(stack: Stack, job_id: str) -> None:
    with psycopg.connect(stack.database_url) as connection:
        connection.execute(
            "INSERT INTO job_logs (job_id, attempt, at, level, message)"
            " SELECT id, 1, now(), 'info', 'hello' FROM jobs WHERE job_id = %s",
            (job_id,),
        )
