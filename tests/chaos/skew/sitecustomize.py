"""Gives a process a wall clock that can be set; Python itself loads this before anything else.

The offset is a number in a file that the process maps into its memory, so that a jump is seen at
once and costs nothing. Only the wall clock jumps: a monotonic one, by its name, does not.
"""

import mmap
import os
import struct
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from scheduler import clock

_OFFSET = struct.Struct("d")


def _set_up(path: str) -> None:
    with Path(path).open("rb") as file:
        offset = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    _shift(lambda: float(_OFFSET.unpack_from(offset)[0]))


def _shift(offset: Callable[[], float]) -> None:
    real_time, real_now = time.time, clock.now

    def now() -> datetime:
        return real_now() + timedelta(seconds=offset())

    time.time = lambda: real_time() + offset()
    clock.now = now


if "CHAOS_CLOCK" in os.environ:  # noqa: TID251 - nothing of Fairq is loaded yet that could tell
    _set_up(os.environ["CHAOS_CLOCK"])  # noqa: TID251 - likewise
