"""A reader's own account: limits and tokens."""

import re
from datetime import timedelta
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from scheduler import clock
from scheduler.models import Group, Token, User
from scheduler.states import Role, Scope
from webapp import access, queries, usage
from webapp.access import Account
from webapp.answers import json_body
from webapp.api.tokens import add_token
from webapp.bodies import parse_body
from webapp.errors import Problem, not_found
from webapp.extensions import db
from webapp.schemas.tokens import DAYS_LIMIT, TokenRequest
from webapp.views import frame

bp = Blueprint("account", __name__)

Errors = dict[str, list[str]]

_WHOLE_NUMBER = re.compile(r"[0-9]{1,12}")

_LIMITS = {
    "cpu_units": "CPU at a time",
    "memory_mb": "Memory at a time",
    "running_jobs": "Running at a time",
    "backlog": "Unfinished jobs",
}

_SCOPES = (
    (Scope.READ, "see your jobs and follow them live"),
    (Scope.SUBMIT, "submit and cancel jobs"),
    (Scope.WORK, "take jobs and run them"),
    (Scope.ADMIN, "manage tokens, and what your role administers"),
)


@bp.get("/account")
@frame.page
def show() -> ResponseReturnValue:
    """Show the reader's limits and tokens."""
    return _page(frame.reader())


@bp.post("/account/tokens")
@frame.page
def create_token() -> ResponseReturnValue:
    """Make a token and show its secret on this page only: it is kept nowhere to show it again."""
    account = frame.reader()
    try:
        wanted = parse_body(TokenRequest, json_body(_token_body(request.form)))
        token, secret = add_token(account, wanted, clock.now())
    except Problem as problem:
        return _page(account, values=request.form, errors=_errors(problem)), 422
    made = {"name": token.name, "token": secret}
    db.session.commit()
    return _page(account, secret=made), 201


@bp.post("/account/tokens/<int:token_id>/delete")
@frame.page
def delete_token(token_id: int) -> ResponseReturnValue:
    """Revoke a token at once."""
    token = db.session.get(Token, token_id) if token_id < 2**63 else None
    if token is None or token.user_id != access.require().id:
        raise not_found()
    flash(f"The token {token.name} is deleted.")
    db.session.delete(token)
    db.session.commit()
    return redirect(url_for("account.show"))


def _page(
    account: Account,
    *,
    values: MultiDict[str, str] | None = None,
    errors: Errors | None = None,
    secret: dict[str, str] | None = None,
) -> str:
    given = values or MultiDict([("scopes", Scope.READ), ("scopes", Scope.SUBMIT)])
    return render_template(
        "account/show.html",
        account=_about(account),
        tokens=queries.tokens_of(db.session(), account.id),
        scopes=_SCOPES,
        values={
            "name": given.get("name", ""),
            "days": given.get("days", ""),
            "scopes": given.getlist("scopes"),
        },
        errors=errors or {},
        secret=secret,
    )


def _about(account: Account) -> dict[str, Any]:
    session = db.session()
    user = session.get_one(User, account.id)
    group = None if user.group_id is None else session.get_one(Group, user.group_id).name
    used = usage.usage(session, account, now=clock.now())
    return {
        "shares": [("hour", used["shares"]["hour"]), ("day", used["shares"]["day"])],
        "username": user.username,
        "role": Role(user.role),
        "group": group,
        "weight": used["weight"],
        "limits": [one | {"title": _LIMITS[one["name"]]} for one in used["limits"]],
    }


def _token_body(given: MultiDict[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": given.get("name", "").strip(),
        "scopes": given.getlist("scopes"),
    }
    days = given.get("days", "").strip()
    if not days:
        return body
    if not _WHOLE_NUMBER.fullmatch(days) or not 1 <= int(days) <= DAYS_LIMIT:
        return body | {"expires_at": days}
    return body | {"expires_at": clock.now() + timedelta(days=int(days))}


def _errors(problem: Problem) -> Errors:
    errors: Errors = {}
    for error in problem.errors:
        control = error.path.partition(".")[0]
        shown = control if control in {"name", "scopes", "expires_at"} else ""
        errors.setdefault(shown, []).append(_words(control, error.message))
    return errors or {"": [problem.detail]}


def _words(control: str, message: str) -> str:
    """Say in the form's own terms what the request's terms say about instants and sets."""
    if control == "expires_at":
        return f"This is a number of whole days, from 1 to {DAYS_LIMIT:,}."
    if control == "scopes":
        return "Choose at least one."
    return message
