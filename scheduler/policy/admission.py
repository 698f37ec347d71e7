"""Which jobs are admitted: turn by turn, until nobody is left who may go."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from scheduler.policy.backfill import End, Gap, end_of, gap_before, is_late
from scheduler.policy.capacity import Amount, Room, Rooms
from scheduler.policy.lines import Series
from scheduler.policy.meters import dominant_share
from scheduler.policy.parameters import (
    CAPPED_PATIENCE,
    EXPECTED_LEAST,
    GAP_TRIES,
    RESERVATION_HARDENS,
    RESERVATION_SLIP,
)
from scheduler.policy.queue import Queue, Turn
from scheduler.policy.reasons import Hold, HoldCode
from scheduler.snapshot import (
    NOTHING,
    Account,
    Ask,
    Candidate,
    Clock,
    Reservation,
    Resources,
    Running,
)
from scheduler.states import Executor


class Grounds(StrEnum):
    """By which rule a job was admitted."""

    TURN = "turn"  # its owner had received least
    EXPRESS = "express"  # it is urgent and within its owner's allowance
    RESERVED = "reserved"  # room was kept for it
    GAP = "gap"  # it delays nobody for whom room is kept


@dataclass(frozen=True, slots=True)
class Admission:
    """A job to admit now, and what that puts on its owner's meter, in machine-seconds."""

    job: Candidate
    charge: float
    express: bool
    grounds: Grounds
    ask: int | None = None  # of the pull worker that is given the job

    @property
    def id(self) -> int:
        """The job's."""
        return self.job.id

    @property
    def owner_id(self) -> int:
        """The owner's."""
        return self.job.owner_id

    def running(
        self, admitted_at: datetime, *, attempt: int = 1, started_at: datetime | None = None
    ) -> Running:
        """Return the job as it is once it is admitted."""
        job = self.job
        return Running(
            id=job.id,
            attempt=attempt,
            owner_id=job.owner_id,
            job_type=job.job_type,
            cpu_units=job.cpu_units,
            memory_mb=job.memory_mb,
            expected=job.expected,
            admitted_at=admitted_at,
            started_at=started_at,
            charge=self.charge,
            express=self.express,
            spread=job.spread,
            executor=job.executor,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and what to remember for the next pass.

    ``accounts`` are those that changed. An admission that turns out to be impossible is taken
    back with ``meters.correct`` and nothing used.
    """

    admissions: tuple[Admission, ...]
    accounts: tuple[Account, ...]
    clock: Clock
    reservation: Reservation | None


_OF_THE_WHOLE_SERIES = frozenset({HoldCode.USER_CAP, HoldCode.TYPE_CAP, HoldCode.NO_WORKER})
BEHIND = Hold(HoldCode.TURN)
"""The reason of a job behind another of its series."""


class Round:
    """The turns of one pass, and what is decided so far.

    A *thorough* one looks at every series, to find the reason of each; otherwise what the first
    of a shelf lacks closes the shelf.
    """

    def __init__(
        self,
        queue: Queue,
        rooms: Rooms,
        *,
        now: datetime,
        running: Iterable[Running],
        capacity: Resources | None,
        kept: Reservation | None,
        express_load: float,
        thorough: bool,
    ) -> None:
        self.queue = queue
        self.rooms = rooms
        self.admissions: list[Admission] = []
        self.reservation: Reservation | None = None
        self.first_lacking: int | None = None  # the first job in order that lacked room
        self.express_load = express_load
        self.holds: dict[int, Hold] = {}
        self._gap: Gap | None = None
        self._ends = [end_of(job, now) for job in running if job.executor is Executor.CELERY]
        self._capacity = capacity
        self._now = now
        self._patient_since = now - CAPPED_PATIENCE
        self._previous = kept
        self._thorough = thorough
        self._misfits: Counter[int] = Counter()  # by shelf

    def reasons(self) -> dict[int, Hold]:
        """Why each job left in a line was not admitted; a thorough round knows."""
        found: dict[int, Hold] = {}
        for series in self._left():
            first = self.holds[series.first.id]
            rest = first if first.code in _OF_THE_WHOLE_SERIES else BEHIND
            found.update((job.id, rest) for job in series.jobs)
            found[series.first.id] = first
        return found

    def play(self) -> None:
        """Take turns until nobody is left; a hard reservation gives way to critical work only."""
        kept = self._previous
        holder = self._holder(kept) if kept is not None and is_hard(kept, self._now) else None
        if kept is not None and holder is not None:
            promise = kept.promised_at if holder.first.id == kept.job_id else None
            self._keep_room(holder.first, holder.shape.need, kept.since, promise)
            self.first_lacking = holder.first.id
            self._take_turns(before=holder.first)
            self._serve(holder)
        self._take_turns()

    def _left(self) -> Iterable[Series]:
        lines = self.queue.lines.values()
        return (series for line in lines for series in line.series.values() if series.waits)

    def _take_turns(self, before: Candidate | None = None) -> None:
        """Take all turns, or those of critical express work that come *before* a job."""
        turns = self.queue.turns(self.express_load)
        while (turn := turns.next(self._room_that_matters())) is not None:
            if before is not None and (turn.job is before or not turn.is_critical_express):
                return
            self._take(turn)
            turns.count(self.express_load)

    def _room_that_matters(self) -> Room | None:
        """Return the room without which no turn changes the decision any more, if there is one."""
        return None if self._thorough or self.first_lacking is None else self.rooms.machine

    def _holder(self, kept: Reservation) -> Series | None:
        """Return whose reservation it is: that of the head of the line it was made for."""
        line = self.queue.lines.get(kept.owner_id)
        if line is None or line.find(kept.job_id) is None:
            return None
        first = line.first_series
        if first is None or first.shape.executor is not Executor.CELERY:
            return None
        return None if self._refusal(first) is not None else first

    def _serve(self, holder: Series) -> None:
        if not self.rooms.machine.fits(holder.shape.need):
            self.holds[holder.first.id] = Hold(HoldCode.RESOURCES, need=holder.first.need)
            self.queue.set_aside(holder)
            return
        if self._refusal(holder) is None:
            self._admit(self.queue.turn_of(holder, self.express_load), Grounds.RESERVED)
        self._gap = self.reservation = self.first_lacking = None
        self.holds.clear()
        self.queue.reopen()

    def _take(self, turn: Turn) -> None:
        hold = self._refusal(turn.series) or self._lack(turn)
        if hold is None:
            self._admit(turn, self._grounds(turn))
        elif not self._thorough and self._holds_whole_shelf(turn, hold):
            self.queue.close(turn.shelf)
        else:
            self.holds[turn.job.id] = hold
            self.queue.set_aside(turn.series)

    def _holds_whole_shelf(self, turn: Turn, hold: Hold) -> bool:
        if hold.code is HoldCode.NO_WORKER and not turn.shelf.on_machine:
            return not self.rooms.asks.are_for(turn.job.job_type)
        if hold.kept_for is not None and self._gap is not None:
            self._misfits[turn.shelf.number] += 1
            if self._misfits[turn.shelf.number] > GAP_TRIES:
                return True
            return self._entrance(self._gap, turn, turn.shelf.shortest) is None
        return hold.code is not HoldCode.USER_CAP or (hold.of_group and not hold.behind_first)

    def _refusal(self, series: Series) -> Hold | None:
        job = series.first
        if not self.rooms.has_worker(job):
            return _no_worker(job)
        of_type = self.rooms.type_refusal(job)
        return of_type or self._behind(series) or self.rooms.owner_refusal(job, series.shape.need)

    def _behind(self, series: Series) -> Hold | None:
        """Return why a job waits behind its owner's first, which is at the owner's own cap."""
        first = series.line.first_series
        if first is None or first is series or first.first.waiting_since > self._patient_since:
            return None
        if not self.rooms.has_worker(first.first):
            return None
        refused = self.rooms.owner_refusal(first.first, first.shape.need)
        if refused is None or not self.rooms.ever_allows(first.first):
            return None
        return replace(refused, behind_first=True)

    def _lack(self, turn: Turn) -> Hold | None:
        """Return why there is no room for the job whose turn it is, or None if there is."""
        need = turn.series.shape.need
        if not turn.shelf.on_machine:
            return None
        if not self.rooms.machine.fits(need):
            if self.first_lacking is None:
                self.first_lacking = turn.job.id
                self._reserve(turn.job, need)
            return Hold(HoldCode.RESOURCES, need=turn.job.need)
        if self._gap is not None and not self._enters(self._gap, turn):
            return Hold(HoldCode.RESOURCES, need=turn.job.need, kept_for=self._gap.holder)
        return None

    def _reserve(self, job: Candidate, need: Amount) -> None:
        """Keep room for the first job that lacks it, unless it lacks a worker process only."""
        free = self.rooms.machine
        if need.cpu <= free.cpu and need.memory <= free.memory:
            return
        known = self._previous is not None and self._previous.job_id == job.id
        since = self._previous.since if known and self._previous else self._now
        self._keep_room(job, need, since, None)

    def _keep_room(
        self, job: Candidate, need: Amount, since: datetime, promised_at: datetime | None
    ) -> None:
        gap = gap_before(job.id, need, self.rooms.machine, self._ends)
        start = self._now + timedelta(seconds=gap.seconds)
        promise = promised_at or start
        gap.may_be_filled = not is_late(gap, self._now, promise + RESERVATION_SLIP)
        self._gap = gap
        self.reservation = Reservation(job.id, job.owner_id, since, promise)

    def _enters(self, gap: Gap, turn: Turn) -> bool:
        seconds = _seconds(turn.job)
        entered = self._entrance(gap, turn, seconds)
        if entered is gap:
            gap.let_in(turn.series.shape.need, seconds)
        self._gap = entered or gap
        return entered is not None

    def _entrance(self, gap: Gap, turn: Turn, seconds: float) -> Gap | None:
        """Return the gap a job of *seconds* may enter, pushed later if need be, or None."""
        need = turn.series.shape.need
        if gap.lets_in(need, seconds):
            return gap
        kept = self.reservation
        if not turn.is_critical_express or kept is None or not is_hard(kept, self._now):
            return None
        room = self.rooms.machine.copy()
        room.take(need)
        pushed = gap_before(gap.holder, gap.need, room, [*self._ends, End(seconds, need)])
        return None if is_late(pushed, self._now, kept.promised_at + RESERVATION_SLIP) else pushed

    def _grounds(self, turn: Turn) -> Grounds:
        if turn.is_express:
            return Grounds.EXPRESS
        return Grounds.GAP if self._gap is not None and turn.shelf.on_machine else Grounds.TURN

    def _admit(self, turn: Turn, grounds: Grounds) -> None:
        job, need, express = turn.job, turn.series.shape.need, turn.is_express
        ask = self.rooms.asks.take(job) if job.executor is Executor.PULL else None
        charge = cost(job, self._capacity, ask)
        self.queue.take(turn, charge)
        self.rooms.admit(job, need)
        if ask is None:
            self._ends.append(End(_seconds(job), need))
        self.express_load += charge if express else 0.0
        self.admissions.append(Admission(job, charge, express, grounds, ask.id if ask else None))


def is_hard(reservation: Reservation, now: datetime) -> bool:
    """Tell whether a reservation sticks to its job."""
    return now - reservation.since >= RESERVATION_HARDENS


def cost(job: Candidate, capacity: Resources | None, ask: Ask | None = None) -> float:
    """Return the machine-seconds a job is expected to take, as they count for its owner.

    A job on a pull worker counts as one of its size on the machine, and not at all on one that
    *ask*s for its owner's jobs only: who brings a processor does not pay for using it.
    """
    if ask is not None and ask.owner_id is not None:
        return 0.0
    share = dominant_share(job.cpu_units, job.memory_mb, capacity or NOTHING)
    return share * _seconds(job) * job.rate


def _seconds(job: Candidate) -> float:
    return max(job.expected, EXPECTED_LEAST).total_seconds()


def _no_worker(job: Candidate) -> Hold:
    if job.executor is Executor.PULL:
        return Hold(HoldCode.NO_WORKER, what=job.executor)
    return Hold(HoldCode.NO_WORKER, need=job.need, available=NOTHING)
