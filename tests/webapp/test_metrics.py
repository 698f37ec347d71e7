"""What Prometheus reads: of whom, and that it can read it at all."""

from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from sqlalchemy import text
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from scheduler import clock
from scheduler.models import Count, EstimateScore, Feed, Outbox
from scheduler.settings import Settings
from scheduler.states import FeedKind, JobClass, JobStatus, Outcome, Role
from scheduler.store.counts import ADMITTED
from tests.factories import make_job, make_user, make_worker
from tests.webapp.conftest import MakeApp, MakePerson, Person

S = JobStatus
Samples = dict[tuple[str, ...], float]


def read(answer: TestResponse) -> Samples:
    """Return every sample by its name and the values of its labels, in the order of their names."""
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def scrape(person: Person) -> Samples:
    return read(person.get("/metrics"))


@pytest.fixture
def olga(person: MakePerson) -> Person:
    return person("olga", Role.OPERATOR)


def test_an_empty_service_has_all_its_figures(olga: Person) -> None:
    found = scrape(olga)

    assert found["fairq_jobs", JobClass.NORMAL, S.READY] == 0
    assert found["fairq_admissions_total",] == 0
    assert found["fairq_attempts_ended_total", Outcome.LOST] == 0
    assert found["fairq_workers", "online"] == 0
    assert found["fairq_capacity_slots",] == 0
    assert found["fairq_broker_up",] == 1
    assert ("fairq_leader_age_seconds",) not in found


def test_jobs_are_counted_by_status_and_class(
    olga: Person, person: MakePerson, store: Session
) -> None:
    ann, bob = person("ann"), person("bob")
    for status in (S.READY, S.READY, S.QUEUED, S.RUNNING, S.BLOCKED, S.COMPLETED):
        make_job(store, ann.user, status, job_class=JobClass.LOW)
    make_job(store, bob.user, S.RETRYING, job_class=JobClass.HIGH)
    store.commit()

    everybodys, anns = scrape(olga), scrape(ann)

    jobs = {key[1:]: value for key, value in everybodys.items() if key[0] == "fairq_jobs"}
    assert len(jobs) == 24
    assert {labels: value for labels, value in jobs.items() if value} == {
        (JobClass.LOW, S.READY): 2,
        (JobClass.LOW, S.QUEUED): 1,
        (JobClass.LOW, S.RUNNING): 1,
        (JobClass.LOW, S.BLOCKED): 1,
        (JobClass.HIGH, S.RETRYING): 1,
    }
    assert anns["fairq_jobs", JobClass.LOW, S.READY] == 2
    assert anns["fairq_jobs", JobClass.HIGH, S.RETRYING] == 0
    assert everybodys["fairq_reserved_slots",] == anns["fairq_reserved_slots",] == 2
    bobs = scrape(bob)
    assert bobs["fairq_reserved_slots",] == 0
    assert {key[1:] for key, value in bobs.items() if key[0] == "fairq_jobs" and value} == {
        (JobClass.HIGH, S.RETRYING)
    }


def test_counters_are_own_for_users_and_everybodys_for_operators(
    olga: Person, person: MakePerson, store: Session
) -> None:
    ann, bob = person("ann"), person("bob")
    for who, number in ((ann, 3), (bob, 4)):
        store.add(Count(owner_id=who.user.id, what=ADMITTED, number=number, seconds=0))
        store.add(Count(owner_id=who.user.id, what=Outcome.FAILED, number=1, seconds=number))
    store.commit()

    everybodys, anns = scrape(olga), scrape(ann)

    assert everybodys["fairq_admissions_total",] == 7
    assert everybodys["fairq_attempts_ended_total", Outcome.FAILED] == 2
    assert everybodys["fairq_attempt_seconds_total", Outcome.FAILED] == 7
    assert anns["fairq_admissions_total",] == 3


def test_figures_of_the_service_are_told(olga: Person, store: Session, redis_client: Redis) -> None:
    now = clock.now()
    make_worker(store, cpu_units=4, memory_mb=100, processes_max=3)
    make_worker(store, "going@test", state="draining")
    make_job(store, olga.user, S.READY, ready_at=now - timedelta(seconds=90))
    make_job(
        store, olga.user, S.COMPLETED, ready_at=now - timedelta(seconds=40),
        started_at=now - timedelta(seconds=30), finished_at=now - timedelta(seconds=10),
    )  # fmt: skip
    store.execute(
        text(
            "INSERT INTO job_events (job_id, owner_id, at, verb, status, attempt)"
            " SELECT id, owner_id, finished_at, 'succeed', status, 1 FROM jobs"
            " WHERE finished_at IS NOT NULL"
        )
    )
    store.execute(
        text("UPDATE scheduler_lease SET epoch = 7, renewed_at = now() - interval '2 seconds'")
    )
    job = make_job(store, olga.user, S.QUEUED)
    store.add(
        Outbox(job_id=job.id, attempt=1, queue="low", timeout_seconds=1, place=1, created_at=now)
    )
    store.add(Feed(kind=FeedKind.TERMS, job_id=0, owner_id=0))
    store.add(
        EstimateScore(
            day=now.date(), method="simulation", job_class="low", within=3, early=1, late=0,
            lower=0, upper=1,
        )
    )  # fmt: skip
    store.commit()
    redis_client.rpush("low", "a", "b")

    found = scrape(olga)

    assert found["fairq_oldest_ready_seconds",] == pytest.approx(90, abs=30)
    assert found["fairq_wait_seconds", "0.5"] == pytest.approx(10, abs=0.01)
    assert found["fairq_run_seconds", "0.99"] == pytest.approx(20, abs=0.01)
    assert (found["fairq_workers", "online"], found["fairq_workers", "draining"]) == (1, 1)
    assert (found["fairq_capacity_cpu_units",], found["fairq_capacity_slots",]) == (4, 3)
    assert found["fairq_capacity_memory_bytes",] == 100 * 1024 * 1024
    assert found["fairq_leader_epoch",] == 7
    assert found["fairq_leader_age_seconds",] == pytest.approx(2, abs=30)
    assert found["fairq_estimates_hit_ratio",] == 0.75
    assert found["fairq_estimated_starts", "simulation", "early"] == 1
    assert (found["fairq_outbox_messages",], found["fairq_feed_rows",]) == (1, 1)
    assert (found["fairq_queue_messages", "low"], found["fairq_queue_messages", "high"]) == (2, 0)


def test_labels_are_words_that_nobody_has_chosen(olga: Person, store: Session) -> None:
    chosen = make_user(store, "chosen-name")
    for status in S:
        make_job(store, chosen, status, type="chosen-type", job_id=f"chosen-{status}")
    make_worker(store, "chosen-worker")
    store.commit()

    assert "chosen" not in olga.get("/metrics").text


def test_openmetrics_is_told_to_whoever_asks_for_it(olga: Person) -> None:
    plain = olga.get("/metrics")
    other = olga.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert plain.content_type.startswith("text/plain; version=")
    assert other.content_type.startswith("application/openmetrics-text; version=1.0.0")
    names = [each.name for each in openmetrics.text_string_to_metric_families(other.text)]
    assert "fairq_admissions" in names


def test_a_broker_that_is_away_is_told_and_hides_nothing_else(
    olga: Person, settings: Settings, make_app: MakeApp
) -> None:
    lonely = make_app(replace(settings, redis_url="redis://127.0.0.1:1/0"))

    found = scrape(replace(olga, client=lonely.test_client()))

    assert found["fairq_broker_up",] == 0
    assert ("fairq_queue_messages", "low") not in found
    assert found["fairq_jobs", "low", S.READY] == 0
