"""Submitting, listing, reading and cancelling jobs, and running them again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from flask import Response, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import ColumnElement

from scheduler import clock
from scheduler.job_request import JobRequest, to_decimal
from scheduler.models import Job
from scheduler.states import JobStatus, Role, Scope, is_final
from scheduler.store.cancellation import cancel
from scheduler.store.changing import Change, change
from scheduler.store.revival import run_again
from webapp import access, audit, bulk, exports, queries, serialise
from webapp.answers import answer
from webapp.endpoints import Resource
from webapp.errors import FieldError, Problem, prefers_html
from webapp.extensions import db
from webapp.schemas.bulk import BulkAnswer, BulkRequest
from webapp.schemas.groundwork import OwnerPage, OwnerQuery
from webapp.schemas.history import AttemptList, EventList, LogLine, LogList, LogsQuery
from webapp.schemas.jobs import BatchAnswer, BatchRequest, JobAnswer, JobList, JobPatch
from webapp.schemas.listing import JobsQuery
from webapp.schemas.streams import LogEnd, StreamPlace
from webapp.schemas.workflows import Graph
from webapp.services import services
from webapp.streams.answers import follow_log
from webapp.submitting import Intake, finish, idempotency_key, take_in
from webapp.views.jobs import job_page, retried
from webapp.workflows import workflow_of

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
    intake = take_in(access.require(), [body], batch=False, key=idempotency_key())
    job = _submitted_to_json(intake)[0]
    finish(intake.moves)
    response = answer(job, 200 if job["duplicate"] else 201)
    response.headers["Location"] = location_of(job)
    return response


def location_of(job: Mapping[str, Any]) -> str:
    """Return the address of *job*, as it is answered, for the caller."""
    owner = access.unless_caller(job["owner"])
    return url_for("api_jobs.read_job", job_id=job["job_id"], owner=owner)


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
    intake = take_in(access.require(), body.jobs, batch=True, key=idempotency_key())
    answered = {
        "jobs": _submitted_to_json(intake),
        "created": intake.created,
        "duplicates": len(intake.jobs) - intake.created,
    }
    finish(intake.moves)
    return answer(answered, 201 if intake.created else 200)


@bp.route_of(
    "POST",
    "/jobs/bulk",
    summary="Cancel, retry, prioritise or tag many jobs",
    scope=Scope.SUBMIT,
    role=Role.USER,
    body=BulkRequest,
    answers={200: BulkAnswer, 202: BulkAnswer},
    refuses=("unknown_owner", "ambiguous_job_id", "backlog_full", "unavailable"),
    body_limit=BATCH_BODY_LIMIT,
    audits="jobs.bulk",
)
def change_many(body: BulkRequest) -> Response:
    """Up to 10,000 named jobs, or all that match a filter and take the action now.

    `cancel` takes unfinished jobs, `retry` failed and cancelled ones, `prioritise` and `tag` those
    that wait. A dry run answers 200 with how many these are. Otherwise a job of the type `bulk`
    does it in the background, as the single calls do, with the rights you have then: 202, and
    `job_id` to follow. Jobs that are made later are left alone; jobs that have moved on, and ids
    that name none, are counted as skipped.
    """
    account = access.require()
    chosen = bulk.choose(account, body)
    moves = [] if body.dry_run else bulk.accept(account, body, chosen)
    response = answer(
        {
            "action": body.action,
            "dry_run": body.dry_run,
            "count": chosen.count.count,
            "more": chosen.count.more,
            "not_found": chosen.not_found,
            "job_id": moves[0].job_id if moves else None,
        },
        202 if moves else 200,
    )
    if moves:
        response.headers["Location"] = url_for("api_jobs.read_job", job_id=moves[0].job_id)
        finish(moves)
    return response


@bp.route_of(
    "GET",
    "/jobs",
    summary="List jobs",
    scope=Scope.READ,
    query=JobsQuery,
    answers={200: JobList},
    files=tuple(exports.MEDIA_TYPES.values()),
    refuses=("invalid_cursor",),
)
def list_jobs(query: JobsQuery) -> Response:
    """Own jobs, or everybody's for operators, newest first unless asked otherwise.

    All of them as a file with `Accept: text/csv` or `application/x-ndjson`: a line for each as it
    was when its line was written.
    """
    visible = access.visible_jobs(access.require(), query.owner)
    wanted = _format(query)
    if wanted != "json":
        return exports.as_file(wanted, _all_pages(query, visible))
    page = _page(query, visible, limit=query.limit, cursor=query.cursor)
    response = answer({"jobs": _to_json(page.jobs), "next_cursor": page.next_cursor})
    response.headers["Vary"] = "Accept"
    return response


def _format(query: JobsQuery) -> str:
    """Return in which format a list is wanted."""
    names = {kind: name for name, kind in exports.MEDIA_TYPES.items()} | {
        "application/json": "json"
    }
    kinds = sorted(names)  # JSON before others that are as welcome
    accepted = request.accept_mimetypes.best_match(kinds, "application/json")
    wanted = query.format or names[accepted]
    of_pages = sorted(query.model_fields_set & {"limit", "cursor"})
    if wanted != "json" and of_pages:
        message = f"goes with pages of JSON; a {wanted} file holds the whole list, so leave it out"
        errors = [FieldError(path, message) for path in of_pages]
        raise Problem("validation_failed", f"{of_pages[0]} {message}.", errors)
    return wanted


def _page(
    query: JobsQuery,
    visible: ColumnElement[bool],
    *,
    limit: int,
    cursor: str | None,
    finder: queries.Finder | None = None,
) -> queries.JobPage:
    return queries.list_jobs(
        db.session(),
        services().redis,
        visible,
        queries.filter_of(query),
        limit=limit,
        cursor=cursor,
        oldest_first=query.sort == "oldest",
        finder=finder,
    )


def _all_pages(query: JobsQuery, visible: ColumnElement[bool]) -> Iterator[exports.Jobs]:
    """Read a list from its beginning to its end."""
    cursor, finder = None, queries.finder_of(db.session(), queries.filter_of(query))
    while True:
        page = _page(query, visible, limit=exports.PAGE, cursor=cursor, finder=finder)
        jobs, cursor = _to_json(page.jobs), page.next_cursor
        db.session.rollback()  # nothing is held while the client reads
        yield jobs
        if cursor is None:
            return


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
    "/jobs/<job_id:job_id>",
    summary="Change a waiting job",
    scope=Scope.SUBMIT,
    role=Role.USER,
    body=JobPatch,
    answers={200: JobAnswer},
    query=OwnerQuery,
    refuses=("not_changeable", "never_fits", "ambiguous_job_id"),
    audits="jobs.change",
)
def change_job(job_id: str, body: JobPatch, query: OwnerQuery) -> Response:
    """Priority, tags, time or size; a job that has been admitted is not changed any more.

    A job keeps the time it has waited, unless it is put off until `run_at`. Of one that waits for
    its backoff, that is when its next attempt is due.
    """
    job = access.find_job(access.require(), job_id, query.owner)
    moves = audit.act_on_job("jobs.change", job, partial(change, wanted=_change_of(body)))
    if not moves:
        detail = f"The job is {job.status}; only a job that waits can be changed."
        raise Problem("not_changeable", detail)
    answered = one_to_json(job)
    finish(moves)
    return answer(answered)


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
    job = access.find_job(access.require(), job_id, query.owner)
    moves = audit.act_on_job("jobs.cancel", job, cancel)
    if not moves and is_final(JobStatus(job.status)):
        raise Problem("not_cancellable", f"The job is {job.status}.")
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
    job = access.find_job(access.require(), job_id, query.owner)
    moves = audit.act_on_job(
        "jobs.retry", job, lambda session, number: run_again(session, [number])
    )
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
    streams={"log": LogLine, "end": LogEnd, "resume": StreamPlace},
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
    query=OwnerPage,
    refuses=("invalid_cursor", "ambiguous_job_id"),
)
def read_attempts(job_id: str, query: OwnerPage) -> Response:
    """First to last, each with its own error."""
    read, to_json = queries.page_of_attempts, serialise.attempt_to_json
    return _page_of(job_id, query, "attempts", read, to_json)


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


@bp.route_of(
    "GET",
    "/jobs/<job_id:job_id>/graph",
    summary="Read the workflow around a job",
    scope=Scope.READ,
    answers={200: Graph},
    query=OwnerQuery,
    refuses=("ambiguous_job_id",),
)
def read_graph(job_id: str, query: OwnerQuery) -> Response:
    """Every job connected with this one, whichever way, and who waits for whom."""
    job = access.find_job(access.require(), job_id, query.owner)
    found = workflow_of(db.session(), job)
    return answer(serialise.workflow_to_json(found, now=clock.now()))


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


def _change_of(body: JobPatch) -> Change:
    given, needs = body.model_fields_set, body.resource_requirements
    sizes = needs.model_fields_set if "resource_requirements" in given else set()
    return Change(
        priority_level=body.priority if "priority" in given else None,
        tags=tuple(body.tags) if "tags" in given else None,
        cpu_units=to_decimal(needs.cpu_units) if "cpu_units" in sizes else None,
        memory_mb=needs.memory_mb if "memory_mb" in sizes else None,
        moves_time="run_at" in given,
        run_at=body.run_at,
    )


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
