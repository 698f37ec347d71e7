import itertools
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.states import DISCARD, CancelReason, JobStatus
from tests.factories import NOON
from webapp import live_messages
from webapp.live_messages import PER_SECOND, Coalescer

KEY = (1, "a")
INTERVAL = 1 / PER_SECOND


def move(
    seq: int = 7, status: JobStatus = JobStatus.RUNNING, data: Any = None, **fields: Any
) -> dict[str, Any]:
    return {
        "seq": seq,
        "job_id": "a",
        "owner_id": 1,
        "verb": "start",
        "status": status,
        "attempt": 1,
        "at": (NOON + timedelta(seconds=seq)).isoformat(),
        "data": data,
        **fields,
    }


def progress(fraction: float, attempt: int = 1) -> dict[str, Any]:
    told = {"owner_id": 1, "job_id": "a", "attempt": attempt, "fraction": fraction, "message": None}
    return live_messages.of_progress(told, "ann")


def test_the_first_change_is_told_at_once_and_the_next_is_held_back() -> None:
    coalescer = Coalescer()

    first = coalescer.offer(KEY, progress(0.1), now=0)
    second = coalescer.offer(KEY, progress(0.2), now=0.1)

    assert first == progress(0.1)
    assert second is None
    assert coalescer.due(now=0.2) == []
    assert coalescer.due(now=INTERVAL) == [(KEY, progress(0.2))]


def test_the_latest_of_what_is_held_back_wins_and_no_field_is_lost() -> None:
    coalescer = Coalescer()
    coalescer.offer(KEY, progress(0.1), now=0)
    coalescer.offer(KEY, live_messages.of_move(move(7), "ann"), now=0.01)
    coalescer.offer(KEY, progress(0.2), now=0.02)
    coalescer.offer(KEY, progress(0.3), now=0.03)

    [(_, told)] = coalescer.due(now=1)

    assert told["seq"] == 7
    assert told["status"] == JobStatus.RUNNING
    assert told["progress"]["fraction"] == 0.3


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_an_end_is_told_at_once_with_what_was_held_back(status: JobStatus) -> None:
    coalescer = Coalescer()
    coalescer.offer(KEY, progress(0.1), now=0)
    coalescer.offer(KEY, progress(0.9), now=0.01)

    told = coalescer.offer(KEY, live_messages.of_move(move(9, status), "ann"), now=0.02)

    assert told is not None
    assert told["status"] == status
    assert told["progress"]["fraction"] == 0.9
    assert coalescer.due(now=10) == []


def test_a_move_that_arrives_behind_a_later_one_does_not_win() -> None:
    coalescer = Coalescer()
    coalescer.offer(KEY, progress(0), now=0)
    coalescer.offer(KEY, live_messages.of_move(move(8, JobStatus.RUNNING), "ann"), now=0.01)
    coalescer.offer(KEY, live_messages.of_move(move(7, JobStatus.QUEUED), "ann"), now=0.02)

    [(_, told)] = coalescer.due(now=1)

    assert (told["seq"], told["status"]) == (8, JobStatus.RUNNING)


def test_the_progress_of_an_attempt_ends_with_it() -> None:
    coalescer = Coalescer()
    coalescer.offer(KEY, progress(0), now=0)
    coalescer.offer(KEY, progress(0.8), now=0.01)
    again = move(9, JobStatus.QUEUED, attempt=2)
    coalescer.offer(KEY, live_messages.of_move(again, "ann"), now=0.02)

    [(_, told)] = coalescer.due(now=1)

    assert "progress" not in told


@settings(deadline=None)
@given(st.lists(st.floats(0, 3), max_size=60).map(sorted))
def test_a_job_is_never_told_more_often_than_promised_and_never_left_behind(
    times: list[float],
) -> None:
    coalescer = Coalescer()
    told: list[tuple[float, float]] = []

    for number, at in enumerate(times):
        told += [(at, change["progress"]["fraction"]) for _, change in coalescer.due(now=at)]
        change = coalescer.offer(KEY, progress(number), now=at)
        if change is not None:
            told.append((at, change["progress"]["fraction"]))
    told += [(10, change["progress"]["fraction"]) for _, change in coalescer.due(now=10)]

    assert [fraction for _, fraction in told][-1:] == [len(times) - 1][: len(times)]
    gaps = [later - sooner for (sooner, _), (later, _) in itertools.pairwise(told)]
    assert all(gap >= INTERVAL for gap in gaps)


def test_a_finished_job_is_notified_with_its_error() -> None:
    note = live_messages.notification(move(3, JobStatus.FAILED, {"error": "ValueError"}))

    assert note is not None
    assert note["title"] == "a failed"
    assert note["message"] == "ValueError"
    assert note["seq"] == 3


def test_nobody_is_notified_of_a_failure_again_when_it_is_discarded() -> None:
    assert live_messages.notification(move(3, JobStatus.FAILED, verb=DISCARD)) is None


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (JobStatus.RUNNING, None),
        (JobStatus.RETRYING, {"error": "ValueError"}),
        (JobStatus.CANCELLED, {"reason": CancelReason.BY_USER}),
        (JobStatus.CANCELLED, {"reason": CancelReason.REPLACED}),
    ],
)
def test_nobody_is_notified_of_what_goes_on_or_what_they_did(
    status: JobStatus, data: dict[str, Any] | None
) -> None:
    assert live_messages.notification(move(3, status, data)) is None


def test_a_cancellation_by_a_dependency_is_notified() -> None:
    data = {"reason": CancelReason.DEPENDENCY_FAILED}

    note = live_messages.notification(move(3, JobStatus.CANCELLED, data))

    assert note is not None
    assert note["title"] == "a was cancelled"
    assert note["message"] == "A job it waited for did not complete."


def test_a_replay_tells_the_last_change_of_each_job_in_order() -> None:
    moves = [
        move(1, JobStatus.QUEUED),
        move(2, JobStatus.QUEUED, job_id="b"),
        move(3, JobStatus.RUNNING, job_id="b"),
        move(4, JobStatus.RUNNING),
        move(5, JobStatus.QUEUED, owner_id=2),
    ]

    told = live_messages.replay(moves, {1: "ann", 2: "bob"})

    assert [(one["owner"], one["job_id"], one["seq"]) for one in told] == [
        ("ann", "b", 3),
        ("ann", "a", 4),
        ("bob", "a", 5),
    ]
