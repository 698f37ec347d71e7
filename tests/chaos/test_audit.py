"""The audit passes what is well, and notices each way to break a promise."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from scheduler.states import Condition, JobStatus, Outcome
from tests.chaos.audit import RULES, audit
from tests.chaos.histories import AFTER_A_LOSS, event, life, record, whole
from tests.chaos.record import Edge, Record

S = JobStatus

Spoil = Callable[[], Record]


def with_events(*lives: list[Any], **changes: Any) -> Record:
    return record(*lives, **changes)


def with_job(**changes: Any) -> Record:
    made = whole()
    return replace(made, jobs={**made.jobs, 1: replace(made.jobs[1], **changes)})


def without(made: Record, seq: int) -> Record:
    return replace(made, events=[one for one in made.events if one.seq != seq])


def two_at_once(**changes: Any) -> Record:
    """Two jobs that are held at the same time, of a size."""
    one = [event(seq, 1, verb, min(1, seq - 1)) for seq, verb in ((1, "submit"), (3, "admit"))]
    one += [event(5, 1, "start", 1), event(7, 1, "succeed", 1)]
    other = [event(2, 2, "submit", 0), event(4, 2, "admit", 1)]
    other += [event(6, 2, "start", 1), event(8, 2, "succeed", 1)]
    made = record(one, other)
    return replace(made, jobs={job: replace(one, **changes) for job, one in made.jobs.items()})


ENDS = "every job reaches one final state"
MOVES = "every move is in the table of moves"
LIVE = "at most one attempt of a job is live"
OUTCOMES = "no outcome is recorded from a lost attempt"
RESERVED = "what is reserved is within the capacity, and returns to zero"
EFFECTS = "what a successful job does is done once"
ANSWERS = "nobody saw a 2xx for what is not there"
PARENTS = "no job is admitted before what it waits for"
LEADERS = "no leader admits after its successor"
LEFT = "nothing is left over"
INCIDENTS = "processes end only when killed, and answers are never wrong"

LATE = life(1, "admit", "start", *AFTER_A_LOSS[:-1])  # the second attempt runs

SPOILT: Mapping[str, tuple[str, Spoil]] = {
    "a job that still runs": (ENDS, lambda: record(life(1, "admit", "start"))),
    "a job whose row says otherwise": (ENDS, lambda: with_job(status=S.FAILED)),
    "a job that ends twice": (
        ENDS,
        lambda: record(life(1, "admit", "start", "fail", "release", "admit", "start", "succeed")),
    ),
    "a move that is not in the table": (
        MOVES,
        lambda: record(life(1, "admit", "start", "succeed", "cancel")),
    ),
    "a history that begins in the middle": (MOVES, lambda: without(whole(), 1)),
    "a request that moves a job": (
        MOVES,
        lambda: record(
            [*life(1, "admit", "start"), event(4, 1, "request_cancel", 1, status=S.CANCELLED)]
        ),
    ),
    "an attempt that begins twice": (
        LIVE,
        lambda: record([*life(1, "admit", "start"), event(4, 1, "start", 1)]),
    ),
    "an attempt that begins while another is live": (
        LIVE,
        lambda: record([*life(1, "admit", "start"), event(4, 1, "start", 2)]),
    ),
    "an admission while an attempt is live": (
        LIVE,
        lambda: record([*life(1, "admit", "start"), event(4, 1, "admit", 2)]),
    ),
    "a number that is given out twice": (
        LIVE,
        lambda: record(
            [*life(1, "admit", "start", "retry", "release"), event(6, 1, "admit", 1)],
        ),
    ),
    "an attempt that nobody admitted": (
        LIVE,
        lambda: record([*life(1, "admit"), event(3, 1, "start", 2)]),
    ),
    "a late report of a lost attempt": (
        OUTCOMES,
        lambda: record([*LATE, event(9, 1, "succeed", 1)]),
    ),
    "a report about what does not run": (
        OUTCOMES,
        lambda: record([*life(1, "admit", "start", "retry"), event(5, 1, "succeed", 1)]),
    ),
    "a late report that overwrites the attempt's row": (
        OUTCOMES,
        lambda: replace(whole(), outcomes={**whole().outcomes, (1, 1): Outcome.COMPLETED}),
    ),
    "an attempt without an outcome": (
        OUTCOMES,
        lambda: replace(whole(), outcomes={**whole().outcomes, (1, 1): None}),
    ),
    "more CPU than there is": (RESERVED, lambda: two_at_once(cpu_units=1.5)),
    "more memory than there is": (RESERVED, lambda: two_at_once(memory_mb=150)),
    "something that is never let go": (RESERVED, lambda: record(life(1, "admit"))),
    "a success without its effect": (EFFECTS, lambda: replace(whole(), effects={(5, 2): 1})),
    "the effect of another attempt": (
        EFFECTS,
        lambda: replace(whole(), effects={(1, 1): 1, (5, 2): 1}),
    ),
    "an effect of what never began": (
        EFFECTS,
        lambda: replace(whole(), effects={**whole().effects, (4, 1): 1}),
    ),
    "a job that was answered and is not there": (
        ANSWERS,
        lambda: replace(whole(), accepted=frozenset({("ada", "job-9")})),
    ),
    "a job of somebody else under that name": (
        ANSWERS,
        lambda: replace(whole(), accepted=frozenset({("ben", "job-1")})),
    ),
    "a cancellation that was answered and is not there": (
        ANSWERS,
        lambda: replace(whole(), cancelled=frozenset({("ada", "job-1")})),
    ),
    "a child that is admitted before its parent ends": (
        PARENTS,
        lambda: replace(whole(), edges=[Edge(1, 2, Condition.FINISHED)]),
    ),
    "a child of a parent that failed": (
        PARENTS,
        lambda: replace(whole(), edges=[Edge(5, 2, Condition.COMPLETED)]),
    ),
    "a leader that goes on after its successor": (
        LEADERS,
        lambda: record(
            [event(1, 1, "submit", 0), event(2, 1, "admit", 1, epoch=2)],
            [event(3, 2, "submit", 0), event(4, 2, "admit", 1, epoch=1)],
        ),
    ),
    "a row that is left": (LEFT, lambda: replace(whole(), left={"outbox": 1})),
    "a process that ended": (INCIDENTS, lambda: replace(whole(), incidents=["web ended"])),
}


def test_a_run_that_keeps_every_promise_passes() -> None:
    assert audit(whole()) == []


@pytest.mark.parametrize("what", SPOILT)
def test_the_audit_notices(what: str) -> None:
    rule, spoilt = SPOILT[what]

    assert rule in {breach.rule for breach in audit(spoilt())}


def test_every_rule_is_broken_by_something() -> None:
    assert {rule for rule, _ in SPOILT.values()} == set(RULES)


def test_two_jobs_that_fit_are_no_breach() -> None:
    assert audit(two_at_once()) == []
