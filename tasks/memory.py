"""Keeping an attempt to the memory its job asked for (Linux).

Two bounds, because neither does alone. The *wall* (``RLIMIT_DATA``) refuses a request for memory at
once, in the very call, and so ends a runaway before it hurts anybody; but it counts what is asked
for, such as stacks of threads and buffers that are never filled, and has to leave headroom. What is
really *held*, in this process and its children, is looked at every second by whoever watches.

``RLIMIT_AS`` was tried in the place of the wall: it refuses mapped files and whole runtimes that
reserve more addresses than they use.
"""

import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HEADROOM_MB = 512
"""What may be asked for beyond what may be held. A thread asks for 8 MB and holds a few KB."""

_IS_KNOWN = sys.platform == "linux"
_MB = 2**20
_DATA = re.compile(r"^VmData:\s+(\d+) kB$", re.MULTILINE)
_ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)
_OWN = Path("/proc/self")


class MemoryExceeded(BaseException):
    """The attempt holds more memory than its job may.

    No Exception, so that ``except Exception`` in a handler does not keep it.
    """


@contextmanager
def wall(memory_mb: int) -> Iterator[None]:
    """Let requests for memory fail with MemoryError that go far beyond *memory_mb* more."""
    if not _IS_KNOWN:
        yield
        return
    before = _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = (int(_read(_OWN, _DATA)) + memory_mb + HEADROOM_MB) * _MB
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def held_mb() -> float:
    """Return what this process and its descendants hold, without what is shared or read from files.

    0 where that cannot be known.
    """
    if not _IS_KNOWN:
        return 0.0
    return _read(_OWN, _ANONYMOUS) + sum(_read(child, _ANONYMOUS) for child in _descendants(_OWN))


def _descendants(process: Path) -> Iterator[Path]:
    for listed in process.glob("task/*/children"):
        with suppress(OSError):  # it has ended meanwhile
            for pid in listed.read_text().split():
                child = Path("/proc", pid)
                yield child
                yield from _descendants(child)


def _read(process: Path, wanted: re.Pattern[str]) -> float:
    """Return so many MB; 0 for a process that has ended meanwhile."""
    try:
        found = wanted.search((process / "status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0
