"""Raising an exception inside a handler that does not look whether it is to stop.

By signals, not by ``PyThreadState_SetAsyncExc``: that waits until the interpreter runs the next
instruction, so a handler in ``time.sleep(3600)`` or a blocking read sleeps on; a signal ends the
system call, and a wait for a lock. And a signal handler runs in the main thread itself, so it knows
whether the job is still running: nothing is ever raised into a report. What neither stops is a loop
in C that never looks for signals; the parent kills that.

The time limit is the process's own timer. The parent's SIGUSR1 comes from a clock that started
earlier, and may hit the job after the one it was meant for; here it is ignored.
"""

import signal
import threading
import time
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Self

from celery.exceptions import SoftTimeLimitExceeded


class Interruptible:
    """A block in the main thread that ends early when asked to, or after its time.

    At most one exception is raised into it, and none before or after.
    """

    def __init__(self, limit: timedelta) -> None:
        self._limit = limit
        self._ends_at = 0.0
        self._wanted: BaseException | None = None
        self._open = False

    def ask(self, error: BaseException) -> None:
        """Raise *error* in the block, from any thread; nothing if the block is over."""
        self._wanted = error
        main = threading.main_thread().ident
        if self._open and main is not None:
            signal.pthread_kill(main, signal.SIGUSR2)

    def left(self) -> float:
        """Return how many seconds are left of its time."""
        return max(0.0, self._ends_at - time.monotonic())

    def allow(self, seconds: float) -> None:
        """Let the block run for *seconds* from now. For the main thread."""
        self._limit += timedelta(seconds=seconds - self.left())
        self._run_for(seconds)

    def __enter__(self) -> Self:
        signal.signal(signal.SIGUSR1, _ignore)
        signal.signal(signal.SIGUSR2, self._on_ask)
        signal.signal(signal.SIGALRM, self._on_limit)
        self._open = True
        self._run_for(self._limit.total_seconds())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The handlers stay: without one, a signal that is still on its way would end the process.
        self._open = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _run_for(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _on_ask(self, _signum: int, _frame: FrameType | None) -> None:
        if self._wanted is not None:
            self._deliver(self._wanted)

    def _on_limit(self, _signum: int, _frame: FrameType | None) -> None:
        self._deliver(SoftTimeLimitExceeded(self._limit.total_seconds()))

    def _deliver(self, error: BaseException) -> None:
        if self._open:
            self._open = False
            raise error


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    """Take note of nothing."""
