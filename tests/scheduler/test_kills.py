"""Schedulers that are killed while ticks are due: none is lost, and none is doubled."""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from scheduler.models import Job, Schedule
from tests.conftest import SECRET
from tests.factories import NOON, make_schedule, make_user
from tests.racing import committed
from tests.scheduler import mortal
from tests.scheduler.installation import furnish
from tests.services import Services

KILLS = 100
WORK_BEGINS = 20
"""About how many points there are before the jobs of ticks are written."""

STEPS = {"by the clock": timedelta(minutes=5), "by seconds": timedelta(seconds=420)}
"""When the two schedules fire: both at noon, and so much later again and again."""


@dataclass
class Story:
    """Two schedulers on one database, a clock that is stepped, and who was killed when."""

    environment: dict[str, str]
    engine: Engine
    sabotages: tuple[mortal.Sabotage, ...] = ()
    now: datetime = NOON
    kills: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311
    _turns: int = 0

    def kill_at(self, point: int) -> bool:
        """Let ticks come, and kill who sees to them; False if that turn has no such point."""
        self.now += self.chance.choice([0, 1, 1, 1, 2, 9]) * timedelta(minutes=5)
        survived = self._turn(points=point)
        self.kills += not survived
        if self.chance.random() < 0.3:
            assert self._turn()
        return not survived

    def settle(self) -> None:
        """Take turns without trouble until nothing is due."""
        while committed(self.engine, self._is_due):
            assert self._turn()

    def _turn(self, points: int | None = None) -> bool:
        """Let the one who did not lead last take a turn."""
        self._turns += 1
        name = ("one", "other")[self._turns % 2]
        return mortal.take_a_turn(
            self.environment, name, self.now, points=points, sabotages=self.sabotages
        )

    def _is_due(self, session: Session) -> bool:
        return (
            session.scalars(select(Schedule.id).where(Schedule.due_at <= self.now)).first()
            is not None
        )

    def jobs(self) -> list[str]:
        """Return the names of all jobs, sorted."""
        return committed(self.engine, lambda s: sorted(s.scalars(select(Job.job_id))))

    def ticks(self) -> list[str]:
        """Return the names of the jobs that there have to be."""
        return sorted(
            f"{name}@{tick:%Y%m%dT%H%M%SZ}"
            for name, step in STEPS.items()
            for tick in (NOON + n * step for n in range((self.now - NOON) // step + 1))
        )


@pytest.fixture
def story(
    committed_engine: Engine, migrated: str, services: Services, redis_client: Redis, tmp_path: Path
) -> Story:
    def begin(session: Session) -> None:
        furnish(session)
        owner = make_user(session)
        make_schedule(session, owner, "by the clock", cron="*/5 * * * *", timezone="Europe/Berlin")
        make_schedule(session, owner, "by seconds", every_seconds=420)

    committed(committed_engine, begin)
    environment = {
        "DATABASE_URL": migrated,
        "REDIS_URL": services.redis_url,
        "FAIRQ_HOME": str(tmp_path),
        "FAIRQ_SECRET_KEY": SECRET,
    }
    return Story(environment, committed_engine)


def kill_on_the_way(story: Story, first: int = 0, step: int = 1) -> int:
    """Kill one scheduler after the other, each at a later point of its turn; return the last."""
    point = first
    while story.kill_at(point):
        point += step
    return point - step


@pytest.mark.slow
def test_of_a_hundred_kills_at_a_tick_none_loses_or_doubles_one(story: Story) -> None:
    while story.kills < KILLS:
        assert kill_on_the_way(story) > WORK_BEGINS

    story.settle()

    assert len(story.ticks()) > KILLS
    assert story.jobs() == story.ticks()


@pytest.mark.slow
def test_ticks_noted_before_their_jobs_are_there_would_be_lost(story: Story) -> None:
    story.sabotages = (mortal.note_before,)

    kill_on_the_way(story, WORK_BEGINS, step=5)
    story.settle()

    assert set(story.jobs()) < set(story.ticks())


@pytest.mark.slow
def test_ticks_noted_after_their_jobs_are_there_are_told_by_the_names_of_these(
    story: Story,
) -> None:
    story.sabotages = (mortal.note_after,)

    kill_on_the_way(story, WORK_BEGINS)
    story.settle()

    assert story.jobs() == story.ticks()


@pytest.mark.slow
def test_without_such_names_they_would_be_doubled(story: Story) -> None:
    story.sabotages = (mortal.note_after, mortal.any_name)

    kill_on_the_way(story, WORK_BEGINS)
    story.settle()

    assert len(story.jobs()) > len(story.ticks())
