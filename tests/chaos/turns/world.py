"""Two schedulers on one database, and everybody else who writes there, from one source of chance.

Everything happens in one thread: a scheduler that pauses does so inside a statement of its turn,
and the others act before it goes on. Whoever would wait for a lock for long gives up instead.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import Any, TypeVar

import pytest
from redis import Redis
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from scheduler import mirror, service
from scheduler.dispatch import Sent
from scheduler.errors import FairqError, LeadershipLost
from scheduler.lease import LOCK_KEY, Lease
from scheduler.service import Scheduler
from scheduler.snapshot import Resources
from scheduler.states import FINISHED, CancelReason, Condition, JobClass
from scheduler.store import work
from scheduler.store.admission import Parcel
from scheduler.store.cancellation import cancel, cancel_waiting
from scheduler.store.revival import run_again
from scheduler.store.submission import Submission, submit
from tests.chaos.turns.auditor import Attempt, Auditor, Broken, OwnerCaps, Promised
from tests.chaos.turns.faults import AT_COMMIT, Crashed, Fault, Points, Strike, away
from tests.conftest import empty
from tests.factories import WORKER, make_policy, make_submission, make_type, make_user, make_worker
from tests.racing import committed
from tests.services import eventually

T = TypeVar("T")

MACHINE = Resources(8.0, 4096, 6)
TYPES = {"simulate": None, "email": 2}
OWNERS = (
    OwnerCaps(),
    OwnerCaps(weight=4.0, running_jobs=3),
    OwnerCaps(weight=0.5, cpu_units=3.0),
    OwnerCaps(weight=2.0),
)
LEASE = timedelta(seconds=60)
POINTS = 22
"""About how many points a turn has."""

_OTHERS = ("submit", "submit", "submit", "claim", "claim", "claim", "finish", "finish", "quit",
           "cancel", "again", "late", "vanish", "age", "forget")  # fmt: skip
ACTS = ("turn",) * 12 + _OTHERS + ("sweep",)

_LOCK_HOLDERS = """
SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND granted AND datname = current_database()
  AND classid = 0 AND objid = :key
"""


class Node:
    """One scheduler, which is started again whenever it crashes."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self._world = world
        self._engine = world.connect()
        self._depth = 0
        self.points = Points(self._engine, self._struck)
        self._start()

    @property
    def is_taking_a_turn(self) -> bool:
        return self._depth > 0

    def round(self, strike: Strike | None = None) -> None:
        """Lead or stand by once, as the loop does, and be struck so on the way."""
        self.points.arm(strike)
        self._depth += 1
        try:
            self.scheduler._one_round()
        except Crashed:
            self._crash()
        except LeadershipLost:
            self._world.counts["stale turns refused"] += 1
            self.lease.release()
        except SQLAlchemyError:
            self._world.counts["turns lost"] += 1
        finally:
            self._depth -= 1
            self.points.arm(None)

    def send(self, parcels: Sequence[Parcel]) -> Sent:
        """Put parcels on the wire, as the scheduler's dispatcher."""
        self.points.reach()
        self._world.carry(parcels)
        self.points.reach()
        return Sent(len(parcels))

    def stop(self) -> None:
        self.lease.release()
        self._engine.dispose()

    def _start(self) -> None:
        self.lease = Lease(self._engine, holder=self.name)
        self.scheduler = Scheduler(self._engine, self._world.redis, self, self.lease)  # type: ignore[arg-type]

    def _crash(self) -> None:
        held = self.lease._connection
        if held is not None and not held.invalidated:
            self._world.end_session(_pid(held))
        self.lease.release()
        self._start()

    def _struck(self, fault: Fault, connection: Connection | None) -> None:
        self._world.counts[fault] += 1
        match fault:
            case Fault.CRASH:
                raise Crashed
            case Fault.PAUSE:
                self._world.go_on()
            case Fault.UNSEATED:
                self._world.cut_the_lock()
                self._world.let_another_lead()
                self._world.go_on()
            case Fault.LOCK_LOST:
                self._world.cut_the_lock()
            case Fault.CUT if connection is not None and not connection.invalidated:
                self._world.end_session(_pid(connection))
            case Fault.REFUSED:
                raise away("commit refused")


class World:
    """Two schedulers, a wire, workers and people."""

    def __init__(self, database_url: str, redis: Redis, *, run_ahead: float = 0.0) -> None:
        self.counts: Counter[str] = Counter()
        self.redis = redis
        self.chance = random.Random(0)  # noqa: S311 - makes trouble, hides nothing
        self._url = database_url
        self.engine = self.connect()
        self._admin = self.connect().execution_options(isolation_level="AUTOCOMMIT")
        empty(self.engine)
        redis.flushdb()
        self._owners = self.do(_furnish)
        self.auditor = Auditor(
            self.engine,
            Promised(
                MACHINE,
                dict(zip(self._owners, OWNERS, strict=True)),
                {name: most for name, most in TYPES.items() if most is not None},
                run_ahead,
            ),
        )
        self._wire: list[Parcel] = []
        self._pids = count(1)  # one for each message: a process runs one at a time
        self._running: list[Attempt] = []
        self._given_up: list[Attempt] = []  # presumed dead; some report all the same
        self._names = 0
        self.nodes = (Node(self, "one"), Node(self, "other"))

    def connect(self) -> Engine:
        engine = create_engine(self._url, connect_args={"options": "-c timezone=UTC"})
        event.listen(engine, "connect", _wait_for_nobody)
        return engine

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
        self._admin.dispose()
        self.engine.dispose()

    # One thing after the other

    def act(self, name: str, seed: int) -> None:
        """Let one thing happen, and check everything."""
        self.chance = random.Random(seed)  # noqa: S311 - makes trouble, hides nothing
        self._act(name)
        self.auditor.look()

    def settle(self) -> None:
        """Let all work come to its end without further trouble, and check that nothing is left."""
        for _ in range(200):
            self._catch_up()
            if not self._wire:  # what was lost is found
                self._act("age")
                self.do(lambda session: session.execute(text(_LEASES_END)))
            self.work_off()
            self.auditor.look()
            if not self._unfinished():
                break
        self._catch_up()
        self._catch_up()
        self.auditor.look_at_the_end()
        self.counts["jobs"] += len(self.auditor.status)
        self.counts["attempts"] += len(self.auditor.started)
        self.counts["epochs"] += self.auditor.epoch

    def work_off(self) -> None:
        """Let workers do all that was sent."""
        while self._wire:
            self._act("claim")
        while self._running:
            self._act("finish")

    def clear(self) -> None:
        """Let workers do all that was sent, and people take back everything else."""
        self._act("age")
        self._catch_up()
        self.work_off()
        waiting = [row.id for row in self._rows("SELECT id FROM jobs WHERE finished_at IS NULL")]
        self.do(lambda session: cancel_waiting(session, waiting, reason=CancelReason.BY_USER))

    def want_more_than_fits(self, job_class: JobClass = JobClass.NORMAL) -> None:
        """Submit more than the machine has room for, in jobs that fit one by one."""
        # Their time comes at once. Ready ones would be told by the feed, whose rows two turns
        # cannot both take: that alone would keep the second from going on.
        later = {"delay_seconds": 0.001, "job_class": job_class}
        wanted = [_submission(cpu_units=Decimal(2), memory_mb=100, **later)] * 5
        self.do(lambda session: submit(session, self._owners[0], wanted, batch=True))

    def _act(self, name: str) -> None:
        try:
            getattr(self, f"_{name}")()
        except SQLAlchemyError:
            self.counts["requests given up"] += 1  # whom a paused turn keeps waiting

    def do(self, act: Callable[[Session], T]) -> T:
        return committed(self.engine, act)

    # Schedulers

    def _turn(self) -> None:
        leading = [node for node in self.nodes if node.lease._connection is not None]
        self.chance.choice(leading * 3 + [*self.nodes]).round(self._some_strike())

    def _some_strike(self) -> Strike | None:
        if self.chance.random() < 0.2:
            return None
        fault = self.chance.choice(list(Fault))
        return Strike(fault, self.chance.randrange(3 if fault in AT_COMMIT else POINTS))

    def go_on(self) -> None:
        """Let everybody act who is not in the middle of something."""
        others = [node for node in self.nodes if not node.is_taking_a_turn]
        for _ in range(self.chance.randint(1, 4)):
            if others and self.chance.random() < 0.6:
                self.chance.choice(others).round()
            else:
                self._act(self.chance.choice(_OTHERS))

    def let_another_lead(self) -> None:
        """Let one who is not in the middle of something take a turn, and choose other jobs."""
        with suppress(SQLAlchemyError):
            self.want_more_than_fits(JobClass.CRITICAL)
        for node in self.nodes:
            if not node.is_taking_a_turn:
                node.round()

    def cut_the_lock(self) -> None:
        """End the connection of whoever holds the lock."""
        with self._admin.connect() as connection:
            for pid in connection.execute(text(_LOCK_HOLDERS), {"key": LOCK_KEY}).scalars():
                self.end_session(pid)

    def end_session(self, pid: int) -> None:
        with self._admin.connect() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            there = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
            eventually(lambda: connection.scalar(there, {"pid": pid}) == 0, every=0.002)

    def _catch_up(self) -> None:
        for node in self.nodes:
            node.round()

    def _sweep(self) -> None:
        """Compare what the leader knows with the database, after a sweep and before any repair."""
        self._catch_up()
        self._catch_up()
        for node in self.nodes:
            known = node.scheduler._memory.mirror
            if known is not None and self._leads(node):
                while known.is_reading or known._returned:
                    node.round()
                self._compare(node)
                known._swept_at -= mirror.SWEEP_EVERY
                node.round()
                self._compare(node)
                self.counts["comparisons"] += 1

    def _leads(self, node: Node) -> bool:
        epoch = self._scalar("SELECT epoch FROM scheduler_lease")
        return node.lease._connection is not None and node.lease.epoch == epoch

    def _compare(self, node: Node) -> None:
        known = node.scheduler._memory.mirror
        if known is None:
            raise Broken("a turn without trouble was lost")
        active = self._rows("SELECT job_id, attempt FROM active ORDER BY job_id")
        running = sorted((job.id, job.attempt) for job in known.running.values())
        _same(running, [tuple(row) for row in active], "what runs")
        for owner in self._owners:
            line = [job.id for job in known.engine.line_of(owner)]
            jobs = [row.job_id for row in self._rows(_LINE, owner=owner)]
            kept = sorted(jobs[: len(line)] if known.engine.has_more(owner) else jobs)
            _same(sorted(line), kept, f"the line of {owner}")
        for row in self._rows("SELECT owner_id, meter, express_meter, tag FROM meters"):
            if (account := known.engine.accounts.get(row.owner_id)) is not None:
                meters = (account.meter, account.express_meter, account.tag)
                _same(meters, tuple(row)[1:], f"the meter of {row.owner_id}")

    # The wire

    def carry(self, parcels: Sequence[Parcel]) -> None:
        """Take parcels, lose some and double others."""
        for parcel in parcels:
            draw = self.chance.random()
            self._wire += [parcel] * (0 if draw < 0.05 else 2 if draw > 0.9 else 1)
            self.counts["messages lost"] += draw < 0.05
            self.counts["messages doubled"] += draw > 0.9

    def _forget(self) -> None:
        """Let the broker lose everything."""
        self._wire.clear()
        self.redis.flushdb()
        self.counts["brokers emptied"] += 1

    def _age(self) -> None:
        """Let messages be old enough to be sent again."""
        self.do(lambda session: session.execute(text(_AGE), {"age": service.UNCLAIMED_AFTER}))

    # Workers

    def _claim(self) -> None:
        if not self._wire:
            return
        parcel = self._wire.pop(self.chance.randrange(len(self._wire)))
        wanted = [(parcel.job_id, parcel.attempt)]
        claims, _ = self.do(
            lambda session: work.start(
                session, wanted, worker=WORKER, pid=next(self._pids), lease=LEASE
            )
        )
        self._running += [(claim.id, claim.attempt) for claim in claims]

    def _finish(self) -> None:
        if self._running:
            attempt = self._running.pop(self.chance.randrange(len(self._running)))
            if not self._report(attempt, self._running):
                raise Broken(f"nobody knew of {attempt}, which ran")

    def _quit(self) -> None:
        """Give attempts back, as a worker that is to stop."""
        back, self._running = self._running[:2], self._running[2:]
        self.do(lambda session: work.give_back(session, back))

    def _vanish(self) -> None:
        """Let the lease of one attempt end, whose worker is dead or only thought to be."""
        if not self._running:
            return
        attempt = self._running.pop(self.chance.randrange(len(self._running)))
        self._given_up.append(attempt)
        self.do(lambda session: session.execute(text(_LEASE_ENDS), {"job": attempt[0]}))
        self.counts["workers silent"] += 1

    def _late(self) -> None:
        """Let a worker that was thought to be dead report."""
        if self._given_up:
            self.counts["late reports"] += 1
            self.counts["late reports counted"] += self._report(self._given_up.pop(), [])

    def _report(self, attempt: Attempt, unwritten: list[Attempt]) -> bool:
        outcome = self.chance.randrange(5)
        try:
            return bool(self.do(lambda session: _ended(session, attempt, outcome)))
        except SQLAlchemyError:
            unwritten.append(attempt)  # a worker keeps its outcome until it is written
            return True

    # People

    def _submit(self) -> None:
        owner = self.chance.choice(self._owners)
        wanted = [self._some_job(owner) for _ in range(self.chance.randint(1, 5))]
        with suppress(FairqError):  # a person may be told no
            self.do(lambda session: submit(session, owner, wanted, batch=True))

    def _some_job(self, owner: int) -> Submission:
        self._names += 1
        parents = {
            f"{owner}-{self.chance.randint(max(1, self._names - 12), self._names)}"
            for _ in range(self.chance.choice([0, 0, 0, 1, 2]))
        } & self._known_names(owner)
        return _submission(
            f"{owner}-{self._names}",
            type=self.chance.choice(list(TYPES)),
            job_class=self.chance.choice(list(JobClass)),
            cpu_units=Decimal(self.chance.choice(self._sizes(owner))),
            memory_mb=self.chance.choice([1, 100, 700, 2000, 4096]),
            depends_on=tuple((name, self.chance.choice(list(Condition))) for name in parents),
            estimated_seconds=self.chance.choice([None, 0.5, 20.0]),
        )

    def _sizes(self, owner: int) -> list[str]:
        """Return how many CPU units a job of *owner* may take: none that could never start."""
        most = self.auditor.promised.owners[owner].cpu_units or MACHINE.cpu_units
        return [size for size in ("0.1", "0.7", "1", "2.5", "8") if float(size) <= most]

    def _known_names(self, owner: int) -> set[str]:
        named = "SELECT job_id FROM jobs WHERE owner_id = :owner"
        return {row.job_id for row in self._rows(named, owner=owner)}

    def _cancel(self) -> None:
        self._to_some_job(cancel)

    def _again(self) -> None:
        self._to_some_job(lambda session, job: run_again(session, [job]))

    def _to_some_job(self, act: Callable[[Session, int], Any]) -> None:
        jobs = [row.id for row in self._rows("SELECT id FROM jobs ORDER BY id DESC LIMIT 20")]
        if jobs:
            job = self.chance.choice(jobs)
            self.do(lambda session: act(session, job))

    # Looking

    def _unfinished(self) -> bool:
        final = {str(status) for status in FINISHED}
        return any(row.status not in final for row in self._rows("SELECT status FROM jobs"))

    def _rows(self, query: str, **parameters: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(query), parameters))

    def _scalar(self, query: str) -> Any:
        return self._rows(query)[0][0]


_LINE = "SELECT job_id FROM ready WHERE owner_id = :owner ORDER BY rank, job_id"
_AGE = """
UPDATE active
SET published_at =
    COALESCE(published_at, admitted_at) - CAST(:age AS interval) - interval '1 second'
"""
_LEASE_ENDS = "UPDATE active SET lease_until = now() - interval '1 second' WHERE job_id = :job"
_LEASES_END = "UPDATE active SET lease_until = now() - interval '1 second' WHERE claimed_at < now()"


@contextmanager
def world(database_url: str, redis: Redis, *, run_ahead: bool = True) -> Iterator[World]:
    """Make a world whose schedulers wait for nothing; with or without running ahead of slots."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scheduler, "_wait_for_wake", lambda _: None)
        patch.setattr(service, "STANDBY_PAUSE", timedelta(0))
        if not run_ahead:
            patch.setattr(mirror, "RUN_AHEAD", timedelta(0))
        made = World(database_url, redis, run_ahead=mirror.RUN_AHEAD.total_seconds())
        try:
            yield made
        finally:
            made.stop()


def story(seed: int, length: int) -> list[tuple[str, int]]:
    """Make up what happens: names of acts, each with a seed of its own."""
    chance = random.Random(seed)  # noqa: S311 - makes trouble, hides nothing
    return [(chance.choice(ACTS), chance.randrange(2**32)) for _ in range(length)]


def _furnish(session: Session) -> list[int]:
    for name in TYPES:
        make_type(session, name)
    types = {name: {"max_running": most} for name, most in TYPES.items() if most is not None}
    make_policy(session, types=types)
    make_worker(session, processes=MACHINE.slots, processes_max=MACHINE.slots)
    session.execute(text("UPDATE workers SET heartbeat_at = now() + interval '1 day'"))
    return [make_user(session, **_columns(caps)).id for caps in OWNERS]


def _columns(caps: OwnerCaps) -> Mapping[str, Any]:
    return {
        "weight": caps.weight,
        "cap_cpu_units": caps.cpu_units,
        "cap_running_jobs": caps.running_jobs,
    }


def _submission(name: str | None = None, **fields: Any) -> Submission:
    """Make a job whose next attempt follows a failed one at once."""
    retry_config = {"jitter": False, "base_delay_seconds": 0.0}
    return make_submission(name, retry_config=retry_config, **fields)


def _ended(session: Session, attempt: Attempt, outcome: int) -> list[Any]:
    if outcome == 0:
        return work.fail(session, work.Failure(*attempt, "E", "no", retryable=False))
    if outcome == 1:
        return work.fail(session, work.Failure(*attempt, "E", "try again"))
    return work.succeed(session, [work.Success(*attempt, None)])


def _wait_for_nobody(connection: Any, _: Any) -> None:
    connection.execute("SET lock_timeout = '40ms'")
    connection.commit()


def _pid(connection: Connection) -> int:
    return int(connection.connection.dbapi_connection.info.backend_pid)  # type: ignore[union-attr]


def _same(known: object, there: object, what: str) -> None:
    if known != there:
        raise Broken(f"{what}: known are {known}, there are {there}")
