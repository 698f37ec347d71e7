"""The policy with a memory: everybody's lines and meters, kept from pass to pass.

A pass costs what changes in it and the kinds of jobs there are, however many jobs wait. It does
no I/O: whoever holds an engine feeds it what happened, and carries out what it decides. All of
its memory can be lost and fed again.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import merge
from itertools import chain, islice
from math import frexp, fsum, inf

from scheduler.policy import meters
from scheduler.policy.admission import Decision, Round
from scheduler.policy.capacity import Rooms, room_of
from scheduler.policy.lines import Line, Series, Shape, shape_of
from scheduler.policy.ordering import Terms, standing
from scheduler.policy.parameters import EXCESS_GRAIN, FLOOR_LOOKS_AT
from scheduler.policy.queue import Queue
from scheduler.policy.reasons import Hold, HoldCode
from scheduler.snapshot import (
    Account,
    Candidate,
    Clock,
    Group,
    Limits,
    Reservation,
    Resources,
    Running,
    Snapshot,
)
from scheduler.states import DEFAULT_LEVEL, Executor, JobClass

_NORMAL = DEFAULT_LEVEL[JobClass.NORMAL]


@dataclass(frozen=True, slots=True)
class _Outstanding:
    """How the running jobs of one owner stand against their charges, in machine-seconds."""

    unused: float = 0.0
    excess: float = 0.0
    express_excess: float = 0.0


_NOTHING_RUNS = _Outstanding()


class Engine:
    """Decides who goes next, again and again."""

    def __init__(self, clock: Clock | None = None, reservation: Reservation | None = None) -> None:
        self.clock = clock or Clock()
        self.reservation = reservation
        self._limits = Limits(None)
        self._groups: dict[int, Group] = {}
        self._accounts: dict[int, Account] = {}
        self._changed: set[int] = set()  # owners whose meters changed since the last pass
        self._lines: dict[int, Line] = {}  # barred jobs included, which the queue does not know
        self._series: dict[Shape, set[Series]] = defaultdict(set)
        self._queue = Queue()
        self._unseen_weight = 0.0
        self._late: set[int] = set()  # owners whose running jobs have used more than charged
        self._thinned: set[int] = set()  # owners whose known jobs have become fewer

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Engine":
        """Return an engine that knows what *snapshot* holds."""
        engine = cls(snapshot.clock, snapshot.reservation)
        engine.set_limits(snapshot.limits)
        engine._groups.update(snapshot.groups)
        engine._accounts.update(snapshot.accounts)
        engine._unseen_weight = snapshot.unseen_weight
        waiting: dict[int, list[Candidate]] = defaultdict(list)
        for job in snapshot.candidates:
            waiting[job.owner_id].append(job)
        for owner, jobs in sorted(waiting.items()):
            engine.extend(owner, jobs)
        for owner, account in snapshot.accounts.items():
            if owner not in engine._queue.lines and account.tag is not None:
                engine._keep(replace(account, tag=None))
        return engine

    # What there is

    @property
    def accounts(self) -> Mapping[int, Account]:
        """What every known owner has received."""
        return self._accounts

    @property
    def capacity(self) -> Resources | None:
        """What there is; None while no worker is alive."""
        return self._limits.capacity

    def owners(self) -> Collection[int]:
        """Return all owners of whom a waiting job is known, be it barred."""
        return self._lines.keys()

    def set_unseen(self, accounts: Iterable[Account]) -> None:
        """Note owners who are in line and whose jobs have yet to be told."""
        self._unseen_weight = fsum(meters.effective_weight(each.weight) for each in accounts)

    def waits(self, owner_id: int) -> bool:
        """Tell whether any job of an owner is known here, be it barred."""
        return owner_id in self._lines

    def line_of(self, owner_id: int) -> list[Candidate]:
        """Return the waiting jobs that are known of an owner, in the order of the line."""
        line = self._lines.get(owner_id)
        return line.jobs() if line is not None else []

    def has_more(self, owner_id: int) -> bool:
        """Tell whether jobs of an owner wait beyond those that are known."""
        line = self._lines.get(owner_id)
        return line is not None and line.has_more

    def set_limits(self, limits: Limits) -> None:
        """Change what there is and what may be used of it."""
        before, self._limits = self._limits, limits
        if _barring(before) == _barring(limits):
            return
        changed: dict[int, Line] = {}
        for shape, alike in self._series.items():
            bar = self._bar(shape)
            for series in alike:
                if series.bar != (bar or _pause(series.line.account)):
                    changed[series.line.account.owner_id] = series.line
        for line in changed.values():
            self._place(line)

    def set_group(self, group: Group) -> None:
        """Make a group known, or change it."""
        self._groups[group.group_id] = group

    def set_account(self, account: Account) -> None:
        """Make an owner known, or change weight, group, caps or pause.

        Of an owner who is known already the meters are kept as they are here.
        """
        known = self._accounts.get(account.owner_id)
        if known is not None:
            account = replace(
                account, meter=known.meter, express_meter=known.express_meter, tag=known.tag
            )
        self._accounts[account.owner_id] = account
        if (line := self._lines.get(account.owner_id)) is not None:
            self._queue.take_out(line)
            line.set_account(account)
            self._place(line)

    def forget(self, owner_id: int) -> None:
        """Forget an owner who neither waits nor runs anything."""
        del self._accounts[owner_id]

    # What happens

    def add(self, job: Candidate) -> None:
        """Let a job join its owner's line. The owner's account must be known."""
        self.extend(job.owner_id, [job])

    def extend(self, owner_id: int, jobs: Iterable[Candidate], *, has_more: bool = False) -> None:
        """Let jobs join one owner's line; *has_more* tells of others behind all that are known."""
        line = self._lines.get(owner_id)
        if line is None:
            if not (jobs := tuple(jobs)) and not has_more:
                return
            line = self._lines[owner_id] = Line(self._accounts[owner_id])
        changes_places = [self._join(line, job) for job in jobs]
        if any(changes_places) or has_more != line.has_more:
            line.has_more = has_more
            self._place(line)

    def remove(self, owner_id: int, job_id: int) -> None:
        """Take a job out of its line that was not admitted. One that is not there is no matter."""
        line = self._lines.get(owner_id)
        found = line.find(job_id) if line is not None else None
        if line is None or found is None:
            return
        series, index = found
        series.jobs.pop(index)
        self._place(line)

    def drop(self, owner_id: int) -> None:
        """Forget all that waits of an owner, who will be told anew: the place is kept."""
        line = self._lines.pop(owner_id, None)
        if line is None:
            return
        self._queue.take_out(line)
        for series in line.series.values():
            self._forget_series(series)

    def settle(self, owner_id: int) -> None:
        """Take an owner of whom nothing waits any more out of line."""
        account = self._accounts[owner_id]
        if owner_id not in self._queue.lines and account.tag is not None:
            self._keep(replace(account, tag=None))

    def thin_lines(self, least: int) -> list[int]:
        """Return whose lines have more jobs, and fewer than *least* that are known.

        Names each owner once after its line has become shorter.
        """
        thinned, self._thinned = sorted(self._thinned), set()
        return [owner for owner in thinned if self._is_thin(owner, least)]

    def advance(self, now: datetime, running: Iterable[Running]) -> None:
        """Let virtual time pass with what ran. Call it before ended jobs are taken away."""
        if self.clock.advanced_at == now:
            return
        running = tuple(running)
        owners = {job.owner_id for job in running}
        alone = [owner for owner in owners if owner not in self._queue.lines]
        weights = [meters.effective_weight(self._accounts[owner].weight) for owner in alone]
        in_line = self._weight_in_line()
        self.clock = meters.advance(
            self.clock, running, now, waiting=in_line > 0, weight=in_line + fsum(weights)
        )

    def correct(self, owner_id: int, *, charge: float, used: float, express: bool) -> None:
        """Put what a job *used* in the place of its *charge*, both in machine-seconds."""
        line = self._lines.get(owner_id)
        if line is not None:
            self._queue.take_out(line)
        corrected, self.clock = meters.correct(
            self._accounts[owner_id], self.clock, charge=charge, used=used, express=express
        )
        self._keep(corrected)
        if line is not None:
            self._place(line)

    def end(self, job: Running, used: float) -> None:
        """Note that a running job ended and what it *used*, in machine-seconds."""
        self.correct(job.owner_id, charge=job.charge, used=used, express=job.express)

    # A pass

    def decide(self, now: datetime, running: Iterable[Running]) -> Decision:
        """Decide whom to admit now, and remember it as done.

        The admitted have left their lines and are charged; take one that turns out to be
        impossible back with ``correct``. ``accounts`` are those that changed since the last pass.
        """
        played = self.play(now, running, thorough=False)
        self._queue.reopen()
        return self.conclude(played)

    def play(self, now: datetime, running: Iterable[Running], *, thorough: bool) -> Round:
        """Play one round without concluding it."""
        running = tuple(running)
        self.advance(now, running)
        rooms = Rooms(self._limits, self._accounts, self._groups, running)
        outstanding = _outstanding(now, running)
        self._count_excess(outstanding)
        floor = self._floor(outstanding, rooms)
        self.clock = replace(self.clock, virtual_now=max(self.clock.virtual_now, floor))
        self._queue.begin(self._terms(now))
        played = Round(
            self._queue,
            rooms,
            now=now,
            running=running,
            capacity=self._limits.capacity,
            kept=self.reservation,
            express_load=self.clock.express_load,
            thorough=thorough,
        )
        played.play()
        return played

    def conclude(self, played: Round) -> Decision:
        """Take over what a round decided."""
        self.clock = replace(self.clock, express_load=played.express_load)
        self.reservation = played.reservation
        for line in self._queue.changed():
            self._keep_line(line)
        return Decision(
            admissions=tuple(played.admissions),
            accounts=self.changed_accounts(),
            clock=self.clock,
            reservation=self.reservation,
        )

    def changed_accounts(self) -> tuple[Account, ...]:
        """Return the accounts that changed since this was last asked."""
        changed, self._changed = sorted(self._changed), set()
        return tuple(self._accounts[owner] for owner in changed if owner in self._accounts)

    def barred(self) -> dict[int, Hold]:
        """Return the jobs that stand in no line, with the reason."""
        return {
            job.id: series.bar
            for line in self._lines.values()
            for series in line.series.values()
            if series.bar is not None
            for job in series.jobs
        }

    def front(self, now: datetime, running: Iterable[Running], most: int) -> Snapshot:
        """Return what a pass over about the first *most* jobs would see."""
        running = tuple(running)
        jobs = tuple(islice(chain(self._queue.first_jobs(most), self._out_of_line()), most))
        seen = {job.owner_id for job in jobs}
        owners = seen | {job.owner_id for job in running}
        weights = [self._queue.lines[owner].weight for owner in seen & self._queue.lines.keys()]
        return Snapshot(
            now=now,
            candidates=jobs,
            running=running,
            accounts={owner: self._accounts[owner] for owner in owners},
            groups=self._groups,
            clock=self.clock,
            reservation=self.reservation,
            limits=self._limits,
            unseen_weight=max(0.0, self._weight_in_line() - fsum(weights)),
        )

    def _out_of_line(self) -> Iterator[Candidate]:
        """Go through the jobs of owners all of whose jobs are barred."""
        for owner, line in self._lines.items():
            if owner not in self._queue.lines:
                yield from line.jobs()

    def _terms(self, now: datetime) -> Terms:
        return Terms(
            virtual_now=self.clock.virtual_now,
            weight=self._weight_in_line() or 1.0,
            mean_cost=self.clock.mean_cost,
            deferred_from=meters.rank(now, JobClass.NORMAL, _NORMAL),
        )

    def _weight_in_line(self) -> float:
        return self._queue.weight() + self._unseen_weight

    def _count_excess(self, outstanding: Mapping[int, _Outstanding]) -> None:
        late = {owner for owner, owed in outstanding.items() if owed.excess}
        grain = _grain(self.clock.mean_cost)
        for owner in sorted(late | self._late):
            if (line := self._lines.get(owner)) is not None:
                owed = outstanding.get(owner, _NOTHING_RUNS)
                excess = owed.excess // grain * grain, owed.express_excess // grain * grain
                if line.counts_other_than(*excess):
                    self._queue.take_out(line)
                    line.set_excess(*excess)
                    self._queue.put(line)
        self._late = late

    def _floor(self, outstanding: Mapping[int, _Outstanding], rooms: Rooms) -> float:
        """Return the least that an owner has received who was in line already and could go.

        Of owners with running jobs, what is charged and not used yet does not count.
        """
        lines = [
            (line.tag - owed.unused / line.weight, owner, line)
            for owner, owed in outstanding.items()
            if (line := self._queue.lines.get(owner)) is not None and line.account.tag is not None
        ]
        others = (
            (line.tag, line.account.owner_id, line)
            for line in islice(self._queue.furthest_behind(), FLOOR_LOOKS_AT)
            if line.account.owner_id not in outstanding
        )
        for place, _, line in merge(sorted(lines), others):
            if _could_go(line, rooms):
                return place
        return -inf

    # Lines

    def _join(self, line: Line, job: Candidate) -> bool:
        """Put a job into its series; tell whether that changes the place of the series."""
        series = line.series.get(shape_of(job))
        if series is None:
            series = line.open_series(shape_of(job))
            self._series[series.shape].add(series)
        insort(series.jobs, job, key=standing)
        return series.first is job

    def _place(self, line: Line) -> None:
        """Let the queue know *line* as it is now, or forget it when nothing is left."""
        for series in line.series.values():
            series.bar = self._bar(series.shape) or _pause(line.account)
        self._queue.put(line)
        self._keep_line(line)

    def _keep_line(self, line: Line) -> None:
        account = line.account
        if not line.in_line and account.tag is not None:
            account = replace(account, tag=None)
        if account is not self._accounts[account.owner_id]:
            self._keep(account)
        for series in [each for each in line.series.values() if not each.jobs]:
            del line.series[series.shape]
            self._forget_series(series)
        self._thinned.add(account.owner_id)
        if line.is_empty:
            self._lines.pop(account.owner_id, None)

    def _forget_series(self, series: Series) -> None:
        alike = self._series[series.shape]
        alike.discard(series)
        if not alike:
            del self._series[series.shape]

    def _keep(self, account: Account) -> None:
        self._accounts[account.owner_id] = account
        self._changed.add(account.owner_id)
        if (line := self._lines.get(account.owner_id)) is not None:
            line.set_account(account)

    def _is_thin(self, owner_id: int, least: int) -> bool:
        line = self._lines.get(owner_id)
        return line is not None and line.has_more and line.count() < least

    def _bar(self, shape: Shape) -> Hold | None:
        """Tell what keeps jobs of a shape from running whoever's turn it is."""
        limits = self._limits
        if shape.job_class in limits.paused_classes:
            return Hold(HoldCode.PAUSED, what=shape.job_class)
        if shape.job_type in limits.paused_types:
            return Hold(HoldCode.PAUSED, what=shape.job_type)
        if shape.executor is Executor.PULL:
            return None
        if limits.capacity is None or (machine := room_of(limits.capacity)).fits(shape.need):
            return None
        need = Resources(shape.need.cpu / 1000, shape.need.memory)
        return Hold(HoldCode.NO_WORKER, need=need, available=machine.free())


def _barring(limits: Limits) -> tuple[object, ...]:
    """The limits on which it depends what cannot run whoever's turn it is."""
    room = limits.capacity and (limits.capacity.cpu_units, limits.capacity.memory_mb)
    return (room, limits.paused_classes, limits.paused_types)


def _pause(account: Account) -> Hold | None:
    return Hold(HoldCode.PAUSED) if account.paused else None


def _could_go(line: Line, rooms: Rooms) -> bool:
    if (series := line.first_series) is None:
        return True
    first = series.first
    if not rooms.has_worker(first) or rooms.type_refusal(first) is not None:
        return False
    return rooms.owner_refusal(first, series.shape.need) is None


def _outstanding(now: datetime, running: Iterable[Running]) -> dict[int, _Outstanding]:
    by_owner: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for job in running:
        by_owner[job.owner_id].append((job.charge - job.consumed(now), job.express))
    return {owner: _sum(left) for owner, left in by_owner.items()}


def _grain(mean_cost: float) -> float:
    """Return in which steps excess is counted: a part of the mean cost that seldom changes.

    Counted continuously, it would move the places of late owners in every pass.
    """
    return 2.0 ** frexp(mean_cost * EXCESS_GRAIN)[1]


def _sum(left: list[tuple[float, bool]]) -> _Outstanding:
    return _Outstanding(
        unused=fsum(rest for rest, _ in left if rest > 0),
        excess=fsum(-rest for rest, _ in left if rest < 0),
        express_excess=fsum(-rest for rest, express in left if rest < 0 and express),
    )
