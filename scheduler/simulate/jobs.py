"""A list of jobs as it would be submitted over HTTP, to be played instead of submitted. Pure."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator

from scheduler.simulate.scenario import Size
from scheduler.states import DEFAULT_LEVEL, JobClass

EVERYBODY = "everybody"
"""Who owns the jobs that name no owner."""


class _Submitted(BaseModel):
    """A part of a submission, of which only what matters to the policy is read."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Requirements(_Submitted):
    """What one job holds."""

    cpu_units: PositiveFloat = 1.0
    memory_mb: PositiveInt = 128


class Payload(_Submitted):
    """How long the job runs."""

    duration_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class Submission(_Submitted):
    """One job."""

    owner: str = EVERYBODY
    job_id: str = ""
    type: str = "simulate"
    priority: JobClass | Annotated[int, Field(ge=0, le=10)] = JobClass.NORMAL
    payload: Payload = Payload()
    resource_requirements: Requirements = Requirements()
    estimated_seconds: PositiveFloat | None = None
    depends_on: tuple[Any, ...] = ()

    @field_validator("depends_on")
    @classmethod
    def _stands_alone(cls, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if given:
            raise ValueError("jobs that wait for others are not simulated")
        return given

    @property
    def level(self) -> int:
        """The priority as a number."""
        given = self.priority
        return DEFAULT_LEVEL[given] if isinstance(given, JobClass) else given


class Owner(_Submitted):
    """A user of the list."""

    username: str
    weight: PositiveFloat = 1.0


class JobList(_Submitted):
    """Jobs that all arrive at once, in their order."""

    name: str
    about: str = "A list of jobs that arrive at once"
    capacity: Size = Size()
    users: Sequence[Owner] = ()
    jobs: Annotated[tuple[Submission, ...], Field(min_length=1)]
