"""The policy, the workers, the job types and the figures."""

from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.events import WAKE_KEY
from scheduler.models import JobEvent
from scheduler.states import JobClass, JobStatus, Role
from tests.factories import NOON, WORKER, make_job, make_type, make_worker
from tests.webapp.conftest import MakePerson, Person
from webapp.schemas import PolicyAnswer, Stats, TypeList, WorkerList


@pytest.fixture
def boss(person: MakePerson) -> Person:
    return person("boss", Role.ADMIN)


def test_the_first_policy_caps_nothing(boss: Person) -> None:
    answer = boss.get("/policy")

    PolicyAnswer.model_validate_json(answer.data)
    assert answer.json["version"] == 1
    assert answer.json["capacity"] == {"cpu_units": None, "memory_mb": None}


def test_a_policy_is_replaced_version_by_version(boss: Person, redis_client: Redis) -> None:
    body = {
        "version": 1,
        "capacity": {"cpu_units": 4.5, "memory_mb": 2048},
        "rules": [{"match": {"user": "ann"}, "effect": {"weight": 2}}],
        "types": {"simulate": {"max_running": 3}},
        "classes": {"low": {"paused": True}},
    }

    made, stale = boss.put("/policy", body), boss.put("/policy", body)

    assert made.status_code == 200
    assert made.json["version"] == 2
    assert made.json["types"]["simulate"]["max_running"] == 3
    assert boss.get("/policy").json == made.json
    assert (stale.status_code, stale.json["code"]) == (409, "policy_conflict")
    assert redis_client.llen(WAKE_KEY) == 1


def test_what_is_read_can_be_written_back(boss: Person) -> None:
    policy = boss.get("/policy").json

    assert boss.put("/policy", policy).json == policy | {"version": 2}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"version": "1"}, "version"),
        ({"capacity": {"cpu_units": 0}}, "capacity.cpu_units"),
        ({"types": {"simulate": {"max_running": -1}}}, "types.simulate.max_running"),
        ({"classes": {"urgent": {}}}, "classes.urgent.[key]"),
        ({"author": "me"}, "author"),
    ],
)
def test_a_wrong_policy_is_refused(boss: Person, change: dict[str, Any], path: str) -> None:
    answer = boss.put("/policy", {"version": 1} | change)

    assert (answer.status_code, answer.json["errors"][0]["path"]) == (422, path)


def test_operators_see_workers_and_what_they_run(person: MakePerson, store: Session) -> None:
    olga, ann = person("olga", Role.OPERATOR), person("ann")
    make_worker(store, cpu_units=4)
    make_worker(store, "silent@test", heartbeat_at=NOON)
    make_worker(store, "gone@test", state="stopped")
    make_job(store, ann.user, JobStatus.RUNNING, job_id="anns", attempt=2)
    store.commit()

    answer = olga.get("/workers")

    WorkerList.model_validate_json(answer.data)
    workers = {worker["name"]: worker for worker in answer.json["workers"]}
    alive = {name: worker["alive"] for name, worker in workers.items()}
    assert alive == {WORKER: True, "silent@test": False, "gone@test": False}
    running = workers[WORKER]["running"]
    assert [(one["job_id"], one["owner"], one["attempt"]) for one in running] == [
        ("anns", "ann", 2)
    ]
    assert answer.json["capacity"]["cpu_units"] == 4


def test_types_tell_what_the_submit_form_needs(person: MakePerson, store: Session) -> None:
    make_type(store, "sized", payload_schema={"type": "object"}, retry_config={"max_attempts": 1})
    store.commit()

    answer = person("ann").get("/types")

    TypeList.model_validate_json(answer.data)
    types = {one["name"]: one for one in answer.json["types"]}
    assert set(types) == {"simulate", "sized"}
    assert types["sized"]["payload_schema"] == {"type": "object"}
    assert types["sized"]["retry_config"]["max_attempts"] == 1
    assert types["sized"]["retry_config"]["strategy"] == "exponential"


def finish(
    store: Session, person: Person, *, minutes_ago: float, waited: float, ran: float
) -> None:
    ended = clock.now() - timedelta(minutes=minutes_ago)
    started = ended - timedelta(seconds=ran)
    ready = started - timedelta(seconds=waited)
    job = make_job(
        store,
        person.user,
        JobStatus.COMPLETED,
        created_at=ready,
        ready_at=ready,
        queued_at=started,
        started_at=started,
        finished_at=ended,
    )
    store.add(
        JobEvent(
            job_id=job.id,
            owner_id=person.user.id,
            at=ended,
            verb="succeed",
            status=JobStatus.COMPLETED,
            attempt=1,
        )
    )


def test_figures_are_own_for_users_and_everybodys_for_operators(
    person: MakePerson, store: Session
) -> None:
    ann, bob, olga = person("ann"), person("bob"), person("olga", Role.OPERATOR)
    make_worker(store)
    make_job(store, ann.user, JobStatus.READY)
    make_job(store, bob.user, JobStatus.RUNNING)
    make_job(store, bob.user, JobStatus.BLOCKED)
    finish(store, ann, minutes_ago=1, waited=10, ran=2)
    finish(store, ann, minutes_ago=30, waited=20, ran=4)
    finish(store, ann, minutes_ago=90, waited=900, ran=900)
    store.commit()

    own, others, all_of_them = (one.get("/stats") for one in (ann, bob, olga))

    for answer in (own, others, all_of_them):
        Stats.model_validate_json(answer.data)
    assert own.json["of"] == "own"
    assert own.json["jobs"][JobStatus.READY] == 1
    assert own.json["jobs"][JobStatus.RUNNING] == 0
    assert own.json["classes"] == {**dict.fromkeys(JobClass, 0), JobClass.NORMAL: 1}
    assert own.json["finished_last_hour"][JobStatus.COMPLETED] == 2
    assert own.json["finished_per_minute"] == pytest.approx(0.2)
    assert own.json["wait_seconds"]["p50"] == pytest.approx(15, abs=0.1)
    assert own.json["run_seconds"]["p50"] == pytest.approx(3, abs=0.1)
    assert own.json["reserved"]["slots"] == 0
    assert others.json["finished_last_hour"][JobStatus.COMPLETED] == 0
    assert others.json["wait_seconds"] == {"p50": None, "p95": None, "p99": None}
    assert others.json["reserved"] == {"cpu_units": 1.0, "memory_mb": 128, "slots": 1}
    assert others.json["oldest_ready_seconds"] is None
    assert all_of_them.json["of"] == "all"
    assert all_of_them.json["jobs"][JobStatus.RUNNING] == 1
    assert all_of_them.json["finished_last_hour"][JobStatus.COMPLETED] == 2
    assert all_of_them.json["workers"] == 1
