"""Schedules over HTTP: made, read, changed, run and deleted."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from scheduler.events import WAKE_KEY
from scheduler.models import Job, Schedule
from scheduler.states import CatchUp, JobStatus, Overlap, Role, Scope
from scheduler.store.ticking import make_due
from tests.factories import NOON, make_job, make_policy, make_schedule, make_type
from tests.racing import committed
from tests.webapp.conftest import MakePerson, Person
from webapp import schedules
from webapp.schemas.jobs import JobAnswer
from webapp.schemas.schedules import ScheduleAnswer, ScheduleList

NIGHTLY = {"name": "nightly", "cron": "30 2 * * *", "template": {"type": "simulate"}}
HOURLY = {"name": "hourly", "every_seconds": 3600, "template": {"type": "simulate"}}


@pytest.fixture
def ann(person: MakePerson) -> Person:
    return person("ann")


def instants(schedule: dict[str, Any]) -> list[datetime]:
    return [datetime.fromisoformat(text) for text in schedule["next_runs"]]


def count(store: Session, table: Any) -> int:
    store.rollback()
    return store.scalars(select(func.count()).select_from(table)).one()


# Making


def test_a_schedule_is_answered_whole_and_stored(ann: Person) -> None:
    body = NIGHTLY | {"timezone": "Europe/Berlin", "overlap": "replace", "catch_up": "all"}

    answer = ann.post("/schedules", body)

    ScheduleAnswer.model_validate_json(answer.data)
    assert answer.status_code == 201
    assert answer.headers["Location"] == "/schedules/nightly"
    made = answer.json
    runs = instants(made)
    assert len(runs) == 5
    assert all(text.endswith("Z") for text in made.pop("next_runs"))
    assert runs == sorted(runs)
    assert made.pop("created_at").endswith("Z")
    assert made == {
        "name": "nightly",
        "owner": "ann",
        "template": {"type": "simulate"},
        "cron": "30 2 * * *",
        "every_seconds": None,
        "timezone": "Europe/Berlin",
        "overlap": "replace",
        "catch_up": "all",
        "paused": False,
        "in_words": "At 02:30 every day",
        "last_run": None,
        "last_error": None,
        "skipped": 0,
        "last_skipped_at": None,
    }
    again = ann.get("/schedules/nightly").json
    assert {name: again[name] for name in made} == made


def test_what_is_left_out_is_careful(ann: Person) -> None:
    made = ann.post("/schedules", HOURLY).json

    assert (made["overlap"], made["catch_up"], made["timezone"]) == ("skip", "latest", "UTC")
    assert (made["paused"], made["cron"], made["every_seconds"]) == (False, None, 3600)
    assert made["in_words"] == "Every hour"
    first, second, *_ = instants(made)
    assert second - first == timedelta(hours=1)


EVERYTHING = {
    "type": "simulate",
    "payload": {"a": [1, None, {"b": "ü"}]},
    "description": "says what it is",
    "tags": ["x", "y"],
    "priority": "high",
    "depends_on": ["before", {"job_id": "earlier", "when": "finished"}],
    "resource_requirements": {"cpu_units": 0.5, "memory_mb": 64},
    "retry_config": {"max_attempts": 7},
    "timeout_seconds": 9,
    "estimated_seconds": 2.5,
    "executor": "celery",
    "callback_url": "https://example.com/done",
}


def test_a_tick_makes_the_job_that_a_submission_would_have(
    ann: Person, store: Session, committed_engine: Engine
) -> None:
    for name in ("before", "earlier"):
        make_job(store, ann.user, JobStatus.READY, job_id=name)
    store.commit()
    submitted = ann.post("/jobs", EVERYTHING).json
    ann.post("/schedules", {"name": "s", "every_seconds": 1, "template": EVERYTHING})

    committed(committed_engine, lambda s: make_due(s, now=_much_later(s), limit=1, ticks=1))

    made = ann.get(f"/jobs/{ann.get('/schedules/s').json['last_run']['job_id']}").json
    assert made["schedule"] == "s"
    its_own = {"job_id", "schedule", "created_at", "run_at", "ready_at", "request_id", "waiting",
               "waited_seconds", "duplicate", "position_in_queue"}  # fmt: skip
    assert {key: made[key] for key in made if key not in its_own} == {
        key: submitted[key] for key in submitted if key not in its_own
    }


def _much_later(session: Session) -> datetime:
    return session.scalars(select(func.now())).one() + timedelta(hours=1)


def test_a_template_is_kept_as_it_was_said(ann: Person) -> None:
    template = {"type": "simulate", "priority": "low", "retry_config": {"jitter": False}}

    made = ann.post("/schedules", NIGHTLY | {"template": template}).json

    assert made["template"] == template | {"priority": 8}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 161}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": "* * * * * *"}, "cron"),
        ({"cron": "@daily"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": "0 0 */31 * 1#2"}, "cron"),
        ({"cron": "9" * 201}, "cron"),
        ({"cron": 5}, "cron"),
        ({"cron": None}, "every_seconds"),
        ({"every_seconds": 60}, "every_seconds"),
        ({"cron": None, "every_seconds": 0}, "every_seconds"),
        ({"cron": None, "every_seconds": -5}, "every_seconds"),
        ({"cron": None, "every_seconds": 0.5}, "every_seconds"),
        ({"cron": None, "every_seconds": 10**9}, "every_seconds"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "America"}, "timezone"),
        ({"timezone": ""}, "timezone"),
        ({"overlap": "both"}, "overlap"),
        ({"catch_up": "some"}, "catch_up"),
        ({"paused": "no"}, "paused"),
        ({"next_at": "2026-01-01T00:00:00Z"}, "next_at"),
        ({"template": {}}, "template.type"),
        ({"template": {"type": "bulk", "payload": {"action": "cancel"}}}, "template.type"),
        ({"template": {"type": "simulate", "job_id": "x"}}, "template.job_id"),
        ({"template": {"type": "simulate", "run_at": "2030-01-01T00:00:00Z"}}, "template.run_at"),
        ({"template": {"type": "simulate", "delay_seconds": 5}}, "template.delay_seconds"),
        ({"template": {"type": "simulate", "start_by": "2030-01-01T00:00Z"}}, "template.start_by"),
        ({"template": {"type": "simulate", "owner": "bob"}}, "template.owner"),
        (
            {"template": {"type": "simulate", "callback_url": "http://127.0.0.1/"}},
            "template.callback_url",
        ),
        ({"template": {"type": "simulate", "priority": "urgent"}}, "template.priority"),
    ],
)
def test_a_wrong_schedule_is_refused_with_its_field(
    ann: Person, store: Session, change: dict[str, Any], path: str
) -> None:
    answer = ann.post("/schedules", NIGHTLY | change)

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert [error["path"] for error in answer.json["errors"]] == [path]
    assert count(store, Schedule) == 0


@pytest.mark.parametrize(
    ("template", "code", "path"),
    [
        ({"type": "unheard-of"}, "unknown_type", "template.type"),
        ({"payload": {"size": 0}}, "validation_failed", "template.payload.size"),
        ({"depends_on": ["nobody"]}, "unknown_dependency", "template.depends_on.0"),
        (
            {"resource_requirements": {"cpu_units": 64}},
            "never_fits",
            "template.resource_requirements",
        ),
    ],
)
def test_a_template_that_would_be_refused_is_refused_at_once(
    ann: Person, store: Session, template: dict[str, Any], code: str, path: str
) -> None:
    schema = {"properties": {"size": {"type": "integer", "minimum": 1}}}
    make_type(store, "sized", payload_schema=schema)
    make_policy(store, cap_cpu_units=16)
    store.commit()
    ann.post("/schedules", NIGHTLY)

    answers = [
        ann.post("/schedules", HOURLY | {"template": {"type": "sized"} | template}),
        ann.patch("/schedules/nightly", {"template": {"type": "sized"} | template}),
    ]

    for answer in answers:
        assert (answer.status_code, answer.json["code"]) == (422, code)
        assert [error["path"] for error in answer.json["errors"]] == [path]
    assert ann.get("/schedules/nightly").json["template"] == {"type": "simulate"}


def test_a_full_backlog_refuses_no_schedule(person: MakePerson) -> None:
    ann = person("ann", cap_backlog=0)

    assert ann.post("/schedules", NIGHTLY).status_code == 201


def test_a_name_is_taken_once_per_owner(ann: Person, person: MakePerson) -> None:
    ann.post("/schedules", NIGHTLY)

    taken = ann.post("/schedules", NIGHTLY | {"cron": "0 0 * * *"})

    assert (taken.status_code, taken.json["code"]) == (409, "name_taken")
    assert ann.get("/schedules/nightly").json["cron"] == "30 2 * * *"
    assert person("bob").post("/schedules", NIGHTLY).status_code == 201


def test_nobody_has_schedules_without_end(
    ann: Person, person: MakePerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "LIMIT", 1)
    ann.post("/schedules", NIGHTLY)

    answer = ann.post("/schedules", HOURLY)

    assert (answer.status_code, answer.json["code"]) == (409, "too_many_schedules")
    assert person("bob").post("/schedules", NIGHTLY).status_code == 201


def test_an_operator_makes_schedules_for_others(ann: Person, person: MakePerson) -> None:
    boss, eve = person("boss", Role.OPERATOR), person("eve")
    person("viv", Role.VIEWER)

    made = boss.post("/schedules", NIGHTLY | {"owner": "ANN"})

    assert (made.status_code, made.json["owner"]) == (201, "ann")
    assert ann.get("/schedules/nightly").status_code == 200
    assert eve.post("/schedules", NIGHTLY | {"owner": "ann"}).status_code == 403
    for unknown in ("nobody", "viv"):
        refused = boss.post("/schedules", NIGHTLY | {"owner": unknown})
        assert (refused.status_code, refused.json["code"]) == (422, "unknown_owner")


def test_what_is_made_for_somebody_else_is_told_where_theirs_is(
    ann: Person, person: MakePerson
) -> None:
    boss = person("boss", Role.OPERATOR)
    boss.post("/schedules", NIGHTLY)

    made = boss.post("/schedules", NIGHTLY | {"owner": "ann"})
    run = boss.post("/schedules/nightly/run?owner=ann")

    assert boss.get(made.headers["Location"]).json["owner"] == "ann"
    assert boss.get(run.headers["Location"]).json["owner"] == "ann"


@pytest.mark.parametrize("name", ["a/run", "100%", "a%2Frun", "ü x", "..", "run", "?", "a/b/c"])
def test_any_printable_name_can_be_asked_for(ann: Person, name: str) -> None:
    made = ann.post("/schedules", NIGHTLY | {"name": name})

    where = made.headers["Location"]
    assert ann.get(where).json["name"] == name
    assert ann.post(f"{where}/run").json["schedule"] == name
    assert ann.delete(where).status_code == 204
    assert ann.get(where).status_code == 404


# Reading


def test_lists_are_pages_of_own_schedules(ann: Person, person: MakePerson) -> None:
    person("bob").post("/schedules", NIGHTLY)
    for number in range(5):
        ann.post("/schedules", NIGHTLY | {"name": f"s{number}"})

    first = ann.get("/schedules?limit=3")
    second = ann.get(f"/schedules?limit=3&cursor={first.json['next_cursor']}")

    ScheduleList.model_validate_json(first.data)
    told = [[one["name"] for one in page.json["schedules"]] for page in (first, second)]
    assert told == [["s4", "s3", "s2"], ["s1", "s0"]]
    assert second.json["next_cursor"] is None
    assert ann.get("/schedules?cursor=nonsense").json["code"] == "invalid_cursor"


def test_operators_see_everybodys_and_say_whose_they_mean(ann: Person, person: MakePerson) -> None:
    bob, boss = person("bob"), person("boss", Role.OPERATOR)
    ann.post("/schedules", NIGHTLY)
    bob.post("/schedules", NIGHTLY)
    bob.post("/schedules", HOURLY)

    def owners(path: str) -> list[str]:
        return [one["owner"] for one in boss.get(path).json["schedules"]]

    assert owners("/schedules") == ["bob", "bob", "ann"]
    assert owners("/schedules?owner=ann") == ["ann"]
    assert boss.get("/schedules/hourly").json["owner"] == "bob"
    ambiguous = boss.get("/schedules/nightly")
    assert (ambiguous.status_code, ambiguous.json["code"]) == (409, "ambiguous_name")
    assert boss.get("/schedules/nightly?owner=ann").json["owner"] == "ann"
    boss.post("/schedules", NIGHTLY)
    assert boss.get("/schedules/nightly").json["owner"] == "boss"


@pytest.mark.parametrize("ask", ["get", "patch", "delete", "post"])
def test_somebody_elses_schedule_does_not_exist(
    ann: Person, person: MakePerson, store: Session, ask: str
) -> None:
    ann.post("/schedules", NIGHTLY)
    eve = person("eve")
    body = {"json": {"paused": True}} if ask == "patch" else {}

    def answer(name: str, query: str = "") -> tuple[int, Any]:
        path = f"/schedules/{name}{'/run' if ask == 'post' else ''}{query}"
        told = eve.ask(ask.upper(), path, **body)
        return told.status_code, {**told.json, "request_id": None}

    assert answer("nightly") == answer("nightly", "?owner=ann") == answer("unheard-of")
    assert answer("nightly")[0] == 404
    assert (count(store, Schedule), count(store, Job)) == (1, 0)
    assert not ann.get("/schedules/nightly").json["paused"]


def test_the_last_run_and_the_last_error_are_told(ann: Person, store: Session) -> None:
    make_schedule(
        store,
        ann.user,
        last_job_id="nightly@20260115T120000Z",
        last_run_at=NOON,
        last_error_code="backlog_full",
        last_error="no room",
        last_error_at=NOON,
        skipped=3,
        last_skipped_at=NOON,
    )
    store.commit()

    answer = ann.get("/schedules/nightly")

    ScheduleAnswer.model_validate_json(answer.data)
    at = "2026-01-15T12:00:00Z"
    assert answer.json["last_run"] == {"job_id": "nightly@20260115T120000Z", "at": at}
    assert answer.json["last_error"] == {"code": "backlog_full", "message": "no room", "at": at}
    assert (answer.json["skipped"], answer.json["last_skipped_at"]) == (3, at)


def test_ticks_that_passed_are_no_next_runs(ann: Person, store: Session) -> None:
    make_schedule(store, ann.user, every_seconds=7)
    store.commit()

    runs = instants(ann.get("/schedules/nightly").json)

    assert runs[0] > store.scalars(select(func.now())).one() - timedelta(seconds=5)
    assert {(run - NOON) % timedelta(seconds=7) for run in runs} == {timedelta(0)}


def test_a_schedule_that_cannot_be_read_is_shown_all_the_same(ann: Person, store: Session) -> None:
    make_schedule(store, ann.user, timezone="Mars/Olympus", paused=True)
    store.commit()

    answer = ann.get("/schedules/nightly")
    resumed = ann.patch("/schedules/nightly", {"paused": False})

    ScheduleAnswer.model_validate_json(answer.data)
    assert (answer.json["next_runs"], answer.json["timezone"]) == ([], "Mars/Olympus")
    assert (resumed.status_code, resumed.json["errors"][0]["path"]) == (422, "timezone")
    mended = ann.patch("/schedules/nightly", {"paused": False, "timezone": "UTC"})
    assert len(mended.json["next_runs"]) == 5


# Changing


@pytest.mark.parametrize(
    ("change", "now"),
    [
        ({"overlap": "queue"}, {"overlap": "queue"}),
        ({"catch_up": "none"}, {"catch_up": "none"}),
        ({"paused": True}, {"paused": True}),
        ({"cron": "0 3 * * *"}, {"cron": "0 3 * * *", "in_words": "At 03:00 every day"}),
        (
            {"every_seconds": 90},
            {"every_seconds": 90, "cron": None, "in_words": "Every 90 seconds"},
        ),
        ({"timezone": "Asia/Tokyo"}, {"timezone": "Asia/Tokyo"}),
        (
            {"template": {"type": "simulate", "tags": ["x"]}},
            {"template": {"type": "simulate", "tags": ["x"]}},
        ),
        ({}, {}),
    ],
)
def test_what_a_change_leaves_out_stays(
    ann: Person, change: dict[str, Any], now: dict[str, Any]
) -> None:
    before = ann.post("/schedules", NIGHTLY | {"overlap": "replace", "catch_up": "all"}).json

    answer = ann.patch("/schedules/nightly", change)

    ScheduleAnswer.model_validate_json(answer.data)
    assert answer.status_code == 200
    after = answer.json
    runs, were = after.pop("next_runs"), before.pop("next_runs")
    assert after == before | now
    assert ann.get("/schedules/nightly").json == after | {"next_runs": runs}
    assert (runs == were) == (not {"cron", "every_seconds", "timezone"} & set(change))


def test_a_cron_line_takes_the_place_of_seconds(ann: Person) -> None:
    ann.post("/schedules", HOURLY)

    changed = ann.patch("/schedules/hourly", {"cron": "* * * * *"}).json

    assert (changed["cron"], changed["every_seconds"]) == ("* * * * *", None)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": None}, "cron"),
        ({"every_seconds": None}, "every_seconds"),
        ({"cron": "* * * * *", "every_seconds": 5}, "every_seconds"),
        ({"timezone": "Nowhere"}, "timezone"),
        ({"name": "other"}, "name"),
        ({"owner": "bob"}, "owner"),
    ],
)
def test_a_wrong_change_is_refused_with_its_field(
    ann: Person, change: dict[str, Any], path: str
) -> None:
    before = ann.post("/schedules", NIGHTLY).json

    answer = ann.patch("/schedules/nightly", change)

    assert answer.status_code == 422
    assert [error["path"] for error in answer.json["errors"]] == [path]
    assert ann.get("/schedules/nightly").json == before


def test_a_paused_schedule_tells_when_it_would_run(ann: Person) -> None:
    made = ann.post("/schedules", NIGHTLY | {"paused": True}).json

    assert made["paused"]
    assert len(made["next_runs"]) == 5


# By hand, and away with it


def test_run_now_makes_a_job_at_once(ann: Person, store: Session, redis_client: Redis) -> None:
    ann.post("/schedules", NIGHTLY | {"paused": True, "template": EVERYTHING | {"depends_on": []}})

    answer = ann.post("/schedules/nightly/run", headers={"X-Request-ID": "mine"})

    JobAnswer.model_validate_json(answer.data)
    job = answer.json
    assert (answer.status_code, job["duplicate"], job["status"]) == (201, False, JobStatus.READY)
    assert job["job_id"].startswith("nightly@manual_")
    assert (job["schedule"], job["tags"], job["request_id"]) == ("nightly", ["x", "y"], "mine")
    assert ann.get(answer.headers["Location"]).json["job_id"] == job["job_id"]
    told = ann.get("/schedules/nightly").json
    assert told["last_run"] == {"job_id": job["job_id"], "at": job["created_at"]}
    assert redis_client.exists(WAKE_KEY)


def test_the_same_key_runs_once(ann: Person, store: Session) -> None:
    ann.post("/schedules", NIGHTLY)
    key = {"Idempotency-Key": "k1"}

    first = ann.post("/schedules/nightly/run", headers=key)
    again = ann.post("/schedules/nightly/run", headers=key)
    other = ann.post("/schedules/nightly/run", headers={"Idempotency-Key": "k2"})

    assert [one.status_code for one in (first, again, other)] == [201, 200, 201]
    assert again.json["job_id"] == first.json["job_id"] != other.json["job_id"]
    assert again.json["duplicate"]
    assert count(store, Job) == 2


def test_a_run_that_is_refused_is_told_as_a_submission_is(ann: Person, store: Session) -> None:
    ann.post("/schedules", NIGHTLY)
    ann.user.cap_backlog = 0
    store.merge(ann.user)
    store.commit()

    answer = ann.post("/schedules/nightly/run")

    assert (answer.status_code, answer.json["code"]) == (429, "backlog_full")
    assert ann.get("/schedules/nightly").json["last_error"] is None


def test_nothing_runs_for_an_owner_who_is_not_active(
    ann: Person, person: MakePerson, store: Session
) -> None:
    ann.post("/schedules", NIGHTLY)
    ann.user.active = False
    store.merge(ann.user)
    store.commit()

    answer = person("boss", Role.OPERATOR).post("/schedules/nightly/run")

    assert (answer.status_code, answer.json["code"]) == (422, "unknown_owner")


def test_a_deleted_schedule_leaves_its_jobs(ann: Person, store: Session) -> None:
    ann.post("/schedules", NIGHTLY)
    job = ann.post("/schedules/nightly/run").json["job_id"]

    assert ann.delete("/schedules/nightly").status_code == 204

    assert count(store, Schedule) == 0
    assert ann.get(f"/jobs/{job}").json["schedule"] == "nightly"
    assert ann.post("/schedules", NIGHTLY).status_code == 201


@pytest.mark.parametrize(
    ("scope", "statuses"),
    [(Scope.READ, [200, 200, 403, 403, 403, 403]), (Scope.SUBMIT, [403, 403, 201, 200, 201, 204])],
)
def test_a_token_does_what_its_scope_says(
    person: MakePerson, store: Session, scope: Scope, statuses: list[int]
) -> None:
    ann = person("ann", scopes={scope})
    make_schedule(store, ann.user)
    store.commit()

    answers = [
        ann.get("/schedules"),
        ann.get("/schedules/nightly"),
        ann.post("/schedules", HOURLY),
        ann.patch("/schedules/nightly", {"paused": True}),
        ann.post("/schedules/nightly/run"),
        ann.delete("/schedules/nightly"),
    ]

    assert [answer.status_code for answer in answers] == statuses


def test_words_of_the_contract_are_the_ones_the_engine_knows() -> None:
    assert {*Overlap} == {"skip", "queue", "replace"}
    assert {*CatchUp} == {"none", "latest", "all"}
