"""What administrators change holds from the next turn on, for jobs that wait already."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from scheduler.models import Active, Group, Job, User
from scheduler.states import JobClass, JobStatus
from scheduler.store.policy import amend_policy, pause_class, pause_type
from scheduler.store.terms import note_terms
from tests.factories import make_group, make_submission, make_type, make_user
from tests.scheduler.installation import Installation

S = JobStatus
FILLER = make_submission("filler", cpu_units=Decimal(8))


@pytest.fixture
def here(here: Installation) -> Installation:
    """A scheduler with one worker of 8 CPU units, all of which a job of somebody else holds."""
    here.do(lambda session: make_type(session, "report"))
    (filler,) = here.submit(here.do(lambda s: make_user(s).id), FILLER)
    here.ticks()
    here.start(filler)
    return here


def _free(here: Installation) -> None:
    here.succeed(*here.in_status(S.RUNNING))


def _ann(here: Installation, **columns: Any) -> int:
    return here.do(lambda session: make_user(session, "ann", **columns).id)


def _set(here: Installation, column: Any, value: object) -> None:
    def change(session: Session) -> None:
        session.execute(update(column.class_).values({column.key: value}))
        note_terms(session)

    here.do(change)


def _rules(here: Installation, *rules: dict[str, Any]) -> None:
    author = here.do(lambda session: make_user(session).id)
    here.do(lambda s: amend_policy(s, lambda now: replace(now, rules=rules), author_id=author))


def _rule(match: dict[str, Any], **effect: Any) -> dict[str, Any]:
    return {"name": "the rule", "match": match, "effect": effect}


@pytest.mark.parametrize(
    "pause",
    [
        lambda session, paused: pause_class(
            session, JobClass.NORMAL, paused=paused, author_id=make_user(session).id
        ),
        lambda session, paused: pause_type(
            session, "simulate", paused=paused, author_id=make_user(session).id
        ),
        lambda session, paused: (
            session.execute(update(User).values(paused=paused)),
            note_terms(session),
        ),
    ],
    ids=["class", "type", "account"],
)
def test_a_pause_holds_until_it_is_lifted(
    here: Installation, pause: Callable[[Session, bool], object]
) -> None:
    (job,) = here.submit(_ann(here), make_submission())
    here.tick()

    here.do(lambda session: pause(session, True))  # noqa: FBT003 - a stand-in for three verbs
    _free(here)
    here.ticks()

    assert here.statuses(job) == [S.READY]
    here.do(lambda session: pause(session, False))  # noqa: FBT003 - as above
    here.tick()
    assert here.statuses(job) == [S.QUEUED]


def test_a_cap_of_an_account_and_of_its_group_holds_at_once(here: Installation) -> None:
    group = here.do(lambda session: make_group(session).id)
    ann = _ann(here, group_id=group)
    here.submit(ann, *(make_submission() for _ in range(6)))
    here.tick()

    _set(here, User.cap_running_jobs, 3)
    _set(here, Group.cap_running_jobs, 2)
    _free(here)
    here.ticks()
    assert len(here.in_status(S.QUEUED)) == 2

    _set(here, Group.cap_running_jobs, None)
    here.ticks()
    assert len(here.in_status(S.QUEUED)) == 3


def test_a_cap_by_rule_holds_at_once(here: Installation) -> None:
    here.submit(_ann(here), *(make_submission() for _ in range(6)))
    here.tick()

    _rules(here, _rule({"user": "ann"}, caps={"cpu_units": 2.5}))
    _free(here)
    here.ticks()
    assert len(here.in_status(S.QUEUED)) == 2

    _rules(here)
    here.ticks()
    assert len(here.in_status(S.QUEUED)) == 6


def test_a_class_is_bounded_by_rule_for_jobs_that_wait(here: Installation) -> None:
    ann = _ann(here)
    plain, urgent = here.submit(
        ann,
        make_submission(cpu_units=Decimal(8)),
        make_submission(cpu_units=Decimal(8), job_class=JobClass.CRITICAL, priority_level=0),
    )
    here.tick()

    _rules(here, _rule({"user": "ann"}, highest_class="normal"))
    _free(here)
    here.ticks()

    assert here.statuses(plain, urgent) == [S.QUEUED, S.READY]
    asked = here.do(lambda s: s.scalars(select(Job.job_class).where(Job.id == urgent)).one())
    assert asked == JobClass.CRITICAL


def test_who_joins_a_group_comes_under_its_rules_with_jobs_that_wait(here: Installation) -> None:
    ann, group = _ann(here), here.do(lambda session: make_group(session).id)
    plain, urgent = here.submit(
        ann,
        make_submission(cpu_units=Decimal(8)),
        make_submission(cpu_units=Decimal(8), job_class=JobClass.CRITICAL, priority_level=0),
    )
    _rules(here, _rule({"group": "physics"}, highest_class="normal"))
    here.tick()

    _set(here, User.group_id, group)
    _free(here)
    here.ticks()

    assert here.statuses(plain, urgent) == [S.QUEUED, S.READY]


def test_cheap_jobs_let_their_owner_have_more(here: Installation) -> None:
    ann, bob = _ann(here), here.do(lambda session: make_user(session, "bob").id)
    bulk = make_submission(cpu_units=Decimal(2), tags=("bulk",))
    here.submit(ann, *([bulk] * 8))
    here.submit(bob, *([make_submission(cpu_units=Decimal(2))] * 8))
    here.tick()

    _rules(here, _rule({"tag": "bulk"}, weight={"times": 4}))
    _free(here)
    here.ticks()

    held = here.do(lambda s: list(s.scalars(select(Active.owner_id).order_by(Active.owner_id))))
    assert held == [ann, ann, ann, bob]
