"""PATCH /jobs/{job_id}: what is taken, what is refused, and who hears of it."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from scheduler.models import Job
from scheduler.states import WAITING, Executor, JobStatus, Role, Scope
from tests.factories import make_job, make_worker
from tests.webapp.conftest import MakePerson, Person
from webapp.schemas.jobs import JobAnswer

S = JobStatus
LATE = "2200-01-01T00:00:00Z"


@pytest.fixture
def ann(person: MakePerson) -> Person:
    return person("ann")


def add(store: Session, owner: Person, name: str = "it", **columns: Any) -> Job:
    status = columns.pop("status", S.READY)
    job = make_job(store, owner.user, status, job_id=name, **columns)
    store.commit()
    return job


def test_a_waiting_job_is_answered_as_it_is_then(store: Session, ann: Person) -> None:
    add(store, ann, tags=["a"], description="stays")

    answer = ann.patch(
        "/jobs/it",
        {
            "priority": "critical",
            "tags": ["b", "c"],
            "run_at": LATE,
            "resource_requirements": {"cpu_units": 0.5, "memory_mb": 64},
        },
    )

    job = JobAnswer.model_validate_json(answer.data)
    assert answer.status_code == 200
    assert (job.status, job.priority, job.priority_level) == (S.SCHEDULED, "critical", 0)
    assert (job.tags, job.description) == (["b", "c"], "stays")
    assert job.resource_requirements.model_dump() == {"cpu_units": 0.5, "memory_mb": 64}
    assert answer.json["run_at"] == LATE
    assert ann.get("/jobs/it").json == {**answer.json, "waited_seconds": pytest.approx(0, abs=1e9)}


def test_what_is_left_out_stays(store: Session, ann: Person) -> None:
    add(store, ann, tags=["a"], memory_mb=99)
    before = ann.get("/jobs/it").json

    after = ann.patch("/jobs/it", {"resource_requirements": {"cpu_units": 2}}).json

    different = {name for name in before if before[name] != after[name]}
    assert different - {"waited_seconds"} == {"resource_requirements"}
    assert after["resource_requirements"] == {"cpu_units": 2.0, "memory_mb": 99}


@pytest.mark.parametrize("status", JobStatus)
def test_a_job_that_does_not_wait_is_not_changed(
    store: Session, ann: Person, status: JobStatus
) -> None:
    add(store, ann, status=status)

    answer = ann.patch("/jobs/it", {"tags": ["new"]})

    if status in WAITING:
        assert (answer.status_code, answer.json["tags"]) == (200, ["new"])
    else:
        assert (answer.status_code, answer.json["code"]) == (409, "not_changeable")
        assert status in answer.json["detail"]
        assert ann.get("/jobs/it").json["tags"] == []


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ""),
        ({"priority": 11}, "priority"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": None}, "priority"),
        ({"tags": "x"}, "tags"),
        ({"tags": [""]}, "tags.0"),
        ({"run_at": "tomorrow"}, "run_at"),
        ({"run_at": "2030-01-01T00:00:00"}, "run_at"),
        ({"resource_requirements": {"cpu_units": 0}}, "resource_requirements.cpu_units"),
        ({"resource_requirements": None}, "resource_requirements"),
        ({"resource_requirements": {"gpus": 1}}, "resource_requirements.gpus"),
        ({"status": "completed"}, "status"),
        ({"payload": {}}, "payload"),
    ],
    ids=str,
)
def test_what_cannot_be_changed_so_is_refused_by_name(
    store: Session, ann: Person, body: dict[str, Any], path: str
) -> None:
    add(store, ann)

    answer = ann.patch("/jobs/it", body)

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"][0]["path"] == path


def test_more_than_the_whole_machine_is_refused(store: Session, ann: Person) -> None:
    make_worker(store)
    add(store, ann)

    answer = ann.patch("/jobs/it", {"resource_requirements": {"memory_mb": 5000}, "tags": ["x"]})

    assert (answer.status_code, answer.json["code"]) == (422, "never_fits")
    assert answer.json["errors"][0]["path"] == "resource_requirements"
    assert ann.get("/jobs/it").json["tags"] == []


def test_pull_workers_bring_their_own_machine(store: Session, ann: Person) -> None:
    make_worker(store)
    add(store, ann, executor=Executor.PULL)

    assert ann.patch("/jobs/it", {"resource_requirements": {"memory_mb": 5000}}).status_code == 200


def test_a_changed_job_submitted_again_as_it_was_is_the_same_job(
    store: Session, ann: Person
) -> None:
    wanted = {"type": "simulate", "job_id": "mine", "priority": "low"}
    assert ann.post("/jobs", wanted).status_code == 201
    ann.patch("/jobs/mine", {"priority": "high"})

    again = ann.post("/jobs", wanted)

    assert (again.status_code, again.json["priority"]) == (200, "high")


def test_a_change_stands_in_the_jobs_history(store: Session, ann: Person) -> None:
    add(store, ann)

    ann.patch("/jobs/it", {"priority": "low"})
    ann.patch("/jobs/it", {"run_at": LATE})

    events = ann.get("/jobs/it/events").json["events"]
    assert [(event["verb"], event["status"]) for event in events] == [
        ("change", S.READY),
        ("postpone", S.SCHEDULED),
    ]
    assert events[0]["data"] == {"priority_level": 8}
    page = ann.get("/jobs/it").json
    assert page["waiting"]["code"] == "time"


def test_others_find_nothing_to_change_and_operators_do(
    store: Session, ann: Person, person: MakePerson
) -> None:
    bob, olga = person("bob"), person("olga", Role.OPERATOR)
    reader = person("rita", scopes={Scope.READ})
    add(store, ann)

    assert bob.patch("/jobs/it", {"tags": []}).status_code == 404
    assert reader.patch("/jobs/it", {"tags": []}).json["code"] == "insufficient_scope"
    assert olga.patch("/jobs/it?owner=ann", {"tags": ["seen"]}).json["tags"] == ["seen"]
