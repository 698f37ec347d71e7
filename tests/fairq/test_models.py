from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from fairq import Job, models
from scheduler.states import FINISHED, Condition, JobStatus
from webapp.schemas import bulk, dead_letters, fleet, history, jobs, people

JOB = {"job_id": "a", "type": "simulate", "status": "ready", "owner": "ann"}

READ = {
    models.Job: jobs.JobAnswer,
    models.Waiting: jobs.Waiting,
    models.EstimatedStart: jobs.EstimatedStart,
    models.LogLine: history.LogLine,
    models.Attempt: history.AttemptAnswer,
    models.DeadLetter: dead_letters.DeadLetter,
    models.DeadLetterGroup: dead_letters.DeadLetterGroup,
    models.Bulk: bulk.BulkAnswer,
    models.JobType: fleet.TypeAnswer,
    models.Offer: fleet.Offer,
    models.Stats: fleet.Stats,
    models.Spread: fleet.Spread,
    models.Account: people.Me,
}


@pytest.mark.parametrize("model", READ, ids=lambda model: model.__name__)
def test_nothing_is_read_that_the_server_does_not_tell(model: type[models.Answer]) -> None:
    assert set(model.model_fields) <= set(READ[model].model_fields)


def test_workers_of_both_kinds_are_read_alike() -> None:
    told = {*fleet.WorkerAnswer.model_fields, *fleet.PullWorkerAnswer.model_fields}

    assert set(models.Worker.model_fields) <= told | {"executor"}


def test_a_job_is_read_in_full() -> None:
    assert set(models.Job.model_fields) == set(jobs.JobAnswer.model_fields)


def test_statuses_are_those_of_the_server() -> None:
    known = {models.BLOCKED, models.READY, models.RUNNING, models.RETRYING, *models.FINISHED}

    assert known <= set(JobStatus)
    assert set(models.CONDITIONS) == set(Condition)


def test_finished_means_what_the_server_means() -> None:
    assert set(FINISHED) == models.FINISHED


def test_a_job_of_an_older_server_is_read() -> None:
    job = Job.model_validate(JOB)

    assert not job.is_finished
    assert job.result is None


def test_a_status_of_a_newer_server_is_read() -> None:
    assert Job.model_validate(JOB | {"status": "dreaming"}).status == "dreaming"


@pytest.mark.parametrize(
    ("status", "finished", "completed"),
    [("completed", True, True), ("failed", True, False), ("cancelled", True, False)],
)
def test_a_job_knows_how_it_ended(status: str, finished: bool, completed: bool) -> None:  # noqa: FBT001 - cases of a table
    job = Job.model_validate(JOB | {"status": status})

    assert (job.is_finished, job.is_completed) == (finished, completed)


def test_what_was_answered_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Job.model_validate(JOB).status = "completed"  # type: ignore[misc]


def test_times_are_instants() -> None:
    job = Job.model_validate(JOB | {"created_at": "2026-03-01T12:00:00Z"})

    assert job.created_at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert job.as_json()["created_at"] == "2026-03-01T12:00:00Z"
