"""Answers that last: what Flask hands to the server for a stream."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from flask import Response, current_app, request
from werkzeug.wsgi import ClosingIterator

from scheduler import clock
from scheduler.models import Job
from scheduler.states import Scope
from webapp import access
from webapp.audience import client_of_request
from webapp.connection import connection_of
from webapp.cursors import read_cursor
from webapp.errors import Problem, unauthenticated
from webapp.services import services
from webapp.streams import channel, opening
from webapp.streams.home import streams_of
from webapp.streams.opening import MakeStream, Wanted
from webapp.streams.outlet import Outlet
from webapp.streams.stream import LineStream, MoveStream, Stream
from webapp.streams.waits import Awaited
from webapp.streams.wire import Wire

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

EVENTS = "text/event-stream"


class _Upgraded(Response):
    """An answer that switches protocols: what follows its headers is no body of HTTP."""

    def get_app_iter(self, _: "WSGIEnvironment") -> Iterable[bytes]:
        """Return the frames, where Werkzeug would say that such an answer has no body."""
        return ClosingIterator(self.iter_encoded(), self.close)


def asks_for_events() -> bool:
    """Tell whether a stream of server-sent events is asked for, and not merely taken too."""
    return request.accept_mimetypes.best_match(["application/json", EVENTS]) == EVENTS


def follow_moves(owner: str | None) -> Response:
    """Answer with the changes of the caller's jobs as server-sent events."""
    owner_id, wanted = access.whose(access.require(Scope.READ), owner), _wanted(owner)
    streams = streams_of(current_app)

    def make(outlet: Outlet, wire: Wire) -> Stream:
        return MoveStream(
            streams,
            outlet,
            wire,
            owner_id=owner_id,
            after=wanted.after,
            kept_since=wanted.kept_since,
        )

    return _events(make)


def follow_log(job: Job, cursor: str | None) -> Response:
    """Answer with the lines of a job as server-sent events, from the last one the client knows."""
    known = opening.resume_point(request)
    after = read_cursor(cursor) if known is None and cursor is not None else known or 0
    streams, awaited = streams_of(current_app), Awaited.of(job)
    return _events(lambda outlet, wire: LineStream(streams, outlet, wire, job=awaited, after=after))


def converse(owner: str | None) -> Response:
    """Switch to a WebSocket, and answer there with the changes of the caller's jobs."""
    headers = channel.accept(request.headers)
    client = opening.client_present(request)
    if client is not None:
        access.whose(client.account, owner)
    streams, connection = streams_of(current_app), connection_of(request)
    if not connection.can_upgrade:
        raise Problem("bad_request", "This server does not carry WebSockets.")
    frames = opening.moves_over_websocket(streams, connection, client, _wanted(owner))
    response = _Upgraded(frames, status=101, headers=headers)
    del response.headers["Content-Type"]
    return response


def _wanted(owner: str | None) -> Wanted:
    kept_since = clock.now() - services().settings.keep_finished
    return Wanted(owner, opening.resume_point(request), kept_since)


def _events(make: MakeStream) -> Response:
    client = client_of_request()
    if client is None:
        raise unauthenticated("This needs a signed-in session or a token.")
    streams, connection = streams_of(current_app), connection_of(request)
    place = ExitStack()
    place.enter_context(streams.place_of(client.account.id))
    chunks = opening.as_events(streams, connection, client, make)
    # Proxies that buffer answers are told not to.
    response = Response(chunks, content_type=EVENTS, headers={"X-Accel-Buffering": "no"})
    response.call_on_close(place.close)
    return response
