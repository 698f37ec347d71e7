"""How a stream begins: who asks for it, where it resumes, and what carries it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flask import Request
from sqlalchemy.exc import SQLAlchemyError

from scheduler import clock
from scheduler.states import Scope
from webapp import access
from webapp.audience import Client, client_by_token, client_of_request
from webapp.bodies import parse_body
from webapp.connection import Connection
from webapp.errors import FieldError, Problem
from webapp.schemas.streams import StreamOpening
from webapp.streams.channel import Channel
from webapp.streams.home import Streams
from webapp.streams.outlet import Ending, Outlet
from webapp.streams.stream import MoveStream, Stream
from webapp.streams.wire import ServerSentEvents, Wire

MakeStream = Callable[[Outlet, Wire], Stream]

PROOF_PATIENCE = timedelta(seconds=5)
"""How long a WebSocket may stay open without saying whose it is."""

RESUME_PATIENCE = timedelta(seconds=2)
"""How long one that proved who it is has to say where to resume, before it starts from now."""

_LAST_EVENT_ID = "Last-Event-ID"
_NUMBERS = 2**63
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The changes somebody asks for: whose, and after which. Before *kept_since* some are gone."""

    owner: str | None
    after: int | None
    kept_since: datetime


def resume_point(request: Request) -> int | None:
    """Return the last event the client knows, None if it names none. Raises a 422 problem."""
    given = request.headers.get(_LAST_EVENT_ID, "")
    if not given:
        return None
    if not (given.isascii() and given.isdecimal() and int(given) < _NUMBERS):
        message = "must be the id of an event"
        raise Problem(
            "validation_failed",
            f"{_LAST_EVENT_ID} {message}.",
            (FieldError(_LAST_EVENT_ID, message),),
        )
    return int(given)


def client_present(request: Request) -> Client | None:
    """Return who opens a WebSocket, None if that has yet to be proved.

    A session proves nothing to pages of other origins: their browser sends it along unasked.
    Raises a 401 or 403 problem for credentials in a header that do not suffice.
    """
    client = client_of_request()
    if client is None or (client.account.by_session and not is_same_origin(request)):
        return None
    _check_scope(client)
    return client


def is_same_origin(request: Request) -> bool:
    """Tell whether the page that makes a request came from this server, as its browser sees it."""
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
    return request.headers.get("Origin", "").lower() == f"{scheme}://{request.host}".lower()


def as_events(
    streams: Streams, connection: Connection, client: Client, make: MakeStream
) -> Iterator[bytes]:
    """Yield a stream as server-sent events."""
    outlet, wire = Outlet(connection.sever), ServerSentEvents()
    connection.lasts()
    with streams.attended(outlet) as name:
        streams.admit(name, client)
        with closing(make(outlet, wire)) as stream:
            stream.prepare()
            yield wire.begin()
            yield from stream.run()


def moves_over_websocket(
    streams: Streams, connection: Connection, client: Client | None, wanted: Wanted
) -> Iterator[bytes]:
    """Yield changes as messages, once it is known who asks and where to resume."""
    outlet = Outlet(connection.sever)
    channel = Channel(connection.read, on_news=outlet.ring, on_end=outlet.end)
    connection.lasts()
    with streams.attended(outlet) as name, channel.listening(), ExitStack() as held:
        try:
            # The stream of one who is known starts now, whenever their first message comes.
            now = None if client is None else _now(streams)
            yield channel.begin()
            said = _first_message(outlet, channel, client)
            client, owner_id = _proved(streams, client, said, wanted.owner)
            held.enter_context(streams.place_of(client.account.id))
        except Problem as problem:
            ending = outlet.ending
            yield channel.refuse(problem.code) if ending is None else channel.farewell(ending)
        except SQLAlchemyError:
            yield channel.farewell(Ending.OUTAGE)
        else:
            streams.admit(name, client)
            after, kept_since = _place(said, wanted, now)
            stream = MoveStream(
                streams, outlet, channel, owner_id=owner_id, after=after, kept_since=kept_since
            )
            with closing(stream):
                stream.prepare()
                yield from stream.run()


def _now(streams: Streams) -> int | None:
    with streams.reading() as session:
        streams.moves.step(session)
    return streams.moves.reach


def _first_message(outlet: Outlet, channel: Channel, client: Client | None) -> StreamOpening:
    patience = PROOF_PATIENCE if client is None else RESUME_PATIENCE
    deadline = time.monotonic() + patience.total_seconds()
    while channel.opening is None and outlet.ending is None:
        left = deadline - time.monotonic()
        if left <= 0:
            return StreamOpening()
        outlet.wait(timedelta(seconds=left))
    return parse_body(StreamOpening, (channel.opening or "{}").encode())


def _place(said: StreamOpening, wanted: Wanted, now: int | None) -> tuple[int | None, datetime]:
    """Return after which event the stream goes on, and how old events behind it may be."""
    after = wanted.after if said.last_event_id is None else said.last_event_id
    if after is None:
        return now, _LONG_AGO  # nothing has been deleted since then
    return after, wanted.kept_since


def _proved(
    streams: Streams, client: Client | None, said: StreamOpening, owner: str | None
) -> tuple[Client, int | None]:
    """Return who listens, and to whose changes. Raises a problem if that is not allowed."""
    with streams.reading():
        if said.token is not None:
            client = client_by_token(said.token, clock.now())
        if client is None:
            raise Problem("unauthenticated", "Nobody has said whose stream this is to be.")
        _check_scope(client)
        return client, access.whose(client.account, owner)


def _check_scope(client: Client) -> None:
    if Scope.READ not in client.account.scopes:
        raise Problem("insufficient_scope", f"This needs a token with the scope {Scope.READ}.")
