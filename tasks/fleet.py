"""The worker's parent process: its entry in the register of workers, and care for its children.

A thread, because Celery's event loop must not wait for Postgres. It keeps the worker's heartbeat,
reads what operators want of the worker, renews the leases of the attempts its living processes
hold, kills a process that does not stop when its job was cancelled, and ends the attempts of
processes that died. While Postgres is away it keeps trying, and does all of it when Postgres is
back.
"""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler.dispatch import HARD_LIMIT_GRACE_SECONDS
from scheduler.store import fleet, work
from scheduler.store.fleet import TypeSpec, Wishes, WorkerOffer
from scheduler.store.moves import Move, lock
from scheduler.store.recovery import lost
from scheduler.store.work import TIME_LIMIT, Failure, Held
from tasks.ledger import Ledger
from tasks.watcher import LEASE

T = TypeVar("T")
Wanted = tuple[int, int]

CANCEL_GRACE = timedelta(seconds=5)
"""How long a job that was asked to stop may go on before its process is killed."""

REPORT_PATIENCE = timedelta(seconds=15)
"""How long a process may take to write an outcome while Postgres answers its parent."""

_LOOK_SECONDS = 0.5
_RENEW_SECONDS = 2.0  # also how soon an unheard cancel is noticed
_HEARTBEAT_SECONDS = 5.0
_FAREWELL_SECONDS = 10.0
_FORK_PATIENCE_SECONDS = 0.2  # a thread that waits for Postgres must not keep the pool waiting
_MEMORY_SECONDS = 60.0  # how long it is remembered why a process was killed

log = logging.getLogger(__name__)


class Processes(Protocol):
    """The worker's pool, as far as it is needed here."""

    def living(self) -> set[int]:
        """Return the ids of the processes that have not been found dead."""

    def lost(self) -> set[int]:
        """Return the ids of processes that are gone and not forgotten."""

    def forget(self, pid: int) -> None:
        """Name a lost process no more."""

    def is_reporting(self, pid: int) -> bool:
        """Tell whether a process has only outcomes to write."""


Steer = Callable[[Wishes], None]
"""Lets this worker follow what operators want of it."""

Unstarted = Callable[[], list[Wanted] | None]
"""Tells which attempts will not be started here; None as long as that is open."""


class Fleet:
    """This worker, as the others know it.

    ``look_now``, ``time_limit_passed``, ``give_back`` and ``drain`` only leave a note and may be
    called from signal handlers and the event loop; the thread does the rest. *is_interrupting*
    tells whether the processes that end now are ended by this worker's own stop. A worker that
    drains for longer than *drain* stops at once and gives back what it runs. *steer* is called by
    the thread.

    Make it before the worker takes work: what was claimed under its name before is left alone. It
    is of a worker that is dead or bears the same name, and the number of its process may well be
    that of one here, which must not keep it alive or be killed for it.
    """

    def __init__(
        self,
        ledger: Ledger,
        processes: Processes,
        offer: WorkerOffer,
        specs: Sequence[TypeSpec],
        *,
        drain: timedelta,
        is_interrupting: Callable[[], bool] = lambda: False,
        steer: Steer = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._processes = processes
        self._offer = offer
        self._specs = specs
        self._drain = drain
        self._is_interrupting = is_interrupting
        self._steer = steer
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        # A queue of this kind may be used by a signal handler that interrupts its own thread.
        self._notes: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._closing = self._arrived = self._away = False
        self._draining_since: float | None = None
        self._heartbeat_at = self._renew_at = 0.0
        self._at_work = threading.Lock()
        self._paused = False
        self._known_processes = -1
        self._asked_since: dict[Wanted, float] = {}
        self._reporting_since: dict[Wanted, float] = {}
        self._at_fault: dict[Wanted, float] = {}
        self._timed_out: dict[Wanted, float] = {}
        self._unstarted: list[Unstarted] = []
        self._began = time.monotonic()
        self._others: frozenset[Wanted] | None = None

    def start(self) -> None:
        """Begin to care. No process is forked while the thread is at it.

        A child would inherit every lock the thread holds at that moment, for ever taken.
        """
        os.register_at_fork(
            before=self._pause, after_in_parent=self._go_on, after_in_child=self._go_on
        )
        self._thread.start()

    def _pause(self) -> None:
        self._paused = self._at_work.acquire(timeout=_FORK_PATIENCE_SECONDS)

    def _go_on(self) -> None:
        if self._paused:
            self._at_work.release()

    def look_now(self) -> None:
        """Look at once: a process may have died."""
        self._notes.put(lambda: None)

    def time_limit_passed(self, attempts: Sequence[Wanted]) -> None:
        """Note that the process of these attempts is killed because one ran too long."""
        now = time.monotonic()
        self._notes.put(lambda: self._timed_out.update(dict.fromkeys(attempts, now)))

    def give_back(self, attempts: Unstarted) -> None:
        """Give back attempts that will not be started here, once that is sure."""
        self._notes.put(lambda: self._unstarted.append(attempts))

    def drain(self) -> None:
        """Take no new work from now on."""
        self._notes.put(self._begin_drain)

    def close(self) -> None:
        """Say farewell: the worker's processes have ended. Waits for it, though not for ever."""
        self._notes.put(self._begin_farewell)
        if self._thread.is_alive():
            self._thread.join(_FAREWELL_SECONDS)

    def _begin_drain(self) -> None:
        if self._draining_since is None:
            self._draining_since = time.monotonic()
        self._heartbeat_at = 0.0

    def _begin_farewell(self) -> None:
        self._closing = True

    def _run(self) -> None:
        while not self._closing:
            self._stop_in_time(time.monotonic())
            with self._at_work:
                self._try(self.turn, time.monotonic())
            self.listen(_LOOK_SECONDS)
        self._try(self.say_farewell)

    def _stop_in_time(self, now: float) -> None:
        """End a drain that takes too long; whether Postgres is there does not matter."""
        since = self._draining_since
        if since is not None and now - since >= self._drain.total_seconds():
            log.warning("the time to finish what runs is over")
            self._draining_since = math.inf  # said once
            os.kill(os.getpid(), signal.SIGQUIT)

    def _try(self, act: Callable[..., None], *arguments: float) -> None:
        try:
            act(*arguments)
        except DBAPIError as problem:
            if not self._away:
                log.warning("postgres away, still trying", extra={"problem": str(problem.orig)})
            self._away = True
            self._reporting_since = {}  # they could not write either
        except Exception:
            log.exception("the worker was not looked after")
        else:
            self._away = False

    def listen(self, seconds: float) -> None:
        """Take in what was noted, waiting for a note so long."""
        with suppress(Empty):
            self._notes.get(timeout=seconds)()
            while True:
                self._notes.get_nowait()()

    def turn(self, now: float) -> None:
        """Do what is due. *now* is monotonic."""
        if now >= self._heartbeat_at or self._known_processes != len(self._processes.living()):
            self._beat()
            self._heartbeat_at = now + _HEARTBEAT_SECONDS
        is_due = now >= self._renew_at
        if is_due:
            self._renew(now)
            self._renew_at = now + _RENEW_SECONDS
        self._bury_lost()
        self._give_back_unstarted()
        if is_due:
            self._follow_operators()

    def _beat(self) -> None:
        count = len(self._processes.living())
        draining = self._draining_since is not None
        state = "draining" if draining else "online"
        if not self._arrived:
            self._arrive(count)
        known = self._once(
            partial(
                fleet.beat_worker,
                name=self._offer.name,
                incarnation=self._offer.incarnation,
                processes=count,
                state=state,
            )
        )
        self._arrived = known
        self._known_processes = count
        if draining:
            self._ledger.announcer.wake()  # there is less to hand out

    def _arrive(self, count: int) -> None:
        offer = replace(self._offer, processes=count)

        def arrive(session: Session) -> frozenset[Wanted]:
            fleet.register_types(session, self._specs)
            fleet.arrive(session, offer)
            age = time.monotonic() - self._began
            return work.claimed_before(session, worker=offer.name, seconds=age)

        found = self._once(arrive)
        self._others = found if self._others is None else self._others
        self._arrived = True
        self._ledger.announcer.wake()

    def _follow_operators(self) -> None:
        """Tell this worker what is wanted of it, again and again: a busy one follows in steps."""
        wishes = self._once(partial(fleet.wishes, name=self._offer.name))
        if wishes is not None:
            self._steer(wishes)

    def _renew(self, now: float) -> None:
        held = self._held()
        asked = {(one.id, one.attempt): one.pid for one in held if one.cancel_requested_at}
        self._asked_since = {one: self._asked_since.get(one, now) for one in asked}
        for one, since in self._asked_since.items():
            if now - since >= CANCEL_GRACE.total_seconds():
                self._kill(one, asked[one], self._at_fault, now)
        for late in held:
            if late.overdue_seconds >= HARD_LIMIT_GRACE_SECONDS:
                self._kill((late.id, late.attempt), late.pid, self._timed_out, now)
        self._end_stuck(held, now)
        self._at_fault = _lately(self._at_fault, now)
        self._timed_out = _lately(self._timed_out, now)

    def _end_stuck(self, held: Sequence[Held], now: float) -> None:
        """End processes that cannot write an outcome although Postgres is there."""
        reporting = {
            (one.id, one.attempt): one.pid for one in held if self._processes.is_reporting(one.pid)
        }
        since = {one: self._reporting_since.get(one, now) for one in reporting}
        self._reporting_since = since
        for one, pid in reporting.items():
            if now - since[one] >= REPORT_PATIENCE.total_seconds():
                log.warning("a report got stuck", extra={"attempt": one, "pid": pid})
                os.kill(pid, signal.SIGKILL)

    def _held(self) -> list[Held]:
        """Return what the living processes hold, renewed."""
        living, others = sorted(self._processes.living()), self._others or ()
        return self._once(
            partial(work.renew, worker=self._offer.name, pids=living, lease=LEASE, others=others)
        )

    def _held_by(self, pid: int) -> list[Wanted]:
        held = self._once(partial(work.held_by, worker=self._offer.name, pid=pid))
        return [one for one in held if one not in (self._others or ())]

    def _kill(self, attempt: Wanted, pid: int, noted: dict[Wanted, float], now: float) -> None:
        """End a process whose job does not stop, and note why; one that reports has stopped."""
        if pid not in self._processes.living() or self._processes.is_reporting(pid):
            return
        log.warning("a job did not stop", extra={"attempt": attempt, "pid": pid})
        noted[attempt] = now
        os.kill(pid, signal.SIGKILL)

    def _bury_lost(self) -> None:
        for pid in sorted(self._processes.lost()):
            held = self._held_by(pid)
            if held:
                self._end(pid, held)
            self._processes.forget(pid)

    def _end(self, pid: int, held: list[Wanted]) -> None:
        """End what a dead process ran; give back what it had only claimed.

        Of several claimed attempts, one is known to be at fault if its process was killed for it.
        Otherwise it is taken to be the first.
        """
        known = self._at_fault | self._timed_out
        culprit = next((one for one in held if one in known), held[0])
        rest = [one for one in held if one != culprit]
        if self._is_interrupting():
            self._return(held)
            return
        failure = self._failure(culprit, pid)

        def end(session: Session) -> list[Move]:
            # At once: in a rest that were left, the next look would find another culprit.
            lock(session, [job for job, _ in held])
            return work.fail(session, failure) + work.give_back(session, rest)

        self._tell(end)

    def _failure(self, attempt: Wanted, pid: int) -> Failure:
        if attempt in self._timed_out:
            said = "killed: it did not stop when its time was over"
            return Failure(*attempt, TIME_LIMIT, said)
        return lost(*attempt, f"process {pid} ended", crashed=True)

    def _give_back_unstarted(self) -> None:
        while self._unstarted:
            attempts = self._unstarted[0]()
            if attempts is None:
                return
            running = {(one.id, one.attempt) for one in self._held()} if attempts else set()
            self._return([one for one in attempts if one not in running])
            self._unstarted.pop(0)

    def say_farewell(self) -> None:
        """Give back whatever was cut short, and leave. Whoever leaves has no living process."""
        self._give_back_unstarted()
        for pid in sorted(self._processes.lost()):
            self._return(self._held_by(pid))
        name, incarnation = self._offer.name, self._offer.incarnation
        self._once(partial(fleet.leave, name=name, incarnation=incarnation))
        self._ledger.announcer.wake()

    def _return(self, attempts: list[Wanted]) -> None:
        if attempts:
            self._tell(partial(work.give_back, wanted=attempts))

    def _tell(self, verb: Callable[[Session], list[Move]]) -> None:
        self._ledger.tell(self._ledger.once(verb, durable=True))

    def _once(self, act: Callable[[Session], T]) -> T:
        return self._ledger.once(act, durable=False)


def _lately(noted: dict[Wanted, float], now: float) -> dict[Wanted, float]:
    return {one: since for one, since in noted.items() if now - since < _MEMORY_SECONDS}
