"""What is sent to have a job run. The names are those of the HTTP contract."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from datetime import datetime
from typing import Any, TypedDict

from ulid import ULID

from fairq.models import Dependency, Job

Parent = str | Job | Dependency
"""A job to wait for: its id, the job itself, or either with a condition."""


class Requirements(TypedDict, total=False):
    """What a job takes while it runs; what is left out is its type's choice."""

    cpu_units: float
    memory_mb: int


class RetryConfig(TypedDict, total=False):
    """What happens after a failed attempt; what is left out is its type's choice."""

    max_attempts: int
    strategy: str
    base_delay_seconds: float
    backoff_multiplier: float
    max_delay_seconds: float
    jitter: bool


class Fields(TypedDict, total=False):
    """What a submission may say beside type and payload."""

    job_id: str | None
    owner: str | None
    description: str | None
    tags: Sequence[str]
    priority: str | int | None
    depends_on: Iterable[Parent]
    resource_requirements: Requirements | None
    retry_config: RetryConfig | None
    timeout_seconds: float | None
    estimated_seconds: float | None
    run_at: datetime | None
    delay_seconds: float | None
    start_by: datetime | None
    executor: str | None
    callback_url: str | None


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to be submitted; what is None or empty is left to the server."""

    type: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    job_id: str | None = None
    owner: str | None = None
    description: str | None = None
    tags: Sequence[str] = ()
    priority: str | int | None = None
    depends_on: Iterable[Parent] = ()
    resource_requirements: Requirements | None = None
    retry_config: RetryConfig | None = None
    timeout_seconds: float | None = None
    estimated_seconds: float | None = None
    run_at: datetime | None = None
    delay_seconds: float | None = None
    start_by: datetime | None = None
    executor: str | None = None
    callback_url: str | None = None

    def __post_init__(self) -> None:
        # An iterator would be empty when the submission is looked at a second time.
        object.__setattr__(self, "depends_on", tuple(self.depends_on))
        for name in ("run_at", "start_by"):
            instant = getattr(self, name)
            if instant is not None and instant.tzinfo is None:
                raise ValueError(f"{name} needs a time zone: {instant.isoformat()} names none")

    def as_json(self) -> dict[str, Any]:
        """Return the body that submits it."""
        named = {one.name: _plain(getattr(self, one.name)) for one in fields(self)}
        return {name: value for name, value in named.items() if value not in (None, [], {})}


def new_job_id() -> str:
    """Make an id the way the server does."""
    return f"job_{ULID()}".lower()


def job_id_of(parent: Parent) -> str:
    """Return the id of a job, however it is given."""
    return parent if isinstance(parent, str) else parent.job_id


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case Job():
            return value.job_id
        case Dependency():
            return value.as_json()
        case list() | tuple():
            return [_plain(one) for one in value]
    return value
