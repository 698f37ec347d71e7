"""What all the other modules build on: the kinds of message, pages of lists, shared limits."""

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from scheduler import ticks
from scheduler.errors import TimingInvalid
from scheduler.job_request import Name, Request

BATCH_LIMIT = 10_000
PAGE_DEFAULT, PAGE_LIMIT = 50, 500
COUNT_LIMIT = 1_000_000_000  # more than a database can hold breaks it
NAMES_LIMIT = 1_000
CURSOR_LIMIT = 2_000  # room for the longest name, encoded

SearchText = Annotated[str, Field(max_length=200)]


def _time_zone(name: str) -> str:
    try:
        ticks.time_zone(name)
    except TimingInvalid as refusal:
        raise ValueError(str(refusal)) from refusal
    return name


TimeZone = Annotated[
    str, Field(max_length=100, examples=["Europe/Berlin"]), AfterValidator(_time_zone)
]


class Query(BaseModel):
    """The query string of a request; everything in it arrives as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    takes_blanks: ClassVar[bool] = False
    """Whether a parameter without a value counts as left out."""


class Page(Query):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT)] = PAGE_DEFAULT
    cursor: Annotated[str, Field(max_length=CURSOR_LIMIT)] | None = None


class OwnerQuery(Query):
    """Whose job, for operators; job ids are unique per owner."""

    owner: Name | None = None


class OwnerPage(Page, OwnerQuery):
    """Which part of a list that belongs to a job."""


def tell_no_defaults(schema: dict[str, Any]) -> None:
    """What is left out stays as it is, so no default is told."""
    for field in schema["properties"].values():
        field.pop("default", None)


class Patch(Request):
    """What to change: only what was sent counts, so the defaults of the fields mean nothing."""

    model_config = ConfigDict(json_schema_extra=tell_no_defaults)


class Answer(BaseModel):
    """Something the server says."""

    model_config = ConfigDict(extra="forbid")
