"""Taking work over HTTP: asked for, kept, completed; each job by one worker at a time."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from scheduler.models import Active, Ask, Attempt, Job, User
from scheduler.states import CancelReason, Executor, JobStatus, Outcome, Role, Scope
from scheduler.store import work
from tests.factories import make_job, make_user
from tests.scheduler.installation import Installation, running
from tests.services import eventually
from tests.webapp.conftest import MakePerson, Person
from webapp import pulling, queries
from webapp.connection import ENVIRON_KEY, Connection
from webapp.services import services_of

S = JobStatus
SCAN = {"type": "scan", "executor": "pull"}
URL = "https://example.org/done"


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens for calls here, so that who waits has to look."""
    monkeypatch.setattr(pulling, "LOOK_AGAIN", timedelta(milliseconds=20))


@pytest.fixture
def leader(committed_engine: Engine, redis_client: Redis) -> Iterator[Installation]:
    """A scheduler that leads."""
    installation = Installation(committed_engine, redis_client)
    with running(installation.scheduler):
        yield installation


@pytest.fixture
def ann(person: MakePerson) -> Person:
    return person("ann")


def take(who: Person, **body: Any) -> Any:
    """Take the next job, which must be there."""
    answer = who.post("/jobs/next", {"worker": "cam", **body})
    assert answer.status_code == 200, answer.text
    return answer.json


def submit(who: Person, **fields: Any) -> Any:
    answer = who.post("/jobs", {**SCAN, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json


def claimed(store: Session, owner: User, **columns: Any) -> Job:
    """Make a job that a pull worker runs under the lease ``secret``."""
    job = make_job(store, owner, S.QUEUED, executor=Executor.PULL, **columns)
    minute = timedelta(minutes=1)
    work.start(store, [(job.id, 1)], worker="cam", pid=None, lease=minute, token="secret")
    store.commit()
    return job


def end_lease(store: Session, job: Job) -> None:
    store.execute(
        text("UPDATE active SET lease_until = now() - interval '1 s' WHERE job_id = :id"),
        {"id": job.id},
    )
    store.commit()


# Taking


def test_a_job_is_handed_out_with_its_lease(leader: Installation, ann: Person) -> None:
    submit(ann, job_id="s1", payload={"page": 7})

    job = take(ann, lease_seconds=90)

    assert (job["job_id"], job["status"], job["worker"]) == ("s1", "running", "cam")
    assert (job["attempt"], job["payload"]) == (1, {"page": 7})
    lasts = datetime.fromisoformat(job["lease_expires_at"]) - datetime.fromisoformat(
        job["started_at"]
    )
    assert lasts == timedelta(seconds=90)
    assert len(job["lease"]) > 16


def test_nobody_waits_where_nothing_can_come(leader: Installation, ann: Person) -> None:
    assert ann.post("/jobs/next", {"worker": "cam"}).status_code == 204


def test_what_runs_on_celery_is_not_handed_out(leader: Installation, ann: Person) -> None:
    assert ann.post("/jobs", {"type": "simulate"}).status_code == 201

    assert ann.post("/jobs/next", {"worker": "cam"}).status_code == 204


def test_whoever_waits_gets_what_is_submitted_meanwhile(
    leader: Installation, ann: Person, app: Flask, store: Session
) -> None:
    waiting = Person(ann.user, app.test_client(), token=ann.token)

    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take, waiting, wait_seconds=60)
        eventually(lambda: _asks(store))
        submit(ann, job_id="s1")
        assert taken.result(timeout=20)["job_id"] == "s1"

    assert not _asks(store)


def _asks(store: Session) -> list[int]:
    store.rollback()
    return list(store.scalars(select(Ask.id)))


def test_whoever_has_waited_long_enough_is_told_that_there_is_nothing(
    leader: Installation, ann: Person, store: Session
) -> None:
    answer = ann.post("/jobs/next", {"worker": "cam", "wait_seconds": 0.2})

    assert (answer.status_code, answer.data) == (204, b"")
    assert not _asks(store)


def test_without_a_leader_nothing_is_handed_out(ann: Person) -> None:
    submit(ann)

    assert ann.post("/jobs/next", {"worker": "cam"}).status_code == 204


def test_whoever_waits_is_sent_home_when_the_server_stops(
    leader: Installation, ann: Person, app: Flask, store: Session
) -> None:
    waiting = Person(ann.user, app.test_client(), token=ann.token)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(waiting.post, "/jobs/next", {"worker": "w", "wait_seconds": 60})
        eventually(lambda: _asks(store))
        services_of(app).desk.close()
        assert answer.result(timeout=20).status_code == 204


class Leaving(Connection):
    """A client that goes away as soon as something has happened."""

    def __init__(self, has_happened: Callable[[], bool]) -> None:
        self._has_happened = has_happened

    def is_there(self) -> bool:
        return not self._has_happened()


def ask_and_leave(who: Person, has_happened: Callable[[], bool]) -> int:
    asked = {"worker": "gone", "wait_seconds": 20}
    overrides = {ENVIRON_KEY: Leaving(has_happened)}
    return who.post("/jobs/next", asked, environ_overrides=overrides).status_code


def test_whoever_has_gone_is_handed_nothing(
    leader: Installation, ann: Person, store: Session
) -> None:
    submit(ann, job_id="s1", retry_config={"max_attempts": 1})

    assert ask_and_leave(ann, lambda: True) == 204

    assert not _asks(store)
    assert take(ann)["attempt"] == 1


def test_what_was_offered_to_who_went_meanwhile_goes_to_the_next(
    leader: Installation, ann: Person, store: Session
) -> None:
    def is_offered() -> bool:
        store.rollback()
        return store.scalar(select(Active.job_id)) is not None

    submit(ann, job_id="s1", retry_config={"max_attempts": 1})

    assert ask_and_leave(ann, is_offered) == 204

    assert not is_offered()
    job = take(ann)
    assert (job["job_id"], job["worker"]) == ("s1", "cam")


def test_a_job_is_handed_out_with_its_answer_or_not_at_all(
    leader: Installation, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    submit(ann, job_id="s1", retry_config={"max_attempts": 1})
    with monkeypatch.context() as outage:
        outage.setattr(queries, "one_job", fail)
        answer = ann.post("/jobs/next", {"worker": "cam"})

    assert answer.status_code == 503
    assert ann.get("/jobs/s1").json["status"] == "queued"


def test_only_types_that_are_asked_for_are_handed_out(leader: Installation, ann: Person) -> None:
    submit(ann, job_id="s1", type="print")
    submit(ann, job_id="s2")

    assert take(ann, types=["scan", "fax"])["job_id"] == "s2"
    assert ann.post("/jobs/next", {"worker": "w", "types": ["fax"]}).status_code == 204


def test_the_next_after_a_parent_is_done_is_its_child(leader: Installation, ann: Person) -> None:
    submit(ann, job_id="parent")
    submit(ann, job_id="child", depends_on=["parent"])
    parent = take(ann)
    assert parent["job_id"] == "parent"

    complete(ann, parent)

    assert take(ann)["job_id"] == "child"


def test_people_get_their_own_jobs_and_operators_everybodys(
    leader: Installation, person: MakePerson, ann: Person
) -> None:
    bob, operator = person("bob"), person("op", Role.OPERATOR)
    submit(ann, job_id="anns")

    assert bob.post("/jobs/next", {"worker": "w"}).status_code == 204
    assert take(operator)["owner"] == "ann"


def test_jobs_of_people_with_equal_shares_are_handed_out_in_turn(
    leader: Installation, person: MakePerson, ann: Person
) -> None:
    bob, operator = person("bob"), person("op", Role.OPERATOR)
    for who in (ann, bob):
        long = {**SCAN, "estimated_seconds": 3600}
        jobs = [{**long, "job_id": f"{who.user.username}-{n:02}"} for n in range(20)]
        assert who.post("/jobs/batch", {"jobs": jobs}).status_code == 201

    taken = [take(operator)["job_id"] for _ in range(20)]

    for first in range(0, 20, 4):
        assert Counter(name[:3] for name in taken[first : first + 4]) == {"ann": 2, "bob": 2}
    for who in ("ann", "bob"):
        own = [name for name in taken if name.startswith(who)]
        assert own == [f"{who}-{n:02}" for n in range(len(own))]


def test_caps_hold_for_pull_workers_too(
    leader: Installation, person: MakePerson, store: Session
) -> None:
    ann = person("capped", cap_running_jobs=1)
    submit(ann, job_id="s1")
    submit(ann, job_id="s2")
    first = take(ann)

    assert ann.post("/jobs/next", {"worker": "w"}).status_code == 204
    complete(ann, first)

    assert take(ann)["job_id"] == "s2"


def test_a_token_without_the_scope_work_takes_nothing(
    leader: Installation, person: MakePerson
) -> None:
    ann = person("reader", scopes={Scope.READ, Scope.SUBMIT})
    submit(ann)

    answer = ann.post("/jobs/next", {"worker": "cam"})

    assert answer.json["code"] == "insufficient_scope"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "worker"),
        ({"worker": ""}, "worker"),
        ({"worker": "w", "types": []}, "types"),
        ({"worker": "w", "wait_seconds": 61}, "wait_seconds"),
        ({"worker": "w", "lease_seconds": 0}, "lease_seconds"),
        ({"worker": "w", "owner": "ann"}, "owner"),
    ],
)
def test_an_ask_that_makes_no_sense_is_refused(
    ann: Person, body: dict[str, Any], path: str
) -> None:
    answer = ann.post("/jobs/next", body)

    assert answer.status_code == 422
    assert answer.json["errors"][0]["path"] == path


def test_many_callers_get_each_job_once(
    leader: Installation, ann: Person, app: Flask, store: Session
) -> None:
    jobs = [{**SCAN, "job_id": f"s{n}"} for n in range(60)]
    assert ann.post("/jobs/batch", {"jobs": jobs}).status_code == 201

    def take_all(_: int) -> list[str]:
        client, taken = Person(ann.user, app.test_client(), token=ann.token), []
        while (answer := client.post("/jobs/next", {"worker": "w"})).status_code == 200:
            taken.append(answer.json["job_id"])
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [name for each in pool.map(take_all, range(8)) for name in each]

    assert sorted(taken) == sorted(job["job_id"] for job in jobs)


# Keeping


def test_a_heartbeat_keeps_the_job_and_what_it_says(ann: Person, store: Session) -> None:
    job = claimed(store, ann.user)

    answer = ann.post(
        f"/jobs/{job.job_id}/heartbeat",
        {
            "lease": "secret",
            "progress": {"fraction": 0.5, "message": "half"},
            "logs": ["one", {"message": "two", "level": "warning", "at": "2026-01-01T00:00:00Z"}],
        },
    )

    assert answer.status_code == 200, answer.text
    assert answer.json["cancel"] is False
    assert datetime.fromisoformat(answer.json["lease_expires_at"])
    told = ann.get(f"/jobs/{job.job_id}").json
    assert told["progress"] == {"fraction": 0.5, "message": "half"}
    lines = ann.get(f"/jobs/{job.job_id}/logs").json["logs"]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", "one"),
        ("warning", "two"),
    ]
    assert lines[1]["at"] == "2026-01-01T00:00:00Z"


def test_a_line_from_before_all_clocks_is_refused(ann: Person, store: Session) -> None:
    job = claimed(store, ann.user)
    lines = [{"message": "old", "at": "0001-01-01T00:00:00+14:00"}]

    answer = ann.post(f"/jobs/{job.job_id}/heartbeat", {"lease": "secret", "logs": lines})

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert ann.get(f"/jobs/{job.job_id}/logs").json["logs"] == []


def test_a_progress_may_be_a_number(ann: Person, store: Session) -> None:
    job = claimed(store, ann.user)

    ann.post(f"/jobs/{job.job_id}/heartbeat", {"lease": "secret", "progress": 0.25})

    progress = ann.get(f"/jobs/{job.job_id}").json["progress"]
    assert progress == {"fraction": 0.25, "message": None}


def test_a_worker_is_told_that_its_job_is_to_stop(ann: Person, store: Session) -> None:
    job = claimed(store, ann.user)
    assert ann.patch(f"/jobs/{job.job_id}/cancel").status_code == 200

    answer = ann.post(f"/jobs/{job.job_id}/heartbeat", {"lease": "secret"})

    assert answer.json["cancel"] is True
    for status in ("failed", "completed"):
        done = ann.post(f"/jobs/{job.job_id}/complete", {"lease": "secret", "status": "failed"})
        assert (done.status_code, done.json["status"]) == (200, "cancelled"), status
        assert done.json["reason"] == CancelReason.BY_USER


@pytest.mark.parametrize("call", ["heartbeat", "complete"])
def test_a_lease_that_is_over_changes_nothing(ann: Person, store: Session, call: str) -> None:
    job = claimed(store, ann.user)
    end_lease(store, job)
    body = {"lease": "secret", **({"status": "completed"} if call == "complete" else {})}

    answer = ann.post(f"/jobs/{job.job_id}/{call}", body)

    assert (answer.status_code, answer.json["code"]) == (409, "lease_lost")
    store.refresh(job)
    assert job.status == S.RUNNING


def test_what_a_silent_worker_ran_goes_to_another(
    leader: Installation, ann: Person, store: Session
) -> None:
    submit(ann, job_id="s1", retry_config={"base_delay_seconds": 0})
    first = take(ann)
    end_lease(store, store.scalars(select(Job)).one())

    second = take(ann, wait_seconds=30)

    assert (second["job_id"], second["attempt"]) == ("s1", 2)
    assert second["lease"] != first["lease"]
    late = ann.post("/jobs/s1/complete", {"lease": first["lease"], "status": "completed"})
    assert (late.status_code, late.json["code"]) == (409, "lease_lost")
    assert complete(ann, second)["status"] == "completed"
    outcomes = [one["outcome"] for one in ann.get("/jobs/s1/attempts").json["attempts"]]
    assert outcomes == ["lost", "completed"]


# Completing


def complete(who: Person, job: Any, **body: Any) -> Any:
    answer = who.post(
        f"/jobs/{job['job_id']}/complete", {"lease": job["lease"], "status": "completed", **body}
    )
    assert answer.status_code == 200, answer.text
    return answer.json


def test_a_job_that_ended_well_keeps_its_result(ann: Person, store: Session) -> None:
    job = claimed(store, ann.user)

    told = complete(ann, {"job_id": job.job_id, "lease": "secret"}, result={"pages": [1, None]})

    assert (told["status"], told["result"]) == ("completed", {"pages": [1, None]})


def test_a_failure_is_retried_by_the_jobs_own_rules(ann: Person, store: Session) -> None:
    job = claimed(store, ann.user)
    error = {"type": "PaperJam", "message": "tray 2", "traceback": "here\nthere"}

    told = complete(ann, {"job_id": job.job_id, "lease": "secret"}, status="failed", error=error)

    assert told["status"] == "retrying"
    assert told["error"] == {"type": "PaperJam", "message": "tray 2"}
    attempt = store.get_one(Attempt, (job.id, 1), populate_existing=True)
    assert (attempt.outcome, attempt.traceback) == (Outcome.FAILED, "here\nthere")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({}, {"type": "Failed", "message": "its worker gave no reason"}),
        ({"error": "out of paper"}, {"type": "Failed", "message": "out of paper"}),
    ],
)
def test_a_failure_that_nobody_should_repeat_is_final(
    ann: Person, store: Session, error: dict[str, Any], told: dict[str, Any]
) -> None:
    job = claimed(store, ann.user)
    body = {"status": "failed", "retryable": False, **error}

    answered = complete(ann, {"job_id": job.job_id, "lease": "secret"}, **body)

    assert (answered["status"], answered["error"]) == ("failed", told)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_saying_it_twice_is_as_good_as_once(ann: Person, store: Session, status: str) -> None:
    job = claimed(store, ann.user)
    body = {"lease": "secret", "status": status}

    told = [ann.post(f"/jobs/{job.job_id}/complete", body) for _ in range(2)]

    assert [answer.status_code for answer in told] == [200, 200]
    assert told[0].json["status"] == told[1].json["status"]
    moves = ann.get(f"/jobs/{job.job_id}/events").json["events"]
    assert len(moves) == 2  # started, ended


def test_saying_something_else_the_second_time_is_refused(ann: Person, store: Session) -> None:
    job = claimed(store, ann.user)
    complete(ann, {"job_id": job.job_id, "lease": "secret"})

    answer = ann.post(f"/jobs/{job.job_id}/complete", {"lease": "secret", "status": "failed"})

    assert (answer.status_code, answer.json["code"]) == (409, "lease_lost")


@pytest.mark.parametrize(
    "body",
    [
        {"lease": "x"},
        {"lease": "x", "status": "succeeded"},
        {"lease": "x", "status": "completed", "error": "but"},
        {"lease": "x", "status": "failed", "result": 1},
        {"status": "completed"},
    ],
)
def test_an_end_that_makes_no_sense_is_refused(
    ann: Person, store: Session, body: dict[str, Any]
) -> None:
    job = claimed(store, ann.user)

    assert ann.post(f"/jobs/{job.job_id}/complete", body).status_code == 422


def test_a_lease_is_of_no_use_to_others(ann: Person, person: MakePerson, store: Session) -> None:
    job, bob = claimed(store, ann.user), person("bob")
    body = {"lease": "secret", "status": "completed"}

    assert bob.post(f"/jobs/{job.job_id}/complete", body).status_code == 404


def test_an_operators_worker_reports_on_the_job_it_has_and_no_other_of_that_name(
    ann: Person, person: MakePerson, store: Session
) -> None:
    operator = person("op", Role.OPERATOR)
    make_job(store, make_user(store, "bob"), S.RUNNING, job_id="same")
    job = claimed(store, ann.user, job_id="same")

    told = complete(operator, {"job_id": "same", "lease": "secret"})

    assert (told["owner"], told["status"]) == ("ann", "completed")
    store.refresh(job)
    assert job.status == S.COMPLETED


# Callbacks


def told(who: Person, job_id: str) -> list[tuple[str, str]]:
    """Return in which status each end of a job is told, and whether it was."""
    callbacks = who.get(f"/jobs/{job_id}/callbacks").json["callbacks"]
    return [(one["status"], one["state"]) for one in callbacks]


ENDS: dict[str, tuple[dict[str, Any], str]] = {
    "completed": ({"status": "completed", "result": {"n": 1}}, S.COMPLETED),
    "failed": ({"status": "failed", "retryable": False}, S.FAILED),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_a_worker_ends_is_to_be_told_once_however_often_it_says_so(
    ann: Person, store: Session, name: str
) -> None:
    said, status = ENDS[name]
    claimed(store, ann.user, job_id="s1", callback_url=URL)

    for _ in range(2):
        assert ann.post("/jobs/s1/complete", {"lease": "secret", **said}).status_code == 200

    assert told(ann, "s1") == [(status, "pending")]


def test_a_failure_that_is_tried_again_is_not_to_be_told(ann: Person, store: Session) -> None:
    claimed(store, ann.user, job_id="s1", callback_url=URL)

    ann.post("/jobs/s1/complete", {"lease": "secret", "status": "failed"})

    assert told(ann, "s1") == []


def test_a_job_that_its_worker_stops_is_to_be_told_as_cancelled(
    ann: Person, store: Session
) -> None:
    claimed(store, ann.user, job_id="s1", callback_url=URL)
    ann.patch("/jobs/s1/cancel")
    assert told(ann, "s1") == []

    ann.post("/jobs/s1/complete", {"lease": "secret", "status": "failed"})

    assert told(ann, "s1") == [(S.CANCELLED, "pending")]


def test_a_job_whose_worker_vanishes_is_to_be_told_after_its_last_attempt(
    leader: Installation, ann: Person, store: Session
) -> None:
    once = {"max_attempts": 1, "strategy": "none"}
    job = claimed(store, ann.user, job_id="s1", callback_url=URL, retry_config=once)

    end_lease(store, job)

    eventually(lambda: told(ann, "s1") == [(S.FAILED, "pending")])


def test_a_job_out_of_the_dead_letters_is_told_at_its_next_end_too(
    ann: Person, store: Session
) -> None:
    claimed(store, ann.user, job_id="s1", callback_url=URL)
    ann.post("/jobs/s1/complete", {"lease": "secret", "status": "failed", "retryable": False})
    ann.post("/dead-letters/retry", {"job_ids": ["s1"]})

    ann.patch("/jobs/s1/cancel")

    assert told(ann, "s1") == [(S.CANCELLED, "pending"), (S.FAILED, "pending")]


def test_discarding_a_dead_letter_is_no_end(ann: Person, store: Session) -> None:
    claimed(store, ann.user, job_id="s1", callback_url=URL)
    ann.post("/jobs/s1/complete", {"lease": "secret", "status": "failed", "retryable": False})

    ann.post("/dead-letters/discard", {"job_ids": ["s1"]})

    assert told(ann, "s1") == [(S.FAILED, "pending")]
