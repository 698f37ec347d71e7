"""What an answer that lasts may ask of the connection under it."""

from flask import Request

ENVIRON_KEY = "fairq.connection"


class Connection:
    """A connection of which nothing is known: what a server offers that is not ours."""

    can_upgrade = False

    def lasts(self) -> None:
        """Note that this answer goes on until somebody ends it, so that nobody waits for it."""

    def is_there(self) -> bool:
        """Tell whether the client still waits for its answer; True where that is not known."""
        return True

    def read(self, size: int) -> bytes:
        """Return what the client sent after its request, *size* bytes at most; none at the end."""
        raise NotImplementedError

    def sever(self) -> None:
        """End the connection, whatever is being sent."""


def connection_of(request: Request) -> Connection:
    """Return the connection that *request* came by."""
    found: Connection = request.environ.get(ENVIRON_KEY) or Connection()
    return found
