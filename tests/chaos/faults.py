"""Faults on real processes: what each does, to whom, and how it is put right.

When it is over, the history tells: see ``recovery``.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from scheduler import clock
from tests.chaos.errand import TYPE
from tests.chaos.load import OWNERS, Body, Order
from tests.chaos.proxy import Proxy
from tests.chaos.record import Hit, Struck
from tests.chaos.schedule import CLOCKS, SCHEDULERS, WORKER_NAMES, WORKERS, Kind, Strike
from tests.chaos.world import Away, World
from tests.services import eventually

T = TypeVar("T")

_DELAYS = (0.01, 0.03, 0.1)
_HOUR, _DAYS = 3_600.0, 3 * 86_400.0
_JUMPS = (-_DAYS, -_HOUR, _HOUR, _DAYS)  # the farthest pass every time limit in use
_LATEST = 4  # jobs that have just begun, so that one still runs when it is struck
_BURST, _BURST_SECONDS = 60, 0.15
_BURST_NEEDS = {"cpu_units": 0.1, "memory_mb": 16}  # so that processes are what is short
_BURST_PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong, and is put right after a while.

    *inflict* returns whom it hit, or None if there is nobody; it may raise Away.
    """

    inflict: Callable[[World, Strike], Hit | None]
    lift: Callable[[World, Hit], object]


def _nothing(_: World, __: Hit) -> None:
    """Lift what was over at once."""


def _chosen(strike: Strike, among: Sequence[T]) -> T:
    return among[strike.draw // WORKERS % len(among)]


# Processes


def _kill_child(world: World, strike: Strike) -> Hit | None:
    """Kill a pool process that runs a job."""
    latest = world.held()[:_LATEST]
    if not latest:
        return None
    victim, at = _chosen(strike, latest), clock.now()
    with suppress(ProcessLookupError):
        os.kill(victim.pid, signal.SIGKILL)
    return Hit(attempts=[victim.attempt], at=at)


def _worker(_: World, strike: Strike) -> Hit:
    return Hit(process=WORKER_NAMES[strike.draw % WORKERS])


def _web(_: World, __: Strike) -> Hit:
    return Hit(process="web")


def _leader(world: World, _: Strike) -> Hit | None:
    name, epoch = world.leader()
    return Hit(process=name, epoch=epoch) if name and world.is_up(name) else None


def _standby(world: World, _: Strike) -> Hit | None:
    name, _epoch = world.leader()
    others = [other for other in SCHEDULERS if other != name and world.is_up(other)]
    return Hit(process=others[0]) if name and others else None


Find = Callable[[World, Strike], Hit | None]


def _killed(find: Find) -> Fault:
    """Kill a process and its children, and start it again."""
    return Fault(
        _on(find, lambda world, name: world.kill(name)),
        lambda world, hit: world.start_again(hit.process or ""),
    )


def _frozen(find: Find) -> Fault:
    """Stop a process and its children where they stand, and let them go on as if nothing was."""
    return Fault(
        _on(find, lambda world, name: world.freeze(name)),
        lambda world, hit: world.thaw(hit.process or ""),
    )


def _on(find: Find, act: Callable[[World, str], None]) -> Find:
    def inflict(world: World, strike: Strike) -> Hit | None:
        hit = find(world, strike)
        if hit is None or hit.process is None:
            return None
        at = clock.now()
        act(world, hit.process)
        return replace(hit, at=at)

    return inflict


# Services


def _empty_redis(world: World, strike: Strike) -> Hit:
    """Let Redis forget everything, while messages wait in it."""
    world.load.put(Order(strike.at, OWNERS[0], tuple(_burst(strike))))
    with suppress(AssertionError, Away):
        eventually(world.queued, within=_BURST_PATIENCE)
    at = clock.now()
    world.services.flush_redis()
    return Hit(at=at)


def _burst(strike: Strike) -> Iterator[Body]:
    """Make up more short jobs than there are processes."""
    for number in range(_BURST):
        yield {
            "job_id": f"burst-{strike.draw}-{number}",
            "type": TYPE,
            "payload": {"duration_seconds": _BURST_SECONDS, "records": True},
            "resource_requirements": _BURST_NEEDS,
        }


def _service(stop: Callable[[World], object], start: Callable[[World], object]) -> Fault:
    return Fault(_at(stop), lambda world, _: start(world))


def _at(act: Callable[[World], object]) -> Find:
    def inflict(world: World, _: Strike) -> Hit:
        act(world)
        return Hit()

    return inflict


def _kill_backend(world: World, strike: Strike) -> Hit | None:
    """Kill one process of Postgres, which takes that for corrupt memory and starts anew."""
    backends = world.backends()
    if not backends:
        return None
    with suppress(ProcessLookupError):
        os.kill(_chosen(strike, backends), signal.SIGKILL)
    return Hit()


def _fill_disk(world: World, _: Strike) -> Hit | None:
    if not world.disk.is_small:
        return None
    world.disk.fill()
    return Hit()


def _free_disk(world: World, _: Hit) -> None:
    world.disk.free()
    world.bring_postgres_back()


# Wires and clocks

Wire = Callable[[World], Proxy]


def _to_redis(world: World) -> Proxy:
    return world.redis_wire


def _to_postgres(world: World) -> Proxy:
    return world.postgres_wire


def _on_wire(wire: Wire, act: Callable[[Proxy, Strike], None]) -> Fault:
    def inflict(world: World, strike: Strike) -> Hit:
        act(wire(world), strike)
        return Hit()

    return Fault(inflict, lambda world, _: wire(world).heal())


def _cut(wire: Proxy, _: Strike) -> None:
    wire.cut()


def _slow(wire: Proxy, strike: Strike) -> None:
    wire.slow(_chosen(strike, _DELAYS))


def _halve(wire: Proxy, strike: Strike) -> None:
    wire.halve(strike.draw)


def _silence(wire: Proxy, _: Strike) -> None:
    wire.silence()


def _deafen(wire: Proxy, _: Strike) -> None:
    wire.deafen()


def _jump(world: World, strike: Strike) -> Hit:
    name = _chosen(strike, CLOCKS)
    world.clocks.set(name, _chosen(strike, _JUMPS))
    return Hit(process=name)


def _jump_back(world: World, hit: Hit) -> None:
    world.clocks.set(hit.process or "", 0.0)


FAULTS: Mapping[Kind, Fault] = MappingProxyType(
    {
        Kind.CHILD_KILLED: Fault(_kill_child, _nothing),
        Kind.WORKER_KILLED: _killed(_worker),
        Kind.WORKER_FROZEN: _frozen(_worker),
        Kind.LEADER_KILLED: _killed(_leader),
        Kind.LEADER_FROZEN: _frozen(_leader),
        Kind.STANDBY_KILLED: _killed(_standby),
        Kind.WEB_KILLED: _killed(_web),
        Kind.REDIS_EMPTIED: Fault(_empty_redis, _nothing),
        Kind.REDIS_RESTARTED: _service(
            lambda world: world.services.stop_valkey(), lambda world: world.services.start_valkey()
        ),
        Kind.REDIS_KILLED: _service(
            lambda world: world.services.kill_valkey(), lambda world: world.services.start_valkey()
        ),
        Kind.REDIS_LOST: _service(
            lambda world: world.services.lose_valkey(), lambda world: world.services.start_valkey()
        ),
        Kind.REDIS_CUT: _on_wire(_to_redis, _cut),
        Kind.REDIS_SLOW: _on_wire(_to_redis, _slow),
        Kind.REDIS_HALVED: _on_wire(_to_redis, _halve),
        Kind.REDIS_SILENT: _on_wire(_to_redis, _silence),
        Kind.REDIS_DEAF: _on_wire(_to_redis, _deafen),
        Kind.POSTGRES_RESTARTED: _service(
            lambda world: world.services.stop_postgres(), World.bring_postgres_back
        ),
        Kind.POSTGRES_KILLED: _service(
            lambda world: world.services.kill_postgres(), World.bring_postgres_back
        ),
        Kind.BACKEND_KILLED: Fault(_kill_backend, lambda world, _: world.bring_postgres_back()),
        Kind.POSTGRES_CUT: _on_wire(_to_postgres, _cut),
        Kind.POSTGRES_SLOW: _on_wire(_to_postgres, _slow),
        Kind.POSTGRES_HALVED: _on_wire(_to_postgres, _halve),
        Kind.POSTGRES_SILENT: _on_wire(_to_postgres, _silence),
        Kind.DISK_FULL: Fault(_fill_disk, _free_disk),
        Kind.CLOCK_JUMPED: Fault(_jump, _jump_back),
    }
)


def strike(world: World, planned: Strike) -> Struck:
    """Let a fault happen, last, and be put right."""
    fault = FAULTS[planned.kind]
    with world.part(planned.part):
        began = clock.now()
        try:
            hit = fault.inflict(world, planned)
        except Away:
            hit = None
        if hit is not None:
            world.wait(planned.lasts)
            fault.lift(world, hit)
            began = hit.at or began
        return Struck(planned, hit, began, clock.now())
