import pytest

from scheduler.policy.reasons import Hold, HoldCode, sentence
from scheduler.snapshot import NOTHING, Resources

NEED = Resources(4, 2048)


@pytest.mark.parametrize(
    ("hold", "expected"),
    [
        (Hold(HoldCode.TURN, before=1), "Waits for its turn: 1 job goes first."),
        (
            Hold(HoldCode.TURN, before=12, own_before=3),
            "Waits for its turn: 12 jobs go first, 3 of them by the same owner.",
        ),
        (
            Hold(HoldCode.RESOURCES, NEED, Resources(1, 4096, 8)),
            "Waits for 4 CPU units; 1 is free now.",
        ),
        (
            Hold(HoldCode.RESOURCES, Resources(1, 2048), Resources(3.5, 0, 8)),
            "Waits for 2048 MB of memory; none is free now.",
        ),
        (
            Hold(HoldCode.RESOURCES, Resources(1, 1), Resources(2, 2, 0)),
            "Waits for a worker process; none is free now.",
        ),
        (
            Hold(HoldCode.RESOURCES, NEED, Resources(2.5, 8192, -1)),
            "Waits for 4 CPU units; 2.5 are free now.",
        ),
        (
            Hold(HoldCode.RESOURCES, NEED, kept_for=7),
            "Waits until another job has started: the free room is kept for it.",
        ),
        (
            Hold(HoldCode.USER_CAP, NEED, Resources(1, 1, 1)),
            "Waits under the owner's own limit for 4 CPU units; 1 is free now.",
        ),
        (
            Hold(HoldCode.USER_CAP, NEED, Resources(8, 8192, 0), of_group=True),
            "Waits until one of the group's jobs ends: no more may run at once.",
        ),
        (
            Hold(HoldCode.USER_CAP, NEED, Resources(8, 8192, 0), behind_first=True),
            "Waits behind the owner's first job, which waits under the owner's own limit.",
        ),
        (
            Hold(HoldCode.TYPE_CAP, NEED, what="report", limit=2),
            "Waits until fewer than 2 report jobs run at once.",
        ),
        (Hold(HoldCode.NO_WORKER, NEED, NOTHING), "Waits for a worker: none is alive."),
        (
            Hold(HoldCode.NO_WORKER, NEED, Resources(2, 1_048_576, 2)),
            (
                "Waits for more workers: it needs 4 CPU units, "
                "and all together offer 2 CPU units and 1048576 MB."
            ),
        ),
        (Hold(HoldCode.PAUSED, what="low"), "Waits until low jobs are resumed."),
    ],
)
def test_a_sentence_says_what_would_unblock_the_job(hold: Hold, expected: str) -> None:
    assert sentence(hold) == expected


def test_a_sentence_names_the_job_that_room_is_kept_for_when_it_may_be_told() -> None:
    hold = Hold(HoldCode.RESOURCES, NEED, kept_for=7)

    assert "until big-report has started" in sentence(hold, kept_for="big-report")
