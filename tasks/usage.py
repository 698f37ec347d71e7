"""How much memory and CPU time an attempt took."""

import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from tasks import memory

_FORGET_PEAK = Path("/proc/self/clear_refs")
_MB = 2**20
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used since the measuring began; memory beyond what the process held before."""

    peak_memory_mb: float
    cpu_seconds: float


class Gauge:
    """Measures this process and its children from its making on.

    Where the kernel cannot forget a process's peak, the peak is that of its whole life.
    """

    def __init__(self) -> None:
        with suppress(OSError):
            _FORGET_PEAK.write_text("5")
        self._cpu_before = _cpu_seconds()
        self._resident_before = psutil.Process().memory_info().rss / _MB
        self._held_before = memory.held_mb()
        self._most_held = 0.0

    @classmethod
    def started(cls) -> Self:
        """Begin to measure."""
        return cls()

    def held_mb(self) -> float:
        """Return how much more memory is held now, children included."""
        held = max(0.0, memory.held_mb() - self._held_before)
        self._most_held = max(self._most_held, held)
        return held

    def read(self) -> Usage:
        """Return what was used so far; of children's memory, what was seen of it."""
        own = _peak_mb() - self._resident_before
        peak = max(0.0, own, self._most_held)
        return Usage(round(peak, 1), round(max(0.0, _cpu_seconds() - self._cpu_before), 4))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT / _MB


def _cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
