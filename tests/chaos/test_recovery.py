"""Recovery is read from the history: when the lost runs again, and when everybody works again."""

from dataclasses import replace

import pytest

from scheduler.states import Outcome
from tests.chaos.histories import AFTER_A_LOSS, event, life, record, struck
from tests.chaos.record import Event, Record, Struck
from tests.chaos.recovery import Recovery, recoveries
from tests.chaos.schedule import Kind

LOST = life(1, "admit", "start", *AFTER_A_LOSS)  # lost at 4, runs again at 7


def measured(made: Record, *strikes: Struck) -> list[Recovery]:
    return recoveries(replace(made, struck=strikes))


def seconds(made: Record, *strikes: Struck) -> list[float]:
    return list(measured(made, *strikes)[0].seconds)


def on(worker: str, job: int, at: float) -> list[Event]:
    """A job that is submitted, admitted and begun, a second apart, from then on."""
    seq = int(at)
    return [
        event(seq, job, "submit", 0),
        event(seq + 1, job, "admit", 1),
        event(seq + 2, job, "start", 1, worker=f"{worker}@host"),
        event(seq + 3, job, "succeed", 1),
    ]


def test_the_job_of_a_killed_process_is_over_when_it_runs_again() -> None:
    killed = struck(Kind.CHILD_KILLED, 3.5, attempts=[(1, 1)])

    assert seconds(record(LOST), killed) == [3.5]


def test_a_job_that_was_not_lost_is_not_measured() -> None:
    made = record(life(1, "admit", "start", "fail"))

    assert seconds(made, struck(Kind.CHILD_KILLED, 3.5, attempts=[(1, 1)])) == []


def test_a_job_that_failed_by_itself_and_runs_again_is_not_measured() -> None:
    made = record(LOST)
    failed = replace(made, outcomes={**made.outcomes, (1, 1): Outcome.FAILED})

    assert seconds(failed, struck(Kind.CHILD_KILLED, 3.5, attempts=[(1, 1)])) == []


@pytest.mark.parametrize("kind", [Kind.WORKER_KILLED, Kind.WORKER_FROZEN])
def test_of_a_worker_everything_it_ran_is_measured(kind: Kind) -> None:
    other = on("worker2", 2, 20)

    assert seconds(record(LOST, other), struck(kind, 3.5, 5.0, process="worker1")) == [3.5]
    assert seconds(record(LOST, other), struck(kind, 3.5, 5.0, process="worker2")) == []


def test_a_leader_is_followed_by_the_first_admission_of_a_later_epoch() -> None:
    one, other = on("worker1", 1, 1), on("worker1", 2, 11)
    other[1] = replace(other[1], epoch=2)

    assert seconds(record(one, other), struck(Kind.LEADER_KILLED, 5.0, 8.0, epoch=1)) == [7.0]


def test_the_web_is_back_when_something_is_submitted() -> None:
    made = record(on("worker1", 1, 1), on("worker1", 2, 11))

    assert seconds(made, struck(Kind.WEB_KILLED, 5.0, 8.0)) == [3.0]


def test_redis_is_over_when_what_waited_is_taken_and_every_worker_works() -> None:
    waited = life(1, "admit", "start", "succeed")  # admitted at 2, begun at 3
    made = record(waited, on("worker1", 2, 10), on("worker2", 3, 20))

    assert seconds(made, struck(Kind.REDIS_EMPTIED, 2.5)) == [0.5, 19.5]


def test_a_service_is_back_when_the_last_worker_works() -> None:
    made = record(on("worker1", 1, 10), on("worker2", 2, 20), on("worker1", 3, 30))

    assert seconds(made, struck(Kind.POSTGRES_RESTARTED, 5.0, 8.0)) == [14.0]


def test_what_was_admitted_before_proves_nothing() -> None:
    made = record(on("worker1", 1, 10), on("worker1", 2, 20))

    assert seconds(made, struck(Kind.REDIS_CUT, 11.5)) == [10.5]


def test_a_worker_that_was_down_is_not_waited_for() -> None:
    made = record(on("worker1", 1, 10), on("worker2", 2, 40))
    down = struck(Kind.WORKER_KILLED, 12.0, 30.0, process="worker2")

    assert seconds(made, struck(Kind.POSTGRES_CUT, 5.0), down) == [7.0]


def test_an_outage_disturbs_what_it_overlaps_and_nothing_else() -> None:
    made = record(LOST, on("worker1", 2, 20), on("worker1", 3, 40))
    killed = struck(Kind.CHILD_KILLED, 3.5, attempts=[(1, 1)])

    def is_alone(*others: Struck) -> bool:
        return measured(made, killed, *others)[0].is_alone

    assert is_alone()
    assert is_alone(struck(Kind.POSTGRES_CUT, 30.0))
    assert is_alone(struck(Kind.WEB_KILLED, 3.0, 5.0))
    assert not is_alone(struck(Kind.POSTGRES_CUT, 5.0))
    assert not is_alone(struck(Kind.POSTGRES_CUT, 2.5))  # over at 7, when somebody works again


def test_a_strike_that_found_nobody_is_not_measured() -> None:
    nobody = replace(struck(Kind.CHILD_KILLED, 3.5), hit=None)

    assert measured(record(LOST), nobody) == []
