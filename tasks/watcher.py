"""The thread beside a running handler.

It renews the attempt's lease, notices that the job is to stop or holds too much memory, writes down
what the handler says, and gives back the rest of a message whose present job takes long. It only
runs statements while a job runs: the first comes after a second, so that short jobs cost none.

A loop in C that holds the interpreter holds this thread too. The parent process renews the leases
of its living children for that reason, and ends those that do not stop.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler.store import work
from scheduler.store.work import Beat, Claim, Failure
from tasks.context import Cancelled, Context, Notebook
from tasks.interruption import Interruptible
from tasks.ledger import Ledger, tell_notes, write_notes
from tasks.memory import MemoryExceeded
from tasks.reports import Reports
from tasks.usage import Gauge

LEASE = timedelta(seconds=30)
"""How long a worker may be silent before its attempts are run elsewhere."""

NOTE_SECONDS = 0.25
"""How far apart the writes of what a handler says are, at least."""

MEMORY_GRACE = timedelta(seconds=5)
"""How long a job that was told it holds too much may go on before its process ends."""

_BEAT_SECONDS = 1.0  # also how soon a cancel is noticed, or too much memory
_RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Watched:
    """An attempt whose handler runs."""

    claim: Claim
    context: Context
    notebook: Notebook
    block: Interruptible
    gauge: Gauge
    on_long: Callable[[], None]
    beat_at: float = field(default_factory=lambda: time.monotonic() + _BEAT_SECONDS)
    note_at: float = 0.0
    asked_to_stop: bool = False
    over_memory_at: float | None = None
    over: bool = False
    writing: threading.Lock = field(default_factory=threading.Lock)

    def wakes_at(self) -> float:
        """Return when there is something to do."""
        return min(self.beat_at, self.note_at) if self.notebook else self.beat_at


class Watcher:
    """Looks after one attempt at a time."""

    def __init__(self, ledger: Ledger, reports: Reports) -> None:
        self._ledger = ledger
        self._reports = reports
        self._changed = threading.Condition()
        self._watched: Watched | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def nudge(self) -> None:
        """Look at once whether there is something to do."""
        with self._changed:
            self._changed.notify()

    @contextmanager
    def watching(self, watched: Watched) -> Iterator[None]:
        """Look after an attempt while the block runs.

        What was being written then is written, so that the outcome and the last lines come after.
        """
        self._start()
        self._watch(watched)
        try:
            yield
        finally:
            self._watch(None)
            with watched.writing:
                watched.over = True

    def close(self) -> None:
        """End the thread. Harmless twice, and before there was one."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
            self._thread.start()

    def _watch(self, watched: Watched | None) -> None:
        with self._changed:
            self._watched = watched
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                self._changed.wait(self._pause())
                watched = self._watched
            try:
                self._look(watched)
            except DBAPIError as problem:
                log.warning("a heartbeat was not written", extra={"problem": str(problem.orig)})
                self._put_off(watched)
            except Exception:
                log.exception("an attempt was not looked after")
                self._put_off(watched)

    def _pause(self) -> float | None:
        if self._watched is None:
            return None
        pause = max(0.0, self._watched.wakes_at() - time.monotonic())
        due = self._reports.due_in()
        return pause if due is None else min(pause, due)

    def _put_off(self, watched: Watched | None) -> None:
        if watched:
            watched.beat_at = watched.note_at = time.monotonic() + _RETRY_SECONDS

    def _look(self, watched: Watched | None) -> None:
        if watched is None:
            return
        if self._reports.due_in() == 0:
            self._reports.flush()
        now = time.monotonic()
        if watched.notebook and now >= watched.note_at:
            watched.note_at = now + NOTE_SECONDS
            with watched.writing:
                if not watched.over:
                    self._write_notes(watched)
        if now >= watched.beat_at:
            watched.beat_at = now + _BEAT_SECONDS
            self._weigh(watched, now)
            self._beat(watched)
            watched.on_long()

    def _weigh(self, watched: Watched, now: float) -> None:
        """Interrupt a handler that holds too much; if it goes on, end its attempt and process."""
        held, allowed = watched.gauge.held_mb(), watched.claim.memory_mb
        if held <= allowed:
            return
        said = f"held {held:.0f} MB, more than its {allowed} MB"
        if watched.over_memory_at is None:
            watched.over_memory_at = now
            watched.block.ask(MemoryExceeded(said))
        elif now - watched.over_memory_at >= MEMORY_GRACE.total_seconds():
            self._end_process(watched, f"{said}, and did not stop")

    def _end_process(self, watched: Watched, said: str) -> None:
        claim, used = watched.claim, watched.gauge.read()
        failure = Failure(
            claim.id,
            claim.attempt,
            MemoryExceeded.__name__,
            said,
            peak_memory_mb=used.peak_memory_mb,
            cpu_seconds=used.cpu_seconds,
        )
        with watched.writing:
            if watched.over:
                return
            self._ledger.tell(self._ledger.once(partial(work.fail, failure=failure), durable=True))
            log.warning("a job's memory did not shrink", extra={"job_id": claim.job_id})
            logging.shutdown()
            os._exit(1)

    def _write_notes(self, watched: Watched) -> None:
        claim, notes = watched.claim, watched.notebook.take()

        def write(session: Session) -> list[int]:
            return list(write_notes(session, claim, notes))

        try:
            numbers = self._ledger.once(write, durable=False)
        except DBAPIError:
            watched.notebook.give_back(notes)
            raise
        tell_notes(self._ledger.announcer, claim, notes, numbers)

    def _beat(self, watched: Watched) -> None:
        claim = watched.claim

        def beat(session: Session) -> Beat:
            return work.beat(session, claim.id, claim.attempt, lease=LEASE)

        learnt = self._ledger.once(beat, durable=False)
        if not learnt.alive or learnt.cancel_requested:
            self._stop(watched)

    def _stop(self, watched: Watched) -> None:
        """First let the handler stop by itself; from the next look on, make it."""
        watched.context.request_stop()
        if watched.asked_to_stop:
            watched.block.ask(Cancelled())
        watched.asked_to_stop = True
