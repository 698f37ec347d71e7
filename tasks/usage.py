"""How much memory and CPU time an attempt took."""

import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_FORGET_PEAK = Path("/proc/self/clear_refs")
_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used between two looks. The peak is the whole process's, interpreter included."""

    peak_memory_mb: float
    cpu_seconds: float


class Gauge:
    """Measures this process and its finished children from its making on.

    Where the kernel cannot forget a process's peak, the peak is that of its whole life.
    """

    def __init__(self) -> None:
        with suppress(OSError):
            _FORGET_PEAK.write_text("5")
        self._before = _cpu_seconds()

    @classmethod
    def started(cls) -> Self:
        """Begin to measure."""
        return cls()

    def read(self) -> Usage:
        """Return what was used so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / 2**20
        return Usage(round(peak, 1), round(max(0.0, _cpu_seconds() - self._before), 4))


def _cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
