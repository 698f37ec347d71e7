"""Live events over Socket.IO, namespace ``/``: who may listen, and to what.

The server decides on rooms; a client never names one.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask, current_app, request
from flask_socketio import Namespace, join_room, leave_room
from socketio.exceptions import ConnectionRefusedError as Refused
from sqlalchemy.exc import SQLAlchemyError

from scheduler import clock
from scheduler.errors import JobNotFound
from scheduler.settings import Settings
from scheduler.states import Role, Scope
from webapp import access, live_messages, queries
from webapp.access import Account
from webapp.audience import (
    ALL,
    FLEET,
    Audience,
    Client,
    Named,
    client_by_token,
    client_of_request,
    log_room,
    user_room,
)
from webapp.errors import Problem
from webapp.extensions import db, socketio
from webapp.live_messages import Message
from webapp.relay import Relay
from webapp.streams.home import streams_of
from webapp.views import reads

REPLAY_LIMIT = 500
"""Changes a client that was away is told; after more it is to load the page again."""

REPLAY_OVERLAP = 100
"""Numbers are given before a commit, so a change may appear behind one told already."""

_MESSAGE_LIMIT = 16 * 1024
_PING_EVERY, _PING_PATIENCE = 10, 8

_EXTENSION = "fairq_live"


def init_app(app: Flask, settings: Settings) -> None:
    """Let *app* answer Socket.IO. Nothing is relayed before ``start``."""
    socketio.init_app(
        app,
        async_mode="gevent",
        async_handlers=False,  # what a client says is dealt with in turn: it starts no greenlets
        max_http_buffer_size=_MESSAGE_LIMIT,
        ping_interval=_PING_EVERY,
        ping_timeout=_PING_PATIENCE,
        logger=False,
    )
    audience = Audience()
    server = socketio.server
    relay = Relay(
        app,
        settings,
        audience,
        functools.partial(_emit, server),
        functools.partial(server.disconnect, namespace="/"),
        streams_of(app),
    )
    app.extensions[_EXTENSION] = relay, audience
    socketio.on_namespace(_Live("/"))


def start(app: Flask) -> None:
    """Begin to carry what happens to the clients of *app*; only a serving process does."""
    relay_of(app).start()


def relay_of(app: Flask) -> Relay:
    """Return what carries events to the clients of *app*."""
    relay: Relay = app.extensions[_EXTENSION][0]
    return relay


class _Live(Namespace):  # type: ignore[misc]  # Flask-SocketIO ships no annotations
    """What a client may say: connect, ask for more, follow the log of a job."""

    def on_connect(self, auth: object = None) -> None:
        """Let in who has a session or a token with the scope read, and tell what they missed.

        *auth* may hold ``token``, ``seq`` (the last change the client knows) and ``all``.
        """
        given = auth if isinstance(auth, Mapping) else {}
        client = _admit(given.get("token"))
        account, sid = client.account, _sid()
        _audience().arrive(sid, client)
        join_room(user_room(account.id))
        everybody = bool(given.get("all")) and account.sees_everybody
        if everybody:
            _watch(ALL)
        relay = relay_of(current_app)
        relay.expect(account.id)
        _catch_up(account, given.get("seq"), everybody=everybody)
        self._say("live", {"state": "live" if relay.is_connected else "away"})

    def on_disconnect(self, _: object = None) -> None:
        """Forget who has gone."""
        _audience().leave(_sid())

    def on_fleet(self, _: object = None) -> Message:
        """Tell an operator the state of the fleet every second."""
        client = _audience().client(_sid())
        if client is None or not client.account.has_role(Role.OPERATOR):
            return _refusal("forbidden")
        _watch(FLEET)
        return {"ok": True}

    def on_follow(self, wanted: object = None) -> Message:
        """Send the lines of a job the client may see, as they are written."""
        named = _named(wanted)
        room = None if named is None else _log_room(*named)
        if named is None or room is None:
            return _refusal("not_found")
        if not _audience().follow(_sid(), named, room):
            return _refusal("too_many")
        join_room(room)
        return {"ok": True}

    def on_unfollow(self, wanted: object = None) -> Message:
        """Send no more lines of a job, which is named as it was for following."""
        named = _named(wanted)
        room = None if named is None else _audience().unfollow(_sid(), named)
        if room is not None:
            leave_room(room)
        return {"ok": True}

    def _say(self, event: str, body: Message) -> None:
        self.socketio.emit(event, body, to=_sid(), namespace="/")


def _admit(token: object) -> Client:
    """Return who connects. Refuses everybody else, and never says why in detail."""
    try:
        client = _identify(token)
    except Problem as problem:
        raise Refused("unauthenticated", {"code": problem.code}) from problem
    except SQLAlchemyError as outage:
        raise Refused("unavailable", {"code": "unavailable"}) from outage
    if client is None or Scope.READ not in client.account.scopes:
        raise Refused("unauthenticated", {"code": "unauthenticated"})
    return client


def _identify(token: object) -> Client | None:
    if token is None:
        return client_of_request()
    return client_by_token(token, clock.now()) if isinstance(token, str) else None


def _catch_up(account: Account, seq: object, *, everybody: bool) -> None:
    """Tell a client that was away what it missed, or to load the page again."""
    if not isinstance(seq, int) or isinstance(seq, bool) or not 0 <= seq < 2**63:
        return
    owner_id = None if everybody else account.id
    session, sid = db.session(), _sid()
    moves = reads.moves_since(
        session, owner_id, max(seq - REPLAY_OVERLAP, 0), limit=REPLAY_LIMIT + REPLAY_OVERLAP + 1
    )
    if sum(move["seq"] > seq for move in moves) > REPLAY_LIMIT:
        socketio.emit("reload", {"seq": moves[-1]["seq"]}, to=sid, namespace="/")
        return
    names = queries.names_of(session, {move["owner_id"] for move in moves})
    for change in live_messages.replay(moves, names):
        socketio.emit("job", change, to=sid, namespace="/")
    missed = [one for one in moves if one["seq"] > seq and one["owner_id"] == account.id]
    for note in filter(None, map(live_messages.notification, missed)):
        socketio.emit("notification", note, to=sid, namespace="/")


def _named(wanted: object) -> Named | None:
    """Return which job a client means, None for nonsense."""
    if not isinstance(wanted, Mapping):
        return None
    job_id, owner = wanted.get("job_id"), wanted.get("owner")
    if not isinstance(job_id, str) or not isinstance(owner, str | None) or "\0" in job_id:
        return None
    return job_id, owner


def _log_room(job_id: str, owner: str | None) -> str | None:
    """Return the room for the log of a job, None for one the client may not see."""
    client = _audience().client(_sid())
    if client is None:
        return None
    try:
        job = access.find_job(client.account, job_id, owner)
    except (JobNotFound, Problem):
        return None
    return log_room(job.owner_id, job.job_id)


def _watch(what: str) -> None:
    join_room(what)
    _audience().watch(_sid(), what)


def _refusal(code: str) -> Message:
    return {"ok": False, "code": code}


def _sid() -> str:
    sid: str = request.sid  # type: ignore[attr-defined]  # Flask-SocketIO puts it there
    return sid


def _emit(server: Any, event: str, body: Message, rooms: Sequence[str] | None) -> None:
    server.emit(event, body, to=rooms, namespace="/")


def _audience() -> Audience:
    audience: Audience = current_app.extensions[_EXTENSION][1]
    return audience
