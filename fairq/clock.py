"""The only reader of the clocks: of the one on the wall, and of the one that only goes forward."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Return the present instant, aware and in UTC."""
    return datetime.now(UTC)


class Deadline:
    """The end of a wait of so many seconds; None is never."""

    def __init__(self, seconds: float | None) -> None:
        self._at = None if seconds is None else time.monotonic() + seconds

    def left(self, *, at_most: float) -> float:
        """Return the seconds that are left, or *at_most*."""
        if self._at is None:
            return at_most
        return max(0.0, min(at_most, self._at - time.monotonic()))

    def is_over(self) -> bool:
        """Tell whether nothing is left."""
        return self._at is not None and time.monotonic() >= self._at
