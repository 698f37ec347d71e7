"""What was finished long ago is forgotten, with all that was kept of it."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import TextClause, func, select, text
from sqlalchemy.orm import Session

from scheduler.models import (
    Attempt,
    Base,
    Callback,
    CallbackDelivery,
    Dependency,
    Job,
    JobEvent,
    JobLog,
    Searched,
)
from scheduler.states import FINISHED, UNFINISHED, JobStatus
from scheduler.store import retention
from scheduler.store.retention import forget_finished
from tests.factories import (
    END,
    NOON,
    make_callback,
    make_delivery,
    make_dependency,
    make_job,
    make_line,
    make_user,
)

S = JobStatus
DAY = timedelta(days=1)


def _forget(session: Session, *, keep: timedelta = DAY, keep_failed: timedelta = DAY) -> int:
    now = END + 2 * DAY
    return forget_finished(
        session, finished_before=now - keep, failed_before=now - keep_failed, limit=10
    )


def _left(session: Session) -> list[int]:
    return list(session.scalars(select(Job.id).order_by(Job.id)))


@pytest.mark.parametrize("status", sorted(FINISHED))
def test_a_finished_job_is_forgotten_with_everything_that_names_it(
    session: Session, status: JobStatus
) -> None:
    owner = make_user(session)
    job = make_job(session, owner, status)
    make_line(session, job)
    event = {"owner_id": owner.id, "at": NOON, "verb": "x", "status": status, "attempt": 1}
    session.add(JobEvent(job_id=job.id, **event))
    make_dependency(session, job, make_job(session, owner, S.COMPLETED))
    for ends in ({"delivered_at": NOON}, {"gave_up_at": NOON}):
        make_delivery(session, make_callback(session, job, **ends))

    assert _forget(session) == 2

    for table in (Job, Attempt, JobLog, JobEvent, Dependency, Callback, CallbackDelivery, Searched):
        assert session.scalar(select(func.count()).select_from(table)) == 0


def test_every_table_that_names_a_job_is_seen_to() -> None:
    naming = {
        table.name
        for table in Base.metadata.tables.values()
        for key in table.foreign_keys
        if key.column.table.name == "jobs"
    }

    of_unfinished_jobs = {"active", "outbox"}
    assert naming - of_unfinished_jobs == {
        "dependencies",
        "attempts",
        "callbacks",
        "job_events",
        "job_logs",
        "searched",
    }


def test_no_job_that_goes_is_looked_for_in_a_table_from_end_to_end(session: Session) -> None:
    assert list(session.scalars(text(_REFERENCES_WITHOUT_INDEX))) == []


_REFERENCES_WITHOUT_INDEX = """
SELECT CAST(CAST(conrelid AS regclass) AS text) FROM pg_constraint
WHERE contype = 'f' AND confrelid = CAST('jobs' AS regclass) AND NOT EXISTS (
    SELECT FROM pg_index
    WHERE indrelid = conrelid AND indkey[0] = conkey[1] AND indpred IS NULL
)
"""


@pytest.mark.parametrize("status", sorted(UNFINISHED))
def test_an_unfinished_job_is_kept_however_old(session: Session, status: JobStatus) -> None:
    job = make_job(session, make_user(session), status)

    assert _forget(session) == 0
    assert _left(session) == [job.id]


def test_what_is_not_old_enough_is_kept(session: Session) -> None:
    make_job(session, make_user(session), S.COMPLETED)

    assert _forget(session, keep=3 * DAY) == 0
    assert _forget(session, keep=DAY) == 1


def test_dead_letters_have_a_term_of_their_own_until_they_are_discarded(session: Session) -> None:
    owner = make_user(session)
    letter = make_job(session, owner, S.FAILED)
    make_job(session, owner, S.FAILED, discarded_at=END)

    assert _forget(session, keep_failed=3 * DAY) == 1
    assert _left(session) == [letter.id]
    assert _forget(session, keep_failed=DAY) == 1


def test_dead_letters_may_be_kept_for_less_than_other_jobs(session: Session) -> None:
    owner = make_user(session)
    make_job(session, owner, S.FAILED)
    discarded = make_job(session, owner, S.FAILED, discarded_at=END)
    completed = make_job(session, owner, S.COMPLETED)

    assert _forget(session, keep=3 * DAY, keep_failed=DAY) == 1
    assert _left(session) == [discarded.id, completed.id]


def test_a_job_is_kept_while_another_waits_for_it_or_ran_after_it_and_is_not_finished(
    session: Session,
) -> None:
    owner = make_user(session)
    parent, child = make_job(session, owner, S.COMPLETED), make_job(session, owner, S.BLOCKED)
    make_dependency(session, child, parent)

    assert _forget(session) == 0


def test_a_job_is_kept_for_which_another_came_to_wait_before_it_was_locked(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = make_user(session)
    parent, _ = (make_job(session, owner, S.COMPLETED) for _ in range(2))
    really_run = retention.run

    def run(session: Session, statement: TextClause, **parameters: Any) -> Any:
        done = really_run(session, statement, **parameters)
        if statement is retention._OLD_OTHERS:
            make_dependency(session, make_job(session, owner, S.BLOCKED), parent)
        return done

    monkeypatch.setattr(retention, "run", run)

    assert _forget(session) == 1
    assert parent.id in _left(session)
    assert session.scalars(select(Dependency.parent_id)).all() == [parent.id]


def test_a_job_is_kept_while_it_is_still_to_be_told_about(session: Session) -> None:
    job = make_job(session, make_user(session), S.COMPLETED)
    make_callback(session, job, delivered_at=NOON)
    pending = make_callback(session, job)

    assert _forget(session) == 0

    pending.due_at, pending.gave_up_at = None, NOON
    session.flush()
    assert _forget(session) == 1


def test_the_oldest_go_first_and_no_more_than_asked_for(session: Session) -> None:
    owner = make_user(session)
    ends = [END - timedelta(hours=hours) for hours in (1, 3, 2)]
    jobs = [make_job(session, owner, S.COMPLETED, finished_at=end) for end in ends]

    forgotten = forget_finished(session, finished_before=END, failed_before=END, limit=2)

    assert forgotten == 2
    assert _left(session) == [jobs[0].id]
