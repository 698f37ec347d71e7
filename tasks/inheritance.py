"""What a forked process has of its parent and must let go of."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

_OPEN_FILES = Path("/dev/fd")
_FAMILIES = {socket.AF_INET, socket.AF_INET6}


def let_go_of_connections() -> None:
    """Let go of the parent's connections to others, without ending them.

    As long as a child holds one, the parent's closing does not end it: it stays among what the
    parent waits for, under a number that belongs to another connection by then. The parent would
    read from that one, where there is nothing, and wait for ever.
    """
    with Path(os.devnull).open("rb") as nothing:
        for number in list(_connections()):
            # The number stays taken: inherited objects may yet close it.
            os.dup2(nothing.fileno(), number, inheritable=False)


def _connections() -> Iterator[int]:
    for entry in _OPEN_FILES.iterdir():
        number = int(entry.name)
        if _is_connection(number):
            yield number


def _is_connection(number: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return False
        with socket.socket(fileno=os.dup(number)) as copy:
            return copy.family in _FAMILIES
    except OSError:  # closed meanwhile, as what listed them is
        return False
