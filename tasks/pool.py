"""Prefork for Fairq: Celery's pool, quicker to replace a lost process, and telling which it had."""

from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool as PreforkPool

_MAINTAIN_SECONDS = 0.5
"""How often lost processes are looked for. Celery's own interval leaves a slot empty for 4.9 s."""


class _Pool(AsynPool):  # type: ignore[misc]  # Celery ships no annotations
    """Celery's pool that remembers the processes it started."""

    def __init__(self, *args: Any, started: set[int], **kwargs: Any) -> None:
        self._started = started
        super().__init__(*args, **kwargs)

    @property
    def timers(self) -> dict[Any, float]:
        """What the event loop calls, and how often."""
        return {self.maintain_pool: _MAINTAIN_SECONDS}

    def _create_worker_process(self, i: int) -> Any:
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
        pool = self._pool
        return {process.pid for process in tuple(pool._pool)} if pool else set()  # noqa: SLF001 - the only list of them

    def lost(self) -> set[int]:
        """Return the ids of processes that were started and are gone, until they are forgotten.

        Asks for those alive last, so that one just started is not taken for lost.
        """
        started = set(self._started)
        return started - self.living()

    def forget(self, pid: int) -> None:
        """Name a lost process no more."""
        self._started.discard(pid)
