"""Following what happens, as it happens."""

import time

from flask import Response, current_app, request
from flask.typing import ResponseReturnValue
from gevent.event import Event

from scheduler.models import Job
from scheduler.states import JobStatus, Scope, is_final
from webapp import access
from webapp.answers import answer
from webapp.api import jobs
from webapp.endpoints import Resource
from webapp.extensions import db
from webapp.schemas.groundwork import OwnerQuery
from webapp.schemas.jobs import JobAnswer
from webapp.schemas.streams import StreamedMove, StreamPlace, WaitQuery
from webapp.streams import channel
from webapp.streams.answers import asks_for_events, converse, follow_moves
from webapp.streams.home import streams_of
from webapp.streams.waits import Awaited

bp = Resource("api_streams", __name__)


@bp.route_of(
    "GET",
    "/jobs/stream",
    summary="Follow changes of jobs",
    scope=Scope.READ,
    upgrades=True,
    query=OwnerQuery,
    headers=("Last-Event-ID",),
    answers={200: JobAnswer, 101: None},
    streams={
        "job": StreamedMove,
        "live": StreamPlace,
        "reload": StreamPlace,
        "resume": StreamPlace,
    },
    refuses=("unknown_owner", "bad_request", "not_found", "ambiguous_job_id"),
)
def stream_jobs(query: OwnerQuery) -> ResponseReturnValue:
    """Every change of own jobs, of everybody's for operators: an event `job` with its `seq` as id.

    Server-sent events for `Accept: text/event-stream`, a WebSocket for an upgrade. A stream starts
    now, or after the event whose id is in `Last-Event-ID`. `live` tells that what was missed has
    been told, `reload` that it is more than is kept or worth telling, `resume` to come back with
    the last id. Messages of a WebSocket are `{"event", "id", "data"}`; the first one from the
    client may be `{"token", "last_event_id"}`, where headers cannot be set. `{}` starts at once.

    Whoever asks for neither reads the job that is called `stream`.
    """
    if channel.is_asked_for(request.headers):
        return converse(query.owner)
    if asks_for_events():
        return follow_moves(query.owner)
    access.require(Scope.READ)
    return jobs.read_job("stream", query)


@bp.route_of(
    "GET",
    "/jobs/<job_id:job_id>/wait",
    summary="Wait for a job to finish",
    scope=Scope.READ,
    query=WaitQuery,
    answers={200: JobAnswer, 202: JobAnswer},
    refuses=("ambiguous_job_id",),
)
def wait_for_job(job_id: str, query: WaitQuery) -> Response:
    """200 as soon as the job has finished, 202 when it has not in time; either way the job."""
    streams, account = streams_of(current_app), access.require()
    deadline = time.monotonic() + query.timeout_seconds
    awaited, bell = Awaited.of(access.find_job(account, job_id, query.owner)), Event()
    db.session.remove()  # nobody waits with a connection, not for a turn either
    with streams.place_of(account.id), streams.waits.waiting(awaited, bell.set):
        while True:
            with streams.turns:
                # Once more, the first time too: it may have finished before anybody could ring.
                job = access.find_job(account, job_id, query.owner)
                left = 0.0 if streams.is_stopping else deadline - time.monotonic()
                if is_final(JobStatus(job.status)) or left <= 0:
                    return _answer(job)
                db.session.remove()
            bell.wait(left)
            bell.clear()


def _answer(job: Job) -> Response:
    return answer(jobs.one_to_json(job), 200 if is_final(JobStatus(job.status)) else 202)
