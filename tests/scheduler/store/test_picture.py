"""What is read for a pass: of many who wait, those who have received least."""

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler import explain
from scheduler.models import Meter, User
from scheduler.policy.plan import plan
from scheduler.snapshot import Snapshot
from scheduler.store import picture
from scheduler.store.leader import Memory
from tests.factories import NOON, make_job, make_user, make_worker


@pytest.fixture
def four(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[User]:
    """Owners with jobs in line, the first of whom has received least, of whom two are looked at."""
    monkeypatch.setattr(picture, "FRONT", 2)
    make_worker(session)
    owners = [make_user(session, weight=weight) for weight in (1, 2, 3, 4)]
    for place, owner in enumerate(reversed(owners)):
        session.add(Meter(owner_id=owner.id, meter=0, express_meter=0, tag=40.0 - 10 * place))
        for _ in range(picture.SHORTEST_WINDOW + 1):
            make_job(session, owner)
    session.flush()
    return owners


def read(session: Session) -> Snapshot:
    return picture.read_snapshot(session, Memory({}, None, {}), now=NOON)


def test_of_many_who_wait_those_are_read_who_have_received_least(
    session: Session, four: list[User]
) -> None:
    seen = read(session)

    assert {job.owner_id for job in seen.candidates} == {four[0].id, four[1].id}
    assert len(seen.candidates) == 2 * picture.SHORTEST_WINDOW
    assert seen.unseen_weight == 3 + 4


def test_a_newcomer_stands_where_everybody_is_by_now(session: Session, four: list[User]) -> None:
    session.execute(text("UPDATE meters SET tag = NULL WHERE owner_id = :id"), {"id": four[0].id})

    seen = picture.read_snapshot(session, Memory({"virtual_now": 35.0}, None, {}), now=NOON)

    assert {job.owner_id for job in seen.candidates} == {four[1].id, four[2].id}


def test_who_is_not_read_keeps_the_place_in_line(session: Session, four: list[User]) -> None:
    seen = read(session)

    changed = {each.owner_id for each in plan(seen).accounts}

    assert seen.accounts[four[3].id].meter == 40
    assert not changed & {four[2].id, four[3].id}


def test_a_job_of_who_is_not_read_can_be_explained(session: Session, four: list[User]) -> None:
    job = make_job(session, four[3])

    answer = explain.about(session, job, four[3].username)

    assert answer["lines"]
    assert answer["code"] == "turn"
