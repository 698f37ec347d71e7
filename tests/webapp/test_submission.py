"""POST /jobs and POST /jobs/batch."""

import io
import itertools
import json
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.events import LIVE_CHANNEL, WAKE_KEY
from scheduler.models import Dependency, Job
from scheduler.states import JobStatus, Role, Scope
from tests.factories import make_job, make_type, make_worker
from tests.webapp.conftest import MakePerson
from webapp import submitting
from webapp.extensions import db
from webapp.schemas.jobs import JobAnswer

SCHEMA = {
    "type": "object",
    "properties": {"size": {"type": "integer", "minimum": 1}},
    "additionalProperties": False,
}


def count_jobs(store: Session) -> int:
    store.rollback()
    return store.scalars(select(func.count()).select_from(Job)).one()


def test_a_submitted_job_is_answered_whole_and_stored(person: MakePerson, store: Session) -> None:
    ann = person("ann")

    answer = ann.post(
        "/jobs",
        {
            "type": "simulate",
            "job_id": "first",
            "payload": {"a": [1, None, {"b": "ü"}]},
            "description": "says what it is",
            "tags": ["x", "y"],
            "priority": "high",
            "resource_requirements": {"cpu_units": 0.5, "memory_mb": 64},
            "retry_config": {"max_attempts": 7},
            "timeout_seconds": 9,
            "callback_url": "https://example.com/done",
        },
        headers={"X-Request-ID": "mine-1"},
    )

    job = answer.json
    assert answer.status_code == 201
    assert answer.headers["Location"] == "/jobs/first"
    JobAnswer.model_validate_json(answer.data)
    assert job["status"] == JobStatus.READY
    assert job["owner"] == "ann"
    assert (job["priority"], job["priority_level"]) == ("high", 2)
    assert job["payload"] == {"a": [1, None, {"b": "ü"}]}
    assert job["resource_requirements"] == {"cpu_units": 0.5, "memory_mb": 64}
    assert job["retry_config"]["max_attempts"] == 7
    assert job["retry_config"]["strategy"] == "exponential"
    assert job["request_id"] == "mine-1"
    assert job.pop("duplicate") is False
    assert job["created_at"].endswith("Z")
    assert ann.get("/jobs/first").json == job | {"waited_seconds": pytest.approx(0, abs=10)}


def test_a_job_without_an_id_is_given_one(person: MakePerson) -> None:
    job = person("ann").post("/jobs", {"type": "simulate"}).json

    assert job["job_id"].startswith("job_")
    assert job["job_id"] == job["job_id"].lower()


def test_the_same_submission_again_is_answered_with_the_existing_job(
    person: MakePerson, store: Session
) -> None:
    ann = person("ann")
    body = {"type": "simulate", "job_id": "one", "payload": {"n": 1}}

    first, second = ann.post("/jobs", body), ann.post("/jobs", body)

    assert (first.status_code, second.status_code) == (201, 200)
    assert (first.json["duplicate"], second.json["duplicate"]) == (False, True)
    assert second.json["created_at"] == first.json["created_at"]
    assert count_jobs(store) == 1


def test_the_same_id_with_other_content_is_a_conflict_that_names_the_job(
    person: MakePerson, store: Session
) -> None:
    ann = person("ann")
    ann.post("/jobs", {"type": "simulate", "job_id": "one", "payload": {"n": 1}})

    answer = ann.post("/jobs", {"type": "simulate", "job_id": "one", "payload": {"n": 2}})

    assert answer.status_code == 409
    assert answer.json["code"] == "job_id_conflict"
    assert answer.json["job_id"] == "one"
    assert ann.get("/jobs/one").json["payload"] == {"n": 1}


def test_ids_are_unique_per_owner_only(person: MakePerson) -> None:
    body = {"type": "simulate", "job_id": "one"}

    assert person("ann").post("/jobs", body).status_code == 201
    assert person("bob").post("/jobs", body | {"payload": {"n": 2}}).status_code == 201


def test_an_idempotency_key_does_the_same_for_jobs_without_an_id(
    person: MakePerson, store: Session
) -> None:
    ann = person("ann")
    headers = {"Idempotency-Key": "abc"}

    first = ann.post("/jobs", {"type": "simulate"}, headers=headers)
    again = ann.post("/jobs", {"type": "simulate"}, headers=headers)
    other = ann.post("/jobs", {"type": "simulate", "tags": ["x"]}, headers=headers)

    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert again.json["job_id"] == first.json["job_id"]
    assert other.json["job_id"] == first.json["job_id"]
    assert count_jobs(store) == 1


def test_an_unprintable_idempotency_key_is_refused(person: MakePerson) -> None:
    answer = person("ann").post(
        "/jobs", {"type": "simulate"}, headers={"Idempotency-Key": "x" * 201}
    )

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"surprise": 1}, "surprise"),
        ({"type": 5}, "type"),
        ({"type": ""}, "type"),
        ({"job_id": ""}, "job_id"),
        ({"job_id": "x" * 201}, "job_id"),
        ({"job_id": "line\nbreak"}, "job_id"),
        ({"job_id": "bell\a"}, "job_id"),
        ({"payload": []}, "payload"),
        ({"payload": {"a": {"b": ["\0"]}}}, "payload.a.b.0"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": 11}, "priority"),
        ({"priority": -1}, "priority"),
        ({"priority": 2.5}, "priority"),
        ({"priority": True}, "priority"),
        ({"depends_on": "x"}, "depends_on"),
        ({"depends_on": [{"job_id": "x", "when": "soon"}]}, "depends_on.0.when"),
        ({"depends_on": [{"when": "finished"}]}, "depends_on.0.job_id"),
        ({"resource_requirements": {"cpu_units": 0}}, "resource_requirements.cpu_units"),
        ({"resource_requirements": {"memory_mb": 1.5}}, "resource_requirements.memory_mb"),
        ({"resource_requirements": {"gpus": 1}}, "resource_requirements.gpus"),
        ({"retry_config": {"max_attempts": 0}}, "retry_config.max_attempts"),
        ({"retry_config": {"strategy": "hope"}}, "retry_config.strategy"),
        ({"retry_config": {"jitter": "yes"}}, "retry_config.jitter"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": "9"}, "timeout_seconds"),
        ({"run_at": "tomorrow"}, "run_at"),
        ({"run_at": "2026-01-01T00:00:00"}, "run_at"),
        ({"run_at": "1800000000"}, "run_at"),
        ({"run_at": 1800000000}, "run_at"),
        ({"run_at": "9999-01-01T00:00:00Z"}, "run_at"),
        ({"delay_seconds": -1}, "delay_seconds"),
        ({"start_by": 5}, "start_by"),
        ({"executor": "carrier pigeon"}, "executor"),
        ({"callback_url": "ftp://example.com"}, "callback_url"),
        ({"tags": ["ok", ""]}, "tags.1"),
        ({"run_at": "2030-01-01T00:00:00Z", "delay_seconds": 1}, ""),
    ],
)
def test_a_wrong_field_is_refused_with_its_path(
    person: MakePerson, store: Session, change: dict[str, Any], path: str
) -> None:
    answer = person("ann").post("/jobs", {"type": "simulate"} | change)

    assert answer.status_code == 422, answer.json
    assert answer.json["code"] == "validation_failed"
    assert [error["path"] for error in answer.json["errors"]] == [path]
    assert count_jobs(store) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"type": "simulate", "payload": {"x": NaN}}',
        b'{"type": "simulate", "payload": {"x": -Infinity}}',
        b'{"type": "simulate", "payload": {"x": "\\ud800"}}',
    ],
)
def test_what_is_not_json_is_refused(person: MakePerson, body: bytes) -> None:
    answer = person("ann").ask(
        "POST", "/jobs", data=body, headers={"Content-Type": "application/json"}
    )

    assert (answer.status_code, answer.json["code"]) == (422, "invalid_json")


def test_a_number_too_large_for_json_is_refused(person: MakePerson) -> None:
    body = b'{"type": "simulate", "payload": {"x": [1e999]}}'

    answer = person("ann").ask(
        "POST", "/jobs", data=body, headers={"Content-Type": "application/json"}
    )

    assert (answer.status_code, answer.json["errors"][0]["path"]) == (422, "payload.x.0")


def test_a_body_that_is_not_declared_as_json_is_refused(person: MakePerson) -> None:
    answer = person("ann").ask("POST", "/jobs", data={"type": "simulate"})

    assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type")


def test_a_body_over_the_limit_is_refused(person: MakePerson) -> None:
    answer = person("ann").post("/jobs", {"type": "simulate", "payload": {"x": "y" * 2**20}})

    assert (answer.status_code, answer.json["code"]) == (413, "too_large")


def test_an_unknown_type_is_refused(person: MakePerson) -> None:
    answer = person("ann").post("/jobs", {"type": "nonsense"})

    assert (answer.status_code, answer.json["code"]) == (422, "unknown_type")
    assert answer.json["errors"][0]["path"] == "type"


def test_a_payload_that_does_not_match_its_type_is_refused(
    person: MakePerson, store: Session
) -> None:
    make_type(store, "sized", payload_schema=SCHEMA)
    ann = person("ann")

    answer = ann.post("/jobs", {"type": "sized", "payload": {"size": 0}})

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"][0]["path"] == "payload.size"
    assert ann.post("/jobs", {"type": "sized", "payload": {"size": 1}}).status_code == 201


def test_waiting_for_an_unknown_job_is_refused(person: MakePerson) -> None:
    answer = person("ann").post("/jobs", {"type": "simulate", "depends_on": ["nobody"]})

    assert (answer.status_code, answer.json["code"]) == (422, "unknown_dependency")
    assert answer.json["errors"][0]["path"] == "depends_on.0"


def test_waiting_for_somebody_elses_job_is_waiting_for_an_unknown_one(
    person: MakePerson,
) -> None:
    ann, bob = person("ann"), person("bob")
    bob.post("/jobs", {"type": "simulate", "job_id": "bobs"})

    foreign = ann.post("/jobs", {"type": "simulate", "depends_on": ["bobs"]})
    missing = ann.post("/jobs", {"type": "simulate", "depends_on": ["none"]})

    assert foreign.json["detail"].replace("bobs", "none") == missing.json["detail"]


def test_a_job_that_never_fits_is_refused(person: MakePerson, store: Session) -> None:
    make_worker(store)

    answer = person("ann").post(
        "/jobs", {"type": "simulate", "resource_requirements": {"cpu_units": 1000}}
    )

    assert (answer.status_code, answer.json["code"]) == (422, "never_fits")


def test_a_full_backlog_is_refused_for_a_while(person: MakePerson) -> None:
    ann = person("ann", cap_backlog=1)
    ann.post("/jobs", {"type": "simulate"})

    answer = ann.post("/jobs", {"type": "simulate"})

    assert (answer.status_code, answer.json["code"]) == (429, "backlog_full")
    assert int(answer.headers["Retry-After"]) > 0


def test_a_job_may_wait_for_others_in_every_way(person: MakePerson, store: Session) -> None:
    ann = person("ann")
    ann.post("/jobs", {"type": "simulate", "job_id": "a"})
    depends_on = ["a", {"job_id": "a2", "when": "finished"}]
    ann.post("/jobs", {"type": "simulate", "job_id": "a2"})

    job = ann.post("/jobs", {"type": "simulate", "job_id": "b", "depends_on": depends_on}).json

    assert job["status"] == JobStatus.BLOCKED
    assert job["depends_on"] == depends_on
    assert job["waiting"]["code"] == "dependencies"
    assert "a, a2" in job["waiting"]["message"]
    assert ann.get("/jobs/a").json["dependents_count"] == 1


def test_a_delayed_job_is_scheduled(person: MakePerson) -> None:
    job = person("ann").post("/jobs", {"type": "simulate", "delay_seconds": 60}).json

    assert job["status"] == JobStatus.SCHEDULED
    assert job["run_at"] > job["created_at"]
    assert job["waiting"]["code"] == "time"


def test_viewers_may_not_submit(person: MakePerson) -> None:
    answer = person("vera", Role.VIEWER).post("/jobs", {"type": "simulate"})

    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")


def test_operators_submit_for_others(person: MakePerson) -> None:
    olga, ann = person("olga", Role.OPERATOR), person("ann")

    answer = olga.post("/jobs", {"type": "simulate", "job_id": "gift", "owner": "Ann"})

    assert answer.status_code == 201
    assert ann.get("/jobs/gift").json["owner"] == "ann"


def test_a_job_for_somebody_else_is_told_where_theirs_is(person: MakePerson) -> None:
    person("ann")
    boss = person("boss", Role.OPERATOR)
    body = {"type": "simulate", "job_id": "same"}
    own = boss.post("/jobs", body)

    theirs = boss.post("/jobs", body | {"owner": "ann"})

    assert own.headers["Location"] == "/jobs/same"
    assert boss.get(theirs.headers["Location"]).json["owner"] == "ann"


def test_users_submit_for_nobody_else(person: MakePerson) -> None:
    ann, _ = person("ann"), person("bob")

    for owner in ("bob", "nobody"):
        answer = ann.post("/jobs", {"type": "simulate", "owner": owner})
        assert (answer.status_code, answer.json["code"]) == (403, "forbidden")
    assert ann.post("/jobs", {"type": "simulate", "owner": "ann"}).status_code == 201


@pytest.mark.parametrize("columns", [{"active": False}, {"role": Role.VIEWER}, None])
def test_an_owner_who_may_not_own_jobs_is_refused(
    person: MakePerson, columns: dict[str, Any] | None
) -> None:
    if columns is not None:
        person("bob", **columns)

    answer = person("olga", Role.OPERATOR).post("/jobs", {"type": "simulate", "owner": "bob"})

    assert (answer.status_code, answer.json["code"]) == (422, "unknown_owner")
    assert answer.json["errors"][0]["path"] == "owner"


def test_a_batch_is_taken_in_whatever_its_order(person: MakePerson, store: Session) -> None:
    jobs = [
        {"type": "simulate", "job_id": "c", "depends_on": ["b"]},
        {"type": "simulate", "job_id": "b", "depends_on": ["a"]},
        {"type": "simulate", "job_id": "a"},
    ]
    ann = person("ann")

    answer = ann.post("/jobs/batch", {"jobs": jobs})

    assert answer.status_code == 201
    assert (answer.json["created"], answer.json["duplicates"]) == (3, 0)
    assert [job["job_id"] for job in answer.json["jobs"]] == ["c", "b", "a"]
    assert [job["dependents_count"] for job in answer.json["jobs"]] == [0, 1, 1]
    assert ann.get("/jobs/c").json["depends_on"] == ["b"]


def test_a_batch_costs_the_same_number_of_statements_however_large_it_is(
    person: MakePerson, statements: list[str]
) -> None:
    ann = person("ann")
    ann.get("/me")  # notes the use of the token, which later requests do not
    costs = []

    for size in (2, 50):
        statements.clear()
        ann.post("/jobs/batch", {"jobs": [{"type": "simulate"}] * size})
        costs.append(len(statements))

    assert costs[0] == costs[1]
    assert costs[0] <= 6, statements


def test_the_same_batch_again_adds_nothing(person: MakePerson, store: Session) -> None:
    ann = person("ann")
    first = {"jobs": [{"type": "simulate", "job_id": "a"}]}
    more = {"jobs": [{"type": "simulate", "job_id": "b", "depends_on": ["a"]}, *first["jobs"]]}
    ann.post("/jobs/batch", first)

    partly, wholly = ann.post("/jobs/batch", more), ann.post("/jobs/batch", more)

    assert (partly.status_code, wholly.status_code) == (201, 200)
    assert (partly.json["created"], partly.json["duplicates"]) == (1, 1)
    assert (wholly.json["created"], wholly.json["duplicates"]) == (0, 2)
    assert [job["duplicate"] for job in partly.json["jobs"]] == [False, True]
    assert count_jobs(store) == 2


def test_a_cycle_is_refused_by_name_and_nothing_is_stored(
    person: MakePerson, store: Session
) -> None:
    ring = {"job_a": "job_c", "job_b": "job_a", "job_c": "job_b"}
    jobs = [{"type": "simulate", "job_id": a, "depends_on": [b]} for a, b in ring.items()]

    answer = person("ann").post("/jobs/batch", {"jobs": jobs})

    assert (answer.status_code, answer.json["code"]) == (422, "dependency_cycle")
    cycle = answer.json["cycle"]
    assert cycle[0] == cycle[-1]
    assert all(ring[one] == other for one, other in itertools.pairwise(cycle))
    assert set(cycle) == set(ring)
    assert count_jobs(store) == 0


def test_a_job_may_not_wait_for_itself(person: MakePerson) -> None:
    answer = person("ann").post("/jobs", {"type": "simulate", "job_id": "a", "depends_on": ["a"]})

    assert answer.json["cycle"] == ["a", "a"]


def test_one_wrong_job_refuses_its_whole_batch(person: MakePerson, store: Session) -> None:
    jobs: list[dict[str, Any]] = [{"type": "simulate"} for _ in range(4)]
    jobs[3]["depends_on"] = ["nobody"]

    answer = person("ann").post("/jobs/batch", {"jobs": jobs})

    assert answer.json["errors"][0]["path"] == "jobs.3.depends_on.0"
    assert count_jobs(store) == 0


def test_a_batch_names_wrong_fields_by_place(person: MakePerson) -> None:
    jobs = [{"type": "simulate"}, {"type": "simulate", "priority": 99}]

    answer = person("ann").post("/jobs/batch", {"jobs": jobs})

    assert answer.json["errors"][0]["path"] == "jobs.1.priority"


@pytest.mark.parametrize("jobs", [[], [{"type": "simulate"}] * 10_001])
def test_a_batch_has_between_one_and_ten_thousand_jobs(person: MakePerson, jobs: list[Any]) -> None:
    answer = person("ann").post("/jobs/batch", {"jobs": jobs})

    assert (answer.status_code, answer.json["errors"][0]["path"]) == (422, "jobs")


def test_a_batch_of_several_owners_is_one_transaction(person: MakePerson, store: Session) -> None:
    olga, ann, bob = person("olga", Role.OPERATOR), person("ann"), person("bob")
    jobs = [
        {"type": "simulate", "owner": "bob", "job_id": "b1"},
        {"type": "simulate", "owner": "ann", "job_id": "a1"},
        {"type": "simulate", "owner": "bob", "job_id": "b2", "depends_on": ["b1"]},
    ]

    broken = olga.post("/jobs/batch", {"jobs": [*jobs, {"type": "wrong", "owner": "bob"}]})
    stored = count_jobs(store)
    whole = olga.post("/jobs/batch", {"jobs": jobs})

    assert broken.json["errors"][0]["path"] == "jobs.3.type"
    assert stored == 0
    assert [job["owner"] for job in whole.json["jobs"]] == ["bob", "ann", "bob"]
    assert [len(one.get("/jobs").json["jobs"]) for one in (ann, bob)] == [1, 2]


def test_what_was_submitted_is_announced_after_the_commit(
    person: MakePerson, redis_client: Redis
) -> None:
    ann = person("ann")
    with redis_client.pubsub() as listener:
        listener.subscribe(LIVE_CHANNEL)
        listener.get_message(timeout=5)

        ann.post("/jobs", {"type": "simulate", "job_id": "heard"})

        message = json.loads(listener.get_message(timeout=5)["data"])
    assert [move["job_id"] for move in message["moves"]] == ["heard"]
    assert redis_client.llen(WAKE_KEY) == 1


def test_a_submission_that_meets_another_is_tried_again(
    person: MakePerson, store: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadlock(Exception):
        sqlstate = "40P01"

    real, calls = submitting.submit, []

    def meet_twice(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) <= 2:
            raise OperationalError("", {}, Deadlock())
        return real(*arguments, **options)

    monkeypatch.setattr(submitting, "submit", meet_twice)

    answer = person("ann").post("/jobs", {"type": "simulate"})

    assert answer.status_code == 201
    assert len(calls) == 3


def test_a_broker_that_is_away_does_not_stop_submissions(
    app: Flask, person: MakePerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = person("ann")
    pool = app.extensions["fairq"].redis.connection_pool
    pool.disconnect()
    monkeypatch.setitem(pool.connection_kwargs, "port", 1)
    pool.reset()

    assert ann.post("/jobs", {"type": "simulate"}).status_code == 201
    assert len(ann.get("/jobs").json["jobs"]) == 1


def test_a_token_needs_the_scope_to_submit(person: MakePerson) -> None:
    answer = person("ann", scopes={Scope.READ}).post("/jobs", {"type": "simulate"})

    assert (answer.status_code, answer.json["code"]) == (403, "insufficient_scope")


def test_a_deadline_is_kept_with_the_job(person: MakePerson) -> None:
    start_by = (clock.now() + timedelta(hours=1)).isoformat()

    job = person("ann").post("/jobs", {"type": "simulate", "start_by": start_by}).json

    assert job["start_by"] == start_by.replace("+00:00", "Z")


def test_waiting_for_a_finished_job_is_allowed(person: MakePerson, store: Session) -> None:
    ann = person("ann")
    make_job(store, ann.user, JobStatus.COMPLETED, job_id="done")
    store.commit()

    answer = ann.post("/jobs", {"type": "simulate", "job_id": "next", "depends_on": ["done"]})

    assert answer.status_code == 201
    assert store.scalars(select(func.count()).select_from(Dependency)).one() == 1


def test_no_connection_is_held_while_a_client_sends(app: Flask, person: MakePerson) -> None:
    with app.app_context():
        pool = db.engine.pool
    held: list[int] = []

    class Body(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            held.append(pool.checkedout())  # type: ignore[attr-defined]  # of a queue pool
            return super().readinto(buffer)

        def read(self, size: int | None = -1) -> bytes:
            held.append(pool.checkedout())  # type: ignore[attr-defined]  # as above
            return super().read(size)

    body = json.dumps({"type": "simulate"}).encode()

    answer = person("ann").ask(
        "POST",
        "/jobs",
        input_stream=Body(body),
        content_length=len(body),
        content_type="application/json",
    )

    assert answer.status_code == 201, answer.text
    assert held
    assert set(held) == {0}
