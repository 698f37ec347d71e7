"""Handing admitted attempts to Celery. Sends by name; imports no task."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from celery import Celery
from kombu.exceptions import OperationalError as BrokerAway
from kombu.messaging import Producer
from redis import RedisError

from scheduler.store.admission import Parcel

RUN_TASK = "fairq.run"
"""The one Celery task; takes a list of ``[id, attempt]``."""

HARD_LIMIT_GRACE_SECONDS = 5.0
"""Between the soft limit, which a job can handle, and the hard one, which ends its process."""


SENDING = timedelta(seconds=1)
"""How long one call goes on sending: a leader that is away for long is taken for frozen."""

_AT_ONCE = {
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0,
    "interval_max": 0,
    "socket_timeout": 2,
}
"""How often to try to connect, and how many seconds to wait for an answer.

Left alone, sending waits for seconds while the broker is away, and for ever where a connection has
died without a word; a leader that waits that long is taken for frozen. The next turn tries again.
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """How many messages went out, and what kept back the next one, unless that was the time."""

    count: int
    problem: Exception | None = None


class Dispatcher:
    """Sends parcels over one kept connection of *app*, which is for sending only."""

    def __init__(self, app: Celery) -> None:
        app.conf.broker_transport_options = app.conf.broker_transport_options | _AT_ONCE
        self._app = app

    def send(self, parcels: Sequence[Parcel]) -> Sent:
        """Publish parcels to the queues of their classes, in order.

        Stops at the first that the broker does not take, and when SENDING is over.
        """
        until = time.monotonic() + SENDING.total_seconds()
        count = 0
        try:
            with self._app.producer_pool.acquire(block=True) as producer:
                for parcel in parcels:
                    self._send(parcel, producer)
                    count += 1
                    if time.monotonic() > until:
                        break
        except (BrokerAway, RedisError, OSError) as problem:
            return Sent(count, problem)
        return Sent(count)

    def _send(self, parcel: Parcel, producer: Producer) -> None:
        self._app.send_task(
            RUN_TASK,
            args=[[[parcel.job_id, parcel.attempt]]],
            task_id=f"{parcel.job_id}:{parcel.attempt}",
            queue=parcel.queue,
            soft_time_limit=parcel.timeout_seconds,
            time_limit=parcel.timeout_seconds + HARD_LIMIT_GRACE_SECONDS,
            producer=producer,
            ignore_result=True,
            retry=False,
        )
