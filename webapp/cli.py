"""``flask --app webapp ...``: accounts, tokens, the demonstration, a shell."""

import getpass
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup
from pydantic import ValidationError
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.bodies import malformed
from scheduler.job_request import USERNAME_PATTERN
from scheduler.models import User
from scheduler.states import Role, Scope
from scheduler.store.audit import COMMAND_LINE, record
from webapp import access, accounts, demo, queries
from webapp.api.tokens import add_token
from webapp.errors import Problem
from webapp.extensions import db
from webapp.schemas.people import PASSWORD_LIMIT, PASSWORD_MIN
from webapp.schemas.tokens import DAYS_LIMIT, TokenRequest
from webapp.services import services

_ROLES = click.Choice([str(role) for role in Role])

users = AppGroup("users", help="Make and change accounts.")
tokens = AppGroup("tokens", help="Make tokens.")


def init_app(app: Flask) -> None:
    """Add the commands."""
    app.cli.add_command(users)
    app.cli.add_command(tokens)
    app.cli.add_command(run_demo)


def _password_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--password-stdin", is_flag=True, help="Read the password from standard input."
    )(command)


def _new_name(_: click.Context, __: click.Parameter, username: str) -> str:
    if not re.fullmatch(USERNAME_PATTERN, username):
        raise click.ClickException("a name is made of letters, digits and . _ @ -, 64 at most")
    return username


@users.command("create")
@click.argument("username", callback=_new_name)
@click.option("--role", type=_ROLES, default=str(Role.USER), show_default=True)
@click.option("--weight", type=click.FloatRange(min=0, min_open=True), default=1.0)
@click.option("--group", default=None, help="Name of a group that exists.")
@_password_option
def create_user(
    username: str, role: str, weight: float, group: str | None, *, password_stdin: bool
) -> None:
    """Make an account; the password is asked for twice."""
    session = db.session()
    with _refusals_told():
        accounts.add_user(
            session,
            username,
            _password(from_stdin=password_stdin),
            by=COMMAND_LINE,
            now=clock.now(),
            role=Role(role),
            weight=weight,
            group_id=accounts.group_id(session, group),
        )
    session.commit()
    click.echo(f"created {username}")


@users.command("list")
def list_users() -> None:
    """List every account."""
    for user, group in queries.users(db.session()):
        state = "active" if user.active else "inactive"
        click.echo(f"{user.username}\t{user.role}\t{user.weight:g}\t{group or '-'}\t{state}")


@users.command("set")
@click.argument("username")
@click.option("--role", type=_ROLES)
@click.option("--weight", type=click.FloatRange(min=0, min_open=True))
@click.option("--group", help="Name of a group that exists; empty for none.")
@click.option("--active/--inactive", default=None)
@click.option("--password", "new_password", is_flag=True, help="Ask for a new password.")
@_password_option
def set_user(
    username: str, *, group: str | None, new_password: bool, password_stdin: bool, **columns: Any
) -> None:
    """Change an account; a new password ends its sessions."""
    session = db.session()
    changes = {name: value for name, value in columns.items() if value is not None}
    with _refusals_told():
        user = _existing(session, username)
        if group is not None:
            changes["group_id"] = accounts.group_id(session, group or None)
        if new_password or password_stdin:
            changes["password"] = _password(from_stdin=password_stdin)
        accounts.change_user(session, user, changes, by=COMMAND_LINE)
    session.commit()
    click.echo(f"changed {username}")


@users.command("ensure-admin")
def ensure_admin() -> None:
    """Make the first administrator from FAIRQ_ADMIN_USERNAME and _PASSWORD, if there is none."""
    settings, session = services().settings, db.session()
    if accounts.find_user(session, settings.admin_username) is not None:
        click.echo("exists")
        return
    if settings.admin_password is None:
        raise click.ClickException("FAIRQ_ADMIN_PASSWORD is not set")
    with _refusals_told():
        accounts.add_user(
            session,
            settings.admin_username,
            settings.admin_password,
            by=COMMAND_LINE,
            now=clock.now(),
            role=Role.ADMIN,
        )
    session.commit()
    click.echo("created")


@tokens.command("create")
@click.option("--user", "username", required=True)
@click.option("--name", required=True, help="What the token is for.")
@click.option("--scopes", default=f"{Scope.READ},{Scope.SUBMIT}", show_default=True)
@click.option("--expires-in", type=click.IntRange(1, DAYS_LIMIT), help="Days until it ends.")
def create_token(username: str, name: str, scopes: str, expires_in: int | None) -> None:
    """Make a token and print its secret, this once."""
    session, now = db.session(), clock.now()
    with _refusals_told():
        user = _existing(session, username)
        wanted = TokenRequest(
            name=name,
            scopes=_scopes(scopes),
            expires_at=None if expires_in is None else now + timedelta(days=expires_in),
        )
        token, secret = add_token(access.account_of(user), wanted, now)
    told = {"name": token.name, "scopes": token.scopes, "days": expires_in}
    record(session, COMMAND_LINE, "tokens.create", f"users/{user.username}", told)
    session.commit()
    click.echo(secret)


@click.command("demo")
def run_demo() -> None:
    """Make three users of different weight and keep a mixed load going until interrupted."""
    demo.run(db.session(), services().announcer, say=click.echo)


@contextmanager
def _refusals_told() -> Iterator[None]:
    """Turn a refusal into a message on standard error and exit code 1."""
    try:
        yield
    except Problem as problem:
        raise click.ClickException(problem.detail) from problem
    except ValidationError as misfit:
        raise click.ClickException(str(malformed(misfit))) from misfit


def _existing(session: Session, username: str) -> User:
    user = accounts.find_user(session, username)
    if user is None:
        raise click.ClickException(f"there is no user {username!r}")
    return user


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != password:
            raise click.ClickException("the passwords differ")
    if len(password) < PASSWORD_MIN:
        raise click.ClickException(f"use at least {PASSWORD_MIN} characters")
    if len(password) > PASSWORD_LIMIT:
        raise click.ClickException(f"use at most {PASSWORD_LIMIT} characters")
    return password


def _scopes(words: str) -> set[Scope]:
    try:
        return {Scope(word.strip()) for word in words.split(",")}
    except ValueError as error:
        raise click.ClickException(f"scopes are {', '.join(Scope)}: {error}") from error
