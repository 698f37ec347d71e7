"""How long jobs will run, learned from attempts that ended by themselves.

Durations of one kind differ by factors, so what is kept are the mean and the variance of their
logarithms, the newest attempts counting most. The middle of that distribution is what a job is
expected to take: half of the jobs end before it, and a few endless ones do not move it. The
timeout bounds an expectation and never is one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from itertools import islice
from math import exp, log, sqrt
from typing import NamedTuple

from scheduler.policy.parameters import (
    DURATION_MEMORY,
    DURATIONS_KEPT,
    EXPECTED_DEFAULT,
    EXPECTED_LEAST,
    OWN_HISTORY,
    SPREAD_PRIOR,
    SPREAD_UNKNOWN,
)

ANYBODY = 0
"""Stands for the owner where a type is meant as a whole."""

Key = tuple[str, int]
"""A type, and an owner or anybody."""


class Source(StrEnum):
    """Where an expectation comes from."""

    OWN = "own"  # attempts of the same type by the same owner
    TYPE = "type"  # attempts of the same type by anybody
    ESTIMATE = "estimate"  # what the submitter said
    DEFAULT = "default"  # nothing is known


class Expected(NamedTuple):
    """What a job is expected to take; the spread is that of the logarithm."""

    duration: timedelta
    spread: float
    source: Source


class Lasted(NamedTuple):
    """An attempt that ended by itself."""

    job_type: str
    owner_id: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Learned:
    """What attempts of one kind tell: mean and variance of the logarithms of their seconds."""

    mean: float
    variance: float
    count: int

    def after(self, seconds: float) -> "Learned":
        """Return what is known after one more attempt."""
        count = self.count + 1
        part = max(1 / count, 1 / DURATION_MEMORY)
        surprise = _log(seconds) - self.mean
        variance = (1 - part) * (self.variance + part * surprise**2)
        return Learned(self.mean + part * surprise, variance, count)

    @property
    def seconds(self) -> float:
        """The middle of what attempts take."""
        return exp(self.mean)

    @property
    def spread(self) -> float:
        """The standard deviation of the logarithm, wide while few attempts are known."""
        known = min(self.count, DURATION_MEMORY)
        prior = SPREAD_PRIOR * SPREAD_UNKNOWN**2
        return sqrt((known * self.variance + prior) / (known + SPREAD_PRIOR))


_NEW = Learned(0.0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class Durations:
    """What is known of all types, and of owners with them; pairs in the order of their last use."""

    types: Mapping[str, Learned] = field(default_factory=dict)
    pairs: Mapping[Key, Learned] = field(default_factory=dict)

    def expected(
        self,
        job_type: str,
        owner_id: int,
        estimated: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> Expected:
        """Return what experience says of a job, else what its submitter *estimated*, else a guess.

        Nothing is expected to outlive its *timeout*.
        """
        own, of_type = self.pairs.get((job_type, owner_id)), self.types.get(job_type)
        if own is not None and own.count >= OWN_HISTORY:
            found = Expected(timedelta(seconds=own.seconds), own.spread, Source.OWN)
        elif of_type is not None:
            found = Expected(timedelta(seconds=of_type.seconds), of_type.spread, Source.TYPE)
        elif estimated is not None:
            found = Expected(estimated, SPREAD_UNKNOWN, Source.ESTIMATE)
        else:
            found = Expected(EXPECTED_DEFAULT, SPREAD_UNKNOWN, Source.DEFAULT)
        return found._replace(duration=_within(found.duration, timeout))

    def learn(self, ended: Iterable[Lasted]) -> tuple["Durations", dict[Key, Learned]]:
        """Return what is known after attempts have *ended*, and that part of it that changed.

        At most ``DURATIONS_KEPT`` pairs are remembered: those that ended last.
        """
        changed: dict[Key, Learned] = {}
        for job_type, owner_id, seconds in ended:
            for key in ((job_type, ANYBODY), (job_type, owner_id)):
                changed[key] = (changed.pop(key, None) or self._known(key) or _NEW).after(seconds)
        return (self._with(changed), changed) if changed else (self, changed)

    def _known(self, key: Key) -> Learned | None:
        return self.types.get(key[0]) if key[1] == ANYBODY else self.pairs.get(key)

    def _with(self, changed: Mapping[Key, Learned]) -> "Durations":
        types = {key[0]: learned for key, learned in changed.items() if key[1] == ANYBODY}
        new = {key: learned for key, learned in changed.items() if key[1] != ANYBODY}
        pairs = dict(self.pairs)
        for key in new:
            pairs.pop(key, None)  # so that it goes to the end
        pairs |= new
        for key in list(islice(pairs, max(0, len(pairs) - DURATIONS_KEPT))):
            del pairs[key]
        return Durations({**self.types, **types}, pairs)


def known(learned: Iterable[tuple[Key, Learned]]) -> Durations:
    """Make durations out of what was kept of them, last used last."""
    return Durations()._with(dict(learned))  # noqa: SLF001 - its other constructor


def _within(expected: timedelta, timeout: timedelta | None) -> timedelta:
    if timeout is not None:
        expected = min(expected, timeout)
    return max(expected, EXPECTED_LEAST)


def _log(seconds: float) -> float:
    return log(max(seconds, EXPECTED_LEAST.total_seconds()))
