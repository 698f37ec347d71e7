"""What the leader counts, and what it does not."""

from sqlalchemy.orm import Session

from scheduler.states import FeedKind, JobStatus, Outcome
from scheduler.store import counts, dependencies, work
from scheduler.store.cancellation import cancel
from scheduler.store.counts import ADMITTED, Count
from tests.factories import make_job, make_user

S = JobStatus


def _take(session: Session) -> list[dependencies.FeedRow]:
    return dependencies.take(session, limit=100)


def test_nothing_has_happened_at_first(session: Session) -> None:
    assert set(counts.read(session).values()) == {Count()}
    assert set(counts.read(session)) == {ADMITTED, *Outcome}


def test_ends_add_up_by_owner_and_outcome(session: Session) -> None:
    ann, bob = make_user(session), make_user(session)
    jobs = [make_job(session, owner, S.RUNNING) for owner in (ann, ann, ann, bob)]
    work.succeed(session, [work.Success(job.id, 1, None) for job in jobs[:2]])
    work.fail(session, work.Failure(jobs[2].id, 1, "E", "no"))
    counts.add(session, [], _take(session))
    work.fail(session, work.Failure(jobs[3].id, 1, "E", "no", lost=True))
    counts.add(session, [], _take(session))

    all_of_them, anns = counts.read(session), counts.read(session, ann.id)

    numbers = {what: count.number for what, count in all_of_them.items() if count.number}
    assert numbers == {Outcome.COMPLETED: 2, Outcome.FAILED: 1, Outcome.LOST: 1}
    assert anns == all_of_them | {Outcome.LOST: Count()}
    assert all_of_them[Outcome.COMPLETED].seconds > 0


def test_an_attempt_that_never_began_has_not_ended(session: Session) -> None:
    owner = make_user(session)
    cancelled, returned = (make_job(session, owner, S.QUEUED) for _ in range(2))
    cancel(session, cancelled.id)
    work.give_back(session, [(returned.id, 1)])

    taken = _take(session)

    assert {row.kind for row in taken} >= {FeedKind.ENDED, FeedKind.RELEASED}
    assert counts.counted([], taken) == {}
