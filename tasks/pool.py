"""Prefork for Fairq: Celery's pool with three differences.

A lost process is replaced within half a second. The pool tells which processes it had. And a
process whose handlers are over is not killed by the time limit of its message while it waits for
Postgres to take the outcome: what was done would be done again, or count as failed.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from billiard import current_process
from billiard.pool import TimeoutHandler
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool as PreforkPool
from kombu.asynchronous import get_event_loop

_MAINTAIN_SECONDS = 0.5
"""How often lost processes are looked for. Celery's own interval leaves a slot empty for 4.9 s."""

_SPARED_SECONDS = 0.5  # until a spared process is looked at again
_MOST_PROCESSES = 4096

_reporting = mmap.mmap(-1, _MOST_PROCESSES)
"""One byte for each place in the pool, shared by parent and children: 1 while it reports."""


@contextmanager
def reporting() -> Iterator[None]:
    """Let the parent of this process know that meanwhile it only has outcomes to write."""
    index = getattr(current_process(), "index", _MOST_PROCESSES)
    if index >= _MOST_PROCESSES:
        yield
        return
    _reporting[index] = 1
    try:
        yield
    finally:
        _reporting[index] = 0


def _is_reporting(index: int) -> bool:
    return index < _MOST_PROCESSES and _reporting[index] == 1


class _Limits(TimeoutHandler):  # type: ignore[misc]  # billiard ships no annotations
    """Kills processes whose message took too long, unless they report."""

    def on_hard_timeout(self, job: Any) -> None:
        """Kill the job's process, or leave it for the next look."""
        process, _ = self._process_by_pid(job._worker_pid)  # noqa: SLF001 - as the overridden method does
        if process is None or not _is_reporting(process.index):
            super().on_hard_timeout(job)


class _Pool(AsynPool):  # type: ignore[misc]  # Celery ships no annotations
    """Celery's pool that remembers the processes it started."""

    TimeoutHandler = _Limits

    def __init__(self, *args: Any, started: set[int], **kwargs: Any) -> None:
        self._started = started
        super().__init__(*args, **kwargs)

    @property
    def timers(self) -> dict[Any, float]:
        """What the event loop calls, and how often."""
        return {self.maintain_pool: _MAINTAIN_SECONDS}

    def _on_hard_timeout(self, job: int) -> None:
        super()._on_hard_timeout(job)
        result = self._cache.get(job)
        hub: Any = get_event_loop()
        if hub and result is not None and not result.ready():  # it was spared
            hub.call_later(_SPARED_SECONDS, self._on_hard_timeout, job)

    def _create_worker_process(self, i: int) -> Any:
        if i < _MOST_PROCESSES:
            _reporting[i] = 0  # the last process in this place may have died reporting
        process = super()._create_worker_process(i)
        self._started.add(process.pid)
        return process


class TaskPool(PreforkPool):  # type: ignore[misc]  # Celery ships no annotations
    """The pool a worker is told to use; safe to ask from another thread."""

    Pool = _Pool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._started: set[int] = set()
        super().__init__(*args, started=self._started, **kwargs)

    def living(self) -> set[int]:
        """Return the ids of the processes that have not been found dead; none once stopped."""
        return {each.pid for each in self._processes() if each.pid is not None}  # None: not begun

    def _processes(self) -> tuple[Any, ...]:
        pool = self._pool
        return tuple(pool._pool) if pool else ()  # noqa: SLF001 - the only list of them

    def lost(self) -> set[int]:
        """Return the ids of processes that were started and are gone, until they are forgotten.

        Asks for those alive last, so that one just started is not taken for lost.
        """
        started = set(self._started)
        return started - self.living()

    def forget(self, pid: int) -> None:
        """Name a lost process no more."""
        self._started.discard(pid)

    def is_reporting(self, pid: int) -> bool:
        """Tell whether a process has only outcomes to write."""
        return any(each.pid == pid and _is_reporting(each.index) for each in self._processes())
