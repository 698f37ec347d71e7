"""A scheduler in a process of its own, which takes one turn and is killed at any point of it.

Points are the statements and commits of a turn and of taking the lead, and what is sent to the
broker. The sabotages at the end are what a test must notice.
"""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from multiprocessing import get_context
from typing import Any

from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session
from ulid import ULID

from scheduler.database import make_engine, open_redis
from scheduler.dispatch import Sent
from scheduler.lease import Lease
from scheduler.service import Scheduler
from scheduler.settings import Settings
from scheduler.store import ticking
from scheduler.store.admission import Parcel
from tests.services import eventually

Sabotage = Callable[[Engine, "Life"], None]

_processes = get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class Life:
    """Ends after so many points, with everything that was under way."""

    def __init__(self, points: int | None) -> None:
        self._left = points

    def pass_a_point(self, *_: Any) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._left is not None:
            self._left -= 1

    def send(self, parcels: Sequence[Parcel]) -> Sent:
        """Take parcels as the broker does."""
        self.pass_a_point()
        return Sent(len(parcels))


def take_a_turn(
    environment: Mapping[str, str],
    name: str,
    now: datetime,
    *,
    points: int | None = None,
    sabotages: Sequence[Sabotage] = (),
) -> bool:
    """Let a scheduler of this name lead and take a turn at *now*; return whether it survived."""
    process = _processes.Process(
        target=_live, args=(dict(environment), name, now, points, list(sabotages))
    )
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode == 0


def _live(
    environment: Mapping[str, str],
    name: str,
    now: datetime,
    points: int | None,
    sabotages: Sequence[Sabotage],
) -> None:
    settings, life = Settings.from_env(environment), Life(points)
    engine = make_engine(settings)
    event.listen(engine, "before_cursor_execute", life.pass_a_point)
    event.listen(engine, "commit", life.pass_a_point)
    for sabotage in sabotages:
        sabotage(engine, life)
    lease = Lease(engine, holder=name)
    eventually(lease.hold)  # the lock of who was killed goes a moment later
    Scheduler(engine, open_redis(settings), life, lease).tick(now)
    life.pass_a_point()


def note_before(engine: Engine, _: Life) -> None:
    """Note that ticks are seen to in a transaction of its own, before that of their jobs ends."""
    _lock_no_schedule()
    really_note = ticking._note

    def note(_session: Session, *arguments: Any, **became: Any) -> None:
        with Session(engine) as session, session.begin():
            really_note(session, *arguments, **became)

    ticking._note = note


def note_after(engine: Engine, _: Life) -> None:
    """Note that ticks are seen to in a transaction of its own, after that of their jobs."""
    _lock_no_schedule()
    really_note, really_publish = ticking._note, Scheduler._publish
    notes: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def publish(scheduler: Scheduler, parcels: Sequence[Parcel]) -> Sent:
        for arguments, became in notes:
            with Session(engine) as session, session.begin():
                really_note(session, *arguments, **became)
        return really_publish(scheduler, parcels)

    ticking._note = lambda _session, *arguments, **became: notes.append((arguments, became))
    Scheduler._publish = publish  # type: ignore[method-assign]


def any_name(_engine: Engine, _: Life) -> None:
    """Give the jobs of ticks names that nobody else would give them."""
    ticking.job_name = lambda schedule, _tick: f"{schedule}@{ULID()}"


def _lock_no_schedule() -> None:
    ticking._DUE = text(ticking._DUE.text.partition("FOR NO KEY UPDATE")[0])
