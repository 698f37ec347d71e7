"""Stopping pull workers on signals, and leaving an application's own handlers as they were."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Listener:
    """Calls every one of *stops* on the first signal, and is gone before a second one."""

    def __init__(self) -> None:
        self.stops: list[Callable[[], object]] = []
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.leave()
        for stop in self.stops:
            stop()

    def listen(self) -> None:
        """Take the place of the handlers there are."""
        self._before = {one: signal.signal(one, self) for one in _SIGNALS}

    def leave(self) -> None:
        """Put the handlers back that were there before."""
        for number, handler in self._before.items():
            if signal.getsignal(number) is self:
                signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def stopping_on_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call *stop* on the first SIGTERM or SIGINT; only the main thread can listen for them.

    Those who listen at the same time are all stopped by the same signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    listener = _present() or _Listener()
    if not listener.stops:
        listener.listen()
    listener.stops.append(stop)
    try:
        yield
    finally:
        listener.stops.remove(stop)
        if not listener.stops:
            listener.leave()


def _present() -> _Listener | None:
    found = [signal.getsignal(number) for number in _SIGNALS]
    return next((one for one in found if isinstance(one, _Listener)), None)
