"""Hours of the week during which a rule applies, by the clock on the wall of a time zone. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo


class Day(StrEnum):
    """A day of the week, from the first."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


DAYS = tuple(Day)
MIDNIGHT, END_OF_DAY = "00:00", "24:00"

_DAY = timedelta(days=1)
_WHOLE_DAY = 24 * 60
_HORIZON = 15
"""Days searched for a change: two weeks, since a clock put forward may skip the hours of one."""

_INSTANT = timedelta(seconds=1)
"""How finely a change of the clock is looked for; zones change at whole seconds."""


@dataclass(frozen=True, slots=True)
class Hours:
    """From *start* to *end*, in minutes after midnight, on the days that are named.

    Hours that end at or before their start go on over midnight and belong to the day on which
    they began. The clock on the wall decides: hours that it skips are missing, hours that it
    shows twice hold twice.
    """

    days: frozenset[int]  # Monday is 0
    start: int
    end: int
    zone: ZoneInfo

    def hold(self, now: datetime) -> bool:
        """Tell whether *now* is within these hours."""
        shown = now.astimezone(self.zone)
        minute, today = shown.hour * 60 + shown.minute, shown.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= minute < self.end
        yesterday = (today - 1) % len(DAYS)
        return (today in self.days and minute >= self.start) or (
            yesterday in self.days and minute < self.end
        )

    def change_after(self, now: datetime) -> datetime | None:
        """Return the next instant at which these hours begin or end; None if they never do."""
        changes = (at for at in self._moments(now) if at > now and self._changes(at))
        return min(changes, default=None)

    def _changes(self, at: datetime) -> bool:
        return self.hold(at) != self.hold(at - _INSTANT)

    def _moments(self, now: datetime) -> Iterator[datetime]:
        """Yield every instant near *now* at which the clock could show another answer."""
        today = now.astimezone(self.zone).date()
        for passed in range(-1, _HORIZON):
            day = today + passed * _DAY
            for minute in (self.start, self.end % _WHOLE_DAY):
                yield self._instant(day, minute, fold=0)
                yield self._instant(day, minute, fold=1)
            yield from self._jumps(day)

    def _instant(self, day: date, minute: int, *, fold: int) -> datetime:
        shown = time(minute // 60, minute % 60, tzinfo=self.zone, fold=fold)
        return datetime.combine(day, shown).astimezone(UTC)

    def _jumps(self, day: date) -> Iterator[datetime]:
        """Yield when on *day* the clock is put forward or back, if it is."""
        before, after = self._instant(day, 0, fold=0), self._instant(day + _DAY, 0, fold=0)
        if self._offset(before) == self._offset(after):
            return
        while after - before > _INSTANT:
            middle = before + (after - before) // 2 // _INSTANT * _INSTANT
            if self._offset(middle) == self._offset(before):
                before = middle
            else:
                after = middle
        yield after

    def _offset(self, at: datetime) -> timedelta | None:
        return at.astimezone(self.zone).utcoffset()


def hours_of(given: Mapping[str, Any]) -> Hours:
    """Read hours as a policy holds them."""
    return Hours(
        days=frozenset(DAYS.index(day) for day in given.get("days", DAYS)),
        start=minutes_of(given.get("from", MIDNIGHT)),
        end=minutes_of(given.get("to", END_OF_DAY)),
        zone=ZoneInfo(given.get("timezone", "UTC")),
    )


def minutes_of(clock: str) -> int:
    """Return the minutes after midnight of a time written ``HH:MM``."""
    hour, _, minute = clock.partition(":")
    return int(hour) * 60 + int(minute)
