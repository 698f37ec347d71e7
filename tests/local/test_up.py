"""``bin/up`` as a person meets it: what it says, what it survives, what it leaves behind."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from local.home import Home, free_port
from local.leash import Identity, leashed
from local.process import Process, Program
from local.programs import ROOT
from tests.services import answers, clean_environment, eventually

LONG = 60.0
PATIENCE = timedelta(seconds=LONG)


class Launcher:
    """One ``bin/up`` in a home of its own."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.lines: list[str] = []
        self._environment = {
            **clean_environment(),
            "FAIRQ_HOME": str(home),
            "FAIRQ_PORT": self.url.rpartition(":")[2],
            "FAIRQ_WORKER_PROCESSES": "2,1",
            **environment,
        }

    def start(self) -> float:
        """Start, and return how many seconds it took until everything was ready."""
        self.lines.clear()
        began = time.monotonic()
        self.process = Process(self._program(), self.lines.append)
        eventually(self._is_up, within=LONG, saying=self.text)
        return time.monotonic() - began

    def run(self) -> "subprocess.CompletedProcess[str]":
        """Start, and wait for the end."""
        program = self._program()
        return subprocess.run(
            leashed(program.command, identity=Identity.OWN, death_signal=signal.SIGTERM),
            env=dict(program.environment),
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            timeout=LONG,
        )

    def text(self) -> str:
        return "\n".join(self.lines)

    def children(self) -> dict[str, psutil.Process]:
        """Return the services and processes it keeps running, by what their commands name."""
        words = ("bin/postgres", "valkey-server", "webapp", "scheduler", "celery")
        children = [
            (child, command_of(child)) for child in psutil.Process(self.process.pid).children()
        ]
        return {word: child for child, command in children for word in words if word in command}

    def _is_up(self) -> bool:
        assert self.process.exit_code() is None, self.text()
        return "Ctrl-C stops everything" in self.text()

    def _program(self) -> Program:
        command = (sys.executable, "-m", "local", "up")
        return Program(
            name="up",
            command=command,
            environment=self._environment,
            directory=ROOT,
            stop=((signal.SIGTERM, PATIENCE),),
        )


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up") / "home"


@pytest.fixture(scope="module")
def launcher(home: Path) -> Iterator[Launcher]:
    launcher = Launcher(home)
    launcher.start()
    yield launcher
    launcher.process.kill()


def test_every_wrong_setting_is_reported_before_anything_is_made(tmp_path: Path) -> None:
    wrong = {"FAIRQ_PORT": "web", "FAIRQ_WORKER_PROCESSES": "1", "REDIS_URL": "http://here"}
    result = Launcher(tmp_path / "home", **wrong).run()
    assert result.returncode == 2
    reported = [line.split()[1] for line in result.stderr.splitlines()]
    assert sorted(reported) == ["FAIRQ_PORT", "FAIRQ_WORKER_PROCESSES", "REDIS_URL"]
    assert not (tmp_path / "home").exists()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path / "home")
    port = int(launcher.url.rpartition(":")[2])
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        result = launcher.run()
    assert result.returncode == 1
    assert f"port {port} of 127.0.0.1 is in use; set FAIRQ_PORT" in result.stderr


def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    result = Launcher(tmp_path / "home", FAIRQ_HOST="192.0.2.1").run()
    assert result.returncode == 1
    assert "FAIRQ_HOST 192.0.2.1 cannot be used" in result.stderr


def test_a_database_that_cannot_be_reached_ends_the_start(tmp_path: Path) -> None:
    nowhere = f"postgresql://fairq:word@127.0.0.1:{free_port()}/fairq"
    result = Launcher(tmp_path / "home", DATABASE_URL=nowhere).run()
    assert result.returncode == 1
    assert "DATABASE_URL cannot be used" in result.stderr
    assert "word" not in result.stderr
    assert "postgres  |" not in result.stdout


def test_a_second_start_is_told_where_the_first_runs(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        home.announce("http://127.0.0.1:8080/")
        result = Launcher(tmp_path).run()
    assert result.returncode == 1
    assert "already running" in result.stderr
    assert "http://127.0.0.1:8080/" in result.stderr


@pytest.mark.system
def test_the_printed_password_signs_in(launcher: Launcher) -> None:
    printed = re.search(r"sign in as (\S+) with the password (\S+)", launcher.text())
    assert printed, launcher.text()
    body = {"name": "first", "scopes": ["read"]}
    answer = httpx.post(f"{launcher.url}/tokens", json=body, auth=(printed[1], printed[2]))
    assert answer.status_code == 201, answer.text


@pytest.mark.system
@pytest.mark.parametrize("part", ["bin/postgres", "valkey-server", "webapp", "scheduler", "celery"])
def test_a_part_that_dies_is_started_again(launcher: Launcher, part: str) -> None:
    before = launcher.children()[part]
    before.kill()
    after = eventually(
        lambda: (now := launcher.children().get(part)) and now.pid != before.pid and now,
        within=LONG,
        saying=launcher.text,
    )
    eventually(lambda: answers(launcher.url + "/readyz"), within=LONG, saying=launcher.text)
    assert after.is_running()


@pytest.mark.system
def test_it_stops_leaving_nothing_and_starts_again_where_it_was(
    home: Path, launcher: Launcher, record_property: Callable[[str, object], None]
) -> None:
    family = psutil.Process(launcher.process.pid).children(recursive=True)
    ports = (home / "ports.json").read_text()
    assert launcher.process.stop() == 0
    assert not any(child.is_running() for child in family)
    assert list(home.glob("secrets/admin*")) == []
    record_property("warm_start_seconds", launcher.start())
    assert (home / "ports.json").read_text() == ports
    assert "sign in as admin; Ctrl-C" in launcher.text()


@pytest.mark.system
def test_a_launcher_that_is_killed_takes_everything_along(launcher: Launcher) -> None:
    family = psutil.Process(launcher.process.pid).children(recursive=True)
    assert len(family) > 5
    # Not through the fixture, which would end the rest as well.
    psutil.Process(launcher.process.pid).kill()
    eventually(lambda: not any(child.is_running() for child in family), within=LONG)
    launcher.process.kill()
    launcher.start()
