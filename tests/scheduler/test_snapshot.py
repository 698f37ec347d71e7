from datetime import UTC, datetime, timedelta

from scheduler.snapshot import NOTHING, Resources, Running

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def running(*, expected: float = 10, started_at: datetime | None = NOON) -> Running:
    return Running(
        id=1,
        attempt=1,
        owner_id=1,
        job_type="simulate",
        cpu_units=4,
        memory_mb=128,
        expected=timedelta(seconds=expected),
        admitted_at=NOON,
        started_at=started_at,
        charge=5,
        express=False,
    )


def test_amounts_of_cpu_do_not_drift() -> None:
    total = NOTHING
    for _ in range(10):
        total += Resources(0.1, 1)

    assert total == Resources(1.0, 10, 10)
    assert total - Resources(0.7, 10, 10) == Resources(0.3, 0, 0)


def test_room_covers_what_is_not_larger_in_any_part() -> None:
    room = Resources(2, 512, 1)

    assert room.covers(Resources(2, 512, 1))
    assert not room.covers(Resources(2.001, 512, 1))
    assert not room.covers(Resources(2, 513, 1))
    assert not room.covers(Resources(2, 512, 2))


def test_a_running_job_has_used_its_share_since_its_start() -> None:
    assert running().share == 0.5
    assert running().consumed(NOON + timedelta(seconds=4)) == 2
    assert running().consumed(NOON - timedelta(seconds=4)) == 0


def test_a_job_that_has_not_started_has_used_nothing() -> None:
    assert running(started_at=None).consumed(NOON + timedelta(seconds=4)) == 0


def test_a_job_expected_to_take_no_time_has_no_share() -> None:
    assert running(expected=0).share == 0
