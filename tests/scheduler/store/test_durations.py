"""What was learned of durations survives its leader."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from scheduler.models import Duration
from scheduler.policy.durations import ANYBODY, Durations, Lasted
from scheduler.store import durations


def test_what_was_learned_is_read_back(session: Session) -> None:
    learned, changed = Durations().learn([Lasted("report", 7, 3), Lasted("email", 8, 0.2)])

    durations.write(session, changed)

    assert durations.read(session) == learned


def test_only_what_changed_is_written_and_takes_the_place_of_what_was(session: Session) -> None:
    learned, changed = Durations().learn([Lasted("report", 7, 3), Lasted("email", 8, 0.2)])
    durations.write(session, changed)
    learned, changed = learned.learn([Lasted("report", 7, 30)])

    durations.write(session, changed)

    assert set(changed) == {("report", ANYBODY), ("report", 7)}
    assert durations.read(session).types == learned.types
    assert durations.read(session).pairs == learned.pairs
    counts = session.execute(select(Duration.job_type, Duration.owner_id, Duration.count))
    assert {(row.job_type, row.owner_id): row.count for row in counts} == {
        ("report", ANYBODY): 2,
        ("report", 7): 2,
        ("email", ANYBODY): 1,
        ("email", 8): 1,
    }


def test_pairs_come_back_in_the_order_they_were_used(session: Session) -> None:
    _, changed = Durations().learn(Lasted("report", owner, 3) for owner in (1, 2, 3))
    durations.write(session, changed)
    session.execute(text("UPDATE durations SET updated_at = now() + interval '1 s' * -owner_id"))

    assert [owner for _, owner in durations.read(session).pairs] == [3, 2, 1]


def test_nothing_learned_is_nothing_written(session: Session) -> None:
    durations.write(session, {})

    assert durations.read(session) == Durations()


def test_one_type_can_be_asked_about(session: Session) -> None:
    _, changed = Durations().learn([Lasted("report", 7, 3), Lasted("report", 8, 5)])
    durations.write(session, changed)

    found = durations.read_type(session, "report", 8)

    assert set(found.types) == {"report"}
    assert set(found.pairs) == {("report", 8)}


def test_what_would_not_be_read_is_forgotten(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durations, "DURATIONS_KEPT", 3)
    _, changed = Durations().learn(Lasted("report", owner, 3) for owner in (1, 2, 3, 4))
    durations.write(session, changed)
    session.execute(
        text("UPDATE durations SET updated_at = now() - make_interval(days => owner_id::int)")
    )
    kept = durations.read(session)

    durations.forget(session)

    left = session.execute(select(Duration.job_type, Duration.owner_id)).all()
    assert sorted(left) == [("report", ANYBODY), ("report", 1), ("report", 2)]
    assert durations.read(session) == kept
