"""One job: reading it, its log, attempts and history, cancelling it."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.events import Standing, write_standings
from scheduler.models import Active, Attempt, Job, JobEvent, JobLog
from scheduler.states import CancelReason, Condition, JobStatus, Outcome, Role, is_final
from tests.factories import NOON, make_dependency, make_job, make_worker
from tests.webapp.conftest import MakePerson, Person
from webapp.schemas.history import AttemptList, EventList, LogList
from webapp.schemas.jobs import JobAnswer

HOUR = timedelta(hours=1)


@pytest.fixture
def ann(person: MakePerson) -> Person:
    return person("ann")


def add(store: Session, owner: Person, name: str, **columns: Any) -> Job:
    status = columns.pop("status", JobStatus.READY)
    job = make_job(store, owner.user, status, job_id=name, **columns)
    store.commit()
    return job


@pytest.mark.parametrize(
    "job_id",
    [
        "plain",
        "with space",
        "a/b",
        "a/logs",
        "/",
        "//x",
        "a/cancel",
        "100%",
        "%2F",
        "%25/..",
        "?q=1#x",
        "batch",
        "日本/é",
        "x" * 200,
    ],
)
def test_any_printable_id_can_be_read_and_cancelled(
    store: Session, ann: Person, job_id: str
) -> None:
    add(store, ann, job_id)
    path = f"/jobs/{quote(job_id, safe='')}"

    assert ann.get(path).json["job_id"] == job_id
    assert ann.get(f"{path}/logs").json == {"logs": [], "next_cursor": None}
    assert ann.patch(f"{path}/cancel").json["status"] == JobStatus.CANCELLED


def test_slashes_need_no_encoding_where_they_are_not_ambiguous(store: Session, ann: Person) -> None:
    add(store, ann, "a/b")

    assert ann.get("/jobs/a/b").json["job_id"] == "a/b"
    assert ann.get("/jobs/a/b/attempts").json == {"attempts": [], "next_cursor": None}


@pytest.mark.parametrize("status", JobStatus)
def test_a_job_is_answered_whole_in_every_status(
    store: Session, ann: Person, status: JobStatus
) -> None:
    add(store, ann, "it", status=status)

    answer = ann.get("/jobs/it")

    job = JobAnswer.model_validate_json(answer.data)
    assert job.status is status
    waits = status in {"scheduled", "blocked", "ready", "retrying"}
    assert (job.waiting is not None) == waits
    assert (job.finished_at is not None) == is_final(status)
    assert (job.error is not None) == (status is JobStatus.FAILED)


def test_somebody_elses_job_looks_exactly_like_none(
    store: Session, ann: Person, person: MakePerson
) -> None:
    bob = person("bob")
    add(store, ann, "anns")

    def answers(job_id: str) -> list[Any]:
        paths = [f"/jobs/{job_id}", *(f"/jobs/{job_id}/{of}" for of in ("logs", "attempts"))]
        told = [bob.get(path, headers={"X-Request-ID": "same"}) for path in paths]
        told.append(bob.patch(f"/jobs/{job_id}/cancel", headers={"X-Request-ID": "same"}))
        told.append(bob.get(f"/jobs/{job_id}?owner=ann", headers={"X-Request-ID": "same"}))
        return [(one.status_code, one.json, dict(one.headers)) for one in told]

    foreign, missing = answers("anns"), answers("none")

    assert foreign == missing
    assert {status for status, _, _ in foreign} == {404}


def test_operators_see_everybodys_jobs_and_say_whose_when_it_matters(
    store: Session, ann: Person, person: MakePerson
) -> None:
    olga, bob = person("olga", Role.OPERATOR), person("bob")
    add(store, ann, "alone")
    for owner in (ann, bob):
        add(store, owner, "both")
    for owner in (ann, olga):
        add(store, owner, "mine too")

    assert olga.get("/jobs/alone").json["owner"] == "ann"
    assert olga.get("/jobs/both").json["code"] == "ambiguous_job_id"
    assert olga.get("/jobs/both").status_code == 409
    assert olga.get("/jobs/both?owner=bob").json["owner"] == "bob"
    assert olga.get("/jobs/both?owner=nobody").status_code == 404
    assert olga.get("/jobs/mine%20too").json["owner"] == "olga"
    assert olga.patch("/jobs/both/cancel?owner=ann").json["owner"] == "ann"


def test_a_waiting_job_says_where_it_stands(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    job = add(store, ann, "it")
    write_standings(
        redis_client, {ann.user.id: {job.id: Standing(3, "turn", "Two are before it.")}}
    )

    answered = ann.get("/jobs/it").json

    assert answered["position_in_queue"] == 3
    assert answered["waiting"] == {
        "code": "turn",
        "message": "Two are before it.",
        "estimated_start": None,
    }


def test_an_estimate_tells_how_it_was_found(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    job = add(store, ann, "it")
    standing = Standing(900, "turn", "Many are before it.", NOON, NOON + HOUR, "rate")
    write_standings(redis_client, {ann.user.id: {job.id: standing}})

    assert ann.get("/jobs/it").json["waiting"]["estimated_start"] == {
        "earliest": "2026-01-15T12:00:00Z",
        "latest": "2026-01-15T13:00:00Z",
        "method": "rate",
    }


def test_the_leaders_books_say_nothing_about_a_job_that_runs(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    job = add(store, ann, "it", status=JobStatus.RUNNING)
    write_standings(redis_client, {ann.user.id: {job.id: Standing(3, "turn", "old")}})

    answered = ann.get("/jobs/it").json

    assert (answered["position_in_queue"], answered["waiting"]) == (None, None)


@pytest.mark.parametrize(
    ("status", "has_worker", "code"),
    [
        (JobStatus.READY, True, "turn"),
        (JobStatus.READY, False, "no_worker"),
        (JobStatus.BLOCKED, True, "dependencies"),
        (JobStatus.SCHEDULED, True, "time"),
        (JobStatus.RETRYING, True, "backoff"),
    ],
)
def test_without_the_leaders_books_the_status_gives_the_reason(
    store: Session, ann: Person, status: JobStatus, *, has_worker: bool, code: str
) -> None:
    if has_worker:
        make_worker(store)
    add(store, ann, "it", status=status)

    waiting = ann.get("/jobs/it").json["waiting"]

    assert waiting["code"] == code
    assert waiting["message"].endswith(".")
    assert waiting["estimated_start"] is None


def test_a_blocked_job_names_the_first_jobs_it_waits_for(store: Session, ann: Person) -> None:
    child = add(store, ann, "child", status=JobStatus.BLOCKED, open_dependencies=4)
    for number in range(5):
        parent = add(store, ann, f"parent{number}")
        make_dependency(store, child, parent, Condition.FINISHED).met = number == 0
    store.commit()

    answered = ann.get("/jobs/child").json

    message = "It waits for parent1, parent2, parent3 and 1 more."
    assert answered["waiting"]["message"] == message
    assert answered["depends_on"][0] == {"job_id": "parent0", "when": "finished"}


def test_waiting_and_running_times_are_told_until_now_or_their_end(
    store: Session, ann: Person
) -> None:
    now = clock.now()
    ago = {f"{seconds}s": now - timedelta(seconds=seconds) for seconds in (100, 60, 20)}
    add(store, ann, "waits", created_at=ago["100s"])
    running = {"created_at": ago["100s"], "queued_at": ago["60s"], "started_at": ago["60s"]}
    add(store, ann, "runs", status=JobStatus.RUNNING, **running)
    add(store, ann, "ran", status=JobStatus.COMPLETED, finished_at=ago["20s"], **running)
    add(store, ann, "never ran", status=JobStatus.CANCELLED, finished_at=ago["20s"],
        created_at=ago["100s"])  # fmt: skip

    def times(name: str) -> tuple[float, float | None]:
        job = ann.get(f"/jobs/{quote(name)}").json
        return job["waited_seconds"], job["elapsed_seconds"]

    soon = {"abs": 20}
    assert times("waits") == (pytest.approx(100, **soon), None)
    assert times("runs") == (40, pytest.approx(60, **soon))
    assert times("ran") == (40, 40)
    assert times("never ran") == (80, None)


def test_the_log_comes_in_pages_oldest_first(store: Session, ann: Person) -> None:
    job, other = add(store, ann, "it"), add(store, ann, "other")
    for number in range(5):
        for one in (job, other):
            store.add(
                JobLog(job_id=one.id, attempt=1, at=NOON, level="info", message=f"line {number}")
            )
    store.commit()

    lines: list[str] = []
    cursor = ""
    while True:
        answer = ann.get(f"/jobs/it/logs?limit=2{cursor}")
        LogList.model_validate_json(answer.data)
        lines += [line["message"] for line in answer.json["logs"]]
        if answer.json["next_cursor"] is None:
            break
        cursor = f"&cursor={answer.json['next_cursor']}"

    assert lines == [f"line {number}" for number in range(5)]
    assert answer.json["logs"][0] == {
        "at": "2026-01-15T12:00:00Z",
        "attempt": 1,
        "level": "info",
        "message": "line 4",
    }


def test_attempts_are_told_with_their_own_errors(store: Session, ann: Person) -> None:
    job = add(store, ann, "it", status=JobStatus.RUNNING, attempt=2)
    store.add(
        Attempt(
            job_id=job.id,
            attempt=1,
            worker="w1",
            pid=1,
            queued_at=NOON,
            started_at=NOON,
            finished_at=NOON,
            outcome=Outcome.FAILED,
            error_type="ValueError",
            error_message="no",
            traceback="Traceback ...",
            peak_memory_mb=12.5,
            cpu_seconds=0.25,
        )
    )
    store.commit()

    answer = ann.get("/jobs/it/attempts")

    AttemptList.model_validate_json(answer.data)
    first, second = answer.json["attempts"]
    assert first["error"] == {"type": "ValueError", "message": "no"}
    assert (first["outcome"], first["peak_memory_mb"], first["cpu_seconds"]) == (
        "failed",
        12.5,
        0.25,
    )
    assert (second["attempt"], second["outcome"], second["error"]) == (2, None, None)


def test_the_history_tells_every_move(store: Session, ann: Person) -> None:
    ann.post("/jobs", {"type": "simulate", "job_id": "it"})
    ann.patch("/jobs/it/cancel")

    first = ann.get("/jobs/it/events?limit=1").json
    rest = ann.get(f"/jobs/it/events?cursor={first['next_cursor']}")

    EventList.model_validate_json(rest.data)
    assert [event["verb"] for event in first["events"]] == ["submit"]
    assert [event["verb"] for event in rest.json["events"]] == ["cancel"]
    assert rest.json["events"][0]["data"]["reason"] == CancelReason.BY_USER
    assert rest.json["next_cursor"] is None


@pytest.mark.parametrize(
    "status",
    [
        JobStatus.SCHEDULED,
        JobStatus.BLOCKED,
        JobStatus.READY,
        JobStatus.QUEUED,
        JobStatus.RETRYING,
    ],
)
def test_a_waiting_job_is_cancelled_at_once(store: Session, ann: Person, status: JobStatus) -> None:
    add(store, ann, "it", status=status)

    answer = ann.patch("/jobs/it/cancel")

    assert answer.status_code == 200
    assert (answer.json["status"], answer.json["reason"]) == ("cancelled", CancelReason.BY_USER)
    assert ann.get("/jobs/it").json["status"] == "cancelled"


def test_a_running_job_is_asked_to_stop_as_often_as_anybody_likes(
    store: Session, ann: Person
) -> None:
    job = add(store, ann, "it", status=JobStatus.RUNNING)

    answers = [ann.patch("/jobs/it/cancel") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].json["status"] == JobStatus.RUNNING
    assert store.get_one(Active, job.id, populate_existing=True).cancel_requested_at is not None
    assert [event.verb for event in store.query(JobEvent).all()] == ["request_cancel"]


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_finished_job_cannot_be_cancelled(store: Session, ann: Person, status: JobStatus) -> None:
    add(store, ann, "it", status=status)

    answer = ann.patch("/jobs/it/cancel")

    assert (answer.status_code, answer.json["code"]) == (409, "not_cancellable")


def test_a_browser_gets_the_page_where_a_program_gets_json(store: Session, ann: Person) -> None:
    add(store, ann, "it")

    page = ann.get("/jobs/it", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    anything = ann.get("/jobs/it", headers={"Accept": "*/*"})

    assert page.mimetype == "text/html"
    assert "it" in page.text
    assert anything.mimetype == "application/json"
