"""What operators want of workers, taken in the same way from the page and from programs."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from scheduler.models import Worker
from scheduler.store import fleet
from scheduler.store.audit import record
from webapp import access
from webapp.errors import Problem, not_found
from webapp.extensions import db
from webapp.services import services

Act = Callable[[Session, str], bool]
"""Says what is wanted of the worker of a name; False if that cannot be."""


def steer(name: str, verb: str, act: Act) -> Worker:
    """Do *act*, called *verb*, to a worker, write that down, and let the scheduler know. Commits.

    Raises a 404 problem for a worker that never was, a 409 problem for one that is gone or that
    cannot have as many processes.
    """
    session = db.session()
    up = fleet.is_up(session, name) if name.isprintable() else None
    if up is None:
        raise not_found()
    if not act(session, name):
        raise _refusal(session.get_one(Worker, name), is_up=up)
    worker = session.get_one(Worker, name, populate_existing=True)
    told = {"processes_limit": worker.processes_limit}
    record(session, access.actor(), f"workers.{verb}", f"workers/{name}", told)
    session.commit()
    services().announcer.wake()
    return worker


def _refusal(worker: Worker, *, is_up: bool) -> Problem:
    if not is_up:
        detail = "has stopped, is about to, or has not been heard of lately; start it first."
        return Problem("worker_gone", f"{worker.name} {detail}")
    least, most = worker.processes_min, worker.processes_max
    return Problem(
        "beyond_bounds",
        f"{worker.name} was started for {least} to {most} processes, of which it may have"
        f" {worker.processes_limit} now; start it with another --autoscale to go beyond.",
    )
