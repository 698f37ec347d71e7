"""FAIRQ_HOME: what one installation on one machine remembers, and who is using it."""

import errno
import fcntl
import json
import os
import secrets
import shlex
import socket
from collections.abc import Container, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Self

from local.process import StartFailed

_LOOPBACK = "127.0.0.1"
_PORTS = range(20_000, 30_000)
"""Below those that systems give to connections that go out.

One of those could be taken between choosing and listening, or while a service starts again.
"""

_first = secrets.randbelow(len(_PORTS))  # launchers at the same moment choose others
_candidates: Iterator[int] = cycle([*_PORTS[_first:], *_PORTS[:_first]])


class Home:
    """A private directory that one launcher holds at a time.

    Use it as a context manager: inside, this process is the one that runs the installation.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Take the directory. Raises StartFailed, saying where Fairq runs, if it is taken."""
        self._make()
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 4096).decode() or "starting"
            os.close(lock)
            raise StartFailed(f"Fairq is already running from {self.path}: {holder}") from None
        self._lock = lock
        self.announce("starting")
        return self

    def __exit__(self, *_: object) -> None:
        """Give the directory back."""
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def announce(self, where: str) -> None:
        """Leave word for the next one who tries to start: what runs, and where."""
        if self._lock is None:
            raise StartFailed(f"{self.path} is not held")
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{where} (process {os.getpid()})".encode(), 0)

    def port(self, name: str) -> int:
        """Return the remembered port of a service, or a new one if that is taken by another."""
        ports = self._ports()
        if name not in ports or not is_free(ports[name]):
            ports[name] = free_port(besides=ports.values())
            self._write("ports.json", json.dumps(ports))
        return ports[name]

    def secret(self, name: str) -> str:
        """Return the remembered secret of that name, made when it is first asked for."""
        file = self.path / "secrets" / name
        if not file.exists():
            self._write(f"secrets/{name}", secrets.token_urlsafe(32))
        return file.read_text().strip()

    def has_secret(self, name: str) -> bool:
        """Tell whether a secret of that name was made and not forgotten."""
        return (self.path / "secrets" / name).exists()

    def forget_secret(self, name: str) -> None:
        """Make no more use of a secret."""
        (self.path / "secrets" / name).unlink(missing_ok=True)

    def leave_environment(self, values: Mapping[str, str]) -> None:
        """Write down what a process started by hand needs to take part, for a shell to read."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
        self._write("environment", "\n".join(lines))

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as problem:
            raise StartFailed(f"FAIRQ_HOME cannot be used: {problem}") from problem

    def _ports(self) -> dict[str, int]:
        file = self.path / "ports.json"
        ports: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        return ports

    def _write(self, name: str, text: str) -> None:
        """Write a private file whole or not at all."""
        file = self.path / name
        file.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = file.with_name(file.name + ".unfinished")
        unfinished.touch(mode=0o600)
        unfinished.write_text(text + "\n")
        unfinished.rename(file)


def free_port(besides: Container[int] = ()) -> int:
    """Return a port of the loopback address that nobody listens on, each time another one."""
    return next(port for port in _candidates if port not in besides and is_free(port))


def is_free(port: int, host: str = _LOOPBACK) -> bool:
    """Tell whether a server could listen on *port* of *host*."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: connections of an earlier one that linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE:
                return False
            raise
    return True
