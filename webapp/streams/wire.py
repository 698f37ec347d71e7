"""How what is told goes over the wire."""

from typing import Protocol

from webapp.streams.outlet import Ending

RETRY_MILLISECONDS = 1000
"""How long a browser waits before it comes back to server-sent events."""


class Wire(Protocol):
    """One way to write a stream. Every method returns what is to be sent, perhaps nothing."""

    def begin(self) -> bytes:
        """Open the stream."""

    def tell(self, name: str, number: int | None, body: bytes) -> bytes:
        """Write one event; *body* is JSON, *number* where to resume after it."""

    def replies(self) -> bytes:
        """Answer what the client said."""

    def keep_alive(self) -> bytes:
        """Write something into a long silence."""

    def farewell(self, ending: Ending) -> bytes:
        """Close the stream."""


class ServerSentEvents:
    """Lines of text, as browsers' EventSource takes them."""

    def begin(self) -> bytes:
        """Say how soon to come back; this also sends the headers on their way."""
        return f"retry: {RETRY_MILLISECONDS}\n\n".encode()

    def tell(self, name: str, number: int | None, body: bytes) -> bytes:
        """Write an event; its id is what comes back as ``Last-Event-ID``."""
        mark = b"" if number is None else b"id: %d\n" % number
        return b"%sevent: %s\ndata: %s\n\n" % (mark, name.encode(), body)

    def replies(self) -> bytes:
        """Return nothing: there is no way back."""
        return b""

    def keep_alive(self) -> bytes:
        """Write a comment, which keeps proxies and the client's patience."""
        return b": still here\n\n"

    def farewell(self, _: Ending) -> bytes:
        """Return nothing: the answer ends."""
        return b""
