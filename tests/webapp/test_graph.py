"""GET /jobs/{job_id}/graph: the whole workflow around a job, and nobody else's."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from scheduler.models import Job
from scheduler.states import Condition, JobStatus, Role
from tests.factories import make_dependency, make_job
from tests.webapp.conftest import MakePerson, Person
from webapp import workflows
from webapp.schemas.workflows import Graph

S = JobStatus


@pytest.fixture
def ann(person: MakePerson) -> Person:
    return person("ann")


def add(store: Session, owner: Person, name: str, *parents: Job, **columns: Any) -> Job:
    """Add a job that waits for *parents*."""
    status = columns.pop("status", S.BLOCKED if parents else S.READY)
    job = make_job(store, owner.user, status, job_id=name, **columns)
    for parent in parents:
        make_dependency(store, job, parent)
    store.commit()
    return job


def edges(graph: dict[str, Any]) -> set[tuple[str, str]]:
    return {(edge["from"], edge["to"]) for edge in graph["edges"]}


@pytest.mark.parametrize("asked", ["fetch", "left", "right", "join", "aside", "elder"])
def test_the_graph_is_the_same_from_every_job_in_it(
    store: Session, ann: Person, asked: str
) -> None:
    fetch = add(store, ann, "fetch")
    left, right = add(store, ann, "left", fetch), add(store, ann, "right", fetch)
    add(store, ann, "join", left, right)
    elder = add(store, ann, "elder", status=S.COMPLETED)
    add(store, ann, "aside", elder, right)
    add(store, ann, "lonely")

    answer = ann.get(f"/jobs/{asked}/graph")

    Graph.model_validate_json(answer.data)
    names = [job["job_id"] for job in answer.json["jobs"]]
    assert names == ["fetch", "left", "right", "join", "elder", "aside"]
    assert edges(answer.json) == {
        ("fetch", "left"),
        ("fetch", "right"),
        ("left", "join"),
        ("right", "join"),
        ("elder", "aside"),
        ("right", "aside"),
    }
    assert answer.json["truncated"] is False


def test_an_edge_says_what_it_waits_for_and_whether_that_came_about(
    store: Session, ann: Person
) -> None:
    parent = add(store, ann, "parent", status=S.FAILED)
    child = add(store, ann, "child", status=S.READY)
    make_dependency(store, child, parent, Condition.FAILED).met = True
    store.commit()

    graph = ann.get("/jobs/child/graph").json

    assert graph["edges"] == [{"from": "parent", "to": "child", "when": "failed", "met": True}]
    assert {job["job_id"]: job["status"] for job in graph["jobs"]} == {
        "parent": S.FAILED,
        "child": S.READY,
    }


def test_a_job_alone_is_its_own_graph(store: Session, ann: Person) -> None:
    add(store, ann, "lonely")

    graph = ann.get("/jobs/lonely/graph").json

    assert [job["job_id"] for job in graph["jobs"]] == ["lonely"]
    assert graph["edges"] == []


def test_a_graph_too_large_to_tell_keeps_what_is_nearest_and_says_so(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "JOBS_SHOWN", 3)
    before = add(store, ann, "step0")
    for number in range(1, 7):
        before = add(store, ann, f"step{number}", before)

    graph = ann.get("/jobs/step3/graph").json

    assert {job["job_id"] for job in graph["jobs"]} == {"step2", "step3", "step4"}
    assert edges(graph) == {("step2", "step3"), ("step3", "step4")}
    assert graph["truncated"] is True


def test_too_many_edges_are_cut_and_told(
    store: Session, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "EDGES_SHOWN", 2)
    hub = add(store, ann, "hub")
    for number in range(3):
        add(store, ann, f"spoke{number}", hub)

    graph = ann.get("/jobs/hub/graph").json

    assert (len(graph["jobs"]), len(graph["edges"]), graph["truncated"]) == (4, 2, True)


def test_somebody_elses_graph_is_not_there_but_for_operators(
    store: Session, ann: Person, person: MakePerson
) -> None:
    bob, olga = person("bob"), person("olga", Role.OPERATOR)
    add(store, ann, "anns")

    assert bob.get("/jobs/anns/graph").status_code == 404
    assert bob.get("/jobs/anns/graph?owner=ann").status_code == 404
    assert [job["job_id"] for job in olga.get("/jobs/anns/graph").json["jobs"]] == ["anns"]


def test_a_graph_costs_the_same_number_of_statements_however_large(
    store: Session, ann: Person, statements: list[str]
) -> None:
    ann.get("/jobs")  # notes the use of the token, which later reads do not
    costs = []

    for size in (1, 30):
        hub = add(store, ann, f"hub{size}")
        for number in range(size):
            add(store, ann, f"spoke{size}_{number}", hub)
        statements.clear()
        assert len(ann.get(f"/jobs/hub{size}/graph").json["jobs"]) == size + 1
        costs.append(len(statements))

    assert costs[0] == costs[1]
