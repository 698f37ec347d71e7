"""Work for processors that are not Celery workers: ask for a job, keep it, complete it."""

from datetime import timedelta

from flask import Response, request

from scheduler import clock
from scheduler.models import Job
from scheduler.states import JobStatus, Role, Scope
from scheduler.store.offers import Wanted
from scheduler.store.work import Failure, LogLine
from webapp import access, pulling, queries, serialise
from webapp.answers import answer, utc
from webapp.connection import connection_of
from webapp.endpoints import Resource
from webapp.extensions import db
from webapp.pulling import Said, Worker
from webapp.schemas.jobs import JobAnswer
from webapp.schemas.pull import (
    CompleteRequest,
    HandedJob,
    HeartbeatAnswer,
    HeartbeatRequest,
    NextRequest,
)
from webapp.services import services
from webapp.submitting import finish

bp = Resource("api_pull", __name__)


@bp.route_of(
    "POST",
    "/jobs/next",
    summary="Take the next job",
    scope=Scope.WORK,
    role=Role.USER,
    body=NextRequest,
    answers={200: HandedJob, 204: None},
)
def next_job(body: NextRequest) -> Response:
    """The one whose turn it is of those for pull workers: own ones, or everybody's for operators.

    204 when there is none, after `wait_seconds`. It is the worker's for `lease_seconds`, and longer
    with every heartbeat; then somebody else gets it, and that counts as an attempt.
    """
    account = access.require()
    wanted = Wanted(body.types, pulling.owner_served(account))
    worker = Worker(body.worker, account.id, wanted, timedelta(seconds=body.lease_seconds))
    handed = pulling.hand_out(
        worker,
        wait=timedelta(seconds=body.wait_seconds),
        is_there=connection_of(request).is_there,
    )
    if handed is None:
        return Response(status=204)
    view = queries.one_job(db.session(), services().redis, handed.job)
    job = serialise.job_to_json(view, now=clock.now())
    response = answer(job | {"lease": handed.lease, "lease_expires_at": utc(handed.until)})
    finish(handed.moves)
    return response


@bp.route_of(
    "POST",
    "/jobs/<job_id:job_id>/heartbeat",
    summary="Keep a job, and tell how far it is",
    scope=Scope.WORK,
    role=Role.USER,
    body=HeartbeatRequest,
    answers={200: HeartbeatAnswer},
    refuses=("lease_lost",),
    reports=True,
)
def keep_job(job_id: str, body: HeartbeatRequest) -> Response:
    """The lease lasts anew, as long as the job may run. `cancel` says that it is to stop."""
    job = pulling.job_under(access.require(), job_id, body.lease)
    renewed = pulling.note(job, body.lease, _said(body))
    return answer({"cancel": renewed.cancel_requested, "lease_expires_at": utc(renewed.until)})


@bp.route_of(
    "POST",
    "/jobs/<job_id:job_id>/complete",
    summary="Say how a job ended",
    scope=Scope.WORK,
    role=Role.USER,
    body=CompleteRequest,
    answers={200: JobAnswer},
    refuses=("lease_lost",),
    reports=True,
)
def complete_job(job_id: str, body: CompleteRequest) -> Response:
    """A failure is retried by the job's own rules, unless it is not `retryable`."""
    session = db.session()
    job = pulling.job_under(access.require(), job_id, body.lease)
    if body.status is JobStatus.COMPLETED:
        moves = pulling.end_well(job, body.lease, body.result)
    else:
        moves = pulling.end_badly(job, body.lease, lambda attempt: _failure(job, attempt, body))
    session.refresh(job)
    view = queries.one_job(session, services().redis, job)
    answered = serialise.job_to_json(view, now=clock.now())
    finish(moves)
    return answer(answered)


def _said(body: HeartbeatRequest) -> Said:
    now, progress = clock.now(), body.progress
    lines = tuple(LogLine(line.at or now, line.level, line.message) for line in body.logs)
    if progress is None:
        return Said(lines=lines)
    return Said(progress.fraction, progress.message, lines)


def _failure(job: Job, attempt: int, body: CompleteRequest) -> Failure:
    error = body.error
    return Failure(
        job.id,
        attempt,
        "Failed" if error is None else error.type,
        "its worker gave no reason" if error is None else error.message,
        traceback=None if error is None else error.traceback,
        retryable=body.retryable,
    )
