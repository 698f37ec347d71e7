"""Problem details everywhere, and nothing about the inside."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, request_finished
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from scheduler.settings import Settings
from scheduler.states import Scope
from tests.conftest import make_settings
from tests.services import Services
from tests.webapp.conftest import MakeApp, MakePerson
from webapp import access, queries
from webapp.errors import CODES, MEDIA_TYPE
from webapp.extensions import db
from webapp.schemas.errors import ProblemDetails

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "not_found"),
        ("GET", "/jobs/none", 404, "not_found"),
        ("GET", "/jobs/nu%00ll", 404, "not_found"),
        ("GET", "/users/nu%00ll", 404, "not_found"),
        ("DELETE", "/jobs", 405, "method_not_allowed"),
        ("OPTIONS", "/jobs", 405, "method_not_allowed"),
        ("TRACE", "/me", 405, "method_not_allowed"),
        ("GET", "/users", 403, "forbidden"),
        ("GET", "/jobs?limit=x", 422, "validation_failed"),
    ],
)
def test_every_refusal_is_a_problem(
    person: MakePerson, method: str, path: str, status: int, code: str
) -> None:
    answer = person("ann").ask(method, path)

    problem = ProblemDetails.model_validate_json(answer.data)
    assert answer.mimetype == MEDIA_TYPE
    assert (answer.status_code, problem.status, problem.code) == (status, status, code)
    assert problem.type.endswith(code)
    assert problem.title
    assert problem.detail
    assert problem.request_id == answer.headers["X-Request-ID"]
    if status == 405:
        assert "GET" in answer.headers["Allow"]


def test_a_failure_tells_nothing_but_the_request_id(
    person: MakePerson, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ann = person("ann")

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("the inside")

    monkeypatch.setattr(queries, "page_of_types", fail)
    answer = ann.get("/types")

    assert (answer.status_code, answer.json["code"]) == (500, "internal_error")
    assert "inside" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    assert "the inside" in caplog.text


@pytest.mark.parametrize(
    "outage", [OperationalError("SELECT secrets", {}, Exception("host 10.0.0.1")), PoolTimeout()]
)
def test_a_database_that_is_away_is_told_without_its_words(
    person: MakePerson, monkeypatch: pytest.MonkeyPatch, outage: Exception
) -> None:
    ann = person("ann")

    def fail(*_: Any, **__: Any) -> None:
        raise outage

    monkeypatch.setattr(queries, "page_of_types", fail)
    answer = ann.get("/types")

    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert "secrets" not in answer.text
    assert "10.0.0.1" not in answer.text


def test_an_answer_stands_whatever_becomes_of_the_database_after_it(
    app: Flask, person: MakePerson, store: Session
) -> None:
    ann, ended = person("ann"), []

    def end(*_: Any, **__: Any) -> None:
        pid = db.session.scalar(select(func.pg_backend_pid()))
        ended.append(store.scalar(select(func.pg_terminate_backend(pid, 10_000))))

    with request_finished.connected_to(end, app):
        answers = [ann.get("/jobs"), ann.get("/jobs/none")]

    assert [answer.status_code for answer in answers] == [200, 404]
    assert ended == [True, True]
    assert ann.get("/jobs").status_code == 200
    with app.app_context():
        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def unreachable(services: Services, tmp_path: Any) -> Settings:
    return make_settings(
        services,
        tmp_path,
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        REDIS_URL="redis://127.0.0.1:1/0",
    )


def test_only_a_page_that_was_read_is_loaded_again_by_itself(
    signed_in: MakePerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = signed_in("ann")

    def fail(*_: Any) -> None:
        raise PoolTimeout

    monkeypatch.setattr(queries, "job_types", fail)
    monkeypatch.setattr(access, "find_job", fail)
    read = ann.get("/submit", headers=BROWSER)
    sent = ann.ask("POST", "/jobs/any/edit", headers=BROWSER)

    assert (read.status_code, sent.status_code) == (503, 503)
    assert 'http-equiv="refresh"' in read.text
    assert "Fairq will be right back" in sent.text
    assert 'http-equiv="refresh"' not in sent.text


def test_without_database_and_broker_everything_answers_503(
    services: Services, tmp_path: Any, make_app: MakeApp
) -> None:
    client = make_app(unreachable(services, tmp_path)).test_client()
    token = {"Authorization": "Bearer fq_x"}

    answers = [
        client.get("/jobs", headers=token),
        client.post("/jobs", headers=token, json={"type": "simulate"}),
        client.get("/jobs/x", headers=token | BROWSER),
        client.post("/tokens", json={"name": "x", "scopes": ["read"]}, auth=("ann", "x")),
    ]

    assert [answer.status_code for answer in answers] == [503] * 4
    assert all(answer.headers["Retry-After"] for answer in answers)
    assert answers[2].mimetype == "text/html"
    assert client.get("/healthz").status_code == 200


def test_browsers_get_a_page(person: MakePerson) -> None:
    answer = person("ann").get("/nothing/here", headers=BROWSER)

    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert answer.headers["X-Request-ID"] in answer.text


@pytest.mark.parametrize("path", ["/jobs/it?owner=ann", "/jobs/a%2Fb%3F%25", "/workers"])
def test_a_person_who_follows_a_link_is_sent_to_sign_in_and_back(
    app: Flask, store: Session, path: str
) -> None:
    client = app.test_client()

    answer = client.get(path, headers=BROWSER)
    refused = client.get(path, headers=BROWSER | {"Authorization": "Basic eDp5"})

    assert answer.status_code == 302
    assert parse_qs(urlsplit(answer.location).query) == {"next": [path]}
    assert refused.status_code == 401


def test_missing_and_insufficient_credentials_differ(app: Flask, person: MakePerson) -> None:
    nobody = app.test_client().get("/me")
    weak = person("ann", scopes={Scope.SUBMIT}).get("/me")

    assert (nobody.status_code, nobody.json["code"]) == (401, "unauthenticated")
    assert nobody.headers["WWW-Authenticate"] == 'Bearer realm="fairq"'
    assert (weak.status_code, weak.json["code"]) == (403, "insufficient_scope")
    assert "WWW-Authenticate" not in weak.headers


def test_every_code_comes_with_an_error_status() -> None:
    assert all(400 <= status < 600 for status in CODES.values())


def test_the_store_session_is_left_clean_after_a_failure(
    person: MakePerson, store: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = person("ann")
    real = queries.jobs_by_ids

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(queries, "jobs_by_ids", fail)
    failed = ann.post("/jobs", {"type": "simulate", "job_id": "it"})
    monkeypatch.setattr(queries, "jobs_by_ids", real)

    assert failed.status_code == 500
    assert ann.get("/jobs/it").status_code == 404
