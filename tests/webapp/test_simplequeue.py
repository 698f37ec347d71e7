"""The simple queue protocol, as its clients know it."""

import json
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from scheduler.bodies import DEPTH_LIMIT
from scheduler.states import JobStatus, Role, Scope
from tests.factories import make_job
from tests.scheduler.installation import Installation, running
from tests.webapp.conftest import MakePerson, Person
from webapp import pulling
from webapp.api import simplequeue
from webapp.extensions import db

S = JobStatus
JOBS = "/simplequeue/jobs"
URL = "https://example.org/done"


@pytest.fixture(autouse=True)
def leader(
    committed_engine: Engine, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """A scheduler that leads. Nobody listens for its calls here, so that who waits has to look."""
    monkeypatch.setattr(pulling, "LOOK_AGAIN", timedelta(milliseconds=20))
    installation = Installation(committed_engine, redis_client)
    with running(installation.scheduler):
        yield installation


@pytest.fixture
def ann(person: MakePerson) -> Person:
    return person("ann")


def submit(who: Person, job_id: str, **fields: Any) -> Any:
    answer = who.post(f"{JOBS}/submit", {"jobId": job_id, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json


def take(who: Person) -> Any:
    answer = who.get(f"{JOBS}/next")
    assert answer.status_code == 200, answer.text
    return answer.json


def complete(who: Person, job_id: str, status: str) -> Any:
    return who.post(f"{JOBS}/complete", {"jobId": job_id, "status": status})


def test_a_job_is_submitted_taken_and_completed(ann: Person) -> None:
    data = {"message": "hello, world", "n": [1, None]}
    job = {"jobId": "1a2b3c", "description": "Sample job", "data": data}
    submitted = {**job, "state": "submitted"}

    assert submit(ann, job_id="1a2b3c", description="Sample job", data=data) == submitted
    assert ann.get(JOBS).json == [submitted]
    assert take(ann) == {**job, "state": "running"}
    assert complete(ann, "1a2b3c", "succeeded").json == {**job, "state": "succeeded"}
    assert ann.get(f"{JOBS}/1a2b3c").json["state"] == "succeeded"


def test_a_job_that_failed_is_not_handed_out_again(ann: Person) -> None:
    submit(ann, "a")
    take(ann)

    assert complete(ann, "a", "failed").json["state"] == "failed"
    assert ann.get(f"{JOBS}/next").status_code == 404


@pytest.mark.parametrize("data", [None, 0, "text", [1, {"a": []}], {}, {"data": 1}, True])
def test_data_of_any_kind_comes_back_as_it_was(ann: Person, data: Any) -> None:
    submit(ann, "a", data=data)

    assert take(ann)["data"] == data


def test_the_same_id_again_changes_nothing(ann: Person) -> None:
    submit(ann, "a", description="first", data=1)

    for fields in ({"description": "first", "data": 1}, {"data": 2}, {}):
        answer = ann.post(f"{JOBS}/submit", {"jobId": "a", **fields})
        assert answer.status_code == 200
        assert (answer.json["description"], answer.json["data"]) == ("first", 1)
    assert len(ann.get(JOBS).json) == 1


def test_an_empty_queue_is_a_404(ann: Person) -> None:
    answer = ann.get(f"{JOBS}/next")

    assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    assert ann.get(JOBS).json == []


def test_jobs_are_handed_out_in_the_order_of_their_submission(ann: Person) -> None:
    names = [f"job {n}" for n in (5, 3, 9, 1, 7)]
    for name in names:
        submit(ann, name)

    assert [take(ann)["jobId"] for _ in names] == names


NAMES = ["next", "submit", "complete", "a/b", "/", "..", "a%2Fb", "ü/日本 語", "?x=1#y", "x" * 200]


@pytest.mark.parametrize("name", NAMES)
def test_any_printable_id_works(ann: Person, name: str) -> None:
    submit(ann, name)
    submit(ann, "behind")

    assert take(ann)["jobId"] == name
    assert complete(ann, name, "succeeded").json["state"] == "succeeded"
    assert [job["jobId"] for job in ann.get(JOBS).json] == [name, "behind"]
    assert take(ann)["jobId"] == "behind"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"jobId": ""},
        {"jobId": "x" * 201},
        {"jobId": "a\nb"},
        {"jobId": 7},
        {"jobId": "a", "state": "running"},
        {"jobId": "a", "priority": "high"},
        {"jobId": "a", "data": "nul \0"},
        [],
    ],
)
def test_a_submission_that_makes_no_sense_is_a_400(ann: Person, body: Any) -> None:
    answer = ann.post(f"{JOBS}/submit", body)

    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")
    assert ann.get(JOBS).json == []


def test_a_body_that_is_no_json_is_a_400(ann: Person) -> None:
    answer = ann.ask("POST", f"{JOBS}/submit", data="{", content_type="application/json")

    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")


def test_completing_what_is_not_there_or_not_running_is_refused(ann: Person) -> None:
    submit(ann, "a")
    submit(ann, "b")

    assert complete(ann, "c", "failed").status_code == 404
    waiting = complete(ann, "a", "failed")
    assert (waiting.status_code, waiting.json["code"]) == (409, "not_running")
    take(ann)
    assert complete(ann, "a", "done").status_code == 400
    assert complete(ann, "a", "succeeded").status_code == 200
    assert complete(ann, "a", "succeeded").status_code == 409


def test_jobs_of_others_do_not_exist(ann: Person, person: MakePerson) -> None:
    bob, operator = person("bob"), person("op", Role.OPERATOR)
    submit(ann, "a")

    for who in (bob, operator):
        assert who.get(JOBS).json == []
        assert who.get(f"{JOBS}/a").status_code == 404
        assert who.get(f"{JOBS}/next").status_code == 404
        assert complete(who, "a", "failed").status_code == 404
    submit(bob, "a")
    assert take(bob)["jobId"] == "a"


def test_other_jobs_are_not_part_of_the_queue(ann: Person, store: Session) -> None:
    make_job(store, ann.user, S.READY, job_id="report")
    store.commit()

    assert ann.get(JOBS).json == []
    assert ann.get(f"{JOBS}/report").status_code == 404
    answer = ann.post(f"{JOBS}/submit", {"jobId": "report"})
    assert (answer.status_code, answer.json["code"]) == (409, "job_id_conflict")


def test_a_job_of_the_queue_is_a_job_like_any_other(ann: Person) -> None:
    submit(ann, "a/b", data={"x": 1})

    job = ann.get("/jobs/a%2Fb").json

    assert (job["type"], job["executor"], job["payload"]) == (
        "simplequeue",
        "pull",
        {"data": {"x": 1}},
    )
    assert ann.patch("/jobs/a%2Fb/cancel").status_code == 200
    assert ann.get(f"{JOBS}/a%2Fb").json["state"] == "failed"


def test_a_token_may_come_as_a_password(ann: Person, app: Flask) -> None:
    def basic(password: str | None) -> dict[str, str]:
        return {"Authorization": "Basic " + b64encode(f"anybody:{password}".encode()).decode()}

    client = app.test_client()

    assert client.get(JOBS, headers=basic(ann.token)).json == []
    assert client.get(JOBS, headers=basic("wrong")).status_code == 401
    assert client.get("/jobs", headers=basic(ann.token)).status_code == 401


def test_scopes_hold(person: MakePerson) -> None:
    reader = person("reader", scopes={Scope.READ})

    assert reader.get(JOBS).status_code == 200
    for answer in (
        reader.post(f"{JOBS}/submit", {"jobId": "a"}),
        reader.get(f"{JOBS}/next"),
        complete(reader, "a", "failed"),
    ):
        assert answer.json["code"] == "insufficient_scope"


def test_a_session_takes_no_job_by_following_a_link(signed_in: MakePerson) -> None:
    ann = signed_in("ann")
    submit(ann, "a")

    assert ann.get(f"{JOBS}/next").status_code == 403
    assert ann.get(f"{JOBS}/a").json["state"] == "submitted"


def test_no_connection_is_held_while_a_list_is_read(
    ann: Person, app: Flask, store: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simplequeue, "_PAGE", 2)
    for n in range(3):
        make_job(store, ann.user, S.COMPLETED, job_id=f"s{n}", type="simplequeue")
    store.commit()
    with app.app_context():
        pool = db.engine.pool

    answer = ann.get(JOBS)
    held, read = [pool.checkedout()], b""  # type: ignore[attr-defined]  # of a queue pool
    for chunk in answer.iter_encoded():
        read += chunk
        held.append(pool.checkedout())  # type: ignore[attr-defined]  # as above

    assert [job["jobId"] for job in json.loads(read)] == ["s0", "s1", "s2"]
    assert set(held) == {0}


def test_who_is_not_known_is_offered_both_ways_to_prove_it(app: Flask) -> None:
    def challenges(path: str, credentials: str | None) -> str | None:
        headers = {} if credentials is None else {"Authorization": credentials}
        answer = app.test_client().get(path, headers=headers)
        assert answer.status_code == 401
        return answer.headers["WWW-Authenticate"]

    for given in (None, "Basic eDp5", "Bearer wrong", "Digest x"):
        assert challenges(JOBS, given) == 'Bearer realm="fairq", Basic realm="fairq"'
        assert challenges("/jobs", given) == 'Bearer realm="fairq"'


def test_a_long_list_comes_whole(ann: Person, store: Session) -> None:
    for n in range(1201):
        make_job(
            store,
            ann.user,
            S.COMPLETED,
            job_id=f"s{n}",
            type="simplequeue",
            payload={"data": n},
        )
    store.commit()

    listed = ann.get(JOBS).json

    assert [job["data"] for job in listed] == list(range(1201))


def test_callers_at_once_get_each_job_once(ann: Person, app: Flask) -> None:
    for n in range(60):
        submit(ann, f"s{n}")

    def take_all(_: int) -> list[str]:
        client, taken = Person(ann.user, app.test_client(), token=ann.token), []
        while (answer := client.get(f"{JOBS}/next")).status_code == 200:
            taken.append(answer.json["jobId"])
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [name for each in pool.map(take_all, range(8)) for name in each]

    assert sorted(taken) == sorted(f"s{n}" for n in range(60))


@pytest.mark.parametrize("word", ["succeeded", "failed"])
def test_a_job_that_was_submitted_with_a_callback_is_told_about(ann: Person, word: str) -> None:
    job = {"type": "simplequeue", "job_id": "a", "executor": "pull", "callback_url": URL}
    assert ann.post("/jobs", job).status_code == 201
    take(ann)

    complete(ann, "a", word)

    (told,) = ann.get("/jobs/a/callbacks").json["callbacks"]
    assert told["status"] == {"succeeded": S.COMPLETED, "failed": S.FAILED}[word]


def test_depth_is_refused_the_way_the_protocol_refuses(ann: Person) -> None:
    data: Any = None
    for _ in range(DEPTH_LIMIT):
        data = [data]

    answer = ann.post(f"{JOBS}/submit", {"jobId": "a", "data": data})

    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")
    assert ann.get(JOBS).json == []
