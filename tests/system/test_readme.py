"""A newcomer pastes what README.md shows, in that order, and gets what it promises."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from local.home import free_port
from local.process import Process, Program
from local.programs import ROOT
from scheduler.states import JobStatus
from tests.readme import snippet
from tests.services import clean_environment, eventually

pytestmark = [pytest.mark.system, pytest.mark.slow]

USUAL_URL = "http://127.0.0.1:8080"
CURL = f"""#!{sys.executable}
import argparse, httpx
parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("-u", type=lambda pair: tuple(pair.split(":")))
parser.add_argument("-H", action="append", type=lambda header: tuple(header.split(": ")))
parser.add_argument("-d")
given = parser.parse_args()
method = "POST" if given.d else "GET"
print(httpx.request(method, given.url, auth=given.u, headers=given.H, content=given.d).text)
"""
"""Enough of curl for what README.md asks of it: not every machine has the real one."""


class Newcomer:
    """A terminal in which ``bin/up`` runs, and another one."""

    def __init__(self, directory: Path) -> None:
        self._home = directory / "var"
        self._url = f"http://127.0.0.1:{free_port()}"
        self._config = str(directory / "config")
        self._tools = directory / "tools"
        self._tools.mkdir()
        (self._tools / "curl").write_text(CURL)
        (self._tools / "curl").chmod(0o755)
        self._lines: list[str] = []
        self._up = Process(
            Program(
                name="up",
                command=(sys.executable, "bin/up"),
                environment={
                    **clean_environment(),
                    "FAIRQ_HOME": str(self._home),
                    "FAIRQ_PORT": self._url.rpartition(":")[2],
                    "FAIRQ_WORKER_PROCESSES": "2,1",
                },
                directory=ROOT,
                stop=((signal.SIGTERM, timedelta(seconds=60)),),
            ),
            self._lines.append,
        )

    def password(self) -> str:
        """Wait until everything runs, and read the password off the screen."""
        ready = "Ctrl-C stops everything"
        eventually(lambda: ready in self._screen(), within=90, saying=self._screen)
        found = re.search(r"sign in as admin with the password (\S+)", self._screen())
        assert found, self._screen()
        return found[1]

    def paste(self, script: str, *, said: str = "", **variables: str) -> list[str]:
        """Run a snippet to its end, answer its questions with *said*, and return its lines."""
        return self._shell(script, **variables).communicate(said, timeout=60)[0].splitlines()

    def leave_running(self, script: str) -> "subprocess.Popen[str]":
        """Run a snippet that does not end by itself."""
        return self._shell(script)

    def get(self, path: str, token: str) -> httpx.Response:
        """Look at the browser."""
        return httpx.get(self._url + path, headers={"Authorization": f"Bearer {token}"}, timeout=10)

    def leave(self) -> None:
        """Close the terminal."""
        self._up.stop()

    def _shell(self, script: str, **variables: str) -> "subprocess.Popen[str]":
        here = script.replace(USUAL_URL, self._url).replace("var/", f"{self._home}/")
        # The checkout's own environment, wherever these tests run from.
        here = here.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
        here = here.replace("bin/fairq", f"{sys.executable} bin/fairq")
        path = f"{self._tools}:{os.defpath}"
        return subprocess.Popen(
            ["bash", "-ec", here],
            cwd=ROOT,
            env={**clean_environment(), **variables, "PATH": path, "XDG_CONFIG_HOME": self._config},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )

    def _screen(self) -> str:
        return "\n".join(self._lines)


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    newcomer = Newcomer(tmp_path)
    yield newcomer
    newcomer.leave()


def test_readme_leads_to_first_jobs_a_schedule_and_a_second_worker(newcomer: Newcomer) -> None:
    password = newcomer.password()
    (made,) = newcomer.paste(snippet("/tokens"), PASSWORD=password)
    token = json.loads(made)["token"]

    submitted, asked = newcomer.paste(snippet("/jobs/first"), TOKEN=token)

    assert json.loads(submitted)["priority"] == "high"
    assert json.loads(asked)["job_id"] == "first"
    eventually(lambda: newcomer.get("/jobs/first", token).json()["status"] == JobStatus.COMPLETED)
    assert newcomer.get("/jobs/first", token).json()["result"] == 42

    (scheduled,) = newcomer.paste(snippet("/schedules"), TOKEN=token)
    assert len(json.loads(scheduled)["next_runs"]) == 5

    signed_in, typed, *_ = newcomer.paste(snippet("bin/fairq login"), said=f"{password}\n")

    assert "as admin" in signed_in
    assert typed == "typed"
    eventually(lambda: newcomer.get("/jobs/typed", token).json()["status"] == JobStatus.COMPLETED)
    assert newcomer.get("/jobs/typed", token).json()["result"] == 42

    before = newcomer.get("/workers", token).json()["capacity"]
    worker = newcomer.leave_running(snippet("celery -A tasks.app"))
    try:
        eventually(lambda: len(newcomer.get("/workers", token).json()["workers"]) == 2, within=60)
        after = newcomer.get("/workers", token).json()["capacity"]
        assert after["cpu_units"] == before["cpu_units"] + 4
        assert after["memory_mb"] == before["memory_mb"] + 2048
    finally:
        os.killpg(worker.pid, signal.SIGTERM)
        worker.communicate(timeout=60)
    eventually(lambda: newcomer.get("/workers", token).json()["capacity"] == before)
