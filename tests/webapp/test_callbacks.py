"""Asking to be called back, what became of it, and the secret that signs."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.models import Callback, Job
from scheduler.settings import Settings
from scheduler.states import JobStatus, Role, Scope
from scheduler.store import callbacks
from tests.factories import MINUTE, NOON, make_callback, make_delivery, make_job
from tests.webapp.conftest import MakeApp, MakePerson, Person
from webapp.schemas.callbacks import CallbackAnswer, CallbackList, CallbackSecret

URL = "https://example.org/done"


@pytest.fixture
def ann(person: MakePerson) -> Person:
    return person("ann")


def _job(store: Session, owner: Person, job_id: str = "it") -> Job:
    job = make_job(store, owner.user, JobStatus.COMPLETED, job_id=job_id, callback_url=URL)
    store.commit()
    return job


# Asking for it


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost:8080/",
        "https://10.1.2.3/x",
        "http://[::1]/",
        "http://2130706433/",
        "http://169.254.169.254/latest/meta-data/",
    ],
)
def test_a_private_address_is_refused_by_the_submission(ann: Person, url: str) -> None:
    job = {"type": "simulate", "callback_url": url}

    one = ann.post("/jobs", job)
    batch = ann.post("/jobs/batch", {"jobs": [{"type": "simulate"}, job]})

    assert [one.status_code, batch.status_code] == [422, 422]
    assert one.json["errors"][0]["path"] == "callback_url"
    assert batch.json["errors"][0]["path"] == "jobs.1.callback_url"


def test_a_private_address_is_taken_where_it_is_allowed(
    settings: Settings, ann: Person, make_app: MakeApp
) -> None:
    ann.client = make_app(replace(settings, allow_private_http=True)).test_client()

    answer = ann.post("/jobs", {"type": "simulate", "callback_url": "http://127.0.0.1/"})

    assert answer.status_code == 201


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "example.org",
        "http://",
        "http://example.org:99999/",
        "http://example.org:0/",
        "http://[/",
        "http://example.org/\n",
        "http://" + "x" * 2000,
    ],
)
def test_what_is_no_address_is_refused(ann: Person, url: str) -> None:
    answer = ann.post("/jobs", {"type": "simulate", "callback_url": url})

    assert (answer.status_code, answer.json["errors"][0]["path"]) == (422, "callback_url")


def test_a_job_that_is_cancelled_over_http_is_to_be_told(ann: Person, store: Session) -> None:
    ann.post("/jobs", {"type": "simulate", "job_id": "it", "callback_url": URL})

    ann.patch("/jobs/it/cancel")

    (told,) = ann.get("/jobs/it/callbacks").json["callbacks"]
    assert (told["state"], told["status"]) == ("pending", "cancelled")


# What became of it


def test_a_job_without_ends_or_without_callbacks_has_none(ann: Person) -> None:
    ann.post("/jobs", {"type": "simulate", "job_id": "it"})

    answer = ann.get("/jobs/it/callbacks")

    assert answer.json == {"callbacks": [], "next_cursor": None}


def test_each_end_is_told_with_its_tries(ann: Person, store: Session) -> None:
    job = _job(store, ann)
    given_up = make_callback(store, job, gave_up_at=NOON + MINUTE)
    make_delivery(store, given_up, number=1, status_code=503)
    make_delivery(store, given_up, number=2, error="no answer within 10 s", milliseconds=10_000)
    make_callback(store, job, delivered_at=NOON + MINUTE)
    pending = make_callback(store, job, due_at=NOON + MINUTE)
    store.commit()

    answer = ann.get("/jobs/it/callbacks")

    CallbackList.model_validate_json(answer.data)
    third, second, first = answer.json["callbacks"]
    assert [one["state"] for one in (first, second, third)] == [
        "given_up",
        "delivered",
        "pending",
    ]
    assert third == {
        "delivery_id": str(pending.delivery_id),
        "state": "pending",
        "status": "completed",
        "created_at": "2026-01-15T12:00:00Z",
        "next_try_at": "2026-01-15T12:01:00Z",
        "delivered_at": None,
        "gave_up_at": None,
        "tries": [],
    }
    assert (second["delivered_at"], second["next_try_at"]) == ("2026-01-15T12:01:00Z", None)
    assert first["gave_up_at"] == "2026-01-15T12:01:00Z"
    assert first["tries"] == [
        {
            "number": 1,
            "at": "2026-01-15T12:00:00Z",
            "status_code": 503,
            "error": None,
            "milliseconds": 7,
        },
        {
            "number": 2,
            "at": "2026-01-15T12:00:00Z",
            "status_code": None,
            "error": "no answer within 10 s",
            "milliseconds": 10_000,
        },
    ]


def test_pages_together_are_all_callbacks(ann: Person, store: Session) -> None:
    job = _job(store, ann)
    made = [str(make_callback(store, job, delivered_at=NOON).delivery_id) for _ in range(5)]
    make_callback(store, _job(store, ann, "other"))
    store.commit()

    first = ann.get("/jobs/it/callbacks?limit=3").json
    second = ann.get(f"/jobs/it/callbacks?limit=3&cursor={first['next_cursor']}").json

    told = [one["delivery_id"] for page in (first, second) for one in page["callbacks"]]
    assert told == made[::-1]
    assert second["next_cursor"] is None


# Sending it again


@pytest.mark.parametrize("asker", ["owner", "operator"])
def test_it_is_sent_again_by_its_owner_or_an_operator(
    ann: Person, person: MakePerson, store: Session, asker: str
) -> None:
    job = _job(store, ann)
    callback = make_callback(store, job, gave_up_at=NOON, tries=32)
    store.commit()
    who = ann if asker == "owner" else person("olga", Role.OPERATOR)

    answer = who.post("/jobs/it/callbacks/retry")

    CallbackAnswer.model_validate_json(answer.data)
    assert (answer.status_code, answer.json["state"]) == (200, "pending")
    assert answer.json["delivery_id"] == str(callback.delivery_id)
    (call,) = callbacks.take(store, limit=5)
    assert (call.id, call.used) == (callback.id, 1)


def test_what_is_on_its_way_is_answered_as_it_is(ann: Person, store: Session) -> None:
    now = store.scalars(select(func.now())).one()
    make_callback(store, _job(store, ann), due_at=NOON, taken_until=now + timedelta(hours=1))
    store.commit()

    answer = ann.post("/jobs/it/callbacks/retry")

    assert (answer.status_code, answer.json["next_try_at"]) == (200, "2026-01-15T12:00:00Z")


@pytest.mark.parametrize("columns", [{}, {"callback_url": URL}])
def test_there_is_nothing_to_send_before_the_end(
    ann: Person, store: Session, columns: dict[str, Any]
) -> None:
    make_job(store, ann.user, JobStatus.READY, job_id="it", **columns)
    store.commit()

    answer = ann.post("/jobs/it/callbacks/retry")

    assert (answer.status_code, answer.json["code"]) == (409, "nothing_to_send")


# The secret


def test_the_secret_is_the_one_that_signs(ann: Person, store: Session) -> None:
    make_callback(store, _job(store, ann))
    store.commit()

    answer = ann.get("/me/callback-secret")

    CallbackSecret.model_validate_json(answer.data)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    (call,) = callbacks.take(store, limit=5)
    assert list(call.secrets) == [answer.json["secret"]]
    assert answer.json == ann.get("/me/callback-secret").json


def test_a_changed_secret_leaves_the_one_before_for_a_while(ann: Person, store: Session) -> None:
    before = ann.get("/me/callback-secret").json
    after = ann.post("/me/callback-secret").json

    assert before["secret"] != after["secret"]
    assert before["previous_until"] is None
    assert after["previous_until"] is not None
    assert ann.get("/me/callback-secret").json == after
    make_callback(store, _job(store, ann))
    (call,) = callbacks.take(store, limit=5)
    assert list(call.secrets) == [after["secret"], before["secret"]]


def test_everybody_has_a_secret_of_their_own(ann: Person, person: MakePerson) -> None:
    theirs = [one.get("/me/callback-secret").json["secret"] for one in (ann, person("bob"))]

    assert len(set(theirs)) == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_token_needs_the_scope_for_the_secret(person: MakePerson, method: str) -> None:
    bob = person("bob", scopes={Scope.READ, Scope.SUBMIT, Scope.WORK})

    answer = bob.ask(method, "/me/callback-secret")

    assert (answer.status_code, answer.json["code"]) == (403, "insufficient_scope")


def test_a_session_changes_the_secret_with_its_csrf_token_only(signed_in: MakePerson) -> None:
    ann = signed_in("ann")

    with_csrf = ann.post("/me/callback-secret").status_code
    ann.csrf = None

    assert with_csrf == 200
    assert ann.post("/me/callback-secret").json["code"] == "csrf_failed"


def test_no_answer_about_a_job_or_an_account_holds_the_secret(
    ann: Person, app: Flask, store: Session
) -> None:
    secret = ann.get("/me/callback-secret").json["secret"]
    make_callback(store, _job(store, ann))
    store.commit()

    paths = ["/jobs/it", "/jobs/it/callbacks", "/jobs", "/me", "/jobs/it/events"]
    answers = [ann.get(path) for path in paths]

    assert all(answer.status_code == 200 for answer in answers)
    assert not [answer.request.path for answer in answers if secret in answer.text]
    assert secret not in str(store.scalars(select(Callback.outcome)).all())
