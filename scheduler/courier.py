"""Calls back whoever asked to be told that a job has ended.

A courier runs beside every scheduler, leading or not, and never inside a turn. Its loop takes what
is due, each call goes out on a thread of its own, and the loop notes what came of it. What a
courier that dies has taken is due again after its lease.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import httpx
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from scheduler import outbound
from scheduler.callback import TIMEOUT, Call, Reply, body, headers, next_try
from scheduler.store import callbacks

SENDERS = 8
"""Calls of one courier that are on their way at a time.

Senders mostly wait; more of them would take processor time from a leader in the same process.
"""

PAUSE = timedelta(seconds=1)
"""How long a courier with nothing to do waits before it looks again."""

FINISHING = timedelta(seconds=3)
"""How long calls may go on after the courier was told to stop; others make those it gives up."""

LONGEST_BACKOFF = timedelta(seconds=30)
"""The longest pause between attempts to reach a database that is away."""

log = logging.getLogger(__name__)

Send = Callable[[Call], Reply]
"""Makes one call and tells what came of it; it does not raise."""


class Courier:
    """Delivers callbacks until it is stopped."""

    def __init__(self, engine: Engine, send: Send) -> None:
        self._engine = engine
        self._send = send
        self._on_the_way = 0
        self._replies: queue.SimpleQueue[tuple[Call, Reply] | None] = queue.SimpleQueue()
        self._unnoted: list[tuple[Call, Reply]] = []
        self._stopping = threading.Event()

    def run(self) -> None:
        """Deliver until stopped. Survives a database that is away, and whatever else goes wrong."""
        log.info("courier started")
        backoff = PAUSE
        while not self._stopping.is_set():
            try:
                self.carry()
                backoff = PAUSE
            except Exception as problem:  # noqa: BLE001 - a courier that ended would be missed late
                _tell(problem)
                self._stopping.wait(backoff.total_seconds())
                backoff = min(backoff * 2, LONGEST_BACKOFF)
        self._finish()
        log.info("courier stopped")

    def stop(self) -> None:
        """End the loop soon. Safe before ``run``, and twice."""
        self._stopping.set()
        self._replies.put(None)

    def carry(self) -> int:
        """Take what is due and note what came back, waiting for something to; return how much."""
        taken = self._take()
        for call in taken:
            threading.Thread(target=self._make, args=(call,), daemon=True).start()
            self._on_the_way += 1
        self._collect(PAUSE)
        return len(taken)

    def _take(self) -> list[Call]:
        free = SENDERS - self._on_the_way
        if free == 0:
            return []
        with Session(self._engine) as session, session.begin():
            return callbacks.take(session, limit=free)

    def _make(self, call: Call) -> None:
        self._replies.put((call, self._send(call)))

    def _collect(self, patience: timedelta) -> None:
        """Wait for a reply, and note it with all that are there."""
        try:
            came = self._replies.get(timeout=patience.total_seconds())
            while True:
                if came is not None:
                    self._on_the_way -= 1
                    self._unnoted.append(came)
                came = self._replies.get_nowait()
        except queue.Empty:
            self._note_all()

    def _note_all(self) -> None:
        """Note what came back; what cannot be noted now is kept."""
        while self._unnoted:
            call, reply = self._unnoted[0]
            again_in = next_try(call, reply, draw=random.random())  # noqa: S311 - spreads tries, hides nothing
            with Session(self._engine) as session, session.begin():
                callbacks.note(session, call, reply, again_in=again_in)
            self._unnoted.pop(0)
            if again_in is None and not reply.is_success:
                log.warning("callback given up", extra={"delivery_id": call.delivery_id})

    def _finish(self) -> None:
        """Give calls on their way a moment to end."""
        until = time.monotonic() + FINISHING.total_seconds()
        try:
            while self._on_the_way and time.monotonic() < until:
                self._collect(timedelta(seconds=max(until - time.monotonic(), 0)))
            self._note_all()
        except SQLAlchemyError as problem:
            _tell(problem)  # they are made again after their lease


def http_sender(*, private: bool) -> Send:
    """Return what calls over HTTP. *private*: also to private addresses."""
    trusting = outbound.trust()

    def send(call: Call) -> Reply:
        began = time.monotonic()
        until = began + TIMEOUT.total_seconds()
        transport = outbound.Transport(private=private, until=until, trusting=trusting)
        try:
            status_code, error = _post(call, transport), None
        except outbound.PrivateAddress as refusal:
            return Reply(_since(began), error=str(refusal), hopeless=True)
        except Exception as problem:  # noqa: BLE001 - whatever it is, the try has failed
            status_code, error = None, _said(problem)
        return Reply(_since(began), status_code=status_code, error=error)

    return send


def _post(call: Call, transport: httpx.BaseTransport) -> int:
    """Send *call* and return the status of the answer; of its body nothing is read."""
    content = body(call)
    with (
        httpx.Client(
            transport=transport, trust_env=False, timeout=TIMEOUT.total_seconds()
        ) as client,
        client.stream(
            "POST", call.url, content=content, headers=headers(call, content)
        ) as response,
    ):
        return response.status_code


def _said(problem: Exception) -> str:
    """Return what went wrong in a line; never an address with the password that may be in it."""
    if isinstance(problem, httpx.TimeoutException):
        return f"no answer within {TIMEOUT.total_seconds():g} s"
    line = f"{type(problem).__name__}: {problem}".partition("\n")[0][:500]
    # Some of it may be the other side's words, and what cannot be noted would be noted for ever.
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _tell(problem: Exception) -> None:
    if isinstance(problem, SQLAlchemyError):
        said = str(problem).partition("\n")[0]
        log.warning("callbacks wait for the database", extra={"problem": said})
    else:
        log.error("callbacks are delayed", exc_info=problem)
