from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from local.home import free_port
from local.process import Process
from local.valkey import Valkey
from tests.services import eventually

PASSWORD = "password-of-this-test"


@pytest.fixture
def server(tmp_path: Path) -> Valkey:
    return Valkey(tmp_path / "home" / "valkey", port=free_port(), password=PASSWORD)


@pytest.fixture
def running(server: Valkey) -> Iterator[Process]:
    process = start(server)
    yield process
    process.kill()


def start(server: Valkey) -> Process:
    lines: list[str] = []
    process = Process(server.program(), lines.append)
    eventually(server.is_ready, saying=lambda: "\n".join(lines))
    return process


@pytest.fixture
def client(server: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        yield client


def test_what_was_stored_is_there_after_a_restart(
    server: Valkey, running: Process, client: redis.Redis
) -> None:
    client.set("kept", "42")
    assert running.stop() == 0
    again = start(server)
    assert client.get("kept") == "42"
    again.kill()


def test_what_was_stored_survives_a_kill(
    server: Valkey, running: Process, client: redis.Redis
) -> None:
    client.set("kept", "42")
    running.kill()
    again = start(server)
    assert client.get("kept") == "42"
    again.kill()


def test_nobody_gets_in_without_the_password(server: Valkey, running: Process) -> None:
    with (
        redis.Redis.from_url(server.url.replace(PASSWORD, "")) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_the_password_is_in_a_private_file_and_on_no_command_line(
    tmp_path: Path, running: Process
) -> None:
    configuration = tmp_path / "home" / "valkey" / "valkey.conf"
    assert PASSWORD in configuration.read_text()
    assert configuration.stat().st_mode & 0o077 == 0
    assert PASSWORD not in " ".join(psutil.Process(running.pid).cmdline())


def test_only_the_loopback_address_is_served(running: Process) -> None:
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(running.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]


def test_a_server_left_over_by_another_launcher_is_replaced(
    server: Valkey, running: Process, client: redis.Redis
) -> None:
    client.set("kept", "42")
    again = start(server)
    assert running.exit_code() == 0
    assert client.get("kept") == "42"
    again.kill()
