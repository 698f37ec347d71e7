"""Room kept for the job that is next but does not fit, and who may use the gap until then."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from scheduler.policy.capacity import Amount, Room, amount
from scheduler.policy.parameters import OVERDUE_ENDS_WITHIN
from scheduler.snapshot import Running


class End(NamedTuple):
    """When an admitted job is expected to give back what it holds."""

    seconds: float  # from now
    held: Amount


def end_of(job: Running, now: datetime) -> End:
    """Predict the end of a running job; one that is overdue may end at any moment."""
    left = (job.started_at or now) + job.expected - now
    left = left if left > timedelta(0) else OVERDUE_ENDS_WITHIN
    return End(left.total_seconds(), amount(job))


@dataclass(slots=True)
class Gap:
    """The time until a job that is next can start, and what is free beside it from then on."""

    holder: int  # the job
    need: Amount
    seconds: float
    beside: Room
    may_be_filled: bool = True  # False once wrong predictions have delayed the start too far

    def lets_in(self, need: Amount, seconds: float) -> bool:
        """Tell whether a job of *seconds* leaves the start of the holder where it is."""
        return (self.may_be_filled and seconds <= self.seconds) or self.beside.fits(need)

    def let_in(self, need: Amount, seconds: float) -> None:
        """Note that a job was let in."""
        if seconds > self.seconds or not self.may_be_filled:
            self.beside.take(need)


def gap_before(holder: int, need: Amount, free: Room, ends: Iterable[End]) -> Gap:
    """Find the earliest time at which *holder* fits, given what is free now and the *ends*."""
    room, start = free.copy(), 0.0
    for end in sorted(ends):
        if end.seconds > start and room.fits(need):
            break
        room.give(end.held)
        start = end.seconds
    room.take(need)
    return Gap(holder, need, start, room)


def is_late(gap: Gap, now: datetime, latest: datetime) -> bool:
    """Tell whether the holder is predicted to start after *latest*."""
    return now + timedelta(seconds=gap.seconds) > latest
