"""The policy: its parts, its versions, what it would do; and what is paused."""

import re
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from scheduler.job_request import CpuUnits, MemoryMb, Name, Request, Tag
from scheduler.policy.hours import END_OF_DAY, MIDNIGHT, Day
from scheduler.states import JobClass
from webapp.schemas.groundwork import COUNT_LIMIT, NAMES_LIMIT, Answer, TimeZone, tell_no_defaults
from webapp.schemas.people import CapsRequest, Weight

_RULES_LIMIT = 200
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00", re.ASCII)


class CapacityRequest(Request):
    """Upper bounds on what the live workers offer; null sets none."""

    cpu_units: CpuUnits | None = None
    memory_mb: MemoryMb | None = None


class TypeRule(Request):
    """Limits on one job type."""

    max_running: Annotated[int, Field(ge=0, le=COUNT_LIMIT)] | None = None
    max_per_minute: Annotated[int, Field(ge=0, le=COUNT_LIMIT)] | None = None
    paused: bool = False


class ClassRule(Request):
    """What holds for one priority class."""

    paused: bool = False


def _several(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


def _as_given(names: list[str]) -> str | list[str]:
    return names[0] if len(names) == 1 else names


def _time_of_day(clock: str) -> str:
    if _TIME_OF_DAY.fullmatch(clock) is None:
        raise ValueError("must be a time of day, such as 08:00, up to 24:00")
    return clock


_SomeNames = Field(min_length=1, max_length=NAMES_LIMIT)
_AsGiven = PlainSerializer(_as_given)

Names = Annotated[
    list[Name],
    _SomeNames,
    BeforeValidator(_several, json_schema_input_type=Name | list[Name]),
    _AsGiven,
]
Tags = Annotated[
    list[Tag],
    _SomeNames,
    BeforeValidator(_several, json_schema_input_type=Tag | list[Tag]),
    _AsGiven,
]
TimeOfDay = Annotated[str, AfterValidator(_time_of_day), Field(examples=["08:00"])]


class RuleHours(Request):
    """Hours of the week by the clock on the wall; where they end before they begin, overnight."""

    days: Annotated[list[Day], Field(min_length=1)] = list(Day)  # noqa: RUF012 - pydantic copies it
    start: Annotated[TimeOfDay, Field(alias="from")] = MIDNIGHT
    to: TimeOfDay = END_OF_DAY
    timezone: TimeZone = "UTC"

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.start in {self.to, END_OF_DAY}:
            raise ValueError("from must be before 24:00 and not the same as to")
        return self


class RuleMatch(Request):
    """Whom a rule is about, and when: all parts that are given must apply, any name of each."""

    user: Names | None = None
    group: Names | None = None
    type: Names | None = None
    tag: Tags | None = None
    hours: RuleHours | None = None


class RuleWeight(Request):
    """How a rule changes a weight: by a factor, or to a number."""

    times: Weight | None = None
    set: Weight | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.times is None) == (self.set is None):
            raise ValueError("give either times or set")
        return self


class RuleEffect(Request):
    """What a rule changes."""

    weight: RuleWeight | None = None
    caps: CapsRequest | None = None
    highest_class: JobClass | None = Field(
        default=None, description="Jobs of a more urgent class count as this one."
    )
    lowest_class: JobClass | None = Field(
        default=None, description="Jobs of a less urgent class count as this one."
    )
    allowance_times: Annotated[float, Field(ge=0, le=1000)] | None = Field(
        default=None, description="Factor of the express allowance."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if all(given == {} for given in self.model_dump(exclude_none=True).values()):
            raise ValueError(f"must change something: {', '.join(type(self).model_fields)}")
        return self

    @model_validator(mode="after")
    def _classes_in_order(self) -> Self:
        classes, highest, lowest = list(JobClass), self.highest_class, self.lowest_class
        if highest and lowest and classes.index(highest) > classes.index(lowest):
            raise ValueError(f"highest_class {highest} is below lowest_class {lowest}; swap them")
        return self


class PolicyRule(Request):
    """A rule: what changes for whom. Rules apply in their order, each to what others made."""

    name: Name
    match: RuleMatch
    effect: RuleEffect

    @field_validator("effect")
    @classmethod
    def _caps_of_accounts_only(cls, effect: RuleEffect, info: ValidationInfo) -> RuleEffect:
        match = info.data.get("match")
        if effect.caps is not None and match is not None and (match.type or match.tag):
            raise ValueError(
                "caps hold for whole accounts, so they cannot go with a match by type or tag;"
                " limit a type under types, with max_running and max_per_minute"
            )
        return effect


class PolicyParts(Request):
    """What a policy says."""

    capacity: CapacityRequest = CapacityRequest()
    rules: Annotated[list[PolicyRule], Field(max_length=_RULES_LIMIT)] = Field(default_factory=list)
    types: dict[Name, TypeRule] = Field(default_factory=dict)
    classes: dict[JobClass, ClassRule] = Field(default_factory=dict)


class PolicyRequest(PolicyParts):
    """A new policy; *version* is the one it was made from."""

    version: int


class PolicyDraft(PolicyParts):
    """A policy to try out; what is left out is as it is now."""

    model_config = ConfigDict(json_schema_extra=tell_no_defaults)


class CapacityCaps(Answer):
    """Upper bounds on the capacity."""

    cpu_units: float | None
    memory_mb: int | None


class PolicyAnswer(Answer):
    """The policy that applies."""

    version: int
    capacity: CapacityCaps
    rules: list[PolicyRule]
    types: dict[str, Any]
    classes: dict[str, Any]


class PolicyChange(Answer):
    """One thing that a version changed; null stands for nothing."""

    path: str = Field(json_schema_extra={"examples": ["capacity.cpu_units", "rules.students"]})
    was: Any
    becomes: Any


class PolicyVersionAnswer(Answer):
    """A version of the policy: who made it, when, and what it changed."""

    version: int
    author: str | None = Field(description="None for the policy of the beginning.")
    created_at: AwareDatetime
    changes: list[PolicyChange]


class PolicyVersionList(Answer):
    """One page of versions, newest first."""

    versions: list[PolicyVersionAnswer]
    next_cursor: str | None


class PauseAnswer(Answer):
    """Whether jobs of a class or a type are admitted, by the newest version of the policy."""

    name: str
    paused: bool
    policy_version: int


class PreviewedStart(Answer):
    """A start that would follow."""

    job_id: str
    owner: str
    type: str
    job_class: JobClass = Field(alias="class", description="As which the job counts.")
    starts_in_seconds: float
    rules: list[str] = Field(description="Names of the rules that apply to the job.")


class PolicyPreview(Answer):
    """The next starts under the policy that applies, and under the changed one."""

    at: AwareDatetime
    as_is: list[PreviewedStart]
    changed: list[PreviewedStart]
