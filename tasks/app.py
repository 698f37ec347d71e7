"""The Celery application, its one task, and what each of Celery's signals is used for.

An outcome is recorded in one place only: by the runner in the child that ran the attempt, or, when
that child died, by the fleet thread of its parent, for what the dead process still held. Both go
through the store's guarded verbs, so that whatever comes second changes nothing. Signals record
nothing themselves; they set things up and wake whoever records:

- ``worker_init`` (parent): load what every child needs, and the tasks of another application; make
  forking cheap.
- ``worker_process_init`` (child): drop what was inherited from the parent. No network.
- ``worker_process_shutdown`` (child): close what the runner holds.
- ``worker_ready`` (parent): start the fleet thread, which registers the worker and its job types,
  and says farewell when the parent ends.
- ``task_failure`` (parent; for a lost child once, for a hard limit twice): wake the fleet thread;
  for a hard limit, with the reason. In a child it says nothing, since the task never fails there.
- ``task_revoked`` (parent): somebody revoked a message by hand; its attempts are given back.
- ``worker_shutting_down`` (parent, inside a signal handler): drain.

``task_prerun``, ``task_postrun``, ``task_success`` and ``task_retry`` are not used: they are about
messages, which may hold several attempts or none that is still to be run.
"""

import atexit
import gc
import logging
import os
import socket
import sys
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from billiard.common import terminate_handler_fired
from celery import Celery, bootsteps, signals
from celery.exceptions import TimeLimitExceeded
from celery.worker import state
from sqlalchemy.orm import configure_mappers

from scheduler.database import make_engine, open_redis
from scheduler.dispatch import RUN_TASK
from scheduler.errors import SettingsInvalid
from scheduler.events import Announcer
from scheduler.log import keep_addresses_out
from scheduler.settings import Settings
from scheduler.store.fleet import WorkerOffer
from tasks.catalogue import CATALOGUE
from tasks.fleet import Fleet, Wanted
from tasks.guest import tasks_of
from tasks.inheritance import let_go_of_connections
from tasks.ledger import Ledger
from tasks.pool import reporting
from tasks.register import plain_tasks, specs_of_kinds, specs_of_tasks
from tasks.runner import Runner
from tasks.steering import steer

_TOO_LATE_SECONDS = 1.0  # an announcement is not worth waiting longer for

log = logging.getLogger(__name__)

app = Celery("fairq", include=["tasks.kinds"])
app.config_from_object("celeryconfig")


class _Process:
    """What this process holds: a runner in a child, the fleet thread in the parent."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._ledger: Ledger | None = None
        self.fleet: Fleet | None = None
        self.worker: Any = None
        self.tasks: Mapping[str, Any] = {}

    def become_child(self) -> None:
        """Forget the parent's connections without closing them: it still uses them."""
        if self._ledger:
            self._ledger.forget_connections()
        self._runner = self._ledger = self.fleet = None

    def ledger(self, *, connections: int) -> Ledger:
        if self._ledger is None:
            settings = Settings.from_env()
            redis = open_redis(settings, socket_timeout=_TOO_LATE_SECONDS)
            engine = make_engine(settings, pool_size=connections, max_overflow=0)
            self._ledger = Ledger(engine, Announcer(redis))
        return self._ledger

    def runner(self) -> Runner:
        """The child's runner, made when it is first needed."""
        if self._runner is None:
            ledger = self.ledger(connections=2)  # the runner's and the watcher's
            self._runner = Runner(
                ledger,
                CATALOGUE,
                plain_tasks(self.tasks),
                Settings.from_env(),
                reporting=reporting,
            )
        return self._runner

    def close_runner(self) -> None:
        if self._runner:
            self._runner.close()


_process = _Process()


@app.task(name=RUN_TASK, bind=True)
def run(self: Any, attempts: list[list[int]]) -> None:
    """Run the attempts of one message; each is reported to Postgres, whatever its outcome.

    Anything that escapes the runner ends the process, so that the parent ends what it still holds:
    its leases would be renewed for ever otherwise.
    """
    try:
        _process.runner().run(_pairs(attempts), worker=self.request.hostname)
    except BaseException:
        if not terminate_handler_fired():
            log.critical("the process ends", exc_info=True)
        logging.shutdown()
        os._exit(1)


@signals.worker_init.connect
def _on_init(**_: Any) -> None:
    """Load what the first job of every child would wait for, 0.3 s of work in each of them.

    What is loaded is taken out of the garbage collector's sight: it looks before every fork.
    Measured: 80 ms a process less, and children share the memory for as long as they live.
    """
    keep_addresses_out()
    _process.tasks = _tasks()
    configure_mappers()  # also, the fleet thread would do it under a lock that children inherit
    _process.ledger(connections=1)  # loads the driver; connects to nothing
    gc.collect()
    gc.freeze()


def _tasks() -> dict[str, Any]:
    """Return the tasks of this application and of its guest; a shared one is the guest's."""
    guest = Settings.from_env().celery_app
    try:
        return {**app.tasks, **(tasks_of(guest) if guest else {})}
    except SettingsInvalid as problem:
        sys.exit(str(problem))  # a handler that raises anything less is logged and forgotten


@signals.worker_process_init.connect
def _on_child_start(**_: Any) -> None:
    _process.become_child()
    let_go_of_connections()


@signals.worker_process_shutdown.connect
def _on_child_end(**_: Any) -> None:
    _process.close_runner()


@signals.worker_ready.connect
def _on_ready(sender: Any, **_: Any) -> None:
    _process.worker = sender.controller
    _process.fleet = Fleet(
        _process.ledger(connections=1),
        sender.controller.pool,
        _offer(sender.controller),
        [*specs_of_kinds(CATALOGUE), *specs_of_tasks(_process.tasks)],
        drain=Settings.from_env().drain,
        is_interrupting=_is_terminating,
        steer=partial(sender.controller.hub.call_soon, steer, sender.controller),
    )
    _process.fleet.start()
    atexit.register(_process.fleet.close)  # a cold stop sends no worker_shutdown


def _offer(worker: Any) -> WorkerOffer:
    settings = Settings.from_env()
    most, fewest = worker.autoscale or (worker.concurrency, worker.concurrency)
    return WorkerOffer(
        name=worker.hostname,
        incarnation=uuid.uuid4().hex,
        host=socket.gethostname(),
        pid=os.getpid(),
        processes_min=fewest,
        processes_max=most,
        processes=fewest,
        cpu_units=settings.worker_cpu_units,
        memory_mb=settings.worker_memory_mb,
        queues=list(app.amqp.queues.consume_from),
    )


def _is_terminating() -> bool:
    return state.should_terminate not in {None, False}


@signals.task_failure.connect
def _on_failure(sender: Any, exception: BaseException, args: Sequence[Any], **_: Any) -> None:
    if _process.fleet is None or sender.name != RUN_TASK:
        return
    if isinstance(exception, TimeLimitExceeded):
        _process.fleet.time_limit_passed(_pairs(args[0]))
    else:
        _process.fleet.look_now()


@signals.task_revoked.connect
def _on_revoked(sender: Any, request: Any, *, terminated: bool, **_: Any) -> None:
    if _process.fleet and sender.name == RUN_TASK and not terminated:
        attempts = _pairs(request.args[0])
        _process.fleet.give_back(lambda: attempts)


@signals.worker_shutting_down.connect
def _on_stop_signal(**_: Any) -> None:
    if _process.fleet:
        _process.fleet.drain()
        waiting = [one for one in state.reserved_requests if one not in state.active_requests]
        _process.fleet.give_back(lambda: _never_started(waiting))


def _never_started(requests: Sequence[Any]) -> list[Wanted] | None:
    """Return the attempts of messages no process took; None while one still may."""
    if _process.worker.blueprint.state == bootsteps.RUN:
        return None
    return [
        pair
        for request in requests
        if request.time_start is None and request.name == RUN_TASK
        for pair in _pairs(request.args[0])
    ]


def _pairs(attempts: Sequence[Sequence[int]]) -> list[Wanted]:
    return [(job, attempt) for job, attempt in attempts]
