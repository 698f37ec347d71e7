"""The loop that decides and acts. One scheduler leads; others stand by.

One turn, all of it in one transaction until step 6:

1. Fence: this epoch still leads, or nothing is written.
2. Take in what ended: settle dependencies, correct the meters.
3. Let time do its part: due jobs, passed deadlines, leases that ran out, ticks of schedules,
   unclaimed messages.
4. Bring what the leader knows level with the database, and decide.
5. Admit: only what really moved counts; write the meters and what the policy remembers.
6. Commit, then publish, then tell.
"""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain

from redis import Redis, RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from scheduler.database import is_in_the_way
from scheduler.dispatch import Dispatcher, Sent
from scheduler.errors import LeadershipLost
from scheduler.events import WAKE_KEY, Announcer, Standing, write_curve, write_standings
from scheduler.lease import Lease
from scheduler.mirror import Mirror
from scheduler.policy.admission import Decision
from scheduler.policy.curve import make_curve
from scheduler.policy.experience import Scorer
from scheduler.policy.forecast import estimate
from scheduler.policy.plan import plan
from scheduler.policy.reasons import sentence
from scheduler.snapshot import Snapshot
from scheduler.states import FINISHED
from scheduler.store import (
    admission,
    counts,
    dependencies,
    leader,
    lookup,
    offers,
    recovery,
    ticking,
    timers,
)
from scheduler.store.moves import Move
from scheduler.store.picture import FRONT

FEED_BATCH = 1_000
"""Ended jobs taken in at once; what is left waits for the next turn, which follows at once."""

TIMER_BATCH = 500
"""Timers and leases handled in one turn."""

SCHEDULE_BATCH = 50
"""Schedules whose ticks are seen to in one turn."""

TICK_BATCH = 500
"""Ticks seen to in one turn, shared between these schedules: catching up takes many turns."""

PARCEL_BATCH = 500
"""Messages published in one go."""

PAUSE = timedelta(milliseconds=250)
"""The longest a turn waits for a wake: the safety net when a wake is lost or Redis is away."""

STANDBY_PAUSE = timedelta(seconds=1)
"""How often a scheduler that does not lead tries to."""

STANDINGS_EVERY = timedelta(seconds=1)
"""How often waiting jobs are told where they stand, at most."""

STANDINGS_PART = 0.1
"""The part of the leader's time that telling them may take; it is seldomer where many wait."""

PLACES_EVERY = timedelta(seconds=10)
"""How often the jobs behind those are counted: that takes a look at every line."""

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
    served: Sequence[int] = ()  # asks of pull workers
    admitted: int = 0
    published: int = 0
    busy: bool = False


@dataclass(slots=True)
class _Memory:
    """What the leader knows beyond its transaction; all of it can be lost."""

    mirror: Mirror | None = None
    standings_due_at: datetime | None = None
    told_places_at: datetime | None = None
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
                said = {"problem": _first_line(problem)}
                if is_in_the_way(problem):
                    log.warning("turn given up, others hold its rows", extra=said)
                    continue
                log.warning("database away", extra=said)
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
        mirror, self._memory.mirror = self._memory.mirror, None  # until the turn is known to stand
        with Session(self._engine) as session, session.begin():
            turn, mirror = self._decide(session, now, mirror, lost_messages=lost_messages)
            parcels = admission.waiting_parcels(session, limit=PARCEL_BATCH)
            if any(_is_for_good(move) for move in turn.moves):
                leader.commit_durably(session)
        self._memory.mirror = mirror
        if lost_messages:
            self._leave_marker()
        try:
            self._lease.renew()
            sent = self._publish(parcels)
        finally:  # what was committed is told, even if it was this leader's last
            self._announcer.tell(turn.moves)
            self._announcer.offers(turn.served)
        self._lease.renew()
        if self._is_to_tell_standings(now):
            self._tell_standings(mirror, now)
            self._tell_places(mirror, now)
        is_full = len(parcels) == PARCEL_BATCH
        has_more = sent.problem is None and (sent.count < len(parcels) or is_full)
        return replace(turn, published=sent.count, busy=turn.busy or has_more)

    def _decide(
        self, session: Session, now: datetime, mirror: Mirror | None, *, lost_messages: bool
    ) -> tuple[Turn, Mirror]:
        remembered = leader.fence(session, epoch=self._lease.epoch)
        rows = dependencies.take(session, limit=FEED_BATCH)
        moves = dependencies.resolve(session, rows)
        passed = self._let_time_pass(session, now)
        moves += chain.from_iterable(passed)
        ticked = ticking.make_due(session, now=now, limit=SCHEDULE_BATCH, ticks=TICK_BATCH)
        moves += ticked.moves
        admission.publish_again(
            session, older_than=timedelta(0) if lost_messages else UNCLAIMED_AFTER
        )
        mirror = mirror or Mirror(session, remembered, now)
        mirror.follow(session, rows, moves, now)
        decided = mirror.decide(now)
        admitted = self._admit(session, decided)
        mirror.note(decided, admitted, now)
        counts.add(session, admitted, rows)
        mirror.read_on(session, now)
        memory = mirror.keep(session, decided, now)
        leader.remember(session, memory, epoch=self._lease.epoch)
        moves += admitted
        is_cancelling = any(move.verb == "cancel" for move in moves)
        is_behind = len(rows) == FEED_BATCH or ticked.has_more or mirror.is_reading
        is_full = any(len(batch) >= TIMER_BATCH for batch in passed)
        busy = is_behind or is_cancelling or is_full
        return Turn(tuple(moves), _served(decided, admitted), len(admitted), busy=busy), mirror

    def _let_time_pass(self, session: Session, now: datetime) -> Sequence[Sequence[Move]]:
        return (
            timers.release_due(session, now=now, limit=TIMER_BATCH),
            timers.expire(session, now=now, limit=TIMER_BATCH),
            recovery.end_lost(session, limit=TIMER_BATCH),
            offers.clear_away(session, limit=TIMER_BATCH),
        )

    def _admit(self, session: Session, decided: Decision) -> list[Move]:
        if not decided.admissions:
            return []
        admitted = [
            admission.Admitted(
                one.id, one.charge, one.express, one.job.expected.total_seconds(), one.ask
            )
            for one in decided.admissions
        ]
        return admission.admit(session, admitted, epoch=self._lease.epoch)

    # After the commit

    def _publish(self, parcels: Sequence[admission.Parcel]) -> Sent:
        """Send *parcels* and note which were sent; what more there is waits for a turn."""
        if not parcels:
            return Sent(0)
        sent = self._dispatcher.send(parcels)
        if sent.count:
            with Session(self._engine) as session, session.begin():
                admission.mark_published(session, parcels[: sent.count])
        if sent.problem is not None and not self._memory.broker_away:
            log.warning("broker away, messages wait", extra={"problem": _first_line(sent.problem)})
        self._memory.broker_away = sent.problem is not None
        return sent

    def _broker_lost_messages(self) -> bool:
        try:
            return not self._redis.exists(_MARKER_KEY)
        except RedisError:
            return False  # nothing can be sent now; when it is back the marker tells

    def _leave_marker(self) -> None:
        with suppress(RedisError):  # then it is still missing next turn
            self._redis.set(_MARKER_KEY, self._lease.epoch)

    def _tell_places(self, mirror: Mirror, now: datetime) -> None:
        """Tell about where jobs stand that no plan reaches."""
        told_at = self._memory.told_places_at
        if mirror.reaches_everything or (told_at and now - told_at < PLACES_EVERY):
            return
        self._memory.told_places_at = now
        with Session(self._engine) as session:
            lengths = lookup.lengths_of_lines(session)
        curve = make_curve(
            mirror.lines(lengths),
            clock=mirror.engine.clock,
            starts=mirror.starts_per_second,
            experience=mirror.scorer.experience,
        )
        with suppress(RedisError):  # pages then go by the jobs' status
            write_curve(self._redis, curve)

    def _is_to_tell_standings(self, now: datetime) -> bool:
        due_at = self._memory.standings_due_at
        return due_at is None or now >= due_at

    def _tell_standings(self, mirror: Mirror, now: datetime) -> None:
        begun = time.monotonic()
        by_owner = _standings(mirror.front(now, FRONT), mirror.scorer)
        gone = self._memory.owners_told - set(by_owner)
        self._memory.owners_told = set(by_owner)
        with suppress(RedisError):  # pages then go by the jobs' status
            write_standings(self._redis, by_owner | {owner: {} for owner in gone})
        took = timedelta(seconds=time.monotonic() - begun)
        self._memory.standings_due_at = now + max(STANDINGS_EVERY, took / STANDINGS_PART)


def _is_for_good(move: Move) -> bool:
    """Tell whether a move ended a job or made one."""
    return move.status in FINISHED or move.verb == "submit"


def _served(decided: Decision, admitted: Sequence[Move]) -> tuple[int, ...]:
    """Return the asks for which a job really was admitted."""
    moved = {move.id for move in admitted}
    return tuple(one.ask for one in decided.admissions if one.ask is not None and one.id in moved)


def _standings(snapshot: Snapshot, scorer: Scorer) -> dict[int, dict[int, Standing]]:
    """Tell every candidate that was passed over its position, its reason and its likely start."""
    decided = plan(snapshot)
    waiting = [job for job in decided.order if job in decided.holds]
    owner_of = {job.id: job.owner_id for job in snapshot.candidates}
    starts = estimate(snapshot, waiting, decided=decided, experience=scorer.experience)
    scorer.publish(starts, {job.id: job.job_class for job in snapshot.candidates})
    by_owner: dict[int, dict[int, Standing]] = {}
    for position, job in enumerate(waiting, start=1):
        hold = decided.holds[job]
        start = starts.get(job) or (None, None, None)
        standing = Standing(position, hold.code, sentence(hold), *start)
        by_owner.setdefault(owner_of[job], {})[job] = standing
    return by_owner


def _first_line(problem: Exception) -> str:
    return str(problem).partition("\n")[0]
