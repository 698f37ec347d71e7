"""Running jobs in the process of a test, as a worker would and without one.

The only module of this package that uses Fairq's own code: handlers run with what runs them on
workers. It is therefore loaded only by those who have it, see ``fairq.plugin``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fairq.models import CANCELLED, RETRYING, Failure
from fairq.recording import OWNER, Submitted
from fairq.submission import RetryConfig, Submission
from tasks.rehearsal import Part, Rehearsal, rehearse

MOST_SNOOZES = 100
"""A job that is put off more often than this is put off for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """What became of a job after one attempt.

    ``status`` is the one it has now: ``completed``, ``failed``, ``cancelled``, or ``retrying`` if
    it is to run again, after ``delay_seconds`` if its handler chose them. ``exception`` is what
    the handler raised, ``progress`` and ``logs`` what it told.
    """

    status: str
    attempt: int = 0
    result: Any = None
    error: Failure | None = None
    exception: BaseException | None = field(default=None, repr=False)
    is_snoozed: bool = False
    delay_seconds: float | None = None
    reason: str | None = None
    progress: tuple[tuple[float | None, str | None], ...] = ()
    logs: tuple[tuple[str, str], ...] = ()


class RunJob(Protocol):
    """Runs the handler of a job type once."""

    def __call__(
        self,
        type_: str,
        payload: Mapping[str, Any] | None = None,
        /,
        *,
        attempt: int = 1,
        job_id: str = "job_1",
        owner: str = OWNER,
        retry_config: RetryConfig | None = None,
        is_cancelled: bool = False,
    ) -> JobRun:
        """Return what becomes of the job; LookupError is raised when there is no such type."""
        ...


def runner(home: Path) -> RunJob:
    """Return what runs handlers; files they make are under *home*."""

    def run_job(
        type_: str,
        payload: Mapping[str, Any] | None = None,
        /,
        *,
        attempt: int = 1,
        job_id: str = "job_1",
        owner: str = OWNER,
        retry_config: RetryConfig | None = None,
        is_cancelled: bool = False,
    ) -> JobRun:
        part = Part(
            type=type_,
            payload=payload or {},
            job_id=job_id,
            owner=owner,
            attempt=attempt,
            retry_config=dict(retry_config or {}),
            is_cancelled=is_cancelled,
        )
        return _job_run(rehearse(part, home=home), attempt)

    return run_job


def drain(submitted: Submitted, run_job: RunJob) -> dict[str, JobRun]:
    """Run everything that was submitted, parents first, and what these jobs submit, too.

    Attempts follow each other without a pause. Returns the last run of each job by its id; those
    that cannot run any more because of a job they waited for are cancelled.
    """
    runs: dict[str, JobRun] = {}
    while (submission := submitted.next()) is not None:
        job_id = str(submission.job_id)
        if submitted.is_possible(submission):
            run = _run_to_end(submission, run_job)
        else:
            run = JobRun(status=CANCELLED, reason="dependency_failed")
        runs[job_id] = run
        error = None if run.error is None else run.error.as_json()
        submitted.finish(job_id, run.status, result=run.result, error=error, reason=run.reason)
    return runs


def _run_to_end(submission: Submission, run_job: RunJob) -> JobRun:
    attempt = snoozes = 0
    while True:
        run = run_job(
            submission.type,
            submission.payload,
            attempt=attempt + 1,
            job_id=str(submission.job_id),
            owner=submission.owner or OWNER,
            retry_config=submission.retry_config,
        )
        if run.status != RETRYING:
            return run
        attempt, snoozes = attempt + (not run.is_snoozed), snoozes + run.is_snoozed
        if snoozes > MOST_SNOOZES:
            raise RuntimeError(f"{submission.job_id} is put off for ever")


def _job_run(rehearsal: Rehearsal, attempt: int) -> JobRun:
    outcome = rehearsal.outcome
    error = outcome.error_type and Failure(type=outcome.error_type, message=outcome.error_message)
    return JobRun(
        status=str(outcome.status),
        attempt=attempt,
        result=outcome.result,
        error=error or None,
        exception=rehearsal.error,
        is_snoozed=outcome.snoozed,
        delay_seconds=None if outcome.delay is None else outcome.delay.total_seconds(),
        reason=outcome.reason,
        progress=tuple((one.fraction, one.message) for one in rehearsal.progress),
        logs=tuple((line.level, line.message) for line in rehearsal.lines),
    )
