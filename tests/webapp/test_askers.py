"""Pull workers as operators see them: who asked lately, and what they hold."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from redis import Redis
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.settings import Settings
from scheduler.states import Executor, JobStatus, Role
from scheduler.store import work
from tests.factories import NOON, make_job, make_worker
from tests.webapp.conftest import MakeApp, MakePerson, Person
from tests.webapp.test_pages import page_of, words_of
from webapp import askers
from webapp.askers import LATELY, Asker
from webapp.schemas.fleet import WorkerList

SECOND = timedelta(seconds=1)


@pytest.fixture
def olga(person: MakePerson) -> Person:
    return person("olga", Role.OPERATOR)


def hold(store: Session, who: Person, job_id: str, worker: str = "cam") -> None:
    job = make_job(store, who.user, JobStatus.QUEUED, job_id=job_id, executor=Executor.PULL)
    lease = timedelta(minutes=1)
    work.start(store, [(job.id, 1)], worker=worker, pid=None, lease=lease, token=job_id)
    store.commit()


def test_whoever_asked_is_seen_although_it_got_nothing(olga: Person, person: MakePerson) -> None:
    before = clock.now()
    assert person("ann").post("/jobs/next", {"worker": "cam"}).status_code == 204

    answer = olga.get("/workers")

    WorkerList.model_validate_json(answer.data)
    (worker,) = answer.json["pull_workers"]
    assert (worker["name"], worker["asked_by"], worker["running"]) == ("cam", "ann", [])
    assert worker["asked_at"] >= before.isoformat().replace("+00:00", "Z")
    assert answer.json["workers"] == []


def test_what_a_pull_worker_holds_is_told_with_its_lease(
    olga: Person, person: MakePerson, store: Session
) -> None:
    ann = person("ann")
    make_worker(store)
    make_job(store, ann.user, JobStatus.RUNNING, job_id="of-celery")
    hold(store, ann, "held")
    hold(store, olga, "other", worker="another")

    answer = olga.get("/workers").json

    told = {worker["name"]: worker for worker in answer["pull_workers"]}
    assert list(told) == ["another", "cam"]
    (held,) = told["cam"]["running"]
    assert (held["job_id"], held["owner"], held["attempt"]) == ("held", "ann", 1)
    assert held["lease_expires_at"] > held["started_at"]
    assert (told["cam"]["asked_by"], told["cam"]["asked_at"]) == (None, None)
    assert [one["job_id"] for one in answer["workers"][0]["running"]] == ["of-celery"]


def test_a_worker_that_has_not_asked_lately_is_forgotten(redis_client: Redis) -> None:
    askers.note(redis_client, "old", 1, now=NOON)
    askers.note(redis_client, "new", 2, now=NOON + SECOND)

    assert set(askers.lately(redis_client, now=NOON + LATELY)) == {"old", "new"}
    assert set(askers.lately(redis_client, now=NOON + LATELY + SECOND)) == {"new"}


def test_of_several_workers_with_one_name_the_one_that_asked_last_is_told(
    redis_client: Redis,
) -> None:
    for user, after in ((1, 0), (2, 5), (3, 3)):
        askers.note(redis_client, "cam", user, now=NOON + after * SECOND)

    assert askers.lately(redis_client, now=NOON + 6 * SECOND) == {
        "cam": Asker("cam", 2, NOON + 5 * SECOND)
    }


def test_so_many_names_are_remembered_and_no_more(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(askers, "MOST", 2)

    for number in range(4):
        askers.note(redis_client, str(number), 1, now=NOON + number * SECOND)

    assert set(askers.lately(redis_client, now=NOON + 5 * SECOND)) == {"2", "3"}


def test_a_broker_that_is_away_hides_only_who_is_idle(
    olga: Person, settings: Settings, make_app: MakeApp, store: Session
) -> None:
    hold(store, olga, "held")
    lonely = make_app(replace(settings, redis_url="redis://127.0.0.1:1/0"))
    cut_off = replace(olga, client=lonely.test_client())

    assert cut_off.post("/jobs/next", {"worker": "idle"}).status_code == 204

    workers = cut_off.get("/workers").json["pull_workers"]
    assert [worker["name"] for worker in workers] == ["cam"]


def test_the_workers_page_shows_pull_workers_where_there_are_some(
    signed_in: MakePerson, store: Session, redis_client: Redis
) -> None:
    olga = signed_in("olga", Role.OPERATOR)
    assert "Pull workers" not in words_of(page_of(olga, "/workers"))

    hold(store, olga, "held")
    askers.note(redis_client, "idle", olga.user.id, now=clock.now())

    said = words_of(page_of(olga, "/workers"))
    assert "cam \N{EN DASH} \N{EN DASH} held" in said
    assert re.search("idle .{1,20} olga nothing", said), said
