"""Policies on their way in and out: names checked, versions told apart."""

from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, Row, func, select
from sqlalchemy.orm import Session

from scheduler.models import Group, PolicyVersion, User
from scheduler.store.policy import PolicyContent, content_of
from scheduler.store.preview import Scene, read_scene, starts_under
from webapp.answers import utc
from webapp.cursors import read_cursor, write_cursor
from webapp.errors import FieldError, Problem
from webapp.schemas.policy import PolicyParts, PolicyRule

PREVIEWED_STARTS = 50


def content_from(body: PolicyParts) -> PolicyContent:
    """Return what a request says, everything it leaves out being empty."""
    cpu_units = body.capacity.cpu_units
    return PolicyContent(
        cap_cpu_units=None if cpu_units is None else Decimal(repr(cpu_units)),
        cap_memory_mb=body.capacity.memory_mb,
        rules=[
            rule.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
            for rule in body.rules
        ],
        types={name: rule.model_dump() for name, rule in body.types.items()},
        classes={str(name): rule.model_dump() for name, rule in body.classes.items()},
    )


def draft_from(body: PolicyParts, now: PolicyContent) -> PolicyContent:
    """Return what a request says, everything it leaves out being as it is *now*."""
    given = content_from(body)
    sent = body.model_fields_set
    capacity = given if "capacity" in sent else now
    return PolicyContent(
        cap_cpu_units=capacity.cap_cpu_units,
        cap_memory_mb=capacity.cap_memory_mb,
        rules=(given if "rules" in sent else now).rules,
        types=(given if "types" in sent else now).types,
        classes=(given if "classes" in sent else now).classes,
    )


def policy_to_json(policy: PolicyVersion) -> dict[str, Any]:
    """Return a version such that it can be changed and written back."""
    return {"version": policy.version, **_content_to_json(content_of(policy))}


def check_names(session: Session, rules: Collection[PolicyRule]) -> None:
    """Raise a 422 problem if rules share a name, or match users or groups nobody has heard of.

    Types are not checked: those who run them may come later.
    """
    problems = [*_shared_names(rules), *_unknown_names(session, rules)]
    if problems:
        first = problems[0]
        raise Problem("validation_failed", f"{first.path}: {first.message}.", problems)


def _shared_names(rules: Collection[PolicyRule]) -> Iterator[FieldError]:
    seen: set[str] = set()
    for place, rule in enumerate(rules):
        if rule.name in seen:
            yield FieldError(
                f"rules.{place}.name", f"there is another rule {rule.name!r}; rename one of them"
            )
        seen.add(rule.name)


def _unknown_names(session: Session, rules: Collection[PolicyRule]) -> Iterator[FieldError]:
    users = {name.lower() for rule in rules for name in rule.match.user or ()}
    groups = {name for rule in rules for name in rule.match.group or ()}
    known_users = _known(session, func.lower(User.username), users)
    known_groups = _known(session, Group.name, groups)
    for place, rule in enumerate(rules):
        for name in rule.match.user or ():
            if name.lower() not in known_users:
                yield FieldError(f"rules.{place}.match.user", f"there is no user {name!r}")
        for name in rule.match.group or ():
            if name not in known_groups:
                yield FieldError(f"rules.{place}.match.group", f"there is no group {name!r}")


def _known(session: Session, column: Any, names: Collection[str]) -> set[str]:
    return set(session.scalars(select(column).where(column.in_(names)))) if names else set()


# Trying out


def preview(engine: Engine, body: PolicyParts) -> dict[str, Any]:
    """Return the next starts under the policy that applies and under what *body* makes of it."""
    # One moment, and no way to change it.
    reading = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with Session(reading) as session:
        scene = read_scene(session)
    changed = draft_from(body, scene.policy)
    return {
        "at": utc(scene.snapshot.now),
        "as_is": _starts_to_json(scene, scene.policy),
        "changed": _starts_to_json(scene, changed),
    }


def _starts_to_json(scene: Scene, policy: PolicyContent) -> list[dict[str, Any]]:
    return [
        {
            "job_id": scene.names[start.job.id],
            "owner": scene.people[start.job.owner_id].username,
            "type": start.job.job_type,
            "class": start.job.job_class,
            "starts_in_seconds": start.wait.total_seconds(),
            "rules": start.rules,
        }
        for start in starts_under(policy, scene, count=PREVIEWED_STARTS)
    ]


# Versions


def policy_versions(
    session: Session, *, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return one page of versions, newest first, each with what it changed, and the next cursor."""
    rows = session.execute(_newest_first(cursor).limit(limit + 1)).all()
    # The one after the last is what the last was made from.
    before: list[PolicyVersion | None] = [row.PolicyVersion for row in rows[1:]]
    versions = [
        _version_to_json(row, old) for row, old in zip(rows[:limit], [*before, None], strict=False)
    ]
    more = len(rows) > limit
    return versions, write_cursor(versions[-1]["version"]) if more else None


def _newest_first(cursor: str | None) -> Any:
    listed = (
        select(PolicyVersion, User.username)
        .outerjoin(User, User.id == PolicyVersion.created_by)
        .order_by(PolicyVersion.version.desc())
    )
    return listed if cursor is None else listed.where(PolicyVersion.version < read_cursor(cursor))


def _version_to_json(
    row: Row[PolicyVersion, str | None], old: PolicyVersion | None
) -> dict[str, Any]:
    policy, author = row
    return {
        "version": policy.version,
        "author": author,
        "created_at": utc(policy.created_at),
        "changes": changes(None if old is None else content_of(old), content_of(policy)),
    }


def changes(old: PolicyContent | None, new: PolicyContent) -> list[dict[str, Any]]:
    """Return what differs, part by part; without an *old* one, all there is."""
    was, becomes = {} if old is None else _parts(old), _parts(new)
    return [
        {"path": path, "was": was.get(path), "becomes": becomes.get(path)}
        for path in sorted({*was, *becomes})
        if was.get(path) != becomes.get(path)
    ]


def _parts(content: PolicyContent) -> dict[str, Any]:
    """Return everything a policy says, by its path."""
    told = _content_to_json(content)
    parts = dict(_leaves("capacity", told["capacity"]))
    for section in ("types", "classes"):
        for name, rule in told[section].items():
            parts |= dict(_leaves(f"{section}.{name}", rule))
    parts |= {f"rules.{rule['name']}": rule for rule in told["rules"]}
    if told["rules"]:
        parts["rules"] = [rule["name"] for rule in told["rules"]]
    return parts


def _leaves(path: str, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what is set; what is not paused is as if nothing were said."""
    for name, value in given.items():
        if value is not None and value is not False:
            yield f"{path}.{name}", value


def _content_to_json(content: PolicyContent) -> dict[str, Any]:
    cpu_units = content.cap_cpu_units
    return {
        "capacity": {
            "cpu_units": None if cpu_units is None else float(cpu_units),
            "memory_mb": content.cap_memory_mb,
        },
        "rules": list(content.rules),
        "types": dict(content.types),
        "classes": dict(content.classes),
    }
