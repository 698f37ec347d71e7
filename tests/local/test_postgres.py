import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from local import postgres
from local.home import free_port
from local.leash import Identity
from local.postgres import Postgres
from local.process import Process, StartFailed
from tests.services import eventually

PASSWORD = "password-of-this-test"

Shared = tuple[Postgres, Process, Path]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "home" / "postgres"


@pytest.fixture
def server(data: Path) -> Postgres:
    return Postgres(data, port=free_port(), password=PASSWORD, throwaway=True)


@pytest.fixture
def running(server: Postgres) -> Iterator[Process]:
    process = start(server)
    yield process
    process.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A running server for tests that only look."""
    data = tmp_path_factory.mktemp("shared") / "home" / "postgres"
    server = Postgres(data, port=free_port(), password=PASSWORD, throwaway=True)
    process = start(server)
    yield server, process, data
    process.kill()


def start(server: Postgres) -> Process:
    lines: list[str] = []
    process = Process(server.program(), lines.append)
    eventually(server.is_ready, saying=lambda: "\n".join(lines))
    server.ensure_database()
    return process


def ask(server: Postgres, query: str) -> object:
    with psycopg.connect(server.url) as connection:
        row = connection.execute(query).fetchone()
    return None if row is None else row[0]


def tell(server: Postgres, statement: str) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute(statement)


def test_an_empty_directory_becomes_a_server_of_the_wheels_major(shared: Shared) -> None:
    server, _, _ = shared
    assert str(ask(server, "SHOW server_version")).startswith("18.")
    assert ask(server, "SHOW timezone") == "UTC"


def test_what_was_stored_is_there_after_a_restart(server: Postgres, running: Process) -> None:
    tell(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert running.stop() == 0
    again = start(server)
    assert ask(server, "SELECT answer FROM kept") == 42
    assert again.stop() == 0


def test_a_server_that_was_killed_starts_again_on_its_data(
    server: Postgres, running: Process
) -> None:
    tell(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    running.kill()
    again = start(server)
    assert ask(server, "SELECT answer FROM kept") == 42
    again.kill()


def test_nobody_gets_in_without_the_password(shared: Shared) -> None:
    server, _, _ = shared
    for wrong in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.url.replace(PASSWORD, wrong))


def test_only_the_loopback_address_is_served(shared: Shared) -> None:
    _, running, _ = shared
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(running.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]


def test_the_password_is_on_no_command_line(shared: Shared) -> None:
    _, running, _ = shared
    assert PASSWORD not in " ".join(psutil.Process(running.pid).cmdline())


def test_the_data_is_private(shared: Shared) -> None:
    _, _, data = shared
    assert data.stat().st_mode & 0o077 == 0


def test_data_of_another_major_is_refused_with_a_way_out(data: Path, server: Postgres) -> None:
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(StartFailed, match=r"made by Postgres 15, this is Postgres 18.*Move"):
        server.program()


def test_a_directory_of_something_else_is_refused(data: Path, server: Postgres) -> None:
    data.mkdir(parents=True)
    (data / "letters.txt").write_text("dear")
    with pytest.raises(StartFailed, match="not a Postgres data directory"):
        server.program()
    assert (data / "letters.txt").read_text() == "dear"


def test_data_of_another_user_is_refused(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    server, _, _ = shared
    monkeypatch.setattr(postgres, "user_of", lambda _: (12_345, 12_345))
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with pytest.raises(StartFailed, match="start Fairq as that user"):
        server.program()


def test_an_interrupted_beginning_is_begun_again(data: Path, server: Postgres) -> None:
    unfinished = data.with_name("postgres.unfinished")
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    process = start(server)
    assert not unfinished.exists()
    process.kill()


def test_a_server_left_over_by_another_launcher_is_replaced(
    server: Postgres, running: Process
) -> None:
    tell(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    again = start(server)
    assert running.exit_code() == 0
    assert ask(server, "SELECT answer FROM kept") == 42
    again.kill()


def test_a_process_number_that_now_belongs_to_another_is_no_obstacle(
    data: Path, server: Postgres, running: Process
) -> None:
    pid_file = data / "postmaster.pid"
    text = pid_file.read_text()
    running.kill()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        pid_file.write_text(text.replace(str(running.pid), str(stranger.pid), 1))
        start(server).kill()
        assert stranger.poll() is None
        stranger.kill()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody can read."""
    with tempfile.TemporaryDirectory(prefix="fairq-open-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_root_serves_as_nobody_where_the_kernel_refuses_a_namespace(
    data: Path, server: Postgres, monkeypatch: pytest.MonkeyPatch, open_directory: Path
) -> None:
    """Run by an ordinary user, it shows that a refused namespace is not even tried."""
    real = postgres._major

    def refuse(binaries: Path, identity: Identity, directory: Path) -> int:
        if identity is Identity.MAPPED:
            raise subprocess.CalledProcessError(1, "unshare")
        return real(binaries, identity, directory)

    monkeypatch.setattr(postgres, "_major", refuse)
    monkeypatch.setattr(postgres, "_SHARED_BINARIES", open_directory)
    process = start(server)
    root = os.geteuid() == 0
    assert psutil.Process(process.pid).username() == (
        "nobody" if root else psutil.Process().username()
    )
    assert process.stop() == 0
    monkeypatch.undo()
    # The namespace is there again, and the data changes hands.
    again = start(server)
    assert psutil.Process(again.pid).uids().real == os.geteuid()
    again.kill()


def test_root_is_told_when_nothing_is_left_to_try(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setattr(postgres, "_SHARED_BINARIES", in_the_way)
    embedded = postgres._embedded()
    assert embedded is not None
    with pytest.raises(StartFailed, match=r"root cannot run Postgres here.*ordinary user"):
        postgres._share(embedded)
