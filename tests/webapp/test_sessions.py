"""Sessions: signing in and out, what ends them, CSRF."""

from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from scheduler.models import User
from scheduler.settings import Settings
from scheduler.states import Role
from tests.webapp.conftest import PASSWORD, MakeApp, MakePerson, Person, csrf_of, sign_in
from webapp import access

SIMULATE = {"type": "simulate"}


def session_cookie(person: Person) -> str | None:
    cookie = person.client.get_cookie("fairq_session")
    return cookie and cookie.value


def test_a_session_reads_and_changes(signed_in: MakePerson) -> None:
    ann = signed_in("ann")

    assert ann.get("/me").json["username"] == "ann"
    assert ann.get("/me").json["scopes"] == ["admin", "read", "submit", "work"]
    assert ann.post("/jobs", SIMULATE).status_code == 201


@pytest.mark.parametrize("token", [None, "", "wrong"])
def test_a_change_by_session_needs_the_csrf_token(
    signed_in: MakePerson, store: Session, token: str | None
) -> None:
    boss = signed_in("boss", Role.ADMIN)
    boss.csrf = token

    answers = [
        boss.post("/jobs", SIMULATE),
        boss.post("/jobs/batch", {"jobs": [SIMULATE]}),
        boss.patch("/jobs/x/cancel"),
        boss.post("/users", {}),
        boss.patch("/users/boss", {}),
        boss.put("/policy", {}),
        boss.delete("/tokens/1"),
    ]

    assert {(answer.status_code, answer.json["code"]) for answer in answers} == {
        (403, "csrf_failed")
    }


def test_the_csrf_token_of_somebody_else_is_worth_nothing(signed_in: MakePerson) -> None:
    ann, eve = signed_in("ann"), signed_in("eve")
    ann.csrf = eve.csrf

    assert ann.post("/jobs", SIMULATE).status_code == 403


def test_a_change_without_any_credentials_is_unauthenticated(app: Flask, store: Session) -> None:
    answer = app.test_client().post("/jobs", json=SIMULATE)

    assert (answer.status_code, answer.json["code"]) == (401, "unauthenticated")


def test_a_bearer_token_needs_no_csrf_token_even_beside_a_session(
    signed_in: MakePerson, person: MakePerson
) -> None:
    ann, bob = signed_in("ann"), person("bob")
    ann.csrf = None
    bob.client = ann.client

    job = bob.post("/jobs", SIMULATE)

    assert (job.status_code, job.json["owner"]) == (201, "bob")


def test_signing_in_starts_from_nothing(app: Flask, person: MakePerson) -> None:
    person("ann")
    client = app.test_client()
    planted = csrf_of(client)
    before = client.get_cookie("fairq_session")

    token = sign_in(client, "ann")

    after = client.get_cookie("fairq_session")
    assert before is not None
    assert after is not None
    assert after.value != before.value
    answer = client.post("/jobs", json=SIMULATE, headers={"X-CSRFToken": planted})
    assert answer.status_code == 403
    assert client.post("/jobs", json=SIMULATE, headers={"X-CSRFToken": token}).status_code == 201


def test_a_new_password_ends_every_session_and_no_token(
    signed_in: MakePerson, person: MakePerson, app: Flask
) -> None:
    ann, boss = signed_in("ann"), person("boss", Role.ADMIN)

    boss.patch("/users/ann", {"weight": 2})
    still = ann.get("/me").status_code
    boss.patch("/users/ann", {"password": "another one"})

    assert still == 200
    assert ann.get("/me").status_code == 401
    sign_in(app.test_client(), "ann", "another one")


def test_an_inactive_account_is_refused_at_once_and_cannot_sign_in(
    signed_in: MakePerson, person: MakePerson, app: Flask
) -> None:
    ann, boss = signed_in("ann"), person("boss", Role.ADMIN)

    boss.patch("/users/ann", {"active": False})

    assert ann.get("/me").status_code == 401
    with app.test_request_context():
        assert access.check_password("ann", PASSWORD) is None


def test_another_role_counts_from_the_next_request_on(
    signed_in: MakePerson, store: Session
) -> None:
    ann = signed_in("ann")
    assert ann.get("/users").status_code == 403

    store.get_one(User, ann.user.id).role = Role.ADMIN
    store.commit()

    assert ann.get("/users").status_code == 200


def test_a_forged_session_is_no_session(signed_in: MakePerson, app: Flask) -> None:
    ann = signed_in("ann")
    kept = session_cookie(ann)
    assert kept is not None

    ann.client.set_cookie("fairq_session", kept[:-3] + "abc")

    assert ann.get("/me").status_code == 401


@pytest.mark.parametrize("kept", ["", "x", "1", "1.", "1.x", "0.1", "99.1", "-1.1", "²." + "1"])
def test_a_session_of_nobody_is_no_session(app: Flask, store: Session, kept: str) -> None:
    client = app.test_client()
    with client.session_transaction() as session:
        session["_user_id"] = kept

    assert client.get("/me").status_code == 401


def test_signing_out_ends_the_session(signed_in: MakePerson) -> None:
    ann = signed_in("ann")

    ann.ask("POST", "/sign-out", data={"csrf_token": ann.csrf}, headers={"Accept": "text/html"})

    assert ann.get("/me").status_code == 401


def _sign_out(person: Person) -> None:
    ended = person.ask("POST", "/sign-out", data={"csrf_token": person.csrf})
    assert ended.status_code == 302


def test_signing_out_ends_every_copy_of_the_session_and_no_other(
    signed_in: MakePerson, app: Flask
) -> None:
    ann = signed_in("ann")
    elsewhere, copy = app.test_client(), app.test_client()
    sign_in(elsewhere, "ann")
    copy.set_cookie("fairq_session", session_cookie(ann) or "")

    before = copy.get("/me").status_code
    _sign_out(ann)

    assert (before, copy.get("/me").status_code) == (200, 401)
    assert elsewhere.get("/me").status_code == 200


def test_what_is_answered_meanwhile_does_not_undo_signing_out(signed_in: MakePerson) -> None:
    ann = signed_in("ann")
    ann.get("/account")

    in_flight = ann.get("/account")

    assert in_flight.status_code == 200
    assert not in_flight.headers.getlist("Set-Cookie")


def test_a_session_that_is_used_lasts_on_by_the_day(signed_in: MakePerson) -> None:
    ann = signed_in("ann")
    ann.get("/account")
    with ann.client.session_transaction() as session:
        session["renewed_on"] = "2026-01-01"

    answers = [ann.get("/account") for _ in range(2)]

    assert [len(answer.headers.getlist("Set-Cookie")) for answer in answers] == [1, 0]


def test_signing_in_and_out_needs_no_broker(
    signed_in: MakePerson, settings: Settings, make_app: MakeApp
) -> None:
    ann = signed_in("ann")
    ann.client = make_app(replace(settings, redis_url="redis://127.0.0.1:1/0")).test_client()
    ann.csrf = sign_in(ann.client, "ann")

    _sign_out(ann)

    assert ann.get("/me").status_code == 401


def test_the_session_cookie_is_kept_from_scripts_and_other_sites(
    signed_in: MakePerson, app: Flask
) -> None:
    signed_in("ann")
    client = app.test_client()
    form = {"username": "ann", "password": PASSWORD, "csrf_token": csrf_of(client)}

    answer = client.post("/sign-in", data=form)

    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
