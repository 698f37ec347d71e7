"""What every answer carries."""

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from scheduler.settings import Settings
from tests.webapp.conftest import MakeApp, MakePerson

PATHS = ("/healthz", "/docs", "/openapi.json", "/me", "/nothing", "/static/js/docs.js", "/sign-in")


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_tells_browsers_what_they_may_do(app: Flask, path: str) -> None:
    with app.test_client().get(path) as answer:
        headers = answer.headers

    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert ("no-store" in headers["Cache-Control"]) == (not path.startswith("/static"))
    assert "Strict-Transport-Security" not in headers


def test_behind_https_browsers_are_told_to_stay_there(
    settings: Settings, make_app: MakeApp
) -> None:
    client = make_app(replace(settings, cookie_secure=True)).test_client()

    answer = client.get("/docs")

    assert "max-age" in answer.headers["Strict-Transport-Security"]
    assert "Secure" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2:3/x", True), ("a b", False), ("x" * 129, False), ("é", False), ("", False)],
)
def test_a_request_id_is_taken_if_it_is_a_decent_one(app: Flask, given: str, *, kept: bool) -> None:
    told = (
        app.test_client().get("/healthz", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    )

    assert (told == given) == kept
    assert told


def test_requests_are_logged_with_their_id_and_without_secrets(
    person: MakePerson, caplog: pytest.LogCaptureFixture
) -> None:
    ann = person("ann")

    with caplog.at_level("INFO"):
        ann.get("/jobs?q=very-secret", headers={"X-Request-ID": "mine"})

    lines: list[Any] = [line for line in caplog.records if line.name == "webapp.access"]
    line = lines[-1]
    assert (line.request_id, line.method, line.path) == ("mine", "GET", "/jobs")
    assert (line.status, line.caller) == (200, "ann")
    assert "very-secret" not in str(vars(line))
    assert ann.token is not None
    assert ann.token not in str(vars(line))
