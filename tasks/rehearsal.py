"""One attempt at a job in this process, for tests of job types: no database, no broker, no waiting.

What becomes of the job is decided as on a worker. Limits of time and memory are not kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import tasks.kinds  # noqa: F401 - fills the catalogue
from scheduler import retry
from scheduler.settings import Settings
from scheduler.states import JobStatus
from scheduler.store.work import Claim, Failure, LogLine, Success
from tasks.catalogue import CATALOGUE, Catalogue, JobKind
from tasks.context import Context, Notebook, Progress
from tasks.outcome import checked
from tasks.reports import Ending, Snoozed, Stopped
from tasks.runner import ending_of
from tasks.usage import Usage

_NOWHERE = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1/nothing",
    "REDIS_URL": "redis://127.0.0.1/0",
    "FAIRQ_SECRET_KEY": "a secret of a rehearsal is known to all",
}
_NOT_MEASURED = Usage(peak_memory_mb=0, cpu_seconds=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a handler is given: a payload, and which attempt at which job this is."""

    type: str
    payload: Mapping[str, Any]
    job_id: str
    owner: str
    attempt: int
    retry_config: Mapping[str, Any]
    is_cancelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What becomes of a job, as a worker would report it.

    A job that is *snoozed* is retried without having used up an attempt. *delay* is the handler's
    own choice.
    """

    status: JobStatus
    result: Any = None
    error_type: str | None = None
    error_message: str | None = None
    reason: str | None = None
    snoozed: bool = False
    delay: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How an attempt ended, what its handler told meanwhile, and what it raised."""

    outcome: Outcome
    progress: tuple[Progress, ...]
    lines: tuple[LogLine, ...]
    error: BaseException | None


def rehearse(part: Part, *, home: Path, catalogue: Catalogue = CATALOGUE) -> Rehearsal:
    """Run the handler of a job type; files it makes are under *home*.

    Raises LookupError when there is no such type.
    """
    kind = catalogue.get(part.type)
    if kind is None:
        known = ", ".join(one.name for one in catalogue)
        raise LookupError(f"there is no job type named {part.type}, only {known}")
    claim, diary = _claim(part, kind), _Diary()
    context = _Rehearsed(claim, Settings.from_env({**_NOWHERE, "FAIRQ_HOME": str(home)}), diary)
    if part.is_cancelled:
        context.request_stop()
    ending, error = _run(kind, claim, context)
    return Rehearsal(_outcome(ending, claim), tuple(diary.marks), diary.take().lines, error)


def _run(kind: JobKind, claim: Claim, context: Context) -> tuple[Ending, BaseException | None]:
    try:
        result = checked(kind.handler(context, kind.payload.model_validate(claim.payload)))
    except KeyboardInterrupt:
        raise  # whoever watches the test wants it to end
    except BaseException as error:  # noqa: BLE001 - as on a worker, everything has its ending
        return ending_of(error, claim, context, _NOT_MEASURED), error
    return Success(claim.id, claim.attempt, result), None


def _outcome(ending: Ending, claim: Claim) -> Outcome:
    match ending:
        case Success():
            return Outcome(status=JobStatus.COMPLETED, result=ending.result)
        case Stopped():
            return Outcome(status=JobStatus.CANCELLED, reason=ending.message)
        case Snoozed():
            return Outcome(status=JobStatus.RETRYING, snoozed=True, delay=ending.delay)
        case Failure():
            is_over = claim.is_last_attempt or not ending.retryable
            return Outcome(
                status=JobStatus.FAILED if is_over else JobStatus.RETRYING,
                error_type=ending.error_type,
                error_message=ending.error_message,
                delay=None if is_over else ending.retry_after,
            )


def _claim(part: Part, kind: JobKind) -> Claim:
    config = {**kind.full_retry_config, **part.retry_config}
    return Claim(
        id=1,
        attempt=part.attempt,
        job_id=part.job_id,
        owner_id=1,
        owner=part.owner,
        type=kind.name,
        payload=dict(part.payload),
        timeout_seconds=kind.timeout_seconds,
        memory_mb=kind.memory_mb,
        is_last_attempt=not retry.has_attempts_left(config, part.attempt),
    )


class _Rehearsed(Context):
    """A context in which no time passes."""

    def wait(self, seconds: float) -> None:  # noqa: ARG002 - so long it would have been
        """Return at once; Cancelled is raised if the job is to stop."""
        self.raise_if_cancelled()


class _Diary(Notebook):
    """Keeps every progress, not only the latest."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.marks: list[Progress] = []

    def mark(self, progress: Progress) -> None:
        """Note how far the job is."""
        self.marks.append(progress)
        super().mark(progress)
