"""Accounts and groups."""

from typing import Any

from flask import Response
from pydantic import BaseModel
from sqlalchemy import select

from scheduler import clock
from scheduler.models import Group, Job, User
from scheduler.states import Role, Scope
from webapp import access, accounts, queries, usage
from webapp.answers import answer, utc
from webapp.endpoints import Resource
from webapp.errors import not_found
from webapp.extensions import db
from webapp.schemas.groundwork import Page
from webapp.schemas.people import (
    GroupAnswer,
    GroupList,
    GroupPatch,
    GroupRequest,
    Me,
    Usage,
    UserAnswer,
    UserList,
    UserPatch,
    UserRequest,
)
from webapp.services import services

bp = Resource("api_people", __name__)


@bp.route_of("GET", "/me", summary="Read your account", scope=Scope.READ, answers={200: Me})
def read_me() -> Response:
    """Who you are here, your limits, and how much of your backlog is used."""
    account = access.require()
    session = db.session()
    user = session.get_one(User, account.id)
    unfinished = sum(queries.count_by_status(session, Job.owner_id == account.id).values())
    about = {"scopes": sorted(account.scopes), "unfinished_jobs": unfinished}
    return answer(_user_to_json(user, _group_of(user)) | about)


@bp.route_of(
    "GET",
    "/me/usage",
    summary="Read what you are due and use",
    scope=Scope.READ,
    answers={200: Usage},
)
def read_usage() -> Response:
    """Your share of the machine over the last hour and day, your limits, and your backlog."""
    return answer(usage.usage(db.session(), access.require(), now=clock.now()))


@bp.route_of(
    "GET",
    "/users",
    summary="List accounts",
    scope=Scope.ADMIN,
    role=Role.ADMIN,
    query=Page,
    answers={200: UserList},
    refuses=("invalid_cursor",),
)
def list_users(query: Page) -> Response:
    """Every account, by name."""
    found, cursor = queries.page_of_users(db.session(), limit=query.limit, cursor=query.cursor)
    told = [_user_to_json(user, group) for user, group in found]
    return answer({"users": told, "next_cursor": cursor})


@bp.route_of(
    "POST",
    "/users",
    summary="Make an account",
    scope=Scope.ADMIN,
    role=Role.ADMIN,
    body=UserRequest,
    answers={201: UserAnswer},
    refuses=("name_taken", "unknown_group"),
    audits="users.create",
)
def make_user(body: UserRequest) -> Response:
    """Names are unique however they are capitalised."""
    session = db.session()
    columns = _columns(body) | {"active": body.active, "weight": body.weight}
    columns["group_id"] = accounts.group_id(session, body.group)
    for own in ("username", "password", "role"):
        columns.pop(own, None)
    user = accounts.add_user(
        session,
        body.username,
        body.password,
        by=access.actor(),
        now=clock.now(),
        role=body.role,
        **columns,
    )
    return _keep(user, 201)


@bp.route_of(
    "PATCH",
    "/users/<username>",
    summary="Change an account",
    scope=Scope.ADMIN,
    role=Role.ADMIN,
    body=UserPatch,
    answers={200: UserAnswer},
    refuses=("last_admin", "unknown_group"),
    audits="users.change",
)
def change_user(username: str, body: UserPatch) -> Response:
    """A new password ends every session of the account; an inactive one is refused everywhere."""
    session = db.session()
    user = _user_named(username)
    columns = _columns(body)
    if "group" in body.model_fields_set:
        columns["group_id"] = accounts.group_id(session, body.group)
    accounts.change_user(session, user, columns, by=access.actor())
    return _keep(user)


@bp.route_of(
    "POST",
    "/users/<username>/pause",
    summary="Pause an account",
    scope=Scope.ADMIN,
    role=Role.OPERATOR,
    answers={200: UserAnswer},
    audits="users.pause",
)
def pause_user(username: str) -> Response:
    """No more of its jobs are admitted; those admitted go on, and more may be submitted."""
    return _pause(username, paused=True)


@bp.route_of(
    "POST",
    "/users/<username>/resume",
    summary="Resume an account",
    scope=Scope.ADMIN,
    role=Role.OPERATOR,
    answers={200: UserAnswer},
    audits="users.resume",
)
def resume_user(username: str) -> Response:
    """Its jobs are admitted again."""
    return _pause(username, paused=False)


@bp.route_of(
    "GET",
    "/groups",
    summary="List groups",
    scope=Scope.ADMIN,
    role=Role.ADMIN,
    query=Page,
    answers={200: GroupList},
    refuses=("invalid_cursor",),
)
def list_groups(query: Page) -> Response:
    """Every group with its members, by name."""
    session = db.session()
    found, cursor = queries.page_of_groups(session, limit=query.limit, cursor=query.cursor)
    members = queries.members(session, found)
    told = [_group_to_json(group, members[group.id]) for group in found]
    return answer({"groups": told, "next_cursor": cursor})


@bp.route_of(
    "POST",
    "/groups",
    summary="Make a group",
    scope=Scope.ADMIN,
    role=Role.ADMIN,
    body=GroupRequest,
    answers={201: GroupAnswer},
    refuses=("name_taken",),
    audits="groups.create",
)
def make_group(body: GroupRequest) -> Response:
    """Members are put in by changing their accounts."""
    group = accounts.add_group(db.session(), by=access.actor(), now=clock.now(), **_columns(body))
    return _keep(group, 201)


@bp.route_of(
    "PATCH",
    "/groups/<name>",
    summary="Change a group",
    scope=Scope.ADMIN,
    role=Role.ADMIN,
    body=GroupPatch,
    answers={200: GroupAnswer},
    audits="groups.change",
)
def change_group(name: str, body: GroupPatch) -> Response:
    """Weight and caps that members share."""
    group = db.session.scalar(select(Group).where(Group.name == name))
    if group is None:
        raise not_found()
    accounts.change_group(db.session(), group, _columns(body), by=access.actor())
    return _keep(group)


def _pause(username: str, *, paused: bool) -> Response:
    user = _user_named(username)
    accounts.pause_user(db.session(), user, paused=paused, by=access.actor())
    return _keep(user)


def _user_named(username: str) -> User:
    user = accounts.find_user(db.session(), username)
    if user is None:
        raise not_found()
    return user


def _keep(changed: User | Group, status: int = 200) -> Response:
    """Commit, let the scheduler look, and answer with what is kept."""
    session = db.session()
    session.refresh(changed)
    if isinstance(changed, User):
        answered = _user_to_json(changed, _group_of(changed))
    else:
        answered = _group_to_json(changed, queries.members(session, [changed])[changed.id])
    session.commit()
    services().announcer.wake()
    return answer(answered, status)


def _group_of(user: User) -> str | None:
    return None if user.group_id is None else db.session.get_one(Group, user.group_id).name


def _columns(body: BaseModel) -> dict[str, Any]:
    """Return what was sent, as columns."""
    given = body.model_dump(exclude_unset=True, exclude={"group"})
    caps = given.pop("caps", {})
    return given | accounts.caps_to_columns(caps)


def _caps_to_json(limited: User | Group) -> dict[str, Any]:
    cpu_units = limited.cap_cpu_units
    return {
        "cpu_units": None if cpu_units is None else float(cpu_units),
        "memory_mb": limited.cap_memory_mb,
        "running_jobs": limited.cap_running_jobs,
        "backlog": limited.cap_backlog,
    }


def _user_to_json(user: User, group: str | None) -> dict[str, Any]:
    return {
        "username": user.username,
        "role": user.role,
        "group": group,
        "weight": user.weight,
        "caps": _caps_to_json(user),
        "active": user.active,
        "paused": user.paused,
        "created_at": utc(user.created_at),
    }


def _group_to_json(group: Group, members: list[str]) -> dict[str, Any]:
    return {
        "name": group.name,
        "weight": group.weight,
        "caps": _caps_to_json(group),
        "members": members,
        "created_at": utc(group.created_at),
    }
