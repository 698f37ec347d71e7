"""What people read about their own share, limits and backlog."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.models import Active, Received
from scheduler.states import JobStatus
from scheduler.store.received import beginning_of_slice
from tests.factories import NOON, make_group, make_job, make_policy, make_worker
from tests.webapp.conftest import MakePerson, Person
from webapp.schemas.people import Usage
from webapp.usage import Window, share

S = JobStatus
HOUR = timedelta(hours=1)


def usage_of(person: Person) -> Any:
    answer = person.get("/me/usage")
    assert answer.status_code == 200, answer.text
    Usage.model_validate_json(answer.data)
    return answer.json


def limits_of(person: Person) -> dict[tuple[str, str], tuple[float | None, float]]:
    return {
        (one["of"], one["name"]): (one["limit"], one["used"]) for one in usage_of(person)["limits"]
    }


def test_the_due_share_goes_by_weight_among_those_involved() -> None:
    window = Window(NOON, NOON + HOUR, {1: 900.0, 2: 1800.0})

    mine = share(1, window, {1, 3}, {1: 1.0, 2: 2.0, 3: 1.0, 4: 9.0})

    assert (mine["due"], mine["received"], mine["machine_seconds"]) == (0.25, 0.25, 900)


def test_whoever_is_alone_is_due_everything(person: MakePerson) -> None:
    person("bob")
    told = usage_of(person("ann"))

    assert told["shares"]["hour"]["due"] == told["shares"]["day"]["due"] == 1
    assert told["shares"]["hour"]["received"] == 0
    assert told["backlog"]["unfinished"] == 0
    assert told["backlog"]["oldest_ready_seconds"] is None


def test_shares_of_the_hour_and_of_the_day_are_told_apart(
    person: MakePerson, store: Session
) -> None:
    ann, bob = person("ann", weight=3), person("bob")
    now = clock.now()
    for owner, ago, machine_seconds in (
        (ann, timedelta(0), 1800), (ann, 5 * HOUR, 3600), (bob, 2 * HOUR, 60), (ann, 40 * HOUR, 9e6)
    ):  # fmt: skip
        since = beginning_of_slice(now - ago)
        store.add(Received(since=since, owner_id=owner.user.id, machine_seconds=machine_seconds))
    store.commit()

    shares = usage_of(ann)["shares"]

    assert (shares["hour"]["machine_seconds"], shares["day"]["machine_seconds"]) == (1800, 5400)
    assert 1800 / 3900 <= shares["hour"]["received"] <= 0.5
    assert shares["day"]["received"] == pytest.approx(5400 / 86_400, rel=0.01)
    assert (shares["hour"]["due"], shares["day"]["due"]) == (1, 0.75)


def test_what_still_runs_has_received_its_part(person: MakePerson, store: Session) -> None:
    ann = person("ann")
    job = make_job(store, ann.user, S.RUNNING)
    store.flush()
    _set_active(store, job.id, charge=0.5, expected_seconds=1.0, minutes_ago=180)

    shares = usage_of(ann)["shares"]

    assert shares["day"]["machine_seconds"] == pytest.approx(180 * 30, rel=0.1)
    assert 60 * 30 <= shares["hour"]["machine_seconds"] <= 65.5 * 30


def _set_active(store: Session, job: int, *, minutes_ago: float, **columns: float) -> None:
    active = store.get_one(Active, job)
    active.claimed_at = clock.now() - timedelta(minutes=minutes_ago)
    for name, value in columns.items():
        setattr(active, name, value)
    store.commit()


def test_limits_are_those_of_account_rules_and_group_with_what_is_used(
    person: MakePerson, store: Session
) -> None:
    group = make_group(store, cap_memory_mb=512, cap_backlog=9)
    ann = person("ann", cap_cpu_units=4, cap_backlog=5, group_id=group.id)
    bob = person("bob", group_id=group.id)
    caps = {"name": "few", "match": {"user": "ann"}, "effect": {"caps": {"running_jobs": 2}}}
    make_policy(store, rules=[caps])
    make_worker(store)
    for owner, status in ((ann, S.RUNNING), (ann, S.READY), (bob, S.RUNNING)):
        make_job(store, owner.user, status)
    store.commit()

    assert limits_of(ann) == {
        ("own", "cpu_units"): (4, 1),
        ("own", "memory_mb"): (None, 128),
        ("own", "running_jobs"): (2, 1),
        ("own", "backlog"): (5, 2),
        ("group", "cpu_units"): (None, 2),
        ("group", "memory_mb"): (512, 256),
        ("group", "running_jobs"): (None, 2),
        ("group", "backlog"): (9, 3),
    }


def test_the_backlog_is_told_by_status(person: MakePerson, store: Session) -> None:
    ann, bob = person("ann"), person("bob")
    make_job(store, ann.user, S.READY, ready_at=clock.now() - timedelta(seconds=60))
    make_job(store, ann.user, S.BLOCKED)
    make_job(store, ann.user, S.COMPLETED)
    make_job(store, bob.user, S.READY)
    store.commit()

    backlog = usage_of(ann)["backlog"]

    assert (backlog["unfinished"], backlog["jobs"][S.READY], backlog["jobs"][S.BLOCKED]) == (
        2,
        1,
        1,
    )
    assert backlog["oldest_ready_seconds"] == pytest.approx(60, abs=30)
