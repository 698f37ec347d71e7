"""When schedules fire: on ordinary days, on days of 23 and 25 hours, and after an absence."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.errors import TimingInvalid
from scheduler.states import CatchUp
from scheduler.ticks import (
    LATE,
    Cron,
    Due,
    Every,
    Timing,
    cron_line,
    due,
    next_after,
    time_zone,
    timing_of,
)

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
SOME = settings(max_examples=150, deadline=None)
BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def ticks(timing: Timing, start: datetime, end: datetime) -> list[datetime]:
    """Return the ticks after *start* up to *end*."""
    return list(takewhile(lambda tick: tick <= end, timing.after(start)))


# Days on which a clock is put forward or back

SPRING_IN_BERLIN = ("2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00")
AUTUMN_IN_BERLIN = ("2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00")
SPRING_IN_NEW_YORK = ("2026-03-08T00:00-05:00", "2026-03-09T00:00-04:00")
AUTUMN_IN_NEW_YORK = ("2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00")
SPRING_ON_LORD_HOWE = ("2026-10-04T00:00+10:30", "2026-10-05T00:00+11:00")
AUTUMN_ON_LORD_HOWE = ("2026-04-05T00:00+11:00", "2026-04-06T00:00+10:30")


@pytest.mark.parametrize(
    ("zone", "day", "line", "expected"),
    [
        # From two the clock goes on at three.
        (BERLIN, SPRING_IN_BERLIN, "30 2 * * *", ["03:00+02:00"]),
        (BERLIN, SPRING_IN_BERLIN, "0,30 2 * * *", ["03:00+02:00"]),
        (BERLIN, SPRING_IN_BERLIN, "30 2,3 * * *", ["03:00+02:00", "03:30+02:00"]),
        (BERLIN, SPRING_IN_BERLIN, "*/30 2 * * *", []),
        (BERLIN, SPRING_IN_BERLIN, "*/30 1-3 * * *",
         ["01:00+01:00", "01:30+01:00", "03:00+02:00", "03:30+02:00"]),
        # From three it goes back to two.
        (BERLIN, AUTUMN_IN_BERLIN, "30 2 * * *", ["02:30+02:00"]),
        (BERLIN, AUTUMN_IN_BERLIN, "30 1-3 * * *", ["01:30+02:00", "02:30+02:00", "03:30+01:00"]),
        (BERLIN, AUTUMN_IN_BERLIN, "*/30 2 * * *",
         ["02:00+02:00", "02:30+02:00", "02:00+01:00", "02:30+01:00"]),
        # From two it goes on at three.
        (NEW_YORK, SPRING_IN_NEW_YORK, "30 2 * * *", ["03:00-04:00"]),
        (NEW_YORK, SPRING_IN_NEW_YORK, "*/30 2 * * *", []),
        # From two it goes back to one.
        (NEW_YORK, AUTUMN_IN_NEW_YORK, "30 1,2 * * *", ["01:30-04:00", "02:30-05:00"]),
        (NEW_YORK, AUTUMN_IN_NEW_YORK, "*/30 1 * * *",
         ["01:00-04:00", "01:30-04:00", "01:00-05:00", "01:30-05:00"]),
        # From two it goes on at half past two.
        (LORD_HOWE, SPRING_ON_LORD_HOWE, "15,45 2 * * *", ["02:30+11:00", "02:45+11:00"]),
        (LORD_HOWE, SPRING_ON_LORD_HOWE, "*/15 2-3 * * *",
         ["02:30+11:00", "02:45+11:00",
          "03:00+11:00", "03:15+11:00", "03:30+11:00", "03:45+11:00"]),
        # From two it goes back to half past one.
        (LORD_HOWE, AUTUMN_ON_LORD_HOWE, "15,45 1 * * *", ["01:15+11:00", "01:45+11:00"]),
        (LORD_HOWE, AUTUMN_ON_LORD_HOWE, "*/15 1-2 * * *",
         ["01:00+11:00", "01:15+11:00", "01:30+11:00", "01:45+11:00",
          "01:30+10:30", "01:45+10:30",
          "02:00+10:30", "02:15+10:30", "02:30+10:30", "02:45+10:30"]),
    ],
)  # fmt: skip
def test_a_line_on_a_day_when_the_clock_is_changed(
    zone: str, day: tuple[str, str], line: str, expected: list[str]
) -> None:
    date, _, _ = day[0].partition("T")
    start, end = (at(text) - MINUTE for text in day)

    assert ticks(Cron(line, ZoneInfo(zone)), start, end) == [
        at(f"{date}T{time}") for time in expected
    ]


@pytest.mark.parametrize("day", [SPRING_IN_BERLIN, AUTUMN_IN_BERLIN])
def test_every_hour_is_every_hour_on_any_day(day: tuple[str, str]) -> None:
    start, end = at(day[0]), at(day[1])

    found = ticks(Cron("30 * * * *", ZoneInfo(BERLIN)), start, end)

    assert found == [start + 30 * MINUTE + n * HOUR for n in range((end - start) // HOUR)]


def test_in_the_hour_shown_again_a_line_has_no_tick_that_passed_in_the_first() -> None:
    again = at("2026-10-25T02:15+01:00")
    nightly = Cron("30 2 * * *", ZoneInfo(BERLIN))

    assert next_after(nightly, again) == at("2026-10-26T02:30+01:00")
    assert nightly.latest(again) == at("2026-10-25T02:30+02:00")


# Against a clock that is looked at minute by minute

DAYS = {
    "Europe/Berlin": ["2026-03-29", "2026-10-25", "2026-06-01"],
    "America/New_York": ["2026-03-08", "2026-11-01"],
    "Australia/Lord_Howe": ["2026-04-05", "2026-10-04"],
    "America/Havana": ["2026-03-08", "2026-11-01"],  # at midnight
    "Antarctica/Troll": ["2026-03-29", "2026-10-25"],  # by two hours
    "Pacific/Apia": ["2011-12-30"],  # a day that was left out
    "Asia/Kathmandu": ["2026-06-01"],
    "UTC": ["2026-06-01"],
}
ZONED_DAYS = [(zone, day) for zone, days in DAYS.items() for day in days]
MINUTES = {
    "*": range(60),
    "*/15": range(0, 60, 15),
    "0": [0],
    "30": [30],
    "5,45": [5, 45],
    "10-50/20": [10, 30, 50],
}
HOURS = {
    "*": range(24),
    "*/2": range(0, 24, 2),
    "0": [0],
    "1": [1],
    "2": [2],
    "1-3": [1, 2, 3],
    "2,23": [2, 23],
}
WEEKDAYS = {"*": range(7), "SUN": [6], "1-6": range(6), "sat,sun": [5, 6]}

LINES = st.tuples(
    st.sampled_from(sorted(MINUTES)),
    st.sampled_from(sorted(HOURS)),
    st.sampled_from(list(WEEKDAYS)),
)
MOMENTS = st.tuples(st.sampled_from(ZONED_DAYS), st.integers(-26 * 3600, 26 * 3600))


def looked_at(
    fields: tuple[str, str, str], place: tuple[str, str], start: datetime
) -> set[datetime]:
    """Return the ticks of two days after *start*, from looking at the clock every minute."""
    minute, hour, weekday = fields
    has_set_times = not (minute.startswith("*") or hour.startswith("*"))
    return {
        one.at
        for one in _minutes(*place)
        if start < one.at <= start + 2 * DAY
        and one.wall.minute in MINUTES[minute]
        and one.wall.hour in HOURS[hour]
        and one.wall.weekday() in WEEKDAYS[weekday]
        and (not one.is_again if has_set_times else not one.is_skipped)
    }


class _Minute(NamedTuple):
    """A minute as the calendar has it, and the instant that is it or stands for it."""

    wall: datetime
    at: datetime
    is_skipped: bool = False  # the clock never shows it; the first one after stands for it
    is_again: bool = False  # the clock shows it for the second time


@cache
def _minutes(name: str, day: str) -> Sequence[_Minute]:
    zone = ZoneInfo(name)
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC) - 3 * DAY
    wall = latest = begin.astimezone(zone).replace(tzinfo=None)
    found = []
    for number in range(1, 8 * 24 * 60):
        at = begin + number * MINUTE
        before, wall = wall, at.astimezone(zone).replace(tzinfo=None, fold=0)
        skipped = range(1, (wall - before) // MINUTE)
        found += [_Minute(before + step * MINUTE, at, is_skipped=True) for step in skipped]
        found.append(_Minute(wall, at, is_again=wall <= latest))
        latest = max(latest, wall)
    return found


@SOME
@example((("10-50/20", "1-3", "*"), (("Australia/Lord_Howe", "2026-04-05"), 0)))
@example((("*/15", "1-3", "*"), (("Australia/Lord_Howe", "2026-04-05"), 3600)))
@example((("0", "2", "*"), (("Pacific/Apia", "2011-12-30"), 0)))
@given(st.tuples(LINES, MOMENTS))
def test_ticks_are_what_a_clock_on_the_wall_shows(
    given_: tuple[tuple[str, str, str], tuple[tuple[str, str], int]],
) -> None:
    fields, ((name, day), seconds) = given_
    zone = ZoneInfo(name)
    start = datetime.fromisoformat(day).replace(tzinfo=zone).astimezone(UTC)
    start += timedelta(seconds=seconds)
    cron = Cron(f"{fields[0]} {fields[1]} * * {fields[2]}", zone)

    expected = sorted(looked_at(fields, (name, day), start))

    assert ticks(cron, start, start + 2 * DAY) == expected
    for now in (start + DAY, start + 2 * DAY):
        up_to_now = [tick for tick in expected if tick <= now]
        if up_to_now:
            assert cron.latest(now) == up_to_now[-1]


@SOME
@given(LINES, MOMENTS, st.integers(1, 20))
def test_going_on_from_any_tick_gives_the_same_ticks(
    fields: tuple[str, str, str], moment: tuple[tuple[str, str], int], place: int
) -> None:
    (name, day), seconds = moment
    cron = Cron(f"{fields[0]} {fields[1]} * * {fields[2]}", ZoneInfo(name))
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(seconds=seconds)

    found = list(islice(cron.after(start), place + 5))

    assert found == sorted(set(found))
    assert list(islice(cron.after(found[place - 1]), 5)) == found[place:]


# What a line says

REFUSED = [
    "", "* * * *", "* * * * * *", "@daily", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *",
    "* * * * 8", "a * * * *", "*/0 * * * *", "5-1 * * * *", "* * * * MON#6", "0 0 30 2 *",
    "0 0 31 2,4,6,9,11 *", "0 0 */31 * 1#2", "\0 * * * *", "9" * 5000 + " * * * *",
]  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_a_line_that_is_wrong_or_never_fires_is_refused(line: str) -> None:
    with pytest.raises(TimingInvalid) as refusal:
        cron_line(line)

    assert refusal.value.field == "cron"


def test_a_line_that_fires_seldom_is_taken() -> None:
    leap = Cron(cron_line("0 0 29 2 *"), ZoneInfo("UTC"))
    seldom = Cron(cron_line("0 0 * 2 MON#5"), ZoneInfo("UTC"))

    assert list(islice(leap.after(NOON), 2)) == [at("2028-02-29T00:00Z"), at("2032-02-29T00:00Z")]
    assert next_after(seldom, NOON) == at("2044-02-29T00:00Z")


def test_a_line_is_kept_with_single_spaces() -> None:
    assert cron_line("  0\t9  * *   mon-fri ") == "0 9 * * mon-fri"


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "America", "../etc/passwd", "europe/berlin"])
def test_a_zone_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(TimingInvalid) as refusal:
        time_zone(name)

    assert refusal.value.field == "timezone"


def test_a_line_that_will_not_fire_again_is_told() -> None:
    class Over(Every):
        def after(self, _: datetime) -> Iterator[datetime]:
            return iter(())

    with pytest.raises(TimingInvalid, match="never fires again"):
        next_after(Over(1, NOON), NOON)


@pytest.mark.parametrize(
    ("timing", "words"),
    [
        (Cron("30 2 * * *", ZoneInfo(BERLIN)), "At 02:30 every day"),
        (Cron("*/15 * * * *", ZoneInfo("UTC")), "Every 15th minute of every hour"),
        (Cron("0 22 * * 7", ZoneInfo("UTC")), "At 22:00 on Sunday"),
        (Cron("0 0 l * *", ZoneInfo("UTC")), "At 00:00 on the last day of every month"),
        (Every(1, NOON), "Every second"),
        (Every(90, NOON), "Every 90 seconds"),
        (Every(60, NOON), "Every minute"),
        (Every(5400, NOON), "Every 90 minutes"),
        (Every(7200, NOON), "Every 2 hours"),
        (Every(86_400, NOON), "Every day"),
    ],
)
def test_it_is_said_in_plain_words(timing: Timing, words: str) -> None:
    assert timing.words() == words


# Every so many seconds


@SOME
@given(st.integers(1, 10**6), st.timedeltas(-1000 * DAY, 1000 * DAY), st.integers(-5, 5))
def test_every_so_many_seconds_keeps_its_step(seconds: int, passed: timedelta, number: int) -> None:
    every = Every(seconds, NOON)
    now = NOON + passed

    first, second = islice(every.after(now), 2)
    latest = every.latest(now)

    assert latest <= now < first
    assert second - first == first - latest == timedelta(seconds=seconds)
    assert (first - NOON) % timedelta(seconds=seconds) == timedelta(0)
    assert Every(seconds, NOON + number * timedelta(seconds=seconds)).latest(now) == latest


def test_ticks_are_whole_seconds() -> None:
    begun = NOON + timedelta(microseconds=700_000)

    every = timing_of(None, 1, "UTC", tick=begun)

    assert next_after(every, begun) == NOON + timedelta(seconds=1)


# Catching up

MINUTELY = Cron("* * * * *", ZoneInfo("UTC"))
TIMINGS: list[Timing] = [MINUTELY, Every(60, NOON)]


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("catch_up", CatchUp)
def test_a_tick_that_is_seen_in_time_is_seen_to_whatever_is_caught_up_on(
    timing: Timing, catch_up: CatchUp
) -> None:
    for delay in (timedelta(0), timedelta(seconds=59)):
        found = due(timing, catch_up, next_at=NOON, now=NOON + delay, most=5)

        assert found == Due((NOON,), NOON + MINUTE)


@pytest.mark.parametrize("timing", TIMINGS)
def test_of_what_was_missed_all_the_latest_or_none_is_seen_to(timing: Timing) -> None:
    now = NOON + 3 * MINUTE + timedelta(seconds=5)
    missed = tuple(NOON + n * MINUTE for n in range(4))

    found = {each: due(timing, each, next_at=NOON, now=now, most=9) for each in CatchUp}

    assert found == {
        CatchUp.ALL: Due(missed, NOON + 4 * MINUTE),
        CatchUp.LATEST: Due(missed[-1:], NOON + 4 * MINUTE),
        CatchUp.NONE: Due(missed[-1:], NOON + 4 * MINUTE),  # that one is not late
    }


def test_without_catching_up_a_tick_that_is_late_is_left_out() -> None:
    hourly = Cron("0 * * * *", ZoneInfo("UTC"))
    found = {
        delay: due(hourly, CatchUp.NONE, next_at=NOON, now=NOON + delay, most=9)
        for delay in (LATE, LATE + timedelta(microseconds=1), 5 * HOUR)
    }

    assert list(found.values()) == [
        Due((NOON,), NOON + HOUR),
        Due((), NOON + HOUR),
        Due((NOON + 5 * HOUR,), NOON + 6 * HOUR),
    ]


@SOME
@given(st.integers(0, 300), st.integers(1, 50), st.integers(0, 59))
def test_catching_up_on_all_in_parts_leaves_out_and_doubles_nothing(
    missed: int, most: int, seconds: int
) -> None:
    now = NOON + missed * MINUTE + timedelta(seconds=seconds)
    next_at, seen = NOON, list[datetime]()

    while next_at <= now:
        found = due(MINUTELY, CatchUp.ALL, next_at=next_at, now=now, most=most)
        assert 0 < len(found.ticks) <= most
        seen += found.ticks
        next_at = found.next_at

    assert seen == [NOON + n * MINUTE for n in range(missed + 1)]
    assert next_at == NOON + (missed + 1) * MINUTE


@pytest.mark.parametrize("catch_up", CatchUp)
@pytest.mark.parametrize("timing", TIMINGS)
def test_a_million_missed_ticks_are_not_gone_through(timing: Timing, catch_up: CatchUp) -> None:
    class Counted:
        """Counts how many ticks are asked for."""

        asked = 0
        words = timing.words

        def after(self, instant: datetime) -> Iterator[datetime]:
            for tick in timing.after(instant):
                self.asked += 1
                yield tick

        def latest(self, now: datetime) -> datetime:
            return timing.latest(now)

    counted = Counted()

    found = due(counted, catch_up, next_at=NOON, now=NOON + 10**6 * MINUTE, most=100)

    assert len(found.ticks) == (100 if catch_up is CatchUp.ALL else 1)
    assert counted.asked <= 102
