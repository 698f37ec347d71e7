"""``flask --app webapp ...``."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from scheduler.models import Token, User
from scheduler.settings import Settings
from scheduler.states import Role
from tests.factories import make_group
from tests.webapp.conftest import MakeApp, MakePerson, Run
from webapp.passwords import verify_password


def user(store: Session, username: str) -> User:
    store.rollback()
    return store.query(User).filter_by(username=username).populate_existing().one()


def test_an_account_is_made_with_a_password_from_standard_input(run: Run, store: Session) -> None:
    make_group(store, "physics")
    store.commit()
    options = ("--role", "operator", "--weight", "2.5", "--group", "physics")

    result = run("users", "create", "zoe", *options, "--password-stdin", password="long enough\n")

    assert (result.exit_code, result.output) == (0, "created zoe\n")
    made = user(store, "zoe")
    assert (made.role, made.weight, made.group_id is not None) == (Role.OPERATOR, 2.5, True)
    assert verify_password(made.password_hash, "long enough")


def test_the_password_is_asked_for_twice_and_never_shown(
    run: Run, store: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter(["long enough", "long enough", "long enough", "something else"])
    monkeypatch.setattr("getpass.getpass", lambda _: next(typed))

    equal, different = run("users", "create", "zoe"), run("users", "create", "bob")

    assert (equal.exit_code, "long enough" in equal.output) == (0, False)
    assert (different.exit_code, "differ" in different.output) == (1, True)
    assert store.query(User).count() == 1


@pytest.mark.parametrize(
    ("arguments", "password", "word"),
    [
        (("users", "create", "ANN"), "long enough", "already"),
        (("users", "create", "zoe"), "short", "at least"),
        (("users", "create", "zoe"), "x" * 1025, "at most 1024"),
        (("users", "create", "has space"), "long enough", "name"),
        (("users", "create", "zoe", "--group", "none"), "long enough", "no group"),
        (("users", "set", "nobody"), "long enough", "no user"),
    ],
)
def test_what_cannot_be_done_is_told_with_exit_code_1(
    run: Run,
    person: MakePerson,
    store: Session,
    arguments: tuple[str, ...],
    password: str,
    word: str,
) -> None:
    person("ann")

    result = run(*arguments, "--password-stdin", password=password)

    assert result.exit_code == 1
    assert word in result.output
    assert "Traceback" not in result.output
    assert store.query(User).count() == 1


def test_accounts_are_listed(run: Run, person: MakePerson) -> None:
    person("ann", weight=2)
    person("bob", Role.VIEWER, active=False)

    lines = run("users", "list").output.splitlines()

    assert lines == ["ann\tuser\t2\t-\tactive", "bob\tviewer\t1\t-\tinactive"]


def test_an_account_is_changed(run: Run, person: MakePerson, store: Session) -> None:
    person("ann")

    plain = run("users", "set", "Ann", "--role", "operator", "--weight", "3", "--inactive")
    changed = user(store, "ann")

    assert plain.exit_code == 0, plain.output
    assert (changed.role, changed.weight, changed.active) == (Role.OPERATOR, 3, False)
    assert changed.session_version == 1


def test_a_new_password_ends_the_sessions(run: Run, person: MakePerson, store: Session) -> None:
    person("ann")

    run("users", "set", "ann", "--password-stdin", password="brand new one")

    changed = user(store, "ann")
    assert changed.session_version == 2
    assert verify_password(changed.password_hash, "brand new one")


def test_the_last_administrator_stays_one(run: Run, person: MakePerson) -> None:
    person("boss", Role.ADMIN)

    result = run("users", "set", "boss", "--role", "user")

    assert (result.exit_code, "last" in result.output) == (1, True)


@pytest.fixture
def installation(
    settings: Settings, committed_engine: Engine, redis_client: Redis, make_app: MakeApp
) -> Callable[[str | None], Run]:
    def make(password: str | None) -> Run:
        app = make_app(replace(settings, admin_username="root", admin_password=password))
        return lambda *arguments: app.test_cli_runner().invoke(args=arguments)

    return make


def test_the_first_administrator_is_made_once(
    installation: Callable[[str | None], Run], store: Session
) -> None:
    first = installation("from the environment")("users", "ensure-admin")
    second = installation("another")("users", "ensure-admin")

    assert (first.output, second.output) == ("created\n", "exists\n")
    made = user(store, "root")
    assert made.role == Role.ADMIN
    assert verify_password(made.password_hash, "from the environment")


def test_without_a_password_there_is_no_first_administrator(
    installation: Callable[[str | None], Run], store: Session
) -> None:
    result = installation(None)("users", "ensure-admin")

    assert (result.exit_code, "FAIRQ_ADMIN_PASSWORD" in result.output) == (1, True)
    assert store.query(User).count() == 0


def test_a_token_is_made_and_its_secret_printed(
    run: Run, app: Flask, person: MakePerson, store: Session
) -> None:
    person("ann")
    options = ("--name", "script", "--scopes", "read, work", "--expires-in", "7")

    result = run("tokens", "create", "--user", "ann", *options)

    headers = {"Authorization": f"Bearer {result.output.strip()}"}
    assert app.test_client().get("/me", headers=headers).json["scopes"] == ["read", "work"]
    made = store.query(Token).filter_by(name="script").one()
    assert made.expires_at is not None
    assert (made.expires_at - made.created_at).days == 7


@pytest.mark.parametrize(
    ("username", "scopes", "word"),
    [("nobody", "read", "no user"), ("ann", "read,fly", "scopes are"), ("ann", "", "scopes are")],
)
def test_a_token_that_makes_no_sense_is_refused(
    run: Run, person: MakePerson, username: str, scopes: str, word: str
) -> None:
    person("ann")

    result = run("tokens", "create", "--user", username, "--name", "x", "--scopes", scopes)

    assert (result.exit_code, word in result.output) == (1, True)


@pytest.mark.parametrize(
    ("name", "days", "word"),
    [("", "7", "name: string should have"), ("x", "100000", "1<=x<=36500"), ("x", "0", "1<=x")],
)
def test_a_token_that_cannot_be_made_is_told_why(
    run: Run, person: MakePerson, name: str, days: str, word: str
) -> None:
    person("ann")

    result = run("tokens", "create", "--user", "ann", "--name", name, "--expires-in", days)

    assert isinstance(result.exception, SystemExit)
    assert word in result.output


def test_the_shell_knows_the_tables(app: Flask) -> None:
    with app.app_context():
        names = app.make_shell_context()

    assert {"db", "Job", "User", "Attempt"} <= set(names)
