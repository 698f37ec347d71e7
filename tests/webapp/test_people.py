"""Accounts, groups and the caller's own account."""

from typing import Any

import pytest
from redis import Redis
from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.events import WAKE_KEY
from scheduler.models import Feed, User
from scheduler.states import FeedKind, JobStatus, Role, Scope
from tests.factories import make_group, make_job
from tests.webapp.conftest import MakePerson, Person
from webapp.passwords import verify_password
from webapp.schemas.people import GroupAnswer, GroupList, Me, UserAnswer, UserList

NEW = {"username": "zoe", "password": "long enough"}


@pytest.fixture
def boss(person: MakePerson) -> Person:
    return person("boss", Role.ADMIN)


def test_everybody_reads_their_own_account(person: MakePerson, store: Session) -> None:
    group = make_group(store, "physics")
    ann = person("ann", group_id=group.id, weight=2.5, cap_backlog=9, scopes={Scope.READ})
    make_job(store, ann.user, JobStatus.RUNNING)
    make_job(store, ann.user, JobStatus.COMPLETED)
    store.commit()

    answer = ann.get("/me")

    Me.model_validate_json(answer.data)
    me = answer.json
    assert (me["username"], me["group"], me["weight"]) == ("ann", "physics", 2.5)
    assert me["caps"]["backlog"] == 9
    assert (me["scopes"], me["unfinished_jobs"]) == (["read"], 1)
    assert "password" not in answer.text


def test_an_administrator_makes_accounts(boss: Person, store: Session) -> None:
    make_group(store, "physics")
    store.commit()
    body = NEW | {"role": "operator", "group": "physics", "weight": 3, "caps": {"cpu_units": 2.5}}

    answer = boss.post("/users", body)

    UserAnswer.model_validate_json(answer.data)
    assert answer.status_code == 201
    assert answer.json["group"] == "physics"
    assert answer.json["caps"] == {
        "cpu_units": 2.5,
        "memory_mb": None,
        "running_jobs": None,
        "backlog": None,
    }
    made = store.query(User).filter_by(username="zoe").one()
    assert (made.role, made.weight) == (Role.OPERATOR, 3)
    assert made.password_hash.startswith("$argon2id$")
    assert verify_password(made.password_hash, "long enough")


def test_lists_hold_every_account_and_no_password(boss: Person) -> None:
    boss.post("/users", NEW)

    answer = boss.get("/users")

    UserList.model_validate_json(answer.data)
    assert [user["username"] for user in answer.json["users"]] == ["boss", "zoe"]
    assert "password" not in answer.text
    assert "argon2" not in answer.text


def test_a_name_is_taken_however_it_is_capitalised(boss: Person) -> None:
    answer = boss.post("/users", NEW | {"username": "BOSS"})

    assert (answer.status_code, answer.json["code"]) == (409, "name_taken")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"username": ""}, "username"),
        ({"username": "has space"}, "username"),
        ({"username": "-dash"}, "username"),
        ({"username": "x\n"}, "username"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 1025}, "password"),
        ({"role": "emperor"}, "role"),
        ({"weight": 0}, "weight"),
        ({"weight": "3"}, "weight"),
        ({"group": "nobody's"}, "group"),
        ({"caps": {"gpus": 1}}, "caps.gpus"),
        ({"caps": {"cpu_units": -1}}, "caps.cpu_units"),
        ({"caps": {"running_jobs": 10**20}}, "caps.running_jobs"),
        ({"caps": {"backlog": 10**20}}, "caps.backlog"),
        ({"session_version": 7}, "session_version"),
    ],
)
def test_a_wrong_account_is_refused_with_its_field(
    boss: Person, change: dict[str, Any], path: str
) -> None:
    answer = boss.post("/users", NEW | change)

    assert answer.status_code == 422
    assert [error["path"] for error in answer.json["errors"]] == [path]


def test_what_a_change_leaves_out_stays(boss: Person) -> None:
    boss.post("/users", NEW | {"weight": 3, "caps": {"cpu_units": 2, "backlog": 5}})

    changed = boss.patch("/users/ZOE", {"caps": {"cpu_units": None}, "role": "viewer"}).json

    assert (changed["weight"], changed["role"]) == (3, "viewer")
    assert (changed["caps"]["cpu_units"], changed["caps"]["backlog"]) == (None, 5)


def test_an_account_changes_its_group(boss: Person) -> None:
    boss.post("/groups", {"name": "physics"})
    boss.post("/users", NEW)

    joined = boss.patch("/users/zoe", {"group": "physics"}).json["group"]
    kept = boss.patch("/users/zoe", {"weight": 2}).json["group"]
    left = boss.patch("/users/zoe", {"group": None}).json["group"]

    assert (joined, kept, left) == ("physics", "physics", None)


@pytest.mark.parametrize("body", [{"role": None}, {"password": None}, {"username": "other"}])
def test_a_change_to_nothing_is_refused(boss: Person, body: dict[str, Any]) -> None:
    boss.post("/users", NEW)

    assert boss.patch("/users/zoe", body).status_code == 422


def test_an_unknown_account_or_group_is_not_found(boss: Person) -> None:
    assert boss.patch("/users/nobody", {"weight": 2}).status_code == 404
    assert boss.patch("/groups/none", {"weight": 2}).status_code == 404


@pytest.mark.parametrize("change", [{"role": "user"}, {"active": False}])
def test_the_last_administrator_stays_one(boss: Person, change: dict[str, Any]) -> None:
    refused = boss.patch("/users/boss", change)
    boss.post("/users", NEW | {"role": "admin"})
    allowed = boss.patch("/users/boss", change)

    assert (refused.status_code, refused.json["code"]) == (409, "last_admin")
    assert allowed.status_code == 200


def test_an_inactive_administrator_is_no_other_administrator(boss: Person) -> None:
    boss.post("/users", NEW | {"role": "admin", "active": False})

    assert boss.patch("/users/boss", {"active": False}).json["code"] == "last_admin"


def test_groups_share_a_weight_and_caps(boss: Person) -> None:
    made = boss.post("/groups", {"name": "physics", "weight": 2, "caps": {"memory_mb": 512}})
    boss.post("/users", NEW | {"group": "physics"})
    taken = boss.post("/groups", {"name": "physics"})

    changed = boss.patch("/groups/physics", {"weight": 5})
    listed = boss.get("/groups")

    GroupAnswer.model_validate_json(made.data)
    GroupList.model_validate_json(listed.data)
    assert (made.status_code, made.json["members"]) == (201, [])
    assert (taken.status_code, taken.json["code"]) == (409, "name_taken")
    assert (changed.json["weight"], changed.json["caps"]["memory_mb"]) == (5, 512)
    assert listed.json["groups"] == [changed.json]
    assert changed.json["members"] == ["zoe"]


def test_an_operator_pauses_an_account_and_the_scheduler_is_woken(
    boss: Person, person: MakePerson, store: Session, redis_client: Redis
) -> None:
    olga, zoe = person("olga", Role.OPERATOR), person("Zoe")

    paused = olga.post("/users/zoe/pause")

    UserAnswer.model_validate_json(paused.data)
    assert (paused.json["username"], paused.json["paused"]) == ("Zoe", True)
    assert zoe.get("/me").json["paused"] is True
    assert store.scalars(select(Feed.kind)).all() == [FeedKind.TERMS]
    assert redis_client.llen(WAKE_KEY) == 1
    assert boss.patch("/users/zoe", {"weight": 2}).json["paused"] is True
    assert olga.post("/users/zoe/resume").json["paused"] is False
    assert olga.post("/users/nobody/pause").status_code == 404


@pytest.mark.parametrize("path", ["/users/zoe", "/groups/physics"])
def test_a_change_of_weights_or_caps_is_fed_to_the_scheduler_and_wakes_it(
    boss: Person, store: Session, redis_client: Redis, path: str
) -> None:
    boss.post("/users", NEW)
    boss.post("/groups", {"name": "physics"})
    redis_client.delete(WAKE_KEY)

    boss.patch(path, {"weight": 2})

    assert store.scalars(select(Feed.kind)).all() == [FeedKind.TERMS]
    assert redis_client.llen(WAKE_KEY) == 1
