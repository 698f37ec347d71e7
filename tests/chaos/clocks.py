"""Wall clocks of single processes that can be set, without help of the system or its users."""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from local import programs

_SKEW = Path(__file__).parent / "skew"
_OFFSET = struct.Struct("d")


class Clocks:
    """One clock for each name. A process is born with one by being given its environment."""

    def __init__(self, directory: Path, names: Iterable[str]) -> None:
        self._files = {name: directory / f"{name}.clock" for name in names}
        for file in self._files.values():
            file.write_bytes(_OFFSET.pack(0.0))

    def environment(self, name: str) -> Mapping[str, str]:
        """Return what a process needs to have the clock of that name."""
        return {
            "PYTHONPATH": f"{_SKEW}:{programs.ROOT}",
            "CHAOS_CLOCK": str(self._files[name]),
        }

    def set(self, name: str, seconds: float) -> None:
        """Let a clock be so many seconds ahead of the true one."""
        with self._files[name].open("r+b") as file:
            file.write(_OFFSET.pack(seconds))
