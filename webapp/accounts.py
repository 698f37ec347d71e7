"""Making and changing accounts and groups: the JSON routes and the command line share this.

Functions take the caller's session and do not commit. Each change is audited as made *by* somebody;
of passwords the log says only that they changed.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from scheduler.models import Group, User
from scheduler.states import Role
from scheduler.store.audit import Actor, record
from scheduler.store.terms import note_terms
from webapp.errors import FieldError, Problem
from webapp.passwords import hash_password


def find_user(session: Session, username: str) -> User | None:
    """Return an account by its name, however it is capitalised."""
    wanted = func.lower(User.username) == username.lower()
    return session.scalar(select(User).where(wanted))


def add_user(
    session: Session,
    username: str,
    password: str,
    *,
    by: Actor,
    now: datetime,
    role: Role = Role.USER,
    **columns: Any,
) -> User:
    """Add an account. Raises a problem if the name is taken."""
    user = User(
        username=username,
        password_hash=hash_password(password),
        role=role,
        created_at=now,
        **columns,
    )
    _insert(session, user, f"There is a user {username!r} already.")
    told = _told(session, {"role": role, **columns})
    record(session, by, "users.create", f"users/{username}", told)
    return user


def add_group(session: Session, name: str, *, by: Actor, now: datetime, **columns: Any) -> Group:
    """Add a group. Raises a problem if the name is taken."""
    group = Group(name=name, created_at=now, **columns)
    _insert(session, group, f"There is a group {name!r} already.")
    record(session, by, "groups.create", f"groups/{name}", _told(session, columns))
    return group


def change_user(session: Session, user: User, changes: Mapping[str, Any], *, by: Actor) -> None:
    """Apply *changes*, columns by name and ``password``.

    A new password ends every session. Raises a problem rather than leave nobody to administer.
    """
    columns = dict(changes)
    password = columns.pop("password", None)
    if password is not None:
        user.password_hash = hash_password(password)
        user.session_version += 1
    if user.role == Role.ADMIN and _resigns(columns):
        _check_another_admin(session, user)
    told = _change(session, user, columns)
    if password is not None:
        told["password"] = "changed"  # noqa: S105 - that it was, and not what it is
    record(session, by, "users.change", f"users/{user.username}", told)


def pause_user(session: Session, user: User, *, paused: bool, by: Actor) -> None:
    """Let no more jobs of *user* be admitted, or let them again."""
    _change(session, user, {"paused": paused})
    record(session, by, "users.pause" if paused else "users.resume", f"users/{user.username}")


def change_group(session: Session, group: Group, columns: Mapping[str, Any], *, by: Actor) -> None:
    """Apply *columns*."""
    told = _change(session, group, columns)
    record(session, by, "groups.change", f"groups/{group.name}", told)


def group_id(session: Session, name: str | None) -> int | None:
    """Return the id of a group by name, None for None. Raises a problem for an unknown one."""
    if name is None:
        return None
    found = session.scalar(select(Group.id).where(Group.name == name))
    if found is None:
        message = f"there is no group {name!r}"
        raise Problem("unknown_group", f"group: {message}.", (FieldError("group", message),))
    return found


def caps_to_columns(caps: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of limits given by their short names."""
    return {f"cap_{name}": value for name, value in caps.items()}


def _change(session: Session, row: User | Group, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Set *columns*, and return what differs, as the audit log tells it."""
    before = _told(session, {column: getattr(row, column) for column in columns})
    for column, value in columns.items():
        setattr(row, column, value)
    session.flush()
    note_terms(session)
    after = _told(session, columns)
    return {
        name: {"was": was, "becomes": after[name]}
        for name, was in before.items()
        if was != after[name]
    }


def _told(session: Session, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns in words: groups by name, numbers as JSON has them."""
    told = {
        name: float(value) if isinstance(value, Decimal) else value
        for name, value in columns.items()
    }
    if "group_id" in told:
        number = told.pop("group_id")
        told["group"] = None if number is None else session.get_one(Group, number).name
    return told


def _insert(session: Session, row: User | Group, taken: str) -> None:
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise Problem("name_taken", taken) from error


def _resigns(columns: Mapping[str, Any]) -> bool:
    return columns.get("role", Role.ADMIN) != Role.ADMIN or columns.get("active") is False


def _check_another_admin(session: Session, user: User) -> None:
    # Locked, so that two administrators cannot both leave at the same moment.
    admins = session.scalars(
        select(User.id)
        .where(User.role == Role.ADMIN, User.active)
        .order_by(User.id)
        .with_for_update()
    ).all()
    if set(admins) <= {user.id}:
        raise Problem("last_admin", f"{user.username!r} is the last active administrator.")
