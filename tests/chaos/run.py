"""One run: a world, a load, a schedule of faults, and what is recorded of it when all is quiet."""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path

import psycopg

from tests.chaos.audit import audit
from tests.chaos.errand import TYPE
from tests.chaos.faults import strike
from tests.chaos.history import History
from tests.chaos.load import OWNERS, Body, Load, Order, orders
from tests.chaos.record import Record, Struck
from tests.chaos.recovery import recoveries
from tests.chaos.report import Plan, Run
from tests.chaos.schedule import WORKER_NAMES, Kind, Strike, schedule
from tests.chaos.world import CAPACITY, PROCESSES, World
from tests.services import eventually

_ANSWER_PATIENCE = 60.0
_SETTLE_PATIENCE = 240.0
_ROLL_CALLS = 6
_LOOK_SECONDS = 0.2


def play(plan: Plan, directory: Path) -> Run:
    """Make a world in *directory*, make trouble there, and audit what is left of it."""
    with World(directory) as world:
        without = frozenset() if world.disk.is_small else frozenset({Kind.DISK_FULL})
        struck = _make_trouble(world, plan, schedule(plan.seed, plan.seconds, without))
        _settle(world)
        _call_the_roll(world, plan.seed)
        _settle(world)
        record = _read(world, struck)
    breaches = audit(record)
    if breaches:
        _keep(record, directory / "events.jsonl")
    return Run(
        plan=plan,
        breaches=breaches,
        recoveries=recoveries(record),
        missed=[each.strike.kind for each in struck if each.hit is None],
        counts=record.counts(),
        answers=dict(world.answers.statuses),
    )


def _keep(record: Record, path: Path) -> None:
    """Leave the history to whoever looks into it: the database ends with its disk."""
    with path.open("w") as file:
        for event in record.events:
            file.write(json.dumps(asdict(event), default=str) + "\n")


def _make_trouble(world: World, plan: Plan, planned: Sequence[Strike]) -> Sequence[Struck]:
    world.load.start()
    asked = orders(plan.seed, plan.seconds, plan.rate)
    playing = world.hands.submit(world.load.play, asked, threading.Event())
    struck = _strike_all(world, planned)
    playing.result()
    if not world.load.finish(_ANSWER_PATIENCE):
        world.incidents.append("some orders were not answered although all was well again")
    return struck


def _strike_all(world: World, planned: Sequence[Strike]) -> Sequence[Struck]:
    began, under_way = time.monotonic(), []
    for each in planned:
        world.wait(began + each.at - time.monotonic())
        under_way.append((each, world.hands.submit(strike, world, each)))
    found = [_outcome(world, *one) for one in under_way]
    return [struck for struck in found if struck is not None]


def _outcome(world: World, planned: Strike, under_way: Future[Struck]) -> Struck | None:
    try:
        return under_way.result()
    except AssertionError as problem:
        world.incidents.append(
            f"{planned.kind} at {planned.at} s could not be put right: {problem}"
        )
        return None


def _settle(world: World) -> None:
    """Wait until everything there is to do is done; what is not in time, the audit tells."""
    with world.connect() as connection:
        history = History(connection)
        try:
            eventually(
                lambda: not any(history.left().values()),
                within=_SETTLE_PATIENCE,
                every=_LOOK_SECONDS,
            )
        except AssertionError:
            return


def _call_the_roll(world: World, seed: int) -> None:
    """See that every worker takes work again; one that is connected and deaf would not."""
    missing = set(WORKER_NAMES)
    with world.connect() as connection:
        for call in range(_ROLL_CALLS):
            after = _last_event(connection)
            _submit(world, seed, call)
            _settle(world)
            missing -= _began_something(connection, after)
            if not missing:
                return
    world.incidents.append(f"{sorted(missing)} take no work")


def _submit(world: World, seed: int, call: int) -> None:
    """Submit as many jobs as there are processes."""
    load = Load(world.stack.url, world.load.tokens, world.answers)
    load.start()
    names = [f"roll-{seed}-{call}-{number}" for number in range(PROCESSES * len(WORKER_NAMES))]
    load.put(Order(0.0, OWNERS[0], tuple(_roll(name) for name in names)))
    load.finish(_ANSWER_PATIENCE)


def _roll(name: str) -> Body:
    return {
        "job_id": name,
        "type": TYPE,
        "payload": {"duration_seconds": 0.5, "records": True},
        "resource_requirements": {"cpu_units": 0.1, "memory_mb": 16},
    }


def _last_event(connection: psycopg.Connection[tuple[int, ...]]) -> int:
    row = connection.execute("SELECT COALESCE(max(seq), 0) FROM job_events").fetchone()
    return row[0] if row else 0


def _began_something(connection: psycopg.Connection[tuple[str, ...]], after: int) -> set[str]:
    query = "SELECT data ->> 'worker' FROM job_events WHERE verb = 'start' AND seq > %s"
    return {worker.partition("@")[0] for (worker,) in connection.execute(query, [after])}


def _read(world: World, struck: Sequence[Struck]) -> Record:
    answers = world.answers
    with world.connect() as connection:
        history = History(connection)
        return Record(
            jobs=history.jobs(),
            events=history.events(),
            outcomes=history.outcomes(),
            edges=history.edges(),
            effects=history.effects(),
            left=history.left(),
            bounds=CAPACITY,
            accepted=frozenset(answers.accepted),
            cancelled=frozenset(answers.cancelled),
            struck=struck,
            incidents=[*world.incidents, *answers.wrong],
        )
