"""Rules set by administrators: whom they match, and what they change. Pure.

1. Rules apply in their order, each to what those before it made.
2. A rule applies if all parts of its match do; a part applies if any of its names does.
3. Rules that name no type and no tag are about whole accounts. Rules that name one are about
   single jobs, and begin where those about the owner's account have ended.
4. Weights are clamped at the end, so that no rules override anybody completely.
5. Of caps the smallest holds. No rule lifts one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

from scheduler.policy.hours import Hours, hours_of
from scheduler.policy.meters import effective_weight
from scheduler.policy.parameters import HEAD_START, MOST_ALLOWANCE
from scheduler.snapshot import Candidate, Caps
from scheduler.states import JobClass

N = TypeVar("N", int, float)

_MICROSECOND = timedelta(microseconds=1)
_NO_CAPS = Caps()
_URGENCY = {job_class: place for place, job_class in enumerate(JobClass)}


@dataclass(frozen=True, slots=True)
class Match:
    """Whom a rule is about, and when; None stands for any. User names are in lower case."""

    users: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    types: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    hours: Hours | None = None

    @property
    def is_of_jobs(self) -> bool:
        """Whether it picks single jobs, not accounts."""
        return self.types is not None or self.tags is not None

    def fits_account(self, user: str, group: str | None, now: datetime) -> bool:
        """Tell whether an account, at this time, is one that is meant."""
        return (
            (self.users is None or user in self.users)
            and (self.groups is None or group in self.groups)
            and (self.hours is None or self.hours.hold(now))
        )

    def fits_job(self, job_type: str, tags: Iterable[str]) -> bool:
        """Tell whether a job of a matching account is one that is meant."""
        return (self.types is None or job_type in self.types) and (
            self.tags is None or not self.tags.isdisjoint(tags)
        )


@dataclass(frozen=True, slots=True)
class Effect:
    """What a rule changes; what it leaves out stays."""

    weight: float | None = None  # put in the place of the weight there was
    weight_times: float = 1.0
    caps: Caps = _NO_CAPS
    backlog: int | None = None
    highest_class: JobClass | None = None
    lowest_class: JobClass | None = None
    allowance_times: float = 1.0

    def weigh(self, weight: float) -> float:
        """Return what becomes of *weight*."""
        return (weight if self.weight is None else self.weight) * self.weight_times


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; its name is what outcomes refer to."""

    name: str
    match: Match
    effect: Effect


@dataclass(frozen=True, slots=True)
class ClassBounds:
    """Which classes are allowed; a job beyond them counts as the nearest."""

    highest: JobClass = JobClass.CRITICAL
    lowest: JobClass = JobClass.LOW

    def bound(self, job_class: JobClass) -> JobClass:
        """Return the class as which a job counts."""
        return _less_urgent(self.highest, _more_urgent(self.lowest, job_class))

    def after(self, effect: Effect) -> Self:
        """Return the bounds after one more rule, which moves those that contradict it."""
        highest, lowest = self.highest, self.lowest
        if effect.highest_class is not None:
            highest = effect.highest_class
            lowest = _less_urgent(lowest, highest)
        if effect.lowest_class is not None:
            lowest = effect.lowest_class
            highest = _more_urgent(highest, lowest)
        return type(self)(highest, lowest)


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many unfinished jobs a rule lets an owner have."""

    limit: int
    rule: str


@dataclass(frozen=True, slots=True)
class AccountTerms:
    """What the rules make of an account at one moment.

    *weight* is within its bounds; *job_rules* are those left to be asked for each of its jobs.
    """

    weight: float
    caps: Caps
    allowance: float
    class_bounds: ClassBounds
    applied: tuple[str, ...]
    backlog: Backlog | None = None
    job_rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class JobTerms:
    """What the rules make of one job.

    *rate* is what a machine-second of it counts on its owner's meter.
    """

    rate: float
    allowance: float
    class_bounds: ClassBounds
    applied: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of a policy."""

    of_accounts: tuple[Rule, ...] = ()
    of_jobs: tuple[Rule, ...] = ()

    def account(
        self, user: str, group: str | None, weight: float, caps: Caps, now: datetime
    ) -> AccountTerms:
        """Return the terms of an account with this *weight* and these *caps* of its own."""
        name = user.lower()
        fitting = _fitting(self.of_accounts, name, group, now)
        allowance, bounds = 1.0, ClassBounds()
        for rule in fitting:
            weight, caps = rule.effect.weigh(weight), _smaller(caps, rule.effect.caps)
            allowance *= rule.effect.allowance_times
            bounds = bounds.after(rule.effect)
        return AccountTerms(
            weight=effective_weight(weight),
            caps=caps,
            allowance=min(allowance, MOST_ALLOWANCE),
            class_bounds=bounds,
            applied=tuple(rule.name for rule in fitting),
            backlog=_backlog(fitting),
            job_rules=_fitting(self.of_jobs, name, group, now),
        )

    def job(self, terms: AccountTerms, job_type: str, tags: Collection[str]) -> JobTerms:
        """Return the terms of a job whose owner's account has these *terms*."""
        weight, allowance, bounds = terms.weight, terms.allowance, terms.class_bounds
        applied = terms.applied
        for rule in terms.job_rules:
            if rule.match.fits_job(job_type, tags):
                weight = rule.effect.weigh(weight)
                allowance *= rule.effect.allowance_times
                bounds = bounds.after(rule.effect)
                applied = (*applied, rule.name)
        rate = terms.weight / effective_weight(weight)
        return JobTerms(rate, min(allowance, MOST_ALLOWANCE), bounds, applied)

    def changes_at(self, now: datetime) -> datetime | None:
        """Return when the next rule begins or ceases to apply; None if time changes nothing."""
        hours = {rule.match.hours for rule in (*self.of_accounts, *self.of_jobs)}
        changes = (each.change_after(now) for each in hours if each is not None)
        return min((at for at in changes if at is not None), default=None)


def rules_of(given: Sequence[Mapping[str, Any]]) -> Rules:
    """Read the rules as a policy holds them."""
    rules = [Rule(one["name"], _match(one["match"]), _effect(one["effect"])) for one in given]
    return Rules(
        of_accounts=tuple(rule for rule in rules if not rule.match.is_of_jobs),
        of_jobs=tuple(rule for rule in rules if rule.match.is_of_jobs),
    )


def under(terms: JobTerms, job: Candidate) -> Candidate:
    """Return *job* as it counts under its *terms*; its rank is that of the class it counts as."""
    counted = terms.class_bounds.bound(job.job_class)
    if counted is job.job_class and terms.rate == terms.allowance == 1:
        return job
    later = HEAD_START[job.job_class] - HEAD_START[counted]
    return replace(
        job,
        job_class=counted,
        rank=job.rank + later // _MICROSECOND,
        rate=terms.rate,
        allowance=terms.allowance,
    )


def _match(given: Mapping[str, Any]) -> Match:
    users = _names(given.get("user"))
    hours = given.get("hours")
    return Match(
        users=None if users is None else frozenset(name.lower() for name in users),
        groups=_names(given.get("group")),
        types=_names(given.get("type")),
        tags=_names(given.get("tag")),
        hours=None if hours is None else hours_of(hours),
    )


def _names(given: str | Collection[str] | None) -> frozenset[str] | None:
    if given is None:
        return None
    return frozenset([given] if isinstance(given, str) else given)


def _effect(given: Mapping[str, Any]) -> Effect:
    weight, caps = given.get("weight", {}), dict(given.get("caps", {}))
    backlog = caps.pop("backlog", None)
    return Effect(
        weight=weight.get("set"),
        weight_times=weight.get("times", 1.0),
        caps=Caps(**caps),
        backlog=backlog,
        highest_class=_class(given.get("highest_class")),
        lowest_class=_class(given.get("lowest_class")),
        allowance_times=given.get("allowance_times", 1.0),
    )


def _class(given: str | None) -> JobClass | None:
    return None if given is None else JobClass(given)


def _fitting(
    rules: tuple[Rule, ...], user: str, group: str | None, now: datetime
) -> tuple[Rule, ...]:
    return tuple(rule for rule in rules if rule.match.fits_account(user, group, now))


def _smaller(one: Caps, other: Caps) -> Caps:
    return Caps(
        cpu_units=_least(one.cpu_units, other.cpu_units),
        memory_mb=_least(one.memory_mb, other.memory_mb),
        running_jobs=_least(one.running_jobs, other.running_jobs),
    )


def _least(one: N | None, other: N | None) -> N | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


def _backlog(rules: Iterable[Rule]) -> Backlog | None:
    """Return the smallest backlog that any of *rules* allows."""
    limits = (
        Backlog(rule.effect.backlog, rule.name) for rule in rules if rule.effect.backlog is not None
    )
    return min(limits, key=lambda backlog: backlog.limit, default=None)


def _more_urgent(one: JobClass, other: JobClass) -> JobClass:
    return min(one, other, key=_URGENCY.__getitem__)


def _less_urgent(one: JobClass, other: JobClass) -> JobClass:
    return max(one, other, key=_URGENCY.__getitem__)
