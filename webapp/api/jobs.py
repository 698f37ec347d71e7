"""Submitting, listing, reading and cancelling jobs, and running them again."""

from collections.abc import Callable, Sequence
from typing import Any

from flask import Response, url_for
from flask.typing import ResponseReturnValue

from scheduler import clock
from scheduler.job_request import JobRequest
from scheduler.models import Job
from scheduler.states import JobClass, JobStatus, Role, Scope, is_final
from scheduler.store.cancellation import cancel
from scheduler.store.revival import run_again
from webapp import access, audit, queries, serialise
from webapp.answers import answer
from webapp.endpoints import Resource
from webapp.errors import Problem, prefers_html
from webapp.extensions import db
from webapp.schemas import (
    AttemptList,
    BatchAnswer,
    BatchRequest,
    EventList,
    JobAnswer,
    JobList,
    JobsQuery,
    LogLine,
    LogList,
    LogsQuery,
    OwnerPage,
    OwnerQuery,
)
from webapp.services import services
from webapp.streams.answers import follow_log
from webapp.submitting import Intake, finish, take_in
from webapp.views.jobs import job_page, retried

BATCH_BODY_LIMIT = 32 * 1024 * 1024

_REFUSALS = (
    "unknown_type",
    "unknown_dependency",
    "dependency_cycle",
    "never_fits",
    "unknown_owner",
    "job_id_conflict",
    "backlog_full",
)

bp = Resource("api_jobs", __name__)


@bp.route_of(
    "POST",
    "/jobs",
    summary="Submit a job",
    scope=Scope.SUBMIT,
    role=Role.USER,
    body=JobRequest,
    answers={201: JobAnswer, 200: JobAnswer},
    refuses=_REFUSALS,
    headers=("Idempotency-Key",),
    audits="jobs.submit",
)
def submit_job(body: JobRequest) -> Response:
    """201 with the new job, or 200 with the one that is there and has the same content."""
    intake = take_in(access.require(), [body], batch=False)
    job = _submitted_to_json(intake)[0]
    finish(intake.moves)
    response = answer(job, 200 if job["duplicate"] else 201)
    response.headers["Location"] = url_for("api_jobs.read_job", job_id=job["job_id"])
    return response


@bp.route_of(
    "POST",
    "/jobs/batch",
    summary="Submit up to 10,000 jobs, all or none",
    scope=Scope.SUBMIT,
    role=Role.USER,
    body=BatchRequest,
    answers={201: BatchAnswer, 200: BatchAnswer},
    refuses=_REFUSALS,
    headers=("Idempotency-Key",),
    body_limit=BATCH_BODY_LIMIT,
    audits="jobs.submit",
)
def submit_batch(body: BatchRequest) -> Response:
    """Jobs of a batch may wait for one another in any order. 200 if all of them were there."""
    intake = take_in(access.require(), body.jobs, batch=True)
    answered = {
        "jobs": _submitted_to_json(intake),
        "created": intake.created,
        "duplicates": len(intake.jobs) - intake.created,
    }
    finish(intake.moves)
    return answer(answered, 201 if intake.created else 200)


@bp.route_of(
    "GET",
    "/jobs",
    summary="List jobs",
    scope=Scope.READ,
    query=JobsQuery,
    answers={200: JobList},
    refuses=("invalid_cursor",),
)
def list_jobs(query: JobsQuery) -> Response:
    """Own jobs, or everybody's for operators, newest first unless asked otherwise."""
    session = db.session()
    page = queries.list_jobs(
        session,
        services().redis,
        access.visible_jobs(access.require(), query.owner),
        _filter(query),
        limit=query.limit,
        cursor=query.cursor,
        oldest_first=query.sort == "oldest",
    )
    return answer({"jobs": _to_json(page.jobs), "next_cursor": page.next_cursor})


@bp.route_of(
    "GET",
    "/jobs/<job_id:job_id>",
    summary="Read a job",
    scope=Scope.READ,
    answers={200: JobAnswer},
    query=OwnerQuery,
    refuses=("ambiguous_job_id",),
)
def read_job(job_id: str, query: OwnerQuery) -> ResponseReturnValue:
    """One job with everything known about it; browsers get its page."""
    job = access.find_job(access.require(), job_id, query.owner)
    if prefers_html():
        return job_page(job)
    return answer(one_to_json(job))


@bp.route_of(
    "PATCH",
    "/jobs/<job_id:job_id>/cancel",
    summary="Cancel a job",
    scope=Scope.SUBMIT,
    role=Role.USER,
    answers={200: JobAnswer},
    query=OwnerQuery,
    refuses=("not_cancellable", "ambiguous_job_id"),
    audits="jobs.cancel",
)
def cancel_job(job_id: str, query: OwnerQuery) -> Response:
    """A waiting job is cancelled at once, a running one as soon as it has stopped."""
    session = db.session()
    job = access.find_job(access.require(), job_id, query.owner)
    moves = cancel(session, job.id)
    session.refresh(job)
    if not moves and is_final(JobStatus(job.status)):
        raise Problem("not_cancellable", f"The job is {job.status}.")
    if moves:
        audit.note_about_job("jobs.cancel", job)
    answered = one_to_json(job)
    finish(moves)
    return answer(answered)


@bp.route_of(
    "POST",
    "/jobs/<job_id:job_id>/retry",
    summary="Run a failed or cancelled job again",
    scope=Scope.SUBMIT,
    role=Role.USER,
    answers={200: JobAnswer},
    query=OwnerQuery,
    refuses=("not_retryable", "ambiguous_job_id"),
    audits="jobs.retry",
)
def retry_job(job_id: str, query: OwnerQuery) -> ResponseReturnValue:
    """With fresh attempts, at the end of its owner's line; what was cancelled with it follows.

    A form is led back to where its button was.
    """
    session = db.session()
    job = access.find_job(access.require(), job_id, query.owner)
    moves = run_again(session, [job.id])
    session.refresh(job)
    if moves:
        audit.note_about_job("jobs.retry", job)
    if prefers_html():
        return retried(job, moves)
    if not moves:
        raise Problem("not_retryable", f"The job is {job.status}.")
    answered = one_to_json(job)
    finish(moves)
    return answer(answered)


@bp.route_of(
    "GET",
    "/jobs/<job_id:job_id>/logs",
    summary="Read what a job wrote",
    scope=Scope.READ,
    answers={200: LogList},
    streams=LogLine,
    query=LogsQuery,
    headers=("Last-Event-ID",),
    refuses=("invalid_cursor", "ambiguous_job_id"),
)
def read_logs(job_id: str, query: LogsQuery) -> Response:
    """Lines of all attempts, oldest first.

    With `follow`, a stream of them: an event `log` for each line, and `end` after the last one,
    once the job has finished. `resume` asks to come back with the id of the last event.
    """
    if query.follow:
        return follow_log(access.find_job(access.require(), job_id, query.owner), query.cursor)
    return _page_of(job_id, query, "logs", queries.logs, serialise.log_to_json)


@bp.route_of(
    "GET",
    "/jobs/<job_id:job_id>/attempts",
    summary="Read every attempt at a job",
    scope=Scope.READ,
    answers={200: AttemptList},
    query=OwnerQuery,
    refuses=("ambiguous_job_id",),
)
def read_attempts(job_id: str, query: OwnerQuery) -> Response:
    """First to last, each with its own error."""
    job = access.find_job(access.require(), job_id, query.owner)
    tries = queries.attempts(db.session(), job)
    return answer({"attempts": [serialise.attempt_to_json(one) for one in tries]})


@bp.route_of(
    "GET",
    "/jobs/<job_id:job_id>/events",
    summary="Read the history of a job",
    scope=Scope.READ,
    answers={200: EventList},
    query=OwnerPage,
    refuses=("invalid_cursor", "ambiguous_job_id"),
)
def read_events(job_id: str, query: OwnerPage) -> Response:
    """Every move of the job, oldest first."""
    return _page_of(job_id, query, "events", queries.events, serialise.event_to_json)


def _page_of(
    job_id: str,
    query: OwnerPage,
    name: str,
    read: Callable[..., tuple[Sequence[Any], str | None]],
    to_json: Callable[[Any], dict[str, Any]],
) -> Response:
    """Answer with the part of a job's history that *read* finds, under *name*."""
    job = access.find_job(access.require(), job_id, query.owner)
    rows, cursor = read(db.session(), job, limit=query.limit, cursor=query.cursor)
    return answer({name: [to_json(row) for row in rows], "next_cursor": cursor})


def one_to_json(job: Job) -> dict[str, Any]:
    """Return a job as the contract answers it."""
    session = db.session()
    return _to_json([queries.one_job(session, services().redis, job)])[0]


def _to_json(views: Sequence[queries.JobView]) -> list[dict[str, Any]]:
    now = clock.now()
    return [serialise.job_to_json(view, now=now) for view in views]


def _submitted_to_json(intake: Intake) -> list[dict[str, Any]]:
    jobs = _to_json(intake.jobs)
    for job, view in zip(jobs, intake.jobs, strict=True):
        job["duplicate"] = view.job.id in intake.duplicates
    return jobs


def _filter(query: JobsQuery) -> queries.Filter:
    return queries.Filter(
        statuses=query.statuses(),
        types=query.type,
        classes={JobClass(word) for word in query.priority if word in set(JobClass)},
        levels={int(word) for word in query.priority if word.isdecimal()},
        tags=query.tag,
        text=query.q,
        created_after=query.created_after,
        created_before=query.created_before,
    )
