"""What many clients cost that listen to streams, and how soon all of them hear of a change."""

import socket
import time
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

import psutil
import psycopg

from tests.services import Services, Stack
from tests.system.client import Client
from tests.webapp.streams.clients import raw_stream, read_until

IDLE = timedelta(seconds=10)
"""How long the server is watched while nothing happens."""

CONNECTIONS = """
SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'fairq'
"""


def run(services: Services, directory: Path, quick: bool) -> None:  # noqa: FBT001 - the shape of a benchmark
    """Print what a server needs for idle streams, then how long news takes to reach them all."""
    count, idle = (50, IDLE / 10) if quick else (1000, IDLE)
    with Stack(services, directory) as stack, ExitStack() as opened:
        stack.start("web")
        web = psutil.Process(stack.pid("web"))
        client = Client.admin(stack)
        opened.callback(client.close)
        client.submit()
        before, begun = web.memory_info().rss, time.perf_counter()
        listeners = [
            opened.enter_context(closing(raw_stream(stack.url, client.token))) for _ in range(count)
        ]
        for one in listeners:
            read_until(one, b"event: live")
        opening = time.perf_counter() - begun
        memory = (web.memory_info().rss - before) / count / 1024
        print(f"{count} streams opened in {opening:.1f} s, {memory:.0f} KiB each")
        _watch(stack, web, idle)
        for who in ("first", "next"):
            print(f"the {who} change heard by all in {_tell_all(client, listeners) * 1e3:.0f} ms")


def _watch(stack: Stack, web: psutil.Process, idle: timedelta) -> None:
    busy = web.cpu_percent(idle.total_seconds())
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute(CONNECTIONS).fetchone()
    assert row is not None
    print(
        f"idle: {busy:.1f} % of a processor, {web.num_threads()} threads,"
        f" {row[0]} connections to Postgres of which {row[1]} in use"
    )


def _tell_all(client: Client, listeners: list[socket.socket]) -> float:
    begun = time.perf_counter()
    client.submit()
    for one in listeners:
        read_until(one, b"event: job")
    return time.perf_counter() - begun
