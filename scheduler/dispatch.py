"""Handing admitted attempts to Celery. Sends by name; imports no task."""

from collections.abc import Sequence

from celery import Celery

from scheduler.store.admission import Parcel

RUN_TASK = "fairq.run"
"""The one Celery task; takes a list of ``[id, attempt]``."""

HARD_LIMIT_GRACE_SECONDS = 5.0
"""Between the soft limit, which a job can handle, and the hard one, which ends its process."""


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


class Dispatcher:
    """Sends parcels over one kept connection of *app*, which is for sending only."""

    def __init__(self, app: Celery) -> None:
        app.conf.broker_transport_options = app.conf.broker_transport_options | _AT_ONCE
        self._app = app

    def send(self, parcels: Sequence[Parcel]) -> None:
        """Publish every parcel to the queue of its class.

        Raises kombu's OperationalError when the broker is away; what was sent before stays sent.
        """
        with self._app.producer_pool.acquire(block=True) as producer:
            for parcel in parcels:
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
