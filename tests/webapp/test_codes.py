"""Every error code, from a request that is really answered with it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from scheduler.settings import Settings
from scheduler.states import JobStatus, Role, Scope
from tests.factories import make_job, make_schedule, make_worker
from tests.webapp.conftest import MakeApp, MakePerson, Person
from tests.webapp.test_pull import claimed
from webapp import queries, schedules
from webapp.errors import CODES, MEDIA_TYPE
from webapp.openapi import path_of
from webapp.schemas.errors import ProblemDetails

S = JobStatus
SIMULATE = {"type": "simulate"}
NIGHTLY = {"name": "nightly", "cron": "30 2 * * *", "template": SIMULATE}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Scene:
    """What requests are refused in: people, who may do what they ask for, and what they have."""

    app: Flask
    person: MakePerson
    signed_in: MakePerson
    store: Session
    settings: Settings
    make_app: MakeApp
    monkeypatch: pytest.MonkeyPatch

    def job(self, owner: Person, status: JobStatus = S.READY, **columns: Any) -> None:
        make_job(self.store, owner.user, status, **{"job_id": "it", **columns})
        self.store.commit()

    def schedule(self, owner: Person) -> None:
        make_schedule(self.store, owner.user, "nightly")
        self.store.commit()


@pytest.fixture
def scene(
    app: Flask,
    person: MakePerson,
    signed_in: MakePerson,
    store: Session,
    settings: Settings,
    make_app: MakeApp,
    monkeypatch: pytest.MonkeyPatch,
) -> Scene:
    return Scene(app, person, signed_in, store, settings, make_app, monkeypatch)


Ask = Callable[[Scene], TestResponse]


def _bad_request(there: Scene) -> TestResponse:
    return there.person("ann").post("/simplequeue/jobs/submit", {"jobId": ""})


def _unauthenticated(there: Scene) -> TestResponse:
    return there.app.test_client().get("/me")


def _forbidden(there: Scene) -> TestResponse:
    return there.person("ann").get("/users")


def _insufficient_scope(there: Scene) -> TestResponse:
    return there.person("ann", scopes={Scope.SUBMIT}).get("/me")


def _csrf_failed(there: Scene) -> TestResponse:
    ann = there.signed_in("ann")
    ann.csrf = None
    return ann.post("/jobs", SIMULATE)


def _not_found(there: Scene) -> TestResponse:
    return there.person("ann").get("/jobs/none")


def _method_not_allowed(there: Scene) -> TestResponse:
    return there.person("ann").delete("/jobs")


def _ambiguous_job_id(there: Scene) -> TestResponse:
    for name in ("ann", "bob"):
        there.job(there.person(name))
    return there.person("olga", Role.OPERATOR).get("/jobs/it")


def _ambiguous_name(there: Scene) -> TestResponse:
    for name in ("ann", "bob"):
        there.schedule(there.person(name))
    return there.person("olga", Role.OPERATOR).get("/schedules/nightly")


def _job_id_conflict(there: Scene) -> TestResponse:
    ann = there.person("ann")
    ann.post("/jobs", SIMULATE | {"job_id": "it"})
    return ann.post("/jobs", SIMULATE | {"job_id": "it", "priority": "low"})


def _not_cancellable(there: Scene) -> TestResponse:
    ann = there.person("ann")
    there.job(ann, S.COMPLETED)
    return ann.patch("/jobs/it/cancel")


def _not_changeable(scene: Scene) -> TestResponse:
    ann = scene.person("ann")
    scene.job(ann, S.RUNNING)
    return ann.patch("/jobs/it", {"priority": "high"})


def _worker_gone(scene: Scene) -> TestResponse:
    make_worker(scene.store, state="stopped")
    scene.store.commit()
    return scene.person("olga", Role.OPERATOR).post("/workers/worker1@test/drain")


def _beyond_bounds(scene: Scene) -> TestResponse:
    make_worker(scene.store)
    scene.store.commit()
    return scene.person("olga", Role.OPERATOR).post("/workers/worker1@test/grow?processes=1000")


def _lease_lost(there: Scene) -> TestResponse:
    ann = there.person("ann")
    claimed(there.store, ann.user, job_id="it")
    return ann.post("/jobs/it/heartbeat", {"lease": "of somebody else"})


def _not_running(there: Scene) -> TestResponse:
    ann = there.person("ann")
    ann.post("/simplequeue/jobs/submit", {"jobId": "it"})
    return ann.post("/simplequeue/jobs/complete", {"jobId": "it", "status": "succeeded"})


def _not_retryable(there: Scene) -> TestResponse:
    ann = there.person("ann")
    there.job(ann)
    return ann.post("/jobs/it/retry")


def _nothing_to_send(there: Scene) -> TestResponse:
    ann = there.person("ann")
    there.job(ann)
    return ann.post("/jobs/it/callbacks/retry")


def _name_taken(there: Scene) -> TestResponse:
    boss = there.person("boss", Role.ADMIN)
    return boss.post("/users", {"username": "boss", "password": "long enough"})


def _too_many_schedules(there: Scene) -> TestResponse:
    there.monkeypatch.setattr(schedules, "LIMIT", 0)
    return there.person("ann").post("/schedules", NIGHTLY)


def _last_admin(there: Scene) -> TestResponse:
    return there.person("boss", Role.ADMIN).patch("/users/boss", {"role": "user"})


def _policy_conflict(there: Scene) -> TestResponse:
    return there.person("boss", Role.ADMIN).put("/policy", {"version": 0})


def _too_large(there: Scene) -> TestResponse:
    return there.person("ann").post("/jobs", SIMULATE | {"description": "x" * 2**20})


def _unsupported_media_type(there: Scene) -> TestResponse:
    return there.person("ann").ask("POST", "/jobs", data={"type": "simulate"})


def _invalid_json(there: Scene) -> TestResponse:
    return there.person("ann").ask("POST", "/jobs", data="{", headers=JSON)


def _validation_failed(there: Scene) -> TestResponse:
    return there.person("ann").post("/jobs", SIMULATE | {"colour": "red"})


def _invalid_cursor(there: Scene) -> TestResponse:
    return there.person("ann").get("/jobs?cursor=made-up")


def _unknown_owner(there: Scene) -> TestResponse:
    return there.person("olga", Role.OPERATOR).post("/jobs", SIMULATE | {"owner": "nobody"})


def _unknown_group(there: Scene) -> TestResponse:
    return there.person("boss", Role.ADMIN).patch("/users/boss", {"group": "none"})


def _unknown_type(there: Scene) -> TestResponse:
    return there.person("ann").post("/jobs", {"type": "unheard-of"})


def _unknown_dependency(there: Scene) -> TestResponse:
    return there.person("ann").post("/jobs", SIMULATE | {"depends_on": ["none"]})


def _dependency_cycle(there: Scene) -> TestResponse:
    circle = [
        SIMULATE | {"job_id": "a", "depends_on": ["b"]},
        SIMULATE | {"job_id": "b", "depends_on": ["a"]},
    ]
    return there.person("ann").post("/jobs/batch", {"jobs": circle})


def _never_fits(there: Scene) -> TestResponse:
    boss = there.person("boss", Role.ADMIN)
    boss.put("/policy", {"version": 1, "capacity": {"cpu_units": 1}})
    return boss.post("/jobs", SIMULATE | {"resource_requirements": {"cpu_units": 2}})


def _backlog_full(there: Scene) -> TestResponse:
    return there.person("ann", cap_backlog=0).post("/jobs", SIMULATE)


def _rate_limited(there: Scene) -> TestResponse:
    ann = there.person("ann")
    ann.client = there.make_app(replace(there.settings, requests_per_minute=1)).test_client()
    ann.get("/me")
    return ann.get("/me")


def _types_fail_with(there: Scene, failure: Exception) -> TestResponse:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    there.monkeypatch.setattr(queries, "page_of_types", fail)
    return there.person("ann").get("/types")


def _internal_error(there: Scene) -> TestResponse:
    return _types_fail_with(there, ZeroDivisionError())


def _unavailable(there: Scene) -> TestResponse:
    return _types_fail_with(there, OperationalError("SELECT", {}, Exception("away")))


REFUSALS: dict[str, Ask] = {
    "bad_request": _bad_request,
    "unauthenticated": _unauthenticated,
    "forbidden": _forbidden,
    "insufficient_scope": _insufficient_scope,
    "csrf_failed": _csrf_failed,
    "not_found": _not_found,
    "method_not_allowed": _method_not_allowed,
    "ambiguous_job_id": _ambiguous_job_id,
    "ambiguous_name": _ambiguous_name,
    "job_id_conflict": _job_id_conflict,
    "not_cancellable": _not_cancellable,
    "not_changeable": _not_changeable,
    "worker_gone": _worker_gone,
    "beyond_bounds": _beyond_bounds,
    "lease_lost": _lease_lost,
    "not_running": _not_running,
    "not_retryable": _not_retryable,
    "nothing_to_send": _nothing_to_send,
    "name_taken": _name_taken,
    "too_many_schedules": _too_many_schedules,
    "last_admin": _last_admin,
    "policy_conflict": _policy_conflict,
    "too_large": _too_large,
    "unsupported_media_type": _unsupported_media_type,
    "invalid_json": _invalid_json,
    "validation_failed": _validation_failed,
    "invalid_cursor": _invalid_cursor,
    "unknown_owner": _unknown_owner,
    "unknown_group": _unknown_group,
    "unknown_type": _unknown_type,
    "unknown_dependency": _unknown_dependency,
    "dependency_cycle": _dependency_cycle,
    "never_fits": _never_fits,
    "backlog_full": _backlog_full,
    "rate_limited": _rate_limited,
    "internal_error": _internal_error,
    "unavailable": _unavailable,
}


def test_every_code_has_a_request_that_is_refused_with_it() -> None:
    assert set(REFUSALS) == set(CODES)


@pytest.mark.parametrize("code", REFUSALS)
def test_each_code_is_answered_and_told_of_its_route(scene: Scene, code: str) -> None:
    answer = REFUSALS[code](scene)

    problem = ProblemDetails.model_validate_json(answer.data)
    assert (problem.code, answer.mimetype) == (code, MEDIA_TYPE)
    assert answer.status_code == problem.status == CODES[code]
    assert ("Retry-After" in answer.headers) == (answer.status_code in {429, 503})
    assert ("WWW-Authenticate" in answer.headers) == (answer.status_code == 401)
    if code != "method_not_allowed":  # there is no route to tell it of
        assert f"`{code}`" in told_of(scene.app, answer)


def told_of(app: Flask, answer: TestResponse) -> str:
    """Return what the document tells of the status with which a request was answered."""
    method = answer.request.method
    with app.test_request_context(answer.request.path, method=method) as context:
        rule = context.request.url_rule
    assert rule is not None
    operation = app.test_client().get("/openapi.json").json["paths"][path_of(rule.rule)]
    told: str = operation[method.lower()]["responses"][str(answer.status_code)]["description"]
    return told
