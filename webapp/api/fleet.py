"""What runs jobs, what can be run, and figures about both."""

from functools import partial
from typing import Any

from flask import Response, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue

from scheduler import clock, retry
from scheduler.models import Worker
from scheduler.states import Role, Scope
from scheduler.store import fleet
from webapp import access, askers, figures, metrics, queries, serialise, steering
from webapp.answers import answer, utc
from webapp.askers import PullWorker
from webapp.endpoints import Resource
from webapp.errors import prefers_html
from webapp.extensions import db
from webapp.schemas.fleet import ResizeQuery, Stats, TypeList, WorkerAnswer, WorkerList
from webapp.schemas.groundwork import Page
from webapp.services import services
from webapp.views.workers import workers_page

bp = Resource("api_fleet", __name__)

_operates = partial(
    bp.route_of, "POST", scope=Scope.ADMIN, role=Role.OPERATOR, answers={200: WorkerAnswer}
)
_steers = partial(_operates, refuses=("worker_gone",))
_resizes = partial(_operates, query=ResizeQuery, refuses=("worker_gone", "beyond_bounds"))


@bp.route_of(
    "GET",
    "/workers",
    summary="List the workers",
    scope=Scope.READ,
    role=Role.OPERATOR,
    answers={200: WorkerList},
)
def list_workers() -> ResponseReturnValue:
    """Every Celery worker, what it offers and what it runs, and the pull workers there are.

    Browsers get the page.
    """
    if prefers_html():
        return workers_page()
    session = db.session()
    live = {worker.name for worker in fleet.live_workers(session)}
    running = queries.running_on(session)
    workers = [
        worker_to_json(worker, alive=worker.name in live, running=running.get(worker.name, []))
        for worker in queries.workers(session)
    ]
    pulling = askers.pull_workers(session, services().redis, now=clock.now())
    return answer(
        {
            "workers": workers,
            "pull_workers": [_pull_worker_to_json(worker) for worker in pulling],
            "capacity": figures.offer(fleet.capacity(session)),
        }
    )


@_steers("/workers/<name>/drain", summary="Let a worker take no new work", audits="workers.drain")
def drain_worker(name: str) -> ResponseReturnValue:
    """It stays up, and what it runs goes on; its capacity is not offered any more.

    That holds until it is resumed, also when it starts again. It hears of it within seconds.
    """
    return _steered(
        steering.steer(name, "drain", fleet.drain), "takes no new jobs; what it runs goes on"
    )


@_steers("/workers/<name>/resume", summary="Let a worker take work again", audits="workers.resume")
def resume_worker(name: str) -> ResponseReturnValue:
    """Its capacity is offered again."""
    return _steered(steering.steer(name, "resume", fleet.resume), "takes jobs again")


@_resizes("/workers/<name>/grow", summary="Let a worker have more processes", audits="workers.grow")
def grow_worker(name: str, query: ResizeQuery) -> ResponseReturnValue:
    """Within the bounds it was started with; it starts them as there is work.

    That holds until it starts again.
    """
    return _resized(name, by=query.processes)


@_resizes(
    "/workers/<name>/shrink", summary="Let a worker have fewer processes", audits="workers.shrink"
)
def shrink_worker(name: str, query: ResizeQuery) -> ResponseReturnValue:
    """Within the bounds it was started with; a process that runs a job ends after it.

    That holds until it starts again.
    """
    return _resized(name, by=-query.processes)


@bp.route_of(
    "GET",
    "/types",
    summary="List the job types",
    scope=Scope.READ,
    query=Page,
    answers={200: TypeList},
    refuses=("invalid_cursor",),
)
def list_types(query: Page) -> Response:
    """What can be submitted, with the schema of each payload, by name."""
    found, cursor = queries.page_of_types(db.session(), limit=query.limit, cursor=query.cursor)
    told = [serialise.type_to_json(one, dict(retry.DEFAULTS)) for one in found]
    return answer({"types": told, "next_cursor": cursor})


@bp.route_of("GET", "/stats", summary="Read figures", scope=Scope.READ, answers={200: Stats})
def read_stats() -> Response:
    """Own figures, or everybody's for operators."""
    return answer(figures.stats(db.session(), access.require(), now=clock.now()))


@bp.route_of(
    "GET",
    "/metrics",
    summary="Read figures as Prometheus does",
    scope=Scope.READ,
    answers={200: None},
)
def read_metrics() -> Response:
    """Own figures, or everybody's for operators, and those of the service as a whole.

    Text in the format of Prometheus, or OpenMetrics where that is asked for. They are read from the
    database at every scrape, so every web process tells the same.
    """
    found = metrics.families(db.session(), services().redis, access.require(), now=clock.now())
    body, content_type = metrics.exposition(found, request.headers.get("Accept", ""))
    return Response(body, content_type=content_type)


def _resized(name: str, *, by: int) -> ResponseReturnValue:
    worker = steering.steer(name, "grow" if by > 0 else "shrink", partial(fleet.resize, by=by))
    processes = "process" if worker.processes_limit == 1 else "processes"
    return _steered(worker, f"may have {worker.processes_limit} {processes} now")


def _steered(worker: Worker, told: str) -> ResponseReturnValue:
    """Answer with a worker that was steered; browsers are led back to the page."""
    if prefers_html():
        flash(f"{worker.name} {told}.")
        return redirect(url_for("api_fleet.list_workers"))
    running = queries.running_on(db.session()).get(worker.name, [])
    return answer(worker_to_json(worker, alive=True, running=running))


def worker_to_json(
    worker: Worker, *, alive: bool, running: list[queries.Running]
) -> dict[str, Any]:
    """Return a worker as operators see it."""
    return {
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "state": fleet.state_of(worker),
        "alive": alive,
        "processes": worker.processes,
        "processes_min": worker.processes_min,
        "processes_max": worker.processes_max,
        "processes_limit": worker.processes_limit,
        "cpu_units": float(worker.cpu_units),
        "memory_mb": worker.memory_mb,
        "queues": worker.queues,
        "started_at": utc(worker.started_at),
        "heartbeat_at": utc(worker.heartbeat_at),
        "drain_requested_at": utc(worker.drain_requested_at),
        "running": [_running_to_json(one) for one in running],
    }


def _pull_worker_to_json(worker: PullWorker) -> dict[str, Any]:
    return {
        "name": worker.name,
        "asked_by": worker.asked_by,
        "asked_at": utc(worker.asked_at),
        "running": [
            _running_to_json(one) | {"lease_expires_at": utc(one.lease_until)}
            for one in worker.running
        ],
    }


def _running_to_json(one: queries.Running) -> dict[str, Any]:
    return {
        "job_id": one.job_id,
        "owner": one.owner,
        "attempt": one.attempt,
        "started_at": utc(one.started_at),
    }
