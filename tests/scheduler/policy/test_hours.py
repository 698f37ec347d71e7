"""Hours of the week: over midnight, over changes of the clock, and when they change."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.policy.hours import DAYS, Hours, hours_of

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = timedelta(minutes=1)
SOME = settings(max_examples=100, deadline=None)

NIGHT = {"days": ["fri"], "from": "22:00", "to": "06:00", "timezone": "Europe/Berlin"}
OFFICE = {"days": ["mon", "tue"], "from": "08:00", "to": "18:00", "timezone": "Europe/Berlin"}
SKIPPED = {"days": ["sun"], "from": "02:15", "to": "02:45", "timezone": "Europe/Berlin"}


def berlin(text: str, *, fold: int = 0) -> datetime:
    """An instant as a clock in Berlin shows it."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("hours", "now", "hold"),
    [
        (OFFICE, berlin("2026-06-01T08:00"), True),  # a Monday
        (OFFICE, berlin("2026-06-01T07:59:59"), False),
        (OFFICE, berlin("2026-06-01T17:59:59"), True),
        (OFFICE, berlin("2026-06-01T18:00"), False),
        (OFFICE, berlin("2026-06-03T12:00"), False),  # a Wednesday
        (NIGHT, berlin("2026-06-05T21:59"), False),
        (NIGHT, berlin("2026-06-05T22:00"), True),
        (NIGHT, berlin("2026-06-06T05:59"), True),  # Saturday, in the night that began on Friday
        (NIGHT, berlin("2026-06-06T06:00"), False),
        (NIGHT, berlin("2026-06-06T22:00"), False),
        (NIGHT, berlin("2026-06-05T05:00"), False),  # the night that began on Thursday
        ({"days": ["sat"]}, datetime(2026, 6, 6, 23, 59, tzinfo=UTC), True),
        ({"days": ["sat"]}, datetime(2026, 6, 7, tzinfo=UTC), False),
        ({}, datetime(2026, 6, 7, tzinfo=UTC), True),
        (SKIPPED, berlin("2026-03-29T03:30"), False),  # from two the clock goes on at three
        ({"from": "02:30", "timezone": "Europe/Berlin"}, berlin("2026-03-29T03:00"), True),
        ({"from": "02:30", "timezone": "Europe/Berlin"}, berlin("2026-03-29T01:59"), False),
        (SKIPPED, berlin("2026-10-25T02:30"), True),  # shown twice
        (SKIPPED, berlin("2026-10-25T02:30", fold=1), True),
        (SKIPPED, berlin("2026-10-25T02:50"), False),
    ],
)
def test_hours_hold_by_the_clock_on_the_wall(
    hours: dict[str, Any], now: datetime, *, hold: bool
) -> None:
    assert hours_of(hours).hold(now) is hold


@pytest.mark.parametrize(
    ("hours", "now", "change"),
    [
        (OFFICE, berlin("2026-06-01T07:00"), berlin("2026-06-01T08:00")),
        (OFFICE, berlin("2026-06-01T08:00"), berlin("2026-06-01T18:00")),
        (OFFICE, berlin("2026-06-02T18:00"), berlin("2026-06-08T08:00")),
        (NIGHT, berlin("2026-06-05T23:00"), berlin("2026-06-06T06:00")),
        (SKIPPED, berlin("2026-03-22T02:45"), berlin("2026-04-05T02:15")),
        (SKIPPED, berlin("2026-10-25T02:15"), berlin("2026-10-25T02:45")),
        (SKIPPED, berlin("2026-10-25T02:45"), berlin("2026-10-25T02:15", fold=1)),
        (  # the clock is put forward into the hours
            {"from": "02:30", "to": "04:00", "timezone": "Europe/Berlin"},
            berlin("2026-03-29T01:00"),
            berlin("2026-03-29T03:00"),
        ),
        (  # the clock is put back out of the hours
            {"from": "02:30", "to": "03:30", "timezone": "Europe/Berlin"},
            berlin("2026-10-25T02:45"),
            berlin("2026-10-25T02:00", fold=1),
        ),
        ({}, berlin("2026-06-01T00:00"), None),
    ],
)
def test_hours_tell_when_they_begin_or_end(
    hours: dict[str, Any], now: datetime, change: datetime | None
) -> None:
    assert hours_of(hours).change_after(now) == change


some_hours = st.builds(
    Hours,
    days=st.frozensets(st.integers(0, 6), min_size=1),
    start=st.integers(0, 1439),
    end=st.integers(1, 1440),
    zone=st.sampled_from(
        [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns")]
    ),
).filter(lambda hours: hours.start != hours.end)

some_minute = st.integers(0, 2 * 365 * 1440).map(
    lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + minutes * MINUTE
)


@SOME
@given(some_hours, some_minute)
@example(hours_of(SKIPPED), berlin("2026-03-28T12:00"))
def test_nothing_changes_before_the_next_change_and_something_does_then(
    hours: Hours, now: datetime
) -> None:
    change = hours.change_after(now)

    if change is None:
        assert all(hours.hold(now + step * 60 * MINUTE) == hours.hold(now) for step in range(336))
        return
    minutes = int((change - now) / MINUTE)
    before = {hours.hold(now + minute * MINUTE) for minute in {*range(0, minutes, 7), minutes - 1}}
    assert before == {hours.hold(now)}
    assert hours.hold(change) != hours.hold(now)


@SOME
@given(some_hours, some_minute)
def test_a_week_holds_as_many_minutes_as_its_hours_say(hours: Hours, now: datetime) -> None:
    if hours.zone.key != "UTC":
        return
    length = (hours.end - hours.start) % 1440 or 1440

    held = sum(hours.hold(now + minute * MINUTE) for minute in range(7 * 1440))

    assert held == length * len(hours.days)


@given(some_hours)
def test_hours_can_be_written_and_read(hours: Hours) -> None:
    written = {
        "days": [DAYS[day] for day in sorted(hours.days)],
        "from": f"{hours.start // 60:02}:{hours.start % 60:02}",
        "to": f"{hours.end // 60:02}:{hours.end % 60:02}",
        "timezone": hours.zone.key,
    }

    assert hours_of(written) == hours
