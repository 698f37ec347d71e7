"""A demonstration: three users of different weight and a steady mixed load.

Nobody's backlog grows beyond a bound, so that it may run for days.
"""

import random
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.events import Announcer
from scheduler.models import Job
from scheduler.settings import new_secret
from scheduler.states import DEFAULT_LEVEL, UNFINISHED, Condition, JobClass, class_of
from scheduler.store.audit import COMMAND_LINE
from scheduler.store.submission import Submission, submit
from webapp import accounts

WEIGHTS: Mapping[str, float] = {"ann": 4.0, "bob": 2.0, "cleo": 1.0}

BACKLOG = 30
"""Unfinished jobs of one user, beyond which nothing is added."""

PAUSE = timedelta(seconds=1)
PAUSE_AWAY = timedelta(seconds=5)
"""Between tries while the database is away."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of job the demonstration submits, and how often beside the others."""

    type: str
    often: int
    seconds: tuple[float, float]
    classes: Sequence[JobClass] = (JobClass.NORMAL,)
    cpu_units: Decimal = Decimal(1)
    memory_mb: int = 128
    more: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


SHAPES = (
    Shape("simulate", 6, (0.5, 3), (JobClass.HIGH, JobClass.NORMAL, JobClass.LOW)),
    Shape("simulate", 3, (4, 12), cpu_units=Decimal(2), memory_mb=512, tags=("large",)),
    Shape("simulate", 1, (6, 15), (JobClass.LOW,), Decimal(4), 1024, tags=("huge",)),
    Shape("simulate", 1, (0.5, 2), (JobClass.CRITICAL,), tags=("urgent",)),
    Shape("simulate", 1, (1, 3), more={"fail_attempts": 1}, tags=("shaky",)),
)

CHAIN = ("data_fetch", "data_processing", "report_generation")
CHAIN_CHANCE = 0.2


def run(session: Session, announcer: Announcer, *, say: Callable[[str], None]) -> None:
    """Make the users, then submit until SIGINT or SIGTERM."""
    stopping = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: stopping.set())
    owners = make_users(session, say=say)
    chance = random.Random()  # noqa: S311 - a load, not a secret
    pause = timedelta(0)
    while not stopping.wait(pause.total_seconds()):
        pause = turn(session, announcer, owners, chance)


def make_users(session: Session, *, say: Callable[[str], None]) -> dict[str, int]:
    """Return the users by name; passwords of new ones are told, this once."""
    owners = {}
    for username, weight in WEIGHTS.items():
        user = accounts.find_user(session, username)
        if user is None:
            password = new_secret()
            now = clock.now()
            user = accounts.add_user(
                session, username, password, by=COMMAND_LINE, now=now, weight=weight
            )
            say(f"demo user {username} (weight {weight:g}), password {password}")
        owners[username] = user.id
    session.commit()
    return owners


def turn(
    session: Session, announcer: Announcer, owners: Mapping[str, int], chance: random.Random
) -> timedelta:
    """Submit something for everybody who has room, and return how long to pause."""
    try:
        for owner_id in owners.values():
            _add(session, announcer, owner_id, chance)
    except OperationalError:
        session.rollback()
        return PAUSE_AWAY
    return PAUSE


def _add(session: Session, announcer: Announcer, owner_id: int, chance: random.Random) -> None:
    if _unfinished(session, owner_id) < BACKLOG:
        wanted = chain(chance) if chance.random() < CHAIN_CHANCE else [single(chance)]
        submitted = submit(session, owner_id, wanted, batch=True)
        session.commit()
        announcer.tell(submitted.moves)
        announcer.wake()
    session.rollback()


def _unfinished(session: Session, owner_id: int) -> int:
    unfinished = select(func.count()).where(
        Job.owner_id == owner_id, Job.status.in_(sorted(UNFINISHED))
    )
    return session.scalars(unfinished).one()


def single(chance: random.Random) -> Submission:
    """Return a job of one of the shapes."""
    shape = chance.choices(SHAPES, [shape.often for shape in SHAPES])[0]
    seconds = round(chance.uniform(*shape.seconds), 1)
    return Submission(
        type=shape.type,
        payload={"duration_seconds": seconds, **shape.more},
        description=f"{seconds:g} seconds of pretending",
        tags=("demo", *shape.tags),
        cpu_units=shape.cpu_units,
        memory_mb=shape.memory_mb,
        **_priority(chance.choice(shape.classes)),
    )


def chain(chance: random.Random) -> list[Submission]:
    """Return jobs that wait for one another."""
    name = f"chain_{chance.randrange(16**8):08x}"
    return [
        Submission(
            type=kind,
            job_id=f"{name}_{place}",
            payload={"duration_seconds": round(chance.uniform(0.5, 4), 1)},
            description="A step of a chain",
            tags=("demo", "chain"),
            depends_on=((f"{name}_{place - 1}", Condition.COMPLETED),) if place else (),
            **_priority(JobClass.NORMAL),
        )
        for place, kind in enumerate(CHAIN)
    ]


def _priority(job_class: JobClass) -> dict[str, Any]:
    level = DEFAULT_LEVEL[job_class]
    return {"priority_level": level, "job_class": class_of(level)}
