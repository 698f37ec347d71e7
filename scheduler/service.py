"""The loop that decides and acts. One scheduler leads; others stand by.

One turn, all of it in one transaction until step 6:

1. Fence: this epoch still leads, or nothing is written.
2. Take in what ended: settle dependencies, correct the meters.
3. Let time do its part: due jobs, passed deadlines, leases that ran out, unclaimed messages.
4. Read the snapshot and plan.
5. Admit: only what really moved counts; write the meters and what the policy remembers.
6. Commit, then publish, then tell.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kombu.exceptions import OperationalError as BrokerAway
from redis import Redis, RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from scheduler import accounting
from scheduler.dispatch import Dispatcher
from scheduler.errors import LeadershipLost
from scheduler.events import WAKE_KEY, Announcer, Standing, write_standings
from scheduler.lease import Lease
from scheduler.policy.admission import Decision
from scheduler.policy.forecast import estimate
from scheduler.policy.plan import Plan, decide, plan
from scheduler.policy.reasons import sentence
from scheduler.snapshot import Running, Snapshot
from scheduler.store import admission, dependencies, leader, picture, recovery, timers
from scheduler.store.moves import Move

FEED_BATCH = 1_000
"""Ended jobs taken in at once; what is left waits for the next turn, which follows at once."""

TIMER_BATCH = 500
"""Timers and leases handled in one turn."""

PARCEL_BATCH = 500
"""Messages published in one go."""

PAUSE = timedelta(milliseconds=250)
"""The longest a turn waits for a wake: the safety net when a wake is lost or Redis is away."""

STANDBY_PAUSE = timedelta(seconds=1)
"""How often a scheduler that does not lead tries to."""

STANDINGS_EVERY = timedelta(seconds=1)
"""How often waiting jobs are told where they stand."""

UNCLAIMED_AFTER = timedelta(seconds=15)
"""How long a message may lie unclaimed before it is sent again; sending twice is harmless."""

LONGEST_BACKOFF = timedelta(seconds=5)
"""The longest pause between attempts to reach a database that is away."""

_MARKER_KEY = "fairq:marker"
"""A key that is gone when Redis has lost what it held."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did. *busy*: more is to be done at once."""

    moves: Sequence[Move] = ()
    admitted: int = 0
    published: int = 0
    busy: bool = False


@dataclass(slots=True)
class _Memory:
    """What the leader knows beyond its transaction; all of it can be lost."""

    running: dict[int, Running] = field(default_factory=dict)
    durations: dict[str, timedelta] = field(default_factory=dict)
    told_standings_at: datetime | None = None
    owners_told: set[int] = field(default_factory=set)
    broker_away: bool = False


class Scheduler:
    """Decides who goes next, as long as it holds the lease."""

    def __init__(self, engine: Engine, redis: Redis, dispatcher: Dispatcher, lease: Lease) -> None:
        self._engine = engine
        self._redis = redis
        self._dispatcher = dispatcher
        self._lease = lease
        self._announcer = Announcer(redis)
        self._memory = _Memory()
        self._stopping = threading.Event()

    # The loop

    def run(self) -> None:
        """Lead or stand by until stopped. Survives a database and a broker that are away."""
        log.info("scheduler started")
        backoff = PAUSE
        while not self._stopping.is_set():
            try:
                self._one_round()
                backoff = PAUSE
            except LeadershipLost:
                log.warning("lost the lead", extra={"epoch": self._lease.epoch})
                self._lease.release()
            except SQLAlchemyError as problem:
                log.warning("database away", extra={"problem": _first_line(problem)})
                self._stopping.wait(backoff.total_seconds())
                backoff = min(backoff * 2, LONGEST_BACKOFF)
        self._lease.release()
        log.info("scheduler stopped")

    def stop(self) -> None:
        """End the loop after the turn under way. Safe before ``run``, and twice."""
        self._stopping.set()

    def _one_round(self) -> None:
        was_leading = self._lease.epoch
        if not self._lease.hold() or self._lease.held_at is None:
            self._stopping.wait(STANDBY_PAUSE.total_seconds())
            return
        if self._lease.epoch != was_leading:
            self._memory = _Memory()
        turn = self.tick(self._lease.held_at)
        if not turn.busy:
            self._wait_for_wake()

    def _wait_for_wake(self) -> None:
        try:
            self._redis.blpop([WAKE_KEY], timeout=PAUSE.total_seconds())
            self._redis.delete(WAKE_KEY)  # whoever called meanwhile is served by the same turn
        except RedisError:
            self._stopping.wait(PAUSE.total_seconds())

    # One turn

    def tick(self, now: datetime) -> Turn:
        """Take one turn. Raises LeadershipLost, and then has changed nothing."""
        lost_messages = self._broker_lost_messages()
        with Session(self._engine) as session, session.begin():
            turn, snapshot, decided = self._decide(session, now, lost_messages=lost_messages)
            parcels = admission.waiting_parcels(session, limit=PARCEL_BATCH)
        if lost_messages:
            self._leave_marker()
        published = self._publish(parcels)
        self._announcer.tell(turn.moves)
        if isinstance(decided, Plan):
            self._tell_standings(snapshot, decided)
        busy = turn.busy or published == PARCEL_BATCH
        return replace(turn, published=published, busy=busy)

    def _decide(
        self, session: Session, now: datetime, *, lost_messages: bool
    ) -> tuple[Turn, Snapshot, Decision]:
        remembered = leader.fence(session, epoch=self._lease.epoch)
        rows = dependencies.take(session, limit=FEED_BATCH)
        moves = dependencies.resolve(session, rows)
        moves += self._let_time_pass(session, now)
        admission.publish_again(
            session, older_than=timedelta(0) if lost_messages else UNCLAIMED_AFTER
        )
        known = self._memory
        known.durations = accounting.learn(known.durations, rows)
        snapshot = picture.read_snapshot(
            session,
            remembered,
            now=now,
            involved={row.owner_id for row in rows},
            durations=known.durations,
        )
        snapshot, touched = accounting.take_in(snapshot, rows, known.running)
        known.running = {job.id: job for job in snapshot.running}
        decided = plan(snapshot) if self._is_to_tell_standings(now) else decide(snapshot)
        admitted = self._admit(session, snapshot, decided)
        self._remember(session, snapshot, decided, touched, admitted)
        moves += admitted
        busy = len(rows) == FEED_BATCH or any(move.verb == "cancel" for move in moves)
        return Turn(tuple(moves), len(admitted), busy=busy), snapshot, decided

    def _let_time_pass(self, session: Session, now: datetime) -> list[Move]:
        return [
            *timers.release_due(session, now=now, limit=TIMER_BATCH),
            *timers.expire(session, now=now, limit=TIMER_BATCH),
            *recovery.end_lost(session, limit=TIMER_BATCH),
        ]

    def _admit(self, session: Session, snapshot: Snapshot, decided: Decision) -> list[Move]:
        if not decided.admissions:
            return []
        jobs = {job.id: job for job in snapshot.candidates}
        wanted = {one.id: one for one in decided.admissions}
        admitted = [
            admission.Admitted(
                one.id, one.charge, one.express, jobs[one.id].expected.total_seconds()
            )
            for one in decided.admissions
        ]
        moves = admission.admit(session, admitted, epoch=self._lease.epoch)
        self._memory.running |= {
            move.id: accounting.as_running(jobs[move.id], move, wanted[move.id]) for move in moves
        }
        return moves

    def _remember(
        self,
        session: Session,
        snapshot: Snapshot,
        decided: Decision,
        touched: set[int],
        admitted: Sequence[Move],
    ) -> None:
        accounts = {owner: snapshot.accounts[owner] for owner in touched}
        accounts |= {account.owner_id: account for account in decided.accounts}
        moved = {move.id for move in admitted}
        missing = [one for one in decided.admissions if one.id not in moved]
        accounts, clock = accounting.take_back(accounts, decided.clock, missing)
        picture.write_accounts(session, accounts.values())
        memory = picture.to_memory(clock, decided.reservation)
        leader.remember(session, memory, epoch=self._lease.epoch)

    # After the commit

    def _publish(self, parcels: Sequence[admission.Parcel]) -> int:
        """Send *parcels* and note that they were sent; what more there is waits for a turn."""
        if not parcels or not self._send(parcels):
            return 0
        with Session(self._engine) as session, session.begin():
            admission.mark_published(session, parcels)
        return len(parcels)

    def _send(self, parcels: Sequence[admission.Parcel]) -> bool:
        try:
            self._dispatcher.send(parcels)
        except (BrokerAway, RedisError, OSError) as problem:
            if not self._memory.broker_away:
                log.warning("broker away, messages wait", extra={"problem": _first_line(problem)})
            self._memory.broker_away = True
            return False
        self._memory.broker_away = False
        return True

    def _broker_lost_messages(self) -> bool:
        try:
            return not self._redis.exists(_MARKER_KEY)
        except RedisError:
            return False  # nothing can be sent now; when it is back the marker tells

    def _leave_marker(self) -> None:
        with suppress(RedisError):  # then it is still missing next turn
            self._redis.set(_MARKER_KEY, self._lease.epoch)

    def _is_to_tell_standings(self, now: datetime) -> bool:
        told_at = self._memory.told_standings_at
        return told_at is None or now - told_at >= STANDINGS_EVERY

    def _tell_standings(self, snapshot: Snapshot, decided: Plan) -> None:
        self._memory.told_standings_at = snapshot.now
        by_owner = _standings(snapshot, decided)
        gone = self._memory.owners_told - set(by_owner)
        self._memory.owners_told = set(by_owner)
        with suppress(RedisError):  # pages then go by the jobs' status
            write_standings(self._redis, by_owner | {owner: {} for owner in gone})


def _standings(snapshot: Snapshot, decided: Plan) -> dict[int, dict[int, Standing]]:
    """Tell every candidate that was passed over its position, its reason and its likely start."""
    waiting = [job for job in decided.order if job in decided.holds]
    owner_of = {job.id: job.owner_id for job in snapshot.candidates}
    starts = estimate(snapshot, waiting, decided=decided)
    by_owner: dict[int, dict[int, Standing]] = {}
    for position, job in enumerate(waiting, start=1):
        hold = decided.holds[job]
        start = starts.get(job) or (None, None, None)
        standing = Standing(position, hold.code, sentence(hold), *start)
        by_owner.setdefault(owner_of[job], {})[job] = standing
    return by_owner


def _first_line(problem: Exception) -> str:
    return str(problem).partition("\n")[0]
