"""Carries what the engine announces on Redis to the browsers of this web process.

Every web process has a relay of its own and serves its own clients, so none needs to know of the
others. What is lost while Redis is away, clients fetch again when they are told it is back.
"""

import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import gevent
from flask import Flask
from redis import Redis, RedisError
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.database import open_redis
from scheduler.events import LIVE_CHANNEL
from scheduler.settings import Settings
from webapp import live_messages, queries
from webapp.audience import ALL, FLEET, Audience, log_room, user_room
from webapp.extensions import db
from webapp.live_messages import Coalescer, Message
from webapp.services import services_of
from webapp.streams.home import Streams
from webapp.streams.tail import POLL
from webapp.views import reads

log = logging.getLogger(__name__)

TICK = timedelta(seconds=1)
"""How often queues and the fleet are told."""

FLUSH = timedelta(milliseconds=50)
"""How often changes that were held back are looked at."""

TOGETHER = timedelta(milliseconds=20)
"""How long what follows a look at a table waits, so that many changes share the next one."""

RECHECK = timedelta(seconds=30)
"""How often connections are asked whether they still may listen."""

RECOUNT = timedelta(seconds=10)
"""How often busy users are counted anew, should a message have been lost."""

MOVES_AT_ONCE = 100
"""Moves that are told in one go; requests are answered between."""

MOVES_TOLD = 500
"""Moves of one owner in a message that are told one by one; after more a page is to load again."""

_SILENCE = timedelta(seconds=5)
_BACKOFF_FIRST, _BACKOFF_MOST = timedelta(milliseconds=250), timedelta(seconds=5)


class Emit(Protocol):
    """Sends an event to everybody in some rooms, each connection once."""

    def __call__(self, event: str, body: Message, rooms: Sequence[str] | None) -> None:
        """Send; no rooms means everybody."""


class Relay:
    """One Redis subscription, one coalescer, one round a second."""

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        audience: Audience,
        emit: Emit,
        disconnect: Callable[[str], None],
        streams: Streams,
    ) -> None:
        self._app = app
        self._settings = settings
        self._audience = audience
        self._emit = emit
        self._disconnect = disconnect
        self._streams = streams
        self._coalescer = Coalescer()
        self._names: dict[int, str] = {}
        self._dirty: set[int] = set()
        self._counts: dict[int, dict[str, int]] = {}
        self.is_connected = True

    def start(self) -> None:
        """Listen, flush and tick from now on, each in a greenlet of its own."""
        streams = self._streams
        gevent.spawn(self._listen)
        gevent.spawn(self._every, TOGETHER, lambda: streams.follow(streams.moves))
        gevent.spawn(self._every, TOGETHER, lambda: streams.follow(streams.lines))
        gevent.spawn(self._every, POLL, streams.poll)
        gevent.spawn(self._every, FLUSH, lambda: self.flush(time.monotonic()))
        gevent.spawn(self._every, TICK, lambda: self.tick(clock.now()))
        gevent.spawn(self._every, RECOUNT, self._recount)
        gevent.spawn(self._every, RECHECK, lambda: self.recheck(clock.now()))

    def expect(self, account_id: int) -> None:
        """Tell a user's queue on the next round: they have just connected."""
        self._dirty.add(account_id)

    def take(self, raw: str, now: float) -> None:
        """Pass on one message of the channel."""
        message = json.loads(raw)
        self._streams.hear(message)
        match message["kind"]:
            case "moves":
                self._take_moves(message["moves"], now)
            case "progress" if self._audience.hears_of(message["owner_id"]):
                change = live_messages.of_progress(message, self._name(message["owner_id"]))
                self._offer(message, change, now)
            case "offers":
                services_of(self._app).desk.call(message["asks"])
            case "log":
                self._take_lines(message)

    def flush(self, now: float) -> None:
        """Tell what was held back long enough."""
        for (owner_id, _), change in self._coalescer.due(now=now):
            self._tell(owner_id, change)

    def tick(self, now: datetime) -> None:
        """Tell every busy user their queue, and who asked the state of the fleet."""
        with self._app.app_context():
            session, redis = db.session(), services_of(self._app).redis
            self._tell_queues(session, redis, now)
            if self._audience.is_watched(FLEET):
                self._emit("fleet", reads.fleet_body(session, now), [FLEET])

    def recheck(self, now: datetime) -> None:
        """Cut off who may no longer listen."""
        with self._app.app_context():
            self._streams.recheck(db.session(), now)
            for sid in self._audience.no_longer_welcome(db.session(), now):
                self._disconnect(sid)

    def _take_moves(self, moves: Sequence[Mapping[str, Any]], now: float) -> None:
        """Tell each move, or whose moves are too many to load the page again."""
        last = {move["owner_id"]: move["seq"] for move in moves}
        heard = {owner for owner in last if self._audience.hears_of(owner)}
        counts = Counter(move["owner_id"] for move in moves)
        many = {owner for owner in heard if counts[owner] > MOVES_TOLD}
        self._dirty |= heard
        for owner in many:
            self._emit("reload", {"seq": last[owner]}, [user_room(owner), ALL])
        told = [move for move in moves if move["owner_id"] in heard - many]
        for place, move in enumerate(told, 1):
            self._take_move(move, now)
            if place % MOVES_AT_ONCE == 0:
                gevent.sleep(0)

    def _take_move(self, move: Mapping[str, Any], now: float) -> None:
        owner_id = move["owner_id"]
        self._offer(move, live_messages.of_move(move, self._name(owner_id)), now)
        note = live_messages.notification(move)
        if note is not None:
            self._emit("notification", note, [user_room(owner_id)])

    def _take_lines(self, message: Mapping[str, Any]) -> None:
        room = log_room(message["owner_id"], message["job_id"])
        if self._audience.is_followed(room):
            lines = live_messages.of_log(message, self._name(message["owner_id"]))
            self._emit("log", lines, [room])

    def _offer(self, message: Mapping[str, Any], change: Message, now: float) -> None:
        key = (message["owner_id"], message["job_id"])
        told = self._coalescer.offer(key, change, now=now)
        if told is not None:
            self._tell(message["owner_id"], told)

    def _tell(self, owner_id: int, change: Message) -> None:
        self._emit("job", change, [user_room(owner_id), ALL])

    def _tell_queues(self, session: Session, redis: Redis, now: datetime) -> None:
        here = self._audience.account_ids()
        changed = self._dirty & here
        self._dirty.clear()
        self._counts = {who: counts for who, counts in self._counts.items() if who in here}
        self._counts |= reads.unfinished_counts(session, changed)
        bodies = reads.queue_bodies(session, redis, self._counts, now)
        for account_id, body in bodies.items():
            self._emit("queue", body, [user_room(account_id)])
        self._counts = {who: counts for who, counts in self._counts.items() if any(counts.values())}

    def _recount(self) -> None:
        self._dirty |= set(self._counts)

    def _name(self, account_id: int) -> str:
        if account_id not in self._names:
            with self._app.app_context():
                self._names |= queries.names_of(db.session(), [account_id])
        return self._names[account_id]

    def _every(self, pause: timedelta, act: Callable[[], None]) -> None:
        """Do *act* for ever; a failure is logged when it begins, and the next round tries again."""
        failing = False
        while True:
            gevent.sleep(pause.total_seconds())
            try:
                act()
            except Exception:
                if not failing:
                    log.exception("live round failed")
                failing = True
            else:
                failing = False

    def _listen(self) -> None:
        pause = _BACKOFF_FIRST
        while True:
            try:
                self._follow_channel()
            except Exception as problem:  # noqa: BLE001 - whatever it was, clients are told and it is tried again
                self._went_away(problem)
            gevent.sleep(pause.total_seconds() * random.uniform(0.5, 1))  # noqa: S311 - spreads reconnects
            pause = min(pause * 2, _BACKOFF_MOST) if not self.is_connected else _BACKOFF_FIRST

    def _follow_channel(self) -> None:
        """Take messages until Redis goes away. A silent connection is asked whether it lives."""
        patience = _SILENCE.total_seconds()
        redis = open_redis(self._settings, socket_timeout=patience)
        with redis, redis.pubsub() as channel:  # type: ignore[no-untyped-call]  # redis annotates it in part
            channel.subscribe(LIVE_CHANNEL)
            self._came_back()
            asked = False
            while True:
                message = channel.get_message(timeout=patience)
                if message is not None:
                    asked = False
                    self._take_safely(message)
                elif asked:
                    raise RedisError("no answer to a ping")
                else:
                    channel.ping()
                    asked = True

    def _take_safely(self, message: Mapping[str, Any]) -> None:
        if message["type"] != "message":
            return
        try:
            self.take(message["data"], time.monotonic())
        except Exception:
            log.exception("live message lost")

    def _came_back(self) -> None:
        if not self.is_connected:
            log.info("broker back, live events go on")
            self.is_connected = True
            self._emit("live", {"state": "live"}, None)

    def _went_away(self, problem: Exception) -> None:
        if self.is_connected:
            log.warning("broker away, live events pause", extra={"problem": repr(problem)})
            self.is_connected = False
            self._emit("live", {"state": "away"}, None)
