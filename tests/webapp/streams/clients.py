"""Clients of streams over real sockets, each read by a thread of its own."""

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

import websocket

from tests.services import eventually
from tests.webapp.streams.events import Event, parse


class Reader:
    """Collects what a stream says until it ends."""

    def __init__(self, events: Callable[[], Iterator[Event]], close: Callable[[], None]) -> None:
        self.heard: list[Event] = []
        self.problem: Exception | None = None
        self._events = events
        self._close = close
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._close()
        self._thread.join(10)

    def ids(self, name: str = "job") -> list[int | None]:
        return [event.id for event in self.heard if event.name == name]

    def wait_for(self, name: str, count: int = 1) -> list[Event]:
        """Return the events of a name, once there are so many."""
        return eventually(lambda: self._of(name, count), saying=lambda: str(self.heard))

    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def _of(self, name: str, count: int) -> list[Event]:
        found = [event for event in list(self.heard) if event.name == name]
        return found if len(found) >= count else []

    def _run(self) -> None:
        try:
            for event in self._events():
                self.heard.append(event)
        except Exception as problem:  # noqa: BLE001 - the test looks at it
            self.problem = problem


def events_of(url: str, token: str, path: str = "/jobs/stream", after: int | None = None) -> Reader:
    """Listen to server-sent events."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    if after is not None:
        headers["Last-Event-ID"] = str(after)
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("GET", path, headers=headers)

    def read() -> Iterator[Event]:
        with connection.getresponse() as answer:
            assert answer.status == 200
            yield from parse(iter(lambda: answer.read1(65_536), b""))

    def shut() -> None:
        # A thread that reads does not notice that the connection is closed.
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()

    return Reader(read, shut)


class Socket(Reader):
    """A WebSocket; ``closed`` is the code and the reason it was closed with."""

    def __init__(self, url: str, path: str = "/jobs/stream", **options: Any) -> None:
        address = url.replace("http", "ws", 1) + path
        self.socket = websocket.create_connection(address, timeout=60, **options)
        self.closed: tuple[int, str] | None = None
        super().__init__(self._messages, self._shut)

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def _messages(self) -> Iterator[Event]:
        while True:
            # Frame by frame: the library answers a close, and fails where nobody reads that.
            frame = self.socket.recv_frame()
            if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
                self.closed = int.from_bytes(frame.data[:2]), frame.data[2:].decode()
                return
            if frame.opcode == websocket.ABNF.OPCODE_PING:
                self.socket.pong(frame.data)
            elif frame.opcode == websocket.ABNF.OPCODE_TEXT:
                told = json.loads(frame.data)
                yield Event(told["event"], told["data"], told.get("id"))

    def _shut(self) -> None:
        # Not ``close``, which reads for an answer, as the thread does.
        with suppress(OSError, AttributeError):
            self.socket.sock.shutdown(socket.SHUT_RDWR)
        self.socket.shutdown()


def raw_stream(url: str, token: str, *, buffer: int | None = None) -> socket.socket:
    """Ask for server-sent events over a socket that nobody reads unasked."""
    address = urlsplit(url)
    client = socket.socket()
    if buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.settimeout(30)
    client.connect((address.hostname, address.port))
    client.sendall(
        f"GET /jobs/stream HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    return client


def read_until(client: socket.socket, mark: bytes) -> bytes:
    """Read up to an event, and that event."""
    read = b""
    while mark not in read or not read.partition(mark)[2].endswith(b"\n\n\r\n"):
        received = client.recv(65_536)
        assert received, read
        read += received
    return read
