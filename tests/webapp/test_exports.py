"""GET /jobs as a file: the whole list under its filters, in lines that harm no spreadsheet."""

import csv
import io
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy.orm import Session

from scheduler.models import Job
from scheduler.states import JobStatus, Role
from tests.factories import make_job
from tests.webapp.conftest import MakePerson, Person
from webapp import exports, queries
from webapp.schemas.jobs import JobAnswer

S = JobStatus


@pytest.fixture
def ann(person: MakePerson) -> Person:
    return person("ann")


def add(store: Session, owner: Person, name: str, **columns: Any) -> Job:
    status = columns.pop("status", S.READY)
    job = make_job(store, owner.user, status, job_id=name, **columns)
    store.commit()
    return job


def rows_of(person: Person, **query: Any) -> list[dict[str, str]]:
    answer = person.get(f"/jobs?{urlencode(query | {'format': 'csv'}, doseq=True)}")
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def lines_of(person: Person, **query: Any) -> list[dict[str, Any]]:
    answer = person.get(f"/jobs?{urlencode(query | {'format': 'jsonl'}, doseq=True)}")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("page", [1, 2, 5, 100])
def test_a_file_holds_the_whole_list_in_its_order(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(exports, "PAGE", page)
    for number in range(5):
        add(store, ann, f"job{number}")

    names = [f"job{number}" for number in range(5)]
    assert [row["job_id"] for row in rows_of(ann)] == names[::-1]
    assert [row["job_id"] for row in rows_of(ann, sort="oldest")] == names
    assert [line["job_id"] for line in lines_of(ann, sort="oldest")] == names


@pytest.mark.parametrize("few", [True, False])
def test_a_file_is_narrowed_as_pages_are(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch, *, few: bool
) -> None:
    monkeypatch.setattr(exports, "PAGE", 1)
    monkeypatch.setattr(queries, "SCAN_LIMIT", 2)
    monkeypatch.setattr(queries, "_expected", lambda *_: 0 if few else 10**9)
    for number in range(7):
        add(store, ann, f"job{number}", tags=["even"] if number % 2 == 0 else [])
    add(store, ann, "done", status=S.COMPLETED, tags=["even"])

    found = [row["job_id"] for row in rows_of(ann, tag="even", status="pending")]

    assert found == ["job6", "job4", "job2", "job0"]
    assert [line["job_id"] for line in lines_of(ann, q="job3")] == ["job3"]


@pytest.mark.parametrize("status", JobStatus)
def test_a_line_of_json_is_the_job_as_a_list_answers_it(
    store: Session, ann: Person, status: JobStatus
) -> None:
    add(store, ann, "it", status=status, payload={"text": "two\nlines"})

    (line,) = lines_of(ann)

    JobAnswer.model_validate_json(json.dumps(line))
    (listed,) = ann.get("/jobs").json["jobs"]
    clocks = {"waited_seconds", "elapsed_seconds"}
    assert {k: v for k, v in line.items() if k not in clocks} == {
        k: v for k, v in listed.items() if k not in clocks
    }


@pytest.mark.parametrize("status", JobStatus)
def test_a_line_of_csv_tells_a_job_in_every_status(
    store: Session, ann: Person, status: JobStatus
) -> None:
    add(
        store, ann, 'a "b", c', status=status, tags=["x", "y"], description="two\nlines",
        payload={"n": [1]}, result={"ok": True} if status is S.COMPLETED else None,
    )  # fmt: skip

    (row,) = rows_of(ann)

    assert (row["job_id"], row["status"], row["owner"]) == ('a "b", c', status, "ann")
    assert (row["tags"], row["description"]) == ("x, y", "two\nlines")
    assert (row["resource_requirements.cpu_units"], row["priority_level"]) == ("1.0", "5")
    assert row["created_at"] == "2026-01-15T12:00:00Z"
    assert row["error.type"] == ("ValueError" if status is S.FAILED else "")
    assert json.loads(row["payload"]) == {"n": [1]}
    assert row["result"] == ('{"ok":true}' if status is S.COMPLETED else "")


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =cmd|' /C calc'!A0"]
)
def test_no_cell_is_a_formula(store: Session, ann: Person, text: str) -> None:
    add(store, ann, "it", description=text, tags=[text.strip()])

    (row,) = rows_of(ann)

    assert row["description"] == f"'{text}"
    assert row["tags"] == f"'{text.strip()}"


def test_a_name_that_looks_like_a_formula_is_disarmed_too(store: Session, ann: Person) -> None:
    add(store, ann, '=HYPERLINK("http://example.org")')
    add(store, ann, "a=b")

    assert [row["job_id"] for row in rows_of(ann)] == ["a=b", '\'=HYPERLINK("http://example.org")']


@pytest.mark.parametrize(
    ("accept", "query", "expected"),
    [
        ("text/csv", "", "text/csv"),
        ("application/x-ndjson", "", "application/x-ndjson"),
        ("application/json", "", "application/json"),
        ("*/*", "", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "", "application/json"),
        ("text/csv, application/json;q=0.5", "", "text/csv"),
        ("text/csv", "?format=jsonl", "application/x-ndjson"),
        ("text/csv", "?format=json", "application/json"),
        ("text/html", "?format=csv", "text/csv"),
    ],
)
def test_the_format_is_what_the_address_names_or_else_what_is_accepted(
    ann: Person, accept: str, query: str, expected: str
) -> None:
    answer = ann.get(f"/jobs{query}", headers={"Accept": accept})
    answer.close()

    assert (answer.status_code, answer.mimetype) == (200, expected)
    assert "Accept" in answer.vary
    attached = answer.headers.get("Content-Disposition", "")
    assert attached.startswith("attachment") == (expected != "application/json")


def test_an_empty_list_is_an_empty_file(ann: Person) -> None:
    assert rows_of(ann) == []
    assert lines_of(ann) == []
    assert ann.get("/jobs?format=csv").text.startswith("job_id,type,status,")


@pytest.mark.parametrize("name", ["csv", "jsonl"])
@pytest.mark.parametrize("part", ["limit=5", "cursor=x"])
def test_a_file_has_no_pages(ann: Person, name: str, part: str) -> None:
    answer = ann.get(f"/jobs?format={name}&{part}")

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"][0]["path"] == part.partition("=")[0]


def test_a_filter_that_makes_no_sense_is_an_error_and_no_file(ann: Person) -> None:
    answer = ann.get("/jobs?status=odd", headers={"Accept": "text/csv"})

    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")


def test_files_hold_ones_own_jobs_and_an_operators_everybodys(
    store: Session, ann: Person, person: MakePerson
) -> None:
    bob, olga = person("bob"), person("olga", Role.OPERATOR)
    add(store, ann, "anns")
    add(store, bob, "bobs")

    assert [row["job_id"] for row in rows_of(ann)] == ["anns"]
    assert [row["job_id"] for row in rows_of(ann, owner="bob")] == []
    assert [row["job_id"] for row in rows_of(olga)] == ["bobs", "anns"]
    assert [row["job_id"] for row in rows_of(olga, owner="bob")] == ["bobs"]


def test_a_file_is_read_page_by_page_as_it_is_sent(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PAGE", 2)
    for number in range(6):
        add(store, ann, f"job{number}")
    asked: list[str | None] = []
    read = queries.list_jobs

    def count(*given: Any, **named: Any) -> queries.JobPage:
        asked.append(named["cursor"])
        return read(*given, **named)

    monkeypatch.setattr(queries, "list_jobs", count)
    answer = ann.get("/jobs?format=jsonl", buffered=False)
    parts = answer.iter_encoded()

    assert json.loads(next(parts).splitlines()[0])["job_id"] == "job5"
    assert len(asked) == 1
    assert len(b"".join(parts).splitlines()) == 4
    assert len(asked) == 3


def test_how_to_find_the_jobs_of_a_file_is_decided_once(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PAGE", 2)
    for number in range(5):
        add(store, ann, f"job{number}", tags=["x"])
    asked: list[queries.Filter] = []
    decide = queries.finder_of

    def count(session: Session, wanted: queries.Filter) -> queries.Finder:
        asked.append(wanted)
        return decide(session, wanted)

    monkeypatch.setattr(queries, "finder_of", count)

    assert len(rows_of(ann, tag="x")) == 5
    assert len(asked) == 1
