"""The Workers page: what runs jobs, its health and what it runs. For operators."""

from typing import Any

from flask import Blueprint, Response, make_response, render_template
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.models import Worker
from scheduler.states import Role
from scheduler.store import fleet
from webapp import access, askers, figures, queries
from webapp.extensions import db
from webapp.services import services
from webapp.views import frame

bp = Blueprint("workers", __name__)


def workers_page() -> Response:
    """Show the workers; the address is shared with the JSON side."""
    access.require(role=Role.OPERATOR)
    frame.reader()
    shown = {"fleet": _overview(db.session()), "flower_url": services().settings.flower_url}
    return make_response(render_template("workers/index.html", **shown))


def _state(worker: Worker, *, alive: bool) -> str:
    return fleet.state_of(worker) if alive or worker.state == "stopped" else "silent"


def _overview(session: Session) -> dict[str, Any]:
    """Return the workers, what the live ones offer together, and what is taken of it."""
    live = {worker.name for worker in fleet.live_workers(session)}
    running = queries.running_on(session)
    return {
        "workers": [
            {
                "worker": worker,
                "state": _state(worker, alive=worker.name in live),
                "running": running.get(worker.name, []),
            }
            for worker in queries.workers(session)
        ],
        "pull_workers": askers.pull_workers(session, services().redis, now=clock.now()),
        "live": len(live),
        "capacity": figures.offer(fleet.capacity(session)),
        "reserved": figures.reserved(session),
    }
