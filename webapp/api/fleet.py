"""What runs jobs, what can be run, and figures about both."""

from typing import Any

from flask import Response, request
from flask.typing import ResponseReturnValue

from scheduler import clock, retry
from scheduler.models import Worker
from scheduler.states import Role, Scope
from scheduler.store import fleet
from webapp import access, figures, metrics, queries, serialise
from webapp.answers import answer, utc
from webapp.endpoints import Resource
from webapp.errors import prefers_html
from webapp.extensions import db
from webapp.schemas import Stats, TypeList, WorkerList
from webapp.services import services
from webapp.views.workers import workers_page

bp = Resource("api_fleet", __name__)


@bp.route_of(
    "GET",
    "/workers",
    summary="List the workers",
    scope=Scope.READ,
    role=Role.OPERATOR,
    answers={200: WorkerList},
)
def list_workers() -> ResponseReturnValue:
    """Every worker, what it offers and what it runs; browsers get the page."""
    if prefers_html():
        return workers_page()
    session = db.session()
    live = {worker.name for worker in fleet.live_workers(session)}
    running = queries.running_on(session)
    workers = [
        worker_to_json(worker, alive=worker.name in live, running=running.get(worker.name, []))
        for worker in queries.workers(session)
    ]
    return answer({"workers": workers, "capacity": figures.offer(fleet.capacity(session))})


@bp.route_of(
    "GET", "/types", summary="List the job types", scope=Scope.READ, answers={200: TypeList}
)
def list_types() -> Response:
    """What can be submitted, with the schema of each payload."""
    found = queries.job_types(db.session())
    return answer({"types": [serialise.type_to_json(one, dict(retry.DEFAULTS)) for one in found]})


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


def worker_to_json(
    worker: Worker, *, alive: bool, running: list[queries.Running]
) -> dict[str, Any]:
    """Return a worker as operators see it."""
    return {
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "state": worker.state,
        "alive": alive,
        "processes": worker.processes,
        "processes_min": worker.processes_min,
        "processes_max": worker.processes_max,
        "cpu_units": float(worker.cpu_units),
        "memory_mb": worker.memory_mb,
        "queues": worker.queues,
        "started_at": utc(worker.started_at),
        "heartbeat_at": utc(worker.heartbeat_at),
        "running": [
            {
                "job_id": one.job_id,
                "owner": one.owner,
                "attempt": one.attempt,
                "started_at": utc(one.started_at),
            }
            for one in running
        ],
    }
