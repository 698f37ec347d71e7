"""Lists come in pages: every one of them, to the end, and from no cursor but ours."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from scheduler.models import Attempt
from scheduler.states import JobStatus, Role
from tests.factories import NOON, make_group, make_job, make_type, make_user
from tests.webapp.conftest import MakePerson, Person, add_token
from webapp import cursors
from webapp.endpoints import endpoints_of
from webapp.errors import Problem
from webapp.schemas.groundwork import Page

WHOLE = {"read_graph", "list_workers", "list_simple_jobs"}
"""What is answered whole: a workflow that is cut off, the few workers, and a foreign protocol."""


@dataclass(frozen=True)
class Listed:
    """A list of the contract, what makes *some* entries, and what each entry is called by."""

    path: str
    name: str
    key: str
    some: Callable[[Session, Person], list[Any]]


def _users(store: Session, boss: Person) -> list[Any]:
    for name in ("Cleo", "ann", "Bob"):
        make_user(store, name)
    return ["ann", "Bob", boss.user.username, "Cleo"]


def _groups(store: Session, boss: Person) -> list[Any]:
    group = make_group(store, "physics")
    make_group(store, "zoology")
    make_group(store, "arts")
    boss.user.group_id = group.id
    return ["arts", "physics", "zoology"]


def _types(store: Session, _: Person) -> list[Any]:
    for name in ("scan", "report"):
        make_type(store, name)
    return ["report", "scan", "simulate"]


def _tokens(store: Session, boss: Person) -> list[Any]:
    for _ in range(2):
        add_token(store, boss.user, set())
    return [3, 2, 1]


def _attempts(store: Session, boss: Person) -> list[Any]:
    job = make_job(store, boss.user, JobStatus.RUNNING, job_id="tried", attempt=3)
    for number in (1, 2):
        store.add(
            Attempt(
                job_id=job.id, attempt=number, worker="w", pid=1, queued_at=NOON, started_at=NOON,
                finished_at=NOON, outcome="failed",
            )
        )  # fmt: skip
    return [1, 2, 3]


LISTS = (
    Listed("/users", "users", "username", _users),
    Listed("/groups", "groups", "name", _groups),
    Listed("/types", "types", "name", _types),
    Listed("/tokens", "tokens", "id", _tokens),
    Listed("/jobs/tried/attempts", "attempts", "attempt", _attempts),
)


@pytest.fixture
def boss(person: MakePerson) -> Person:
    return person("boss", Role.ADMIN)


@pytest.mark.parametrize("listed", LISTS, ids=lambda one: one.name)
def test_a_list_is_read_page_after_page_to_its_end(
    boss: Person, store: Session, listed: Listed
) -> None:
    expected = listed.some(store, boss)
    store.commit()

    found: list[Any] = []
    cursor = ""
    while cursor is not None:
        told = boss.get(f"{listed.path}?limit=2{cursor and f'&cursor={cursor}'}").json
        found.append([one[listed.key] for one in told[listed.name]])
        cursor = told["next_cursor"]

    assert found == [expected[:2], expected[2:]]
    whole = boss.get(listed.path).json
    assert ([one[listed.key] for one in whole[listed.name]], whole["next_cursor"]) == (
        expected,
        None,
    )


@pytest.mark.parametrize("listed", LISTS, ids=lambda one: one.name)
@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "ü",
        cursors.write_cursor(1, 2),
        cursors.write_cursor("a\0b"),
        cursors.write_cursor(2**63),
        cursors.write_cursor(-1),
        "W1tb" * 450,  # lists in lists
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(
    boss: Person, store: Session, listed: Listed, cursor: str
) -> None:
    listed.some(store, boss)
    store.commit()

    answer = boss.get(listed.path, query_string={"cursor": cursor})

    assert (answer.status_code, answer.json["code"]) == (422, "invalid_cursor")


def test_a_group_tells_its_members_on_whatever_page(boss: Person, store: Session) -> None:
    _groups(store, boss)
    make_user(store, "Ann", group_id=boss.user.group_id)
    store.commit()

    groups = {one["name"]: one["members"] for one in boss.get("/groups").json["groups"]}

    assert groups == {"arts": [], "zoology": [], "physics": ["Ann", "boss"]}


def test_every_list_comes_in_pages(app: Flask) -> None:
    lists = {
        endpoint.view: endpoint
        for endpoint in endpoints_of(app)
        if endpoint.method == "GET" and any(_is_list(m) for m in endpoint.answers.values() if m)
    }

    in_pages = {
        name
        for name, one in lists.items()
        if one.query and issubclass(one.query, Page) and "invalid_cursor" in one.refuses
    }

    assert set(lists) - in_pages == WHOLE


@pytest.mark.parametrize(
    "instant", [NOON, datetime(9999, 12, 31, 23, 59, 59, 999_999, NOON.tzinfo)]
)
def test_an_instant_comes_back_from_its_place(instant: datetime) -> None:
    a_moment_later = timedelta(microseconds=1)

    assert cursors.instant_at(cursors.place_of(instant)) == instant
    assert cursors.place_of(NOON + a_moment_later) == cursors.place_of(NOON) + 1


def test_a_place_beyond_all_time_is_refused() -> None:
    with pytest.raises(Problem, match="cursor"):
        cursors.instant_at(2**62)


def _is_list(model: Any) -> bool:
    return str(next(iter(model.model_fields.values())).annotation).startswith("list[")
