"""The simple queue protocol: a caller's own jobs, handed out in the order of their submission.

What is invalid is a 400 here, as the protocol has it. A token may come as the password of HTTP
Basic, since many of its clients know nothing else.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from flask import Response, g, request, stream_with_context
from sqlalchemy import Row, select

from scheduler.errors import JobIdConflict, JobNotFound
from scheduler.models import Job
from scheduler.states import (
    DEFAULT_LEVEL,
    UNFINISHED,
    Executor,
    JobClass,
    JobStatus,
    Role,
    Scope,
)
from scheduler.store import work
from scheduler.store.offers import Wanted
from scheduler.store.submission import Submission, submit
from scheduler.store.work import Failure, Success
from webapp import access, pulling
from webapp.access import Account
from webapp.answers import answer, json_body
from webapp.connection import connection_of
from webapp.endpoints import Resource
from webapp.errors import Problem
from webapp.extensions import db
from webapp.pulling import Worker
from webapp.schemas.simplequeue import SimpleCompletion, SimpleJob, SimpleJobList, SimpleSubmission
from webapp.submitting import finish

TYPE = "simplequeue"
"""The type of the jobs that are submitted here."""

_PAGE = 50
_ONE_ATTEMPT = {"max_attempts": 1, "strategy": "none"}

bp = Resource("api_simplequeue", __name__, invalid="bad_request", takes_basic_token=True)


@bp.route_of(
    "GET",
    "/simplequeue/jobs",
    summary="List your jobs of the simple queue",
    scope=Scope.READ,
    answers={200: SimpleJobList},
)
def list_simple_jobs() -> Response:
    """All of them, in the order of their submission."""
    written = stream_with_context(_written(access.require()))
    return Response(written, content_type="application/json")


@bp.route_of(
    "POST",
    "/simplequeue/jobs/submit",
    summary="Submit a job to the simple queue",
    scope=Scope.SUBMIT,
    role=Role.USER,
    body=SimpleSubmission,
    answers={200: SimpleJob, 201: SimpleJob},
    refuses=("job_id_conflict", "backlog_full"),
)
def submit_simple_job(body: SimpleSubmission) -> Response:
    """The same `jobId` again changes nothing: the job that is there is answered."""
    account, session = access.require(), db.session()
    try:
        submitted = submit(session, account.id, [_submission(body)], batch=False)
    except JobIdConflict:
        session.rollback()
        known = _find(account, body.jobId)
        if known is None:
            raise
        return answer(_to_json(known))
    job = _to_json(session.get_one(Job, submitted.ids[0]))
    finish(submitted.moves)
    return answer(job, 201 if submitted.created else 200)


@bp.route_of(
    "GET",
    "/simplequeue/jobs/next",
    summary="Take the next job of the simple queue",
    scope=Scope.WORK,
    role=Role.USER,
    answers={200: SimpleJob},
    refuses=("not_found",),
)
def next_simple_job() -> Response:
    """404 when there is none. It is running from now on, until it is completed."""
    account = access.require()
    if account.by_session:
        # A link that changes something must not be followed for whoever is signed in.
        raise Problem("forbidden", "Taking a job needs a token.")
    worker = Worker(TYPE, account.id, Wanted([TYPE], account.id), pulling.FOR_GOOD)
    is_there = connection_of(request).is_there
    handed = pulling.hand_out(worker, wait=timedelta(0), is_there=is_there)
    if handed is None:
        raise Problem("not_found", "No job is waiting.")
    job = _to_json(handed.job)
    finish(handed.moves)
    return answer(job)


@bp.route_of(
    "GET",
    "/simplequeue/jobs/<job_id:job_id>",
    summary="Read a job of the simple queue",
    scope=Scope.READ,
    answers={200: SimpleJob},
)
def read_simple_job(job_id: str) -> Response:
    """A job called `next` is in the list only."""
    return answer(_to_json(_get(access.require(), job_id)))


@bp.route_of(
    "POST",
    "/simplequeue/jobs/complete",
    summary="Say how a job of the simple queue ended",
    scope=Scope.WORK,
    role=Role.USER,
    body=SimpleCompletion,
    answers={200: SimpleJob},
    refuses=("not_found", "not_running"),
    reports=True,
)
def complete_simple_job(body: SimpleCompletion) -> Response:
    """409 for a job that is not running."""
    session = db.session()
    job = _get(access.require(), body.jobId)
    if body.status == "succeeded":
        moves = work.succeed(session, [Success(job.id, job.attempt, None)])
    else:
        said = "its worker said that it failed"
        failure = Failure(job.id, job.attempt, "Failed", said, retryable=False)
        moves = work.fail(session, failure)
    session.refresh(job)
    if not moves:
        raise Problem("not_running", f"The job is {_state(job)}.")
    answered = _to_json(job)
    finish(moves)
    return answer(answered)


def _written(account: Account) -> Iterator[bytes]:
    """Write the list page by page, so that its length costs no memory."""
    last, opening = 0, b"["
    while rows := _page(account, after=last):
        yield opening + b",".join(json_body(_to_json(job)) for job in rows)
        last, opening = rows[-1].id, b","
    yield b"]" if last else b"[]"


def _page(account: Account, *, after: int) -> Sequence[Row[Any]]:
    """Return what is shown of the jobs that follow; nothing is held while a client reads it."""
    rows = db.session.execute(
        select(Job.id, Job.job_id, Job.description, Job.status, Job.payload)
        .where(Job.owner_id == account.id, Job.type == TYPE, Job.id > after)
        .order_by(Job.id)
        .limit(_PAGE)
    ).all()
    db.session.rollback()
    return rows


def _find(account: Account, job_id: str) -> Job | None:
    named = select(Job).where(Job.owner_id == account.id, Job.job_id == job_id, Job.type == TYPE)
    found: Job | None = db.session.scalar(named)
    return found


def _get(account: Account, job_id: str) -> Job:
    job = _find(account, job_id)
    if job is None:
        raise JobNotFound(job_id)
    return job


def _submission(body: SimpleSubmission) -> Submission:
    return Submission(
        type=TYPE,
        job_id=body.jobId,
        payload={"data": body.data},
        description=body.description,
        priority_level=DEFAULT_LEVEL[JobClass.NORMAL],
        job_class=JobClass.NORMAL,
        retry_config=_ONE_ATTEMPT,
        timeout_seconds=pulling.FOR_GOOD.total_seconds(),
        executor=Executor.PULL,
        request_id=g.request_id,
    )


def _to_json(job: Job | Row[Any]) -> dict[str, Any]:
    return {
        "jobId": job.job_id,
        "description": job.description,
        "state": _state(job),
        "data": job.payload.get("data"),
    }


def _state(job: Job | Row[Any]) -> str:
    status = JobStatus(job.status)
    if status is JobStatus.RUNNING:
        return JobStatus.RUNNING
    if status in UNFINISHED:
        return "submitted"
    return "succeeded" if status is JobStatus.COMPLETED else JobStatus.FAILED
