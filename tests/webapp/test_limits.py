"""What is too much is refused before it costs much: requests, bytes, depth, keys, jobs."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from redis import Redis, RedisError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.bodies import DEPTH_LIMIT, KEYS_LIMIT
from scheduler.models import Job
from scheduler.settings import Settings
from scheduler.states import Executor, JobStatus, Role, Scope
from scheduler.store import work
from tests.factories import make_group, make_job
from tests.webapp.conftest import MakeApp, MakePerson, Person, add_token, csrf_of
from tests.webapp.test_access import PAGES
from webapp import access
from webapp.endpoints import Endpoint, endpoints_of
from webapp.extensions import limiter
from webapp.factory import FORM_LIMIT
from webapp.openapi import codes_of

MOST = 3
JSON = {"Content-Type": "application/json"}
SIMULATE = {"type": "simulate"}

Limited = Callable[..., Flask]


@pytest.fixture
def limited(settings: Settings, app: Flask, make_app: MakeApp) -> Limited:
    """An application of little patience."""

    def make(most: int = MOST, **changes: Any) -> Flask:
        return make_app(replace(settings, requests_per_minute=most, **changes))

    return make


def _at(app: Flask, person: Person) -> Person:
    person.client = app.test_client()
    return person


# Requests


def test_more_requests_than_the_limit_are_refused_until_some_time_has_passed(
    limited: Limited, person: MakePerson
) -> None:
    ann = _at(limited(), person("ann"))

    within = [ann.get("/me").status_code for _ in range(MOST)]
    beyond = ann.get("/me")

    assert within == [200] * MOST
    assert (beyond.status_code, beyond.json["code"]) == (429, "rate_limited")
    assert beyond.json["detail"] == "Too many requests: the limit for each user is 3 per minute."
    assert 0 < int(beyond.headers["Retry-After"]) <= 60


def test_the_time_to_wait_is_until_the_oldest_request_is_forgotten(
    limited: Limited, person: MakePerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = _at(limited(), person("ann"))
    real, passed = time.time, 0.0
    monkeypatch.setattr("limits.storage.redis.time.time", lambda: real() - 40 + passed)
    for _ in range(MOST):
        ann.get("/me")
    passed = 40.0

    assert 15 <= int(ann.get("/me").headers["Retry-After"]) <= 20


def test_the_limit_is_each_users_whatever_proves_who_asks(
    limited: Limited, person: MakePerson, store: Session
) -> None:
    app = limited()
    ann, bob = _at(app, person("ann")), _at(app, person("bob"))
    second = add_token(store, ann.user, set(Scope))
    store.commit()
    client = app.test_client()
    with client.session_transaction() as session:
        session["_user_id"] = f"{ann.user.id}.{ann.user.session_version}"

    answers = [ann.get("/me"), client.get("/me")]
    ann.token = second
    answers += [ann.get("/me"), ann.get("/me"), client.get("/me"), bob.get("/me")]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429, 200]


def test_pages_are_counted_too(limited: Limited, signed_in: MakePerson) -> None:
    app = limited()
    ann = signed_in("ann")
    cookie = ann.client.get_cookie("fairq_session")
    assert cookie is not None
    client = app.test_client()
    client.set_cookie("fairq_session", cookie.value)
    browser = {"Accept": "text/html"}

    answers = [client.get("/account", headers=browser) for _ in range(MOST + 1)]

    assert [answer.status_code for answer in answers] == [200] * MOST + [429]
    assert answers[-1].mimetype == "text/html"
    assert "3 per minute" in answers[-1].text


def test_who_asks_too_much_is_not_shown_the_door(limited: Limited, signed_in: MakePerson) -> None:
    app = limited()
    ann = signed_in("ann")
    cookie = ann.client.get_cookie("fairq_session")
    assert cookie is not None
    client = app.test_client()
    client.set_cookie("fairq_session", cookie.value)
    form, browser = {"csrf_token": ann.csrf, "theme": "dark"}, {"Accept": "text/html"}

    answers = [client.post("/theme", data=form, headers=browser) for _ in range(MOST + 1)]

    assert [answer.status_code for answer in answers] == [302] * MOST + [429]
    assert "3 per minute" in answers[-1].text
    assert 'name="password"' not in answers[-1].text


def test_what_is_refused_is_counted_as_well(limited: Limited, person: MakePerson) -> None:
    ann = _at(limited(), person("ann", scopes=set()))

    assert [ann.get("/me").status_code for _ in range(MOST + 1)] == [403] * MOST + [429]


def test_a_batch_is_one_request(limited: Limited, person: MakePerson, store: Session) -> None:
    ann = _at(limited(), person("ann"))
    batch = {"jobs": [SIMULATE] * 20}

    answers = [ann.post("/jobs/batch", batch).status_code for _ in range(MOST + 1)]

    assert answers == [201] * MOST + [429]
    assert store.scalar(select(func.count()).select_from(Job)) == 20 * MOST


# Workers


def _claim(store: Session, owner: Person, job_id: str = "it") -> None:
    """Let a worker of *owner* run a job under the lease ``secret``."""
    job = make_job(store, owner.user, JobStatus.QUEUED, executor=Executor.PULL, job_id=job_id)
    minute = timedelta(minutes=1)
    work.start(store, [(job.id, 1)], worker="cam", pid=None, lease=minute, token="secret")
    store.commit()


def test_a_worker_that_waits_for_a_job_asks_once(limited: Limited, person: MakePerson) -> None:
    ann = _at(limited(2), person("ann"))

    waited = ann.post("/jobs/next", {"worker": "cam", "wait_seconds": 0.3})
    after = [ann.get("/me").status_code for _ in range(2)]

    assert waited.status_code == 204
    assert after == [200, 429]


def test_a_worker_keeps_its_job_whatever_else_its_user_asks(
    limited: Limited, person: MakePerson, store: Session
) -> None:
    ann = _at(limited(), person("ann"))
    _claim(store, ann)
    while ann.get("/me").status_code != 429:
        pass

    kept = ann.post("/jobs/it/heartbeat", {"lease": "secret"})
    ended = ann.post("/jobs/it/complete", {"lease": "secret", "status": "completed"})

    assert (kept.status_code, ended.status_code) == (200, 200)
    assert ended.json["status"] == JobStatus.COMPLETED
    assert ann.post("/jobs/next", {"worker": "cam"}).status_code == 429


def test_reports_have_a_limit_of_their_own(
    limited: Limited, person: MakePerson, store: Session
) -> None:
    ann = _at(limited(), person("ann"))
    _claim(store, ann)

    answers = [ann.post("/jobs/it/heartbeat", {"lease": "secret"}) for _ in range(MOST + 1)]

    assert [answer.status_code for answer in answers] == [200] * MOST + [429]
    assert (
        answers[-1].json["detail"] == "Too many reports: the limit for each user is 3 per minute."
    )
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert ann.get("/me").status_code == 200


def test_what_reports_are_is_known(app: Flask) -> None:
    reports = {endpoint.view for endpoint in endpoints_of(app) if endpoint.reports}

    assert reports == {"keep_job", "complete_job", "complete_simple_job"}


# What is not counted


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/openapi.json", "/docs", "/static/favicon.svg", "/sign-in"]
)
def test_what_is_open_is_not_counted(limited: Limited, person: MakePerson, path: str) -> None:
    ann = _at(limited(), person("ann"))

    answers = [ann.get(path) for _ in range(MOST + 2)]

    assert {answer.status_code for answer in answers} <= {200, 503}
    for answer in answers:
        answer.close()
    assert ann.get("/me").status_code == 200


def test_without_a_limit_nothing_is_counted(
    limited: Limited, person: MakePerson, redis_client: Redis
) -> None:
    ann = _at(limited(0), person("ann"))

    assert {ann.get("/me").status_code for _ in range(30)} == {200}
    assert not redis_client.keys(f"*{access.REQUESTS}*")


def test_every_web_process_counts_together(limited: Limited, person: MakePerson) -> None:
    ann = person("ann")

    answers = [_at(limited(), ann).get("/me").status_code for _ in range(MOST + 1)]

    assert answers == [200] * MOST + [429]


def test_while_the_broker_is_away_requests_go_on_counted_by_each_process(
    limited: Limited, person: MakePerson
) -> None:
    ann = _at(limited(redis_url="redis://127.0.0.1:1/0"), person("ann"))

    assert [ann.get("/me").status_code for _ in range(MOST + 1)] == [200] * MOST + [429]


def test_requests_that_find_the_broker_away_at_once_all_go_on(
    limited: Limited, person: MakePerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = _at(limited(), person("ann"))
    monkeypatch.setattr(limiter, "_storage_dead", False)  # which it is again afterwards

    acquire = limiter.storage.acquire_entry
    others: list[str] = ["found it away"]

    def find_it_away_as_another_did(*given: Any, **named: Any) -> Any:
        if not others:
            return acquire(*given, **named)
        others.clear()
        limiter._storage_dead = True
        raise RedisError

    monkeypatch.setattr(limiter.storage, "acquire_entry", find_it_away_as_another_did)

    assert ann.get("/me").status_code == 200
    assert not others


def test_every_route_that_counts_says_so(app: Flask) -> None:
    counted = {e.view for e in endpoints_of(app) if "rate_limited" in codes_of(e)}

    assert counted == {e.view for e in endpoints_of(app) if not e.is_open}
    document = app.test_client().get("/openapi.json").json
    refusal = document["paths"]["/me"]["get"]["responses"]["429"]
    assert "Retry-After" in refusal["headers"]


def test_a_refused_sign_in_names_its_limit(app: Flask) -> None:
    wanted = {"name": "x", "scopes": ["read"]}
    client = app.test_client()

    answers = [client.post("/tokens", json=wanted, auth=("ann", "no")) for _ in range(11)]

    assert answers[-1].json["detail"] == (
        "Too many attempts: the limit for a name is 10 per minute."
    )
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60


# Bytes


def _with_bodies(app: Flask) -> list[Endpoint]:
    return [endpoint for endpoint in endpoints_of(app) if endpoint.body is not None]


def test_every_route_with_a_body_refuses_one_that_is_too_large(
    app: Flask, person: MakePerson, store: Session
) -> None:
    boss = person("boss", Role.ADMIN)
    make_group(store)
    store.commit()

    for endpoint in _with_bodies(app):
        path = endpoint.rule.replace("<username>", "boss").replace("<name>", "physics")
        body = b'"' + b"x" * endpoint.body_limit + b'"'

        answer = boss.ask(endpoint.method, path, data=body, headers=JSON)

        told = (endpoint.rule, answer.status_code, answer.json["code"])
        assert told == (endpoint.rule, 413, "too_large")
        assert str(endpoint.body_limit) in answer.json["detail"]


def test_every_route_without_a_body_reads_none(
    app: Flask, person: MakePerson, store: Session
) -> None:
    boss = person("boss", Role.ADMIN)

    for endpoint in endpoints_of(app):
        if endpoint.body is None and not endpoint.is_open:
            path = endpoint.rule.replace("<job_id:job_id>", "it").replace("<int:number>", "0")
            path = path.replace("<username>", "nobody").replace("<name>", "nothing")

            answer = boss.ask(endpoint.method, path, data=b"[" * 2**21, headers=JSON)

            assert answer.status_code in {200, 404, 409}, endpoint.rule


@pytest.mark.parametrize(
    "row", [row for row in PAGES if row.method == "POST"], ids=lambda row: row.rule
)
def test_every_form_refuses_one_that_is_too_large(
    app: Flask, signed_in: MakePerson, row: Any
) -> None:
    ann = signed_in("ann")
    path = (row.path or row.rule).replace("<job_id:job_id>", "it").replace("<int:token_id>", "1")
    form = {"csrf_token": ann.csrf, "username": "x" * FORM_LIMIT}

    answer = ann.ask("POST", path, data=form, headers={"Accept": "text/html"})

    assert answer.status_code == 413


# Depth and keys


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


def _submit(person: Person, body: str) -> Any:
    return person.ask("POST", "/jobs", data=body.encode(), headers=JSON)


def test_a_payload_may_be_deep_and_not_too_deep(person: MakePerson) -> None:
    ann = person("ann")
    inside = DEPTH_LIMIT - 2  # the body and the payload are levels, too

    deep = _submit(ann, f'{{"type": "simulate", "payload": {{"a": {nested(inside)}}}}}')
    deeper = _submit(ann, f'{{"type": "simulate", "payload": {{"a": {nested(inside + 1)}}}}}')

    assert deep.status_code == 201
    assert (deeper.status_code, deeper.json["code"]) == (422, "validation_failed")
    (error,) = deeper.json["errors"]
    assert error["path"].startswith("payload.a.0.0")
    assert error["message"] == f"is nested deeper than {DEPTH_LIMIT} levels"


DEEP = {
    "lists": '{"type": "simulate", "payload": {"a": ' + nested(100_000) + "}}",
    "objects": '{"type": "simulate", "payload": ' + '{"a":' * 100_000 + "1" + "}" * 100_001,
    "without an end": '{"type": "simulate", "payload": {"a": ' + "[" * 500_000,
    "on many lines": '{"type": "simulate",\n "payload": {"a": ' + "[\n" * 100_000,
    "nothing else": "[" * 1_000_000,
    "behind much else": '{"x": "' + "y" * 900_000 + '", "a": ' + nested(20_000) + "}",
    "behind many lines": "\n" * 900_000 + nested(20_000),
    "behind other letters": '{"ü": "' + "ü" * 1000 + '", "payload": ' + nested(1000) + "}",
}


@pytest.mark.parametrize("name", DEEP)
def test_what_is_absurdly_deep_is_refused_at_once(person: MakePerson, name: str) -> None:
    ann = person("ann")
    began = time.process_time()

    answer = _submit(ann, DEEP[name])

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"][0]["message"].startswith("is nested deeper")
    assert ("payload" in DEEP[name]) == answer.json["errors"][0]["path"].startswith("payload")
    assert time.process_time() - began < 2


def test_a_batch_names_the_job_that_is_too_deep(person: MakePerson) -> None:
    jobs = f'{{"jobs": [{{"type": "simulate"}}, {{"type": "s", "payload": {nested(9999)}}}]}}'

    answer = person("ann").ask("POST", "/jobs/batch", data=jobs.encode(), headers=JSON)

    assert answer.status_code == 422
    assert answer.json["errors"][0]["path"].startswith("jobs.1.payload.0")


def test_no_route_that_reads_a_body_is_brought_down_by_depth(
    app: Flask, person: MakePerson, store: Session
) -> None:
    boss = person("boss", Role.ADMIN)
    make_group(store)
    store.commit()

    for endpoint in _with_bodies(app):
        path = endpoint.rule.replace("<username>", "boss").replace("<name>", "physics")

        answer = boss.ask(endpoint.method, path, data=b"[" * 100_000, headers=JSON)

        refusal = (400, endpoint.invalid) if endpoint.invalid else (422, "validation_failed")
        assert (answer.status_code, answer.json["code"]) == refusal, path


def test_the_form_is_not_brought_down_by_depth(signed_in: MakePerson) -> None:
    ann = signed_in("ann")
    form = {"csrf_token": ann.csrf, "mode": "json", "payload": nested(100_000)}

    answer = ann.ask("POST", "/submit?type=simulate", data=form, headers={"Accept": "text/html"})

    assert answer.status_code == 422
    assert "is nested deeper than" in answer.text


def test_an_object_may_have_many_keys_and_not_too_many(person: MakePerson) -> None:
    ann = person("ann")

    def submit(count: int) -> Any:
        keys = {f"k{number}": number for number in range(count)}
        return ann.post("/jobs", {"type": "simulate", "payload": {"inner": keys}})

    many, too_many = submit(KEYS_LIMIT), submit(KEYS_LIMIT + 1)

    assert many.status_code == 201
    assert too_many.status_code == 422
    assert too_many.json["errors"] == [
        {"path": "payload.inner", "message": f"has more than {KEYS_LIMIT} keys"}
    ]


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"a": ["x", "n\0"]}, "payload.a.1"),
        ({"a": {"n\0": 1}}, "payload.a.n\0"),
        ({"a": [[], {}, [{"b": "\0"}]]}, "payload.a.2.0.b"),
    ],
)
def test_what_cannot_be_kept_is_named_however_deep(
    person: MakePerson, payload: Any, path: str
) -> None:
    answer = _submit(person("ann"), json.dumps({"type": "simulate", "payload": payload}))

    assert answer.status_code == 422
    assert answer.json["errors"] == [{"path": path, "message": "must not contain a null character"}]


# Jobs


@pytest.mark.parametrize("whose", ["own", "group"])
def test_a_full_backlog_names_its_limit_and_when_to_come_back(
    person: MakePerson, store: Session, whose: str
) -> None:
    group = make_group(store, cap_backlog=2 if whose == "group" else None)
    ann = person("ann", group_id=group.id, cap_backlog=2 if whose == "own" else None)
    assert ann.post("/jobs/batch", {"jobs": [SIMULATE] * 2}).status_code == 201

    refused = ann.post("/jobs", SIMULATE)
    batch = ann.post("/jobs/batch", {"jobs": [SIMULATE] * 3})

    for answer, more in ((refused, 1), (batch, 3)):
        assert (answer.status_code, answer.json["code"]) == (429, "backlog_full")
        assert int(answer.headers["Retry-After"]) > 0
        name = "your backlog limit" if whose == "own" else "your group's backlog limit"
        assert f"2 unfinished jobs and {more} more pass {name} of 2" in answer.json["detail"]


def test_the_limits_of_signing_in_hold_beside_that_of_requests(
    limited: Limited, person: MakePerson
) -> None:
    app = limited(1)
    person("ann")
    client = app.test_client()
    form = {"username": "ann", "password": "wrong", "csrf_token": csrf_of(client)}

    answers = [client.post("/sign-in", data=form).status_code for _ in range(11)]

    assert answers == [401] * 10 + [429]
