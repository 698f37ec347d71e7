"""What was recorded, played again."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from scheduler import __main__ as command_line
from scheduler import clock
from scheduler.errors import ScenarioInvalid
from scheduler.models import Attempt, User
from scheduler.policy.engine import Engine
from scheduler.policy.meters import rank
from scheduler.simulate.history import OTHERS, past
from scheduler.simulate.playing import outcome
from scheduler.states import JobClass, JobStatus
from tests.factories import NOON, make_job, make_user, make_worker

HOUR = timedelta(hours=1)


def second(number: float) -> timedelta:
    return timedelta(seconds=number)


def make_past(
    session: Session, owner: User, ready: datetime, waited: float = 0, took: float = 4, **of: Any
) -> None:
    """Make a job that became ready at an instant, waited, and took its time."""
    started = ready + second(waited)
    job = make_job(
        session,
        owner,
        JobStatus.COMPLETED,
        **{"ready_at": ready, "rank": rank(ready, JobClass.NORMAL, 5), **of},
        rank_offset=rank(ready, JobClass.NORMAL, 5) - rank(ready, JobClass.LOW, 8),
        started_at=started,
        finished_at=started + second(took),
    )
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id)
        .values(started_at=started, finished_at=started + second(took))
    )


def read(session: Session, **sizes: Any) -> Any:
    return past(session, since=NOON, until=NOON + HOUR, sizes=sizes)


def test_jobs_are_read_as_they_became_ready_with_how_long_they_ran(session: Session) -> None:
    make_worker(session)
    ann, bob = make_user(session, "ann", weight=3.0), make_user(session, "bob")
    make_past(session, bob, NOON + second(20), 5, 7, cpu_units=Decimal("2.5"), memory_mb=300)
    make_past(session, ann, NOON + second(10))
    make_past(session, ann, NOON - HOUR)
    make_job(session, ann, JobStatus.READY)

    setting, recorded = read(session)

    arrivals = setting.workload.arrivals
    assert [(each.owner_id, each.at, each.seconds) for each in arrivals] == [
        (ann.id, 10, 4),
        (bob.id, 20, 7),
    ]
    assert (arrivals[1].cpu_units, arrivals[1].memory_mb) == (2.5, 300)
    assert setting.workload.accounts[ann.id].weight == 3
    assert setting.workload.capacities[0][1].cpu_units == 8
    assert [run.wait() for run in recorded.runs] == [0, 5]


def test_attempts_of_a_job_count_together(session: Session) -> None:
    make_worker(session)
    owner = make_user(session)
    make_past(session, owner, NOON, 1, 4)
    first = session.scalars(select(Attempt)).one()
    session.add(
        Attempt(
            job_id=first.job_id,
            attempt=2,
            worker="w",
            pid=1,
            queued_at=NOON,
            started_at=NOON + second(30),
            finished_at=NOON + second(33),
            outcome="completed",
        )
    )
    session.flush()

    setting, recorded = read(session)

    assert [each.seconds for each in setting.workload.arrivals] == [7]
    assert recorded.runs[0].started == 1


def test_what_was_recorded_can_be_played_again(session: Session) -> None:
    make_worker(session)
    owner = make_user(session, "ann")
    for _ in range(16):
        make_past(session, owner, NOON, 100)

    setting, recorded = read(session)
    replayed = outcome(setting, Engine())

    assert recorded.figures.watched["all"].p50 == 100
    assert (replayed.figures.watched["all"].p50, replayed.figures.watched["all"].longest) == (0, 4)


def test_owners_beyond_the_busiest_are_told_together(session: Session) -> None:
    make_worker(session)
    for number in range(20):
        make_past(session, make_user(session, f"user{number}x"), NOON, took=1 + number)

    setting, _ = read(session)

    names = [party.name for party in setting.workload.parties]
    assert names[0] == "user19x"
    assert names[-1] == OTHERS
    assert sum(len(party.owners) for party in setting.workload.parties) == 20


def test_without_a_past_or_a_machine_nothing_is_played(session: Session) -> None:
    with pytest.raises(ScenarioInvalid, match="nothing has run"):
        read(session)

    make_past(session, make_user(session), NOON)

    with pytest.raises(ScenarioInvalid, match="no worker is alive"):
        read(session)
    setting, _ = read(session, cpu_units=4.0, memory_mb=1024)
    assert setting.workload.capacities[0][1].cpu_units == 4


def test_the_command_sets_past_replay_and_change_side_by_side(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def opened() -> Iterator[Session]:
        yield session

    monkeypatch.setattr(command_line, "_session", opened)
    make_worker(session)
    now = clock.now()
    for name in ("ann", "bob"):
        for _ in range(40):
            make_past(session, make_user_once(session, name), now - second(600), 50)

    code = command_line.main(
        ["simulate", "--from-history", "1h", "--capacity", "cpu=2", "--weights", "ann=4"]
    )

    text = capsys.readouterr().out
    assert code == 0
    assert text.startswith("history: 80 jobs of 2 users, since ")
    rows = {line[:9].strip(): line[9:].split() for line in text.splitlines()}
    assert rows["as it was"][:2] == ["50", "50"]
    assert rows["replayed"][:2] == ["16", "36"]
    assert rows["changed"][:2] == ["76", "156"]
    assert float(rows["ann"][-2]) < float(rows["bob"][-2])


def make_user_once(session: Session, name: str) -> User:
    return session.scalar(select(User).where(User.username == name)) or make_user(session, name)
