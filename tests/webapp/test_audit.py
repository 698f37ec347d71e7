"""What operators and administrators change is written down, whatever way they take.

Complete by construction: a route that changes something and is in neither table fails.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.models import AuditEntry, Callback, Job, User
from scheduler.settings import Settings
from scheduler.states import JobStatus, Role, Scope
from scheduler.store import audit as written
from scheduler.store.audit import COMMAND_LINE, Actor
from tests.factories import (
    NOON,
    WORKER,
    make_callback,
    make_group,
    make_job,
    make_schedule,
    make_type,
    make_user,
    make_worker,
)
from tests.webapp.conftest import PASSWORD, MakeApp, MakePerson, Person, Run
from webapp import audit
from webapp.cli import tokens, users
from webapp.endpoints import NOTHING, OVERSEERS, Resource, endpoints_of
from webapp.schemas.audit import AuditList

JOB_RULE = "/jobs/<job_id:job_id>"
SCHEDULE_RULE = "/schedules/<job_id:name>"


@dataclass(frozen=True)
class Change:
    """A change by somebody who may make it, and what is written down about it."""

    method: str
    rule: str
    action: str
    target: str
    path: str
    body: Any = None
    form: dict[str, str] | None = None
    role: Role = Role.OPERATOR


USER = {"username": "zoe", "password": "long enough"}
ANNS = {"type": "simulate", "owner": "Ann", "job_id": "new"}
BAD = {"job_ids": ["bad"]}
HOURLY = {"name": "new", "owner": "Ann", "every_seconds": 3600, "template": {"type": "simulate"}}

CHANGES = (
    Change("POST", "/users", "users.create", "users/zoe", "/users", USER, role=Role.ADMIN),
    Change(
        "PATCH", "/users/<username>", "users.change", "users/ann", "/users/Ann", {"weight": 2},
        role=Role.ADMIN,
    ),
    Change("POST", "/users/<username>/pause", "users.pause", "users/ann", "/users/ann/pause"),
    Change("POST", "/users/<username>/resume", "users.resume", "users/ann", "/users/ann/resume"),
    Change(
        "POST", "/groups", "groups.create", "groups/new", "/groups", {"name": "new"},
        role=Role.ADMIN,
    ),
    Change(
        "PATCH", "/groups/<name>", "groups.change", "groups/physics", "/groups/physics",
        {"weight": 2}, role=Role.ADMIN,
    ),
    Change(
        "PUT", "/policy", "policy.change", "policy", "/policy", {"version": 1}, role=Role.ADMIN
    ),
    Change("POST", "/queues/<name>/pause", "queues.pause", "queues/low", "/queues/low/pause"),
    Change("POST", "/queues/<name>/resume", "queues.resume", "queues/low", "/queues/low/resume"),
    Change(
        "POST", "/workers/<name>/drain", "workers.drain", f"workers/{WORKER}",
        f"/workers/{WORKER}/drain",
    ),
    Change(
        "POST", "/workers/<name>/resume", "workers.resume", f"workers/{WORKER}",
        f"/workers/{WORKER}/resume",
    ),
    Change(
        "POST", "/workers/<name>/shrink", "workers.shrink", f"workers/{WORKER}",
        f"/workers/{WORKER}/shrink",
    ),
    Change(
        "POST", "/workers/<name>/grow", "workers.grow", f"workers/{WORKER}",
        f"/workers/{WORKER}/grow",
    ),
    Change("POST", "/types/<name>/pause", "types.pause", "types/x", "/types/x/pause"),
    Change("POST", "/types/<name>/resume", "types.resume", "types/x", "/types/x/resume"),
    Change("POST", "/jobs", "jobs.submit", "jobs/ann/new", "/jobs", ANNS),
    Change("POST", "/jobs/batch", "jobs.submit", "jobs/ann/new", "/jobs/batch", {"jobs": [ANNS]}),
    Change(
        "POST", "/jobs/bulk", "jobs.bulk", "jobs", "/jobs/bulk", {"action": "cancel", "filter": {}}
    ),
    Change("PATCH", JOB_RULE, "jobs.change", "jobs/ann/it", "/jobs/it", {"priority": "low"}),
    Change("PATCH", f"{JOB_RULE}/cancel", "jobs.cancel", "jobs/ann/it", "/jobs/it/cancel"),
    Change("POST", f"{JOB_RULE}/cancel", "jobs.cancel", "jobs/ann/it", "/jobs/it/cancel", form={}),
    Change(
        "POST", f"{JOB_RULE}/callbacks/retry", "callbacks.retry", "jobs/ann/it",
        "/jobs/it/callbacks/retry",
    ),
    Change("POST", f"{JOB_RULE}/retry", "jobs.retry", "jobs/ann/bad", "/jobs/bad/retry"),
    Change(
        "POST", f"{JOB_RULE}/edit", "jobs.retry", "jobs/ann/bad", "/jobs/bad/edit",
        form={"payload": "{}"},
    ),
    Change(
        "POST", "/dead-letters/retry", "jobs.retry", "jobs/ann/bad", "/dead-letters/retry", BAD
    ),
    Change(
        "POST", "/dead-letters/discard", "jobs.discard", "jobs/ann/bad", "/dead-letters/discard",
        BAD,
    ),
    Change(
        "POST", "/dead-letters", "jobs.discard", "jobs/ann/bad", "/dead-letters",
        form={"action": "discard", "job_id": "bad"},
    ),
    Change("POST", "/schedules", "schedules.create", "schedules/ann/new", "/schedules", HOURLY),
    Change(
        "PATCH", SCHEDULE_RULE, "schedules.change", "schedules/ann/nightly", "/schedules/nightly",
        {"paused": True},
    ),
    Change(
        "DELETE", SCHEDULE_RULE, "schedules.delete", "schedules/ann/nightly", "/schedules/nightly"
    ),
    Change(
        "POST", f"{SCHEDULE_RULE}/run", "schedules.run", "schedules/ann/nightly",
        "/schedules/nightly/run",
    ),
    Change(
        "POST", SCHEDULE_RULE, "schedules.change", "schedules/ann/nightly", "/schedules/nightly",
        form={"action": "pause"},
    ),
)  # fmt: skip

OWN = {
    ("POST", "/tokens"),
    ("DELETE", "/tokens/<int:number>"),
    ("POST", "/me/callback-secret"),
    ("POST", "/account/tokens"),
    ("POST", "/account/tokens/<int:token_id>/delete"),
    ("POST", "/submit"),
    ("POST", "/new-schedule"),
    ("POST", "/sign-in"),
    ("POST", "/sign-out"),
    ("POST", "/theme"),
    ("POST", "/policy/preview"),
    ("POST", "/simplequeue/jobs/submit"),
    ("POST", "/simplequeue/jobs/complete"),
}
"""Routes that change nothing, or only what is the caller's own, whoever the caller is."""

WORK = {
    ("POST", "/jobs/next"),
    ("POST", f"{JOB_RULE}/heartbeat"),
    ("POST", f"{JOB_RULE}/complete"),
}
"""What a worker does with the job it was given: nobody decides anything, and attempts tell it."""


def _named(change: Change) -> str:
    return f"{change.method} {change.rule}{' by form' if change.form is not None else ''}"


@pytest.fixture
def scene(store: Session) -> None:
    ann = make_user(store, "ann")
    make_group(store)
    make_type(store, "bulk")
    make_worker(store, processes_limit=4)
    _make_jobs(store, ann)


def _make_jobs(store: Session, owner: User) -> None:
    make_callback(store, make_job(store, owner, JobStatus.READY, job_id="it"))
    make_job(store, owner, JobStatus.FAILED, job_id="bad")
    make_schedule(store, owner)
    store.commit()


def _log(store: Session) -> list[AuditEntry]:
    store.rollback()
    store.expire_all()
    return list(store.scalars(select(AuditEntry).order_by(AuditEntry.id)))


def _make(change: Change, person: Person) -> int:
    headers = {"X-Request-ID": "req_mine"}
    if change.form is None:
        sent = person.ask(change.method, change.path, json=change.body, headers=headers)
    else:
        form = change.form | {"csrf_token": person.csrf or ""}
        sent = person.ask(change.method, change.path, data=form, headers=headers)
    return sent.status_code


# Complete


def test_every_route_that_changes_something_is_audited_or_about_the_callers_own(app: Flask) -> None:
    changing = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in {"GET", "HEAD", "OPTIONS"}
    }
    audited = {(change.method, change.rule) for change in CHANGES}

    assert audited | OWN | WORK == changing
    assert not audited & (OWN | WORK)
    assert len(audited) == len(CHANGES)


def test_every_declared_action_is_the_one_that_is_tested(app: Flask) -> None:
    declared = {(e.method, e.rule): e.audits for e in endpoints_of(app) if e.audits}

    tested = {(c.method, c.rule): c.action for c in CHANGES if c.form is None}

    assert declared == tested


def test_nobody_declares_a_route_of_overseers_that_forgets_to_audit() -> None:
    resource = Resource("x", __name__)

    for role in OVERSEERS:
        with pytest.raises(ValueError, match="POST /x: say what it audits"):
            resource.route_of("POST", "/x", summary="X", role=role, answers={})
    resource.route_of("POST", "/x", summary="X", role=Role.ADMIN, answers={}, audits=NOTHING)
    resource.route_of("GET", "/x", summary="X", role=Role.ADMIN, answers={})


def test_only_what_changes_nothing_is_declared_to(app: Flask) -> None:
    silent = {e.rule for e in endpoints_of(app) if e.audits == NOTHING}

    assert silent == {"/policy/preview"}


@pytest.mark.parametrize("change", CHANGES, ids=_named)
def test_a_change_is_written_down_with_who_made_it_and_from_where(
    change: Change, scene: None, person: MakePerson, signed_in: MakePerson, store: Session
) -> None:
    boss = (person if change.form is None else signed_in)("boss", change.role)

    assert _make(change, boss) < 400

    (entry,) = _log(store)
    assert (entry.action, entry.target) == (change.action, change.target)
    assert (entry.actor, entry.actor_id) == ("boss", boss.user.id)
    assert (entry.address, entry.request_id) == ("127.0.0.1", "req_mine")
    assert clock.now() - entry.at < timedelta(minutes=1)


@pytest.mark.parametrize("change", CHANGES, ids=_named)
def test_what_is_refused_is_not_written_down(
    change: Change, scene: None, person: MakePerson, signed_in: MakePerson, store: Session
) -> None:
    viewer = (person if change.form is None else signed_in)("eve", Role.VIEWER)

    assert _make(change, viewer) in {403, 404}

    assert _log(store) == []


ABOUT_JOBS = [change for change in CHANGES if change.target.startswith("jobs/")]
ABOUT_SCHEDULES = [change for change in CHANGES if change.target.startswith("schedules/")]


@pytest.mark.parametrize("change", ABOUT_JOBS + ABOUT_SCHEDULES, ids=_named)
def test_what_somebody_does_to_their_own_jobs_and_schedules_is_theirs(
    change: Change, person: MakePerson, signed_in: MakePerson, store: Session
) -> None:
    ann = (person if change.form is None else signed_in)("ann", Role.ADMIN)
    _make_jobs(store, ann.user)

    assert _make(change, ann) < 400

    assert _log(store) == []


def test_own_tokens_and_secrets_are_not_written_down(person: MakePerson, store: Session) -> None:
    boss = person("boss", Role.ADMIN)

    made = boss.post("/tokens", {"name": "x", "scopes": ["read"]})
    boss.delete(f"/tokens/{made.json['id']}")
    boss.post("/me/callback-secret")
    boss.post("/policy/preview", {})

    assert _log(store) == []


# One transaction


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/users", USER | {"username": "ann"}),
        ("PATCH", "/users/boss", {"role": "user"}),
        ("PUT", "/policy", {"version": 7}),
        ("POST", "/jobs", ANNS | {"type": "unheard_of"}),
        ("POST", "/jobs/batch", {"jobs": [ANNS, ANNS | {"job_id": "o", "depends_on": ["no"]}]}),
    ],
)
def test_a_change_that_fails_is_not_written_down(
    scene: None, person: MakePerson, store: Session, method: str, path: str, body: Any
) -> None:
    boss = person("boss", Role.ADMIN)

    assert boss.ask(method, path, json=body).status_code >= 400

    assert _log(store) == []


@pytest.mark.parametrize(
    ("proxies", "address"), [(0, "127.0.0.1"), (1, "192.0.2.7"), (2, "198.51.100.9")]
)
def test_behind_proxies_the_address_is_the_one_they_tell(
    settings: Settings,
    scene: None,
    person: MakePerson,
    make_app: MakeApp,
    store: Session,
    proxies: int,
    address: str,
) -> None:
    olga = person("olga", Role.OPERATOR)
    olga.client = make_app(replace(settings, proxies=proxies)).test_client()
    told = {"X-Forwarded-For": "203.0.113.5, 198.51.100.9, 192.0.2.7"}

    olga.post("/queues/low/pause", headers=told)

    assert [entry.address for entry in _log(store)] == [address]


@pytest.mark.parametrize("change", ABOUT_JOBS, ids=_named)
def test_a_change_that_cannot_be_written_down_is_not_made(
    change: Change,
    scene: None,
    person: MakePerson,
    signed_in: MakePerson,
    store: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boss = (person if change.form is None else signed_in)("boss", Role.ADMIN)
    before = _jobs(store)

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    for module in (audit, written):
        monkeypatch.setattr(module, "record", fail)

    assert _make(change, boss) == 500
    assert _jobs(store) == before


def _jobs(store: Session) -> list[tuple[Any, ...]]:
    """Return what changes of jobs would change."""
    store.rollback()
    columns = (Job.job_id, Job.status, Job.discarded_at, Callback.tries, Callback.due_at)
    rows = store.execute(select(*columns).outerjoin(Callback, Callback.job_id == Job.id))
    return sorted(tuple(row) for row in rows)


def test_a_submission_that_was_there_is_no_change(
    scene: None, person: MakePerson, store: Session
) -> None:
    boss = person("boss", Role.ADMIN)

    boss.post("/jobs", ANNS)
    boss.post("/jobs", ANNS)

    assert [entry.action for entry in _log(store)] == ["jobs.submit"]


def test_a_second_wish_to_stop_is_no_change(
    scene: None, person: MakePerson, store: Session
) -> None:
    boss = person("boss", Role.ADMIN)

    first, second = boss.patch("/jobs/it/cancel"), boss.patch("/jobs/it/cancel")

    assert (first.status_code, second.status_code) == (200, 409)
    assert [entry.action for entry in _log(store)] == ["jobs.cancel"]


@pytest.mark.parametrize("path", ["/jobs/bad/retry", "/dead-letters/retry"])
def test_a_second_retry_is_no_change(
    scene: None, person: MakePerson, store: Session, path: str
) -> None:
    olga = person("olga", Role.OPERATOR)

    for _ in range(2):
        olga.post(path, BAD)

    assert [entry.action for entry in _log(store)] == ["jobs.retry"]


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/jobs/bad/retry", {}),
        ("/dead-letters", {"action": "retry", "job_id": "bad"}),
        ("/dead-letters", {"action": "retry", "meant": "all that match", "type": "simulate"}),
    ],
)
def test_a_retry_by_form_is_written_down_as_well(
    scene: None, signed_in: MakePerson, store: Session, path: str, form: dict[str, str]
) -> None:
    olga = signed_in("olga", Role.OPERATOR)
    sent = form | {"csrf_token": olga.csrf or ""}

    assert olga.ask("POST", path, data=sent, headers={"Accept": "text/html"}).status_code == 302

    assert [(entry.action, entry.target) for entry in _log(store)] == [
        ("jobs.retry", "jobs/ann/bad")
    ]


# What is told


def test_of_an_account_it_is_told_what_was_and_what_it_became(
    scene: None, person: MakePerson, store: Session
) -> None:
    boss = person("boss", Role.ADMIN)
    change = {"weight": 2.5, "active": True, "group": "physics", "caps": {"cpu_units": 1.5}}

    boss.patch("/users/ann", change)
    boss.patch("/users/ann", {"group": None, "role": "operator"})

    first, second = [entry.detail for entry in _log(store)]
    assert first == {
        "weight": {"was": 1, "becomes": 2.5},
        "group": {"was": None, "becomes": "physics"},
        "cap_cpu_units": {"was": None, "becomes": 1.5},
    }
    assert second == {
        "group": {"was": "physics", "becomes": None},
        "role": {"was": "user", "becomes": "operator"},
    }


def test_no_password_and_no_token_is_in_the_log(
    scene: None,
    person: MakePerson,
    store: Session,
    run: Run,
) -> None:
    boss = person("boss", Role.ADMIN)

    boss.post("/users", USER)
    boss.patch("/users/zoe", {"password": "another secret"})
    run("users", "set", "zoe", "--password-stdin", password="a third secret\n")
    token = run("tokens", "create", "--user", "zoe", "--name", "ci").output.strip()

    told = [str(entry.detail) for entry in _log(store)]
    assert len(told) == 4
    secrets = ["long enough", "another secret", "a third secret", token, PASSWORD]
    assert not [secret for secret in secrets for detail in told if secret in detail]
    assert told[1] == told[2] == "{'password': 'changed'}"


def test_of_the_policy_it_is_told_what_differs(person: MakePerson, store: Session) -> None:
    boss = person("boss", Role.ADMIN)

    boss.put("/policy", {"version": 1, "capacity": {"cpu_units": 4}})

    (entry,) = _log(store)
    assert entry.detail == {
        "version": 2,
        "changes": [{"path": "capacity.cpu_units", "was": None, "becomes": 4.0}],
    }


def test_of_many_jobs_some_are_named(scene: None, person: MakePerson, store: Session) -> None:
    olga = person("olga", Role.OPERATOR)
    jobs = [ANNS | {"job_id": f"n{number}"} for number in range(written.JOBS_NAMED + 5)]

    olga.post("/jobs/batch", {"jobs": [*jobs, {"type": "simulate"}]})

    (entry,) = _log(store)
    assert (entry.target, entry.detail["count"]) == ("jobs/ann", written.JOBS_NAMED + 5)
    assert entry.detail["job_ids"] == [f"n{number}" for number in range(written.JOBS_NAMED)]


@pytest.mark.parametrize("act", ["retry", "discard"])
def test_of_dead_letters_each_owner_has_an_entry_but_the_one_who_deals_with_them(
    person: MakePerson, store: Session, act: str
) -> None:
    olga = person("olga", Role.OPERATOR)
    counts = {"ann": written.JOBS_NAMED + 5, "bob": 1}
    for name, count in counts.items():
        owner = make_user(store, name)
        for number in range(count):
            make_job(store, owner, JobStatus.FAILED, job_id=f"n{number}")
    make_job(store, olga.user, JobStatus.FAILED, job_id="own")
    store.commit()

    assert olga.post(f"/dead-letters/{act}", {"filter": {}}).status_code == 200

    ann, bob = _log(store)
    assert (ann.target, bob.target) == ("jobs/ann", "jobs/bob/n0")
    assert [entry.detail["count"] for entry in (ann, bob)] == list(counts.values())
    assert ann.detail["job_ids"] == [f"n{number}" for number in range(written.JOBS_NAMED)]


@pytest.mark.parametrize("by_form", [False, True])
def test_of_a_changed_payload_it_is_told_that_it_changed(
    scene: None, person: MakePerson, signed_in: MakePerson, store: Session, *, by_form: bool
) -> None:
    olga = (signed_in if by_form else person)("olga", Role.OPERATOR)

    if by_form:
        form = {"payload": '{"result": "sesame"}', "csrf_token": olga.csrf or ""}
        olga.ask("POST", "/jobs/bad/edit", data=form)
    else:
        olga.post("/dead-letters/retry", BAD | {"payload": {"result": "sesame"}})

    (entry,) = _log(store)
    assert entry.detail["payload"] == "changed"
    assert "sesame" not in str(entry.detail)


# The command line


COMMANDS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "create": (("users", "create", "zoe", "--password-stdin"), "users.create", "users/zoe"),
    "set": (("users", "set", "Ann", "--weight", "3"), "users.change", "users/ann"),
    "token": (("tokens", "create", "--user", "ann", "--name", "ci"), "tokens.create", "users/ann"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_is_written_down_too(
    scene: None,
    run: Run,
    store: Session,
    name: str,
) -> None:
    arguments, action, target = COMMANDS[name]

    assert run(*arguments, password="long enough\n").exit_code == 0

    (entry,) = _log(store)
    assert (entry.action, entry.target, entry.actor) == (action, target, "command line")
    assert (entry.actor_id, entry.address, entry.request_id) == (None, None, None)


def test_the_first_administrator_is_written_down_and_the_second_time_is_no_change(
    settings: Settings, app: Flask, make_app: MakeApp, store: Session
) -> None:
    told = replace(settings, admin_username="root", admin_password="long enough")
    commands = make_app(told).test_cli_runner()

    for _ in range(2):
        assert commands.invoke(args=("users", "ensure-admin")).exit_code == 0

    (entry,) = _log(store)
    assert (entry.action, entry.target, entry.detail) == (
        "users.create",
        "users/root",
        {"role": "admin"},
    )


def test_every_command_that_changes_something_is_tested_here() -> None:
    groups = {"users": users, "tokens": tokens}
    commands = {(name, command) for name, group in groups.items() for command in group.commands}

    tested = {arguments[:2] for arguments, _, _ in COMMANDS.values()}

    assert commands - {("users", "list"), ("users", "ensure-admin")} == tested


def test_no_account_can_be_called_like_the_command_line(person: MakePerson) -> None:
    answer = person("boss", Role.ADMIN).post("/users", USER | {"username": COMMAND_LINE.name})

    assert answer.status_code == 422


# Reading it


@pytest.fixture
def boss(person: MakePerson) -> Person:
    return person("boss", Role.ADMIN)


def _add(store: Session, count: int = 1, *, at: datetime = NOON, **columns: Any) -> None:
    fields = {"actor": "olga", "action": "users.pause", "target": "users/ann"} | columns
    for _ in range(count):
        store.add(AuditEntry(at=at, detail={}, **fields))
        store.flush()
    store.commit()


def _read(boss: Person, query: str = "") -> list[dict[str, Any]]:
    answer = boss.get(f"/audit?{query}")
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json["entries"]
    return entries


def test_the_newest_changes_come_first(store: Session, boss: Person) -> None:
    _add(store, at=NOON + timedelta(hours=1), target="later")
    _add(store, at=NOON, target="earlier")
    _add(store, at=NOON, target="earlier, after that")

    answer = boss.get("/audit")

    AuditList.model_validate_json(answer.data)
    told = [entry["target"] for entry in answer.json["entries"]]
    assert told == ["later", "earlier, after that", "earlier"]
    assert answer.json["entries"][0]["at"] == "2026-01-15T13:00:00Z"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("actor=Olga", ["a", "b"]),
        ("actor=nobody", []),
        ("action=users.pause", ["a"]),
        ("target=users/b", ["b"]),
        ("after=2026-01-15T12:00:00Z", ["b", "c"]),
        ("before=2026-01-15T12:02:00Z", ["a", "b"]),
        ("after=2026-01-15T12:00:00Z&before=2026-01-15T12:02:00Z&actor=olga", ["b"]),
        ("actor=olga&action=users.resume", ["b"]),
    ],
)
def test_entries_are_narrowed(store: Session, boss: Person, query: str, found: list[str]) -> None:
    minute = timedelta(minutes=1)
    _add(store, target="users/a")
    _add(store, at=NOON + minute, action="users.resume", target="users/b")
    _add(store, at=NOON + 2 * minute, actor="paul", action="users.resume", target="users/c")

    told = [entry["target"].removeprefix("users/") for entry in _read(boss, query)]

    assert sorted(told) == found


@pytest.mark.parametrize("query", ["actor=", "colour=red", "after=yesterday", "limit=0"])
def test_a_wrong_filter_is_refused(boss: Person, query: str) -> None:
    answer = boss.get(f"/audit?{query}")

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")


def test_pages_together_are_the_whole_log_even_of_one_instant(store: Session, boss: Person) -> None:
    _add(store, 7)
    for number in range(7):
        _add(store, at=NOON + timedelta(seconds=number), target=str(number))
    seen, cursor = [], ""
    while True:
        answer = boss.get(f"/audit?limit=3{cursor}").json
        seen += [entry["target"] for entry in answer["entries"]]
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"

    assert len(seen) == 14
    assert [target for target in seen if target.isdecimal()] == list("6543210")


@pytest.mark.parametrize(
    "cursor", ["x", "WzFd", "WzEsIDIsIDNd", "WzEsICJ4Il0", "Wzk5OTk5OTk5OTk5OTk5OTk5OSwgMV0"]
)
def test_a_made_up_cursor_is_refused(boss: Person, cursor: str) -> None:
    answer = boss.get(f"/audit?cursor={cursor}")

    assert (answer.status_code, answer.json["code"]) == (422, "invalid_cursor")


def test_a_token_needs_the_scope_to_read_it(person: MakePerson) -> None:
    boss = person("boss", Role.ADMIN, scopes={Scope.READ, Scope.SUBMIT, Scope.WORK})

    assert boss.get("/audit").json["code"] == "insufficient_scope"


PLANS: dict[str, tuple[audit.Filter, str]] = {
    "all": (audit.Filter(), "ix_audit_log_at_id"),
    "actor": (audit.Filter(actor="boss7"), "ix_audit_log_actor"),
    "action": (audit.Filter(action="rare"), "ix_audit_log_action"),
    "target": (audit.Filter(target="users/7"), "ix_audit_log_target"),
    "after": (audit.Filter(after=NOON - timedelta(seconds=50)), "ix_audit_log_at_id"),
    "before": (audit.Filter(before=NOON - timedelta(seconds=19_000)), "ix_audit_log_at_id"),
}


@pytest.mark.parametrize("name", PLANS)
def test_each_filter_has_its_index(session: Session, name: str) -> None:
    wanted, index = PLANS[name]
    session.execute(
        text(
            "INSERT INTO audit_log (at, actor, action, target, detail)"
            " SELECT CAST(:noon AS timestamptz) - make_interval(secs => n), 'boss' || mod(n, 100),"
            " CASE WHEN mod(n, 1000) = 7 THEN 'rare' ELSE 'users.change' END,"
            " 'users/' || mod(n, 100), '{}' FROM generate_series(1, 20000) AS n"
        ),
        {"noon": NOON},
    )
    session.execute(text("ANALYZE audit_log"))
    newest = session.scalars(audit.page(wanted, limit=10)).all()
    cursor = audit._cursor_at(newest[-1])

    for page in (audit.page(wanted, limit=10), audit.page(wanted, limit=10, cursor=cursor)):
        compiled = page.compile(session.connection(), compile_kwargs={"literal_binds": True})
        (told,) = session.execute(
            text(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {compiled}".replace(":", "\\:"))
        ).scalar_one()
        (scan,) = [node for node in _walk(told["Plan"]) if "Scan" in node["Node Type"]]
        assert scan["Index Name"] == index
        assert scan["Actual Rows"] <= 11
        assert scan.get("Rows Removed by Filter", 0) == 0


def _walk(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(inner for child in node.get("Plans", []) for inner in _walk(child))]


def test_whoever_adds_a_change_writes_it_down_with_one_call(session: Session) -> None:
    by = Actor("olga", None, "192.0.2.1", "req_1")

    written.record(session, by, "workers.drain", "workers/w1", {"seconds": 30})

    entry = session.scalars(select(AuditEntry)).one()
    assert (entry.actor, entry.address, entry.action) == ("olga", "192.0.2.1", "workers.drain")
    assert entry.detail == {"seconds": 30}
