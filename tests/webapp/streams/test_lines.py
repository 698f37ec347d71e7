"""The log of a job as a stream: what is there, what comes, and its end."""

from collections.abc import Callable

import gevent
import pytest
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from scheduler.models import Job
from scheduler.states import JobStatus, Role
from tests.factories import NOON, make_line, make_lines
from tests.webapp.conftest import MakePerson, Person
from tests.webapp.streams.conftest import EVENTS, Listen, Listener
from webapp.streams.home import Streams

JobOf = Callable[..., Job]
Look = Callable[[], None]
Write = Callable[..., list[int]]
Finish = Callable[..., None]
Follow = Callable[[Person, Job], Listener]


@pytest.fixture
def write(store: Session) -> Write:
    """Have a job write lines, and return their numbers."""

    def lines(job: Job, *messages: str) -> list[int]:
        numbers = [line.id for line in make_lines(store, job, messages)]
        store.commit()
        return numbers

    return lines


@pytest.fixture
def finish(store: Session) -> Finish:
    """End a job, with its last lines in the same transaction, as a worker does."""

    def end(job: Job, *messages: str) -> None:
        make_lines(store, job, messages)
        ended = {"status": JobStatus.COMPLETED, "finished_at": NOON}
        store.execute(update(Job).where(Job.id == job.id).values(ended))
        store.commit()

    return end


def path(job: Job) -> str:
    return f"/jobs/{job.job_id}/logs?follow=1"


def messages(listener: Listener, count: int) -> list[str]:
    return [event.data["message"] for event in listener.take(count)]


@pytest.fixture
def follow(listen: Listen, write: Write, look: Look) -> Follow:
    """Let a person follow a job until they are waiting for what comes."""

    def started(person: Person, job: Job) -> Listener:
        listener = listen(person, path(job))
        for step in ("what is there", "what comes"):
            write(job, step)
            look()
            assert messages(listener, 1) == [step]
        return listener

    return started


def test_what_is_there_comes_first_and_then_what_is_written(
    person: MakePerson, listen: Listen, job_of: JobOf, write: Write, look: Look
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    first = write(job, "one", "two")
    listener = listen(ann, path(job))

    there = listener.take(2)
    third = write(job, "three")
    look()
    come = listener.next()

    assert [event.id for event in [*there, come]] == first + third
    assert come.name == "log"
    assert come.data == {
        "at": "2026-01-15T12:00:00Z",
        "attempt": 1,
        "level": "info",
        "message": "three",
    }


def test_the_stream_ends_after_the_last_line_of_a_job_that_has_finished(
    person: MakePerson, job_of: JobOf, finish: Finish, streams: Streams, follow: Follow
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    listener = follow(ann, job)

    finish(job, "two", "three")
    streams.poll()

    *lines, end = listener.rest()
    assert [line.data["message"] for line in lines] == ["two", "three"]
    assert (end.name, end.data) == ("end", {"status": "completed"})


def test_a_message_of_the_end_is_enough(
    person: MakePerson, job_of: JobOf, finish: Finish, streams: Streams, follow: Follow
) -> None:
    ann = person("ann")
    jobs = [job_of(ann.user) for _ in range(2)]
    listener, other = (follow(ann, job) for job in jobs)

    for job in jobs:
        finish(job, "last words")
    move = {"owner_id": ann.user.id, "job_id": jobs[0].job_id, "status": "completed"}
    streams.hear({"kind": "moves", "moves": [move]})

    assert [event.name for event in listener.rest()] == ["log", "end"]
    unaware = gevent.spawn(other.rest)
    gevent.sleep(0)
    assert not unaware.ready()
    unaware.kill()


def test_the_log_of_a_finished_job_is_told_at_once_in_pages(
    person: MakePerson, listen: Listen, job_of: JobOf, write: Write, streams: Streams
) -> None:
    ann = person("ann")
    job = job_of(ann.user, JobStatus.COMPLETED)
    numbers = write(job, *(["x"] * (2 * streams.lines.growth.at_once + 1)))

    *lines, end = listen(ann, path(job)).rest()

    assert [line.id for line in lines] == numbers
    assert end.name == "end"


def test_a_follower_that_comes_back_is_told_what_follows_the_last_line_it_knows(
    person: MakePerson, listen: Listen, job_of: JobOf, write: Write
) -> None:
    ann = person("ann")
    job = job_of(ann.user, JobStatus.FAILED)
    known, *missed = write(job, "one", "two", "three")

    *lines, _ = listen(ann, path(job), after=known).rest()

    assert [line.id for line in lines] == missed


def test_a_page_of_the_log_can_be_followed_on_from(
    person: MakePerson, listen: Listen, job_of: JobOf, write: Write
) -> None:
    ann = person("ann")
    job = job_of(ann.user, JobStatus.FAILED)
    write(job, "one", "two", "three")
    page = ann.get(f"/jobs/{job.job_id}/logs?limit=2").json

    *lines, _ = listen(ann, f"{path(job)}&cursor={page['next_cursor']}").rest()

    assert [line.data["message"] for line in lines] == ["three"]


def test_a_line_is_told_once_and_in_order_around_a_transaction_held_open(
    person: MakePerson,
    job_of: JobOf,
    write: Write,
    finish: Finish,
    look: Look,
    streams: Streams,
    committed_engine: Engine,
    follow: Follow,
) -> None:
    """Two attempts write at a time: the first was given up and does not know it yet."""
    ann = person("ann")
    job = job_of(ann.user)
    listener = follow(ann, job)
    with Session(committed_engine) as slow:
        make_line(slow, job, "two", attempt=1)
        write(job, "three")
        look()
        slow.commit()
    look()

    assert messages(listener, 2) == ["two", "three"]
    finish(job, "four")
    look()
    streams.poll()
    assert [event.name for event in listener.rest()] == ["log", "end"]


def test_a_job_that_runs_again_at_once_is_followed_on(
    person: MakePerson, job_of: JobOf, write: Write, look: Look, streams: Streams, follow: Follow
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    listener = follow(ann, job)

    streams.waits.ring_all()  # it had finished, and was run again before anybody looked
    write(job, "two")
    look()

    assert messages(listener, 1) == ["two"]


def test_lines_of_others_are_not_told(
    person: MakePerson, job_of: JobOf, write: Write, look: Look, follow: Follow
) -> None:
    ann = person("ann")
    job, other = job_of(ann.user), job_of(ann.user)
    listener = follow(ann, job)

    write(other, "not this")
    write(job, "two")
    look()

    assert messages(listener, 1) == ["two"]


@pytest.mark.parametrize("role", [Role.USER, Role.VIEWER])
def test_a_job_one_may_not_see_is_not_found_before_the_stream_begins(
    person: MakePerson, job_of: JobOf, role: Role
) -> None:
    job = job_of(person("ann").user, job_id="anns")
    bob = person("bob", role)

    answers = [
        bob.get(where, headers={"Accept": EVENTS}) for where in (path(job), "/jobs/x/logs?follow=1")
    ]

    assert [(one.status_code, one.json["code"]) for one in answers] == [(404, "not_found")] * 2


def test_an_operator_says_whose_job_is_meant(
    person: MakePerson, listen: Listen, job_of: JobOf, write: Write
) -> None:
    olga = person("olga", Role.OPERATOR)
    for name in ("ann", "bob"):
        job = job_of(person(name).user, JobStatus.COMPLETED, job_id="same")
        write(job, f"{name} wrote this")

    unclear = olga.get("/jobs/same/logs?follow=1")
    lines = listen(olga, "/jobs/same/logs?follow=1&owner=bob").rest()

    assert (unclear.status_code, unclear.json["code"]) == (409, "ambiguous_job_id")
    assert lines[0].data["message"] == "bob wrote this"


def test_a_process_that_stops_ends_no_log(
    person: MakePerson, job_of: JobOf, write: Write, streams: Streams, follow: Follow, look: Look
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    listener = follow(ann, job)
    [number] = write(job, "one")
    look()
    listener.next()

    streams.stop()

    assert [(one.name, one.data) for one in listener.rest()] == [("resume", {"seq": number})]


def test_nothing_is_held_for_who_has_gone(
    person: MakePerson, job_of: JobOf, streams: Streams, follow: Follow
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    listener = follow(ann, job)
    assert streams.waits

    listener.answer.close()

    assert not streams.waits
    assert not streams.lines._outlets
