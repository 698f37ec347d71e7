"""The policy, version by version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from scheduler.errors import PolicyConflict
from scheduler.models import PolicyVersion


@dataclass(frozen=True, slots=True)
class PolicyContent:
    """What a policy says."""

    cap_cpu_units: Decimal | None
    cap_memory_mb: int | None
    rules: Sequence[Mapping[str, Any]]
    types: Mapping[str, Any]
    classes: Mapping[str, Any]


def current_policy(session: Session) -> PolicyVersion:
    """Return the policy that applies."""
    newest = select(PolicyVersion).order_by(PolicyVersion.version.desc()).limit(1)
    return session.scalars(newest).one()


def put_policy(
    session: Session, base_version: int, content: PolicyContent, *, author_id: int
) -> PolicyVersion:
    """Make *content* the policy. Raises PolicyConflict unless *base_version* is the newest."""
    newest = select(func.max(PolicyVersion.version)).scalar_subquery()
    if session.scalar(select(newest)) != base_version:
        raise PolicyConflict(f"version {base_version} is not the newest")
    # Two writers with the same base meet at the key: the second one finds its version taken.
    made = session.scalars(
        insert(PolicyVersion)
        .values(
            version=base_version + 1,
            cap_cpu_units=content.cap_cpu_units,
            cap_memory_mb=content.cap_memory_mb,
            rules=list(content.rules),
            types=dict(content.types),
            classes=dict(content.classes),
            created_at=func.now(),
            created_by=author_id,
        )
        .on_conflict_do_nothing()
        .returning(PolicyVersion)
    ).first()
    if made is None:
        raise PolicyConflict(f"version {base_version} is not the newest")
    return made
