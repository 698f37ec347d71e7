"""Tokens: making them, what they may do, how they end."""

import hashlib
from base64 import b64encode
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from scheduler import clock
from scheduler.models import Token
from scheduler.settings import Settings
from scheduler.states import Role, Scope
from tests.webapp.conftest import PASSWORD, MakeApp, MakePerson, add_token
from webapp import access
from webapp.schemas.tokens import NewToken, TokenList


def basic(username: str, password: str) -> dict[str, str]:
    credentials = b64encode(f"{username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {credentials}"}


def make(app: Flask, username: str, password: str = PASSWORD, **body: Any) -> TestResponse:
    wanted = {"name": "first", "scopes": ["read", "submit"]} | body
    return app.test_client().post("/tokens", json=wanted, headers=basic(username, password))


def test_a_script_gets_its_first_token_with_name_and_password(
    app: Flask, person: MakePerson
) -> None:
    person("ann")

    answer = make(app, "Ann")

    NewToken.model_validate_json(answer.data)
    assert answer.status_code == 201
    secret = answer.json["token"]
    assert secret.startswith("fq_")
    me = app.test_client().get("/me", headers={"Authorization": f"Bearer {secret}"})
    assert (me.json["username"], me.json["scopes"]) == ("ann", ["read", "submit"])


def test_only_a_digest_of_the_secret_is_kept(
    app: Flask, person: MakePerson, store: Session
) -> None:
    person("ann")

    secret = make(app, "ann").json["token"]

    kept = store.scalars(select(Token).where(Token.name == "first")).one()
    assert bytes(kept.secret_hash) == hashlib.sha256(secret.encode()).digest()
    assert secret not in str(vars(kept))


def test_lists_show_tokens_without_their_secrets(person: MakePerson, app: Flask) -> None:
    ann, _ = person("ann"), person("bob")
    made = make(app, "ann").json

    answer = ann.get("/tokens")

    TokenList.model_validate_json(answer.data)
    assert [token["name"] for token in answer.json["tokens"]] == ["first", "test"]
    assert made["token"] not in answer.text
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("username", "password"),
    [("ann", "wrong"), ("nobody", PASSWORD), ("idle", PASSWORD), ("ann", ""), ("", ""),
     ("ann", "x" * 5000), ("a\0nn", PASSWORD)],
)  # fmt: skip
def test_a_wrong_name_or_password_tells_nothing(
    app: Flask, person: MakePerson, username: str, password: str
) -> None:
    person("ann")
    person("idle", active=False)

    answer = make(app, username, password)

    assert (answer.status_code, answer.json["code"]) == (401, "unauthenticated")
    assert answer.json["detail"] == "Username or password is wrong."
    assert "Basic" in answer.headers["WWW-Authenticate"]


def test_a_password_opens_nothing_but_making_tokens(app: Flask, person: MakePerson) -> None:
    person("ann")

    answer = app.test_client().get("/me", headers=basic("ann", PASSWORD))

    assert answer.status_code == 401
    assert "Basic" not in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer fq_wrong", "Bearer \x7f", "Token abc", "nonsense", ""]
)
def test_a_header_that_proves_nothing_is_refused_even_beside_a_session(
    signed_in: MakePerson, header: str
) -> None:
    answer = signed_in("ann").get("/me", headers={"Authorization": header})

    assert (answer.status_code, answer.json["code"]) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_expired_token_is_refused(person: MakePerson, store: Session) -> None:
    ann = person("ann")
    now = clock.now()

    for seconds, status in ((-1, 401), (60, 200)):
        ends = now + timedelta(seconds=seconds)
        ann.token = add_token(store, ann.user, {Scope.READ}, expires_at=ends)
        store.commit()
        assert ann.get("/me").status_code == status


def test_the_token_of_an_inactive_account_is_refused(person: MakePerson, store: Session) -> None:
    ann = person("ann")
    ann.user.active = False
    store.commit()

    assert ann.get("/me").status_code == 401


def test_a_revoked_token_stops_working_at_once(person: MakePerson, app: Flask) -> None:
    ann = person("ann")
    made = make(app, "ann").json

    revoked = ann.delete(f"/tokens/{made['id']}")
    again = ann.delete(f"/tokens/{made['id']}")

    assert (revoked.status_code, revoked.data, again.status_code) == (204, b"", 404)
    answer = app.test_client().get("/me", headers={"Authorization": f"Bearer {made['token']}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("number", ["1", "99", str(2**70)])
def test_nobody_revokes_what_is_not_theirs(person: MakePerson, store: Session, number: str) -> None:
    person("ann")
    boss = person("boss", Role.ADMIN)

    assert boss.delete(f"/tokens/{number}").status_code == 404
    assert store.get(Token, 1) is not None


def test_the_use_of_a_token_is_noted_at_most_once_a_minute(
    person: MakePerson, store: Session
) -> None:
    ann = person("ann")
    token = store.scalars(select(Token)).one()

    def noted_after(last_use: Any) -> bool:
        token.last_used_at = last_use
        store.commit()
        ann.get("/me")
        store.refresh(token)
        return token.last_used_at != last_use

    now = clock.now()
    assert noted_after(None)
    assert noted_after(now - timedelta(seconds=61))
    assert not noted_after(now - timedelta(seconds=30))


def test_a_token_makes_no_stronger_or_longer_lived_one(person: MakePerson, store: Session) -> None:
    ann = person("ann")
    ends = clock.now() + timedelta(days=1)
    ann.token = add_token(store, ann.user, {Scope.ADMIN, Scope.READ}, expires_at=ends)
    store.commit()

    stronger = ann.post("/tokens", {"name": "x", "scopes": ["read", "submit"]})
    longer = ann.post(
        "/tokens",
        {"name": "x", "scopes": ["read"], "expires_at": (ends + timedelta(days=9)).isoformat()},
    )

    assert (stronger.status_code, stronger.json["code"]) == (403, "insufficient_scope")
    assert longer.json["expires_at"] == ends.isoformat().replace("+00:00", "Z")


def test_a_token_without_the_scope_makes_none(person: MakePerson) -> None:
    ann = person("ann", scopes={Scope.READ, Scope.SUBMIT, Scope.WORK})

    answer = ann.post("/tokens", {"name": "x", "scopes": ["read"]})

    assert (answer.status_code, answer.json["code"]) == (403, "insufficient_scope")


def test_a_session_makes_tokens_with_its_csrf_token_only(signed_in: MakePerson) -> None:
    ann = signed_in("ann")
    body = {"name": "x", "scopes": ["read"]}

    with_csrf = ann.post("/tokens", body)
    ann.csrf = None
    without = ann.post("/tokens", body)

    assert (with_csrf.status_code, without.status_code) == (201, 403)
    assert without.json["code"] == "csrf_failed"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"scopes": []}, "scopes"),
        ({"name": ""}, "name"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"owner": "bob"}, "owner"),
    ],
)
def test_a_wrong_wish_is_refused(
    app: Flask, person: MakePerson, body: dict[str, Any], path: str
) -> None:
    person("ann")

    answer = make(app, "ann", **body)

    assert answer.status_code == 422
    assert answer.json["errors"][0]["path"] == path


def test_guessing_passwords_is_slowed_down(app: Flask, person: MakePerson) -> None:
    person("ann")
    person("bob")

    guesses = [make(app, "ann", "wrong").status_code for _ in range(10)]
    beyond = make(app, "ann", "wrong")
    right = make(app, "ann")

    assert guesses == [401] * 10
    assert (beyond.status_code, beyond.json["code"]) == (429, "rate_limited")
    assert int(beyond.headers["Retry-After"]) > 0
    assert right.status_code == 429
    assert make(app, "bob").status_code == 201


def test_guessing_is_slowed_down_while_the_broker_is_away(
    app: Flask, person: MakePerson, settings: Settings, make_app: MakeApp
) -> None:
    person("ann")
    lonely = make_app(replace(settings, redis_url="redis://127.0.0.1:1/0"))

    answers = [make(lonely, "ann", "wrong").status_code for _ in range(11)]

    assert answers == [401] * 10 + [429]


def test_a_right_password_forgives_the_wrong_ones_before(app: Flask, person: MakePerson) -> None:
    person("ann")
    for _ in range(9):
        make(app, "ann", "wrong")

    assert make(app, "ann").status_code == 201
    assert [make(app, "ann", "wrong").status_code for _ in range(9)] == [401] * 9


def test_only_passwords_count_as_attempts(app: Flask, person: MakePerson) -> None:
    ann = person("ann")
    wanted = {"name": "x", "scopes": ["read"]}

    anonymous = [app.test_client().post("/tokens", json=wanted) for _ in range(11)]
    by_token = [ann.post("/tokens", wanted) for _ in range(11)]

    assert {answer.status_code for answer in anonymous} == {401}
    assert {answer.status_code for answer in by_token} == {201}


def test_one_address_cannot_guess_for_every_name(
    app: Flask, store: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "verify_password", lambda *_: False)

    answers = [make(app, f"name{number}", "wrong").status_code for number in range(101)]

    assert answers == [401] * 100 + [429]
