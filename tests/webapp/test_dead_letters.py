"""Failed jobs over HTTP: listed, grouped, run again, discarded, and nobody else's touched."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from redis import Redis
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.events import LIVE_CHANNEL, WAKE_KEY
from scheduler.models import Job, JobEvent
from scheduler.states import DISCARD, CancelReason, Condition, JobStatus, Role, Scope
from scheduler.store import dead_letters as letters_store
from scheduler.store.dependencies import resolve, take
from scheduler.store.moves import Move
from tests.factories import NOON, make_dependency, make_event, make_job, make_type
from tests.webapp.conftest import MakePerson, Person
from webapp import clearing, dead_letters
from webapp.schemas.dead_letters import DeadLetterGroups, DeadLetterList
from webapp.schemas.jobs import JobAnswer
from webapp.views import reads

S = JobStatus
HOUR = timedelta(hours=1)


@pytest.fixture
def ann(person: MakePerson) -> Person:
    return person("ann")


@pytest.fixture
def bob(person: MakePerson) -> Person:
    return person("bob")


@pytest.fixture
def olga(person: MakePerson) -> Person:
    return person("olga", Role.OPERATOR)


def add(store: Session, owner: Person, name: str, **columns: Any) -> Job:
    status = columns.pop("status", S.FAILED)
    job = make_job(store, owner.user, status, job_id=name, **columns)
    store.commit()
    return job


def look(store: Session, job: Job) -> Job:
    store.rollback()
    return store.get_one(Job, job.id, populate_existing=True)


def ids(person: Person, **query: Any) -> list[str]:
    """Walk through all pages and return the ids in order."""
    found: list[str] = []
    while True:
        answer = person.get(f"/dead-letters?{urlencode(query)}")
        assert answer.status_code == 200, answer.json
        found += [job["job_id"] for job in answer.json["jobs"]]
        if answer.json["next_cursor"] is None:
            return found
        query["cursor"] = answer.json["next_cursor"]


def groups(person: Person, **query: Any) -> list[dict[str, Any]]:
    """Walk through all pages of groups and return them in order."""
    found: list[dict[str, Any]] = []
    while True:
        answer = person.get(f"/dead-letters?{urlencode({'group': 1, **query})}")
        assert answer.status_code == 200, answer.json
        found += answer.json["groups"]
        if answer.json["next_cursor"] is None:
            return found
        query["cursor"] = answer.json["next_cursor"]


def cleared(person: Person, act: str, **body: Any) -> dict[str, Any]:
    answer = person.post(f"/dead-letters/{act}", body)
    assert answer.status_code == 200, answer.json
    told: dict[str, Any] = answer.json
    return told


def told(done: int, *, skipped: int = 0, remaining: int = 0, by: str = "retried") -> dict[str, Any]:
    return {by: done, "skipped": skipped, "remaining": remaining, "next_cursor": None}


# One job


@pytest.mark.parametrize("status", [S.FAILED, S.CANCELLED])
def test_a_failed_or_cancelled_job_runs_again_with_fresh_attempts(
    store: Session, ann: Person, redis_client: Redis, status: JobStatus
) -> None:
    job = add(store, ann, "again", status=status, attempt=3)

    answer = ann.post("/jobs/again/retry")

    assert answer.status_code == 200
    JobAnswer.model_validate_json(answer.data)
    assert (answer.json["job_id"], answer.json["status"]) == ("again", S.READY)
    assert answer.json["error"] is None
    again = look(store, job)
    assert (again.status, again.attempts_forgiven) == (S.READY, 3)
    assert redis_client.llen(WAKE_KEY) == 1


@pytest.mark.parametrize("status", sorted(set(S) - {S.FAILED, S.CANCELLED}))
def test_a_job_that_has_not_ended_badly_cannot_be_retried(
    store: Session, ann: Person, status: JobStatus
) -> None:
    job = add(store, ann, "fine", status=status)

    answer = ann.post("/jobs/fine/retry")

    assert (answer.status_code, answer.json["code"]) == (409, "not_retryable")
    assert look(store, job).status == status


def test_a_second_retry_is_refused_and_changes_nothing(store: Session, ann: Person) -> None:
    job = add(store, ann, "once")

    answers = [ann.post("/jobs/once/retry").status_code for _ in range(2)]

    assert answers == [200, 409]
    store.rollback()
    verbs = store.scalars(select(JobEvent.verb).where(JobEvent.job_id == job.id))
    assert list(verbs) == ["run_again"]


def test_what_was_cancelled_because_of_a_job_waits_for_it_again(
    store: Session, ann: Person
) -> None:
    parent = add(store, ann, "parent")
    child = add(
        store, ann, "child", status=S.CANCELLED, reason=CancelReason.DEPENDENCY_FAILED,
        reason_job_id="parent",
    )  # fmt: skip
    make_dependency(store, child, parent, Condition.COMPLETED)
    store.commit()

    assert ann.post("/jobs/parent/retry").status_code == 200
    resolve(store, take(store, limit=10))
    store.commit()

    assert look(store, child).status == S.BLOCKED


def test_somebody_elses_job_cannot_be_retried_but_by_operators(
    store: Session, ann: Person, bob: Person, olga: Person
) -> None:
    job = add(store, ann, "anns")
    add(store, ann, "same")
    add(store, bob, "same")

    assert bob.post("/jobs/anns/retry").status_code == 404
    assert bob.post("/jobs/anns/retry?owner=ann").status_code == 404
    assert look(store, job).status == S.FAILED
    assert olga.post("/jobs/same/retry").json["code"] == "ambiguous_job_id"
    assert olga.post("/jobs/same/retry?owner=bob").status_code == 200
    assert olga.post("/jobs/anns/retry").json["owner"] == "ann"


# Listing


def test_dead_letters_are_failed_jobs_that_nobody_discarded_latest_failure_first(
    store: Session, ann: Person
) -> None:
    add(store, ann, "early", finished_at=NOON + 3 * HOUR)
    add(store, ann, "late", finished_at=NOON + 5 * HOUR)
    add(store, ann, "between", finished_at=NOON + 4 * HOUR, error_message="row 7")
    add(store, ann, "gone", discarded_at=NOON)
    for status in set(S) - {S.FAILED}:
        add(store, ann, status, status=status)

    answer = ann.get("/dead-letters")

    DeadLetterList.model_validate_json(answer.data)
    assert ids(ann) == ["late", "between", "early"]
    shown = answer.json["jobs"][1]
    assert shown["error"] == {"type": "ValueError", "message": "row 7"}
    assert shown["fingerprint"] == "0123abcd"


def test_pages_of_dead_letters_are_the_whole_list_even_of_one_moment(
    store: Session, ann: Person
) -> None:
    for number in range(7):
        add(store, ann, f"job{number}", finished_at=NOON + HOUR * (number // 3))

    assert ids(ann, limit=2) == ids(ann) == [f"job{number}" for number in reversed(range(7))]
    assert ids(ann, limit=2, q="job") == ids(ann)


def test_dead_letters_are_filtered_by_each_of_their_filters(store: Session, ann: Person) -> None:
    add(store, ann, "plain")
    add(store, ann, "typed", type="other")
    add(store, ann, "alike", error_fingerprint="feed")
    add(store, ann, "described", description="100% Wool_en")
    add(store, ann, "said", error_message="no such ROW")
    add(store, ann, "kind", error_type="KeyError")
    add(store, ann, "late", finished_at=NOON + HOUR)

    assert ids(ann, type="other") == ["typed"]
    assert ids(ann, fingerprint="feed") == ["alike"]
    assert ids(ann, q="PLAI") == ["plain"]
    assert ids(ann, q="0% wool_") == ["described"]
    assert ids(ann, q="such row") == ["said"]
    assert ids(ann, q="keyerr") == ["kind"]
    assert ids(ann, failed_after="2026-01-15T12:30:00Z") == ["late"]
    assert "late" not in ids(ann, failed_before="2026-01-15T12:30:00Z")
    assert ids(ann, type="other", q="plain") == []
    assert ids(ann, type="", q="", owner="", fingerprint="") == ids(ann)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "limit"),
        ("group=perhaps", "group"),
        ("failed_after=yesterday", "failed_after"),
        ("failed_before=2026-01-01T00:00:00", "failed_before"),
        ("q=%00", "q"),
        ("status=failed", "status"),
    ],
)
def test_a_wrong_filter_is_refused_with_its_name(ann: Person, query: str, path: str) -> None:
    answer = ann.get(f"/dead-letters?{query}")

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"][0]["path"] == path


@pytest.mark.parametrize("cursor", ["x", "WzFd", "WzEsdHJ1ZV0", "Wzk5OTk5OTk5OTk5OTk5OTk5OTksMV0"])
@pytest.mark.parametrize("group", ["", "1"])
def test_a_made_up_cursor_is_refused(ann: Person, cursor: str, group: str) -> None:
    answer = ann.get(f"/dead-letters?{urlencode({'cursor': cursor, 'group': group})}")

    assert (answer.status_code, answer.json["code"]) == (422, "invalid_cursor")


def test_rare_matches_are_found_beyond_the_stretch_one_page_looks_at(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "SCAN_LIMIT", 3)
    for number in range(10):
        kind = "rare" if number in {0, 6} else "simulate"
        add(store, ann, f"job{number}", type=kind, finished_at=NOON + number * HOUR)

    first = ann.get("/dead-letters?type=rare").json

    assert first["jobs"] == []
    assert first["next_cursor"] is not None
    assert ids(ann, type="rare") == ["job6", "job0"]


def test_users_see_their_own_dead_letters_and_operators_everybodys(
    store: Session, ann: Person, bob: Person, olga: Person
) -> None:
    add(store, ann, "anns")
    add(store, bob, "bobs", finished_at=NOON + HOUR)

    assert ids(ann) == ids(ann, owner="ann") == ["anns"]
    assert ids(ann, owner="bob") == []
    assert ids(olga) == ["bobs", "anns"]
    assert ids(olga, owner="ANN") == ["anns"]
    assert ids(olga, owner="nobody") == []


def test_a_page_costs_the_same_number_of_statements_however_long_it_is(
    store: Session, ann: Person, statements: list[str]
) -> None:
    ann.get("/dead-letters")  # notes the use of the token, which later reads do not
    costs = []
    for size in (2, 40):
        for number in range(size):
            add(store, ann, f"job{size}_{number}", error_fingerprint=f"{number}")
        for query in ("", "&group=1"):
            statements.clear()
            assert ann.get(f"/dead-letters?limit=500{query}").status_code == 200
            costs.append(len(statements))

    assert costs[:2] == costs[2:]
    assert max(costs) <= 5, statements


# Groups


def test_alike_failures_stand_together_the_one_that_failed_last_first(
    store: Session, ann: Person
) -> None:
    add(store, ann, "a1", error_fingerprint="aa", finished_at=NOON + HOUR, error_message="1 row")
    add(store, ann, "b1", error_fingerprint="bb", finished_at=NOON + 2 * HOUR, type="other")
    add(store, ann, "a2", error_fingerprint="aa", finished_at=NOON + 3 * HOUR, error_message="2")

    answer = ann.get("/dead-letters?group=1")

    DeadLetterGroups.model_validate_json(answer.data)
    assert answer.json == {
        "groups": [
            {
                "fingerprint": "aa",
                "type": "simulate",
                "error": {"type": "ValueError", "message": "2"},
                "count": 2,
                "first_failed_at": "2026-01-15T13:00:00Z",
                "last_failed_at": "2026-01-15T15:00:00Z",
                "example": "a2",
                "owners": None,
            },
            {
                "fingerprint": "bb",
                "type": "other",
                "error": {"type": "ValueError", "message": "no"},
                "count": 1,
                "first_failed_at": "2026-01-15T14:00:00Z",
                "last_failed_at": "2026-01-15T14:00:00Z",
                "example": "b1",
                "owners": None,
            },
        ],
        "looked_at": 3,
        "next_cursor": None,
    }


def test_pages_of_groups_are_all_groups(store: Session, ann: Person) -> None:
    for number in range(11):
        at = NOON + HOUR * (number // 4)  # several groups failed last at the same moment
        add(store, ann, f"job{number}", error_fingerprint=f"print{number % 5}", finished_at=at)

    whole, paged = groups(ann), groups(ann, limit=2)

    assert paged == whole
    assert [group["example"] for group in whole] == [f"job{n}" for n in (10, 9, 8, 7, 6)]
    assert [group["count"] for group in whole] == [3, 2, 2, 2, 2]


def test_operators_are_told_whose_failures_are_alike(
    store: Session, ann: Person, bob: Person, olga: Person
) -> None:
    add(store, bob, "one")
    add(store, ann, "two", finished_at=NOON + HOUR)
    add(store, ann, "three", error_fingerprint="other")

    of_all = {one["example"]: (one["owners"], one["count"]) for one in groups(olga)}
    assert of_all == {"two": (["ann", "bob"], 2), "three": (["ann"], 1)}
    assert [one["owners"] for one in groups(olga, owner="bob")] == [["bob"]]
    assert [one["count"] for one in groups(ann)] == [1, 1]


def test_groups_are_narrowed_like_the_list(store: Session, ann: Person) -> None:
    add(store, ann, "a1", error_fingerprint="aa", type="other")
    add(store, ann, "b1", error_fingerprint="bb", finished_at=NOON + HOUR)
    add(store, ann, "b2", error_fingerprint="bb", finished_at=NOON + 2 * HOUR)

    def counts(**query: str) -> dict[str, int]:
        return {one["fingerprint"]: one["count"] for one in groups(ann, **query)}

    assert counts(type="other") == {"aa": 1}
    assert counts(q="B2") == {"bb": 1}
    assert counts(fingerprint="bb") == {"bb": 2}
    assert counts(failed_before="2026-01-15T13:30:00Z") == {"bb": 1, "aa": 1}


def test_groups_are_made_of_the_latest_failures_and_say_of_how_many(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "GROUPED_LIMIT", 4)
    for number in range(6):
        at = NOON + number * HOUR
        add(store, ann, f"job{number}", error_fingerprint=f"p{number % 2}", finished_at=at)

    answer = ann.get("/dead-letters?group=1&q=job").json

    assert answer["looked_at"] == 4
    assert [group["count"] for group in answer["groups"]] == [2, 2]
    assert answer["groups"][1]["first_failed_at"] == "2026-01-15T14:00:00Z"


# Running them again


def test_named_dead_letters_run_again_and_the_rest_is_skipped(
    store: Session, ann: Person, redis_client: Redis
) -> None:
    one, two = add(store, ann, "one"), add(store, ann, "two")
    away = add(store, ann, "away", discarded_at=NOON)
    dropped = add(store, ann, "dropped", status=S.CANCELLED)
    names = ["one", "two", "two", "away", "dropped", "unknown"]

    first = cleared(ann, "retry", job_ids=names)
    again = cleared(ann, "retry", job_ids=names)

    assert first == told(2, skipped=3)
    assert again == told(0, skipped=5)
    assert [look(store, job).status for job in (one, two)] == [S.READY, S.READY]
    assert look(store, away).discarded_at is not None
    assert look(store, dropped).status == S.CANCELLED
    assert redis_client.llen(WAKE_KEY) == 1


@pytest.mark.parametrize(("act", "verb"), [("retry", "run_again"), ("discard", DISCARD)])
def test_what_is_done_is_told_to_browsers(
    store: Session, ann: Person, redis_client: Redis, act: str, verb: str
) -> None:
    add(store, ann, "one")
    channel = redis_client.pubsub()
    channel.subscribe(LIVE_CHANNEL)
    channel.get_message(timeout=5)

    cleared(ann, act, filter={})

    assert f'"verb": "{verb}"' in channel.get_message(timeout=5)["data"]
    channel.close()


def test_a_job_that_is_discarded_does_not_fail_once_more(store: Session, ann: Person) -> None:
    job = add(store, ann, "one")
    make_event(store, job, verb="fail", at=clock.now())
    store.commit()

    cleared(ann, "discard", filter={})

    assert ann.get("/stats").json["finished_last_hour"][S.FAILED] == 1
    assert len(reads.recent_finishes(store, ann.user.id)) == 1


@pytest.mark.parametrize("act", ["retry", "discard"])
def test_a_filter_means_all_that_match_and_an_empty_one_all(
    store: Session, ann: Person, act: str
) -> None:
    by = {"retry": "retried", "discard": "discarded"}[act]
    add(store, ann, "typed", type="other")
    add(store, ann, "alike", error_fingerprint="feed")
    add(store, ann, "said", error_message="no such row")
    add(store, ann, "late", finished_at=NOON + HOUR)
    add(store, ann, "plain")
    add(store, ann, "running", status=S.RUNNING)

    for wanted in (
        {"type": "other"},
        {"fingerprint": "feed"},
        {"q": "such ROW"},
        {"failed_after": "2026-01-15T12:30:00Z", "failed_before": "2026-01-15T14:00:00Z"},
        {"owner": "ann"},
    ):
        assert cleared(ann, act, filter=wanted) == told(1, by=by), wanted

    assert cleared(ann, act, filter={}) == told(0, by=by)
    assert ids(ann) == []


def test_nobody_acts_on_somebody_elses_dead_letters(
    store: Session, ann: Person, bob: Person
) -> None:
    job = add(store, ann, "anns")

    for act in ("retry", "discard"):
        for body in ({"job_ids": ["anns"]}, {"job_ids": ["anns"], "owner": "ann"}):
            assert bob.post(f"/dead-letters/{act}", body).status_code == 404
        for wanted in ({}, {"owner": "ann"}, {"fingerprint": job.error_fingerprint}):
            told_ = cleared(bob, act, filter=wanted)
            assert (told_["skipped"], told_["remaining"]) == (0, 0)

    unchanged = look(store, job)
    assert (unchanged.status, unchanged.discarded_at) == (S.FAILED, None)


def test_operators_act_on_whom_they_name_or_on_everybody(
    store: Session, ann: Person, bob: Person, olga: Person
) -> None:
    anns, bobs, own = (add(store, who, "same") for who in (ann, bob, olga))
    add(store, ann, "both")
    add(store, bob, "both")
    more = add(store, bob, "more")

    assert olga.post("/dead-letters/retry", {"job_ids": ["both"]}).status_code == 409
    assert cleared(olga, "retry", job_ids=["same", "more"]) == told(2)
    assert [look(store, job).status for job in (own, more, anns)] == [S.READY, S.READY, S.FAILED]
    assert cleared(olga, "retry", job_ids=["same"], owner="bob") == told(1)
    assert look(store, bobs).status == S.READY
    assert cleared(olga, "discard", filter={"owner": "ann"}) == told(2, by="discarded")
    assert cleared(olga, "retry", filter={}) == told(1)


@pytest.mark.parametrize("act", ["retry", "discard"])
def test_viewers_and_tokens_without_the_scope_change_nothing(
    store: Session, person: MakePerson, act: str
) -> None:
    vera, reader = person("vera", Role.VIEWER), person("reader", scopes={Scope.READ})
    job = add(store, vera, "veras")

    assert vera.post(f"/dead-letters/{act}", {"filter": {}}).json["code"] == "forbidden"
    assert reader.post(f"/dead-letters/{act}", {"filter": {}}).json["code"] == "insufficient_scope"
    assert vera.post("/jobs/veras/retry").json["code"] == "forbidden"
    assert ids(vera) == ["veras"]
    assert look(store, job).status == S.FAILED


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ""),
        ({"filter": {}, "job_ids": ["a"]}, ""),
        ({"job_ids": []}, "job_ids"),
        ({"job_ids": "a"}, "job_ids"),
        ({"job_ids": [1]}, "job_ids.0"),
        ({"job_ids": ["\n"]}, "job_ids.0"),
        ({"filter": {"status": "failed"}}, "filter.status"),
        ({"filter": {"failed_after": "yesterday"}}, "filter.failed_after"),
        ({"filter": {}, "owner": "ann"}, ""),
        ({"job_ids": ["a"], "cursor": "x"}, ""),
        ({"filter": {}, "surprise": 1}, "surprise"),
        ({"filter": {"q": "\0"}}, "filter.q"),
    ],
)
@pytest.mark.parametrize("act", ["retry", "discard"])
def test_a_wrong_body_is_refused_with_its_field(
    ann: Person, act: str, body: dict[str, Any], path: str
) -> None:
    answer = ann.post(f"/dead-letters/{act}", body)

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"][0]["path"] == path


def test_a_payload_belongs_to_a_retry_and_is_an_object(ann: Person) -> None:
    for act, payload in (("retry", [1]), ("retry", "x"), ("discard", {})):
        answer = ann.post(f"/dead-letters/{act}", {"filter": {}, "payload": payload})
        assert (answer.status_code, answer.json["errors"][0]["path"]) == (422, "payload")


def test_a_cursor_of_another_list_is_refused(ann: Person) -> None:
    answer = ann.post("/dead-letters/retry", {"filter": {}, "cursor": "WzFd"})

    assert (answer.status_code, answer.json["code"]) == (422, "invalid_cursor")


# In batches, up to a limit


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a request deal with five, two at a time."""
    monkeypatch.setattr(clearing, "LIMIT", 5)
    monkeypatch.setattr(clearing, "BATCH", 2)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("wanted", [{}, {"q": "job"}])
@pytest.mark.parametrize(("act", "by"), [("retry", "retried"), ("discard", "discarded")])
def test_a_request_deals_with_so_many_and_says_where_to_go_on(
    store: Session, ann: Person, act: str, by: str, wanted: dict[str, str]
) -> None:
    for number in range(12):
        add(store, ann, f"job{number}", finished_at=NOON + number * HOUR)

    first = cleared(ann, act, filter=wanted)
    left = ids(ann)
    second = cleared(ann, act, filter=wanted, cursor=first["next_cursor"])
    third = cleared(ann, act, filter=wanted, cursor=second["next_cursor"])

    counts = [(one[by], one["skipped"], one["remaining"]) for one in (first, second, third)]
    assert counts == [(5, 0, 5), (5, 0, 2), (2, 0, 0)]
    assert left == [f"job{number}" for number in reversed(range(7))]
    assert third["next_cursor"] is None
    assert ids(ann) == []


@pytest.mark.usefixtures("small")
def test_whoever_failed_first_is_first_in_line_again(store: Session, ann: Person) -> None:
    for number in range(5):
        add(store, ann, f"job{number}", finished_at=NOON - number * HOUR)

    cleared(ann, "retry", filter={})

    store.rollback()
    in_line = store.scalars(select(Job.job_id).order_by(Job.rank, Job.id)).all()
    batches = [set(in_line[:2]), set(in_line[2:4]), set(in_line[4:])]
    assert batches == [{"job4", "job3"}, {"job2", "job1"}, {"job0"}]


def test_a_filter_without_an_index_goes_on_beyond_the_stretch_it_looks_at(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "SCAN_LIMIT", 3)
    for number in range(7):
        kind = "rare" if number == 0 else "simulate"
        add(store, ann, f"job{number}", type=kind, finished_at=NOON + number * HOUR)

    done, cursor, asked = 0, None, 0
    while asked == 0 or cursor:
        answer = cleared(ann, "retry", filter={"type": "rare"}, cursor=cursor)
        done, cursor, asked = done + answer["retried"], answer["next_cursor"], asked + 1

    assert (done, asked) == (1, 3)
    assert len(ids(ann)) == 6


@pytest.mark.usefixtures("small")
def test_what_is_done_stays_done_when_the_database_goes_away(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        add(store, ann, f"job{number}", finished_at=NOON + number * HOUR)
    discard = letters_store.discard

    def fail_later(session: Session, jobs: Sequence[int]) -> list[Move]:
        monkeypatch.setattr(clearing, "discard_jobs", _outage)
        return discard(session, jobs)

    monkeypatch.setattr(clearing, "discard_jobs", fail_later)

    answer = ann.post("/dead-letters/discard", {"filter": {}})

    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
    assert "2 jobs were dealt with" in answer.json["detail"]
    assert answer.headers["Retry-After"]
    assert ids(ann) == ["job3", "job2"]


def _outage(*_: object) -> list[Move]:
    raise OperationalError("", {}, Exception("gone"))


def test_a_job_discarded_meanwhile_is_left_alone(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone = add(store, ann, "kept"), add(store, ann, "gone", finished_at=NOON + HOUR)
    find: Callable[..., Any] = dead_letters.find_ids

    def find_then_discard(*arguments: Any, **options: Any) -> Any:
        found = find(*arguments, **options)
        letters_store.discard(store, [gone.id])
        store.commit()
        return found

    monkeypatch.setattr(dead_letters, "find_ids", find_then_discard)

    assert cleared(ann, "retry", filter={}) == told(1, skipped=1)
    assert cleared(ann, "retry", job_ids=["gone"]) == told(0, skipped=1)
    assert (look(store, kept).status, look(store, gone).status) == (S.READY, S.FAILED)


# With other payloads


SCHEMA = {
    "properties": {"rows": {"type": "integer"}, "table": {"type": "string"}},
    "required": ["table"],
}


def test_a_patch_is_merged_into_every_payload_and_null_takes_a_field_away(
    store: Session, ann: Person
) -> None:
    one = add(store, ann, "one", payload={"a": {"b": 1, "c": [1, 2]}, "gone": 1})
    two = add(store, ann, "two", payload={"a": "text", "kept": None})

    answer = cleared(
        ann, "retry", filter={}, payload={"a": {"c": [3], "d": {"e": None}}, "gone": None}
    )

    assert answer == told(2)
    assert look(store, one).payload == {"a": {"b": 1, "c": [3], "d": {}}}
    assert look(store, two).payload == {"a": {"c": [3], "d": {}}, "kept": None}


def test_nobody_changes_what_a_job_does_that_the_server_made(store: Session, ann: Person) -> None:
    errand = add(store, ann, "errand", type="bulk", payload={"action": "cancel"})
    add(store, ann, "other", payload={})

    answer = ann.post("/dead-letters/retry", {"filter": {}, "payload": {"action": "retry"}})

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["job_id"] == "errand"
    assert "must stay as it is" in answer.json["errors"][0]["message"]
    assert len(ids(ann)) == 2
    assert cleared(ann, "retry", filter={}) == told(2)
    assert look(store, errand).payload == {"action": "cancel"}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("patch", "path", "says"),
    [
        ({"rows": "many"}, "payload.rows", "'many' is not of type 'integer'"),
        ({"table": None}, "payload", "'table' is a required property"),
    ],
)
def test_a_payload_that_would_not_fit_is_named_and_nothing_is_retried(
    store: Session, ann: Person, patch: dict[str, Any], path: str, says: str
) -> None:
    make_type(store, "export", payload_schema=SCHEMA)
    for number in range(4):
        add(store, ann, f"free{number}", finished_at=NOON + number * HOUR)
    add(store, ann, "checked", type="export", payload={"table": "t"}, finished_at=NOON + 9 * HOUR)

    answer = ann.post("/dead-letters/retry", {"filter": {}, "payload": patch})

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"] == [{"path": path, "message": says}]
    assert answer.json["job_id"] == "checked"
    assert "checked" in answer.json["detail"]
    assert len(ids(ann)) == 5
    fitting = cleared(ann, "retry", filter={}, payload={"rows": 3})
    assert fitting == told(5)


def test_named_jobs_that_are_no_dead_letters_are_not_asked_whether_they_fit(
    store: Session, ann: Person
) -> None:
    make_type(store, "export", payload_schema=SCHEMA)
    done = add(store, ann, "done", status=S.COMPLETED, type="export", payload={"table": "t"})
    add(store, ann, "one")

    answer = cleared(ann, "retry", job_ids=["done", "one"], payload={"rows": "many"})

    assert answer == told(1, skipped=1)
    assert look(store, done).payload == {"table": "t"}


def test_a_payload_that_has_changed_since_it_was_checked_is_checked_again(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_type(store, "export", payload_schema=SCHEMA)
    job = add(store, ann, "one", type="export", payload={"table": "t"})
    check = clearing._Patching.check

    def check_then_change(*arguments: Any) -> None:
        check(*arguments)
        look(store, job).payload = {"table": 1}
        store.commit()

    monkeypatch.setattr(clearing._Patching, "check", check_then_change)

    assert cleared(ann, "retry", filter={}, payload={"rows": 3}) == told(0, skipped=1)
    assert look(store, job).status == S.FAILED
