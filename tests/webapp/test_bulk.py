"""Many jobs at a time over HTTP: counted, refused with a reason, and left to a worker."""

from typing import Any

import pytest
from redis import Redis
from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.events import WAKE_KEY
from scheduler.models import AuditEntry, Job
from scheduler.states import JobStatus, Role
from scheduler.store import finding
from tasks.catalogue import CATALOGUE
from tasks.kinds.bulk import Bulk
from tests.factories import make_job, make_type
from tests.webapp.conftest import MakePerson, Person
from webapp.schemas.bulk import BulkAnswer

S = JobStatus


@pytest.fixture
def registered(store: Session) -> None:
    kind = CATALOGUE.get("bulk")
    assert kind is not None
    make_type(store, "bulk", payload_schema=kind.payload_schema)
    store.commit()


@pytest.fixture
def ann(person: MakePerson, registered: None) -> Person:
    return person("ann")


@pytest.fixture
def bob(person: MakePerson) -> Person:
    return person("bob")


@pytest.fixture
def olga(person: MakePerson, registered: None) -> Person:
    return person("olga", Role.OPERATOR)


def add(store: Session, owner: Person, name: str, status: JobStatus = S.READY, **more: Any) -> int:
    job = make_job(store, owner.user, status, job_id=name, **more)
    store.commit()
    return job.id


def asked(person: Person, action: str = "cancel", *, code: int = 202, **body: Any) -> Any:
    answer = person.post("/jobs/bulk", {"action": action, **body})
    assert answer.status_code == code, answer.json
    if code < 400:
        BulkAnswer.model_validate_json(answer.data)
    return answer.json


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch"])
def test_nobody_lets_somebody_else_do_it(
    olga: Person, bob: Person, store: Session, path: str
) -> None:
    job = {"type": "bulk", "owner": bob.user.username, "payload": {"action": "cancel"}}

    answer = olga.post(path, {"jobs": [job]} if path == "/jobs/batch" else job)

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"][0]["path"].endswith("type")
    assert "POST /jobs/bulk makes such jobs" in answer.json["detail"]
    assert store.scalar(select(Job).where(Job.type == "bulk")) is None


def counted(person: Person, action: str = "cancel", **body: Any) -> int:
    told = asked(person, action, code=200, dry_run=True, **body)
    assert (told["dry_run"], told["job_id"]) == (True, None)
    count: int = told["count"]
    return count


def left_to_do(store: Session, told: Any) -> tuple[Job, Bulk]:
    store.rollback()
    job = store.scalars(select(Job).where(Job.job_id == told["job_id"])).one()
    return job, Bulk.model_validate(job.payload)


def test_a_dry_run_counts_what_takes_the_action_and_changes_nothing(
    store: Session, ann: Person, bob: Person
) -> None:
    for status in S:
        add(store, ann, status, status)
    add(store, bob, "his")

    assert counted(ann, filter={}) == 6
    assert counted(ann, filter={"status": "pending"}) == 4
    assert counted(ann, "retry", filter={}) == 2
    assert counted(ann, "prioritise", filter={}, priority="high") == 4
    assert counted(ann, "tag", filter={}, add_tags=["x"]) == 4
    assert counted(ann, job_ids=["ready", "completed", "his", "none"]) == 1

    assert store.scalar(select(Job).where(Job.type == "bulk")) is None


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"tag": ["a", "b"]}, 1),
        ({"tag": "a"}, 2),
        ({"type": ["simulate", "other"]}, 3),
        ({"priority": [0, "low"]}, 2),
        ({"q": "thr"}, 1),
        ({"created_after": "2020-01-01T00:00:00Z", "created_before": "2020-01-02T00:00:00Z"}, 0),
        ({"owner": "ANN"}, 3),
    ],
)
def test_a_filter_means_what_it_means_in_lists(
    store: Session, ann: Person, wanted: Any, count: int
) -> None:
    add(store, ann, "one", tags=["a", "b"], priority_level=0, job_class="critical")
    add(store, ann, "two", tags=["a"], priority_level=8, job_class="low")
    add(store, ann, "three")

    assert counted(ann, filter=wanted) == count


def test_counting_stops_where_it_would_take_long(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        add(store, ann, f"j{number}", tags=["last"] if number == 4 else [])
    monkeypatch.setattr(finding, "STRETCH", 1)
    monkeypatch.setattr(finding, "STRETCHES_COUNTED", 3)

    by_time = asked(ann, code=200, dry_run=True, filter={"tag": "last"})
    monkeypatch.setattr(finding, "COUNT_LIMIT", 2)
    by_number = asked(ann, code=200, dry_run=True, filter={})

    assert (by_time["count"], by_time["more"]) == (0, True)
    assert (by_number["count"], by_number["more"]) == (2, True)


def test_the_work_is_left_to_a_job_of_the_caller_at_once(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    mine = add(store, ann, "mine", tags=["x"])

    told = asked(ann, "tag", filter={"tag": "x"}, add_tags=["y"], remove_tags=["x"])

    job, todo = left_to_do(store, told)
    assert (told["count"], told["more"], told["dry_run"]) == (1, False, False)
    assert (job.owner_id, job.type, job.job_class) == (ann.user.id, "bulk", "critical")
    assert job.description == "tag 1 jobs"
    assert (todo.up_to, todo.owner_id, todo.expected) == (mine, ann.user.id, 1)
    assert (todo.add_tags, todo.remove_tags) == (["y"], ["x"])
    assert todo.filter is not None
    assert todo.filter.tags == ["x"]
    assert job.id > todo.up_to
    assert redis_client.llen(WAKE_KEY) == 1
    assert ann.get(f"/jobs/{told['job_id']}").status_code == 200


def test_ids_that_are_not_there_are_told_and_stop_nothing(
    store: Session, ann: Person, bob: Person
) -> None:
    mine = add(store, ann, "mine")
    add(store, bob, "his")

    told = asked(ann, job_ids=["mine", "his", "none", "none"])

    _, todo = left_to_do(store, told)
    assert (told["count"], told["not_found"]) == (1, 2)
    assert (todo.jobs, todo.so_far.skipped, todo.expected) == ([mine], {"not_found": 2}, 3)


def test_an_operator_reaches_everybody_and_it_is_written_down(
    store: Session, ann: Person, bob: Person, olga: Person
) -> None:
    for who in (ann, bob):
        add(store, who, "it")

    assert counted(olga, filter={}) == 2
    assert counted(olga, filter={"owner": "bob"}) == 1
    told = asked(olga, job_ids=["it"], owner="bob")
    assert asked(olga, code=409, job_ids=["it"])["code"] == "ambiguous_job_id"
    assert asked(olga, code=422, filter={"owner": "nobody"})["code"] == "unknown_owner"

    (entry,) = store.scalars(select(AuditEntry)).all()
    assert (entry.actor, entry.detail["bulk"]) == ("olga", told["job_id"])
    assert (entry.detail["action"], entry.detail["count"]) == ("cancel", 1)


def test_a_user_who_names_another_owner_is_told_there_is_none(ann: Person, bob: Person) -> None:
    assert asked(ann, code=422, filter={"owner": "bob"})["code"] == "unknown_owner"


@pytest.mark.parametrize(
    ("body", "path", "words"),
    [
        ({"filter": {"colour": "red"}}, "filter.colour", ""),
        ({"filter": {"status": "lost"}}, "filter.status.0", "must be one of"),
        ({"filter": {"status": "completed"}}, "filter.status", "names no status that cancel"),
        ({}, "", "give either job_ids or filter"),
        ({"filter": {}, "job_ids": ["x"]}, "", "give either job_ids or filter"),
        ({"job_ids": []}, "job_ids", ""),
        ({"job_ids": ["x"] * 10_001}, "job_ids", ""),
        ({"filter": {}, "owner": "ann"}, "", "owner goes into the filter"),
        ({"filter": {}, "action": "erase"}, "action", ""),
        ({"filter": {}, "priority": "high"}, "", "priority goes with prioritise"),
        ({"filter": {}, "action": "prioritise"}, "", "which needs it"),
        ({"filter": {}, "action": "tag"}, "", "which needs one of them"),
        ({"filter": {}, "add_tags": ["x"]}, "", "go with tag"),
        (
            {"filter": {}, "action": "tag", "add_tags": ["x"], "remove_tags": ["x"]},
            "",
            "name it in one",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    store: Session, ann: Person, body: Any, path: str, words: str
) -> None:
    told = asked(ann, code=422, **body)

    errors = [(error["path"], error["message"]) for error in told["errors"]]
    assert any(at == path and words in message for at, message in errors), errors
    assert store.scalar(select(Job).where(Job.type == "bulk")) is None


def test_a_full_backlog_can_be_cancelled_but_not_grown(
    store: Session, person: MakePerson, registered: None
) -> None:
    full = person("full", cap_backlog=1)
    add(store, full, "it")

    assert asked(full, "retry", code=429, filter={})["code"] == "backlog_full"
    assert asked(full, filter={})["count"] == 1


def test_without_a_worker_that_knows_how_the_caller_is_told(person: MakePerson) -> None:
    told = asked(person("early"), code=503, filter={})

    assert "No worker has registered the type bulk yet" in told["detail"]
