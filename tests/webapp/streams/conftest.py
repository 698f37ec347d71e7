"""Streams of an application in this process: a test says when it looks."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from scheduler.models import Job, User
from scheduler.states import JobStatus
from tests.factories import make_event, make_job
from tests.webapp.conftest import Person
from tests.webapp.streams.events import Event, parse
from webapp.extensions import db
from webapp.streams.home import Streams, streams_of

EVENTS = "text/event-stream"


class Listener:
    """Somebody who reads a stream, as far as the test wants."""

    def __init__(self, answer: TestResponse) -> None:
        self.answer = answer
        self._events = parse(answer.iter_encoded())

    def next(self) -> Event:
        return next(self._events)

    def take(self, count: int) -> list[Event]:
        return [self.next() for _ in range(count)]

    def until(self, name: str) -> list[Event]:
        """Return what comes before an event of a name, and that event."""
        events = [self.next()]
        while events[-1].name != name:
            events.append(self.next())
        return events

    def rest(self) -> list[Event]:
        return list(self._events)


Listen = Callable[..., Listener]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Let a person open a stream; it has begun, and nothing of it is read."""
    answers: list[TestResponse] = []

    def open_stream(
        person: Person, path: str = "/jobs/stream", *, after: int | None = None
    ) -> Listener:
        headers = {"Accept": EVENTS}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        answers.append(person.get(path, headers=headers))
        assert answers[-1].status_code == 200, answers[-1].text
        return Listener(answers[-1])

    yield open_stream
    for answer in answers:
        answer.close()


@pytest.fixture
def streams(app: Flask) -> Streams:
    return streams_of(app)


@pytest.fixture
def look(app: Flask, streams: Streams) -> Callable[[], None]:
    """Read what is new, as the relay does."""

    def step() -> None:
        with app.app_context():
            for tail in (streams.moves, streams.lines):
                tail.step(db.session())

    return step


@pytest.fixture
def job_of(store: Session) -> Callable[..., Job]:
    def make(owner: User, status: JobStatus = JobStatus.RUNNING, **columns: object) -> Job:
        job = make_job(store, owner, status, **columns)
        store.commit()
        return job

    return make


@pytest.fixture
def move(store: Session) -> Callable[..., int]:
    """Write down a move of a job, and return its number."""

    def make(job: Job, **columns: object) -> int:
        event = make_event(store, job, **columns)
        store.commit()
        return event.seq

    return make
