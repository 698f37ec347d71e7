"""Waiting for a job: the answer comes when it has finished, or when the time is over."""

from collections.abc import Callable

import gevent
import pytest
from flask import Flask
from sqlalchemy import delete, update
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from scheduler.models import Active, Attempt, Job, Searched
from scheduler.states import JobStatus, Role
from tests.factories import NOON
from tests.webapp.conftest import MakePerson, Person
from webapp.extensions import db
from webapp.streams import home
from webapp.streams.home import READERS, Streams

LONGER_THAN_A_TEST = 300

JobOf = Callable[..., Job]
Meanwhile = Callable[..., None]
Finish = Callable[[Job], None]
Announce = Callable[[Job, JobStatus], None]


@pytest.fixture
def finish(store: Session) -> Finish:
    def end(job: Job) -> None:
        ended = {"status": JobStatus.COMPLETED, "finished_at": NOON}
        store.execute(update(Job).where(Job.id == job.id).values(ended))
        store.commit()

    return end


@pytest.fixture
def announce(streams: Streams) -> Announce:
    """Have the live channel tell that a job is in a status now."""

    def tell(job: Job, status: JobStatus) -> None:
        move = {"owner_id": job.owner_id, "job_id": job.job_id, "status": str(status)}
        streams.hear({"kind": "moves", "moves": [move]})

    return tell


@pytest.fixture
def meanwhile(streams: Streams) -> Meanwhile:
    """Do things one after the other while somebody waits, each once they wait again."""

    def run(*acts: Callable[[], object]) -> None:
        for act in acts:
            while not any(wait for waits in streams.waits._by_job.values() for wait in waits):
                gevent.sleep(0)
            act()
            gevent.sleep(0)

    return lambda *acts: gevent.spawn(run, *acts)


def ask(who: Person, job: Job, seconds: float = LONGER_THAN_A_TEST) -> TestResponse:
    return who.get(f"/jobs/{job.job_id}/wait?timeout_seconds={seconds}")


def told(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.json["status"]


def test_a_finished_job_is_answered_at_once(person: MakePerson, job_of: JobOf) -> None:
    ann = person("ann")

    answer = ask(ann, job_of(ann.user, JobStatus.FAILED))

    assert told(answer) == (200, "failed")
    assert answer.json["error"]["type"] == "ValueError"


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_a_job_that_has_not_finished_in_time_is_answered_as_it_is(
    person: MakePerson, job_of: JobOf, seconds: float
) -> None:
    ann = person("ann")

    assert told(ask(ann, job_of(ann.user), seconds)) == (202, "running")


def test_a_message_wakes_who_waits(
    person: MakePerson,
    job_of: JobOf,
    finish: Finish,
    announce: Announce,
    meanwhile: Meanwhile,
) -> None:
    ann = person("ann")
    job = job_of(ann.user)

    meanwhile(lambda: finish(job), lambda: announce(job, JobStatus.COMPLETED))

    assert told(ask(ann, job)) == (200, "completed")


def test_a_lost_message_is_made_up_for(
    app: Flask,
    person: MakePerson,
    job_of: JobOf,
    finish: Finish,
    meanwhile: Meanwhile,
    streams: Streams,
) -> None:
    ann = person("ann")
    job = job_of(ann.user)

    meanwhile(streams.poll, lambda: finish(job), streams.poll)

    assert told(ask(ann, job)) == (200, "completed")


def test_who_was_woken_for_nothing_waits_on(
    person: MakePerson,
    job_of: JobOf,
    finish: Finish,
    announce: Announce,
    meanwhile: Meanwhile,
) -> None:
    ann = person("ann")
    job = job_of(ann.user)

    meanwhile(
        lambda: announce(job, JobStatus.COMPLETED),
        lambda: finish(job),
        lambda: announce(job, JobStatus.COMPLETED),
    )

    assert told(ask(ann, job)) == (200, "completed")


def test_only_the_end_of_the_job_wakes(
    person: MakePerson,
    job_of: JobOf,
    announce: Announce,
    meanwhile: Meanwhile,
    streams: Streams,
    statements: list[str],
) -> None:
    ann, bob = person("ann"), person("bob")
    job, namesake = job_of(ann.user, job_id="same"), job_of(bob.user, job_id="same")
    asked: list[int] = []

    meanwhile(
        lambda: asked.append(len(statements)),
        lambda: announce(job, JobStatus.RUNNING),
        lambda: announce(namesake, JobStatus.COMPLETED),
        lambda: asked.append(len(statements)),
        streams.stop,
    )

    assert ask(ann, job).status_code == 202
    assert len(asked) == 2
    assert asked[0] == asked[1]


def test_nobody_waits_with_a_connection(
    app: Flask, person: MakePerson, job_of: JobOf, meanwhile: Meanwhile, streams: Streams
) -> None:
    ann = person("ann")
    held: list[int] = []
    with app.app_context():
        pool = db.engine.pool

    meanwhile(lambda: held.append(pool.checkedout()), streams.stop)  # type: ignore[attr-defined]  # of a queue pool

    ask(ann, job_of(ann.user))
    assert held == [0]


def test_nobody_waits_for_their_turn_with_a_connection(
    app: Flask, person: MakePerson, job_of: JobOf, meanwhile: Meanwhile, streams: Streams
) -> None:
    ann = person("ann")
    with app.app_context():
        pool = db.engine.pool
    held: list[int] = []
    job = job_of(ann.user)
    for _ in range(READERS):
        streams.turns.acquire()

    def look() -> None:
        held.append(pool.checkedout())  # type: ignore[attr-defined]  # of a queue pool
        for _ in range(READERS):
            streams.turns.release()

    meanwhile(look, streams.stop)

    assert ask(ann, job).status_code == 202
    assert held == [0]


def test_an_account_waits_for_so_many_jobs_at_a_time(
    person: MakePerson, job_of: JobOf, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "PER_ACCOUNT", 2)
    ann, bob = person("ann"), person("bob")
    hers, his = job_of(ann.user), job_of(bob.user)
    waiting = [gevent.spawn(ask, ann, hers) for _ in range(2)]
    while sum(map(len, streams.waits._by_job.values())) < len(waiting):
        gevent.sleep(0)

    refused = [ask(ann, hers), ann.get("/jobs/stream", headers={"Accept": "text/event-stream"})]

    for answer in refused:
        assert (answer.status_code, answer.json["code"]) == (429, "rate_limited")
        assert "2" in answer.json["detail"]
        assert int(answer.headers["Retry-After"]) > 0
    assert ask(bob, his, 0).status_code == 202
    streams.stop()
    gevent.joinall(waiting, raise_error=True)
    assert ask(ann, hers, 0).status_code == 202


def test_all_who_wait_are_looked_after_by_one_question(
    person: MakePerson, job_of: JobOf, streams: Streams, statements: list[str]
) -> None:
    ann = person("ann")
    jobs = [job_of(ann.user) for _ in range(3)]
    waiting = [gevent.spawn(ask, ann, job) for job in jobs for _ in range(2)]
    while sum(map(len, streams.waits._by_job.values())) < len(waiting):
        gevent.sleep(0)
    before = len(statements)

    streams.poll()

    assert len(statements) == before + 1
    streams.stop()
    gevent.joinall(waiting, raise_error=True)


def test_nobody_asks_where_nobody_waits(streams: Streams, statements: list[str]) -> None:
    streams.poll()

    assert statements == []


def test_a_process_that_stops_answers_with_what_it_knows(
    person: MakePerson, job_of: JobOf, meanwhile: Meanwhile, streams: Streams
) -> None:
    ann = person("ann")
    job = job_of(ann.user)

    meanwhile(streams.stop)

    assert told(ask(ann, job)) == (202, "running")
    assert told(ask(ann, job)) == (202, "running")


def test_a_job_that_is_deleted_meanwhile_is_not_found(
    person: MakePerson,
    job_of: JobOf,
    store: Session,
    announce: Announce,
    meanwhile: Meanwhile,
) -> None:
    ann = person("ann")
    job = job_of(ann.user)

    def forget() -> None:
        for table in (Active, Attempt, Searched):
            store.execute(delete(table).where(table.job_id == job.id))
        store.execute(delete(Job).where(Job.id == job.id))
        store.commit()

    meanwhile(forget, lambda: announce(job, JobStatus.COMPLETED))

    assert ask(ann, job).status_code == 404


@pytest.mark.parametrize("seconds", ["-1", "301", "nan", "soon"])
def test_a_time_out_of_bounds_is_refused(person: MakePerson, job_of: JobOf, seconds: str) -> None:
    ann = person("ann")

    answer = ann.get(f"/jobs/{job_of(ann.user).job_id}/wait?timeout_seconds={seconds}")

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert [error["path"] for error in answer.json["errors"]] == ["timeout_seconds"]


def test_an_operator_says_whose_job_is_meant(person: MakePerson, job_of: JobOf) -> None:
    olga = person("olga", Role.OPERATOR)
    for name in ("ann", "bob"):
        job_of(person(name).user, JobStatus.COMPLETED, job_id="same")

    assert olga.get("/jobs/same/wait").status_code == 409
    assert olga.get("/jobs/same/wait?owner=bob").json["owner"] == "bob"


def test_nothing_is_held_for_who_was_answered(
    person: MakePerson, job_of: JobOf, streams: Streams
) -> None:
    ann = person("ann")

    ask(ann, job_of(ann.user), 0)

    assert not streams.waits
