"""When a schedule fires. Pure: no clock, no database.

A cron line is read as Debian's cron reads it, by the clock on the wall of its time zone. Days on
which that clock is put forward or back are special:

- A line for set times, with no star in front of its minute and its hour, fires once for each of
  them: at the end of the gap where the clock skips it, the first time where it is shown twice.
- A line with a star there follows the clock: what is skipped is missing, what is shown twice
  counts twice.

The library is asked for times of day only, and never for a time zone: it would lose ticks where
a clock moves by less than an hour, and name ones that have passed where a clock was put back.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, count, islice, takewhile
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from scheduler.errors import TimingInvalid
from scheduler.states import CatchUp

LATE = timedelta(minutes=1)
"""A tick that nobody has seen to for so long was missed; a change of leaders takes less."""

_FIELDS = "minute, hour, day of the month, month, day of the week"
_SOME_DAY = datetime(2026, 1, 1)  # noqa: DTZ001 - as a clock on a wall shows it
_SECOND, _MINUTE = timedelta(seconds=1), timedelta(minutes=1)
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


class Timing(Protocol):
    """When a schedule fires."""

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield every tick after *instant*, in their order, in UTC."""

    def latest(self, now: datetime) -> datetime:
        """Return the last tick up to *now*; there is one."""

    def words(self) -> str:
        """Say it in plain words."""


@dataclass(frozen=True, slots=True)
class Every:
    """Every so many seconds, counted from any one of the ticks."""

    seconds: int
    tick: datetime

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield every tick after *instant*."""
        for number in count(self._passed(instant) + 1):
            yield self.tick + number * self._period

    def latest(self, now: datetime) -> datetime:
        """Return the last tick up to *now*."""
        return self.tick + self._passed(now) * self._period

    def words(self) -> str:
        """Say it in the largest unit that comes out even."""
        unit, size = next((unit, size) for unit, size in _UNITS if self.seconds % size == 0)
        number = self.seconds // size
        return f"Every {unit}" if number == 1 else f"Every {number} {unit}s"

    @property
    def _period(self) -> timedelta:
        return timedelta(seconds=self.seconds)

    def _passed(self, instant: datetime) -> int:
        return (instant - self.tick) // self._period


@dataclass(frozen=True, slots=True)
class Cron:
    """By a cron line of five fields, in a time zone."""

    line: str
    zone: ZoneInfo

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield every tick after *instant*."""
        shown = _wall(instant, self.zone)
        # What the clock is about to show a second time comes after *instant*, too.
        walls = CronSim(self.line, shown - self._put_back(shown))
        ticks = self._once_each(walls) if self._has_set_times else self._as_shown(walls)
        return _rising(ticks, instant)

    def latest(self, now: datetime) -> datetime:
        """Return the last tick up to *now*."""
        for wall in CronSim(self.line, _wall(now, self.zone), reverse=True):
            since = self._instant(wall, fold=0) - _SECOND
            up_to_now = takewhile(lambda tick: tick <= now, self.after(since))
            if last := deque(up_to_now, maxlen=1):
                return last[0]
        raise TimingInvalid("cron", "has never fired")

    def words(self) -> str:
        """Say it as the library does."""
        return CronSim(self.line, _SOME_DAY).explain()

    @property
    def _has_set_times(self) -> bool:
        minute, hour, *_ = self.line.split()
        return not minute.startswith("*") and not hour.startswith("*")

    def _once_each(self, walls: Iterator[datetime]) -> Iterator[datetime]:
        """Yield one tick for each time of day, whether the clock shows it never, once or twice."""
        for wall in walls:
            shown = wall
            while not self._is_shown(shown):
                shown += _MINUTE
            yield self._instant(shown, fold=0)

    def _as_shown(self, walls: Iterator[datetime]) -> Iterator[datetime]:
        """Yield a tick whenever the clock shows one of these times."""
        again: deque[datetime] = deque()
        for wall in walls:
            first, second = self._instant(wall, fold=0), self._instant(wall, fold=1)
            while again and again[0] <= first:
                yield again.popleft()
            if self._is_shown(wall):
                yield first
            if second > first:
                again.append(second)
        yield from again

    def _is_shown(self, wall: datetime) -> bool:
        return _wall(self._instant(wall, fold=0), self.zone) == wall

    def _put_back(self, wall: datetime) -> timedelta:
        """Return by how much the clock is put back around *wall*, which it shows."""
        return self._instant(wall, fold=1) - self._instant(wall, fold=0)

    def _instant(self, wall: datetime, *, fold: int) -> datetime:
        return wall.replace(tzinfo=self.zone, fold=fold).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Due:
    """Ticks that are to be seen to now, and the first one that comes after them."""

    ticks: tuple[datetime, ...]
    next_at: datetime


def timing_of(
    cron: str | None, every_seconds: int | None, timezone: str, *, tick: datetime
) -> Timing:
    """Return when a schedule fires that has *tick* among its ticks if it counts seconds.

    Raises TimingInvalid for what this installation cannot read.
    """
    if every_seconds is not None:
        return Every(every_seconds, tick.replace(microsecond=0))
    return Cron(cron_line(cron or ""), time_zone(timezone))


def cron_line(text: str) -> str:
    """Return a cron line with single spaces. Raises TimingInvalid for one that never fires."""
    line = " ".join(text.split())
    if len(line.split()) != len(_FIELDS.split(", ")):
        raise TimingInvalid("cron", f"must have five fields: {_FIELDS}")
    try:
        fires = next(CronSim(line, _SOME_DAY), None) is not None
    except (CronSimError, ValueError) as problem:  # numbers without end are no numbers
        raise TimingInvalid("cron", f"does not read as {_FIELDS}: {problem}") from problem
    if not fires:
        raise TimingInvalid("cron", "never fires: no day is one that the fields ask for")
    return line


def time_zone(name: str) -> ZoneInfo:
    """Return a time zone by its name. Raises TimingInvalid for an unknown one."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as unknown:  # a folder is no zone either
        message = "must be the name of a time zone, such as Europe/Berlin"
        raise TimingInvalid("timezone", message) from unknown


def next_after(timing: Timing, instant: datetime) -> datetime:
    """Return the first tick after *instant*. Raises TimingInvalid if there is none any more."""
    tick = next(timing.after(instant), None)
    if tick is None:
        raise TimingInvalid("cron", "never fires again")
    return tick


def due(timing: Timing, catch_up: CatchUp, *, next_at: datetime, now: datetime, most: int) -> Due:
    """Return which of the ticks from *next_at* up to *now* are to be seen to.

    Catching up on all of them takes *most* at a time. Otherwise only the last one counts, and
    without catching up that one only while it is not LATE.
    """
    if catch_up is CatchUp.ALL:
        ticks = chain([next_at], timing.after(next_at))
        taken = tuple(takewhile(lambda tick: tick <= now, islice(ticks, most)))
        return Due(taken, next_after(timing, taken[-1]))
    last, following = next_at, next_after(timing, next_at)
    if following <= now:
        last = timing.latest(now)
        following = next_after(timing, last)
    is_missed = catch_up is CatchUp.NONE and now - last > LATE
    return Due(() if is_missed else (last,), following)


def _rising(ticks: Iterator[datetime], last: datetime) -> Iterator[datetime]:
    """Yield those of *ticks* that come after all before them, and after *last*."""
    for tick in ticks:
        if tick > last:
            yield tick
            last = tick


def _wall(instant: datetime, zone: ZoneInfo) -> datetime:
    """Return what a clock on the wall shows."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)
