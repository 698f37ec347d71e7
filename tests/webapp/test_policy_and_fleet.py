"""The policy, the workers, the job types and the figures."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.events import WAKE_KEY
from scheduler.models import JobEvent, Ready
from scheduler.states import JobClass, JobStatus, Role
from tests.factories import NOON, WORKER, make_group, make_job, make_type, make_worker
from tests.readme import snippets
from tests.webapp.conftest import MakePerson, Person
from webapp.schemas.fleet import Stats, TypeList, WorkerAnswer, WorkerList
from webapp.schemas.policy import PauseAnswer, PolicyAnswer, PolicyPreview, PolicyVersionList

ANNS = {"name": "ann's", "match": {"user": "ann"}, "effect": {"weight": {"times": 2}}}
RULES = [
    {
        "name": "office hours",
        "match": {
            "user": ["boss", "BOSS"],
            "group": "physics",
            "hours": {"days": ["mon", "fri"], "from": "08:00", "to": "18:00"},
        },
        "effect": {
            "weight": {"set": 0.5},
            "caps": {"cpu_units": 2.5, "memory_mb": 512, "running_jobs": 2, "backlog": 9},
            "highest_class": "normal",
            "lowest_class": "low",
            "allowance_times": 0,
        },
    },
    {
        "name": "nightly",
        "match": {
            "type": "report",
            "tag": ["nightly", "bulk"],
            "hours": {"from": "22:00", "to": "06:00", "timezone": "Europe/Berlin"},
        },
        "effect": {"weight": {"times": 0.5}},
    },
    {"name": "everybody", "match": {}, "effect": {"highest_class": "high"}},
]


@pytest.fixture
def boss(person: MakePerson) -> Person:
    return person("boss", Role.ADMIN)


def test_the_first_policy_caps_nothing(boss: Person) -> None:
    answer = boss.get("/policy")

    PolicyAnswer.model_validate_json(answer.data)
    assert answer.json["version"] == 1
    assert answer.json["capacity"] == {"cpu_units": None, "memory_mb": None}


def test_a_policy_is_replaced_version_by_version(
    boss: Person, person: MakePerson, redis_client: Redis
) -> None:
    person("ann")
    body = {
        "version": 1,
        "capacity": {"cpu_units": 4.5, "memory_mb": 2048},
        "rules": [ANNS],
        "types": {"simulate": {"max_running": 3}},
        "classes": {"low": {"paused": True}},
    }

    made, stale = boss.put("/policy", body), boss.put("/policy", body)

    assert made.status_code == 200
    assert made.json["version"] == 2
    assert made.json["types"]["simulate"]["max_running"] == 3
    assert made.json["rules"] == [ANNS]
    assert boss.get("/policy").json == made.json
    assert (stale.status_code, stale.json["code"]) == (409, "policy_conflict")
    assert redis_client.llen(WAKE_KEY) == 1


def test_what_is_read_can_be_written_back(boss: Person, store: Session) -> None:
    make_group(store)
    store.commit()
    boss.put("/policy", {"version": 1, "rules": RULES, "types": {"later": {"max_per_minute": 60}}})
    answer = boss.get("/policy")
    policy = answer.json

    PolicyAnswer.model_validate_json(answer.data)
    assert policy["rules"] == RULES
    assert boss.put("/policy", policy).json == policy | {"version": 3}


def test_the_policy_of_the_readme_is_taken(boss: Person, store: Session) -> None:
    make_group(store, "students")
    store.commit()
    (block,) = snippets("json")

    made = boss.put("/policy", json.loads(block))

    assert made.status_code == 200, made.text
    assert made.json["rules"] == json.loads(block)["rules"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"version": "1"}, "version"),
        ({"capacity": {"cpu_units": 0}}, "capacity.cpu_units"),
        ({"types": {"simulate": {"max_running": -1}}}, "types.simulate.max_running"),
        ({"classes": {"urgent": {}}}, "classes.urgent.[key]"),
        ({"author": "me"}, "author"),
    ],
)
def test_a_wrong_policy_is_refused(boss: Person, change: dict[str, Any], path: str) -> None:
    answer = boss.put("/policy", {"version": 1} | change)

    assert (answer.status_code, answer.json["errors"][0]["path"]) == (422, path)


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"name": ""}, "name", "at least 1 character"),
        ({"note": "x"}, "note", "not permitted"),
        ({"match": {"user": []}}, "match.user", "at least 1 item"),
        ({"match": {"user": 7}}, "match.user", "valid array"),
        ({"match": {"users": "ann"}}, "match.users", "not permitted"),
        ({"match": {"user": "nobody"}}, "match.user", "there is no user 'nobody'"),
        ({"match": {"user": ["boss", "no"]}}, "match.user", "there is no user 'no'"),
        ({"match": {"group": "law"}}, "match.group", "there is no group 'law'"),
        ({"match": {"hours": {"days": ["day"]}}}, "match.hours.days.0", "'mon', 'tue'"),
        ({"match": {"hours": {"from": "8:00"}}}, "match.hours.from", "such as 08:00"),
        ({"match": {"hours": {"to": "24:01"}}}, "match.hours.to", "such as 08:00"),
        ({"match": {"hours": {"from": "24:00"}}}, "match.hours", "before 24:00"),
        ({"match": {"hours": {"from": "08:00", "to": "08:00"}}}, "match.hours", "not the same"),
        ({"match": {"hours": {"timezone": "Mars"}}}, "match.hours.timezone", "Europe/Berlin"),
        ({"match": {"hours": {"timezone": "../x"}}}, "match.hours.timezone", "Europe/Berlin"),
        ({"effect": {}}, "effect", "must change something: weight, caps"),
        ({"effect": {"caps": {"cpu_units": None}}}, "effect", "must change something"),
        ({"effect": {"weight": 2}}, "effect.weight", "object"),
        ({"effect": {"weight": {}}}, "effect.weight", "either times or set"),
        ({"effect": {"weight": {"times": 1, "set": 1}}}, "effect.weight", "either times or set"),
        ({"effect": {"weight": {"times": 0}}}, "effect.weight.times", "greater than 0"),
        ({"effect": {"caps": {"gpus": 1}}}, "effect.caps.gpus", "not permitted"),
        ({"effect": {"allowance_times": -1}}, "effect.allowance_times", "greater than or equal"),
        ({"effect": {"highest_class": "urgent"}}, "effect.highest_class", "'critical', 'high'"),
        ({"effect": {"highest_class": "low", "lowest_class": "high"}}, "effect", "swap them"),
        (
            {"match": {"type": "report"}, "effect": {"caps": {"running_jobs": 1}}},
            "effect",
            "limit a type under types, with max_running",
        ),
        (
            {"match": {"tag": "x"}, "effect": {"caps": {"backlog": 1}}},
            "effect",
            "cannot go with a match by type or tag",
        ),
    ],
)
def test_a_wrong_rule_is_refused_with_its_field_and_a_remedy(
    boss: Person, change: dict[str, Any], path: str, message: str
) -> None:
    fine = {"name": "fine", "match": {}, "effect": {"weight": {"times": 2}}}

    answer = boss.put("/policy", {"version": 1, "rules": [fine, fine | {"name": "x"} | change]})

    (error,) = answer.json["errors"]
    assert (answer.status_code, error["path"]) == (422, f"rules.1.{path}")
    assert message in error["message"]
    assert boss.get("/policy").json["version"] == 1


def test_rules_have_names_of_their_own(boss: Person) -> None:
    rule = {"name": "x", "match": {}, "effect": {"weight": {"times": 2}}}

    answer = boss.put("/policy", {"version": 1, "rules": [rule, rule]})

    assert answer.json["errors"] == [
        {"path": "rules.1.name", "message": "there is another rule 'x'; rename one of them"}
    ]


def test_rules_of_types_that_nobody_runs_yet_are_taken(boss: Person) -> None:
    rule = {"name": "x", "match": {"type": "later"}, "effect": {"weight": {"times": 2}}}

    assert boss.put("/policy", {"version": 1, "rules": [rule]}).status_code == 200


# Versions


def test_every_version_tells_who_changed_what(boss: Person, person: MakePerson) -> None:
    person("ann")
    olga = person("olga", Role.OPERATOR)
    slower = ANNS | {"effect": {"weight": {"times": 0.5}}}
    everybody = RULES[2]
    boss.put("/policy", {"version": 1, "capacity": {"memory_mb": 512}, "rules": [ANNS]})
    boss.put("/policy", {"version": 2, "rules": [everybody, slower]})
    boss.put("/policy", {"version": 3, "rules": [slower, everybody]})
    olga.post("/types/simulate/pause")

    answer = boss.get("/policy/versions")

    PolicyVersionList.model_validate_json(answer.data)
    told = answer.json["versions"]
    assert [(one["version"], one["author"]) for one in told] == [
        (5, "olga"),
        (4, "boss"),
        (3, "boss"),
        (2, "boss"),
        (1, None),
    ]
    assert [
        [(each["path"], each["was"], each["becomes"]) for each in one["changes"]] for one in told
    ] == [
        [("types.simulate.paused", None, True)],
        [("rules", ["everybody", "ann's"], ["ann's", "everybody"])],
        [
            ("capacity.memory_mb", 512, None),
            ("rules", ["ann's"], ["everybody", "ann's"]),
            ("rules.ann's", ANNS, slower),
            ("rules.everybody", None, everybody),
        ],
        [
            ("capacity.memory_mb", None, 512),
            ("rules", None, ["ann's"]),
            ("rules.ann's", None, ANNS),
        ],
        [],
    ]


def test_versions_come_page_by_page(boss: Person) -> None:
    for version in range(1, 5):
        boss.put("/policy", {"version": version, "capacity": {"memory_mb": 100 * version}})

    first = boss.get("/policy/versions?limit=2").json
    rest = boss.get(f"/policy/versions?limit=3&cursor={first['next_cursor']}").json

    told = first["versions"] + rest["versions"]
    assert [one["version"] for one in told] == [5, 4, 3, 2, 1]
    assert [one["changes"][0]["was"] for one in told[:4]] == [300, 200, 100, None]
    assert rest["next_cursor"] is None
    assert boss.get("/policy/versions?cursor=x").json["code"] == "invalid_cursor"


# Trying a policy out


def in_line(store: Session, person: Person, *names: str, **columns: Any) -> None:
    for number, name in enumerate(names):
        make_job(store, person.user, job_id=name, rank=number, **columns)
    store.commit()


def told(answer: Any, part: str) -> list[str]:
    PolicyPreview.model_validate_json(answer.data)
    return [start["job_id"] for start in answer.json[part]]


def test_a_preview_tells_what_would_start_under_another_policy(
    person: MakePerson, store: Session
) -> None:
    olga, ann, bob = person("olga", Role.OPERATOR), person("ann"), person("bob")
    make_worker(store, cpu_units=1)
    in_line(store, ann, "a1", "a2", tags=["bulk"])
    in_line(store, bob, "b1", "b2", type="report")
    rules = [
        {"name": "bulk", "match": {"tag": "bulk"}, "effect": {"weight": {"times": 0.25}}},
        {"name": "bob first", "match": {"user": "bob"}, "effect": {"lowest_class": "critical"}},
    ]

    answer = olga.post("/policy/preview", {"rules": rules})

    assert sorted(told(answer, "as_is")) == ["a1", "a2", "b1", "b2"]
    assert told(answer, "changed")[:2] == ["b1", "b2"]
    first, *_, last = answer.json["changed"]
    assert first == {
        "job_id": "b1",
        "owner": "bob",
        "type": "report",
        "class": "critical",
        "starts_in_seconds": 0,
        "rules": ["bob first"],
    }
    assert (last["class"], last["rules"]) == ("normal", ["bulk"])
    waits = [start["starts_in_seconds"] for start in answer.json["changed"]]
    assert waits == sorted(set(waits))
    assert {start["class"] for start in answer.json["as_is"]} == {"normal"}


@pytest.mark.parametrize(
    ("change", "started"),
    [
        ({}, {"a1", "a2", "b1"}),
        ({"classes": {"low": {"paused": True}}}, {"a1", "a2"}),
        ({"types": {"report": {"paused": True}}}, {"a1"}),
        ({"types": {"report": {"max_running": 0}}}, {"a1"}),
        ({"types": {"report": {"max_per_minute": 0}}}, {"a1"}),
        ({"capacity": {"memory_mb": 64}}, set()),
    ],
)
def test_a_preview_knows_every_part_of_a_policy(
    person: MakePerson, store: Session, change: dict[str, Any], started: set[str]
) -> None:
    olga, ann, bob = person("olga", Role.OPERATOR), person("ann"), person("bob")
    make_worker(store)
    in_line(store, ann, "a1")
    in_line(store, ann, "a2", type="report")
    in_line(store, bob, "b1", type="report", job_class="low")

    answer = olga.post("/policy/preview", change)

    assert set(told(answer, "as_is")) == {"a1", "a2", "b1"}
    assert set(told(answer, "changed")) == started


def test_what_a_preview_leaves_out_is_as_it_is(boss: Person, store: Session) -> None:
    make_worker(store)
    in_line(store, boss, "mine")
    boss.put("/policy", {"version": 1, "rules": [RULES[2]], "types": {"simulate": {}}})
    boss.post("/types/simulate/pause")

    kept = boss.post("/policy/preview", {"capacity": {"cpu_units": 4}})
    lifted = boss.post("/policy/preview", {"types": {}})
    bare = boss.post("/policy/preview", {"types": {}, "rules": []})

    assert told(kept, "as_is") == told(kept, "changed") == []
    assert lifted.json["changed"][0]["rules"] == ["everybody"]
    assert bare.json["changed"][0]["rules"] == []


def test_a_preview_goes_by_weights_caps_and_pauses_of_accounts(
    person: MakePerson, store: Session
) -> None:
    olga, ann = person("olga", Role.OPERATOR), person("ann", cap_running_jobs=1)
    lee = person("lee", paused=True)
    make_worker(store)
    in_line(store, ann, "a1", "a2")
    in_line(store, lee, "l1")

    answer = olga.post("/policy/preview", {})

    starts = {start["job_id"]: start["starts_in_seconds"] for start in answer.json["as_is"]}
    assert starts["a1"] == 0 < starts["a2"]
    assert "l1" not in starts


def test_a_preview_changes_nothing_and_tells_no_more_than_fifty_starts(
    boss: Person, store: Session, statements: list[str], redis_client: Redis
) -> None:
    make_worker(store, cpu_units=100, memory_mb=100_000, processes_max=100)
    in_line(store, boss, *(f"job{number}" for number in range(60)))

    answer = boss.post("/policy/preview", {"rules": [RULES[2]]})

    assert len(told(answer, "changed")) == 50
    assert boss.get("/policy").json["version"] == 1
    assert store.scalar(select(func.count()).select_from(Ready)) == 60
    assert redis_client.llen(WAKE_KEY) == 0
    assert any("FROM ready" in one for one in statements)
    writing = [one for one in statements if re.search("INSERT|UPDATE|DELETE", one)]
    assert [one for one in writing if not one.startswith("UPDATE tokens")] == []


def test_a_wrong_draft_is_refused_as_a_wrong_policy_is(boss: Person) -> None:
    rule = {"name": "x", "match": {"user": "nobody"}, "effect": {"weight": {"times": 2}}}

    unknown, extra = (boss.post("/policy/preview", one) for one in ({"rules": [rule]}, {"x": 1}))

    assert unknown.json["errors"][0]["path"] == "rules.0.match.user"
    assert extra.json["errors"][0]["path"] == "x"


# Pauses


@pytest.mark.parametrize("what", ["queues/low", "types/later.than.now"])
def test_operators_pause_and_resume_a_class_or_a_type(
    boss: Person, person: MakePerson, redis_client: Redis, what: str
) -> None:
    olga = person("olga", Role.OPERATOR)
    kind, name = what.split("/")
    part = {"queues": "classes", "types": "types"}[kind]

    paused = olga.post(f"/{what}/pause")

    PauseAnswer.model_validate_json(paused.data)
    assert paused.json == {"name": name, "paused": True, "policy_version": 2}
    assert boss.get("/policy").json[part][name]["paused"] is True
    assert redis_client.llen(WAKE_KEY) == 1
    assert olga.post(f"/{what}/pause").json["policy_version"] == 2
    assert olga.post(f"/{what}/resume").json["policy_version"] == 3
    assert boss.get("/policy").json[part][name]["paused"] is False
    assert boss.put("/policy", boss.get("/policy").json).status_code == 200


@pytest.mark.parametrize(
    "path", ["/queues/urgent/pause", f"/types/{'x' * 201}/pause", "/types/a%01b/pause"]
)
def test_what_cannot_exist_cannot_be_paused(boss: Person, path: str) -> None:
    assert boss.post(path).status_code == 404


def test_operators_see_workers_and_what_they_run(person: MakePerson, store: Session) -> None:
    olga, ann = person("olga", Role.OPERATOR), person("ann")
    make_worker(store, cpu_units=4)
    make_worker(store, "silent@test", heartbeat_at=NOON)
    make_worker(store, "gone@test", state="stopped")
    make_job(store, ann.user, JobStatus.RUNNING, job_id="anns", attempt=2)
    store.commit()

    answer = olga.get("/workers")

    WorkerList.model_validate_json(answer.data)
    workers = {worker["name"]: worker for worker in answer.json["workers"]}
    alive = {name: worker["alive"] for name, worker in workers.items()}
    assert alive == {WORKER: True, "silent@test": False, "gone@test": False}
    running = workers[WORKER]["running"]
    assert [(one["job_id"], one["owner"], one["attempt"]) for one in running] == [
        ("anns", "ann", 2)
    ]
    assert answer.json["capacity"]["cpu_units"] == 4


def test_operators_drain_and_resume_a_worker(
    person: MakePerson, store: Session, redis_client: Redis
) -> None:
    olga = person("olga", Role.OPERATOR)
    make_worker(store)
    make_worker(store, "other@test", cpu_units=1)
    make_job(store, olga.user, JobStatus.RUNNING, job_id="goes-on")
    store.commit()

    drained = olga.post(f"/workers/{WORKER}/drain")

    WorkerAnswer.model_validate_json(drained.data)
    assert (drained.status_code, drained.json["state"], drained.json["alive"]) == (
        200,
        "draining",
        True,
    )
    assert [one["job_id"] for one in drained.json["running"]] == ["goes-on"]
    assert drained.json["drain_requested_at"].endswith("Z")
    assert olga.get("/workers").json["capacity"]["cpu_units"] == 1
    assert redis_client.llen(WAKE_KEY) == 1
    assert olga.post(f"/workers/{WORKER}/drain").json == drained.json
    resumed = olga.post(f"/workers/{WORKER}/resume")
    assert (resumed.json["state"], resumed.json["drain_requested_at"]) == ("online", None)
    assert olga.get("/workers").json["capacity"]["cpu_units"] == 9


def test_operators_let_a_worker_have_fewer_and_more_processes(
    person: MakePerson, store: Session
) -> None:
    olga = person("olga", Role.OPERATOR)
    make_worker(store, processes_min=2, processes_max=6)
    store.commit()

    shrunk = olga.post(f"/workers/{WORKER}/shrink?processes=3")
    assert (shrunk.status_code, shrunk.json["processes_limit"]) == (200, 3)
    assert olga.get("/workers").json["capacity"]["slots"] == 3
    assert olga.post(f"/workers/{WORKER}/grow").json["processes_limit"] == 4

    for beyond in ("shrink?processes=3", "grow?processes=3"):
        refused = olga.post(f"/workers/{WORKER}/{beyond}")
        assert (refused.status_code, refused.json["code"]) == (409, "beyond_bounds")
        assert "2 to 6 processes, of which it may have 4 now" in refused.json["detail"]
    wrong = olga.post(f"/workers/{WORKER}/grow?processes=0")
    assert (wrong.status_code, wrong.json["errors"][0]["path"]) == (422, "processes")


@pytest.mark.parametrize("action", ["drain", "resume", "grow", "shrink"])
def test_a_worker_that_is_gone_or_never_was_is_told_apart(
    person: MakePerson, store: Session, action: str
) -> None:
    olga = person("olga", Role.OPERATOR)
    make_worker(store, "silent@test", heartbeat_at=NOON)
    make_worker(store, "gone@test", state="stopped")
    store.commit()

    for gone in ("silent@test", "gone@test"):
        answer = olga.post(f"/workers/{gone}/{action}")
        assert (answer.status_code, answer.json["code"]) == (409, "worker_gone")
        assert gone in answer.json["detail"]
    for unknown in ("nobody@test", "a%00b"):
        assert olga.post(f"/workers/{unknown}/{action}").status_code == 404


def test_types_tell_what_the_submit_form_needs(person: MakePerson, store: Session) -> None:
    make_type(store, "sized", payload_schema={"type": "object"}, retry_config={"max_attempts": 1})
    store.commit()

    answer = person("ann").get("/types")

    TypeList.model_validate_json(answer.data)
    types = {one["name"]: one for one in answer.json["types"]}
    assert set(types) == {"simulate", "sized"}
    assert types["sized"]["payload_schema"] == {"type": "object"}
    assert types["sized"]["retry_config"]["max_attempts"] == 1
    assert types["sized"]["retry_config"]["strategy"] == "exponential"


def finish(
    store: Session, person: Person, *, minutes_ago: float, waited: float, ran: float
) -> None:
    ended = clock.now() - timedelta(minutes=minutes_ago)
    started = ended - timedelta(seconds=ran)
    ready = started - timedelta(seconds=waited)
    job = make_job(
        store,
        person.user,
        JobStatus.COMPLETED,
        created_at=ready,
        ready_at=ready,
        queued_at=started,
        started_at=started,
        finished_at=ended,
    )
    store.add(
        JobEvent(
            job_id=job.id,
            owner_id=person.user.id,
            at=ended,
            verb="succeed",
            status=JobStatus.COMPLETED,
            attempt=1,
        )
    )


def test_figures_are_own_for_users_and_everybodys_for_operators(
    person: MakePerson, store: Session
) -> None:
    ann, bob, olga = person("ann"), person("bob"), person("olga", Role.OPERATOR)
    make_worker(store)
    make_job(store, ann.user, JobStatus.READY)
    make_job(store, bob.user, JobStatus.RUNNING)
    make_job(store, bob.user, JobStatus.BLOCKED)
    finish(store, ann, minutes_ago=1, waited=10, ran=2)
    finish(store, ann, minutes_ago=30, waited=20, ran=4)
    finish(store, ann, minutes_ago=90, waited=900, ran=900)
    store.commit()

    own, others, all_of_them = (one.get("/stats") for one in (ann, bob, olga))

    for answer in (own, others, all_of_them):
        Stats.model_validate_json(answer.data)
    assert own.json["of"] == "own"
    assert own.json["jobs"][JobStatus.READY] == 1
    assert own.json["jobs"][JobStatus.RUNNING] == 0
    assert own.json["classes"] == {**dict.fromkeys(JobClass, 0), JobClass.NORMAL: 1}
    assert own.json["finished_last_hour"][JobStatus.COMPLETED] == 2
    assert own.json["finished_per_minute"] == pytest.approx(0.2)
    assert own.json["wait_seconds"]["p50"] == pytest.approx(15, abs=0.1)
    assert own.json["run_seconds"]["p50"] == pytest.approx(3, abs=0.1)
    assert own.json["reserved"]["slots"] == 0
    assert others.json["finished_last_hour"][JobStatus.COMPLETED] == 0
    assert others.json["wait_seconds"] == {"p50": None, "p95": None, "p99": None}
    assert others.json["reserved"] == {"cpu_units": 1.0, "memory_mb": 128, "slots": 1}
    assert others.json["oldest_ready_seconds"] is None
    assert all_of_them.json["of"] == "all"
    assert all_of_them.json["jobs"][JobStatus.RUNNING] == 1
    assert all_of_them.json["finished_last_hour"][JobStatus.COMPLETED] == 2
    assert all_of_them.json["workers"] == 1
