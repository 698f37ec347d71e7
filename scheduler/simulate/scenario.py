"""What a simulation plays: who submits what and when, on which machine. Pure.

A scenario is written as YAML or JSON. Every error names the field it is about.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from scheduler.states import JobClass

PARETO_TAIL = 1.6
"""The exponent of long-tailed durations: a finite mean, and no finite spread."""

MANY = 1_000_000
"""More processes than any machine's jobs need."""

_Finite = Annotated[PositiveFloat, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    """A part of a scenario; a field it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Choice(_Part):
    """A part of which exactly one field is given."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        return self


class Seconds(_Choice):
    """How long jobs really run; a bare number is a fixed duration."""

    fixed: _Finite | None = None
    uniform: tuple[_Finite, _Finite] | None = None
    exponential: _Finite | None = None  # the mean
    pareto: _Finite | None = None  # the mean
    list: Annotated[tuple[_Finite, ...], Field(min_length=1)] | None = None  # in turn

    @model_validator(mode="before")
    @classmethod
    def _bare_number(cls, given: Any) -> Any:
        return {"fixed": given} if isinstance(given, int | float) else given

    @property
    def mean(self) -> float:
        """What jobs take on average."""
        values = self.uniform or self.list
        if values:
            return sum(values) / len(values)
        return self.fixed or self.exponential or self.pareto or 0.0


class Expected(_Choice):
    """What the service expects jobs to take; a bare word is one of the first two."""

    learned: Literal[True] | None = None  # from the jobs of the type that have ended
    exact: Literal[True] | None = None
    times: _Finite | None = None  # the truth, times this
    noise: _Finite | None = None  # the truth, times e to the power of a normal of this deviation

    @model_validator(mode="before")
    @classmethod
    def _bare_word(cls, given: Any) -> Any:
        return {given: True} if isinstance(given, str) else given


class Rate(_Choice):
    """How often: jobs an hour of each user, or the part of the machine all users ask for."""

    per_hour: _Finite | None = None
    load: _Finite | None = None


class Poisson(_Part):
    """Jobs that arrive at random."""

    rate: Rate
    after: NonNegativeFloat = 0.0
    until: _Finite | None = None


class Burst(_Part):
    """Jobs that each user drops at once."""

    at: NonNegativeFloat = 0.0
    jobs: PositiveInt


class Periodic(_Part):
    """One job of each user at fixed intervals."""

    every: _Finite
    after: NonNegativeFloat = 0.0
    until: _Finite | None = None


class Arrivals(_Choice):
    """When jobs are submitted; instants are seconds from the beginning."""

    poisson: Poisson | None = None
    burst: Burst | None = None
    backlog: PositiveInt | None = None  # so many jobs of each user from the beginning
    periodic: Periodic | None = None


class Shape(_Part):
    """A kind of job, and its part of all jobs beside it."""

    type: str = "simulate"
    part: _Finite = 1.0
    cpu_units: _Finite = 1.0
    memory_mb: PositiveInt = 128
    seconds: Seconds


class Jobs(_Part):
    """What users submit."""

    arrivals: Arrivals
    shapes: Annotated[tuple[Shape, ...], Field(min_length=1)]
    classes: Annotated[dict[JobClass, _Finite], Field(min_length=1)] = {JobClass.NORMAL: 1.0}
    expected: Expected = Expected(learned=True)


class MostHeld(_Part):
    """Caps; what is not given is not limited."""

    cpu_units: _Finite | None = None
    memory_mb: PositiveInt | None = None
    running_jobs: PositiveInt | None = None


class Users(_Part):
    """A number of users alike."""

    name: str
    count: PositiveInt = 1
    weight: _Finite = 1.0
    caps: MostHeld = MostHeld()
    shared_caps: MostHeld | None = None  # of all of them together
    jobs: tuple[Jobs, ...] = ()


class Size(_Part):
    """How much a machine offers; by itself, more processes than its jobs need."""

    cpu_units: _Finite = 8.0
    memory_mb: PositiveInt = 4096
    processes: PositiveInt = MANY


class Worker(Size):
    """Workers that come and go; one that goes lets what it runs end."""

    count: PositiveInt = 1
    comes_at: NonNegativeFloat = 0.0
    goes_at: _Finite | None = None


class Window(_Part):
    """The stretch of time over which shares are counted, in seconds; the whole by itself."""

    after: NonNegativeFloat = 0.0
    until: _Finite | None = None


class Scenario(_Part):
    """A whole story.

    Jobs arrive for *hours*; then the run goes on until all have started, unless *drain* is
    off. *watch* names the users whose waits are compared, everybody by itself.
    """

    name: str = ""
    about: str = ""
    hours: _Finite = 1.0
    drain: bool = True
    decides_every: NonNegativeFloat = 0.0  # seconds; 0 is whenever something happens
    capacity: Size | None = None
    workers: tuple[Worker, ...] = ()
    type_caps: dict[str, PositiveInt] = {}
    users: Annotated[tuple[Users, ...], Field(min_length=1)]
    watch: tuple[str, ...] = ()
    shares: Window = Window()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.capacity is None) == (not self.workers):
            raise ValueError("give either capacity or workers")
        names = [users.name for users in self.users]
        if len(names) != len(set(names)):
            raise ValueError("every name under users must be another one")
        if unknown := set(self.watch) - set(names):
            raise ValueError(f"watch names {', '.join(sorted(unknown))}, whom users does not")
        return self

    @property
    def seconds(self) -> float:
        """For how long jobs arrive."""
        return self.hours * 3600
