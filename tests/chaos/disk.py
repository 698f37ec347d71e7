"""A small disk of its own, which can be filled: a file system in memory, where that is allowed."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

SIZE_MB = 640
"""Enough for a Postgres and what one run writes."""

_FILLING = "filling"
_PIECES = (64 << 20, 1 << 20, 4096)


class Disk:
    """A mounted file system. ``is_small`` tells whether mounting was allowed."""

    def __init__(self, directory: Path, *, size_mb: int = SIZE_MB) -> None:
        self.path = directory
        self._size_mb = size_mb
        self.is_small = False

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        options = f"size={self._size_mb}m,mode=0755"
        self.is_small = _done("mount", "-t", "tmpfs", "-o", options, "fairq-chaos", str(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_small:
            _done("umount", "--lazy", str(self.path))

    def fill(self) -> None:
        """Take every byte that is left."""
        with (self.path / _FILLING).open("ab") as file:
            for piece in _PIECES:
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), piece)

    def free(self) -> None:
        """Give back what ``fill`` took."""
        (self.path / _FILLING).unlink(missing_ok=True)


def _done(*command: str) -> bool:
    """Run a command that may be refused; tell whether it was not."""
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
