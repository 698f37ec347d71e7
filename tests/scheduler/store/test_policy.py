"""The policy, version by version."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from scheduler.errors import PolicyConflict
from scheduler.models import PolicyVersion
from scheduler.states import JobClass, Role
from scheduler.store.policy import (
    PolicyContent,
    content_of,
    current_policy,
    pause_class,
    pause_type,
    put_policy,
)
from tests.factories import make_user
from tests.racing import committed, one_after_the_other

CONTENT = PolicyContent(
    cap_cpu_units=Decimal("6.5"),
    cap_memory_mb=2000,
    rules=[{"name": "ann's", "match": {"user": "ann"}, "effect": {"weight": {"set": 2}}}],
    types={"simulate": {"max_running": 3}},
    classes={"low": {"paused": True}},
)


def _admin(session: Session) -> int:
    return make_user(session, role=Role.ADMIN).id


def test_there_is_a_policy_from_the_start(session: Session) -> None:
    policy = current_policy(session)

    assert (policy.version, policy.cap_cpu_units, policy.cap_memory_mb) == (1, None, None)
    assert (policy.rules, policy.types, policy.classes) == ([], {}, {})


def test_a_new_version_applies(session: Session) -> None:
    author = _admin(session)

    put_policy(session, 1, CONTENT, author_id=author)

    policy = current_policy(session)
    assert (policy.version, policy.created_by) == (2, author)
    assert (policy.cap_cpu_units, policy.cap_memory_mb) == (Decimal("6.5"), 2000)
    assert (policy.rules, policy.types, policy.classes) == (
        CONTENT.rules,
        CONTENT.types,
        CONTENT.classes,
    )


@pytest.mark.parametrize("base", [0, 1, 3])
def test_a_version_based_on_another_than_the_newest_is_refused(session: Session, base: int) -> None:
    author = _admin(session)
    put_policy(session, 1, CONTENT, author_id=author)

    with pytest.raises(PolicyConflict):
        put_policy(session, base, CONTENT, author_id=author)

    assert current_policy(session).version == 2


def test_of_two_writers_with_the_same_base_one_is_refused(committed_engine: Engine) -> None:
    author = committed(committed_engine, _admin)

    with pytest.raises(PolicyConflict):
        one_after_the_other(
            committed_engine,
            lambda s: put_policy(s, 1, CONTENT, author_id=author),
            lambda s: put_policy(s, 1, CONTENT, author_id=author),
        )

    assert committed(committed_engine, lambda s: current_policy(s).version) == 2


def test_a_pause_makes_a_version_that_is_otherwise_the_same(session: Session) -> None:
    author = _admin(session)
    put_policy(session, 1, CONTENT, author_id=author)

    pause_type(session, "simulate", paused=True, author_id=author)
    pause_class(session, JobClass.CRITICAL, paused=True, author_id=author)
    made = pause_class(session, JobClass.LOW, paused=False, author_id=author)

    assert (made.version, made.created_by) == (5, author)
    assert content_of(made) == replace(
        CONTENT,
        types={"simulate": {"max_running": 3, "paused": True}},
        classes={"low": {"paused": False}, "critical": {"paused": True}},
    )


def test_a_type_nobody_knows_may_be_paused_before_it_comes(session: Session) -> None:
    made = pause_type(session, "later", paused=True, author_id=_admin(session))

    assert made.types == {"later": {"paused": True}}


def test_what_is_paused_already_makes_no_version(session: Session) -> None:
    author = _admin(session)

    once = pause_class(session, JobClass.LOW, paused=True, author_id=author)
    twice = pause_class(session, JobClass.LOW, paused=True, author_id=author)
    never = pause_type(session, "simulate", paused=False, author_id=author)

    assert (once.version, twice.version, never.version) == (2, 2, 2)


def test_pauses_at_the_same_moment_are_both_made(committed_engine: Engine) -> None:
    author = committed(committed_engine, _admin)

    def pause(name: str) -> Callable[[Session], PolicyVersion]:
        return lambda s: pause_type(s, name, paused=True, author_id=author)

    one_after_the_other(committed_engine, pause("one"), pause("other"))

    made = committed(committed_engine, lambda s: content_of(current_policy(s)))
    assert made.types == {"one": {"paused": True}, "other": {"paused": True}}
