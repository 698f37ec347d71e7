from datetime import UTC, datetime

import pytest

from fairq import CycleFound, Dependency, Refused
from fairq.cli import workflow_file

DIAMOND = """
jobs:
  fetch:
    type: data_fetch
    payload: {symbols: [AAPL], since: 2026-03-01}
    priority: high
  means: {type: data_processing, depends_on: [fetch]}
  alarm:
    type: send_email
    depends_on: [{job_id: fetch, when: failed}, yesterday]
  report:
    type: report_generation
    job_id: nightly
    depends_on: [means, {job_id: alarm, when: finished}]
    run_at: 2026-03-01T12:00:00Z
"""


def test_names_become_ids_of_their_own() -> None:
    fetch, means, alarm, report = workflow_file.read(DIAMOND).submissions

    assert str(fetch.job_id).startswith("job_")
    assert report.job_id == "nightly"
    assert list(means.depends_on) == [fetch.job_id]
    assert list(alarm.depends_on) == [
        Dependency(job_id=str(fetch.job_id), when="failed"),
        "yesterday",
    ]
    assert list(report.depends_on) == [
        means.job_id,
        Dependency(job_id=str(alarm.job_id), when="finished"),
    ]


def test_other_fields_are_those_of_a_submission() -> None:
    fetch, *_, report = workflow_file.read(DIAMOND).submissions

    assert fetch.priority == "high"
    assert fetch.payload == {"symbols": ["AAPL"], "since": "2026-03-01"}
    assert report.run_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_reading_it_again_means_other_jobs() -> None:
    one, other = (workflow_file.read(DIAMOND).submissions[0].job_id for _ in range(2))

    assert one != other


def test_a_list_and_json_will_do() -> None:
    flow = workflow_file.read('{"jobs": [{"type": "simulate", "job_id": "a"}]}')

    assert [one.job_id for one in flow.submissions] == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file has no jobs"),
        ("jobs: {}", "the file has no jobs"),
        ("- type: x", "the file has no jobs"),
        ("jobs: {a: simulate}", "jobs.a is no job"),
        ("jobs: {a: {payload: {}}}", "jobs.a needs a type"),
        ("jobs: {a: {type: x, dependson: [b]}}", "jobs.a has no field dependson"),
        ("jobs: {a: {type: x, depends_on: b}}", "jobs.a.depends_on is a list"),
        ("jobs: {a: {type: x, run_at: soon}}", "'soon' is no time"),
        ("jobs: [}", "neither YAML nor JSON"),
    ],
)
def test_what_is_no_workflow_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        workflow_file.read(text)


def test_a_cycle_is_refused() -> None:
    with pytest.raises(CycleFound):
        workflow_file.read("jobs: {a: {type: x, depends_on: [b]}, b: {type: x, depends_on: [a]}}")


def test_a_refusal_names_the_job_as_the_file_does() -> None:
    flow = workflow_file.read(DIAMOND)
    errors = [
        {"path": "jobs.1.payload.n", "message": "must be a number"},
        {"path": "jobs.0", "message": "never fits"},
        {"path": "jobs", "message": "too many"},
    ]

    with pytest.raises(Refused) as caught, flow.naming_refusals():
        raise Refused(422, {"code": "validation_failed", "detail": "No.", "errors": errors})

    paths = [one.path for one in caught.value.errors]
    assert paths == ["jobs.means.payload.n", "jobs.fetch", "jobs"]
    assert caught.value.code == "validation_failed"
