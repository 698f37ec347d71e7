"""How much room there is: on the machine, and under every cap.

The machine and each cap is a Room, so that fitting means the same everywhere. CPU is counted
in thousandths of a unit: whole numbers do not drift.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from scheduler.policy.asks import Asks
from scheduler.policy.reasons import Hold, HoldCode
from scheduler.snapshot import (
    NOTHING,
    Account,
    Candidate,
    Caps,
    Group,
    Limits,
    Resources,
    Running,
)
from scheduler.states import Executor

_UNLIMITED = sys.maxsize


class Amount(NamedTuple):
    """What one job holds."""

    cpu: int  # thousandths of a unit
    memory: int  # MB
    slots: int = 1


def amount(job: Candidate | Running) -> Amount:
    """Return what *job* holds while it is admitted."""
    return Amount(round(job.cpu_units * 1000), job.memory_mb)


@dataclass(slots=True)
class Room:
    """What is still free somewhere; below zero when less is offered than is already held."""

    cpu: int
    memory: int
    slots: int

    def fits(self, need: Amount) -> bool:
        """Tell whether *need* is free here."""
        return need.cpu <= self.cpu and need.memory <= self.memory and need.slots <= self.slots

    def take(self, need: Amount) -> None:
        """Hold *need*."""
        self.cpu -= need.cpu
        self.memory -= need.memory
        self.slots -= need.slots

    def give(self, held: Amount) -> None:
        """Free what was *held*."""
        self.cpu += held.cpu
        self.memory += held.memory
        self.slots += held.slots

    def copy(self) -> "Room":
        """Return a room to try things in."""
        return Room(self.cpu, self.memory, self.slots)

    def free(self) -> Resources:
        """Return what is free, for people to read."""
        return Resources(self.cpu / 1000, self.memory, self.slots)


def room_of(capacity: Resources) -> Room:
    """Return *capacity* with nothing held."""
    return Room(round(capacity.cpu_units * 1000), capacity.memory_mb, capacity.slots)


def _slots(most: int) -> Room:
    return Room(_UNLIMITED, _UNLIMITED, most)


def _room_under(caps: Caps) -> Room:
    return Room(
        _UNLIMITED if caps.cpu_units is None else round(caps.cpu_units * 1000),
        _UNLIMITED if caps.memory_mb is None else caps.memory_mb,
        _UNLIMITED if caps.running_jobs is None else caps.running_jobs,
    )


class Rooms:
    """What is free during one pass: on the machine, of pull workers, under everybody's caps."""

    def __init__(
        self,
        limits: Limits,
        accounts: Mapping[int, Account],
        groups: Mapping[int, Group],
        running: Iterable[Running],
    ) -> None:
        self.machine = room_of(limits.capacity or NOTHING)
        self.asks = Asks(limits.asks)
        self._accounts = accounts
        self._groups = groups
        self._limits = limits
        self._owners: dict[int, Room] = {}
        self._members: dict[int, Room] = {}
        self._types = {name: _slots(most) for name, most in limits.type_caps.items()}
        for job in running:
            self.take(job, amount(job))
        # What runs has started in an earlier minute, or is already counted.
        self._starts = dict(limits.type_starts)

    def admit(self, job: Candidate, need: Amount) -> None:
        """Hold what *job* needs, and count its start."""
        self.take(job, need)
        if job.job_type in self._starts:
            self._starts[job.job_type] -= 1

    def take(self, job: Candidate | Running, need: Amount) -> None:
        """Hold what *job* needs everywhere it counts."""
        if job.executor is Executor.CELERY:
            self.machine.take(need)
        self._under_owner(job.owner_id).take(need)
        if (group := self._under_group(job.owner_id)) is not None:
            group.take(need)
        if job.job_type in self._types:
            self._types[job.job_type].take(need)

    def has_worker(self, job: Candidate) -> bool:
        """Tell whether anybody is there who could run *job*, busy or not."""
        if job.executor is Executor.PULL:
            return self.asks.find(job) is not None
        return self._limits.capacity is not None

    def type_refusal(self, job: Candidate) -> Hold | None:
        """Return the cap of its type that keeps *job* from being admitted, or None."""
        name, of_type = job.job_type, self._types.get(job.job_type)
        if of_type is not None and of_type.slots < 1:
            limit = self._limits.type_caps[name]
            return Hold(HoldCode.TYPE_CAP, need=job.need, what=name, limit=limit)
        if self._starts.get(name, 1) < 1:
            return Hold(HoldCode.TYPE_CAP, need=job.need, what=name, of_minute=True)
        return None

    def owner_refusal(self, job: Candidate, need: Amount) -> Hold | None:
        """Return the cap of its owner or group that keeps *job* from being admitted, or None."""
        if not (owner := self._under_owner(job.owner_id)).fits(need):
            return Hold(HoldCode.USER_CAP, need=job.need, available=owner.free())
        group = self._under_group(job.owner_id)
        if group is not None and not group.fits(need):
            return Hold(HoldCode.USER_CAP, need=job.need, available=group.free(), of_group=True)
        return None

    def ever_allows(self, job: Candidate) -> bool:
        """Tell whether *job* fits under its owner's caps when nothing else runs."""
        caps = [self._accounts[job.owner_id].caps]
        if (group := self._group_of(job.owner_id)) is not None:
            caps.append(group.caps)
        return all(_room_under(each).fits(amount(job)) for each in caps)

    def _under_owner(self, owner_id: int) -> Room:
        room = self._owners.get(owner_id)
        if room is None:
            room = self._owners[owner_id] = _room_under(self._accounts[owner_id].caps)
        return room

    def _under_group(self, owner_id: int) -> Room | None:
        if (group := self._group_of(owner_id)) is None:
            return None
        if group.group_id not in self._members:
            self._members[group.group_id] = _room_under(group.caps)
        return self._members[group.group_id]

    def _group_of(self, owner_id: int) -> Group | None:
        group_id = self._accounts[owner_id].group_id
        return None if group_id is None else self._groups.get(group_id)
