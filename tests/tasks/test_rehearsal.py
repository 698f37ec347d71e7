"""A rehearsal ends as the same attempt would on a worker."""

import math
from pathlib import Path
from typing import Any

import pytest

from scheduler import retry
from scheduler.settings import Settings
from scheduler.states import JobStatus
from tasks.catalogue import Catalogue, Payload, job_type
from tasks.context import CancelJob, Context, DoNotRetry, RetryAfter, Snooze
from tasks.ledger import Ledger
from tasks.rehearsal import Part, rehearse
from tasks.runner import Runner
from tests.tasks.conftest import Jobs


class Empty(Payload):
    """Takes nothing."""


ENDS: dict[str, Any] = {
    "a result": {"n": 1},
    "a result that is not JSON": math.nan,
    "a result Postgres cannot keep": "\0",
    "an error": ValueError("odd"),
    "a memory error": MemoryError(),
    "no retry": DoNotRetry("odd"),
    "a later retry": RetryAfter(60, "later"),
    "a snooze": Snooze(60),
    "a cancel": CancelJob("nothing to do"),
}


@pytest.mark.parametrize("is_last", [False, True], ids=["not the last", "the last"])
@pytest.mark.parametrize("payload", [{}, {"unknown": 1}], ids=["payload", "wrong payload"])
@pytest.mark.parametrize("end", ENDS)
def test_a_rehearsal_ends_as_on_a_worker(
    *,
    end: str,
    payload: dict[str, Any],
    is_last: bool,
    jobs: Jobs,
    ledger: Ledger,
    settings: Settings,
    tmp_path: Path,
) -> None:
    catalogue = Catalogue()

    @job_type("ends", payload=Empty, catalogue=catalogue)
    def handler(_context: Context, _payload: Empty) -> Any:
        if isinstance(ENDS[end], Exception):
            raise ENDS[end]
        return ENDS[end]

    config = {"max_attempts": 1 if is_last else 3}
    part = Part(
        type="ends",
        payload=payload,
        job_id="a",
        owner="ann",
        attempt=1,
        retry_config=config,
        is_cancelled=False,
    )
    attempt = jobs.queue("ends", payload=payload, retry_config={**retry.DEFAULTS, **config})
    runner = Runner(ledger, catalogue, {}, settings)
    runner.run([attempt], worker="here@test")
    runner.close()

    outcome = rehearse(part, home=tmp_path, catalogue=catalogue).outcome

    job = jobs.look(attempt)
    assert outcome.status == job.status
    assert outcome.result == job.result
    if job.status == JobStatus.FAILED:
        assert outcome.error_type == job.error_type
        assert outcome.error_message == job.error_message
