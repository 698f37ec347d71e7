"""The pytest plugin: fixtures for tests of applications and of job types.

``fairq_submitted`` needs nothing but this package. ``run_job`` and ``drain`` run handlers with
Fairq's own code, which is loaded when one of them is asked for: whoever only submits jobs may have
this plugin without it.
"""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fairq.aio import AsyncClient
from fairq.calls import Call
from fairq.client import Client
from fairq.recording import Submitted, unanswered
from fairq.sign_in import TOKEN_VARIABLE, URL_VARIABLE

if TYPE_CHECKING:
    from fairq.testing import JobRun, RunJob

_NOWHERE = "http://fairq.invalid"


@pytest.fixture
def fairq_submitted(monkeypatch: pytest.MonkeyPatch) -> Submitted:
    """Record what is submitted instead of sending it; a sequence of submissions.

    Clients need no server and no login: both kinds are answered from what was recorded.
    """
    submitted = Submitted()

    def exchange(_client: Client, call: Call[Any]) -> Any:
        return submitted.exchange(call)

    async def exchange_async(_client: AsyncClient, call: Call[Any]) -> Any:
        return submitted.exchange(call)

    def listen(_client: Client | AsyncClient, call: Call[Any], _last_id: str | None) -> Any:
        raise unanswered(call)

    monkeypatch.setattr(Client, "_exchange", exchange)
    monkeypatch.setattr(AsyncClient, "_exchange", exchange_async)
    monkeypatch.setattr(Client, "_listen", listen)
    monkeypatch.setattr(AsyncClient, "_listen", listen)
    monkeypatch.setenv(URL_VARIABLE, _NOWHERE)
    monkeypatch.setenv(TOKEN_VARIABLE, "none is needed")
    return submitted


@pytest.fixture
def run_job(tmp_path: Path) -> "RunJob":
    """Run the handler of a job type once, in this process, and return what becomes of the job."""
    made: RunJob = _kit().runner(tmp_path)
    return made


@pytest.fixture
def drain(fairq_submitted: Submitted, run_job: "RunJob") -> "Callable[[], dict[str, JobRun]]":
    """Run everything that was submitted, in the order of dependencies, without processes."""
    return partial(_kit().drain, fairq_submitted, run_job)


def _kit() -> Any:
    try:
        return importlib.import_module("fairq.testing")
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "fairq.testing needs Fairq's own code: put the checkout whose tasks the workers run on"
            f" pytest's pythonpath ({missing})"
        ) from missing
