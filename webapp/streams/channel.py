"""A stream over a WebSocket: the handshake, what the client says, and frames.

``wsproto`` knows the protocol and does no I/O. Only the greenlet that answers the request writes,
so that frames never mix; the one that reads leaves replies for it.
"""

import base64
import binascii
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from werkzeug.datastructures import Headers
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Event, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

from webapp.errors import Problem
from webapp.streams.outlet import Ending

VERSION = "13"
MESSAGE_LIMIT = 4096
"""Characters of the only message that a client has to say."""

_READ_BYTES = 4096
_KEY_BYTES = 16

_CODES = {
    Ending.DONE: CloseReason.NORMAL_CLOSURE,
    Ending.GONE: CloseReason.NORMAL_CLOSURE,
    Ending.SLOW: CloseReason.TRY_AGAIN_LATER,
    Ending.OUTAGE: CloseReason.TRY_AGAIN_LATER,
    Ending.STOPPING: CloseReason.GOING_AWAY,
    Ending.UNWELCOME: CloseReason.POLICY_VIOLATION,
}


def is_asked_for(headers: Headers) -> bool:
    """Tell whether a request wants to become a WebSocket."""
    return (headers.get("Upgrade") or "").lower() == "websocket"


def accept(headers: Headers) -> dict[str, str]:
    """Return the headers that complete a handshake. Raises a 400 problem for a wrong one."""
    key = headers.get("Sec-WebSocket-Key", "").strip()
    upgrades = "upgrade" in (headers.get("Connection") or "").lower()
    if not (upgrades and headers.get("Sec-WebSocket-Version") == VERSION and _is_key(key)):
        raise Problem(
            "bad_request",
            f"This is no handshake of the WebSocket protocol, version {VERSION}.",
            headers={"Sec-WebSocket-Version": VERSION},
        )
    return {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": generate_accept_token(key.encode()).decode(),
    }


class Channel:
    """One WebSocket after its handshake, as a wire for a stream."""

    def __init__(
        self,
        read: Callable[[int], bytes],
        *,
        on_news: Callable[[], None],
        on_end: Callable[[Ending], None],
    ) -> None:
        """Take how to read, and whom to tell that there is something to do or that it is over."""
        self._read = read
        self._on_news = on_news
        self._on_end = on_end
        self._frames = Frames(ConnectionType.SERVER)
        self._said = ""
        self._ping: Ping | None = None
        self._parting: CloseConnection | None = None
        self._is_heard = True
        self.opening: str | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take what the client sends while the block runs."""
        reader = gevent.spawn(self._listen)
        try:
            yield
        finally:
            reader.kill()

    def begin(self) -> bytes:
        """Ping, which also sends the headers on their way."""
        return self._frames.send(Ping())

    def tell(self, name: str, number: int | None, body: bytes) -> bytes:
        """Write an event as one message."""
        mark = "" if number is None else f'"id":{number},'
        return self._send(TextMessage(f'{{"event":"{name}",{mark}"data":{body.decode()}}}'))

    def replies(self) -> bytes:
        """Answer the last ping; of several in a row one answer is enough."""
        ping, self._ping = self._ping, None
        return b"" if ping is None else self._send(ping.response())

    def keep_alive(self) -> bytes:
        """Ping. A client that said nothing since the last one has gone."""
        if not self._is_heard:
            self._on_end(Ending.GONE)
            return b""
        self._is_heard = False
        return self._send(Ping())

    def farewell(self, ending: Ending) -> bytes:
        """Close with the code for *ending*, or answer the client's own close."""
        return self._close(self._parting or CloseConnection(_CODES[ending], str(ending)))

    def refuse(self, code: str) -> bytes:
        """Close because of what the client said, or did not say; *code* is that of a problem."""
        refusal = CloseConnection(CloseReason.POLICY_VIOLATION, code)
        return self._close(self._parting or refusal)

    def _close(self, parting: CloseConnection) -> bytes:
        open_to_us = {ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING}
        return self._frames.send(parting) if self._frames.state in open_to_us else b""

    def _send(self, event: Event) -> bytes:
        return self._frames.send(event) if self._frames.state is ConnectionState.OPEN else b""

    def _listen(self) -> None:
        while data := self._read(_READ_BYTES):
            self._is_heard = True
            self._frames.receive_data(data)
            for event in self._frames.events():
                self._take(event)
        self._on_end(Ending.GONE)

    def _take(self, event: Event) -> None:
        if isinstance(event, Ping):
            self._ping = event
            self._on_news()
        elif isinstance(event, CloseConnection):
            # The client's, which is answered in kind, or what a broken frame is answered with.
            self._parting = event
            self._on_end(Ending.GONE)
        elif isinstance(event, Message) and self.opening is None:
            self._hear(event)

    def _hear(self, part: Message[Any]) -> None:
        """Put the first message together; nothing that follows it means anything."""
        self._said += part.data if isinstance(part, TextMessage) else "\0"
        if part.message_finished or len(self._said) > MESSAGE_LIMIT:
            self.opening = self._said
            self._on_news()


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False
