"""A WebSocket, from the handshake to its close. The client speaks through the same library."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest
from gevent.queue import Queue
from werkzeug.datastructures import Headers
from wsproto.connection import Connection, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason

from webapp.errors import Problem
from webapp.streams.channel import MESSAGE_LIMIT, Channel, accept, is_asked_for
from webapp.streams.outlet import Ending

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the example of RFC 6455, with its answer
ACCEPTED = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


class Pair:
    """A channel, and the client at its other end."""

    def __init__(self) -> None:
        self.endings: list[Ending] = []
        self.news = 0
        self._sent: Queue[bytes] = Queue()
        self._client = Connection(ConnectionType.CLIENT)
        self.channel = Channel(
            lambda _: self._sent.get(), on_news=self._note, on_end=self.endings.append
        )

    def say(self, *events: Event) -> None:
        """Have the client say something, and let the channel take it."""
        for event in events:
            self.send(self._client.send(event))

    def send(self, data: bytes) -> None:
        self._sent.put(data)
        gevent.sleep(0)
        gevent.sleep(0)

    def hear(self, frames: bytes) -> list[Event]:
        self._client.receive_data(frames)
        return list(self._client.events())

    def _note(self) -> None:
        self.news += 1


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    with pair.channel.listening():
        gevent.sleep(0)
        yield pair


@contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(Problem) as refusal:
        yield
    assert refusal.value.code == "bad_request"
    assert refusal.value.headers["Sec-WebSocket-Version"] == "13"


def test_a_handshake_is_completed_as_the_standard_says() -> None:
    assert is_asked_for(Headers(HANDSHAKE))
    assert accept(Headers(HANDSHAKE))["Sec-WebSocket-Accept"] == ACCEPTED


@pytest.mark.parametrize(
    "wrong",
    [
        {"Connection": "keep-alive"},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Key": "c2hvcnQ="},
        {"Sec-WebSocket-Key": "not base 64 at all"},
        {"Sec-WebSocket-Key": ""},
    ],
    ids=str,
)
def test_a_wrong_handshake_is_refused(wrong: dict[str, str]) -> None:
    with refused():
        accept(Headers(HANDSHAKE | wrong))


def test_an_ordinary_request_asks_for_no_websocket() -> None:
    assert not is_asked_for(Headers())
    assert not is_asked_for(Headers({"Upgrade": "h2c"}))


def test_an_event_is_one_message(pair: Pair) -> None:
    [message] = pair.hear(pair.channel.tell("job", 7, b'{"job_id":"\xc3\xa9"}'))

    assert isinstance(message, TextMessage)
    assert json.loads(message.data) == {"event": "job", "id": 7, "data": {"job_id": "é"}}


def test_an_event_without_a_number_has_no_id(pair: Pair) -> None:
    [message] = pair.hear(pair.channel.tell("resume", None, b"{}"))

    assert json.loads(message.data) == {"event": "resume", "data": {}}


def test_the_first_message_is_put_together_from_its_parts(pair: Pair) -> None:
    pair.say(TextMessage('{"token"', message_finished=False))
    halfway = pair.channel.opening
    pair.say(TextMessage(': "x"}'))

    assert halfway is None
    assert (pair.channel.opening, pair.news) == ('{"token": "x"}', 1)


def test_later_messages_mean_nothing(pair: Pair) -> None:
    pair.say(TextMessage("{}"), TextMessage('{"token": "x"}'))

    assert pair.channel.opening == "{}"


@pytest.mark.parametrize(
    "message",
    [BytesMessage(b"{}"), TextMessage("x" * (MESSAGE_LIMIT + 1), message_finished=False)],
    ids=["binary", "endless"],
)
def test_a_first_message_that_is_none_is_not_waited_for(pair: Pair, message: Message) -> None:
    pair.say(message)

    assert pair.channel.opening is not None
    with pytest.raises(ValueError, match="char"):
        json.loads(pair.channel.opening)


def test_a_ping_is_answered_and_of_many_the_last(pair: Pair) -> None:
    pair.say(Ping(b"one"), Ping(b"two"))

    assert pair.hear(pair.channel.replies()) == [Pong(b"two")]
    assert pair.channel.replies() == b""
    assert pair.news == 2


def test_a_client_that_answers_pings_stays(pair: Pair) -> None:
    for _ in range(3):
        [ping] = pair.hear(pair.channel.keep_alive())
        pair.say(ping.response())

    assert pair.endings == []


def test_a_client_that_answers_no_ping_has_gone(pair: Pair) -> None:
    pair.channel.keep_alive()

    assert pair.channel.keep_alive() == b""
    assert pair.endings == [Ending.GONE]


def test_a_close_is_answered_in_kind(pair: Pair) -> None:
    pair.say(CloseConnection(4001, "enough"))

    assert pair.endings == [Ending.GONE]
    assert pair.hear(pair.channel.farewell(Ending.GONE)) == [CloseConnection(4001, "enough")]
    assert pair.channel.farewell(Ending.GONE) == b""
    assert pair.channel.tell("job", 1, b"{}") == b""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (Ending.DONE, CloseReason.NORMAL_CLOSURE),
        (Ending.SLOW, CloseReason.TRY_AGAIN_LATER),
        (Ending.OUTAGE, CloseReason.TRY_AGAIN_LATER),
        (Ending.STOPPING, CloseReason.GOING_AWAY),
        (Ending.UNWELCOME, CloseReason.POLICY_VIOLATION),
    ],
)
def test_the_code_of_a_close_says_whether_to_come_back(
    pair: Pair, ending: Ending, code: CloseReason
) -> None:
    [close] = pair.hear(pair.channel.farewell(ending))

    assert isinstance(close, CloseConnection)
    assert (close.code, close.reason) == (code, str(ending))


def test_a_broken_frame_ends_it_with_the_code_for_that(pair: Pair) -> None:
    pair.send(b"\xff" * 16)

    assert pair.endings[0] is Ending.GONE
    [close] = pair.hear(pair.channel.farewell(Ending.GONE))
    assert isinstance(close, CloseConnection)
    assert close.code == CloseReason.PROTOCOL_ERROR


def test_a_connection_that_ends_is_noticed(pair: Pair) -> None:
    pair.send(b"")

    assert pair.endings == [Ending.GONE]
