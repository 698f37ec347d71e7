"""The kinds of jobs there are: names, payloads, defaults. Pure: no Celery, no database.

A kind is a function and a pydantic model::

    class Greeting(Payload):
        name: str = "world"

    @job_type("greet", payload=Greeting, description="Greet somebody.", timeout_seconds=10)
    def greet(context: Context, payload: Greeting) -> dict[str, str]:
        return {"greeting": f"hello, {payload.name}"}
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict, TypeVar, Unpack

from pydantic import BaseModel, ConfigDict, Field

from scheduler import retry
from scheduler.states import Executor

LONGEST_SECONDS = 7 * 86_400.0

Seconds = Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]


class Payload(BaseModel):
    """Base of every payload: unknown fields and NaN are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Timed(Payload):
    """A payload that says how long the job is to take at least."""

    duration_seconds: Seconds = Field(0, description="How long the job takes at least.")


class Demonstration(Timed):
    """A payload of a stand-in for larger work, which takes long enough to be watched."""

    duration_seconds: Seconds = Field(1, description="How long the job takes at least.")


P = TypeVar("P", bound=BaseModel)
Handler = Callable[[Any, P], Any]
"""Takes a context and its payload, returns something JSON can hold."""


class Defaults(TypedDict, total=False):
    """What a kind may say about its jobs; a submission may say otherwise.

    The first of the *executors* runs a job of it, if the submission names nobody.
    """

    description: str
    cpu_units: float
    memory_mb: int
    timeout_seconds: float
    max_timeout_seconds: float | None
    retry_config: Mapping[str, Any]
    executors: tuple[Executor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """One kind of job. *retry_config* needs to name only what differs from the usual.

    *max_timeout_seconds* is the most a submission, or a running job, may ask for; None leaves
    submissions any timeout and running jobs the one they have.
    """

    name: str
    payload: type[BaseModel]
    handler: Handler[Any]
    description: str = ""
    cpu_units: float = 1
    memory_mb: int = 128
    timeout_seconds: float = 300
    max_timeout_seconds: float | None = None
    retry_config: Mapping[str, Any] = field(default_factory=dict)
    executors: tuple[Executor, ...] = (Executor.CELERY,)

    def __post_init__(self) -> None:
        if self.payload.model_config.get("extra") != "forbid":
            raise ValueError(f"the payload of {self.name} must refuse unknown fields")
        if unknown := set(self.retry_config) - set(retry.DEFAULTS):
            raise ValueError(f"unknown retry settings of {self.name}: {sorted(unknown)}")
        if not self.executors:
            raise ValueError(f"somebody has to run {self.name}")
        if min(self.cpu_units, self.memory_mb, self.timeout_seconds) <= 0:
            raise ValueError(f"the sizes of {self.name} must be above 0")
        if self.max_timeout_seconds is not None and self.max_timeout_seconds < self.timeout_seconds:
            raise ValueError(f"the longest timeout of {self.name} must not be below its usual one")

    @property
    def payload_schema(self) -> dict[str, Any]:
        """The JSON schema that submissions are checked against."""
        return self.payload.model_json_schema()

    @property
    def full_retry_config(self) -> dict[str, Any]:
        """Every retry setting, the usual ones filled in."""
        return {**retry.DEFAULTS, **self.retry_config}


class Catalogue:
    """Kinds of jobs by name."""

    def __init__(self) -> None:
        self._kinds: dict[str, JobKind] = {}

    def add(self, kind: JobKind) -> None:
        """Add a kind. Raises ValueError when its name is taken."""
        if kind.name in self._kinds:
            raise ValueError(f"there are two job types named {kind.name}")
        self._kinds[kind.name] = kind

    def get(self, name: str) -> JobKind | None:
        """Return the kind of that name, if there is one."""
        return self._kinds.get(name)

    def __iter__(self) -> Iterator[JobKind]:
        return iter(sorted(self._kinds.values(), key=lambda kind: kind.name))

    def __len__(self) -> int:
        return len(self._kinds)


CATALOGUE = Catalogue()
"""What this process can run. Filled while modules with kinds are imported, read afterwards."""


def job_type(
    name: str,
    *,
    payload: type[P],
    catalogue: Catalogue = CATALOGUE,
    **defaults: Unpack[Defaults],
) -> Callable[[Handler[P]], Handler[P]]:
    """Register a function as the handler of a kind of job."""

    def register(handler: Handler[P]) -> Handler[P]:
        catalogue.add(JobKind(name=name, payload=payload, handler=handler, **defaults))
        return handler

    return register


def pull_type(
    name: str,
    *,
    payload: type[BaseModel],
    catalogue: Catalogue = CATALOGUE,
    **defaults: Unpack[Defaults],
) -> None:
    """Register a kind of job that pull workers run, for its payload and its defaults."""
    defaults["executors"] = (Executor.PULL,)
    catalogue.add(JobKind(name=name, payload=payload, handler=_runs_elsewhere, **defaults))


def _runs_elsewhere(_context: Any, _payload: BaseModel) -> None:
    raise LookupError("jobs of this type are run by pull workers")
