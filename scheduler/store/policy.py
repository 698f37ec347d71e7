"""The policy, version by version."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from scheduler.errors import PolicyConflict
from scheduler.models import PolicyVersion
from scheduler.states import JobClass

TRIES = 10
"""How often a change is made anew when others change the policy at the same moment."""


@dataclass(frozen=True, slots=True)
class PolicyContent:
    """What a policy says."""

    cap_cpu_units: Decimal | None
    cap_memory_mb: int | None
    rules: Sequence[Mapping[str, Any]]
    types: Mapping[str, Any]
    classes: Mapping[str, Any]

    @property
    def paused_classes(self) -> frozenset[JobClass]:
        """Of which no jobs are admitted."""
        return frozenset(JobClass(name) for name in _paused(self.classes))

    @property
    def paused_types(self) -> frozenset[str]:
        """Of which no jobs are admitted."""
        return frozenset(_paused(self.types))

    @property
    def max_running(self) -> dict[str, int]:
        """How many jobs of each limited type may run at a time."""
        return self._amounts("max_running")

    @property
    def max_per_minute(self) -> dict[str, int]:
        """How many jobs of each limited type may start in any minute."""
        return self._amounts("max_per_minute")

    def _amounts(self, name: str) -> dict[str, int]:
        given = ((job_type, rule.get(name)) for job_type, rule in self.types.items())
        return {job_type: amount for job_type, amount in given if amount is not None}


def _paused(rules: Mapping[str, Any]) -> list[str]:
    return [name for name, rule in rules.items() if rule.get("paused")]


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


def content_of(policy: PolicyVersion) -> PolicyContent:
    """Return what a version says."""
    return PolicyContent(
        cap_cpu_units=policy.cap_cpu_units,
        cap_memory_mb=policy.cap_memory_mb,
        rules=policy.rules,
        types=policy.types,
        classes=policy.classes,
    )


def pause_class(
    session: Session, job_class: JobClass, *, paused: bool, author_id: int
) -> PolicyVersion:
    """Let no more jobs of a class be admitted, or let them again. Returns the newest version."""
    return amend_policy(
        session,
        lambda now: replace(now, classes=_with_pause(now.classes, job_class, paused=paused)),
        author_id=author_id,
    )


def pause_type(session: Session, name: str, *, paused: bool, author_id: int) -> PolicyVersion:
    """Let no more jobs of a type be admitted, or let them again. Returns the newest version."""
    return amend_policy(
        session,
        lambda now: replace(now, types=_with_pause(now.types, name, paused=paused)),
        author_id=author_id,
    )


def amend_policy(
    session: Session, change: Callable[[PolicyContent], PolicyContent], *, author_id: int
) -> PolicyVersion:
    """Make a version of what *change* makes of the newest one; none if that changes nothing.

    Whoever changes the policy meanwhile is waited for and built upon. Raises PolicyConflict when
    there is no end of them.
    """
    for _ in range(TRIES):
        policy = current_policy(session)
        wanted = change(content_of(policy))
        if wanted == content_of(policy):
            return policy
        try:
            return put_policy(session, policy.version, wanted, author_id=author_id)
        except PolicyConflict:
            continue
    raise PolicyConflict(f"others made a version at each of {TRIES} tries")


def _with_pause(given: Mapping[str, Any], name: str, *, paused: bool) -> Mapping[str, Any]:
    rule = given.get(name, {})
    if rule.get("paused", False) == paused:
        return given
    return {**given, name: {**rule, "paused": paused}}
