"""The HTTP contract, call by call: that each is there, and answers as the contract writes it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask
from jsonschema import Draft202012Validator
from redis import Redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from scheduler.states import Executor, JobStatus, Role
from tests.factories import make_group, make_job, make_line, make_schedule, make_user, make_worker
from tests.scheduler.installation import Installation, running
from tests.webapp.conftest import PASSWORD, MakePerson, Person, add_token
from tests.webapp.test_pull import claimed

S = JobStatus


def named(fields: str) -> frozenset[str]:
    return frozenset(fields.split())


JOB = named(
    "job_id type status reason owner priority priority_level description tags payload depends_on"
    " dependents_count resource_requirements retry_config timeout_seconds executor attempt"
    " created_at run_at ready_at queued_at started_at finished_at waited_seconds elapsed_seconds"
    " progress result error worker schedule request_id position_in_queue waiting"
)
JOBS = {"jobs": JOB}
LINE = frozenset({"at", "attempt", "level", "message"})
ATTEMPT = named("worker started_at finished_at outcome error traceback peak_memory_mb cpu_seconds")
SIMPLE_JOB = frozenset({"jobId", "description", "state", "data"})
SCHEDULE = named(
    "name template cron every_seconds timezone overlap catch_up paused next_runs in_words"
)
TOKEN = frozenset({"id", "name", "scopes", "expires_at", "last_used_at"})
USER = frozenset({"username", "role", "group", "weight", "caps", "active"})
GROUP = frozenset({"name", "weight", "caps"})
GROUP_OF_FAILED = frozenset({"fingerprint", "count"})
POLICY = frozenset({"version", "capacity", "rules", "types", "classes"})

SIMULATE = {"type": "simulate"}
NIGHTLY = {"name": "new", "cron": "30 2 * * *", "template": SIMULATE}
FILTERS = (
    "?status=pending,failed&type=simulate&priority=normal,5&tag=x&q=made&sort=oldest&limit=5"
    "&created_after=2026-01-01T00:00:00Z&created_before=2026-02-01T00:00:00Z"
)
OPEN = None


@dataclass(frozen=True)
class Call:
    """A row of the contract: who may at least call it, and what is answered.

    *lists* are the lists in the answer, with the fields of each entry; *job* names the job of the
    scene that the call is about.
    """

    method: str
    path: str
    who: Role | None
    status: int
    fields: frozenset[str] | set[str] = frozenset()
    lists: Mapping[str, frozenset[str]] = field(default_factory=dict)
    body: Any = None
    query: str = ""
    job: str = "failed"
    media: str = "application/json"
    accept: str = "application/json"

    def __str__(self) -> str:
        return f"{self.method} {self.path}{self.query} {self.job} {self.who} {self.status}"


CALLS = (
    # Jobs
    Call("POST", "/jobs", Role.USER, 201, JOB, body=SIMULATE),
    Call(
        "POST",
        "/jobs/batch",
        Role.USER,
        201,
        {"created", "duplicates"},
        JOBS,
        body={"jobs": [SIMULATE, SIMULATE]},
    ),
    Call("GET", "/jobs", Role.VIEWER, 200, {"next_cursor"}, JOBS),
    Call("GET", "/jobs", Role.VIEWER, 200, {"next_cursor"}, {"jobs": frozenset()}, query=FILTERS),
    Call("GET", "/jobs", Role.VIEWER, 200, {"next_cursor"}, JOBS, query="?owner=caller"),
    *(Call("GET", "/jobs/{job_id}", Role.VIEWER, 200, JOB, job=status) for status in S),
    Call("PATCH", "/jobs/{job_id}/cancel", Role.USER, 200, JOB, job="ready"),
    Call("PATCH", "/jobs/{job_id}/cancel", Role.USER, 409, {"code"}, job="completed"),
    Call("POST", "/jobs/{job_id}/retry", Role.USER, 200, JOB, job="failed"),
    Call("POST", "/jobs/{job_id}/retry", Role.USER, 200, JOB, job="cancelled"),
    Call("POST", "/jobs/{job_id}/retry", Role.USER, 409, {"code"}, job="running"),
    Call("GET", "/jobs/{job_id}/logs", Role.VIEWER, 200, {"next_cursor"}, {"logs": LINE}),
    Call(
        "GET",
        "/jobs/{job_id}/logs",
        Role.VIEWER,
        200,
        query="?follow=1",
        media="text/event-stream",
    ),
    Call("GET", "/jobs/{job_id}/attempts", Role.VIEWER, 200, lists={"attempts": ATTEMPT}),
    Call("GET", "/jobs/{job_id}/wait", Role.VIEWER, 200, JOB),
    Call(
        "GET",
        "/jobs/{job_id}/wait",
        Role.VIEWER,
        202,
        JOB,
        query="?timeout_seconds=0",
        job="running",
    ),
    Call(
        "GET",
        "/jobs/stream",
        Role.VIEWER,
        200,
        media="text/event-stream",
        accept="text/event-stream",
    ),
    # Pull workers
    Call("POST", "/jobs/next", Role.USER, 204, body={"worker": "w", "types": ["none"]}, media=""),
    Call(
        "POST",
        "/jobs/{job_id}/heartbeat",
        Role.USER,
        200,
        {"cancel"},
        body={"lease": "secret", "progress": {"fraction": 0.5}, "logs": ["half"]},
        job="handed",
    ),
    Call(
        "POST",
        "/jobs/{job_id}/complete",
        Role.USER,
        200,
        JOB,
        body={"lease": "secret", "status": "completed", "result": {"rows": 3}},
        job="handed",
    ),
    Call(
        "POST",
        "/jobs/{job_id}/complete",
        Role.USER,
        409,
        {"code"},
        body={"lease": "another", "status": "failed", "error": "no", "retryable": False},
        job="handed",
    ),
    # The simple queue protocol
    Call("GET", "/simplequeue/jobs", Role.VIEWER, 200, lists={"": SIMPLE_JOB}),
    Call(
        "POST",
        "/simplequeue/jobs/submit",
        Role.USER,
        201,
        SIMPLE_JOB,
        body={"jobId": "new", "description": "d", "data": [1]},
    ),
    Call("GET", "/simplequeue/jobs/{job_id}", Role.VIEWER, 200, SIMPLE_JOB, job="simple"),
    Call("GET", "/simplequeue/jobs/{job_id}", Role.VIEWER, 404, {"code"}, job="unknown"),
    Call("GET", "/simplequeue/jobs/next", Role.USER, 404, {"code"}),
    Call(
        "POST",
        "/simplequeue/jobs/complete",
        Role.USER,
        200,
        SIMPLE_JOB,
        body={"jobId": "simple", "status": "succeeded"},
    ),
    # Schedules
    Call("GET", "/schedules", Role.VIEWER, 200, {"next_cursor"}, {"schedules": SCHEDULE}),
    Call("POST", "/schedules", Role.USER, 201, SCHEDULE, body=NIGHTLY),
    Call("GET", "/schedules/{name}", Role.VIEWER, 200, SCHEDULE),
    Call("PATCH", "/schedules/{name}", Role.USER, 200, SCHEDULE, body={"paused": True}),
    Call("DELETE", "/schedules/{name}", Role.USER, 204, media=""),
    Call("POST", "/schedules/{name}/run", Role.USER, 201, JOB),
    # Dead letters
    Call("GET", "/dead-letters", Role.VIEWER, 200, {"next_cursor"}, JOBS),
    Call(
        "GET",
        "/dead-letters",
        Role.VIEWER,
        200,
        {"next_cursor"},
        {"groups": GROUP_OF_FAILED},
        query="?group=1",
    ),
    Call(
        "POST",
        "/dead-letters/retry",
        Role.USER,
        200,
        {"retried"},
        body={"job_ids": ["failed"], "payload": {"a": 1}},
    ),
    Call(
        "POST",
        "/dead-letters/discard",
        Role.USER,
        200,
        {"discarded"},
        body={"filter": {"type": "simulate"}},
    ),
    # People, policy, workers, service
    Call("GET", "/me", Role.VIEWER, 200, USER),
    Call("GET", "/tokens", Role.VIEWER, 200, lists={"tokens": TOKEN}),
    Call(
        "POST",
        "/tokens",
        Role.VIEWER,
        201,
        TOKEN | {"token"},
        body={"name": "x", "scopes": ["read"], "expires_at": "2100-01-01T00:00:00Z"},
    ),
    Call("DELETE", "/tokens/{id}", Role.VIEWER, 204, media=""),
    Call("GET", "/users", Role.ADMIN, 200, lists={"users": USER}),
    Call(
        "POST",
        "/users",
        Role.ADMIN,
        201,
        USER,
        body={
            "username": "new",
            "password": PASSWORD,
            "role": "operator",
            "group": "physics",
            "weight": 2,
            "caps": {"cpu_units": 1, "memory_mb": 64, "running_jobs": 2, "backlog": 9},
            "active": True,
        },
    ),
    Call("PATCH", "/users/{name}", Role.ADMIN, 200, USER, body={"role": "viewer"}),
    Call("GET", "/groups", Role.ADMIN, 200, lists={"groups": GROUP}),
    Call("POST", "/groups", Role.ADMIN, 201, GROUP, body={"name": "new", "weight": 2}),
    Call("PATCH", "/groups/{name}", Role.ADMIN, 200, GROUP, body={"caps": {"backlog": 9}}),
    Call("GET", "/policy", Role.ADMIN, 200, POLICY),
    Call(
        "PUT",
        "/policy",
        Role.ADMIN,
        200,
        POLICY,
        body={
            "version": 1,
            "capacity": {"cpu_units": None, "memory_mb": 1024},
            "rules": [],
            "types": {"simulate": {"max_running": 1, "max_per_minute": 9, "paused": False}},
            "classes": {"low": {"paused": True}},
        },
    ),
    Call("PUT", "/policy", Role.ADMIN, 409, {"code"}, body={"version": 0}),
    Call("POST", "/policy/preview", Role.OPERATOR, 200, {"as_is", "changed"}, body={}),
    Call("GET", "/workers", Role.OPERATOR, 200, lists={"workers": frozenset({"name", "running"})}),
    Call("POST", "/queues/{class}/pause", Role.OPERATOR, 200, {"name", "paused"}),
    Call("POST", "/queues/{class}/resume", Role.OPERATOR, 200, {"name", "paused"}),
    Call("POST", "/types/{type}/pause", Role.OPERATOR, 200, {"name", "paused"}),
    Call("POST", "/types/{type}/resume", Role.OPERATOR, 200, {"name", "paused"}),
    Call("GET", "/stats", Role.VIEWER, 200, {"jobs", "wait_seconds", "capacity", "reserved"}),
    Call("GET", "/audit", Role.ADMIN, 200, {"entries", "next_cursor"}),
    Call("GET", "/healthz", OPEN, 200, {"status"}),
    # Nobody leads here, and that is what it is there to tell.
    Call("GET", "/readyz", OPEN, 503, {"ready", "checks"}),
    Call("GET", "/openapi.json", OPEN, 200, {"openapi", "paths", "components"}),
    Call("GET", "/docs", OPEN, 200, media="text/html", accept="text/html"),
    Call("PATCH", "/jobs/{job_id}", Role.USER, 200, JOB, body={"priority": "high"}, job="ready"),
    Call(
        "GET",
        "/jobs/{job_id}/graph",
        Role.VIEWER,
        200,
        {"edges"},
        {"jobs": frozenset({"job_id", "status"})},
    ),
    # The contract leaves open how this is answered; here the body it takes.
    Call(
        "POST",
        "/jobs/bulk",
        Role.USER,
        200,
        body={"action": "cancel", "job_ids": ["ready"], "dry_run": True},
    ),
    Call("GET", "/me/usage", Role.VIEWER, 200),
    Call("GET", "/metrics", Role.VIEWER, 200, media="text/plain", accept="*/*"),
    Call("POST", "/workers/{worker}/drain", Role.OPERATOR, 200),
    Call("POST", "/workers/{worker}/resume", Role.OPERATOR, 200),
    Call("POST", "/workers/{worker}/grow", Role.OPERATOR, 200),
    Call("POST", "/workers/{worker}/shrink", Role.OPERATOR, 200),
)


Scene = Callable[[Role | None], Person]
PLACES = {"name": "physics", "class": "low", "type": "simulate", "worker": "worker1@test"}


@pytest.fixture
def scene(app: Flask, store: Session, person: MakePerson) -> Scene:
    """Make somebody who has a job in every status, and a schedule, a token and a group."""

    def make(role: Role | None) -> Person:
        group = make_group(store)
        make_worker(store, processes_limit=2)
        make_user(store, group.name)
        caller = person("caller", role or Role.VIEWER)
        for status in S:
            make_job(store, caller.user, status, job_id=str(status), tags=["x"])
        make_line(store, make_job(store, caller.user, S.FAILED, job_id="told"))
        claimed(store, caller.user, job_id="handed")
        claimed(store, caller.user, job_id="simple", type="simplequeue")
        make_schedule(store, caller.user, group.name)
        add_token(store, caller.user, set())
        store.commit()
        return caller if role else Person(caller.user, app.test_client())

    return make


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    told: dict[str, Any] = app.test_client().get("/openapi.json").json
    return told


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_each_call_answers_as_the_contract_writes(
    call: Call, scene: Scene, person: MakePerson, document: dict[str, Any]
) -> None:
    if call.who is not None and call.who is not Role.VIEWER:
        below = list(Role)[list(Role).index(call.who) - 1]
        assert ask(person("lower", below), call).status_code == 403

    answer = ask(scene(call.who), call)

    assert (answer.status_code, answer.mimetype) == (call.status, media_of(call))
    if call.media == "application/json":
        check_fields(call, answer.json)
        check_schema(document, call, answer.json)
    answer.close()


def test_every_call_is_in_the_document(document: dict[str, Any]) -> None:
    told = {
        (method.upper(), shape(path)) for path, ms in document["paths"].items() for method in ms
    }

    assert {(call.method, shape(call.path)) for call in CALLS} <= told


def test_a_job_that_is_handed_out_comes_with_its_lease(
    scene: Scene, store: Session, committed_engine: Engine, redis_client: Redis
) -> None:
    caller = scene(Role.USER)
    make_job(store, caller.user, S.QUEUED, job_id="next", type="scan", executor=Executor.PULL)
    store.commit()

    with running(Installation(committed_engine, redis_client).scheduler):
        body = {"worker": "w", "types": ["scan"], "lease_seconds": 30, "wait_seconds": 20}
        answer = caller.post("/jobs/next", body)

    assert answer.status_code == 200
    assert set(answer.json) >= JOB | {"lease", "lease_expires_at"}


def test_submitting_again_changes_nothing(scene: Scene) -> None:
    caller, body = scene(Role.USER), SIMULATE | {"job_id": "mine"}
    caller.post("/jobs", body)

    same, other = caller.post("/jobs", body), caller.post("/jobs", body | {"priority": "low"})

    assert (same.status_code, same.json["duplicate"]) == (200, True)
    assert (other.status_code, other.json["code"]) == (409, "job_id_conflict")
    assert other.json["job_id"] == "mine"


def ask(caller: Person, call: Call) -> TestResponse:
    path = call.path.replace("{job_id}", "told" if "/logs" in call.path else call.job)
    for name, value in PLACES.items():
        path = path.replace(f"{{{name}}}", value)
    if "{id}" in path:
        path = path.replace("{id}", str(caller.get("/tokens").json["tokens"][0]["id"]))
    headers = {"Accept": call.accept}
    return caller.ask(call.method, path + call.query, json=call.body, headers=headers)


def media_of(call: Call) -> str:
    is_refusal = call.status >= 400 and call.path != "/readyz"
    return "application/problem+json" if is_refusal else call.media or "text/html"


def check_fields(call: Call, told: Any) -> None:
    if "" in call.lists:
        told = {"": told}
    assert set(told) >= set(call.fields) | set(call.lists)
    for name, fields in call.lists.items():
        assert told[name] or not fields
        assert all(set(entry) >= fields for entry in told[name])


def check_schema(document: dict[str, Any], call: Call, told: Any) -> None:
    paths = {shape(path): item for path, item in document["paths"].items()}
    answers = paths[shape(call.path)][call.method.lower()]["responses"][str(call.status)]
    # The document itself has no schema.
    if content := answers.get("content", {}).get(media_of(call)):
        schema = content["schema"] | {"components": document["components"]}
        Draft202012Validator(schema).validate(told)


def shape(path: str) -> str:
    """Return a path without the names of its parameters, which nobody sends."""
    return re.sub(r"{\w+}", "{}", path)
