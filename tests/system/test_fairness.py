"""What the policy promises, measured on running processes by the timestamps the server wrote."""

import json
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import class_row

from scheduler.lease import FROZEN_AFTER
from scheduler.policy.engine import Engine
from scheduler.policy.parameters import (
    ALLOWANCE_JOBS,
    ALLOWANCE_TIME,
    EXPRESS_REFILL,
    RESERVATION_HARDENS,
)
from scheduler.service import STANDBY_PAUSE
from scheduler.simulate.jobs import JobList
from scheduler.simulate.loop import Simulation
from scheduler.simulate.workload import listed
from scheduler.states import JobClass
from tests.services import Stack, eventually
from tests.system.client import Body, Client, at, started_order
from tests.system.history import assert_never_above, history

pytestmark = pytest.mark.alone

SCENARIOS = Path(__file__).parent / "scenarios"
SECOND = timedelta(seconds=1)
SLOTS = 8
WHOLE = {"cpu_units": 8.0, "memory_mb": 4096}
WEIGHTS = {"gold": 4.0, "silver": 2.0, "bronze": 1.0, "urgent": 1.0}
BACKLOG = {"gold": 900, "silver": 450, "bronze": 250, "urgent": 700}
SHORTEST, LONGEST = 0.1, 0.5  # seconds
SATURATED = 30 * SECOND
LARGEST = LONGEST / SLOTS  # machine-seconds of the largest job
MEAN = (SHORTEST + LONGEST) / 2 / SLOTS


@dataclass(frozen=True)
class Ran:
    """One run of a job, as the server recorded it."""

    owner: str
    job_id: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


# Shares


@pytest.mark.timeout(400)
def test_users_receive_their_shares_and_a_small_users_job_starts_at_once(
    stack: Stack, admin: Client
) -> None:
    people = {name: admin.make_user(name, weight=weight) for name, weight in WEIGHTS.items()}
    small = admin.make_user("small")
    chance = random.Random(1)  # noqa: S311 - makes load, hides nothing
    for name, person in people.items():
        priority = "critical" if name == "urgent" else "normal"
        _submit_backlog(person, BACKLOG[name], priority, chance)

    stack.start_worker(FAIRQ_WORKER_PROCESSES=f"{SLOTS},{SLOTS}")
    begin = eventually(lambda: _first_start(stack))
    eventually(lambda: _now(stack) > begin + SATURATED / 2, every=0.5)
    job = small.submit(payload={"duration_seconds": 0.2})
    eventually(lambda: _now(stack) > begin + SATURATED, every=0.5, within=60)
    end = begin + SATURATED
    runs = _runs(stack)

    (mine,) = [run for run in runs if run.job_id == job["job_id"]]
    assert mine.started_at
    assert mine.started_at - mine.created_at < 2 * SECOND
    waiting = Counter(run.owner for run in runs if not run.started_at or run.started_at > end)
    assert set(waiting) >= set(WEIGHTS), "somebody ran out of work"
    _assert_shares(_received(runs, begin, end))


def _submit_backlog(person: Client, count: int, priority: str, chance: random.Random) -> None:
    jobs = [
        {
            "type": "simulate",
            "priority": priority,
            "payload": {"duration_seconds": round(chance.uniform(SHORTEST, LONGEST), 3)},
        }
        for _ in range(count)
    ]
    for first in range(0, count, 450):
        person.submit_batch(jobs[first : first + 450])


def _first_start(stack: Stack) -> datetime | None:
    return min((run.started_at for run in _runs(stack) if run.started_at), default=None)


def _received(runs: Iterable[Ran], begin: datetime, end: datetime) -> dict[str, float]:
    """Return the machine-seconds of everybody between two instants."""
    received: dict[str, float] = defaultdict(float)
    for run in runs:
        if run.started_at is not None:
            until = min(end, run.finished_at or end)
            inside = (until - max(begin, run.started_at)).total_seconds()
            received[run.owner] += max(0.0, inside) / SLOTS
    return received


def _assert_shares(received: Mapping[str, float]) -> None:
    """Check everybody's part of all, and the parts of those without urgent work among themselves.

    What the urgent one may be ahead by is missing in everybody else's part of all, so the second
    look is the sharper one: nobody in it may be ahead by more than two jobs.
    """
    due = _due(received, list(WEIGHTS))
    ahead = WEIGHTS["urgent"] * max(
        ALLOWANCE_TIME[JobClass.CRITICAL].total_seconds() / sum(WEIGHTS.values()),
        ALLOWANCE_JOBS[JobClass.CRITICAL] * MEAN / EXPRESS_REFILL / WEIGHTS["urgent"],
    )
    for name in WEIGHTS:
        off = received[name] - due[name]
        assert abs(off) <= 0.05 * due[name] + ahead + 2 * LARGEST, (name, received, due)
    assert received["urgent"] >= 0.95 * due["urgent"] - 2 * LARGEST
    patient = [name for name in WEIGHTS if name != "urgent"]
    due = _due(received, patient)
    for name in patient:
        off = received[name] - due[name]
        assert abs(off) <= 0.05 * due[name] + 2 * LARGEST, (name, received, due)


def _due(received: Mapping[str, float], names: list[str]) -> dict[str, float]:
    total, weights = sum(received[name] for name in names), sum(WEIGHTS[name] for name in names)
    return {name: total * WEIGHTS[name] / weights for name in names}


# A wide job


def test_a_wide_job_starts_behind_an_endless_stream_of_narrow_ones(
    stack: Stack, admin: Client
) -> None:
    longest = 1.0
    streams = [admin.make_user(name) for name in ("one", "other")]
    wide = admin.make_user("wide")
    for stream in streams:
        stream.submit_batch(
            {"type": "simulate", "payload": {"duration_seconds": longest - 0.1 * (n % 5)}}
            for n in range(150)
        )
    stack.start_worker(FAIRQ_WORKER_PROCESSES=f"{SLOTS},{SLOTS}")
    eventually(lambda: len(admin.get("/jobs", status="completed")["jobs"]) >= 2 * SLOTS, every=0.2)

    job = wide.submit(
        payload={"duration_seconds": 0.2}, resource_requirements={"cpu_units": 8, "memory_mb": 64}
    )
    job = wide.wait_for(job["job_id"], "completed", within=60)

    slack = 2.0  # for processes that share few processors
    waited = at(job, "started_at") - at(job, "created_at")
    assert waited < RESERVATION_HARDENS + (longest + slack) * SECOND
    started = at(job, "started_at")
    assert any(run.started_at and run.started_at > started for run in _runs(stack)) or any(
        run.started_at is None for run in _runs(stack)
    ), "the stream had ended"
    assert_never_above_so_far(stack)


# A frozen leader


def test_a_frozen_leader_is_replaced_and_changes_nothing_when_it_is_back(
    stack: Stack, admin: Client
) -> None:
    stack.start("scheduler2")
    stack.start_worker()
    first = admin.submit(payload={"duration_seconds": 0})
    admin.wait_for(first["job_id"], "completed")

    os.kill(stack.pid("scheduler"), signal.SIGSTOP)
    frozen_at = _now(stack)
    jobs = admin.submit_batch(
        {"type": "simulate", "payload": {"duration_seconds": 0.1}} for _ in range(40)
    )
    taken_over_at = eventually(lambda: _first_admission(stack, epoch=2))
    assert taken_over_at - frozen_at < 5 * SECOND + FROZEN_AFTER + STANDBY_PAUSE

    os.kill(stack.pid("scheduler"), signal.SIGCONT)
    eventually(lambda: "database away" in stack.log("scheduler") or _is_told_off(stack))
    more = admin.submit_batch(
        {"type": "simulate", "payload": {"duration_seconds": 0.1}} for _ in range(40)
    )
    done = admin.wait_for_all([*jobs, *more])

    assert {job["status"] for job in done.values()} == {"completed"}
    assert _epochs(stack) == [1] + [2] * 80
    assert Counter(step.verb for step in history(stack.database_url))["admit"] == 81
    assert_never_above(history(stack.database_url), **WHOLE)
    stack.kill("scheduler2")  # the one that was frozen has stood by meanwhile
    last = admin.submit(payload={"duration_seconds": 0})
    admin.wait_for(last["job_id"], "completed")
    assert _epochs(stack)[-1] == 3


def _is_told_off(stack: Stack) -> bool:
    return "lost the lead" in stack.log("scheduler")


def _first_admission(stack: Stack, *, epoch: int) -> datetime | None:
    rows = _select(
        stack,
        "SELECT min(at) FROM job_events WHERE verb = 'admit' AND (data ->> 'epoch')::int = %s",
        epoch,
    )
    return rows[0][0]  # type: ignore[no-any-return]


def _epochs(stack: Stack) -> list[int]:
    """Return by whom each admission was made, in order."""
    query = "SELECT (data ->> 'epoch')::int FROM job_events WHERE verb = 'admit' ORDER BY seq"
    return [row[0] for row in _select(stack, query)]


# The same order as the simulator


@pytest.mark.parametrize("number", [1, 4])
def test_jobs_start_in_the_simulators_order_on_one_busy_processor(
    stack: Stack, admin: Client, number: int
) -> None:
    given = _scenario(number)
    for place, job in enumerate(given["jobs"]):
        job.setdefault("job_id", f"job_{place}")
    stack.start_worker(FAIRQ_WORKER_PROCESSES="1,1")
    busy = {"type": "simulate", "job_id": "busy", "payload": {"duration_seconds": 1}}
    admin.submit_batch([busy])
    admin.wait_for("busy", "running")

    done = admin.wait_for_all(admin.submit_batch(given["jobs"]))

    first = {**busy, "priority": "critical"}  # so that it is the first of them there, too
    _, *simulated = _simulated(given | {"jobs": [first, *given["jobs"]]}, processes=1)
    assert started_order(done.values()) == simulated


def test_owners_take_turns_as_in_the_simulator(stack: Stack, admin: Client) -> None:
    given = _scenario(7)
    for user in given["users"]:
        admin.make_user(**user)
    submitted = admin.submit_batch(given["jobs"])
    stack.start_worker(FAIRQ_WORKER_PROCESSES="1,1")
    done = admin.wait_for_all(submitted)

    live, simulated = started_order(done.values()), _simulated(given, processes=1)

    for count in range(1, 41):  # then gold has nothing left
        bronze = [_count_of("b", order[:count]) for order in (live, simulated)]
        assert abs(bronze[0] - bronze[1]) <= 1, (live, simulated)
    for owner in "gb":
        own = [[name for name in order if name[0] == owner] for order in (live, simulated)]
        assert own[0] == own[1]


def _count_of(letter: str, names: Iterable[str]) -> int:
    return sum(name.startswith(letter) for name in names)


def _scenario(number: int) -> dict[str, Any]:
    (path,) = SCENARIOS.glob(f"{number}-*.json")
    return dict(json.loads(path.read_text()))


def _simulated(given: Mapping[str, Any], *, processes: int) -> list[str]:
    """Return the ids of jobs in the order in which the simulator starts them."""
    capacity = {**WHOLE, **given.get("capacity", {}), "processes": processes}
    body: Body = {"name": "given", **given, "capacity": capacity}
    runs = Simulation(listed(JobList.model_validate(body)), Engine()).run()
    started = [run for run in runs if run.started is not None]
    return [run.job.name for run in sorted(started, key=lambda run: run.started or 0.0)]


# What the server recorded


def assert_never_above_so_far(stack: Stack) -> None:
    most = _select(stack, _MOST_HELD)[0][0]
    assert most <= WHOLE["cpu_units"]


_MOST_HELD = """
SELECT max(held) FROM (
    SELECT sum(CASE verb WHEN 'admit' THEN cpu_units WHEN 'succeed' THEN -cpu_units ELSE 0 END)
        OVER (ORDER BY seq) AS held
    FROM job_events JOIN jobs ON jobs.id = job_events.job_id
) AS history
"""

_RUNS = """
SELECT username AS owner, jobs.job_id, jobs.created_at, started_at, finished_at
FROM jobs JOIN users ON users.id = jobs.owner_id
"""


def _runs(stack: Stack) -> list[Ran]:
    with (
        psycopg.connect(stack.database_url) as connection,
        connection.cursor(row_factory=class_row(Ran)) as cursor,
    ):
        return cursor.execute(_RUNS).fetchall()


def _now(stack: Stack) -> datetime:
    return _select(stack, "SELECT clock_timestamp()")[0][0]  # type: ignore[no-any-return]


def _select(stack: Stack, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(stack.database_url) as connection:
        return connection.execute(query, parameters).fetchall()  # type: ignore[arg-type]
