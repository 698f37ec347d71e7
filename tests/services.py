"""Real services and real processes for tests.

Services: a Postgres and a Redis-compatible server.

- ``Services(database_url, redis_url)`` uses running ones; ``Services.from_environment()`` takes
  ``DATABASE_URL`` and ``REDIS_URL``, or is None when they are unset.
- ``OwnServices(directory)`` starts embedded ones and can stop, kill and start them again. Both
  keep their ports and data.

::

    with OwnServices(tmp_path) as services:
        url = services.fresh_database()    # a migrated, empty database of its own
        services.flush_redis()             # as if Redis had lost everything
        services.restart_postgres()        # clean; kill_postgres() and start_postgres() are not

Stack: Fairq's own processes on top of services, on a database with the catalogue of types and
the administrator ``ADMIN``.

::

    with Stack(services, tmp_path) as stack:
        stack.start("web", "scheduler")    # each waits until it is ready
        stack.start_worker("worker1", FAIRQ_WORKER_PROCESSES="4,1")
        httpx.get(stack.url + "/readyz")
        stack.kill("worker1")              # kill -9 of it and its children
        stack.start_again("worker1")
        stack.log("worker1")               # everything it has written; also a file in tmp_path
        stack.stop("scheduler")            # as bin/up would

Names: ``web``, ``scheduler`` (further ones ``scheduler2`` and so on) and workers of any name.
``stack.environment`` is what the processes are given, ``stack.run("users", "create", ...)`` runs a
``flask --app webapp`` command there, and ``eventually(condition)`` waits for one. One stack at a
time: messages between processes are not told apart by database.
"""

import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeVar

import httpx
import psutil
import psycopg
import redis
from psycopg import sql

from local import programs
from local.home import free_port
from local.postgres import Postgres
from local.process import Process, Program
from local.valkey import Valkey
from scheduler.settings import VARIABLES

T = TypeVar("T")

ADMIN = ("admin", "admin-password-for-tests")
"""The administrator of every stack: name and password."""

_PATIENCE = 30.0
_START_PATIENCE = 90.0  # several processes at once on a small, busy machine take their time
_PAUSE = 0.02
_WORKER_READY = " ready."  # Celery's word for it
_SCHEDULER_READY = "scheduler started"


def eventually(
    condition: Callable[[], T],
    *,
    within: float = _PATIENCE,
    every: float = _PAUSE,
    saying: str | Callable[[], str] = "",
) -> T:
    """Return the first truthy answer of *condition*; fail when there is none in time.

    A condition that is dear to ask for is asked for less often, *every* so many seconds.
    """
    deadline, paused = time.monotonic() + within, threading.Event()
    while not (answer := condition()):
        if time.monotonic() > deadline:
            detail = saying() if callable(saying) else saying
            raise AssertionError(f"not within {within:.0f} s: {detail or condition}")
        paused.wait(every)
    return answer


class Services:
    """A Postgres and a Redis-compatible server that somebody else runs."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.database_url = database_url
        self.redis_url = redis_url
        self._made: list[str] = []
        self._templates: dict[str, str] = {}

    @classmethod
    def from_environment(cls) -> Self | None:
        """Return the services that the environment names, or None if it names none.

        Tests that run beside others need their own: Redis is emptied for each of them.
        """
        given = programs.inherited_environment()
        if "PYTEST_XDIST_WORKER" in given:
            return None
        database_url, redis_url = given.get("DATABASE_URL"), given.get("REDIS_URL")
        return cls(database_url, redis_url) if database_url and redis_url else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Drop every database made here."""
        self.drop(*self._made)
        self._made.clear()

    def fresh_database(self) -> str:
        """Return the address of a new, migrated, empty database; it is dropped at the end."""
        return self._copy("migrated", migrate)

    def prepared_database(self) -> str:
        """Return a fresh database that knows the catalogue of types and the administrator."""
        return self._copy("prepared", self._prepare)

    def empty_database(self) -> str:
        """Return the address of a new database without tables; it is dropped at the end."""
        return self._url_of(self._create())

    def drop(self, *names: str) -> None:
        """Drop databases, whoever is connected to them."""
        for name in names:
            query = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            self._execute(query.format(sql.Identifier(name)))

    def flush_redis(self) -> None:
        """Make Redis forget everything."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()

    def _copy(self, kind: str, make: Callable[[str], None]) -> str:
        """Copy the template of that kind, made when it is first asked for."""
        if kind not in self._templates:
            template = self._create()
            make(self._url_of(template))
            self._templates[kind] = template
        return self._url_of(self._create(template=self._templates[kind]))

    def _prepare(self, database_url: str) -> None:
        migrate(database_url)
        environment = {
            **clean_environment(),
            "DATABASE_URL": database_url,
            "REDIS_URL": self.redis_url,
            "FAIRQ_SECRET_KEY": secrets.token_urlsafe(32),
            "FAIRQ_ADMIN_USERNAME": ADMIN[0],
            "FAIRQ_ADMIN_PASSWORD": ADMIN[1],
        }
        with ThreadPoolExecutor() as pool:
            steps = (programs.register(environment), programs.ensure_admin(environment))
            list(pool.map(run_to_end, steps))

    def _create(self, template: str = "template0") -> str:
        name = f"test_{secrets.token_hex(6)}"
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._execute(query.format(sql.Identifier(name), sql.Identifier(template)))
        self._made.append(name)
        return name

    def _url_of(self, name: str) -> str:
        return f"{self.database_url.rpartition('/')[0]}/{name}"

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement)


class OwnServices(Services):
    """An embedded Postgres and Valkey in a directory, which the test may stop, kill and start."""

    def __init__(self, directory: Path, *, disk: Path | None = None) -> None:
        """Keep everything in *directory*, or Postgres's data on a *disk* of its own."""
        self._directory = directory
        password = secrets.token_urlsafe(16)
        data = (disk or directory) / "postgres"
        self.postgres = Postgres(data, port=free_port(), password=password, throwaway=True)
        self.valkey = Valkey(directory / "valkey", port=free_port(), password=password)
        self._running: dict[str, Process] = {}
        super().__init__(self.postgres.url, self.valkey.url)

    def __enter__(self) -> Self:
        """Start both, or leave neither behind."""
        with ExitStack() as undoing:
            undoing.push(self)
            self.start_postgres()
            self.start_valkey()
            undoing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop both; their databases go with their directory."""
        for process in self._running.values():
            process.kill()

    def start_postgres(self) -> None:
        """Start Postgres on its port and data, and wait until it answers."""
        self._start(self.postgres.program(), self.postgres.is_ready)
        self.postgres.ensure_database()

    def stop_postgres(self) -> None:
        """Stop Postgres cleanly."""
        self._running["postgres"].stop()

    def kill_postgres(self) -> None:
        """End Postgres, every process of it, with kill -9."""
        process = self._running["postgres"]
        children = _children(process.pid)
        process.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children)

    def is_postgres_running(self) -> bool:
        """Tell whether the server has not ended, by itself or otherwise."""
        return self._running["postgres"].exit_code() is None

    def restart_postgres(self) -> None:
        """Stop Postgres cleanly and start it again."""
        self.stop_postgres()
        self.start_postgres()

    def start_valkey(self) -> None:
        """Start Valkey on its port and data, and wait until it answers."""
        self._start(self.valkey.program(), self.valkey.is_ready)

    def stop_valkey(self) -> None:
        """Stop Valkey cleanly; what it held is there after the next start."""
        self._running["valkey"].stop()

    def kill_valkey(self) -> None:
        """End Valkey with kill -9."""
        self._running["valkey"].kill()

    def lose_valkey(self) -> None:
        """End Valkey with kill -9, and delete everything it has kept."""
        self.kill_valkey()
        shutil.rmtree(self._directory / "valkey")

    def restart_valkey(self) -> None:
        """Stop Valkey cleanly and start it again."""
        self.stop_valkey()
        self.start_valkey()

    def _start(self, program: Program, is_ready: Callable[[], bool]) -> None:
        log = _Log(self._directory / f"{program.name}.log")
        self._running[program.name] = Process(program, log.write)
        eventually(is_ready, saying=log.read)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


class Stack:
    """Fairq's own processes on a fresh database, with files of their own. See the module's text."""

    def __init__(self, services: Services, directory: Path, **environment: str) -> None:
        port = free_port()
        self.services = services
        self.url = f"http://127.0.0.1:{port}"
        self.database_url = services.prepared_database()
        self.environment = {
            **clean_environment(),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": services.redis_url,
            "FAIRQ_HOME": str(directory / "home"),
            "FAIRQ_PORT": str(port),
            "FAIRQ_SECRET_KEY": secrets.token_urlsafe(32),
            "FAIRQ_WORKER_PROCESSES": "4,2",
            **environment,
        }
        self._directory = directory
        self._programs: dict[str, Program] = {}
        self._logs: dict[str, _Log] = {}
        self._running: dict[str, Process] = {}

    def __enter__(self) -> Self:
        """Empty Redis, and make the directory for files."""
        Path(self.environment["FAIRQ_HOME"]).mkdir(parents=True, exist_ok=True)
        self.services.flush_redis()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs."""
        for process in self._running.values():
            process.kill()

    def start(self, *names: str, **environment: str) -> None:
        """Start web or schedulers by name, and return when each is ready."""
        for name in names:
            self._launch(self._program(name, {**self.environment, **environment}))
        for name in names:
            self._wait(name)

    def start_worker(
        self, name: str = "worker1", *, include: str | None = None, **environment: str
    ) -> None:
        """Start a worker, and return when it takes jobs; *include* is a module with more tasks."""
        program = programs.worker({**self.environment, **environment}, name=name)
        more = ("-I", include) if include else ()
        self._launch(replace(program, command=(*program.command, *more)))
        self._wait(name)

    def start_again(self, name: str) -> None:
        """Start what was killed or stopped, as it was started before."""
        self._launch(self._programs[name])
        self._wait(name)

    def names(self) -> list[str]:
        """Return the names of all processes there were."""
        return list(self._logs)

    def running(self) -> list[str]:
        """Return the names of the processes that run, in the order in which they began."""
        return [name for name in self._running if self.is_running(name)]

    def stop(self, name: str) -> int:
        """Stop a process as the launcher would, and return its exit code."""
        return self._running[name].stop()

    def exit_code(self, name: str) -> int | None:
        """Return how a process ended, or None while it runs."""
        return self._running[name].exit_code()

    def kill(self, name: str) -> None:
        """End a process and its children with kill -9."""
        self._running[name].kill()

    def pid(self, name: str) -> int:
        """Return the number of a running process."""
        return self._running[name].pid

    def is_running(self, name: str) -> bool:
        """Tell whether a process runs."""
        return self.exit_code(name) is None

    def log(self, name: str) -> str:
        """Return everything a process has written, all its starts together."""
        return self._log(name).read()

    def run(self, *arguments: str) -> str:
        """Run a ``flask --app webapp`` command in this stack, and return what it printed."""
        return flask(*arguments, environment=self.environment)

    def _program(self, name: str, environment: Mapping[str, str]) -> Program:
        if name == "web":
            return programs.web(environment)
        return programs.scheduler(environment, name=name)

    def _launch(self, program: Program) -> None:
        self._programs[program.name] = program
        log = self._log(program.name)
        log.mark()
        self._running[program.name] = Process(program, log.write)

    def _wait(self, name: str) -> None:
        log = self._log(name)
        eventually(lambda: self._is_ready(name), within=_START_PATIENCE, saying=log.read)

    def _is_ready(self, name: str) -> bool:
        if not self.is_running(name):
            raise AssertionError(f"{name} ended while it started:\n{self.log(name)}")
        if name == "web":
            return answers(self.url + "/healthz")
        words = _SCHEDULER_READY if name.startswith("scheduler") else _WORKER_READY
        return words in self._log(name).news()

    def _log(self, name: str) -> "_Log":
        return self._logs.setdefault(name, _Log(self._directory / f"{name}.log"))


class _Log:
    """What one process writes, in a file, over all its starts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = 0
        path.touch()

    def write(self, line: str) -> None:
        with self._path.open("a") as file:
            file.write(line + "\n")

    def read(self) -> str:
        return self._path.read_text()

    def mark(self) -> None:
        """Take what is written from here on for news."""
        self._seen = len(self.read())

    def news(self) -> str:
        return self.read()[self._seen :]


def migrate(database_url: str) -> None:
    """Bring a database to the newest tables."""
    run_to_end(programs.migrate({**clean_environment(), "DATABASE_URL": database_url}))


def flask(*arguments: str, environment: Mapping[str, str]) -> str:
    """Run a ``flask --app webapp`` command, and return what it printed."""
    command = (sys.executable, "-m", "flask", "--app", "webapp", *arguments)
    return run_to_end(
        Program(name="flask", command=command, environment=environment, directory=programs.ROOT)
    )


def run_to_end(program: Program) -> str:
    """Run a program that ends by itself, and return its output; fail when it fails."""
    lines: list[str] = []
    process = Process(program, lines.append)
    try:
        code = eventually(
            lambda: (process.exit_code(),) if process.exit_code() is not None else None,
            within=_START_PATIENCE,
            saying=lambda: "\n".join(lines),
        )
    finally:
        process.kill()
    if code != (0,):
        raise AssertionError(f"{program.name} failed:\n" + "\n".join(lines))
    return "\n".join(lines)


def answers(url: str) -> bool:
    """Tell whether *url* answers 200."""
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def clean_environment() -> dict[str, str]:
    """Return the environment without anything that Fairq reads."""
    fairq = {variable.name for variable in VARIABLES}
    return {k: v for k, v in programs.inherited_environment().items() if k not in fairq}
