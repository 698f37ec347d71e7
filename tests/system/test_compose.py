"""Every command of ``docker-compose.yml`` does its part, without a container.

Commands and health checks are taken from the file word for word and run as they stand, in a
directory that holds what ``.dockerignore`` lets into the image, with addresses of the tests' own
services in the environment.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from local.home import free_port
from local.process import Process, Program
from local.valkey import _find_binary
from scheduler.states import JobStatus
from tests.compose import ANSWERS, FLOWER, SERVICES, check_of, filled_in, unpack_image
from tests.services import ADMIN, Services, clean_environment, eventually

pytestmark = [pytest.mark.system, pytest.mark.slow]


def found(command: list[str], path: str) -> tuple[str, ...]:
    """Return a command with its program looked up, as a container does it."""
    program = shutil.which(command[0], path=path)
    assert program, command[0]
    return (program, *command[1:])


class Containers:
    """The commands of the file, each as a process."""

    def __init__(self, services: Services, directory: Path) -> None:
        self.web = f"http://127.0.0.1:{(port := free_port())}"
        self.flower = f"http://127.0.0.1:{(flower_port := free_port())}"
        self._image = directory / "image"
        self._image.mkdir()
        unpack_image(self._image)
        self._instead = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "DATABASE_URL": services.empty_database(),
            "REDIS_URL": services.redis_url,
            "FAIRQ_HOME": str(directory / "home"),
            "FAIRQ_HOST": "127.0.0.1",
            "FAIRQ_PORT": str(port),
            "FLOWER_ADDRESS": "127.0.0.1",
            "FLOWER_PORT": str(flower_port),
        }
        self._running: dict[str, Process] = {}
        self._lines: dict[str, list[str]] = {}

    def program(self, name: str, command: list[str] | None = None) -> Program:
        service = filled_in(SERVICES[name], ANSWERS)
        return Program(
            name=name,
            command=found(command or service["command"], self._instead["PATH"]),
            environment={**clean_environment(), **service["environment"], **self._instead},
            directory=self._image,
        )

    def start(self, name: str) -> None:
        lines = self._lines[name] = []
        self._running[name] = Process(self.program(name), lines.append)

    def run_to_end(self, name: str) -> None:
        self.start(name)
        process = self._running.pop(name)
        eventually(
            lambda: process.exit_code() is not None, within=90, saying=lambda: self.text(name)
        )
        assert process.exit_code() == 0, self.text(name)

    def become_healthy(self, name: str) -> None:
        def is_healthy() -> bool:
            assert self._running[name].exit_code() is None, self.text(name)
            check = self.program(name, check_of(name))
            ran = subprocess.run(
                check.command,
                env=dict(check.environment),
                cwd=check.directory,
                check=False,
                capture_output=True,
            )
            return ran.returncode == 0

        eventually(is_healthy, within=60, saying=lambda: self.text(name))

    def text(self, name: str) -> str:
        return "\n".join(self._lines[name])

    def stop(self) -> dict[str, int]:
        return {name: process.stop() for name, process in self._running.items()}


@pytest.fixture(scope="module")
def containers(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Containers]:
    services.flush_redis()
    containers = Containers(services, tmp_path_factory.mktemp("compose"))
    containers.run_to_end("migrate")
    for name in ("web", "scheduler", "worker", "flower"):
        containers.start(name)
    yield containers
    assert containers.stop() == {"web": 0, "scheduler": 0, "worker": 0, "flower": 0}


@pytest.mark.parametrize("name", ["web", "scheduler", "worker", "flower"])
def test_its_command_comes_up_healthy_by_its_own_check(containers: Containers, name: str) -> None:
    containers.become_healthy(name)


def test_its_web_server_has_everything_a_page_needs(containers: Containers) -> None:
    containers.become_healthy("web")
    with httpx.Client(base_url=containers.web, headers={"Accept": "text/html"}) as client:
        page = client.get("/sign-in")
        assert page.status_code == 200
        assets = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text))

        assert assets
        assert {client.get(asset).status_code for asset in assets} == {200}


def test_its_processes_run_a_job_together(containers: Containers) -> None:
    containers.become_healthy("web")
    with httpx.Client(base_url=containers.web, timeout=10) as client:
        wanted = {"name": "compose", "scopes": ["read", "submit"]}
        token = client.post("/tokens", json=wanted, auth=ADMIN).json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        job = client.post("/jobs", json={"type": "simulate"}).json()["job_id"]

        eventually(lambda: client.get(f"/jobs/{job}").json()["status"] == JobStatus.COMPLETED)


def test_flower_asks_for_its_password_and_changes_nothing(containers: Containers) -> None:
    containers.become_healthy("flower")
    with httpx.Client(base_url=containers.flower, timeout=10) as client:
        seen = client.get("/workers", auth=FLOWER)
        refused = client.post("/api/worker/shutdown/worker@nowhere", auth=FLOWER)

        assert client.get("/workers").status_code == 401
        assert seen.status_code == 200
        assert refused.status_code == 403, refused.text
        assert "read only" in refused.text.lower()


def test_its_valkey_lets_nobody_in_without_the_password(tmp_path: Path) -> None:
    # The command says neither where nor which port, since a container has its own: this does.
    port, shim = free_port(), tmp_path / "valkey-server"
    path = f"{tmp_path}:/usr/bin:/bin"
    shim.write_text(
        f'#!/bin/sh\nexec "{_find_binary()}" "$@" --port {port} --bind 127.0.0.1 --dir {tmp_path}\n'
    )
    shim.chmod(0o755)
    service = filled_in(SERVICES["valkey"], ANSWERS)
    lines: list[str] = []
    process = Process(
        Program(
            name="valkey",
            command=found(service["command"], path),
            environment={"PATH": path, **service["environment"]},
            directory=tmp_path,
        ),
        lines.append,
    )
    try:
        with redis.Redis(port=port, password=ANSWERS["VALKEY_PASSWORD"]) as client:
            eventually(lambda: _answers(client), saying=lambda: "\n".join(lines))
            assert client.config_get("appendonly")["appendonly"] == "yes"
        with (
            redis.Redis(port=port) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
        assert process.stop() == 0
    finally:
        process.kill()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
