"""The service against its own document: thousands of requests made from it, right ones and wrong.

``schemathesis.toml`` says what is checked, and why the little that is not.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.programs import ROOT
from tests.services import Services, Stack
from tests.system.client import Client
from tests.system.schemathesis_hooks import USER

LEAST = 2_000
"""Requests that the run as an administrator makes at least."""

PATIENCE = 900.0
PHASES = ("examples", "coverage", "fuzzing", "stateful")


@pytest.fixture(scope="module")
def stack(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Web and scheduler without a limit of requests; what is asked for runs nowhere."""
    directory = tmp_path_factory.mktemp("schemathesis")
    with Stack(services, directory, FAIRQ_REQUESTS_PER_MINUTE="0") as stack:
        stack.start("web", "scheduler")
        yield stack


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Iterator[Client]:
    client = Client.admin(stack)
    yield client
    client.close()


@pytest.fixture(scope="module")
def user(admin: Client) -> Client:
    return admin.make_user(USER)


# First, so that it finds the service as it was begun.
@pytest.mark.timeout(PATIENCE)
def test_a_user_is_answered_as_the_document_says(
    stack: Stack, user: Client, tmp_path: Path
) -> None:
    report = ask_at_random(stack, user, tmp_path, phases=("fuzzing",), examples=5)

    assert report["operations"]["tested"] == count_operations(user)
    assert user.get("/me")["username"] == USER, "the run has shut itself out"


@pytest.mark.timeout(PATIENCE)
def test_an_administrator_is_answered_as_the_document_says(
    stack: Stack, admin: Client, user: Client, tmp_path: Path
) -> None:
    report = ask_at_random(stack, admin, tmp_path, phases=PHASES, examples=5)

    operations = report["operations"]
    assert report["test_cases"]["generated"] >= LEAST
    assert operations["tested"] == operations["total"] == count_operations(admin)
    assert admin.get("/me")["role"] == "admin", "the run has shut itself out"


def ask_at_random(
    stack: Stack, who: Client, directory: Path, *, phases: tuple[str, ...], examples: int
) -> dict[str, Any]:
    """Let Schemathesis ask, fail with what it finds, and return its report."""
    document, report = directory / "openapi.json", directory / "report.json"
    # From a file: a place that the document was read from would not be asked itself.
    document.write_text(json.dumps(who.get("/openapi.json")))
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file"),
        *("tests/system/schemathesis.toml", "run", str(document), "--url", stack.url),
        *("--header", f"Authorization: Bearer {who.token}"),
        *("--phases", ",".join(phases), "--max-examples", str(examples)),
        *("--report", "json", "--report-json-path", str(report)),
    ]
    ran = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told: dict[str, Any] = json.loads(report.read_text())
    return told


def count_operations(who: Client) -> int:
    return sum(len(item) for item in who.get("/openapi.json")["paths"].values())
