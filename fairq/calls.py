"""Every call of the HTTP contract: what is sent, and how the answer is read.

Nothing is sent here. Both clients send these, so that they cannot disagree.
"""

import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Generic, Self, TypedDict, TypeVar
from urllib.parse import quote

from fairq.models import (
    CELERY,
    PULL,
    Account,
    Answer,
    Attempt,
    Bulk,
    DeadLetter,
    DeadLetterGroup,
    Job,
    JobType,
    LeasedJob,
    LogLine,
    Page,
    Schedule,
    Stats,
    Worker,
)
from fairq.submission import Submission, job_id_of

T = TypeVar("T")
A = TypeVar("A", bound=Answer)

_LARGE_PAGE = 500

GRACE_SECONDS = 2.0
"""What an answer may take on its way when there is no time left to wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request, and how its answer is read.

    *is_safe*: sending it twice is as good as sending it once, so that it may be sent again when
    nobody knows whether it arrived. *waits_seconds* is how long the server may take on purpose;
    *timeout_seconds* bounds what it may take beside that, if the client does not bound it more.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_safe: bool = False
    waits_seconds: float = 0
    timeout_seconds: float = math.inf


class JobFilter(TypedDict, total=False):
    """Which jobs to list; several words are given as a list."""

    status: str | Sequence[str]
    type: str | Sequence[str]
    priority: str | Sequence[str]
    owner: str
    tag: str | Sequence[str]
    q: str
    created_after: datetime
    created_before: datetime
    sort: str
    limit: int


class BulkFilter(TypedDict, total=False):
    """Which jobs are meant; several words are given as a list."""

    status: str | Sequence[str]
    type: str | Sequence[str]
    priority: str | Sequence[str]
    owner: str
    tag: str | Sequence[str]
    q: str
    created_after: datetime
    created_before: datetime


class DeadLetterFilter(TypedDict, total=False):
    """Which dead letters are meant."""

    type: str
    fingerprint: str
    owner: str
    q: str
    failed_after: datetime
    failed_before: datetime


class Timing(TypedDict, total=False):
    """When and how a schedule submits its job."""

    cron: str
    every_seconds: int
    timezone: str
    overlap: str
    catch_up: str
    paused: bool


# Submitting


def submit(submission: Submission) -> Call[Job]:
    """Submit a job. Its id, or a key made here, lets it be sent again without a second job."""
    return Call(
        method="POST",
        path="/jobs",
        read=Job.model_validate,
        body=submission.as_json(),
        headers=_key([submission]),
        is_safe=True,
    )


def submit_many(submissions: Sequence[Submission]) -> Call[list[Job]]:
    """Submit jobs, all or none."""
    return Call(
        method="POST",
        path="/jobs/batch",
        read=partial(_several, Job, "jobs"),
        body={"jobs": [one.as_json() for one in submissions]},
        headers=_key(submissions),
        is_safe=True,
    )


# One job


def job(job: str | Job, owner: str | None = None) -> Call[Job]:
    """Read a job."""
    return _get(_job_path(job), Job.model_validate, owner=_owner(job, owner))


def attempts(job: str | Job, owner: str | None, cursor: str | None) -> Call[Page[Attempt]]:
    """Read one page of the tries at a job."""
    read = partial(_page, Attempt, "attempts")
    query = {"owner": _owner(job, owner), "cursor": cursor, "limit": _LARGE_PAGE}
    return _get(_job_path(job, "attempts"), read, **query)


def wait(
    job: str | Job, seconds: float, owner: str | None = None, *, left: float = math.inf
) -> Call[Job]:
    """Read a job as soon as it is finished, or how it stands after *seconds*.

    *left* is how long whoever asks is willing to wait for the answer, but for a moment.
    """
    return Call(
        method="GET",
        path=_job_path(job, "wait"),
        read=Job.model_validate,
        query=_given(timeout_seconds=seconds, owner=_owner(job, owner)),
        is_safe=True,
        waits_seconds=seconds,
        timeout_seconds=left - seconds + GRACE_SECONDS,
    )


def cancel(job: str | Job, owner: str | None = None) -> Call[Job]:
    """Cancel a job."""
    path = _job_path(job, "cancel")
    return _change("PATCH", path, Job.model_validate, owner=_owner(job, owner))


def retry(job: str | Job, owner: str | None = None) -> Call[Job]:
    """Run a failed or cancelled job again."""
    path = _job_path(job, "retry")
    return _change("POST", path, Job.model_validate, owner=_owner(job, owner))


def bulk(
    action: str,
    job_ids: Sequence[str],
    wanted: BulkFilter,
    changes: Mapping[str, Any],
    *,
    dry_run: bool,
) -> Call[Bulk]:
    """Do one thing to those jobs that are named, or else to all that match; or count them.

    Raises ValueError unless it is said which: so many are not meant by saying nothing.
    """
    meant = _given(**{name: _listed(value) for name, value in wanted.items()})
    if job_ids and set(meant) - {"owner"}:
        raise ValueError("give job ids or a filter, not both")
    if not job_ids and not meant:
        raise ValueError("say which jobs are meant, by their ids or by a filter")
    which = {"job_ids": list(job_ids), **meant} if job_ids else {"filter": meant}
    body = {"action": action, **which, **_given(**changes), "dry_run": dry_run}
    return _change("POST", "/jobs/bulk", Bulk.model_validate, body)


def logs(job: str | Job, owner: str | None, cursor: str | None) -> Call[Page[LogLine]]:
    """Read one page of a job's log."""
    read = partial(_page, LogLine, "logs")
    query = {"owner": _owner(job, owner), "cursor": cursor, "limit": _LARGE_PAGE}
    return _get(_job_path(job, "logs"), read, **query)


def follow_logs(job: str | Job, owner: str | None = None) -> Call[LogLine]:
    """Listen to a job's log."""
    query = {"owner": _owner(job, owner), "follow": 1}
    return _get(_job_path(job, "logs"), LogLine.model_validate, **query)


def stream(owner: str | None = None) -> Call[dict[str, Any]]:
    """Listen to the changes of jobs."""
    return _get("/jobs/stream", dict, owner=owner)


# Lists


def jobs(wanted: JobFilter, cursor: str | None) -> Call[Page[Job]]:
    """Read one page of jobs."""
    return _get("/jobs", partial(_page, Job, "jobs"), **_query(wanted), cursor=cursor)


def dead_letters(wanted: DeadLetterFilter, cursor: str | None) -> Call[Page[DeadLetter]]:
    """Read one page of dead letters."""
    read = partial(_page, DeadLetter, "jobs")
    return _get("/dead-letters", read, **_query(wanted), cursor=cursor)


def dead_letter_groups(wanted: DeadLetterFilter, cursor: str | None) -> Call[Page[DeadLetterGroup]]:
    """Read one page of dead letters, those put together whose errors are alike."""
    read = partial(_page, DeadLetterGroup, "groups")
    return _get("/dead-letters", read, **_query(wanted), group=1, cursor=cursor)


@dataclass(frozen=True, slots=True)
class Cleared:
    """What became of dead letters: some were *skipped* that were none, or none any more.

    *next_cursor* goes on where a request had to stop.
    """

    done: int = 0
    skipped: int = 0
    next_cursor: str | None = None

    def __add__(self, other: Self) -> Self:
        return replace(other, done=self.done + other.done, skipped=self.skipped + other.skipped)


def retry_dead_letters(
    meant: Mapping[str, Any], payload: Mapping[str, Any] | None, cursor: str | None
) -> Call[Cleared]:
    """Run dead letters again, with a merge patch for their payloads if one is given."""
    body = _given(**meant, payload=payload, cursor=cursor)
    return _change("POST", "/dead-letters/retry", partial(_cleared, "retried"), body)


def discard_dead_letters(meant: Mapping[str, Any], cursor: str | None) -> Call[Cleared]:
    """Take dead letters out of the list."""
    body = _given(**meant, cursor=cursor)
    return _change("POST", "/dead-letters/discard", partial(_cleared, "discarded"), body)


def meant(job_ids: Iterable[str], wanted: DeadLetterFilter, *, everything: bool) -> dict[str, Any]:
    """Say which dead letters are meant: those named, all that match, or really *everything*.

    Raises ValueError unless it is one of these: all are not meant by saying nothing.
    """
    named, query = list(job_ids), _query(wanted)
    said = [bool(named), bool(set(query) - {"owner"}), everything]
    if sum(said) > 1:
        raise ValueError("give job ids, a filter or everything=True, not both")
    if not any(said):
        raise ValueError("say which are meant, by their ids or by a filter, or everything=True")
    return {"job_ids": named, **query} if named else {"filter": query}


# Schedules


def schedules(cursor: str | None) -> Call[Page[Schedule]]:
    """Read one page of schedules."""
    return _get("/schedules", partial(_page, Schedule, "schedules"), cursor=cursor)


def schedule(name: str) -> Call[Schedule]:
    """Read a schedule."""
    return _get(_schedule_path(name), Schedule.model_validate)


def create_schedule(name: str, submission: Submission, timing: Mapping[str, Any]) -> Call[Schedule]:
    """Make a schedule."""
    body = {"name": name, "template": submission.as_json(), **_given(**timing)}
    return _change("POST", "/schedules", Schedule.model_validate, body)


def update_schedule(
    name: str, submission: Submission | None, timing: Mapping[str, Any]
) -> Call[Schedule]:
    """Change a schedule."""
    template = None if submission is None else submission.as_json()
    body = _given(template=template, **timing)
    return _change("PATCH", _schedule_path(name), Schedule.model_validate, body)


def delete_schedule(name: str) -> Call[None]:
    """Delete a schedule."""
    return _change("DELETE", _schedule_path(name), _nothing)


def run_schedule(name: str) -> Call[Job]:
    """Submit the job of a schedule now. A key made here lets it be sent again."""
    return Call(
        method="POST",
        path=_schedule_path(name, "run"),
        read=Job.model_validate,
        headers=_new_key(),
        is_safe=True,
    )


# Service


def me() -> Call[Account]:
    """Read who asks."""
    return _get("/me", Account.model_validate)


def workers() -> Call[list[Worker]]:
    """Read every worker."""
    return _get("/workers", _workers)


def stats() -> Call[Stats]:
    """Read figures of now and of the last hour."""
    return _get("/stats", Stats.model_validate)


def types(cursor: str | None) -> Call[Page[JobType]]:
    """Read one page of what can be submitted."""
    read = partial(_page, JobType, "types")
    return _get("/types", read, cursor=cursor, limit=_LARGE_PAGE)


def make_token(name: str, scopes: Iterable[str]) -> Call[str]:
    """Make a token; the answer is its secret."""
    return _change("POST", "/tokens", _secret, {"name": name, "scopes": sorted(scopes)})


# Pull workers


def next_job(
    worker: str, types: Iterable[str] | None, *, lease_seconds: float, wait_seconds: float
) -> Call[LeasedJob | None]:
    """Ask for work."""
    return Call(
        method="POST",
        path="/jobs/next",
        read=_leased,
        body=_given(
            worker=worker,
            types=None if types is None else list(types),
            lease_seconds=lease_seconds,
            wait_seconds=wait_seconds,
        ),
        waits_seconds=wait_seconds,
    )


def heartbeat(
    job_id: str, lease: str, notes: Mapping[str, Any], *, timeout_seconds: float
) -> Call[bool]:
    """Keep a lease, and say how far the job is; the answer tells whether it is to stop."""
    return Call(
        method="POST",
        path=_job_path(job_id, "heartbeat"),
        read=_is_to_stop,
        body={"lease": lease, **notes},
        timeout_seconds=timeout_seconds,
    )


def complete(job_id: str, lease: str, report: Mapping[str, Any]) -> Call[None]:
    """Report how a job ended. The contract takes the same report twice."""
    return Call(
        method="POST",
        path=_job_path(job_id, "complete"),
        read=_nothing,
        body={"lease": lease, **report},
        is_safe=True,
    )


# How calls are made, and answers read


def _get(path: str, read: Callable[[Any], T], **query: Any) -> Call[T]:
    return Call(method="GET", path=path, read=read, query=_given(**query), is_safe=True)


def _change(
    method: str, path: str, read: Callable[[Any], T], body: Any = None, **query: Any
) -> Call[T]:
    return Call(method=method, path=path, read=read, body=body, query=_given(**query))


def _key(submissions: Iterable[Submission]) -> dict[str, str]:
    if all(one.job_id for one in submissions):
        return {}
    return _new_key()


def _new_key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _query(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Write a filter the way the contract takes it: words between commas, tags one by one."""
    return _given(**{name: _word(name, value) for name, value in wanted.items()})


def _word(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str | int | None):
        return value
    return list(value) if name == "tag" else ",".join(value)


def _listed(value: Any) -> Any:
    """Write a part of a filter the way bodies take it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | None) else list(value)


def _job_path(job: str | Job, part: str | None = None) -> str:
    return _path("jobs", job_id_of(job), part)


def _owner(job: str | Job, owner: str | None) -> str | None:
    """Return whose job is meant: ids are unique per owner only, and a job knows its own."""
    return owner or (job.owner if isinstance(job, Job) else None)


def _schedule_path(name: str, part: str | None = None) -> str:
    return _path("schedules", name, part)


def _path(kind: str, name: str, part: str | None) -> str:
    """Write a path in which *name* is one segment, whatever it holds."""
    quoted = quote(name, safe="")
    if name in {".", ".."}:
        # Meant for the folder itself or the one above, these would be gone before they are sent.
        quoted = quoted.replace(".", "%2E")
    return "/".join(["", kind, quoted, *([part] if part else [])])


def _several(model: type[A], name: str, body: Any) -> list[A]:
    return [model.model_validate(one) for one in body[name]]


def _page(model: type[A], name: str, body: Any) -> Page[A]:
    return Page(_several(model, name, body), body.get("next_cursor"))


def _workers(body: Any) -> list[Worker]:
    kinds = {CELERY: body["workers"], PULL: body.get("pull_workers", [])}
    return [
        Worker.model_validate(one | {"executor": kind})
        for kind, several in kinds.items()
        for one in several
    ]


def _cleared(name: str, body: Any) -> Cleared:
    return Cleared(body[name], body.get("skipped", 0), body.get("next_cursor"))


def _leased(body: Any) -> LeasedJob | None:
    return None if body is None else LeasedJob.model_validate(body)


def _is_to_stop(body: Any) -> bool:
    return bool(body and body.get("cancel"))


def _secret(body: Any) -> str:
    return str(body["token"])


def _nothing(_body: Any) -> None:
    """Read nothing."""
