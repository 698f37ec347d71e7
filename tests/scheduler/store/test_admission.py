"""What leaves the lines, and which messages about it are sent, marked as sent, and sent again."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from scheduler.models import Active, Job, Outbox, Ready
from scheduler.states import JobStatus
from scheduler.store.admission import (
    Admitted,
    Parcel,
    admit,
    mark_published,
    publish_again,
    waiting_parcels,
)
from scheduler.store.cancellation import cancel
from scheduler.store.changing import Change, change
from scheduler.store.work import give_back
from tests.factories import NOON, make_job, make_user, make_worker

S = JobStatus
SECOND = timedelta(seconds=1)


def _admit(session: Session, job: Job) -> Parcel:
    admit(session, [Admitted(job.id, 0.5, express=False, expected_seconds=1.0)], epoch=1)
    return waiting_parcels(session, limit=10)[-1]


def _published_at(session: Session, job: Job) -> object:
    return session.scalar(select(Active.published_at).where(Active.job_id == job.id))


def _in_line(session: Session) -> list[int]:
    return list(session.scalars(select(Ready.job_id).order_by(Ready.job_id)))


def _postpone(session: Session, job: Job) -> None:
    change(session, job.id, Change(moves_time=True, run_at=NOON.replace(year=2200)))


# Two jobs of one owner may stand at the same place.
@pytest.mark.parametrize("leave", [_admit, _postpone, lambda session, job: cancel(session, job.id)])
def test_a_job_that_leaves_the_line_leaves_its_neighbour_there(
    session: Session, leave: Callable[[Session, Job], object]
) -> None:
    owner = make_user(session)
    one, other = make_job(session, owner), make_job(session, owner)
    assert one.rank == other.rank

    leave(session, one)

    assert _in_line(session) == [other.id]


def test_a_change_of_a_job_leaves_its_neighbour_in_the_line_as_it_is(session: Session) -> None:
    owner = make_user(session)
    one, other = make_job(session, owner), make_job(session, owner)

    change(session, one.id, Change(tags=("new",)))

    tags = {line.job_id: line.tags for line in session.scalars(select(Ready))}
    assert tags == {one.id: ["new"], other.id: []}


def test_a_message_that_was_sent_is_marked_so(session: Session) -> None:
    job = make_job(session, make_user(session))
    parcel = _admit(session, job)

    mark_published(session, [parcel])

    assert waiting_parcels(session, limit=10) == []
    assert _published_at(session, job) is not None


def test_marking_the_message_of_an_earlier_attempt_leaves_that_of_the_next(
    session: Session,
) -> None:
    job = make_job(session, make_user(session))
    earlier = _admit(session, job)
    give_back(session, [(job.id, earlier.attempt)])
    later = _admit(session, job)

    mark_published(session, [earlier])

    assert later.attempt == earlier.attempt + 1
    assert waiting_parcels(session, limit=10) == [later]
    assert _published_at(session, job) is None


def test_a_message_that_was_claimed_before_it_is_marked_keeps_its_claim(session: Session) -> None:
    job = make_job(session, make_user(session), S.RUNNING)
    before = _published_at(session, job)

    mark_published(session, [Parcel(job.id, job.attempt, "normal", 60.0)])

    assert _published_at(session, job) == before


@pytest.mark.parametrize(
    ("status", "age", "is_sent"),
    [
        (S.QUEUED, "1 hour", True),
        (S.QUEUED, "0 seconds", False),
        (S.RUNNING, "1 hour", False),
    ],
)
def test_what_was_sent_long_ago_is_sent_again_until_it_is_claimed(
    session: Session, status: JobStatus, age: str, *, is_sent: bool
) -> None:
    make_worker(session)
    job = make_job(session, make_user(session), status)
    session.execute(
        text("UPDATE active SET published_at = now() - CAST(:age AS interval)"), {"age": age}
    )

    assert publish_again(session, older_than=SECOND) == int(is_sent)
    sent = session.scalars(select(Outbox.job_id)).all()
    assert sent == ([job.id] if is_sent else [])
    assert publish_again(session, older_than=SECOND) == 0
    assert session.scalar(select(func.count()).select_from(Outbox)) == int(is_sent)
