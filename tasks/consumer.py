"""Celery's consumer, which outlives broken connections and can be told to take no work."""

import logging
from contextlib import suppress
from functools import partial
from typing import Any

from celery.worker import consumer

_LONGEST_PAUSE_SECONDS = 3
"""Between attempts to reach a broker that is away."""

log = logging.getLogger(__name__)


class Consumer(consumer.Consumer):  # type: ignore[misc]  # Celery ships no annotations
    """What a worker is told to use.

    Celery closes a lost connection, forgets the server, and closes it again. What the first time
    left half closed then reaches for the server, and the worker ends with all it runs; or it ends
    when the next job is over, whose message is acknowledged over that connection. So it is whenever
    Redis goes away while a job runs and messages are waited for.
    """

    takes_work = False
    """Whether messages are taken: not before it is known what operators want of this worker.

    One that Redis is already handing over is taken in any case.
    """

    def create_task_handler(self, *arguments: Any, **named: Any) -> Any:
        """Begin to receive over a new connection, as long as work is taken."""
        channel = self.task_consumer.channel
        may_consume = channel.qos.can_consume
        channel.qos.can_consume = lambda: (
            bool(self.takes_work or channel._in_poll) and may_consume()  # noqa: SLF001 - the wait that is under way
        )
        return super().create_task_handler(*arguments, **named)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes, soon after the broker is back.

        Celery's own pauses grow to half a minute.
        """
        conn.ensure_connection = partial(
            conn.ensure_connection, interval_start=1, interval_max=_LONGEST_PAUSE_SECONDS
        )
        return super().ensure_connected(conn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Let go of the connection; the next step makes another one, whatever became of it."""
        _close_channel(self.connection)
        try:
            super().on_connection_error_after_connected(exc)
        except Exception:
            log.exception("a lost connection could not be closed")


def _close_channel(connection: Any) -> None:
    """Close what messages come through while its server is known.

    The first time may end with the read that was under way.
    """
    channel = connection._default_channel  # noqa: SLF001 - the property would connect
    for _ in range(2 if channel else 0):
        with suppress(Exception):
            channel.close()
