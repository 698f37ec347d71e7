"""What would start next under other rules and limits."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from scheduler.policy.forecast import forecast
from scheduler.policy.preview import Person, Start, Wish, next_starts
from scheduler.policy.rules import rules_of
from scheduler.snapshot import Account, Candidate, Caps, Limits, Resources, Snapshot
from scheduler.states import JobClass
from tests.scheduler.policy.machine import job, running, seconds, snapshot

ONE = Limits(Resources(1, 4096, 64))
PEOPLE = {1: Person("ann", "law", 1.0, Caps())}
PEOPLE[2] = Person("bob", None, 1.0, Caps())


def rule(match: dict[str, Any], **effect: Any) -> dict[str, Any]:
    return {"name": "the rule", "match": match, "effect": effect}


def starts(
    seen: Snapshot, *rules: dict[str, Any], limits: Limits = ONE, tags: Iterable[str] = ()
) -> list[Start]:
    wishes = {each.id: Wish(each.job_class, each.rank, tuple(tags)) for each in seen.candidates}
    return next_starts(seen, rules_of(rules), limits, people=PEOPLE, wishes=wishes, count=50)


def ids(found: list[Start]) -> list[int]:
    return [start.job.id for start in found]


def turns(*jobs: Candidate) -> Snapshot:
    return snapshot(jobs, accounts=[Account(1), Account(2)], limits=ONE)


def test_without_rules_starts_are_those_of_the_forecast() -> None:
    jobs = [job(i, 1 + i % 2, expected=i) for i in range(1, 9)]
    seen = snapshot(jobs, [running(20, expected=4)], limits=ONE)

    found = starts(seen)

    foreseen = {job_id: one.wait for job_id, one in forecast(seen, range(1, 9)).items()}
    assert {start.job.id: start.wait for start in found} == foreseen
    assert [start.wait for start in found] == sorted(foreseen.values())
    assert {start.rules for start in found} == {()}


def test_a_heavier_owner_is_served_more_often() -> None:
    seen = turns(*(job(i, 1 + i % 2, expected=5) for i in range(1, 41)))

    found = starts(seen, rule({"user": "bob"}, weight={"set": 4}))

    first = [start.job.owner_id for start in found[:20]]
    assert first.count(2) >= 15
    assert next(start.rules for start in found if start.job.owner_id == 2) == ("the rule",)


def test_cheaper_jobs_let_their_owner_go_more_often() -> None:
    jobs = [job(i, 1 + i % 2, expected=5) for i in range(1, 41)]
    bulk = [each for each in jobs if each.owner_id == 1]
    cheap = rule({"user": "ann", "tag": "bulk"}, weight={"times": 4})
    wishes = {each.id: Wish(each.job_class, each.rank, ("bulk",) * (each in bulk)) for each in jobs}

    found = next_starts(
        turns(*jobs), rules_of([cheap]), ONE, people=PEOPLE, wishes=wishes, count=20
    )

    assert [start.job.owner_id for start in found].count(1) >= 15


def test_a_bounded_class_counts_in_the_place_of_the_one_asked_for() -> None:
    jobs = [job(i, 1, expected=5) for i in range(1, 9)]
    urgent = job(9, 1, JobClass.CRITICAL, expected=5)

    as_is = starts(turns(*jobs, urgent))
    bounded = starts(turns(*jobs, urgent), rule({"group": "law"}, highest_class="normal"))

    assert as_is[0].job == urgent
    assert {start.job.job_class for start in bounded} == {JobClass.NORMAL}
    assert next(start for start in bounded if start.job.id == 9).rules == ("the rule",)


def test_what_the_rules_of_now_have_changed_does_not_stay() -> None:
    jobs = [job(i, 1, expected=5) for i in range(1, 9)]
    urgent = job(9, 1, JobClass.CRITICAL, expected=5)
    wishes = {each.id: Wish(each.job_class, each.rank, ()) for each in [*jobs, urgent]}
    bounded = replace(
        urgent, job_class=JobClass.LOW, rank=urgent.rank + 10**12, rate=9, allowance=0
    )

    found = next_starts(
        turns(*jobs, bounded), rules_of([]), ONE, people=PEOPLE, wishes=wishes, count=50
    )

    assert found[0].job == urgent


def test_limits_are_those_that_are_given() -> None:
    seen = turns(*(job(i, 1, expected=5) for i in range(1, 5)))

    wide = starts(seen, limits=Limits(Resources(4, 4096, 64)))
    none = starts(seen, limits=Limits(None))

    assert [start.wait for start in wide] == [seconds(0)] * 4
    assert none == []


def test_no_more_starts_are_told_than_asked_for() -> None:
    seen = turns(*(job(i, 1 + i % 2, expected=1) for i in range(1, 100)))

    assert len(starts(seen)) == 50
