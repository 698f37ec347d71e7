"""Whether this process answers, and whether the whole can take jobs in and go on with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, current_app
from redis import RedisError
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from scheduler.models import SchedulerLease
from scheduler.store import fleet, leader
from webapp.answers import answer
from webapp.endpoints import Resource
from webapp.errors import RETRY_SOON
from webapp.extensions import db
from webapp.schemas.health import Health, Readiness
from webapp.services import services

_MIGRATIONS = Path(__file__).parent.parent / "migrations" / "versions"

bp = Resource("api_health", __name__)


def init_app(app: Flask) -> None:
    """Look up once which migration this code needs."""
    app.extensions["fairq_head"] = newest_migration()


def newest_migration() -> str:
    """Return the number of the newest migration.

    Their files begin with it. Asking Alembic would make every web process load it for this alone.
    """
    return max(file.name.partition("_")[0] for file in _MIGRATIONS.glob("[0-9]*_*.py"))


@bp.route_of(
    "GET", "/healthz", summary="Is the process alive?", is_open=True, answers={200: Health}
)
def read_health() -> Response:
    """Looks at nothing but itself."""
    return answer({"status": "ok"})


@bp.route_of(
    "GET",
    "/readyz",
    summary="Can jobs be taken in and go on?",
    is_open=True,
    answers={200: Readiness, 503: Readiness},
)
def read_readiness() -> Response:
    """Ready needs database, migrations, broker and a leading scheduler; workers are told only."""
    database = _with_database(_database)
    checks = {"database": database, "broker": _broker()}
    if database["ok"]:
        checks |= {"migrations": _with_database(_migrations), "leader": _with_database(_leader)}
    ready = all(check["ok"] for check in checks.values())
    if database["ok"]:
        checks["workers"] = _with_database(_workers)
    response = answer({"ready": ready, "checks": checks}, 200 if ready else 503)
    if not ready:
        response.headers["Retry-After"] = str(RETRY_SOON)
    return response


def _check(*, ok: bool, detail: str, age_seconds: float | None = None) -> dict[str, Any]:
    return {"ok": ok, "detail": detail, "age_seconds": age_seconds}


def _with_database(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return check()
    except (DBAPIError, PoolTimeout):
        db.session.rollback()
        return _check(ok=False, detail="does not answer")


def _database() -> dict[str, Any]:
    db.session.execute(text("SELECT 1"))
    return _check(ok=True, detail="answers")


def _migrations() -> dict[str, Any]:
    found = db.session.scalar(text("SELECT version_num FROM alembic_version"))
    if found == current_app.extensions["fairq_head"]:
        return _check(ok=True, detail=f"at {found}")
    return _check(ok=False, detail=f"at {found}, not at the newest")


def _leader() -> dict[str, Any]:
    age = func.extract("epoch", func.now() - SchedulerLease.renewed_at)
    holder, seconds = db.session.execute(select(SchedulerLease.holder, age)).one()
    if holder is None or seconds is None:
        return _check(ok=False, detail="no scheduler leads")
    ok = float(seconds) <= leader.SILENCE.total_seconds()
    detail = "leads" if ok else "has gone silent"
    return _check(ok=ok, detail=f"a scheduler {detail}", age_seconds=round(float(seconds), 3))


def _broker() -> dict[str, Any]:
    try:
        services().redis.ping()
    except RedisError:
        return _check(ok=False, detail="does not answer")
    return _check(ok=True, detail="answers")


def _workers() -> dict[str, Any]:
    count = len(fleet.live_workers(db.session()))
    return _check(ok=count > 0, detail=f"{count} alive")
