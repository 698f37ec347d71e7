"""The scenarios, submitted over HTTP and run by real workers."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services import Services, Stack
from tests.system.client import Body, Client, at, overlap, started_order
from tests.system.history import Step, assert_never_above, history, reserved

SCENARIOS = Path(__file__).parent / "scenarios"
SHARED = ("web", "scheduler")

Story = Callable[[], list[Step]]
"""Tells what has happened to jobs since the test began."""

_turns = itertools.count(1)


@pytest.fixture(scope="module")
def shared(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(services, tmp_path_factory.mktemp("scenarios")) as stack:
        stack.start(*SHARED)
        yield stack


@pytest.fixture(scope="module")
def first_admin(shared: Stack) -> Iterator[Client]:
    client = Client.admin(shared)
    yield client
    client.close()


@pytest.fixture
def stack(shared: Stack, first_admin: Client) -> Iterator[Stack]:
    """One stack for all scenarios; each has its own people and workers, and sets the capacity."""
    policy = first_admin.get("/policy")
    yield shared
    for name in set(shared.running()) - set(SHARED):
        shared.stop(name)
    set_capacity(first_admin, policy["capacity"])


@pytest.fixture
def admin(stack: Stack, first_admin: Client) -> Client:
    """An administrator who has submitted nothing yet."""
    return first_admin.make_user(f"admin_{next(_turns)}", role="admin")


@pytest.fixture
def story(stack: Stack) -> Story:
    before = history(stack.database_url)
    return partial(history, stack.database_url, after=before[-1].seq if before else 0)


def scenario(number: int) -> dict[str, Any]:
    """Return a scenario, its users with names that no other test has."""
    (path,) = SCENARIOS.glob(f"{number}-*.json")
    given = dict(json.loads(path.read_text()))
    turn = next(_turns)
    for user in given.get("users", []):
        user["username"] += f"_{turn}"
    for job in given["jobs"]:
        if "owner" in job:
            job["owner"] += f"_{turn}"
    return given


def set_capacity(admin: Client, capacity: Mapping[str, Any]) -> None:
    policy = admin.get("/policy")
    answer = admin.call("PUT", "/policy", json={**policy, "capacity": capacity})
    assert answer.status_code == 200, answer.text


def run(admin: Client, given: Mapping[str, Any]) -> dict[str, Body]:
    return admin.wait_for_all(admin.submit_batch(given["jobs"]))


def statuses(jobs: Iterable[Mapping[str, Any]]) -> set[str]:
    return {job["status"] for job in jobs}


def test_scenario_1_classes_start_in_order_on_one_busy_processor(
    stack: Stack, admin: Client, story: Story
) -> None:
    given = scenario(1)
    set_capacity(admin, given["capacity"])
    stack.start_worker(FAIRQ_WORKER_PROCESSES="1,1")
    busy = admin.submit(payload={"duration_seconds": 1})
    admin.wait_for(busy["job_id"], "running")

    jobs = run(admin, given)

    by_id = {job["job_id"]: job for job in jobs.values()}
    started = [by_id[job_id]["priority"] for job_id in started_order(jobs.values())]
    assert started == ["critical", "normal", "low"]
    assert statuses(jobs.values()) == {"completed"}
    assert_never_above(story(), **given["capacity"])


def test_scenario_1_what_is_reserved_matches_what_runs(
    stack: Stack, admin: Client, story: Story
) -> None:
    given = scenario(1)
    stack.start_worker(FAIRQ_WORKER_PROCESSES="4,4")

    jobs = run(admin, given)

    assert statuses(jobs.values()) == {"completed"}
    sizes = {
        job_id: (
            job["resource_requirements"]["cpu_units"],
            job["resource_requirements"]["memory_mb"],
        )
        for job_id, job in jobs.items()
    }
    for moment in reserved(story()):
        assert moment.cpu_units == sum(sizes[job][0] for job in moment.jobs)
        assert moment.memory_mb == sum(sizes[job][1] for job in moment.jobs)
    assert moment.jobs == frozenset()


def test_scenario_2_a_chain_runs_in_order(stack: Stack, admin: Client) -> None:
    stack.start_worker()

    jobs = run(admin, scenario(2))

    chain = [jobs[name] for name in ("fetch_data_001", "process_data_001", "generate_report_001")]
    assert statuses(chain) == {"completed"}
    for parent, child in itertools.pairwise(chain):
        assert at(parent, "finished_at") <= at(child, "ready_at") <= at(child, "started_at")
    for child in chain[1:]:
        events = admin.get(f"/jobs/{child['job_id']}/events")["events"]
        assert [event["status"] for event in events] == [
            "blocked",
            "ready",
            "queued",
            "running",
            "completed",
        ]


def test_scenario_2_descendants_of_a_failed_job_never_run(stack: Stack, admin: Client) -> None:
    given = scenario(2)
    given["jobs"][0] |= {
        "type": "simulate",
        "payload": {"fail_attempts": 99, "retryable": False},
    }
    stack.start_worker()

    jobs = run(admin, given)

    assert jobs["fetch_data_001"]["status"] == "failed"
    for name in ("process_data_001", "generate_report_001"):
        assert jobs[name]["status"] == "cancelled"
        assert jobs[name]["reason"] == "dependency_failed"
        assert jobs[name]["started_at"] is None
        assert admin.get(f"/jobs/{name}/attempts")["attempts"] == []


def test_scenario_3_a_graph_runs_level_by_level(stack: Stack, admin: Client) -> None:
    given = scenario(3)
    stack.start_worker()

    jobs = run(admin, given)

    assert statuses(jobs.values()) == {"completed"}
    for one in given["jobs"]:
        for parent in one.get("depends_on", []):
            assert at(jobs[parent], "finished_at") <= at(jobs[one["job_id"]], "started_at")
    assert overlap(jobs["fetch_prices"], jobs["fetch_volumes"])
    assert overlap(jobs["trader_report"], jobs["risk_report"])
    assert overlap(jobs["trader_report"], jobs["send_notifications"])
    assert overlap(jobs["risk_report"], jobs["send_notifications"])


def test_scenario_4_nothing_exceeds_the_capacity_and_light_jobs_fill_gaps(
    stack: Stack, admin: Client, story: Story
) -> None:
    given = scenario(4)
    set_capacity(admin, given["capacity"])
    stack.start_worker(FAIRQ_WORKER_PROCESSES="8,8")

    jobs = run(admin, given)

    assert statuses(jobs.values()) == {"completed"}
    steps = story()
    assert_never_above(steps, **given["capacity"])
    heavy_at_once = [sum("heavy" in job for job in moment.jobs) for moment in reserved(steps)]
    assert max(heavy_at_once) == 2
    heavies = [job for job in started_order(jobs.values()) if job.startswith("heavy")]
    assert set(heavies[:2]) == {"heavy_1", "heavy_2"}
    for third, freed in (("heavy_3", 1), ("heavy_4", 2)):
        ends = sorted(at(jobs[name], "finished_at") for name in ("heavy_1", "heavy_2"))
        delay = at(jobs[third], "queued_at") - ends[freed - 1]
        assert delay.total_seconds() < 0.4, f"{third} was delayed by jobs behind it"


def test_scenario_5_failures_are_retried_as_told_and_end_as_dead_letters(
    stack: Stack, admin: Client
) -> None:
    stack.start_worker()

    jobs = run(admin, scenario(5))

    tries = {name: admin.get(f"/jobs/{name}/attempts")["attempts"] for name in jobs}
    assert {name: (job["status"], len(tries[name])) for name, job in jobs.items()} == {
        "flaky": ("completed", 3),
        "too_slow": ("failed", 2),
        "hopeless": ("failed", 2),
        "not_retryable": ("failed", 1),
        "child_of_hopeless": ("cancelled", 0),
        "grandchild_of_hopeless": ("cancelled", 0),
    }
    assert_about(pauses(tries["flaky"]), [1, 2])
    assert_about(pauses(tries["hopeless"]), [1])
    assert_about(pauses(tries["too_slow"]), [1])
    assert_about(lengths(tries["too_slow"]), [1, 1])
    assert {one["error"]["type"] for one in tries["too_slow"]} == {"TimeLimitExceeded"}
    for name in ("child_of_hopeless", "grandchild_of_hopeless"):
        assert jobs[name]["reason"] == "dependency_failed"
        assert jobs[name]["started_at"] is None
    assert dead_letters_among(admin, jobs) == {"too_slow", "hopeless", "not_retryable"}

    answer = admin.call(
        "POST",
        "/dead-letters/retry",
        json={"job_ids": ["hopeless"], "payload": {"fail_attempts": 0}},
    )

    assert answer.json()["retried"] == 1
    for name in ("hopeless", "child_of_hopeless", "grandchild_of_hopeless"):
        assert admin.wait_for(name, "completed")["reason"] is None
    assert dead_letters_among(admin, jobs) == {"too_slow", "not_retryable"}


def dead_letters_among(admin: Client, jobs: Iterable[str]) -> set[str]:
    """Return which of these jobs are dead letters; other scenarios left some of their own."""
    return {letter["job_id"] for letter in admin.get("/dead-letters")["jobs"]} & set(jobs)


def pauses(tries: list[Body]) -> list[float]:
    """Return the seconds from the end of each attempt to the start of the next."""
    return [
        (at(after, "started_at") - at(before, "finished_at")).total_seconds()
        for before, after in itertools.pairwise(tries)
    ]


def lengths(tries: list[Body]) -> list[float]:
    return [(at(one, "finished_at") - at(one, "started_at")).total_seconds() for one in tries]


def assert_about(seconds: list[float], wanted: list[float]) -> None:
    """Check recorded times: never too early, and late by no more than scheduling takes."""
    assert len(seconds) == len(wanted)
    for one, due in zip(seconds, wanted, strict=True):
        assert due - 0.01 <= one <= due + 1.5, (seconds, wanted)


def test_scenario_6_a_circle_is_named_and_nothing_is_stored(
    stack: Stack, admin: Client, story: Story
) -> None:
    answer = admin.call("POST", "/jobs/batch", json={"jobs": scenario(6)["jobs"]})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "dependency_cycle"
    assert problem["cycle"] == ["job_a", "job_c", "job_b", "job_a"]
    assert admin.get("/jobs", owner=admin.username)["jobs"] == []
    assert story() == []


def test_scenario_8_a_client_of_the_simple_queue_protocol_is_served(
    stack: Stack, admin: Client
) -> None:
    """The client knows an address, a name and a password, and nothing of tokens."""
    (path,) = SCENARIOS.glob("8-*.json")
    steps = json.loads(path.read_text())["steps"]
    token = admin.call("POST", "/tokens", json={"name": "q", "scopes": ["read", "submit", "work"]})
    with httpx.Client(base_url=stack.url, auth=("queue", token.json()["token"])) as client:

        def call(step: Mapping[str, Any]) -> httpx.Response:
            method, _, target = step["call"].partition(" ")
            return client.request(method, target, json=step.get("body"))

        submit, again, take, take_more, complete = steps
        job = {**submit["body"], "state": "submitted"}
        assert call(submit).json() == job
        assert call(again).json() == job
        assert client.get("/simplequeue/jobs").json() == [job]
        assert call(take).json() == {**job, "state": "running"}
        assert call(take_more).status_code == 404
        assert call(complete).json() == {**job, "state": "succeeded"}
        assert client.get("/simplequeue/jobs").json() == [{**job, "state": "succeeded"}]


@pytest.mark.parametrize("processes", [1, 4])
def test_scenario_7_starts_follow_the_weights(stack: Stack, admin: Client, processes: int) -> None:
    given = scenario(7)
    gold, bronze = (admin.make_user(**user).username for user in given["users"])
    # Before there is a worker: all of it waits. Of bronze's jobs more than those 40 starts take.
    submitted = admin.submit_batch(given["jobs"][:45])
    stack.start_worker(FAIRQ_WORKER_PROCESSES=f"{processes},{processes}")

    jobs = admin.wait_for_all(submitted)

    assert statuses(jobs.values()) == {"completed"}
    order = started_order(jobs.values())
    owners = [jobs[job_id]["owner"] for job_id in order]
    assert bronze in owners[:4]
    for count in range(4, 41, 4):  # gold's 30 jobs last for 40 starts
        assert abs(owners[:count].count(bronze) - count / 4) <= 1, owners[:count]
    for owner in (gold, bronze):
        own = [job_id for job_id in order if jobs[job_id]["owner"] == owner]
        in_line = [job["job_id"] for job in given["jobs"] if job["owner"] == owner]
        places = [in_line.index(job_id) for job_id in own]
        # Several processes claim at the same moment; beyond that nobody passes a job of their own.
        assert all(abs(place - turn) < processes for turn, place in enumerate(places))


def test_scenario_7_more_processors_shorten_the_run_in_proportion(
    stack: Stack, admin: Client
) -> None:
    spans = {}
    for processes in (2, 4):
        given = scenario(7)
        for user in given["users"]:
            admin.make_user(**user)
        name = f"of_{processes}"
        stack.start_worker(name, FAIRQ_WORKER_PROCESSES=f"{processes},{processes}")
        every_process_has_run_a_job(admin, processes)
        # Fewer and longer jobs: what a busy machine adds to each weighs less.
        jobs = [{**job, "payload": {"duration_seconds": 0.5}} for job in given["jobs"][::4]]
        done = admin.wait_for_all(admin.submit_batch(jobs[:16])).values()
        spans[processes] = max(at(job, "finished_at") for job in done) - min(
            at(job, "started_at") for job in done
        )
        assert stack.stop(name) == 0
    assert 1.5 < spans[2] / spans[4] < 2.5


def every_process_has_run_a_job(admin: Client, processes: int) -> None:
    """Run jobs at the same time, one in each process: the first job of a process takes longer."""
    job = {"type": "simulate", "payload": {"duration_seconds": 1}}
    done = admin.wait_for_all(admin.submit_batch([job] * processes)).values()
    assert all(overlap(one, other) for one, other in itertools.combinations(done, 2))
