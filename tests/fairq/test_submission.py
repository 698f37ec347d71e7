import dataclasses
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairq import Dependency, Job, Submission
from fairq.submission import Fields, new_job_id
from scheduler.job_request import JobRequest

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
names = st.text("abcäß /.", min_size=1, max_size=20)

submissions = st.builds(
    Submission,
    names,
    st.dictionaries(names, st.none() | st.integers() | st.text("xyz")),
    job_id=st.none() | names,
    description=st.none() | names,
    tags=st.lists(names, max_size=3),
    priority=st.sampled_from([None, 0, 7, "critical", "low"]),
    depends_on=st.lists(
        names
        | names.map(lambda name: Job(job_id=name, type="simulate", status="ready", owner="ann"))
        | names.map(lambda name: Dependency(job_id=name, when="failed")),
        max_size=3,
    ),
    resource_requirements=st.sampled_from([None, {"cpu_units": 2.5}, {"memory_mb": 64}]),
    retry_config=st.sampled_from([None, {"max_attempts": 1}, {"strategy": "none"}]),
    timeout_seconds=st.none() | st.floats(1, 100),
    estimated_seconds=st.none() | st.floats(1, 100),
    run_at=st.sampled_from([None, NOON]),
    start_by=st.sampled_from([None, NOON]),
    executor=st.sampled_from([None, "celery", "pull"]),
    callback_url=st.sampled_from([None, "https://example.org/done"]),
)


@given(submissions)
def test_the_server_reads_what_was_meant(submission: Submission) -> None:
    read = JobRequest.model_validate_json(json.dumps(submission.as_json()))

    assert (read.type, read.job_id, read.payload) == (
        submission.type,
        submission.job_id,
        submission.payload,
    )
    assert read.tags == list(submission.tags)
    assert [one.job_id for one in read.depends_on] == [
        one if isinstance(one, str) else one.job_id for one in submission.depends_on
    ]
    assert (read.run_at, read.start_by) == (submission.run_at, submission.start_by)


def test_it_can_say_everything_the_server_takes() -> None:
    fields = {one.name for one in dataclasses.fields(Submission)}

    assert fields == set(JobRequest.model_fields)
    assert fields == set(Fields.__annotations__) | {"type", "payload"}


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="run_at needs a time zone"):
        Submission("simulate", run_at=NOON.replace(tzinfo=None))


def test_parents_from_an_iterator_are_kept() -> None:
    submission = Submission("simulate", depends_on=(name for name in "ab"))

    assert submission.as_json() == submission.as_json()
    assert submission.as_json()["depends_on"] == ["a", "b"]


def test_ids_are_made_as_the_server_makes_them() -> None:
    made = new_job_id()

    assert made.startswith("job_")
    assert made == made.lower()
    assert len(made) == len("job_") + 26
