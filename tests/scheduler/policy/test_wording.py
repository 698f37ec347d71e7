from datetime import timedelta

from hypothesis import given

from scheduler.policy.admission import Grounds
from scheduler.policy.durations import Expected, Source
from scheduler.policy.experience import Estimate, Method
from scheduler.policy.explanation import Allowance, Explanation, Received, explain
from scheduler.policy.plan import plan
from scheduler.policy.reasons import Hold, HoldCode, sentence
from scheduler.policy.wording import to_lines
from scheduler.snapshot import NOTHING, Reservation, Resources, Snapshot
from tests.scheduler.policy.machine import EIGHT, NOON, seconds
from tests.scheduler.policy.test_promises import SOME, snapshots

NAMES = {1: "nightly", 2: "huge"}
OVER = (
    "The owner is over its share by 12 machine-seconds, 96 CPU-seconds"
    " (meter 10.000, virtual now 4.000)."
)
CLOSED = (
    "Express allowance left: 2 machine-seconds, 16 CPU-seconds,"
    " but everybody's express work has closed the lane."
)


def about(**changes: object) -> Explanation:
    fields: dict[str, object] = {
        "job_id": 1,
        "grounds": None,
        "hold": Hold(HoldCode.TURN, before=11, own_before=2),
        "position": 12,
        "own_before": 2,
        "received": Received(10.0, 4.0, 2.0),
        "allowance": None,
        "missing": NOTHING,
        "reservation": None,
    }
    return Explanation(**(fields | changes))  # type: ignore[arg-type]  # by name


def told(explained: Explanation) -> list[str]:
    return to_lines(explained, now=NOON, names=NAMES, capacity=EIGHT)


def test_a_job_that_waits_for_its_turn_is_told_where_it_and_its_owner_stand() -> None:
    assert told(about()) == [
        "Waits for its turn: 11 jobs go first, 2 of them by the same owner.",
        "Position: 12; 2 jobs of the same owner ahead.",
        OVER,
    ]


def test_an_owner_with_less_than_its_share_is_told_so() -> None:
    (line,) = [each for each in told(about(received=Received(1.0, 4.0, 1.0))) if "owner is" in each]

    assert line.startswith("The owner is within its share, and owed 3 machine-seconds")


def test_everything_that_applies_is_told_in_its_order() -> None:
    hold = Hold(HoldCode.RESOURCES, need=Resources(4, 512), available=Resources(1, 128, 2))
    lines = told(
        about(
            hold=hold,
            position=1,
            own_before=0,
            allowance=Allowance(2.0, is_open=False),
            missing=Resources(3, 384, 0),
            reservation=Reservation(1, 1, NOON - seconds(9), NOON + seconds(40)),
            rules=("night", "big"),
            expected=Expected(seconds(30), 0.5, Source.OWN),
            start=Estimate(NOON + seconds(20), NOON + timedelta(minutes=3), Method.SIMULATION),
        )
    )

    assert lines == [
        "Waits for 4 CPU units; 1 is free now.",
        "Position: 1.",
        OVER,
        CLOSED,
        "Missing: 3 CPU units, 384 MB of memory.",
        "Room is firmly kept for it, which was promised a start 40 s from now.",
        "Rules that apply: night, big.",
        "Expected to take 30 s, mostly 16 s to 57 s: learned from the owner's jobs of this type.",
        "Probably starts between 20 s from now and 3 min from now (by simulation).",
    ]


def test_the_job_room_is_kept_for_is_named() -> None:
    lines = told(
        about(
            hold=Hold(HoldCode.RESOURCES, kept_for=2),
            reservation=Reservation(2, 5, NOON, NOON - seconds(1)),
        )
    )

    assert lines[0] == "Waits until huge has started: the free room is kept for it."
    assert "Room is kept for huge, which was promised a start now." in lines


def test_a_used_up_allowance_is_told() -> None:
    assert "The owner's express allowance is used up; it refills as time passes." in told(
        about(allowance=Allowance(0.0, is_open=True))
    )


def test_a_job_that_goes_now_has_no_position() -> None:
    lines = told(about(hold=None, grounds=Grounds.EXPRESS, position=0))

    assert lines[0] == "Goes now (express)."
    assert not [line for line in lines if line.startswith("Position")]


def test_beyond_the_plan_places_are_about_right() -> None:
    lines = told(about(hold=Hold(HoldCode.TURN, before=4000), position=4001, is_exact=False))

    assert lines[0] == "Waits for its turn: about 4000 jobs go first."
    assert lines[1] == "Position: about 4001; 2 jobs of the same owner ahead."


@SOME
@given(snapshots)
def test_the_first_line_is_the_sentence_of_the_plan(seen: Snapshot) -> None:
    made = plan(seen)

    for each in seen.candidates:
        lines = to_lines(
            explain(seen, made, each.id), now=seen.now, names={}, capacity=seen.limits.capacity
        )
        hold = made.holds.get(each.id)
        assert (lines[0].startswith("Goes now")) == (hold is None)
        assert hold is None or lines[0] == sentence(hold)
