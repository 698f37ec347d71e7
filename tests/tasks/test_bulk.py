"""Dealing with many jobs in the background: all of them, once, whatever happens in between."""

from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from scheduler.events import WAKE_KEY
from scheduler.job_request import TAGS_LIMIT
from scheduler.models import AuditEntry, Job, User
from scheduler.settings import Settings
from scheduler.states import BulkAction, JobStatus, Role
from scheduler.store import bulk as store_bulk
from scheduler.store import finding
from scheduler.store.bulk import Wish, tags_of
from scheduler.store.revival import run_again
from tasks import kinds
from tasks.catalogue import CATALOGUE
from tasks.ledger import Ledger
from tasks.runner import Runner
from tests.factories import WORKER, make_job, make_user
from tests.tasks.conftest import Wanted

S = JobStatus
ALL = 10**9


class Office:
    """Two users, an operator, and a worker that runs what they leave to it."""

    def __init__(self, engine: Engine, runner: Runner) -> None:
        self.engine = engine
        self.runner = runner
        with Session(engine, expire_on_commit=False) as session, session.begin():
            self.ann = make_user(session, "ann")
            self.bob = make_user(session, "bob")
            self.olga = make_user(session, "olga", Role.OPERATOR)

    def job(
        self, name: str, status: JobStatus = S.READY, *, of: User | None = None, **more: Any
    ) -> int:
        with Session(self.engine) as session, session.begin():
            return make_job(session, of or self.ann, status, job_id=name, **more).id

    def ask(self, action: str, *, by: User | None = None, **payload: Any) -> Wanted:
        wanted = {"action": action, "up_to": ALL, **payload}
        with Session(self.engine) as session, session.begin():
            job = make_job(
                session, by or self.ann, S.QUEUED, type="bulk", payload=wanted, request_id="req_b"
            )
            return job.id, job.attempt

    def run(self, attempt: Wanted) -> Job:
        self.runner.run([attempt], worker=WORKER)
        with Session(self.engine, expire_on_commit=False) as session:
            return session.get_one(Job, attempt[0])

    def result(self, action: str, **payload: Any) -> Any:
        job = self.run(self.ask(action, **payload))
        assert job.status == S.COMPLETED, (job.error_type, job.error_message)
        return job.result

    def look(self, number: int) -> Job:
        with Session(self.engine, expire_on_commit=False) as session:
            return session.get_one(Job, number)

    def status(self, number: int) -> str:
        return self.look(number).status


@pytest.fixture
def office(ledger: Ledger, committed_engine: Engine, settings: Settings) -> Iterator[Office]:
    runner = Runner(ledger, CATALOGUE, {}, settings)
    yield Office(committed_engine, runner)
    runner.close()


def told(done: int, **skipped: int) -> dict[str, Any]:
    return {"done": done, "skipped": skipped}


def of(result: Any) -> dict[str, Any]:
    return {"done": result["done"], "skipped": result["skipped"]}


def test_named_jobs_are_cancelled_and_the_others_told_by_reason(
    office: Office, redis_client: Redis
) -> None:
    ready, done = office.job("ready"), office.job("done", S.COMPLETED)

    result = office.result(
        "cancel", jobs=[ready, done, 10**6], so_far={"skipped": {"not_found": 2}}
    )

    assert of(result) == told(1, completed=1, not_found=3)
    assert (office.status(ready), office.status(done)) == (S.CANCELLED, S.COMPLETED)
    assert redis_client.llen(WAKE_KEY) > 0


def test_all_that_match_are_dealt_with_over_batches_and_stretches(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds.bulk, "BATCH", 2)
    monkeypatch.setattr(finding, "STRETCH", 3)
    meant = [office.job(f"j{n}", tags=["old"]) for n in range(8)]
    other = office.job("other", tags=["new"])

    result = office.result("cancel", filter={"statuses": ["ready"], "tags": ["old"]}, expected=8)

    assert of(result) == told(8)
    assert {office.status(number) for number in meant} == {S.CANCELLED}
    assert office.status(other) == S.READY


def test_jobs_made_after_the_request_are_left_alone(office: Office) -> None:
    early = office.job("early")
    attempt = office.ask("cancel", filter={"statuses": ["ready"]}, up_to=early)
    late = office.job("late")

    office.run(attempt)

    assert (office.status(early), office.status(late)) == (S.CANCELLED, S.READY)


def test_the_job_itself_is_left_alone(office: Office) -> None:
    attempt = office.ask("cancel", filter={})

    job = office.run(attempt)

    assert (job.status, of(job.result)) == (S.COMPLETED, told(0))


def test_others_jobs_do_not_exist_whatever_the_payload_says(office: Office) -> None:
    hers, his = office.job("hers"), office.job("his", of=office.bob)

    named = office.result("cancel", jobs=[his])
    found = office.result("cancel", filter={"statuses": ["ready"]}, owner_id=office.bob.id)

    assert of(named) == told(0, not_found=1)
    assert of(found) == told(1)
    assert (office.status(hers), office.status(his)) == (S.CANCELLED, S.READY)


def test_what_an_operator_has_done_to_others_is_written_down(office: Office) -> None:
    his, own = office.job("his", of=office.bob), office.job("own", of=office.olga)

    office.result("prioritise", by=office.olga, jobs=[his, own], priority_level=0)

    with Session(office.engine) as session:
        (entry,) = session.scalars(select(AuditEntry)).all()
    assert (entry.actor, entry.action, entry.target) == ("olga", "jobs.change", "jobs/bob/his")
    assert entry.request_id == "req_b"
    assert entry.detail["priority_level"] == 0
    assert office.look(own).job_class == "critical"


@pytest.mark.parametrize("change", [{"active": False}, {"role": Role.VIEWER}])
def test_who_may_not_change_jobs_any_more_changes_none(
    office: Office, change: dict[str, Any]
) -> None:
    ready = office.job("ready")
    attempt = office.ask("cancel", jobs=[ready])
    with Session(office.engine) as session, session.begin():
        for name, value in change.items():
            setattr(session.get_one(User, office.ann.id), name, value)

    job = office.run(attempt)

    assert (job.status, job.error_type) == (S.FAILED, "DoNotRetry")
    assert office.status(ready) == S.READY


def test_failed_and_cancelled_jobs_run_again(office: Office) -> None:
    bad, stopped = office.job("bad", S.FAILED), office.job("stopped", S.CANCELLED)

    result = office.result("retry", filter={"statuses": ["failed", "cancelled"]})

    assert of(result) == told(2)
    assert (office.status(bad), office.status(stopped)) == (S.READY, S.READY)


def test_tags_come_and_go_and_what_is_so_already_is_skipped(office: Office) -> None:
    a = office.job("a", tags=["old", "kept"])
    b = office.job("b", tags=["kept", "new"])
    full = office.job("full", tags=[f"t{n}" for n in range(TAGS_LIMIT)])

    result = office.result("tag", jobs=[a, b, full], add_tags=["new"], remove_tags=["old"])

    assert of(result) == told(1, unchanged=1, too_many_tags=1)
    assert office.look(a).tags == ["kept", "new"]
    assert len(office.look(full).tags) == TAGS_LIMIT


@pytest.mark.parametrize(
    "payload",
    [
        {"action": "prioritise"},
        {"action": "prioritise", "priority_level": 11},
        {"action": "tag", "add_tags": ["a\u200bb"]},
        {"action": "tag", "add_tags": ["x" * 101]},
    ],
)
def test_a_payload_made_by_hand_is_held_to_what_the_route_allows(
    office: Office, payload: dict[str, Any]
) -> None:
    ready = office.job("ready")

    job = office.run(office.ask(**payload, jobs=[ready]))

    assert (job.status, job.error_type) == (S.FAILED, "PayloadInvalid")


def test_a_running_job_is_asked_to_stop_once(office: Office) -> None:
    running = office.job("running", S.RUNNING)

    first = office.result("cancel", jobs=[running])
    second = office.result("cancel", jobs=[running])

    assert (of(first), of(second)) == (told(1), told(0, unchanged=1))


@pytest.fixture
def bad_job(office: Office) -> Iterator[int]:
    """A job that the database does not let anybody cancel."""
    number = office.job("bad")
    with office.engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql"
                " AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE TRIGGER refuse BEFORE UPDATE ON jobs FOR EACH ROW"
                f" WHEN (OLD.id = {number}) EXECUTE FUNCTION refuse()"
            )
        )
    yield number
    with office.engine.begin() as connection:
        connection.execute(text("DROP FUNCTION refuse CASCADE"))


def test_one_bad_job_never_stops_the_rest(office: Office, bad_job: int) -> None:
    good = [office.job("good"), office.job("better")]

    result = office.result("cancel", jobs=[bad_job, *good])

    assert of(result) == told(2, error=1)
    assert [office.status(number) for number in good] == [S.CANCELLED, S.CANCELLED]
    assert office.status(bad_job) == S.READY


def test_another_attempt_goes_on_behind_the_last_batch(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [office.job(f"j{n}") for n in range(6)]
    with monkeypatch.context() as patch:
        patch.setattr(kinds.bulk, "BATCH", 2)
        _break_off_after(2, patch)
        broken = office.run(office.ask("cancel", jobs=jobs))
    assert broken.status == S.RETRYING
    assert [office.status(number) for number in jobs] == [S.CANCELLED] * 4 + [S.READY] * 2
    with Session(office.engine) as session, session.begin():
        run_again(session, jobs[:1])

    result = office.result(**broken.payload)

    assert of(result) == told(6)
    assert [office.status(number) for number in jobs] == [S.READY] + [S.CANCELLED] * 5


def _break_off_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = kinds.bulk.deal, iter(range(batches))

    def deal(*given: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise RuntimeError("the worker is lost")
        return real(*given, **named)

    monkeypatch.setattr(kinds.bulk, "deal", deal)


def test_an_attempt_that_is_over_changes_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = office.job("ready")
    attempt = office.ask("cancel", jobs=[ready])
    real = kinds.bulk.keep_place

    def as_the_one_before(session: Session, job: int, number: int, so_far: Any) -> bool:
        return real(session, job, number - 1, so_far)

    monkeypatch.setattr(kinds.bulk, "keep_place", as_the_one_before)

    office.run(attempt)

    assert office.status(ready) == S.READY


def test_tags_keep_their_order_and_stand_once() -> None:
    wish = Wish(action=BulkAction.TAG, add_tags=("b", "z"), remove_tags=("a",))

    assert tags_of(wish, ["a", "b", "c"]) == ("b", "c", "z")


def test_every_action_says_what_it_applies_to() -> None:
    assert set(store_bulk.APPLIES_TO) == set(BulkAction)
    assert set(store_bulk._ACTS) == set(BulkAction)
    assert set(kinds.bulk._AUDITED) == set(BulkAction)
