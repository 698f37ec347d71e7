"""A caller's own tokens."""

from datetime import datetime
from typing import Any

from flask import Response, request
from werkzeug.datastructures import Authorization

from scheduler import clock
from scheduler.models import Token
from scheduler.states import Scope
from webapp import access, queries
from webapp.access import Account
from webapp.answers import answer, utc
from webapp.endpoints import Resource, protect_session
from webapp.errors import FieldError, Problem, not_found, unauthenticated
from webapp.extensions import db
from webapp.schemas.groundwork import Page
from webapp.schemas.people import PASSWORD_LIMIT
from webapp.schemas.tokens import NewToken, TokenList, TokenRequest

bp = Resource("api_tokens", __name__)


@bp.route_of(
    "GET",
    "/tokens",
    summary="List your tokens",
    scope=Scope.READ,
    query=Page,
    answers={200: TokenList},
    refuses=("invalid_cursor",),
)
def list_tokens(query: Page) -> Response:
    """Newest first, without their secrets."""
    found, cursor = queries.page_of_tokens(
        db.session(), access.require().id, limit=query.limit, cursor=query.cursor
    )
    return answer({"tokens": [token_to_json(token) for token in found], "next_cursor": cursor})


def _basic() -> Authorization | None:
    given = request.authorization
    return given if given is not None and given.type == "basic" else None


def _name_tried() -> str | None:
    basic = _basic()
    return None if basic is None else basic.username or ""


@bp.route_of(
    "POST",
    "/tokens",
    summary="Make a token",
    scope=Scope.ADMIN,
    takes_password=True,
    body=TokenRequest,
    answers={201: NewToken},
    refuses=("rate_limited",),
)
@access.limit_sign_in(_name_tried)
def make_token(body: TokenRequest) -> Response:
    """The secret is in this answer only. HTTP Basic with username and password is accepted here."""
    account = _maker()
    token, secret = add_token(account, body, clock.now())
    answered = token_to_json(token) | {"token": secret}
    db.session.commit()
    return answer(answered, 201)


@bp.route_of(
    "DELETE",
    "/tokens/<int:number>",
    summary="Revoke a token",
    scope=Scope.ADMIN,
    answers={204: None},
)
def revoke_token(number: int) -> Response:
    """It stops working at once."""
    token = db.session.get(Token, number) if number < 2**63 else None
    if token is None or token.user_id != access.require().id:
        raise not_found()
    db.session.delete(token)
    db.session.commit()
    return Response(status=204)


def add_token(account: Account, wanted: TokenRequest, now: datetime) -> tuple[Token, str]:
    """Add a token of *account* and return it with its secret; the caller commits.

    A token made by a token can do no more than that one, and ends no later.
    """
    beyond = wanted.scopes - account.scopes
    if beyond:
        names = ", ".join(sorted(beyond))
        raise Problem("insufficient_scope", f"Your own token does not have: {names}.")
    ends = [end for end in (wanted.expires_at, account.until) if end is not None]
    if any(end <= now for end in ends):
        message = "must be in the future"
        raise Problem(
            "validation_failed", f"expires_at {message}.", (FieldError("expires_at", message),)
        )
    secret = access.new_secret()
    token = Token(
        user_id=account.id,
        name=wanted.name,
        secret_hash=access.hash_secret(secret),
        scopes=sorted(wanted.scopes),
        created_at=now,
        expires_at=min(ends) if ends else None,
    )
    db.session.add(token)
    db.session.flush()
    return token, secret


def token_to_json(token: Token) -> dict[str, Any]:
    """Return a token as its owner sees it."""
    return {
        "id": token.id,
        "name": token.name,
        "scopes": token.scopes,
        "created_at": utc(token.created_at),
        "expires_at": utc(token.expires_at),
        "last_used_at": utc(token.last_used_at),
    }


def _maker() -> Account:
    """Return who makes the token: by password, or as everywhere."""
    credentials = _basic()
    if credentials is None:
        if access.caller() is None:
            raise unauthenticated("Sign in, or send username and password.", basic=True)
        account = access.require(Scope.ADMIN)
        access.count_request()
        protect_session()
        return account
    username, password = credentials.username or "", credentials.password or ""
    known = len(password) <= PASSWORD_LIMIT and access.check_password(username, password)
    if not known:
        raise unauthenticated("Username or password is wrong.", basic=True)
    return known
