"""Connections on which nobody says anything any more."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import gevent
import pytest
from flask import Flask, request
from gevent import socket

from scheduler.settings import Settings
from webapp import server as server_module
from webapp.connection import connection_of
from webapp.server import Server

QUICKLY = timedelta(milliseconds=100)
REQUEST = b"GET /slow HTTP/1.1\r\nHost: fairq\r\n\r\n"

Connect = Callable[[], socket.socket]


@pytest.fixture
def seen() -> list[int]:
    return []


@pytest.fixture
def connect(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, seen: list[int]
) -> Iterator[Connect]:
    """Connect to a server that is short of patience, with one answer that takes its time."""
    app = Flask(__name__)

    @app.get("/slow")
    def slow() -> str:
        raw = connection_of(request)._socket  # type: ignore[attr-defined]  # of our server
        seen.append(raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        gevent.sleep(2 * QUICKLY.total_seconds())
        return "done"

    monkeypatch.setattr(server_module, "SILENCE", QUICKLY)
    server = Server(app, replace(settings, host="127.0.0.1", port=0))
    server.start()
    opened: list[socket.socket] = []

    def open_one() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", server.server_port), timeout=10))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()
    server.stop(timeout=0)


@pytest.mark.parametrize("said", [b"", b"GET / HT"], ids=["nothing", "half a line"])
def test_who_begins_no_request_is_hung_up_on(connect: Connect, said: bytes) -> None:
    client = connect()
    client.sendall(said)

    assert client.recv(100) == b""


def test_who_does_not_end_the_headers_has_made_no_request(connect: Connect) -> None:
    client = connect()
    client.sendall(b"GET / HTTP/1.1\r\nHost: fairq\r\nX-")

    assert client.recv(100).startswith(b"HTTP/1.1 400")


def test_an_answer_may_take_longer_than_its_request(connect: Connect) -> None:
    client = connect()
    answers = []
    for _ in range(2):
        client.sendall(REQUEST)
        answers.append(client.recv(1000))

    assert [(one[9:12], one[-4:]) for one in answers] == [(b"200", b"done")] * 2
    assert client.recv(100) == b""


def test_a_client_that_vanishes_is_noticed(connect: Connect, seen: list[int]) -> None:
    client = connect()
    client.sendall(REQUEST)
    client.recv(1000)

    assert seen == [1]
