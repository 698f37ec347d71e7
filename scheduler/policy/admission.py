"""Which jobs are admitted: turn by turn, until nobody is left who may go."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from scheduler.policy.backfill import End, Gap, end_of, gap_before, is_late
from scheduler.policy.capacity import Amount, Rooms, amount
from scheduler.policy.lineup import line_up, stored
from scheduler.policy.meters import dominant_share
from scheduler.policy.ordering import Line, Turn, Turns
from scheduler.policy.parameters import (
    CAPPED_PATIENCE,
    EXPECTED_LEAST,
    RESERVATION_HARDENS,
    RESERVATION_SLIP,
)
from scheduler.policy.reasons import Hold, HoldCode
from scheduler.snapshot import NOTHING, Account, Candidate, Clock, Reservation, Resources, Snapshot


class Grounds(StrEnum):
    """By which rule a job was admitted."""

    TURN = "turn"  # its owner had received least
    EXPRESS = "express"  # it is urgent and within its owner's allowance
    RESERVED = "reserved"  # room was kept for it
    GAP = "gap"  # it delays nobody for whom room is kept


@dataclass(frozen=True, slots=True)
class Admission:
    """A job to admit now, and what that puts on its owner's meter, in machine-seconds."""

    id: int
    owner_id: int
    charge: float
    express: bool
    grounds: Grounds


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
    """The turns of one pass, and what is decided so far."""

    def __init__(self, snapshot: Snapshot, *, thorough: bool) -> None:
        self._rooms = Rooms(snapshot)
        self._lineup = line_up(snapshot, self._rooms)
        self.admissions: list[Admission] = []
        self.reservation: Reservation | None = None
        self.first_lacking: int | None = None  # the first job in order that lacked room
        self.express_load = self._lineup.clock.express_load
        self._gap: Gap | None = None
        self._holds: dict[int, Hold] = {}
        self._ends = [end_of(job, snapshot.now) for job in snapshot.running]
        self._accounts = snapshot.accounts
        self._capacity = snapshot.limits.capacity
        self._now = snapshot.now
        self._previous = snapshot.reservation
        self._least = None if thorough else _least_need(snapshot.candidates)

    @property
    def lines(self) -> Mapping[int, Line]:
        """Everybody's line."""
        return self._lineup.lines

    @property
    def apart(self) -> Mapping[int, Hold]:
        """The jobs that stand in no line, with the reason."""
        return self._lineup.apart

    def decision(self) -> Decision:
        """What was decided."""
        return Decision(
            admissions=tuple(self.admissions),
            accounts=self._changed_accounts(),
            clock=replace(self._lineup.clock, express_load=self.express_load),
            reservation=self.reservation,
        )

    def free(self) -> Resources:
        """What is free on the machine."""
        return self._rooms.machine.free()

    def reasons(self) -> dict[int, Hold]:
        """Why each job left in a line was not admitted."""
        found: dict[int, Hold] = {}
        for series in (each for line in self.lines.values() for each in line.series):
            first = self._holds[series[0].id]
            rest = first if first.code in _OF_THE_WHOLE_SERIES else BEHIND
            found.update((job.id, rest) for job in series)
            found[series[0].id] = first
        return found

    def play(self) -> None:
        """Take turns until nobody is left; a hard reservation gives way to critical work only."""
        kept = self._previous
        holder = self._holder(kept) if kept is not None and is_hard(kept, self._now) else None
        if kept is not None and holder is not None:
            promise = kept.promised_at if holder.id == kept.job_id else None
            self._keep_room(holder, kept.since, promise)
            self.first_lacking = holder.id
            self._take_turns(before=holder)
            self._serve(holder)
        self._take_turns()

    def _changed_accounts(self) -> tuple[Account, ...]:
        after = (
            (account, stored(account, self.lines.get(owner)))
            for owner, account in sorted(self._accounts.items())
        )
        return tuple(new for old, new in after if new != old)

    def _take_turns(self, before: Candidate | None = None) -> None:
        """Take all turns, or those of critical express work that come *before* a job."""
        turns = Turns(self.lines.values(), self.express_load)
        while not self._is_over() and (turn := turns.next()) is not None:
            if before is not None and (turn.job is before or not turn.is_critical_express):
                return
            self._take(turn)
            turns.express_load = self.express_load
            turns.put_back(turn.line)

    def _is_over(self) -> bool:
        """Tell whether no turn can change the decision any more; a thorough round looks on."""
        if self._least is None or self.first_lacking is None:
            return False
        return not self._rooms.machine.fits(self._least)

    def _holder(self, kept: Reservation) -> Candidate | None:
        """Return whose reservation it is: that of the head of the line it was made for."""
        line = self.lines.get(kept.owner_id)
        head = line.head if line is not None and line.has(kept.job_id) else None
        if head is None or self._refusal(head, amount(head)) is not None:
            return None
        return head

    def _serve(self, holder: Candidate) -> None:
        line = self.lines[holder.owner_id]
        turn = line.find(holder, self.express_load)
        if not self._rooms.machine.fits(amount(holder)):
            self._hold(turn, Hold(HoldCode.RESOURCES, need=holder.need))
            return
        if self._refusal(holder, amount(holder)) is None:
            self._admit(turn, Grounds.RESERVED)
        self._gap = self.reservation = self.first_lacking = None
        self._holds.clear()
        for each in self.lines.values():
            each.reopen()

    def _take(self, turn: Turn) -> None:
        need = amount(turn.job)
        hold = self._refusal(turn.job, need) or self._lack(turn, need)
        if hold is None:
            self._admit(turn, self._grounds(turn))
            return
        self._hold(turn, hold)
        if hold.code is HoldCode.USER_CAP and self._others_wait_behind(turn):
            behind = replace(hold, behind_first=True)
            self._holds.update((job.id, behind) for job in turn.line.close())

    def _refusal(self, job: Candidate, need: Amount) -> Hold | None:
        if self._capacity is None:
            return Hold(HoldCode.NO_WORKER, need=job.need, available=NOTHING)
        return self._rooms.refusal(job, need)

    def _others_wait_behind(self, turn: Turn) -> bool:
        waited = self._now - turn.job.waiting_since
        is_first = turn.job is turn.line.head
        return is_first and waited >= CAPPED_PATIENCE and self._rooms.ever_allows(turn.job)

    def _lack(self, turn: Turn, need: Amount) -> Hold | None:
        """Return why there is no room for the job whose turn it is, or None if there is."""
        if not self._rooms.machine.fits(need):
            if self.first_lacking is None:
                self.first_lacking = turn.job.id
                self._reserve(turn.job)
            return Hold(HoldCode.RESOURCES, need=turn.job.need)
        if self._gap is not None and not self._enters(self._gap, turn, need):
            return Hold(HoldCode.RESOURCES, need=turn.job.need, kept_for=self._gap.holder.id)
        return None

    def _reserve(self, job: Candidate) -> None:
        """Keep room for the first job that lacks it, unless it lacks a worker process only."""
        free, need = self._rooms.machine, amount(job)
        if need.cpu <= free.cpu and need.memory <= free.memory:
            return
        known = self._previous is not None and self._previous.job_id == job.id
        since = self._previous.since if known and self._previous else self._now
        self._keep_room(job, since, None)

    def _keep_room(self, job: Candidate, since: datetime, promised_at: datetime | None) -> None:
        gap = gap_before(job, self._rooms.machine, self._ends)
        start = self._now + timedelta(seconds=gap.seconds)
        promise = promised_at or start
        gap.may_be_filled = not is_late(gap, self._now, promise + RESERVATION_SLIP)
        self._gap = gap
        self.reservation = Reservation(job.id, job.owner_id, since, promise)

    def _enters(self, gap: Gap, turn: Turn, need: Amount) -> bool:
        seconds = _seconds(turn.job)
        if gap.lets_in(need, seconds):
            gap.let_in(need, seconds)
            return True
        pushed = self._pushed(gap, turn, End(seconds, need))
        self._gap = pushed or gap
        return pushed is not None

    def _pushed(self, gap: Gap, turn: Turn, end: End) -> Gap | None:
        """Return the gap after critical work has pushed a hard reservation, if it may."""
        kept = self.reservation
        if not turn.is_critical_express or kept is None or not is_hard(kept, self._now):
            return None
        room = self._rooms.machine.copy()
        room.take(end.held)
        pushed = gap_before(gap.holder, room, [*self._ends, end])
        return None if is_late(pushed, self._now, kept.promised_at + RESERVATION_SLIP) else pushed

    def _grounds(self, turn: Turn) -> Grounds:
        if turn.is_express:
            return Grounds.EXPRESS
        return Grounds.TURN if self._gap is None else Grounds.GAP

    def _admit(self, turn: Turn, grounds: Grounds) -> None:
        job, express = turn.job, turn.is_express
        charge = cost(job, self._capacity)
        turn.line.admit(turn, charge)
        self._rooms.take(job)
        self._ends.append(End(_seconds(job), amount(job)))
        self.express_load += charge if express else 0.0
        self.admissions.append(Admission(job.id, job.owner_id, charge, express, grounds))

    def _hold(self, turn: Turn, hold: Hold) -> None:
        self._holds[turn.job.id] = hold
        turn.line.set_aside(turn)


def play(snapshot: Snapshot, *, thorough: bool) -> Round:
    """Play one round; a *thorough* one finds a reason for every job that is left."""
    played = Round(snapshot, thorough=thorough)
    played.play()
    return played


def _least_need(jobs: Iterable[Candidate]) -> Amount:
    needs = [amount(job) for job in jobs] or [Amount(0, 0)]
    return Amount(min(need.cpu for need in needs), min(need.memory for need in needs))


def is_hard(reservation: Reservation, now: datetime) -> bool:
    """Tell whether a reservation sticks to its job."""
    return now - reservation.since >= RESERVATION_HARDENS


def cost(job: Candidate, capacity: Resources | None) -> float:
    """Return the machine-seconds a job is expected to take."""
    share = dominant_share(job.cpu_units, job.memory_mb, capacity or NOTHING)
    return share * _seconds(job)


def _seconds(job: Candidate) -> float:
    return max(job.expected, EXPECTED_LEAST).total_seconds()
