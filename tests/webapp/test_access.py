"""Who may do what: every route and every event, for everybody who may ask.

The tables are complete by construction: a route or an event without a row fails.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from scheduler.models import JobEvent, JobLog, Token
from scheduler.states import JobStatus, Role, Scope
from tests.factories import (
    NOON,
    WORKER,
    make_callback,
    make_group,
    make_job,
    make_schedule,
    make_user,
    make_worker,
)
from tests.webapp.conftest import Person, add_token, csrf_of
from webapp.extensions import socketio

ASKERS = ("anonymous", "viewer", "owner", "other", "operator", "admin", "scopeless")
"""The owner has a job; the scopeless one is the owner with a token that has no scope at all."""

ROLES = {
    "viewer": Role.VIEWER,
    "owner": Role.USER,
    "other": Role.USER,
    "operator": Role.OPERATOR,
    "admin": Role.ADMIN,
}

MARK = "owners-job"
"""Stands in the id of the owner's job, and nowhere else."""


@dataclass(frozen=True)
class Row:
    """What each asker is answered, in the order of ASKERS, and who gets to see the job.

    An answer that would never end is read from its beginning until something is said.
    """

    method: str
    rule: str
    answers: tuple[int, ...]
    sees: str = ""
    body: Any = None
    form: dict[str, Any] | None = None
    path: str = ""
    stream_until: bytes = b""


OPEN = (200,) * 7
SIGNED_IN = (401, 200, 200, 200, 200, 200, 403)
ONE_JOB = (401, 404, 200, 404, 200, 200, 403)
OPERATORS = (401, 403, 403, 403, 200, 200, 403)
ADMINS = (401, 403, 403, 403, 403, 200, 403)
NOT_THE_LEASE = (401, 403, 409, 404, 409, 409, 403)
NONE_TO_TAKE = (401, 403, 404, 404, 404, 404, 403)
READERS = "owner operator admin"
JOB = "/jobs/{job}"
JOB_RULE = "/jobs/<job_id:job_id>"
SCHEDULE_RULE = "/schedules/<job_id:name>"
SCHEDULE = {"name": "new-{asker}", "cron": "30 2 * * *", "template": {"type": "simulate"}}
SIMULATE = {"type": "simulate"}
USER = {"username": "new-{asker}", "password": "long enough"}
TOKEN = {"name": "x", "scopes": ["read"]}
BULK = {"action": "cancel", "filter": {}}
LETTERS = {"job_ids": [f"{MARK}-{{asker}}-failed"]}

# Routes of the contract are asked with a token.
ROUTES = (
    Row("GET", "/healthz", OPEN),
    Row("GET", "/readyz", (503,) * 7),
    Row("GET", "/openapi.json", OPEN),
    Row("GET", "/docs", OPEN),
    Row("GET", "/static/<path:filename>", OPEN, path="/static/favicon.svg"),
    Row("GET", "/jobs", SIGNED_IN, READERS),
    Row("POST", "/jobs", (401, 403, 201, 201, 201, 201, 403), body=SIMULATE),
    Row("POST", "/jobs/batch", (401, 403, 201, 201, 201, 201, 403), body={"jobs": [SIMULATE]}),
    Row("POST", "/jobs/bulk", (401, 403, 200, 200, 200, 200, 403), body=BULK | {"dry_run": True}),
    Row("GET", JOB_RULE, ONE_JOB, READERS),
    Row("GET", f"{JOB_RULE}/logs", ONE_JOB, READERS),
    Row(
        "GET",
        f"{JOB_RULE}/logs",
        ONE_JOB,
        READERS,
        path=f"{JOB_RULE}/logs?follow=1",
        stream_until=b"event: log",
    ),
    Row("GET", "/jobs/stream", SIGNED_IN, READERS, stream_until=b"event: live"),
    Row(
        "GET",
        f"{JOB_RULE}/wait",
        (401, 404, 202, 404, 202, 202, 403),
        READERS,
        path=f"{JOB_RULE}/wait?timeout_seconds=0",
    ),
    Row("GET", f"{JOB_RULE}/attempts", ONE_JOB),
    Row("GET", f"{JOB_RULE}/events", ONE_JOB, READERS),
    Row("GET", f"{JOB_RULE}/graph", ONE_JOB, READERS),
    Row("PATCH", JOB_RULE, (401, 403, 409, 404, 409, 409, 403), body={"priority": "low"}),
    Row("GET", f"{JOB_RULE}/callbacks", ONE_JOB),
    Row("POST", f"{JOB_RULE}/callbacks/retry", (401, 403, 200, 404, 200, 200, 403)),
    Row("GET", "/me/callback-secret", SIGNED_IN),
    Row("POST", "/me/callback-secret", SIGNED_IN),
    Row("PATCH", f"{JOB_RULE}/cancel", (401, 403, 200, 404, 200, 200, 403), READERS),
    Row("POST", f"{JOB_RULE}/retry", (401, 403, 409, 404, 409, 409, 403)),
    Row("POST", "/jobs/next", (401, 403, 204, 204, 204, 204, 403), body={"worker": "w"}),
    Row("POST", f"{JOB_RULE}/heartbeat", NOT_THE_LEASE, body={"lease": "x"}),
    Row("POST", f"{JOB_RULE}/complete", NOT_THE_LEASE, body={"lease": "x", "status": "completed"}),
    Row("GET", "/simplequeue/jobs", SIGNED_IN),
    Row("GET", "/simplequeue/jobs/next", NONE_TO_TAKE),
    Row("GET", "/simplequeue/jobs/<job_id:job_id>", (401, 404, 404, 404, 404, 404, 403)),
    Row(
        "POST",
        "/simplequeue/jobs/submit",
        (401, 403, 201, 201, 201, 201, 403),
        body={"jobId": "new"},
    ),
    Row(
        "POST",
        "/simplequeue/jobs/complete",
        NONE_TO_TAKE,
        body={"jobId": f"{MARK}-{{asker}}", "status": "failed"},
    ),
    Row("GET", "/dead-letters", SIGNED_IN, READERS),
    Row("POST", "/dead-letters/retry", (401, 403, 200, 404, 200, 200, 403), body=LETTERS),
    Row("POST", "/dead-letters/discard", (401, 403, 200, 404, 200, 200, 403), body=LETTERS),
    Row("GET", "/schedules", SIGNED_IN, READERS),
    Row("POST", "/schedules", (401, 403, 201, 201, 201, 201, 403), body=SCHEDULE),
    Row("GET", SCHEDULE_RULE, ONE_JOB, READERS),
    Row(
        "PATCH",
        SCHEDULE_RULE,
        (401, 403, 200, 404, 200, 200, 403),
        READERS,
        body={"overlap": "queue"},
    ),
    Row("DELETE", SCHEDULE_RULE, (401, 403, 204, 404, 204, 204, 403)),
    Row("POST", f"{SCHEDULE_RULE}/run", (401, 403, 201, 404, 201, 201, 403), READERS),
    Row("GET", "/me", SIGNED_IN),
    Row("GET", "/me/usage", SIGNED_IN),
    Row("GET", "/tokens", SIGNED_IN),
    Row("POST", "/tokens", (401, 201, 201, 201, 201, 201, 403), body=TOKEN),
    Row("DELETE", "/tokens/<int:number>", (401, 404, 204, 404, 404, 404, 403)),
    Row("GET", "/users", ADMINS),
    Row("POST", "/users", (401, 403, 403, 403, 403, 201, 403), body=USER),
    Row("PATCH", "/users/<username>", ADMINS, path="/users/other", body={"weight": 2}),
    Row("POST", "/users/<username>/pause", OPERATORS, path="/users/other/pause"),
    Row("POST", "/users/<username>/resume", OPERATORS, path="/users/other/resume"),
    Row("GET", "/groups", ADMINS),
    Row("POST", "/groups", (401, 403, 403, 403, 403, 201, 403), body={"name": "new-{asker}"}),
    Row("PATCH", "/groups/<name>", ADMINS, path="/groups/physics", body={"weight": 2}),
    Row("GET", "/policy", ADMINS),
    Row("PUT", "/policy", ADMINS, body={"version": 1}),
    Row("GET", "/policy/versions", ADMINS),
    Row("POST", "/policy/preview", OPERATORS, body={}),
    Row("POST", "/queues/<name>/pause", OPERATORS, path="/queues/low/pause"),
    Row("POST", "/queues/<name>/resume", OPERATORS, path="/queues/low/resume"),
    Row("POST", "/types/<name>/pause", OPERATORS, path="/types/simulate/pause"),
    Row("POST", "/types/<name>/resume", OPERATORS, path="/types/simulate/resume"),
    Row("GET", "/audit", ADMINS),
    Row("GET", "/workers", OPERATORS, "operator admin"),
    Row(
        "POST",
        "/workers/<name>/drain",
        OPERATORS,
        "operator admin",
        path=f"/workers/{WORKER}/drain",
    ),
    Row(
        "POST",
        "/workers/<name>/resume",
        OPERATORS,
        "operator admin",
        path=f"/workers/{WORKER}/resume",
    ),
    Row(
        "POST",
        "/workers/<name>/grow",
        (401, 403, 403, 403, 409, 409, 403),
        path=f"/workers/{WORKER}/grow",
    ),
    Row(
        "POST",
        "/workers/<name>/shrink",
        OPERATORS,
        "operator admin",
        path=f"/workers/{WORKER}/shrink",
    ),
    Row("GET", "/types", SIGNED_IN),
    Row("GET", "/stats", SIGNED_IN),
    Row("GET", "/metrics", SIGNED_IN),
)

EDIT_RULE = f"{JOB_RULE}/edit"
EDIT = f"{JOB_RULE}-failed/edit"

# Pages are asked with a session; the scopeless one has a token, which pages do not take.
DOOR = 302
PAGES = (
    Row("GET", "/sign-in", (200, 302, 302, 302, 302, 302, 200)),
    Row("POST", "/sign-in", (401,) * 7, form={"username": "x", "password": "y"}),
    Row("POST", "/sign-out", (DOOR,) * 7, form={}),
    Row("POST", "/theme", (302,) * 7, form={"theme": "dark"}),
    Row("GET", "/", (DOOR, 200, 200, 200, 200, 200, DOOR), READERS),
    Row("GET", "/submit", (DOOR, 403, 200, 200, 200, 200, DOOR)),
    Row(
        "POST",
        "/submit",
        (DOOR, 403, 302, 302, 302, 302, DOOR),
        form={},
        path="/submit?type=simulate",
    ),
    Row("POST", f"{JOB_RULE}/cancel", (DOOR, 403, 302, 404, 302, 302, DOOR), form={}),
    Row(
        "POST",
        "/dead-letters",
        (DOOR, 403, 302, 404, 302, 302, DOOR),
        form={"action": "discard", "job_id": f"{MARK}-{{asker}}-failed"},
    ),
    Row("GET", "/new-schedule", (DOOR, 403, 200, 200, 200, 200, DOOR)),
    Row(
        "POST",
        "/new-schedule",
        (DOOR, 403, 302, 302, 302, 302, DOOR),
        form={"name": "made-{asker}", "cron": "* * * * *", "template": '{"type": "simulate"}'},
    ),
    Row(
        "POST",
        SCHEDULE_RULE,
        (DOOR, 403, 302, 404, 302, 302, DOOR),
        form={"action": "pause"},
    ),
    Row("GET", EDIT_RULE, (DOOR, 403, 200, 404, 200, 200, DOOR), READERS, path=EDIT),
    Row(
        "POST",
        EDIT_RULE,
        (DOOR, 403, 302, 404, 302, 302, DOOR),
        form={"payload": "{}"},
        path=EDIT,
    ),
    Row("GET", "/account", (DOOR, 200, 200, 200, 200, 200, DOOR)),
    Row("POST", "/account/tokens", (DOOR, 201, 201, 201, 201, 201, DOOR), form=TOKEN),
    Row(
        "POST",
        "/account/tokens/<int:token_id>/delete",
        (DOOR, 404, 302, 404, 404, 404, DOOR),
        form={},
    ),
)


@dataclass
class Scene:
    """A running job, a schedule of its name, a failed job of nearly it, a token, and who asks."""

    job: str
    token: int
    person: Person


@pytest.fixture
def scene(app: Flask, store: Session) -> Callable[..., Scene]:
    people = {name: make_user(store, name, role) for name, role in ROLES.items()}
    make_group(store)
    make_worker(store)

    def make(asker: str, *, by_session: bool) -> Scene:
        owner = people["owner"]
        job = make_job(store, owner, JobStatus.RUNNING, job_id=f"{MARK}-{asker}")
        make_job(store, owner, JobStatus.FAILED, job_id=f"{job.job_id}-failed")
        store.add(
            JobLog(job_id=job.id, attempt=1, at=NOON, level="info", message=f"{MARK} wrote this")
        )
        store.add(
            JobEvent(
                job_id=job.id, owner_id=owner.id, at=NOON, verb="start", status="running",
                attempt=1, data={"told": MARK},
            )
        )  # fmt: skip
        make_callback(store, job)
        make_schedule(store, owner, job.job_id)
        token = Token(
            user_id=owner.id, name="theirs", secret_hash=asker.encode(), scopes=[], created_at=NOON
        )
        store.add(token)
        store.commit()
        person = _person(app, store, people.get(asker, owner), asker, by_session=by_session)
        return Scene(job.job_id, token.id, person)

    return make


def _person(app: Flask, store: Session, user: Any, asker: str, *, by_session: bool) -> Person:
    client = app.test_client()
    if asker == "anonymous":
        return Person(user, client, csrf=csrf_of(client))
    if by_session and asker != "scopeless":
        with client.session_transaction() as session:
            session["_user_id"] = f"{user.id}.{user.session_version}"
        return Person(user, client, csrf=csrf_of(client))
    scopes = set() if asker == "scopeless" else set(Scope)
    secret = add_token(store, user, scopes)
    store.commit()
    return Person(user, client, token=secret, csrf=csrf_of(client))


def test_every_route_has_a_row(app: Flask) -> None:
    routes = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in {"HEAD", "OPTIONS"}
    }

    rows = [(row.method, row.rule, row.path) for row in ROUTES + PAGES]

    assert {row[:2] for row in rows} == routes
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("row", ROUTES, ids=lambda row: f"{row.method} {row.path or row.rule}")
def test_each_route_answers_each_asker(row: Row, scene: Callable[..., Scene]) -> None:
    for asker, expected in zip(ASKERS, row.answers, strict=True):
        there = scene(asker, by_session=False)

        answer = there.person.ask(
            row.method, path_of(row, there), json=filled(row.body, asker), headers=headers_of(row)
        )

        told = (asker, answer.status_code, MARK in text_of(answer, row.stream_until))
        assert told == (asker, expected, asker in row.sees.split())
        if answer.status_code >= 400 and row.rule != "/readyz":
            assert answer.mimetype == "application/problem+json"
        answer.close()


@pytest.mark.parametrize("row", PAGES, ids=lambda row: f"{row.method} {row.rule}")
def test_each_page_answers_each_asker(row: Row, scene: Callable[..., Scene]) -> None:
    for asker, expected in zip(ASKERS, row.answers, strict=True):
        there = scene(asker, by_session=True)
        token = {"csrf_token": there.person.csrf}
        form = None if row.form is None else filled(row.form, asker) | token

        answer = there.person.ask(
            row.method, path_of(row, there), data=form, headers={"Accept": "text/html"}
        )

        told = (asker, answer.status_code, MARK in answer.text and answer.status_code == 200)
        assert told == (asker, expected, asker in row.sees.split())
        if row.answers[0] == DOOR and asker in {"anonymous", "scopeless"}:
            assert not answer.location.startswith("/jobs")


@pytest.mark.parametrize("row", PAGES, ids=lambda row: f"{row.method} {row.rule}")
def test_no_form_is_taken_without_its_csrf_token(row: Row, scene: Callable[..., Scene]) -> None:
    there = scene("owner", by_session=True)
    there.person.csrf = None

    answer = there.person.ask(row.method, path_of(row, there), data=row.form)

    assert (answer.status_code == 403) == (row.method == "POST")


def path_of(row: Row, there: Scene) -> str:
    rule = row.path or row.rule
    for part in ("<int:number>", "<int:token_id>"):
        rule = rule.replace(part, str(there.token))
    return rule.replace("<job_id:job_id>", there.job).replace("<job_id:name>", there.job)


def headers_of(row: Row) -> dict[str, str]:
    return {"Accept": "text/event-stream", "Last-Event-ID": "0"} if row.stream_until else {}


def text_of(answer: TestResponse, until: bytes) -> str:
    if not until or answer.status_code >= 400:
        return answer.text
    read = b""
    for chunk in answer.iter_encoded():
        read += chunk
        if until in read:
            break
    return read.decode()


def filled(body: Any, asker: str) -> Any:
    if isinstance(body, dict):
        return {key: filled(value, asker) for key, value in body.items()}
    if isinstance(body, list):
        return [filled(value, asker) for value in body]
    return body.replace("{asker}", asker) if isinstance(body, str) else body


# What each asker gets from each event: whether they are let in, or the answer to what they say.
NOT_IN = None
EVENTS: dict[str, tuple[Any, ...]] = {
    "connect": (NOT_IN, True, True, True, True, True, NOT_IN),
    "disconnect": (NOT_IN, True, True, True, True, True, NOT_IN),
    "fleet": (NOT_IN, "forbidden", "forbidden", "forbidden", "ok", "ok", NOT_IN),
    "follow": (NOT_IN, "not_found", "ok", "not_found", "ok", "ok", NOT_IN),
    "unfollow": (NOT_IN, "ok", "ok", "ok", "ok", "ok", NOT_IN),
}


def test_every_event_has_a_row(app: Flask) -> None:
    handlers = app.extensions["socketio"].server.namespace_handlers
    said = {
        name.removeprefix("on_")
        for handler in handlers.values()
        for name in dir(handler)
        if name.startswith("on_")
    }
    single = app.extensions["socketio"].server.handlers

    assert said == set(EVENTS)
    assert not single, "an event outside the namespace class"


@pytest.mark.parametrize("event", EVENTS)
def test_each_event_answers_each_asker(app: Flask, scene: Callable[..., Scene], event: str) -> None:
    for asker, expected in zip(ASKERS, EVENTS[event], strict=True):
        there = scene(asker, by_session=False)
        auth = {"token": there.person.token} if there.person.token else {}

        client = socketio.test_client(app, auth=auth, flask_test_client=there.person.client)

        assert client.is_connected() == (expected is not NOT_IN), asker
        if event not in {"connect", "disconnect"} and client.is_connected():
            told = client.emit(event, {"job_id": there.job, "owner": "owner"}, callback=True)
            assert told == ({"ok": True} if expected == "ok" else {"ok": False, "code": expected})
        assert MARK not in str(client.get_received() if client.is_connected() else "")
        if client.is_connected():
            client.disconnect()
