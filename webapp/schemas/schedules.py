"""Schedules: what they make and when, and what came of it."""

from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field, ValidationInfo, field_validator

from scheduler import ticks
from scheduler.errors import TimingInvalid
from scheduler.job_request import YEAR_SECONDS, JobTemplate, Request, Username, printable
from scheduler.states import CatchUp, Overlap
from webapp.schemas.groundwork import Answer, Patch, TimeZone

SCHEDULE_NAME_LIMIT = 160  # the id of a job begins with it


def _cron_line(text: str) -> str:
    try:
        return ticks.cron_line(text)
    except TimingInvalid as refusal:
        raise ValueError(str(refusal)) from refusal


def _one_way_to_tell_when(every_seconds: int | None, info: ValidationInfo) -> int | None:
    if every_seconds is not None and info.data.get("cron"):
        raise ValueError("cron and every_seconds exclude each other")
    return every_seconds


ScheduleName = Annotated[
    str, Field(min_length=1, max_length=SCHEDULE_NAME_LIMIT), AfterValidator(printable)
]
CronLine = Annotated[
    str,
    Field(
        max_length=200,
        examples=["30 2 * * MON-FRI"],
        description="Minute, hour, day of the month, month, day of the week.",
    ),
    AfterValidator(_cron_line),
]
EverySeconds = Annotated[int, Field(ge=1, le=int(YEAR_SECONDS))]
OverlapRule = Annotated[
    Overlap,
    Field(
        description="While an earlier job of the schedule is unfinished: `skip` the tick, `queue`"
        " its job behind that one, or `replace` that one by it."
    ),
]
CatchUpRule = Annotated[
    CatchUp,
    Field(description="Which of the ticks that passed while no scheduler ran still make jobs."),
]


class ScheduleRequest(Request):
    """A new schedule, with either `cron` or `every_seconds`."""

    name: ScheduleName
    owner: Username | None = None
    template: JobTemplate
    cron: CronLine | None = None
    every_seconds: EverySeconds | None = Field(default=None, validate_default=True)
    timezone: TimeZone = "UTC"
    overlap: OverlapRule = Overlap.SKIP
    catch_up: CatchUpRule = CatchUp.LATEST
    paused: bool = False

    @field_validator("every_seconds")
    @classmethod
    def _told_when(cls, every_seconds: int | None, info: ValidationInfo) -> int | None:
        if every_seconds is None and info.data.get("cron", "wrong") is None:
            raise ValueError("give either cron or every_seconds")
        return _one_way_to_tell_when(every_seconds, info)


class SchedulePatch(Patch):
    """What to change about a schedule; `cron` takes the place of `every_seconds`, or it of that."""

    template: JobTemplate = JobTemplate(type="any")
    cron: CronLine = ""
    every_seconds: EverySeconds = 1
    timezone: TimeZone = "UTC"
    overlap: OverlapRule = Overlap.SKIP
    catch_up: CatchUpRule = CatchUp.LATEST
    paused: bool = False

    @field_validator("every_seconds")
    @classmethod
    def _told_when(cls, every_seconds: int | None, info: ValidationInfo) -> int | None:
        return _one_way_to_tell_when(every_seconds, info)


class LastRun(Answer):
    """The last job that a schedule made."""

    job_id: str
    at: AwareDatetime = Field(description="The tick, or when it was made by hand.")


class LastError(Answer):
    """Why a tick made no job, the last time one did not."""

    code: str
    message: str
    at: AwareDatetime


class ScheduleAnswer(Answer):
    """A schedule: what it makes, when, and what came of it."""

    name: str
    owner: str
    template: JobTemplate = Field(description="What was said of it.")
    cron: str | None
    every_seconds: int | None
    timezone: str
    overlap: OverlapRule
    catch_up: CatchUpRule
    paused: bool
    next_runs: list[AwareDatetime] = Field(
        description="The next five ticks; of a paused schedule, those if it were resumed now."
    )
    in_words: str = Field(json_schema_extra={"examples": ["At 02:30 on Monday through Friday"]})
    last_run: LastRun | None
    last_error: LastError | None
    skipped: int = Field(description="Ticks that made no job because one was unfinished.")
    last_skipped_at: AwareDatetime | None
    created_at: AwareDatetime


class ScheduleList(Answer):
    """One page of schedules, newest first."""

    schedules: list[ScheduleAnswer]
    next_cursor: str | None
