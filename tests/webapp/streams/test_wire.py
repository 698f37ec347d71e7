"""What server-sent events look like."""

import json

from tests.webapp.streams.events import Event, comments, parse
from webapp.streams.outlet import Ending
from webapp.streams.wire import ServerSentEvents

WIRE = ServerSentEvents()


def test_an_event_carries_its_number_as_its_id() -> None:
    chunk = WIRE.tell("job", 7, b'{"seq":7}')

    assert chunk == b'id: 7\nevent: job\ndata: {"seq":7}\n\n'
    assert list(parse([chunk])) == [Event("job", {"seq": 7}, 7)]


def test_an_event_without_a_number_leaves_the_last_one_in_force() -> None:
    chunks = [WIRE.tell("job", 7, b"{}"), WIRE.tell("resume", None, b"{}")]

    assert [event.id for event in parse(chunks)] == [7, 7]


def test_lines_within_a_value_do_not_break_the_event() -> None:
    body = json.dumps({"message": "one\ntwo\r\n\n"}).encode()

    assert [one.data for one in parse([WIRE.tell("log", 1, body)])] == [
        {"message": "one\ntwo\r\n\n"}
    ]


def test_what_is_no_event_is_none() -> None:
    chunks = [WIRE.begin(), WIRE.keep_alive(), WIRE.replies(), WIRE.farewell(Ending.DONE)]

    assert list(parse(chunks)) == []
    assert list(comments(chunks)) == ["still here"]
