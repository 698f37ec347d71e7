"""A whole Fairq of real processes on wires that can be cut, and what is asked of it from outside.

Everything that is asked here goes to Postgres directly; only Fairq's own processes use the wires.
"""

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg

from tests.chaos.clocks import Clocks
from tests.chaos.disk import Disk
from tests.chaos.errand import TABLE
from tests.chaos.load import OWNERS, Answers, Load
from tests.chaos.proxy import Proxy
from tests.chaos.record import Attempt, Bounds
from tests.chaos.schedule import CLOCKS, SCHEDULERS, WORKER_NAMES, WORKERS
from tests.services import OwnServices, Stack, eventually
from tests.system.client import Client

PROCESSES = 8
"""How many processes a worker has; each is worth one CPU unit."""

MEMORY_MB = 1024

CAPACITY = Bounds(float(PROCESSES * (WORKERS - 1)), MEMORY_MB * (WORKERS - 1))
"""What the policy allows at once: what is left without one of the workers."""

_WORK = "tests.chaos.work"
_LOOK_SECONDS = 0.5
_HANDS = 24  # faults that can be under way at once
_CONNECT_SECONDS = 2

_HELD = """
SELECT job_id, attempt, split_part(worker, '@', 1) AS worker, pid FROM active
WHERE claimed_at IS NOT NULL ORDER BY claimed_at DESC, job_id
"""
_QUEUED = """
SELECT job_id, attempt FROM active WHERE claimed_at IS NULL AND published_at IS NOT NULL
ORDER BY job_id
"""
_LEADER = "SELECT holder, epoch FROM scheduler_lease"
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'fairq' ORDER BY pid"


class Away(Exception):
    """Postgres does not answer, so that a victim cannot be chosen."""


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt that runs, and where."""

    attempt: Attempt
    worker: str
    pid: int


class World:
    """Services, wires, clocks and processes, and hands to make trouble with."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._exits = ExitStack()
        self._parts: dict[str, threading.Lock] = {}
        self._down: set[str] = set()
        self._frozen: set[str] = set()
        self._closing = threading.Event()
        self.incidents: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            self._set_up(exits)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._exits.close()

    def _set_up(self, exits: ExitStack) -> None:
        self.disk = exits.enter_context(Disk(self._directory / "disk"))
        self.services = OwnServices(self._directory, disk=self.disk.path)
        exits.enter_context(self.services)
        self.postgres_wire = exits.enter_context(Proxy(self.services.database_url))
        self.redis_wire = exits.enter_context(Proxy(self.services.redis_url))
        self.clocks = Clocks(self._directory, CLOCKS)
        self.stack = exits.enter_context(self._make_stack())
        # Processes are on a leash that the thread holds which starts them; these threads stay.
        self.hands = exits.enter_context(ThreadPoolExecutor(_HANDS, "hand"))
        self._start_all()
        self.answers = Answers(self._directory / "answers.jsonl")
        self.load = Load(self.stack.url, self._furnish(), self.answers)
        exits.callback(self._closing.set)
        self._watching = self.hands.submit(self._watch)

    def _make_stack(self) -> Stack:
        stack = Stack(
            self.services,
            self._directory,
            REDIS_URL=self.redis_wire.through(self.services.redis_url),
            FAIRQ_WORKER_PROCESSES=f"{PROCESSES},{PROCESSES}",
            FAIRQ_WORKER_CPU_UNITS=str(PROCESSES),
            FAIRQ_WORKER_MEMORY_MB=str(MEMORY_MB),
        )
        stack.environment["DATABASE_URL"] = self.postgres_wire.through(stack.database_url)
        return stack

    def _start_all(self) -> None:
        """Start every process; the threads that do it must live on."""
        self._execute("ALTER SYSTEM SET max_wal_size = '160MB'", "SELECT pg_reload_conf()", TABLE)
        starts = [
            self.hands.submit(partial(self.stack.start, name, **self.clocks.environment(name)))
            for name in ("web", *SCHEDULERS)
        ]
        starts += [
            self.hands.submit(
                partial(
                    self.stack.start_worker,
                    name,
                    include=_WORK,
                    **self.clocks.environment(name),
                )
            )
            for name in WORKER_NAMES
        ]
        for start in starts:
            start.result()

    def _furnish(self) -> Mapping[str, str]:
        """Make the owners and cap the capacity; return the owners' tokens."""
        admin = Client.admin(self.stack)
        try:
            policy = admin.get("/policy")
            capacity = {"cpu_units": CAPACITY.cpu_units, "memory_mb": CAPACITY.memory_mb}
            answer = admin.call("PUT", "/policy", json={**policy, "capacity": capacity})
            assert answer.status_code == 200, answer.text
            return {owner: admin.make_user(owner).token for owner in OWNERS}
        finally:
            admin.close()

    # Processes

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Have a part of the world to oneself."""
        with self._parts.setdefault(name, threading.Lock()):
            yield

    def wait(self, seconds: float) -> None:
        """Wait so long, or until everything ends."""
        self._closing.wait(seconds)

    def kill(self, name: str) -> None:
        """End a process and its children with kill -9."""
        self._down.add(name)
        self.stack.kill(name)

    def start_again(self, name: str) -> None:
        """Start a process that was killed; return when it is ready."""
        try:
            self.stack.start_again(name)
        except AssertionError as problem:
            self.incidents.append(f"{name} was not ready in time: {str(problem)[-2000:]}")
        self._down.discard(name)

    def is_up(self, name: str) -> bool:
        """Tell whether a process was neither killed nor frozen."""
        return name not in self._down | self._frozen

    def freeze(self, name: str) -> None:
        """Stop a process and its children where they stand."""
        self._frozen.add(name)
        os.killpg(self.stack.pid(name), signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a frozen process go on."""
        with suppress(ProcessLookupError):
            os.killpg(self.stack.pid(name), signal.SIGCONT)
        self._frozen.discard(name)

    def _watch(self) -> None:
        """Note who ends without having been killed, and start it again as a launcher would."""
        while not self._closing.wait(_LOOK_SECONDS):
            for name in ("web", *SCHEDULERS, *WORKER_NAMES):
                if name not in self._down and not self.stack.is_running(name):
                    if name in self._down:  # killed since it was asked
                        continue
                    code = self.stack.exit_code(name)
                    self.incidents.append(f"{name} ended by itself with {code}")
                    self.start_again(name)

    # What Postgres says

    def leader(self) -> tuple[str | None, int]:
        """Return the name of the scheduler that leads, and its epoch."""
        ((holder, epoch),) = self.rows(_LEADER)
        pid = (holder or "").rpartition(":")[2]
        names = [name for name in SCHEDULERS if str(self.stack.pid(name)) == pid]
        return (names[0] if names else None), epoch

    def held(self) -> Sequence[Held]:
        """Return the attempts that run, as far as their processes do; the latest first."""
        held = [Held((job, attempt), worker, pid) for job, attempt, worker, pid in self.rows(_HELD)]
        return [one for one in held if one.pid in self._children_of(one.worker)]

    def _children_of(self, worker: str) -> set[int]:
        if not self.is_up(worker):
            return set()
        with suppress(psutil.NoSuchProcess):
            return {child.pid for child in psutil.Process(self.stack.pid(worker)).children()}
        return set()

    def queued(self) -> Sequence[Attempt]:
        """Return the attempts whose messages were sent and not taken."""
        return [(job, attempt) for job, attempt in self.rows(_QUEUED)]

    def backends(self) -> Sequence[int]:
        """Return the numbers of the processes by which Postgres serves Fairq."""
        return [pid for (pid,) in self.rows(_BACKENDS)]

    def rows(self, query: str) -> list[Any]:
        """Ask Postgres. Raises Away when it does not answer."""
        try:
            with self.connect() as connection:
                return connection.execute(query).fetchall()
        except psycopg.OperationalError as problem:
            raise Away from problem

    def connect(self) -> psycopg.Connection[Any]:
        url = self.stack.database_url
        return psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_SECONDS)

    def bring_postgres_back(self) -> None:
        """Return when Postgres answers, having started it if it has ended."""

        def is_back() -> bool:
            if not self.services.is_postgres_running():
                self.services.start_postgres()
            return self.services.postgres.is_ready()

        eventually(is_back, within=60)

    def _execute(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement)
