"""Who is asking, and what they may see and do."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from flask import Flask, g, request
from flask_limiter.util import get_remote_address
from flask_login import UserMixin, current_user, login_user
from limits import parse
from redis import RedisError
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    false,
    func,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

from scheduler import clock
from scheduler.errors import JobNotFound
from scheduler.models import Job, Schedule, Token, User
from scheduler.states import Role, Scope
from scheduler.store.audit import Actor
from webapp import sessions
from webapp.errors import Problem, not_found, unauthenticated
from webapp.extensions import db, limiter, login
from webapp.passwords import verify_password
from webapp.services import services

View = TypeVar("View", bound=Callable[..., Any])

TOKEN_PREFIX = "fq_"  # noqa: S105 - what secrets begin with, so that scanners find leaked ones
TOKEN_USE_NOTED_EVERY = timedelta(minutes=1)
"""How exact ``last_used_at`` is; noting every use would make every read a write."""

SIGN_INS_PER_NAME = "10 per minute"
SIGN_INS_PER_ADDRESS = "100 per minute"

REQUESTS = "requests"
"""The name of the limit that FAIRQ_REQUESTS_PER_MINUTE sets."""

REPORTS = "reports"
"""The name of the limit of what workers report of the jobs they have, as high as that of requests.

One of its own: whatever else a user asks, no worker may lose a job because it was not heard.
"""

_RANKS = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True, eq=False)
class Account(UserMixin):  # type: ignore[misc]  # Flask-Login ships no annotations
    """Somebody who is signed in, by session, token or password."""

    id: int
    username: str
    role: Role
    session_version: int
    scopes: frozenset[Scope] = frozenset(Scope)
    by_session: bool = False
    until: datetime | None = None  # when the token used for this request ends

    def get_id(self) -> str:
        """Return what the session keeps; another password makes it worthless."""
        return f"{self.id}.{self.session_version}"

    def has_role(self, role: Role) -> bool:
        """Tell whether this account may do what *role* may."""
        return _RANKS[self.role] >= _RANKS[role]

    @property
    def sees_everybody(self) -> bool:
        """Whether other people's jobs are visible."""
        return self.has_role(Role.OPERATOR)


def init_app(app: Flask) -> None:
    """Let sessions of *app* find their accounts."""
    login.init_app(app)
    login.user_loader(_account_of_session)


def caller() -> Account | None:
    """Return who makes this request, or None. Credentials in a header win over a session.

    Raises a 401 problem for a header that proves nothing.
    """
    if "caller" not in g:
        g.caller = _by_header() if "Authorization" in request.headers else _by_session()
    found: Account | None = g.caller
    return found


def take_session() -> None:
    """Take the session for the caller of this request, whatever a header says."""
    g.caller = _by_session()


def take_basic_token() -> None:
    """Take the token that came as the password of HTTP Basic, if one did; a 401 offers that too."""
    g.takes_basic = True
    credentials = request.authorization
    if credentials is not None and credentials.type == "basic":
        g.caller = by_token(credentials.password or "", clock.now())


def require(scope: Scope | None = None, role: Role = Role.VIEWER) -> Account:
    """Return the caller. Raises 401 without one, 403 if role or scope do not suffice."""
    account = caller()
    if account is None:
        raise unauthenticated("This needs a signed-in session or a token.")
    if not account.has_role(role):
        raise Problem("forbidden", f"This needs the role {role}; yours is {account.role}.")
    if scope is not None and scope not in account.scopes:
        raise Problem("insufficient_scope", f"This needs a token with the scope {scope}.")
    return account


def actor() -> Actor:
    """Return the caller as the audit log knows them."""
    account = require()
    return Actor(account.username, account.id, request.remote_addr, g.request_id)


def check_password(username: str, password: str) -> Account | None:
    """Return the account if the password is right and the account active.

    Views that call this are decorated with ``limit_sign_in``.
    """
    # Postgres takes no null characters; no name has one.
    named = func.lower(User.username) == username.lower().replace("\0", " ")
    user = db.session.scalar(select(User).where(named))
    # The connection is not held while the password is checked.
    known = None if user is None else (user.password_hash, user.active, account_of(user))
    db.session.rollback()
    if not verify_password(known and known[0], password) or known is None or not known[1]:
        return None
    _forgive_sign_ins()
    return known[2]


def open_session(account: Account) -> None:
    """Sign *account* in, in a new session."""
    sessions.begin()
    login_user(account)


def limit_sign_in(tried: Callable[[], str | None]) -> Callable[[View], View]:
    """Limit how often passwords are tried, per name and address, and per address.

    *tried* returns the name whose password a request tries, as the view reads it; None if none.
    """

    def tries_none() -> bool:
        return tried() is None

    by_name = limiter.shared_limit(
        SIGN_INS_PER_NAME,
        "sign-in-name",
        key_func=lambda: f"{get_remote_address()} {(tried() or '').lower()}",
        exempt_when=tries_none,
        error_message=f"Too many attempts: the limit for a name is {SIGN_INS_PER_NAME}.",
    )
    by_address = limiter.shared_limit(
        SIGN_INS_PER_ADDRESS,
        "sign-in-address",
        exempt_when=tries_none,
        error_message=f"Too many attempts: the limit for an address is {SIGN_INS_PER_ADDRESS}.",
    )

    def limit(view: View) -> View:
        return cast("View", by_name(by_address(view)))

    return limit


def _most_requests() -> str:
    return f"{services().settings.requests_per_minute} per minute"


def _counting(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    return limiter.shared_limit(
        _most_requests,
        name,
        key_func=lambda: f"user {require().id}",
        exempt_when=lambda: services().settings.requests_per_minute == 0,
        error_message=lambda: f"Too many {name}: the limit for each user is {_most_requests()}.",
    )


@_counting(REQUESTS)
def count_request() -> None:
    """Count this request of the caller, who is known. Raises RateLimitExceeded if it is too much.

    One that waits for an answer counts once. While the broker is away every web process counts for
    itself.
    """


@_counting(REPORTS)
def count_report() -> None:
    """Count this report of the caller's worker, as ``count_request`` does."""


def new_secret() -> str:
    """Make the secret of a token."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> bytes:
    """Return what is stored of a token's secret; it is random, so a plain digest suffices."""
    return hashlib.sha256(secret.encode()).digest()


def visible_jobs(account: Account, owner: str | None = None) -> ColumnElement[bool]:
    """Return the condition on ``jobs`` that every read starts from; *owner* narrows it."""
    return visible(Job.owner_id, account, owner)


def visible_schedules(account: Account, owner: str | None = None) -> ColumnElement[bool]:
    """Return the condition on ``schedules`` that every read starts from; *owner* narrows it."""
    return visible(Schedule.owner_id, account, owner)


def visible(
    owner_id: InstrumentedAttribute[int], account: Account, owner: str | None = None
) -> ColumnElement[bool]:
    """Return the condition that something is of whom *account* may see; *owner* narrows it."""
    if account.sees_everybody:
        return true() if owner is None else owner_id == _id_of(owner)
    mine = owner_id == account.id
    means_me = owner is None or owner.lower() == account.username.lower()
    return mine if means_me else and_(mine, false())


def whose(account: Account, owner: str | None) -> int | None:
    """Return whose jobs the caller asks for, None for everybody's.

    Raises a 422 problem for an owner who does not exist, also for one they may not see.
    """
    if owner is None:
        return None if account.sees_everybody else account.id
    if owner.lower() == account.username.lower():
        return account.id
    found: int | None = db.session.scalar(select(_id_of(owner))) if account.sees_everybody else None
    if found is None:
        raise Problem("unknown_owner", f"There is no {owner!r}, or nothing of theirs you may see.")
    return found


def unless_caller(owner: str) -> str | None:
    """Return whom an address has to name as *owner*: nobody where it is the caller."""
    return None if owner == require().username else owner


def find_job(account: Account, job_id: str, owner: str | None = None) -> Job:
    """Return a job the caller may see. Raises JobNotFound, also for one they may not see.

    An operator who names no owner gets their own job of this id before anybody else's; where
    only others have it, and more than one, a 409 asks for the owner.
    """
    found = db.session.scalars(_by_job_id(account, job_id, owner)).all()
    if not found:
        raise JobNotFound(job_id)
    if len(found) > 1 and found[0].owner_id != account.id:
        detail = "Several users have a job with this id; say whose with ?owner=."
        raise Problem("ambiguous_job_id", detail)
    return found[0]


def find_ids(account: Account, job_ids: Sequence[str], owner: str | None = None) -> list[int]:
    """Return which jobs are meant, by internal id; those the caller may not see are missing.

    As with ``find_job``, one's own come before those of others, and a 409 asks for the owner.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for name, number, owner_id in db.session.execute(_by_job_ids(account, job_ids, owner)):
        found.setdefault(name, []).append((number, owner_id))
    return [_the_one_meant(account, name, several) for name, several in found.items()]


def _the_one_meant(account: Account, name: str, several: Sequence[tuple[int, int]]) -> int:
    own = [number for number, owner_id in several if owner_id == account.id]
    if len(several) > 1 and not own:
        detail = f"Several users have a job with the id {name}; say whose with owner."
        raise Problem("ambiguous_job_id", detail)
    return own[0] if own else several[0][0]


def find_schedule(
    account: Account, name: str, owner: str | None = None, *, lock: bool = False
) -> Schedule:
    """Return a schedule the caller may see, kept from everybody else until the commit by *lock*.

    Raises as ``find_job`` does.
    """
    wanted = (
        select(Schedule)
        .where(visible_schedules(account, owner), Schedule.name == name)
        .order_by((Schedule.owner_id == account.id).desc(), Schedule.id)
        .limit(2)
    )
    if lock:
        wanted = wanted.with_for_update(key_share=True)
    found = db.session.scalars(wanted).all()
    if not found:
        raise not_found()
    if len(found) > 1 and found[0].owner_id != account.id:
        detail = "Several users have a schedule of this name; say whose with ?owner=."
        raise Problem("ambiguous_name", detail)
    return found[0]


def _by_job_id(account: Account, job_id: str, owner: str | None) -> Select[Job]:
    return (
        select(Job)
        .where(visible_jobs(account, owner), Job.job_id == job_id)
        .order_by((Job.owner_id == account.id).desc(), Job.id)
        .limit(2)
    )


def _by_job_ids(
    account: Account, job_ids: Sequence[str], owner: str | None
) -> Select[str, int, int]:
    """Return the select of each id with the first two jobs that may be meant."""
    names = list(dict.fromkeys(job_ids))
    asked = func.unnest(literal(names, ARRAY(Text()))).table_valued("name").render_derived()
    meant = (
        select(Job.id, Job.owner_id)
        .where(visible_jobs(account, owner), Job.job_id == asked.c.name)
        .order_by((Job.owner_id == account.id).desc(), Job.id)
        .limit(2)
        .lateral()
    )
    return select(asked.c.name, meant.c.id, meant.c.owner_id).select_from(asked).join(meant, true())


def _id_of(username: str) -> Any:
    return select(User.id).where(func.lower(User.username) == username.lower()).scalar_subquery()


def account_of(user: User, **more: Any) -> Account:
    """Return who *user* is to the rest of the application."""
    return Account(user.id, user.username, Role(user.role), user.session_version, **more)


def _account_of_session(kept: str) -> Account | None:
    number, _, version = kept.partition(".")
    if not (number.isdecimal() and version.isdecimal()) or sessions.has_ended():
        return None
    user = db.session.get(User, int(number))
    if user is None or not user.active or user.session_version != int(version):
        return None
    return account_of(user, by_session=True)


def _by_session() -> Account | None:
    return current_user._get_current_object() if current_user.is_authenticated else None  # noqa: SLF001 - Werkzeug's name for the object behind the proxy


def _by_header() -> Account:
    credentials = request.authorization
    if credentials is None or credentials.type != "bearer" or not credentials.token:
        raise unauthenticated("The Authorization header must be: Bearer <token>.")
    return by_token(credentials.token, clock.now())


def by_token(secret: str, now: datetime) -> Account:
    """Return whose token *secret* is. Raises a 401 problem for one that is not good."""
    found = db.session.execute(
        select(Token, User)
        .join(User, User.id == Token.user_id)
        .where(Token.secret_hash == hash_secret(secret))
    ).first()
    if found is None or not found.User.active or _is_over(found.Token, now):
        raise unauthenticated("The token is unknown, expired or revoked.")
    _note_use(found.Token, now)
    scopes = frozenset(Scope(word) for word in found.Token.scopes)
    return account_of(found.User, scopes=scopes, until=found.Token.expires_at)


def _is_over(token: Token, now: datetime) -> bool:
    return token.expires_at is not None and token.expires_at <= now


def _note_use(token: Token, now: datetime) -> None:
    stale = now - TOKEN_USE_NOTED_EVERY
    if token.last_used_at is not None and token.last_used_at > stale:
        return
    db.session.execute(
        update(Token)
        .where(Token.id == token.id, (Token.last_used_at.is_(None)) | (Token.last_used_at <= stale))
        .values(last_used_at=now)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()


def _forgive_sign_ins() -> None:
    """Let a right password clear the attempts made for its name from its address."""
    for used in limiter.current_limits:
        if used.limit == parse(SIGN_INS_PER_NAME):
            # A broker that went away just now keeps nobody out; what it counted runs out by itself.
            with suppress(RedisError):
                limiter.limiter.clear(used.limit, *used.request_args)
