"""GET /jobs: who sees what, filters, keyset pages, and what a page costs."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from redis import Redis
from sqlalchemy import Engine, Select
from sqlalchemy.orm import Session

from scheduler.events import Standing, write_standings
from scheduler.models import Job
from scheduler.states import FINISHED, PENDING, JobClass, JobStatus, Role
from tests.factories import NOON, make_dependency, make_job
from tests.webapp.conftest import MakePerson, Person
from webapp import queries
from webapp.schemas.jobs import JobList


def ids(person: Person, **query: Any) -> list[str]:
    """Walk through all pages and return the ids in order."""
    found: list[str] = []
    while True:
        answer = person.get(f"/jobs?{urlencode(query, doseq=True)}")
        assert answer.status_code == 200, answer.json
        found += [job["job_id"] for job in answer.json["jobs"]]
        if answer.json["next_cursor"] is None:
            return found
        query["cursor"] = answer.json["next_cursor"]


@pytest.fixture
def ann(person: MakePerson) -> Person:
    return person("ann")


def add(store: Session, owner: Person, name: str, **columns: Any) -> Job:
    status = columns.pop("status", JobStatus.READY)
    job = make_job(store, owner.user, status, job_id=name, **columns)
    store.commit()
    return job


def test_jobs_come_newest_first_unless_asked_otherwise(store: Session, ann: Person) -> None:
    for name in ("one", "two", "three"):
        add(store, ann, name)

    assert ids(ann) == ["three", "two", "one"]
    assert ids(ann, sort="oldest") == ["one", "two", "three"]


@pytest.mark.parametrize("sort", ["newest", "oldest"])
@pytest.mark.parametrize("filters", [{}, {"status": "pending,running"}, {"tag": "even"}])
def test_pages_together_are_the_whole_list(
    store: Session, ann: Person, sort: str, filters: dict[str, str]
) -> None:
    statuses = [JobStatus.READY, JobStatus.RUNNING, JobStatus.BLOCKED]
    for number in range(9):
        tags = ["even"] if number % 2 == 0 else []
        add(store, ann, f"job{number}", tags=tags, status=statuses[number % 3])

    whole = ids(ann, sort=sort, limit=500, **filters)
    paged = ids(ann, sort=sort, limit=2, **filters)

    assert paged == whole
    assert len(whole) == (5 if "tag" in filters else 9)
    assert whole == sorted(whole, reverse=sort == "newest")


def test_a_page_is_not_shifted_by_what_arrives_meanwhile(store: Session, ann: Person) -> None:
    for name in ("one", "two", "three", "four"):
        add(store, ann, name)
    first = ann.get("/jobs?limit=2").json

    add(store, ann, "five")

    assert ids(ann, limit=2, cursor=first["next_cursor"]) == ["two", "one"]


def test_matches_are_found_beyond_the_stretch_one_page_looks_at(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "SCAN_LIMIT", 3)
    for number in range(10):
        add(store, ann, f"job{number}", priority_level=4 if number in {0, 6} else 5)

    first = ann.get("/jobs?priority=4").json

    assert first["jobs"] == []
    assert first["next_cursor"] is not None
    assert ids(ann, priority=4) == ["job6", "job0"]


HOUR = timedelta(hours=1)
SEARCHES: dict[str, dict[str, Any]] = {
    "type": {"type": "other,nothing"},
    "tag": {"tag": "even"},
    "tags": {"tag": ["even", "third"]},
    "text": {"q": "ob1"},
    "text in a tag": {"q": "THIRD"},
    "short text": {"q": "1"},
    "text and status": {"q": "job", "status": "running,blocked"},
    "text over two parts": {"q": "job1\ntold"},
    "after": {"created_after": "2026-01-15T15:30:00Z"},
    "before": {"created_before": "2026-01-15T15:30:00Z"},
    "between": {
        "created_after": "2026-01-15T15:30:00Z",
        "created_before": "2026-01-15T19:00:00Z",
        "tag": "even",
    },
    "nothing before": {"created_before": "2020-01-01T00:00:00Z"},
    "nothing after": {"created_after": "2030-01-01T00:00:00Z"},
}


@pytest.mark.parametrize("sort", ["newest", "oldest"])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_list_is_the_same_whether_matches_are_few_or_many(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch, name: str, sort: str
) -> None:
    statuses = [JobStatus.READY, JobStatus.RUNNING, JobStatus.BLOCKED]
    for number in range(12):
        tags = ["even"] * (number % 2 == 0) + ["third"] * (number % 3 == 0)
        kind = "other" if number % 5 == 0 else "simulate"
        made = {"created_at": NOON + number * HOUR, "description": "told", "type": kind}
        add(store, ann, f"job{number}", tags=tags, status=statuses[number % 3], **made)
    lists = []

    for expected in (0, 10**9):
        monkeypatch.setattr(queries, "_expected", lambda *_, rows=expected: rows)
        lists.append(ids(ann, limit=2, sort=sort, **SEARCHES[name]))

    assert lists[0] == lists[1]
    assert bool(lists[0]) == (not name.startswith("nothing") and "two parts" not in name)
    order = [int(each.removeprefix("job")) for each in lists[0]]
    assert order == sorted(order, reverse=sort == "newest")


def test_a_text_is_looked_for_by_its_parts_that_few_jobs_hold(
    store: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expected(_session: Session, wanted: Select[int]) -> int:
        return 10**9 if "%picture%" in wanted.compile().params.values() else 1

    def looked_for(words: str) -> list[str]:
        return [condition.right.value for condition in queries._holding(store, words)]  # type: ignore[attr-defined]

    monkeypatch.setattr(queries, "_expected", expected)

    assert looked_for("picture-1234567") == ["%1234567%"]
    assert looked_for("picture") == ["%picture%"]
    assert looked_for("run-123") == ["%run-123%"]
    assert looked_for("a b") == ["%a b%"]


def test_a_job_that_holds_only_the_parts_of_a_text_is_not_found(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, ann, "whole", description="a large-PICTURE")
    add(store, ann, "parts", description="picture, large")
    monkeypatch.setattr(queries, "_expected", lambda *_: 0)

    assert ids(ann, q="LARGE-picture") == ["whole"]
    assert ids(ann, q="large") == ["parts", "whole"]


@pytest.mark.parametrize("few", [True, False])
def test_what_an_index_finds_is_shown_to_those_who_may_see_it(
    store: Session,
    ann: Person,
    person: MakePerson,
    monkeypatch: pytest.MonkeyPatch,
    *,
    few: bool,
) -> None:
    bob = person("bob")
    add(store, ann, "anns", tags=["shared"])
    monkeypatch.setattr(queries, "_expected", lambda *_: 0 if few else 10**9)

    assert ids(bob, tag="shared") == ids(bob, q="anns") == ids(bob, type="simulate") == []
    assert ids(ann, tag="shared", q="anns", type="simulate") == ["anns"]


@pytest.mark.parametrize("cursor", ["", "x", "W10", "WyJhIl0", "Wy0xXQ", "WzFd", "é", "A" * 200])
def test_a_made_up_cursor_is_refused(ann: Person, cursor: str) -> None:
    answer = ann.get(f"/jobs?{urlencode({'cursor': cursor})}")

    assert (answer.status_code, answer.json["code"]) == (422, "invalid_cursor")


@pytest.mark.parametrize(
    "other",
    [
        {"sort": "oldest"},
        {"tag": "b"},
        {"status": "pending"},
        {"q": "o"},
        {"owner": "ann"},
        {"priority": "normal"},
        {"type": "simulate"},
        {"created_after": "2026-01-01T00:00:00Z"},
        {"created_before": "2027-01-01T00:00:00Z"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_cursor_belongs_to_its_sort_and_filters(
    store: Session, ann: Person, other: dict[str, str]
) -> None:
    for name in ("one", "two", "three"):
        add(store, ann, name, tags=["a"])
    cursor = ann.get("/jobs?tag=a&limit=1").json["next_cursor"]

    answer = ann.get(f"/jobs?{urlencode({'tag': 'a', 'cursor': cursor} | other)}")

    assert (answer.status_code, answer.json["code"]) == (422, "invalid_cursor")
    assert answer.json["errors"][0]["path"] == "cursor"
    assert "leave cursor out" in answer.json["detail"]
    assert ids(ann, tag="a", cursor=cursor, limit=500) == ["two", "one"]


def test_jobs_are_filtered_by_status_and_group(store: Session, ann: Person) -> None:
    for status in JobStatus:
        add(store, ann, status, status=status)

    for status in JobStatus:
        assert ids(ann, status=status) == [status]
    assert set(ids(ann, status="pending")) == set(PENDING)
    assert set(ids(ann, status="active")) == {JobStatus.QUEUED, JobStatus.RUNNING}
    assert set(ids(ann, status="finished,running")) == FINISHED | {JobStatus.RUNNING}


def test_jobs_are_filtered_by_type_priority_tag_text_and_time(store: Session, ann: Person) -> None:
    add(store, ann, "plain")
    add(store, ann, "typed", type="other")
    add(store, ann, "urgent", job_class=JobClass.CRITICAL, priority_level=0)
    add(store, ann, "tagged", tags=["a", "b"])
    add(store, ann, "told", description="100% Wool_en")
    add(store, ann, "late", created_at=NOON + timedelta(hours=1))

    assert ids(ann, type="other") == ["typed"]
    assert ids(ann, type="other,nothing") == ["typed"]
    assert ids(ann, priority="critical") == ["urgent"]
    assert ids(ann, priority="0") == ["urgent"]
    assert "urgent" not in ids(ann, priority="normal,7")
    assert ids(ann, tag="a") == ["tagged"]
    assert ids(ann, tag=["a", "b"]) == ["tagged"]
    assert ids(ann, tag=["a", "c"]) == []
    assert ids(ann, q="RGEN") == ["urgent"]
    assert ids(ann, q="b") == ["tagged"]
    assert ids(ann, q="0% wool_") == ["told"]
    assert ids(ann, q="100%wool") == []
    assert ids(ann, created_after="2026-01-15T12:30:00Z") == ["late"]
    assert "late" not in ids(ann, created_before="2026-01-15T12:30:00Z")
    assert ids(ann, type="other", tag="a") == []


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("status=sleepy", "status"),
        ("priority=urgent", "priority"),
        ("priority=11", "priority"),
        ("sort=random", "sort"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-01-01T00:00:00", "created_after"),
        ("created_after=1767225600", "created_after"),
        ("q=%00", "q"),
        ("surprise=1", "surprise"),
    ],
)
def test_a_wrong_filter_is_refused_with_its_name(ann: Person, query: str, path: str) -> None:
    answer = ann.get(f"/jobs?{query}")

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"][0]["path"].split(".")[0] == path


def test_users_list_their_own_jobs_and_operators_everybodys(
    store: Session, ann: Person, person: MakePerson
) -> None:
    bob, olga = person("bob"), person("olga", Role.OPERATOR)
    add(store, ann, "anns")
    add(store, bob, "bobs")

    assert ids(ann) == ["anns"]
    assert ids(ann, owner="ann") == ids(ann, owner="Ann") == ["anns"]
    assert ids(ann, owner="bob") == []
    assert ids(ann, owner="nobody") == []
    assert ann.get("/jobs/anns?owner=ANN").status_code == 200
    assert ids(olga) == ["bobs", "anns"]
    assert ids(olga, owner="Ann") == ["anns"]
    assert ids(olga, owner="nobody") == []
    assert ids(olga, status="ready", owner="bob") == ["bobs"]


def test_the_list_tells_position_and_reason_from_the_leaders_books(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    known, unknown = add(store, ann, "known"), add(store, ann, "unknown")
    soon, later = NOON, NOON + timedelta(minutes=3)
    standing = Standing(7, "resources", "It waits for 2 CPU units.", soon, later, "simulation")
    write_standings(redis_client, {ann.user.id: {known.id: standing}})

    answer = ann.get("/jobs")

    JobList.model_validate_json(answer.data)
    jobs = {job["job_id"]: job for job in answer.json["jobs"]}
    assert jobs["known"]["position_in_queue"] == 7
    assert jobs["known"]["waiting"] == {
        "code": "resources",
        "message": "It waits for 2 CPU units.",
        "estimated_start": {
            "earliest": "2026-01-15T12:00:00Z",
            "latest": "2026-01-15T12:03:00Z",
            "method": "simulation",
        },
    }
    assert jobs[unknown.job_id]["waiting"]["code"] == "no_worker"


def test_a_page_costs_the_same_number_of_statements_however_long_it_is(
    store: Session, ann: Person, statements: list[str]
) -> None:
    ann.get("/jobs")  # notes the use of the token, which later reads do not
    costs = []

    for size in (2, 40):
        parent = add(store, ann, f"parent{size}")
        for number in range(size):
            child = add(store, ann, f"child{size}_{number}", status=JobStatus.BLOCKED)
            make_dependency(store, child, parent)
        store.commit()
        statements.clear()
        assert len(ann.get("/jobs?limit=500").json["jobs"]) > size
        costs.append(len(statements))

    assert costs[0] == costs[1]
    assert costs[0] <= 5, statements


@pytest.mark.parametrize("sort", ["newest", "oldest"])
def test_a_page_of_large_jobs_ends_early_and_says_where_to_go_on(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    monkeypatch.setattr(queries, "PAGE_BYTES", 3_000)
    monkeypatch.setattr(queries, "READ_AT_ONCE", 2)
    for number in range(10):
        make_job(store, ann.user, job_id=f"j{number}", payload={"x": "y" * 1_000})
    store.commit()

    pages, cursor = [], ""
    while cursor is not None:
        page = ann.get(f"/jobs?limit=8&sort={sort}{cursor and f'&cursor={cursor}'}").json
        pages.append([job["job_id"] for job in page["jobs"]])
        cursor = page["next_cursor"]

    listed = [name for page in pages for name in page]
    assert listed == sorted(listed, reverse=sort == "newest")
    assert [len(page) for page in pages] == [3, 3, 3, 1]


def test_the_books_of_all_owners_on_a_page_are_read_at_once(
    store: Session, person: MakePerson, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, olga = person("bob"), person("olga", Role.OPERATOR)
    for who in (ann, bob):
        make_job(store, who.user, JobStatus.READY)
    store.commit()
    asked: list[list[int]] = []

    def read(_: Redis, owners: list[int]) -> dict[int, dict[int, Standing]]:
        asked.append(owners)
        return {owner: {} for owner in owners}

    monkeypatch.setattr(queries, "read_standings", read)

    assert len(olga.get("/jobs").json["jobs"]) == 2
    assert asked == [sorted([ann.user.id, bob.user.id])]


def test_a_page_reads_an_index_and_no_more_than_its_own_rows(
    store: Session, ann: Person, committed_engine: Engine
) -> None:
    for number in range(300):
        make_job(store, ann.user, JobStatus.READY, job_id=f"job{number}")
    store.commit()
    wanted = queries.Filter(statuses=PENDING)
    listing = queries.Listing(Job.owner_id == ann.user.id, wanted, limit=10)

    with committed_engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE jobs")
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        compiled = listing.page().compile(connection, compile_kwargs={"literal_binds": True})
        rows = connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {compiled}"
        ).scalar_one()

    scans = [node for node in walk(rows[0]["Plan"]) if node.get("Relation Name") == "jobs"]
    assert scans
    assert all("Index" in node["Node Type"] for node in scans)
    assert all(node.get("Rows Removed by Filter", 0) == 0 for node in scans)
    assert max(node["Actual Rows"] for node in scans) <= 11


def walk(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(inner for child in node.get("Plans", []) for inner in walk(child))]
