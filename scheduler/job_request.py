"""What a submission may say, over HTTP or in a caller's own transaction: its fields and bounds.

Strict: no unknown fields, no text where a number belongs. Pure.
"""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from scheduler.states import (
    DEFAULT_LEVEL,
    HIGHEST_LEVEL,
    LOWEST_LEVEL,
    Condition,
    Executor,
    JobClass,
)

BODY_LIMIT = 1024 * 1024
"""Bytes of one submission, and of any request unless its route says otherwise."""

NAME_LIMIT = 200
TAGS_LIMIT = 50
YEAR_SECONDS = 365 * 86_400.0

BULK = "bulk"
"""The type of the jobs that deal with many others, with the rights of their owner."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

USERNAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"

_FIRST_YEAR, _LAST_YEAR = 1970, 2200  # far beyond any plan, and safe to shift between zones
_MEMORY_LIMIT_MB = 1_000_000_000
_CPU_LIMIT = 1_000_000
_DEPENDENCIES_LIMIT = 10_000


class Request(BaseModel):
    """Something a client sends."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def printable(text: str) -> str:
    """Return *text*, which must not hold control characters."""
    if not text.isprintable():
        raise ValueError("must consist of printable characters")
    return text


def _http_url(text: str) -> str:
    parts = urlsplit(printable(text))
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("must be an http or https address")
    return text


def _written_as_time(given: Any) -> Any:
    """Refuse the seconds since 1970 that a time is also read from otherwise."""
    if isinstance(given, datetime) or (isinstance(given, str) and _DATE.match(given)):
        return given
    raise ValueError("must be a time such as 2026-01-15T12:00:00Z")


def _plannable(instant: datetime) -> datetime:
    if not _FIRST_YEAR <= instant.year <= _LAST_YEAR:
        raise ValueError(f"must be in the years {_FIRST_YEAR} to {_LAST_YEAR}")
    return instant


def is_errand(job_type: str) -> bool:
    """Tell whether such jobs are the server's own: nobody submits them or says what they do."""
    return job_type == BULK


def _ordinary(name: str) -> str:
    if is_errand(name):
        raise ValueError(f"must not be {BULK}: POST /jobs/bulk makes such jobs")
    return name


def _level(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    if given not in set(JobClass):
        raise ValueError(f"must be one of {', '.join(JobClass)} or a whole number 0 to 10")
    return DEFAULT_LEVEL[JobClass(given)]


def _dependency(given: Any) -> Any:
    return {"job_id": given} if isinstance(given, str) else given


def to_decimal(number: float) -> Decimal:
    """Take the number as it was written, to the three places that are kept."""
    return round(Decimal(repr(number)), 3)


Level = Annotated[int, Field(ge=HIGHEST_LEVEL, le=LOWEST_LEVEL)]
JobId = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_LIMIT), AfterValidator(printable)]
Tag = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]
Username = Annotated[str, Field(pattern=f"^{USERNAME_PATTERN}$")]
Seconds = Annotated[float, Field(gt=0, le=YEAR_SECONDS)]
SomeSeconds = Annotated[float, Field(ge=0, le=YEAR_SECONDS)]
CpuUnits = Annotated[float, Field(ge=0.001, le=_CPU_LIMIT)]
MemoryMb = Annotated[int, Field(ge=1, le=_MEMORY_LIMIT_MB)]
Instant = Annotated[
    AwareDatetime,
    Field(strict=False),  # what the first validator lets pass
    BeforeValidator(_written_as_time),
    AfterValidator(_plannable),
]
Priority = Annotated[Level, BeforeValidator(_level, json_schema_input_type=JobClass | Level)]


class DependencyRequest(Request):
    """A job to wait for, and until when."""

    job_id: JobId
    when: Condition = Condition.COMPLETED


class Requirements(Request):
    """What a job takes while it runs."""

    cpu_units: CpuUnits | None = None
    memory_mb: MemoryMb | None = None


class RetryRequest(Request):
    """What happens after a failed attempt; what is left out is the type's choice."""

    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 3
    strategy: Literal["exponential", "linear", "fixed", "none"] = "exponential"
    base_delay_seconds: SomeSeconds = 1.0
    backoff_multiplier: Annotated[float, Field(ge=1, le=1000)] = 2.0
    max_delay_seconds: SomeSeconds = 3600.0
    jitter: bool = True


DependsOn = Annotated[
    DependencyRequest,
    BeforeValidator(_dependency, json_schema_input_type=JobId | DependencyRequest),
]


class JobTemplate(Request):
    """What a job is to do, whoever's it is and whenever it runs."""

    type: Annotated[Name, AfterValidator(_ordinary)]
    payload: dict[str, Any] = Field(default_factory=dict)
    description: Annotated[str, Field(max_length=2000)] | None = None
    tags: Annotated[list[Tag], Field(max_length=TAGS_LIMIT)] = Field(default_factory=list)
    priority: Priority = DEFAULT_LEVEL[JobClass.NORMAL]
    depends_on: Annotated[list[DependsOn], Field(max_length=_DEPENDENCIES_LIMIT)] = Field(
        default_factory=list
    )
    resource_requirements: Requirements | None = None
    retry_config: RetryRequest | None = None
    timeout_seconds: Seconds | None = None
    estimated_seconds: Seconds | None = None
    executor: Executor | None = None
    callback_url: Annotated[str, Field(max_length=2000), AfterValidator(_http_url)] | None = None

    def cpu_units(self) -> Decimal | None:
        """Return the CPU units asked for, if any."""
        needs = self.resource_requirements
        return None if needs is None or needs.cpu_units is None else to_decimal(needs.cpu_units)


class JobRequest(JobTemplate):
    """A job to run."""

    job_id: JobId | None = None
    owner: Username | None = None
    run_at: Instant | None = None
    delay_seconds: SomeSeconds | None = None
    start_by: Instant | None = None

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.run_at is not None and self.delay_seconds is not None:
            raise ValueError("run_at and delay_seconds exclude each other")
        return self
