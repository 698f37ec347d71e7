"""What rules make of accounts and jobs."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.policy.hours import DAYS
from scheduler.policy.parameters import HEAVIEST, LIGHTEST, MOST_ALLOWANCE
from scheduler.policy.rules import AccountTerms, Backlog, ClassBounds, JobTerms, rules_of
from scheduler.snapshot import Caps
from scheduler.states import JobClass

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)  # a Monday
NIGHT = {"days": ["mon"], "from": "22:00", "to": "06:00"}
FREE = Caps()
TINY = 1e-9
SOME = settings(max_examples=200, deadline=None)

JsonRule = dict[str, Any]


def rule(name: str = "a rule", match: dict[str, Any] | None = None, **effect: Any) -> JsonRule:
    return {"name": name, "match": match or {}, "effect": effect}


def account(
    *rules: JsonRule,
    user: str = "ann",
    group: str | None = None,
    weight: float = 1.0,
    caps: Caps = FREE,
    now: datetime = NOON,
) -> AccountTerms:
    return rules_of(rules).account(user, group, weight, caps, now)


def job(
    *rules: JsonRule, job_type: str = "simulate", tags: Iterable[str] = (), weight: float = 1.0
) -> JobTerms:
    read = rules_of(rules)
    terms = read.account("ann", None, weight, FREE, NOON)
    return read.job(terms, job_type, tuple(tags))


def test_without_rules_an_account_is_as_it_is() -> None:
    caps = Caps(2, 512, 3)

    assert account(weight=2, caps=caps) == AccountTerms(2, caps, 1.0, ClassBounds(), ())
    assert job() == JobTerms(1.0, 1.0, ClassBounds(), ())


@pytest.mark.parametrize(
    ("match", "applies"),
    [
        ({}, True),
        ({"user": "ann"}, True),
        ({"user": "ANN"}, True),
        ({"user": ["bob", "ann"]}, True),
        ({"user": "bob"}, False),
        ({"user": []}, False),
        ({"group": "physics"}, True),
        ({"group": ["law", "physics"]}, True),
        ({"group": "law"}, False),
        ({"user": "ann", "group": "law"}, False),
        ({"hours": {"from": "08:00", "to": "18:00"}}, True),
        ({"user": "ann", "hours": NIGHT}, False),
    ],
)
def test_a_rule_applies_if_every_part_of_its_match_does(
    match: dict[str, Any], *, applies: bool
) -> None:
    terms = account(rule("faster", match, weight={"times": 2}), group="physics")

    assert (terms.weight, terms.applied) == ((2, ("faster",)) if applies else (1, ()))


def test_no_group_is_no_group_of_any_name() -> None:
    assert account(rule("x", {"group": "physics"}, weight={"set": 2})).applied == ()


@pytest.mark.parametrize(
    ("match", "applies"),
    [
        ({"type": "simulate"}, True),
        ({"type": ["report", "simulate"]}, True),
        ({"type": "report"}, False),
        ({"tag": "nightly"}, True),
        ({"tag": ["nightly", "urgent"]}, True),
        ({"tag": "urgent"}, False),
        ({"type": "simulate", "tag": "urgent"}, False),
        ({"type": "simulate", "user": "bob"}, False),
        ({"type": "simulate", "hours": NIGHT}, False),
    ],
)
def test_a_rule_with_a_type_or_a_tag_is_about_single_jobs(
    match: dict[str, Any], *, applies: bool
) -> None:
    halved = rule("cheap", match, weight={"times": 2})

    assert account(halved) == account(halved, weight=1.0)
    assert account(halved).weight == 1
    assert account(halved).applied == ()
    found = job(halved, tags=["nightly", "big"])
    assert (found.rate, found.applied) == ((0.5, ("cheap",)) if applies else (1, ()))


def test_weights_change_in_the_order_of_the_rules() -> None:
    doubled, three = rule("doubled", weight={"times": 2}), rule("three", weight={"set": 3})

    assert account(doubled, three).weight == 3
    assert account(three, doubled).weight == HEAVIEST
    assert account(doubled, doubled, weight=0.5).weight == 2
    assert account(doubled, three).applied == ("doubled", "three")


def test_what_goes_beyond_the_bounds_on_the_way_may_come_back() -> None:
    assert (
        account(rule("up", weight={"times": 100}), rule("down", weight={"times": 0.01})).weight == 1
    )


def test_jobs_count_by_their_weight_against_their_owners() -> None:
    faster, slower = (
        rule("up", {"type": "simulate"}, weight={"set": 4}),
        rule("down", {"tag": "bulk"}, weight={"times": 0.25}),
    )

    assert job(faster).rate == 0.25
    assert job(slower, tags=["bulk"]).rate == 4
    assert job(faster, slower, tags=["bulk"]).rate == 1
    assert job(faster, weight=9).rate == 1
    assert job(rule("all", weight={"set": 2}), faster).rate == 0.5
    assert job(rule("all", weight={"set": 2}), faster).applied == ("all", "up")


def test_rules_of_jobs_come_after_those_of_the_account_wherever_they_stand() -> None:
    first, second = (
        rule("x", {"type": "simulate"}, weight={"times": 2}),
        rule("y", weight={"set": 0.5}),
    )

    assert job(first, second) == job(second, first)


def test_the_smallest_cap_holds() -> None:
    rules = (
        rule("a", caps={"cpu_units": 4, "memory_mb": 512, "backlog": 7}),
        rule("b", caps={"cpu_units": 2, "running_jobs": 9, "backlog": 5}),
    )

    terms = account(*rules, caps=Caps(3, 2048, None))

    assert terms.caps == Caps(2, 512, 9)
    assert terms.backlog == Backlog(5, "b")


def test_a_class_is_bounded_from_both_sides() -> None:
    bounds = account(rule(highest_class="high", lowest_class="normal")).class_bounds

    assert [bounds.bound(job_class) for job_class in JobClass] == [
        JobClass.HIGH,
        JobClass.HIGH,
        JobClass.NORMAL,
        JobClass.NORMAL,
    ]


@pytest.mark.parametrize(
    ("rules", "highest", "lowest"),
    [
        ([{"highest_class": "normal"}], "normal", "low"),
        ([{"highest_class": "normal"}, {"highest_class": "critical"}], "critical", "low"),
        ([{"highest_class": "normal"}, {"lowest_class": "high"}], "high", "high"),
        ([{"lowest_class": "high"}, {"highest_class": "normal"}], "normal", "normal"),
    ],
)
def test_a_later_bound_takes_the_place_of_an_earlier_one(
    rules: list[dict[str, Any]], highest: JobClass, lowest: JobClass
) -> None:
    bounds = account(*(rule(**effect) for effect in rules)).class_bounds

    assert bounds == ClassBounds(highest, lowest)


def test_jobs_go_on_from_the_bounds_and_the_allowance_of_the_account() -> None:
    rules = (
        rule("calm", highest_class="normal", allowance_times=0.5),
        rule("but", {"tag": "urgent"}, highest_class="critical", allowance_times=3),
    )

    assert job(*rules).class_bounds == ClassBounds(highest=JobClass.NORMAL)
    assert job(*rules, tags=["urgent"]).class_bounds == ClassBounds()
    assert (job(*rules).allowance, job(*rules, tags=["urgent"]).allowance) == (0.5, 1.5)


def test_an_allowance_may_be_taken_away_and_not_grow_without_end() -> None:
    assert account(rule(allowance_times=0)).allowance == 0
    assert account(rule(allowance_times=3), rule(allowance_times=3)).allowance == MOST_ALLOWANCE


def test_only_rules_with_hours_make_time_matter() -> None:
    assert rules_of([rule(weight={"set": 2})]).changes_at(NOON) is None
    both = rules_of(
        [
            rule("x", {"hours": NIGHT}, weight={"set": 2}),
            rule("y", {"hours": {"from": "13:00"}, "type": "a"}, weight={"set": 2}),
        ]
    )
    assert both.changes_at(NOON) == NOON + timedelta(hours=1)
    assert both.changes_at(NOON + timedelta(hours=1)) == NOON + timedelta(hours=10)


# On rules nobody thought of

NAMES, GROUPS, TYPES, TAGS = ("ann", "bob"), ("law", "physics"), ("simulate", "report"), ("a", "b")
some_time = st.sampled_from(["00:00", "06:00", "11:30", "12:00", "18:45"])
some_hours = st.fixed_dictionaries(
    {
        "days": st.lists(st.sampled_from(DAYS), min_size=1, unique=True),
        "from": some_time,
        "to": st.sampled_from(["05:15", "12:30", "24:00"]),
        "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"]),
    }
)
factor = st.sampled_from([0.01, 0.25, 0.5, 1, 2, 3, 100])
some_caps = st.fixed_dictionaries(
    {},
    optional={
        "cpu_units": st.floats(0.1, 64),
        "memory_mb": st.integers(1, 4096),
        "running_jobs": st.integers(1, 9),
        "backlog": st.integers(0, 9),
    },
)
some_class = st.sampled_from([str(each) for each in JobClass])


def names(known: tuple[str, ...]) -> st.SearchStrategy[Any]:
    return st.sampled_from(known) | st.lists(st.sampled_from(known), min_size=1, unique=True)


def some_rules(*, of_jobs: bool = True) -> st.SearchStrategy[list[JsonRule]]:
    parts = {"user": names(NAMES), "group": names(GROUPS), "hours": some_hours}
    job_parts = {"type": names(TYPES), "tag": names(TAGS)} if of_jobs else {}
    effect = {
        "weight": factor.map(lambda x: {"times": x}) | factor.map(lambda x: {"set": x}),
        "caps": some_caps,
        "lowest_class": some_class,
        "highest_class": some_class,
        "allowance_times": st.sampled_from([0, 0.5, 2, 10]),
    }
    return st.lists(
        st.builds(
            lambda number, match, changed: rule(f"rule {number}", match, **changed),
            st.integers(1, 99),
            st.fixed_dictionaries({}, optional=parts | job_parts),
            st.fixed_dictionaries({}, optional=effect),
        ),
        max_size=5,
    )


some_moment = st.integers(0, 8 * 1440).map(lambda minutes: NOON + timedelta(minutes=minutes))
own_weight = st.sampled_from([0.01, 0.25, 1, 2.5, 4, 1000])
own_caps = st.builds(
    Caps,
    st.none() | st.floats(0.1, 64),
    st.none() | st.integers(1, 4096),
    st.none() | st.integers(1, 9),
)


@SOME
@given(some_rules(), own_weight, own_caps, some_moment)
def test_no_rules_pass_a_cap_or_a_bound(
    rules: list[JsonRule], weight: float, caps: Caps, now: datetime
) -> None:
    terms = account(*rules, weight=weight, caps=caps, now=now, group="law")

    for part in ("cpu_units", "memory_mb", "running_jobs"):
        own, made = getattr(caps, part), getattr(terms.caps, part)
        assert own is None or (made is not None and made <= own)
    assert LIGHTEST <= terms.weight <= HEAVIEST
    assert 0 <= terms.allowance <= MOST_ALLOWANCE


@SOME
@given(some_rules(), own_weight, some_moment, st.sets(st.sampled_from(TAGS)))
def test_no_rules_make_a_job_count_more_than_weights_allow(
    rules: list[JsonRule], weight: float, now: datetime, tags: set[str]
) -> None:
    read = rules_of(rules)
    terms = read.account("ann", None, weight, FREE, now)

    made = read.job(terms, "simulate", tuple(tags))

    assert LIGHTEST - TINY <= terms.weight / made.rate <= HEAVIEST + TINY
    assert 0 <= made.allowance <= MOST_ALLOWANCE
    assert made.applied[: len(terms.applied)] == terms.applied


@SOME
@given(some_rules(of_jobs=False), own_weight, own_caps, some_moment)
def test_order_matters_to_weights_set_and_to_class_bounds_only(
    rules: list[JsonRule], weight: float, caps: Caps, now: datetime
) -> None:
    for one in rules:
        one["effect"].pop("lowest_class", None)
        one["effect"].pop("highest_class", None)
        if "set" in one["effect"].get("weight", {}):
            one["effect"].pop("weight")
    wanted = account(*rules, weight=weight, caps=caps, now=now)

    for order in permutations(rules):
        made = account(*order, weight=weight, caps=caps, now=now)

        assert made.weight == pytest.approx(wanted.weight)
        assert (made.caps, made.allowance) == (wanted.caps, pytest.approx(wanted.allowance))
        assert (made.backlog and made.backlog.limit) == (wanted.backlog and wanted.backlog.limit)
        assert sorted(made.applied) == sorted(wanted.applied)


@SOME
@given(some_rules(), own_weight, own_caps, some_moment)
def test_applying_rules_again_changes_nothing_that_is_set(
    rules: list[JsonRule], weight: float, caps: Caps, now: datetime
) -> None:
    once = account(*rules, weight=weight, caps=caps, now=now)

    assert account(*rules, weight=weight, caps=once.caps, now=now) == once
    assert account(*rules, *rules, weight=weight, caps=caps, now=now).class_bounds == (
        once.class_bounds
    )
    for job_class in JobClass:
        bounded = once.class_bounds.bound(job_class)
        assert once.class_bounds.bound(bounded) == bounded


@SOME
@given(some_rules(), some_moment)
def test_nothing_changes_before_the_moment_that_is_told(
    rules: list[JsonRule], now: datetime
) -> None:
    read = rules_of(rules)
    change = read.changes_at(now)
    end = now + timedelta(days=8) if change is None else change

    for part in (0.1, 0.5, 0.9, 0.999999):
        then = now + part * (end - now)
        assert read.account("ann", "law", 1, FREE, then) == read.account("ann", "law", 1, FREE, now)
