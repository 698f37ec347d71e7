"""An application on the test services, and people who ask it things."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from scheduler.models import Token, User
from scheduler.settings import Settings
from scheduler.states import Role, Scope
from tests.factories import NOON, make_type, make_user
from webapp import create_app
from webapp.access import hash_secret, new_secret
from webapp.extensions import db, limiter
from webapp.passwords import hash_password
from webapp.services import services_of

PASSWORD = "correct horse battery staple"
PASSWORD_HASH = hash_password(PASSWORD)


MakeApp = Callable[[Settings], Flask]


@pytest.fixture
def make_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeApp]:
    """Make applications whose connections are closed at the end."""
    # The extension outlives its applications, and remembers that another one's broker was away.
    monkeypatch.setattr(limiter, "_storage_dead", False)
    made: list[Flask] = []

    def make(settings: Settings) -> Flask:
        app = create_app(settings)
        app.config["TESTING"] = True
        app.config["PROPAGATE_EXCEPTIONS"] = False
        made.append(app)
        return app

    yield make
    for app in made:
        services_of(app).redis.close()
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def app(
    settings: Settings, committed_engine: Engine, redis_client: Redis, make_app: MakeApp
) -> Flask:
    return make_app(settings)


@pytest.fixture
def store(committed_engine: Engine) -> Iterator[Session]:
    """A session whose commits the application sees."""
    with Session(committed_engine, expire_on_commit=False) as session:
        make_type(session)
        session.commit()
        yield session


@pytest.fixture
def statements(app: Flask) -> Iterator[list[str]]:
    """Every statement the application sends."""
    seen: list[str] = []

    def note(*arguments: Any) -> None:
        seen.append(arguments[2])

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


@dataclass
class Person:
    """Somebody with an account, and one way of proving it."""

    user: User
    client: FlaskClient
    token: str | None = None
    csrf: str | None = None

    def ask(self, method: str, path: str, **options: Any) -> TestResponse:
        """Send a request with whatever proves who asks."""
        headers = dict(options.pop("headers", {}))
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if self.csrf:
            headers.setdefault("X-CSRFToken", self.csrf)
        return self.client.open(path, method=method, headers=headers, **options)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.ask("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.ask("POST", path, json=body, **options)

    def patch(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.ask("PATCH", path, json=body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.ask("PUT", path, json=body, **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        return self.ask("DELETE", path, **options)


MakePerson = Callable[..., Person]
Run = Callable[..., Result]


@pytest.fixture
def run(app: Flask) -> Run:
    """Run a ``flask --app webapp`` command."""

    def run(*arguments: str, password: str | None = None) -> Result:
        return app.test_cli_runner().invoke(args=arguments, input=password)

    return run


@pytest.fixture
def person(app: Flask, store: Session) -> MakePerson:
    """Make an account with a token of some scopes, all of them unless told otherwise."""

    def make(
        username: str, role: Role = Role.USER, *, scopes: set[Scope] | None = None, **columns: Any
    ) -> Person:
        user = make_user(store, username, role, **{"password_hash": PASSWORD_HASH, **columns})
        secret = add_token(store, user, set(Scope) if scopes is None else scopes)
        store.commit()
        return Person(user, app.test_client(), token=secret)

    return make


@pytest.fixture
def signed_in(app: Flask, store: Session) -> MakePerson:
    """Make an account and sign it in with a session, as a browser does."""

    def make(username: str, role: Role = Role.USER, **columns: Any) -> Person:
        user = make_user(store, username, role, password_hash=PASSWORD_HASH, **columns)
        store.commit()
        client = app.test_client()
        return Person(user, client, csrf=sign_in(client, username))

    return make


def add_token(store: Session, user: User, scopes: set[Scope], **columns: Any) -> str:
    """Give *user* a token and return its secret."""
    secret = new_secret()
    defaults: dict[str, Any] = {"expires_at": None, "last_used_at": None}
    store.add(
        Token(
            user_id=user.id,
            name="test",
            secret_hash=hash_secret(secret),
            scopes=sorted(scopes),
            created_at=NOON,
            **(defaults | columns),
        )
    )
    store.flush()
    return secret


def csrf_of(client: FlaskClient) -> str:
    """Return the CSRF token a browser would find in the page it looks at."""
    page = client.get("/docs").text
    return page.partition('name="csrf-token" content="')[2].partition('"')[0]


def sign_in(client: FlaskClient, username: str, password: str = PASSWORD) -> str:
    """Sign in through the page, and return the CSRF token of the new session."""
    form = {"username": username, "password": password, "csrf_token": csrf_of(client)}
    answer = client.post("/sign-in", data=form, headers={"Accept": "text/html"})
    assert answer.status_code == 302, answer.text
    return csrf_of(client)
