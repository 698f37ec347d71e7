"""Jobs too far back to be placed one by one say about where they stand."""

from datetime import timedelta

import pytest
from redis import Redis
from sqlalchemy.orm import Session

from scheduler.events import Standing, read_curve, write_curve, write_standings
from scheduler.models import Job, Meter
from scheduler.policy.curve import Queued, make_curve
from scheduler.snapshot import Clock
from scheduler.states import JobStatus
from tests.factories import make_job, make_user, make_worker
from tests.webapp.conftest import MakePerson, Person
from webapp import places

CLOCK = Clock(virtual_now=100.0, mean_cost=1.0)


@pytest.fixture
def ann(person: MakePerson) -> Person:
    return person("ann")


def publish(redis: Redis, *lines: Queued, starts: float | None = None) -> None:
    write_curve(redis, make_curve(lines, clock=CLOCK, starts=starts))


def in_line(store: Session, ann: Person, count: int, tag: float | None = 100.0) -> list[Job]:
    """Let jobs of a user wait, and a worker that could run them be alive."""
    make_worker(store)
    store.add(Meter(owner_id=ann.user.id, meter=90.0, express_meter=0.0, tag=tag))
    jobs = [make_job(store, ann.user, job_id=f"job{n}", rank=n + 1) for n in range(count)]
    store.commit()
    return jobs


def test_a_job_far_back_is_placed_by_the_curve(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    in_line(store, ann, 3)
    publish(redis_client, Queued(100.0, 1.0, 3, 1.0), *[Queued(100.0, 1.0, 500, 1.0)] * 9)

    answered = ann.get("/jobs/job2").json

    assert answered["position_in_queue"] == 21
    assert answered["waiting"] == {
        "code": "turn",
        "message": "Waits for its turn: about 20 jobs go first.",
        "estimated_start": None,
    }
    assert [job["position_in_queue"] for job in ann.get("/jobs").json["jobs"]] == [21, 11, None]


def test_of_a_long_line_a_thousand_jobs_are_counted(
    store: Session, ann: Person, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "OWN_COUNTED", 3)
    in_line(store, ann, 6)
    publish(redis_client, *[Queued(100.0, 1.0, 500, 1.0)] * 10)

    found = [job["position_in_queue"] for job in ann.get("/jobs?sort=oldest").json["jobs"]]

    assert sorted(place for place in found if place) == [11, 21, 31, 31, 31]


def test_its_start_is_estimated_by_the_rate(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    in_line(store, ann, 3)
    publish(redis_client, *[Queued(100.0, 1.0, 500, 1.0)] * 10, starts=2.0)

    start = ann.get("/jobs/job2").json["waiting"]["estimated_start"]

    assert start["method"] == "rate"
    assert start["earliest"] < start["latest"]


def test_what_the_leader_has_placed_goes_before_the_curve(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    first, *_ = in_line(store, ann, 2)
    publish(redis_client, *[Queued(100.0, 1.0, 500, 1.0)] * 10)
    write_standings(redis_client, {ann.user.id: {first.id: Standing(4, "resources", "Waits.")}})

    answered = ann.get("/jobs/job0").json

    assert answered["position_in_queue"] == 4
    assert answered["waiting"]["code"] == "resources"


def test_an_owner_the_leader_has_yet_to_see_begins_at_virtual_now(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    in_line(store, ann, 1, tag=None)
    publish(redis_client, *[Queued(95.0, 1.0, 500, 1.0)] * 4)

    assert ann.get("/jobs/job0").json["position_in_queue"] == 21


def test_weights_count_between_their_bounds(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    in_line(store, ann, 9)
    ann.user.weight = 1000.0
    store.commit()
    publish(redis_client, *[Queued(100.0, 1.0, 500, 1.0)] * 10)

    assert ann.get("/jobs/job8").json["position_in_queue"] == 21


def test_without_a_leader_nothing_is_made_up(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    in_line(store, ann, 1)

    answered = ann.get("/jobs/job0").json

    assert read_curve(redis_client) is None
    assert answered["position_in_queue"] is None
    assert answered["waiting"]["code"] == "turn"


def test_without_a_worker_that_is_what_is_said(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    make_job(store, ann.user, job_id="it")
    store.commit()
    publish(redis_client, *[Queued(0.0, 1.0, 500, 1.0)] * 10)

    assert ann.get("/jobs/it").json["waiting"]["code"] == "no_worker"


def test_the_curve_says_nothing_about_jobs_that_are_not_ready(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    make_worker(store)
    other = make_user(store)
    for owner, status in ((ann.user, JobStatus.SCHEDULED), (other, JobStatus.READY)):
        make_job(store, owner, status, job_id="it", created_at=ann.user.created_at + timedelta(1))
    store.commit()
    publish(redis_client, *[Queued(0.0, 1.0, 500, 1.0)] * 10)

    assert ann.get("/jobs/it").json["waiting"]["code"] == "time"
