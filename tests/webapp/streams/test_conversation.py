"""A stream over a WebSocket: the first message proves who listens and says where to resume."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import gevent
import pytest
from gevent.queue import Queue
from sqlalchemy.orm import Session
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionType
from wsproto.events import CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

from scheduler import clock
from scheduler.models import Job
from scheduler.states import Role, Scope
from tests.factories import NOON
from tests.webapp.conftest import MakePerson, Person, add_token
from tests.webapp.streams.test_channel import HANDSHAKE
from webapp.connection import ENVIRON_KEY, Connection
from webapp.streams import home, opening
from webapp.streams import stream as stream_module
from webapp.streams.home import Streams

JobOf = Callable[..., Job]
Move = Callable[..., int]
Look = Callable[[], None]

AT_ONCE = timedelta(milliseconds=1)


class Socket(Connection):
    """Our end of a connection, in this process."""

    can_upgrade = True

    def __init__(self) -> None:
        self.sent: Queue[bytes] = Queue()
        self.read_by: gevent.Greenlet | None = None

    def read(self, _: int) -> bytes:
        self.read_by = gevent.getcurrent()
        return self.sent.get()


class Talk:
    """A client that has been answered 101."""

    def __init__(self, who: Person, path: str, headers: dict[str, str]) -> None:
        self.socket = Socket()
        self._frames = Frames(ConnectionType.CLIENT)
        self.answer = who.get(
            path, headers=HANDSHAKE | headers, environ_overrides={ENVIRON_KEY: self.socket}
        )
        assert self.answer.status_code == 101
        self._heard = self._hear()
        assert isinstance(next(self._heard), Ping)

    def say(self, message: object) -> None:
        self.say_text(json.dumps(message))

    def say_text(self, text: str) -> None:
        self.socket.sent.put(self._frames.send(TextMessage(text)))

    def hang_up(self) -> None:
        self.socket.sent.put(b"")

    def next(self) -> Any:
        """Return the next message, or how it was closed."""
        event = next(self._heard)
        while isinstance(event, Ping):
            event = next(self._heard)
        if isinstance(event, CloseConnection):
            return event.code, event.reason
        assert isinstance(event, TextMessage)
        return json.loads(event.data)

    def is_over(self) -> bool:
        return next(self._heard, None) is None

    def _hear(self) -> Iterator[Event]:
        for chunk in self.answer.iter_encoded():
            self._frames.receive_data(chunk)
            yield from self._frames.events()


MakeTalk = Callable[..., Talk]


@pytest.fixture
def talk() -> Iterator[MakeTalk]:
    talks: list[Talk] = []

    def connect(who: Person, path: str = "/jobs/stream", **headers: str) -> Talk:
        talks.append(Talk(who, path, headers))
        return talks[-1]

    yield connect
    for one in talks:
        one.answer.close()


@pytest.fixture
def stranger(person: MakePerson) -> Person:
    """Ann, before she has said who she is."""
    ann = person("ann")
    return Person(ann.user, ann.client, token=None, csrf=ann.token)


def secret_of(stranger: Person) -> str:
    assert stranger.csrf is not None
    return stranger.csrf


def test_the_first_message_may_prove_who_listens(
    stranger: Person, talk: MakeTalk, job_of: JobOf, move: Move, look: Look
) -> None:
    job = job_of(stranger.user, job_id="a")
    client = talk(stranger)

    client.say({"token": secret_of(stranger)})
    live = client.next()
    number = move(job)
    look()

    assert live == {"event": "live", "id": 0, "data": {"seq": 0}}
    told = client.next()
    assert (told["event"], told["id"], told["data"]["job_id"]) == ("job", number, "a")


def test_the_first_message_may_say_where_to_resume(
    stranger: Person, talk: MakeTalk, job_of: JobOf, move: Move
) -> None:
    job = job_of(stranger.user)
    known, missed = move(job, at=clock.now()), move(job)
    client = talk(stranger)

    client.say({"token": secret_of(stranger), "last_event_id": known})

    assert [client.next()["id"] for _ in range(2)] == [missed, missed]


@pytest.mark.parametrize("how", ["message", "header", "both"])
def test_one_who_is_known_may_say_where_to_resume(
    person: MakePerson, talk: MakeTalk, job_of: JobOf, move: Move, how: str
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    numbers = [move(job, at=clock.now()) for _ in range(3)]
    headers = {"Last-Event-ID": str(numbers[0])} if how != "message" else {}
    message = {"last_event_id": numbers[1]} if how != "header" else {}
    client = talk(ann, **headers)

    client.say(message)

    assert client.next()["id"] == (numbers[1] if how == "header" else numbers[2])


def test_the_stream_of_one_who_is_known_starts_when_they_come(
    person: MakePerson,
    talk: MakeTalk,
    job_of: JobOf,
    move: Move,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "RESUME_PATIENCE", AT_ONCE)
    ann = person("ann")
    job = job_of(ann.user)
    move(job)
    client = talk(ann)

    number = move(job)

    assert client.next()["id"] == number
    assert client.next()["event"] == "live"


def test_one_who_has_enough_streams_is_told_so(
    stranger: Person, talk: MakeTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "PER_ACCOUNT", 1)
    first, second = talk(stranger), talk(stranger)
    first.say({"token": stranger.csrf})
    assert first.next()["event"] == "live"

    second.say({"token": stranger.csrf})

    assert second.next() == (CloseReason.POLICY_VIOLATION, "rate_limited")


def test_one_who_says_nothing_is_not_waited_for_long(
    stranger: Person, talk: MakeTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "PROOF_PATIENCE", AT_ONCE)
    client = talk(stranger)

    assert client.next() == (CloseReason.POLICY_VIOLATION, "unauthenticated")
    assert client.is_over()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("{}", "unauthenticated"),
        ('{"token": "fq_wrong"}', "unauthenticated"),
        ('{"token": 7}', "validation_failed"),
        ('{"token": "\\u0000"}', "validation_failed"),
        ('{"last_event_id": -1}', "validation_failed"),
        ('{"last_event_id": "1"}', "validation_failed"),
        ('{"rooms": ["user:1"]}', "validation_failed"),
        ("[]", "validation_failed"),
        ("hello", "invalid_json"),
    ],
)
def test_a_first_message_that_is_not_good_ends_it(
    stranger: Person, talk: MakeTalk, said: str, code: str
) -> None:
    client = talk(stranger)

    client.say_text(said)

    assert client.next() == (CloseReason.POLICY_VIOLATION, code)
    assert client.is_over()


def test_only_a_good_token_that_may_read_is_let_in(
    store: Session, stranger: Person, talk: MakeTalk
) -> None:
    secrets = {
        "insufficient_scope": add_token(store, stranger.user, {Scope.SUBMIT}),
        "unauthenticated": add_token(store, stranger.user, {Scope.READ}, expires_at=NOON),
    }
    store.commit()

    for code, secret in secrets.items():
        client = talk(stranger)
        client.say({"token": secret})
        assert client.next() == (CloseReason.POLICY_VIOLATION, code)


def test_an_owner_one_may_not_see_ends_it(person: MakePerson, talk: MakeTalk) -> None:
    ann = person("ann")
    person("bob")
    client = talk(Person(ann.user, ann.client), "/jobs/stream?owner=bob")

    client.say({"token": ann.token})

    assert client.next() == (CloseReason.POLICY_VIOLATION, "unknown_owner")


def test_an_operator_hears_of_everybody_or_of_one(
    person: MakePerson, talk: MakeTalk, job_of: JobOf, move: Move, look: Look
) -> None:
    olga, ann, bob = person("olga", Role.OPERATOR), person("ann"), person("bob")
    everybody, one = talk(olga), talk(olga, "/jobs/stream?owner=bob")
    for client in (everybody, one):
        client.say({})
        assert client.next()["event"] == "live"

    for owner in (ann, bob):
        move(job_of(owner.user))
    look()

    assert [everybody.next()["data"]["owner"] for _ in range(2)] == ["ann", "bob"]
    assert one.next()["data"]["owner"] == "bob"


def test_a_token_that_was_said_is_cut_off_when_it_is_revoked(
    store: Session, stranger: Person, talk: MakeTalk, streams: Streams
) -> None:
    client = talk(stranger)
    client.say({"token": secret_of(stranger)})
    client.next()
    stranger.user.active = False
    store.merge(stranger.user)
    store.commit()

    streams.recheck(store, clock.now())

    assert client.next() == (CloseReason.POLICY_VIOLATION, "unauthenticated")
    assert client.is_over()


def test_a_process_that_stops_says_where_to_resume_and_closes(
    person: MakePerson, talk: MakeTalk, job_of: JobOf, move: Move, streams: Streams
) -> None:
    ann = person("ann")
    number = move(job_of(ann.user))
    client, opening_up, stranger = talk(ann), talk(ann), talk(Person(ann.user, ann.client))
    client.say({})
    assert client.next()["event"] == "live"

    streams.stop()

    assert client.next() == {"event": "resume", "data": {"seq": number}}
    assert client.next() == (CloseReason.GOING_AWAY, "stopping")
    assert opening_up.next() == {"event": "resume", "data": {"seq": number}}
    assert opening_up.next() == (CloseReason.GOING_AWAY, "stopping")
    assert stranger.next() == (CloseReason.GOING_AWAY, "stopping")


@pytest.mark.parametrize("started", [True, False])
def test_who_hangs_up_is_forgotten(
    person: MakePerson, talk: MakeTalk, streams: Streams, *, started: bool
) -> None:
    client = talk(person("ann"))
    if started:
        client.say({})
        client.next()

    client.hang_up()

    assert client.next() == (CloseReason.NORMAL_CLOSURE, "gone")
    assert client.is_over()
    assert not streams._outlets
    assert not streams.moves._outlets


def test_a_client_that_has_vanished_is_noticed(
    person: MakePerson, talk: MakeTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "KEEP_ALIVE", AT_ONCE)
    client = talk(person("ann"))
    client.say({})
    assert client.next()["event"] == "live"

    assert client.next() == (CloseReason.NORMAL_CLOSURE, "gone")


def test_the_reader_of_a_connection_ends_with_it(person: MakePerson, talk: MakeTalk) -> None:
    client = talk(person("ann"))
    client.say({})
    client.next()

    client.answer.close()

    assert client.socket.read_by is not None
    assert client.socket.read_by.dead
