"""What requests and answers look like: checked when read, written down in the OpenAPI document.

Requests are strict: no unknown fields, no text where a number belongs.
"""

import re
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    ValidationInfo,
    field_validator,
    model_validator,
)

from scheduler import ticks
from scheduler.errors import TimingInvalid
from scheduler.job_request import (
    NAME_LIMIT,
    TAGS_LIMIT,
    YEAR_SECONDS,
    CpuUnits,
    Instant,
    JobId,
    JobRequest,
    JobTemplate,
    Level,
    MemoryMb,
    Name,
    Priority,
    Request,
    Tag,
    Username,
    printable,
)
from scheduler.policy.hours import END_OF_DAY, MIDNIGHT, Day
from scheduler.states import (
    DEFAULT_LEVEL,
    GROUPS,
    LOWEST_LEVEL,
    BulkAction,
    CallbackState,
    CancelReason,
    CatchUp,
    Condition,
    Executor,
    JobClass,
    JobStatus,
    Outcome,
    Overlap,
    Role,
    Scope,
)

BATCH_LIMIT = 10_000
PAGE_DEFAULT, PAGE_LIMIT = 50, 500
SCHEDULE_NAME_LIMIT = 160  # the id of a job begins with it

_COUNT_LIMIT = 1_000_000_000  # more than a database can hold breaks it
_RULES_LIMIT = 200
_NAMES_LIMIT = 1_000
_LINE_LIMIT = 8192
_LINES_LIMIT = 1_000
_MESSAGE_LIMIT = 500
_TRACEBACK_LIMIT = 16_000
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00", re.ASCII)
PASSWORD_MIN = 8

WAIT_LIMIT = 300
"""Seconds that a client may wait for a job to finish. Proxies have to bear such a silence."""

PASSWORD_LIMIT = 1024
"""Longer passwords are not looked at: hashing them would be work for nothing."""


class Query(BaseModel):
    """The query string of a request; everything in it arrives as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    takes_blanks: ClassVar[bool] = False
    """Whether a parameter without a value counts as left out."""


class Answer(BaseModel):
    """Something the server says."""

    model_config = ConfigDict(extra="forbid")


Lease = Annotated[str, Field(min_length=1, max_length=100)]
Password = Annotated[str, Field(min_length=PASSWORD_MIN, max_length=PASSWORD_LIMIT)]
Weight = Annotated[float, Field(gt=0, le=1_000_000)]


# Submitting


class BatchRequest(Request):
    """Jobs to take in together or not at all; they may wait for one another in any order."""

    jobs: Annotated[list[JobRequest], Field(min_length=1, max_length=BATCH_LIMIT)]


# Jobs as answered


class Resources(Answer):
    """What a job holds while it runs."""

    cpu_units: float
    memory_mb: int


class RetryConfig(Answer):
    """What happens after a failed attempt."""

    max_attempts: int
    strategy: str
    base_delay_seconds: float
    backoff_multiplier: float
    max_delay_seconds: float
    jitter: bool


class DependencyAnswer(Answer):
    """A job this one waits for otherwise than until it is completed."""

    job_id: str
    when: Condition


class Progress(Answer):
    """How far a job says it is."""

    fraction: float | None
    message: str | None


class JobError(Answer):
    """Why the last attempt failed."""

    type: str
    message: str | None


class EstimatedStart(Answer):
    """When a job will probably start."""

    earliest: AwareDatetime
    latest: AwareDatetime | None
    method: str


WaitingCode = Literal[
    "dependencies",
    "time",
    "backoff",
    "turn",
    "resources",
    "user_cap",
    "type_cap",
    "no_worker",
    "paused",
]


class Waiting(Answer):
    """Why a job waits, and what would unblock it."""

    code: str = Field(json_schema_extra={"examples": list(WaitingCode.__args__)})  # type: ignore[attr-defined]  # of a Literal
    message: str
    estimated_start: EstimatedStart | None


class JobAnswer(Answer):
    """A job as it is now."""

    job_id: str
    type: str
    status: JobStatus
    reason: CancelReason | None
    owner: str
    priority: JobClass
    priority_level: int
    description: str | None
    tags: list[str]
    payload: dict[str, Any]
    depends_on: list[str | DependencyAnswer] = Field(description="As in a submission.")
    dependents_count: int
    resource_requirements: Resources
    retry_config: RetryConfig
    timeout_seconds: float
    executor: Executor
    attempt: int
    created_at: AwareDatetime
    run_at: AwareDatetime | None
    start_by: AwareDatetime | None
    ready_at: AwareDatetime | None
    queued_at: AwareDatetime | None
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    waited_seconds: float = Field(description="From submission to the last start, or until now.")
    elapsed_seconds: float | None = Field(description="Of the last attempt, until now or its end.")
    progress: Progress | None
    result: Any
    error: JobError | None
    worker: str | None
    schedule: str | None
    callback_url: str | None
    request_id: str | None
    position_in_queue: int | None
    waiting: Waiting | None
    duplicate: bool = Field(
        default=False, description="In answers to a submission: the job was there before."
    )


class JobList(Answer):
    """One page of jobs; a page may hold fewer than asked for and still not be the last."""

    jobs: list[JobAnswer]
    next_cursor: str | None


class BatchAnswer(Answer):
    """The jobs of a batch in its order."""

    jobs: list[JobAnswer]
    created: int
    duplicates: int


class LogLine(Answer):
    """One line a job wrote."""

    at: AwareDatetime
    attempt: int
    level: str
    message: str


class LogList(Answer):
    """One page of a job's log, oldest first."""

    logs: list[LogLine]
    next_cursor: str | None


class AttemptAnswer(Answer):
    """One try at a job."""

    attempt: int
    worker: str
    queued_at: AwareDatetime
    started_at: AwareDatetime
    finished_at: AwareDatetime | None
    outcome: Outcome | None
    error: JobError | None
    traceback: str | None
    peak_memory_mb: float | None
    cpu_seconds: float | None


class AttemptList(Answer):
    """Every try at a job, first to last."""

    attempts: list[AttemptAnswer]


class EventAnswer(Answer):
    """One move of a job."""

    seq: int
    at: AwareDatetime
    verb: str
    status: JobStatus
    attempt: int
    data: dict[str, Any] | None


class EventList(Answer):
    """One page of a job's history, oldest first."""

    events: list[EventAnswer]
    next_cursor: str | None


class GraphJob(Answer):
    """A job of a workflow; all about it is at its own address."""

    job_id: str
    type: str
    status: JobStatus
    reason: CancelReason | None
    description: str | None
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    elapsed_seconds: float | None = Field(description="Of the last attempt, until now or its end.")
    progress: Progress | None


class GraphEdge(Answer):
    """One job waits for another."""

    source: str = Field(alias="from", description="The job that is waited for.")
    to: str = Field(description="The job that waits.")
    when: Condition
    met: bool


class Graph(Answer):
    """A job with all it is connected with, in the order of submission."""

    jobs: list[GraphJob]
    edges: list[GraphEdge]
    truncated: bool = Field(
        description="Some were left out: a graph tells the 5,000 jobs that are fewest steps away,"
        " and 20,000 edges among them."
    )


class CallbackTry(Answer):
    """One try at a callback: the status of the answer, or why there was none."""

    number: int
    at: AwareDatetime
    status_code: int | None
    error: str | None
    milliseconds: int


class CallbackAnswer(Answer):
    """What is told about one end of a job."""

    delivery_id: str = Field(description="As in `Fairq-Delivery`, the same at every try.")
    state: CallbackState
    status: JobStatus = Field(description="In which the job ended.")
    created_at: AwareDatetime
    next_try_at: AwareDatetime | None
    delivered_at: AwareDatetime | None
    gave_up_at: AwareDatetime | None
    tries: list[CallbackTry] = Field(description="First to last, as far as they are remembered.")


class CallbackList(Answer):
    """One page of a job's callbacks, newest first."""

    callbacks: list[CallbackAnswer]
    next_cursor: str | None


class CallbackSecret(Answer):
    """What signs the callbacks of an account."""

    secret: str
    created_at: AwareDatetime
    previous_until: AwareDatetime | None = Field(
        description="Until when the secret before signs as well."
    )


# Streams


class StreamOpening(Request):
    """The first message of a WebSocket: whose it is, where it resumes. Both may be left out."""

    token: Annotated[str, Field(max_length=NAME_LIMIT)] | None = None
    last_event_id: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class StreamedMove(Answer):
    """A change of a job, as streams tell it. Its ``seq`` is the id of the event."""

    job_id: str
    owner: str
    seq: int
    verb: str
    status: JobStatus
    attempt: int
    at: AwareDatetime
    worker: str | None = None
    reason: CancelReason | None = None
    error: str | None = None


class StreamPlace(Answer):
    """Where a stream is: the ``seq`` of the last event it has told, if any."""

    seq: int | None


class LogEnd(Answer):
    """The last event of a log: in which status the job ended, null if it is gone."""

    status: JobStatus | None


# Asking for jobs

_STATUS_WORDS = {*JobStatus, *GROUPS}


def _words(given: Any) -> Any:
    return [word for word in given.split(",") if word] if isinstance(given, str) else given


def _status_word(word: str) -> str:
    if word not in _STATUS_WORDS:
        raise ValueError(f"must be one of {', '.join(sorted(_STATUS_WORDS))}")
    return word


def _priority_word(word: str) -> str:
    if word in set(JobClass) or (word.isdecimal() and int(word) <= LOWEST_LEVEL):
        return word
    raise ValueError(f"must be one of {', '.join(JobClass)} or a whole number 0 to 10")


def _spelled_out(words: Collection[str]) -> frozenset[JobStatus]:
    singles = {JobStatus(word) for word in words if word not in GROUPS}
    return frozenset(singles.union(*(GROUPS[word] for word in words if word in GROUPS)))


_StatusWord = Annotated[str, AfterValidator(_status_word)]
_PriorityWord = Annotated[str, AfterValidator(_priority_word)]


class Page(Query):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT)] = PAGE_DEFAULT
    cursor: Annotated[str, Field(max_length=200)] | None = None


class OwnerQuery(Query):
    """Whose job, for operators; job ids are unique per owner."""

    owner: Name | None = None


class OwnerPage(Page, OwnerQuery):
    """Which part of a list that belongs to a job."""


class LogsQuery(OwnerPage):
    """Which lines of a log, or all of them and those to come."""

    follow: bool = Field(
        default=False,
        description="Stream every line as server-sent events until the job has finished.",
    )


class WaitQuery(OwnerQuery):
    """How long to wait for a job."""

    timeout_seconds: Annotated[float, Field(ge=0, le=WAIT_LIMIT)] = 30.0


class JobsQuery(Page, OwnerQuery):
    """Which jobs to list."""

    status: Annotated[set[_StatusWord], BeforeValidator(_words)] = Field(
        default_factory=set, description="Statuses and groups, separated by commas."
    )
    type: Annotated[set[Name], BeforeValidator(_words)] = Field(
        default_factory=set, description="Job types, separated by commas."
    )
    priority: Annotated[set[_PriorityWord], BeforeValidator(_words)] = Field(
        default_factory=set, description="Classes and levels, separated by commas."
    )
    tag: list[Tag] = Field(default_factory=list, description="Repeat it to ask for several.")
    q: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="Text in the id, the description or a tag."
    )
    created_after: Instant | None = None
    created_before: Instant | None = None
    sort: Literal["newest", "oldest"] = "newest"
    format: Literal["json", "csv", "jsonl"] | None = Field(
        default=None,
        description="Goes before what the header Accept asks for. A file holds the whole list:"
        " limit and cursor do not go with it.",
    )

    def statuses(self) -> frozenset[JobStatus]:
        """Return the statuses asked for, groups spelled out; none asked for means any."""
        return _spelled_out(self.status)


# Dead letters


Fingerprint = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(printable)]
SearchText = Annotated[str, Field(max_length=200)]

_OF_ERROR = "The same for errors that are alike; as a dead letter or a group tells it."
_IN_WHAT = "Text in the id, the description or the error."


class DeadLettersQuery(Page, OwnerQuery):
    """Which dead letters to list."""

    takes_blanks = True

    group: bool = Field(default=False, description="Put those together whose errors are alike.")
    type: Name | None = None
    fingerprint: Fingerprint | None = Field(default=None, description=_OF_ERROR)
    q: SearchText | None = Field(default=None, description=_IN_WHAT)
    failed_after: Instant | None = None
    failed_before: Instant | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Leave out what a form leaves empty."""
        return {name: value for name, value in given.items() if value != ""}


class DeadLettersFilter(Request):
    """Which dead letters are meant: those that match all of this. Nothing means all of them."""

    type: Name | None = None
    fingerprint: Fingerprint | None = Field(default=None, description=_OF_ERROR)
    owner: Name | None = None
    q: SearchText | None = Field(default=None, description=_IN_WHAT)
    failed_after: Instant | None = None
    failed_before: Instant | None = None


class DeadLettersRequest(Request):
    """Dead letters to deal with: by name, or all that match a filter."""

    job_ids: Annotated[list[JobId], Field(min_length=1, max_length=BATCH_LIMIT)] | None = None
    owner: Name | None = Field(default=None, description="Whose jobs the ids name, for operators.")
    filter: DeadLettersFilter | None = None
    cursor: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="Where the request before stopped; goes with a filter."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.job_ids is None) == (self.filter is None):
            raise ValueError("give either job_ids or filter")
        if self.filter is not None and self.owner is not None:
            raise ValueError("owner goes into the filter")
        if self.filter is None and self.cursor is not None:
            raise ValueError("cursor goes with a filter")
        return self


class DeadLettersRetry(DeadLettersRequest):
    """Dead letters to run again, with a change of their payloads if one is given."""

    payload: dict[str, Any] | None = Field(
        default=None,
        description="A JSON merge patch (RFC 7396) for every payload; null takes a field away.",
    )


class DeadLetter(JobAnswer):
    """A job that failed and that nobody has discarded."""

    fingerprint: str = Field(description="The same for jobs whose errors are alike.")


class DeadLetterList(Answer):
    """One page of dead letters, the latest failure first; it may hold fewer than asked for."""

    jobs: list[DeadLetter]
    next_cursor: str | None


class DeadLetterGroup(Answer):
    """Dead letters whose errors are alike."""

    fingerprint: str
    type: str
    error: JobError = Field(description="Of the latest.")
    count: int
    first_failed_at: AwareDatetime
    last_failed_at: AwareDatetime
    owners: list[str] | None = Field(description="Whose jobs they are, for operators.")
    example: str = Field(description="The job that failed last.")


class DeadLetterGroups(Answer):
    """One page of groups; the one that failed last comes first."""

    groups: list[DeadLetterGroup]
    looked_at: int = Field(
        description="How many dead letters the groups were made of, matching or not: the latest."
    )
    next_cursor: str | None


class DeadLettersAnswer(RootModel[DeadLetterList | DeadLetterGroups]):
    """Dead letters, or groups of them if these were asked for."""


class _Cleared(Answer):
    skipped: int = Field(description="Named or found, but no dead letter any more, or unknown.")
    remaining: int = Field(
        description="Further ones that match the filter, as far as one request reaches."
    )
    next_cursor: str | None = Field(
        description="To be sent along with the same filter to go on; null when nothing is left."
    )


class Retried(_Cleared):
    """What became of dead letters that were to run again."""

    retried: int


class Discarded(_Cleared):
    """What became of dead letters that were to be discarded."""

    discarded: int


# Many jobs at a time


def _one_or_more(given: Any) -> Any:
    """Take a single word or number for a list of it, and numbers as words."""
    words = given if isinstance(given, list) else [given]
    return [str(word) if type(word) is int else word for word in words]


_Several = BeforeValidator(_one_or_more, json_schema_input_type=str | list[str])
_Priorities = BeforeValidator(
    _one_or_more, json_schema_input_type=JobClass | Level | list[JobClass | Level]
)


class BulkFilter(Request):
    """Which jobs are meant: those that match all of this. Nothing means all of them.

    As in the query of the list of jobs; where that takes several words, this takes a list.
    """

    status: Annotated[list[_StatusWord], _Several] = Field(
        default_factory=list, description="Statuses and groups."
    )
    type: Annotated[list[Name], _Several] = Field(default_factory=list)
    priority: Annotated[list[_PriorityWord], _Priorities] = Field(
        default_factory=list, description="Classes and levels."
    )
    owner: Name | None = None
    tag: Annotated[list[Tag], _Several] = Field(
        default_factory=list, description="Tags that a job has all of."
    )
    q: SearchText | None = Field(
        default=None, description="Text in the id, the description or a tag."
    )
    created_after: Instant | None = None
    created_before: Instant | None = None

    def statuses(self) -> frozenset[JobStatus]:
        """Return the statuses asked for, groups spelled out; none asked for means any."""
        return _spelled_out(self.status)


class BulkRequest(Request):
    """What to do to many jobs: to those named, or to all that match a filter."""

    action: BulkAction
    job_ids: Annotated[list[JobId], Field(min_length=1, max_length=BATCH_LIMIT)] | None = None
    owner: Name | None = Field(default=None, description="Whose jobs the ids name, for operators.")
    filter: BulkFilter | None = None
    priority: Priority | None = Field(default=None, description="Goes with prioritise.")
    add_tags: Annotated[list[Tag], Field(max_length=TAGS_LIMIT)] = Field(
        default_factory=list, description="Goes with tag."
    )
    remove_tags: Annotated[list[Tag], Field(max_length=TAGS_LIMIT)] = Field(
        default_factory=list, description="Goes with tag."
    )
    dry_run: bool = Field(default=False, description="Count only, and leave all as it is.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.job_ids is None) == (self.filter is None):
            raise ValueError("give either job_ids or filter")
        if self.filter is not None and self.owner is not None:
            raise ValueError("owner goes into the filter")
        return self

    @model_validator(mode="after")
    def _what_goes_with_the_action(self) -> Self:
        tags = [*self.add_tags, *self.remove_tags]
        if (self.priority is not None) != (self.action is BulkAction.PRIORITISE):
            raise ValueError("priority goes with prioritise, which needs it")
        if bool(tags) != (self.action is BulkAction.TAG):
            raise ValueError("add_tags and remove_tags go with tag, which needs one of them")
        if both := set(self.add_tags) & set(self.remove_tags):
            raise ValueError(f"{min(both)} stands in add_tags and in remove_tags; name it in one")
        return self


class BulkAnswer(Answer):
    """How many jobs are meant, and the job that deals with them."""

    action: BulkAction
    dry_run: bool
    count: int = Field(description="Jobs that match and are in a status that takes the action.")
    more: bool = Field(description="Counting stopped: there are at least as many as `count`.")
    not_found: int = Field(description="Of the ids, how many name no job you may see.")
    job_id: str | None = Field(
        description="The job that does it, yours to watch and to cancel; none for a dry run. Its"
        " result tells with how many jobs it was `done`, and how many were `skipped` and why."
    )


# Pull workers


def _progress_given(given: Any) -> Any:
    return {"fraction": given} if isinstance(given, int | float) else given


def _line_given(given: Any) -> Any:
    return {"message": given} if isinstance(given, str) else given


class NextRequest(Request):
    """A worker that asks for a job."""

    worker: Name = Field(description="What people are told where the job runs.")
    types: Annotated[list[Name], Field(min_length=1, max_length=_NAMES_LIMIT)] | None = Field(
        default=None, description="Jobs of these types only."
    )
    lease_seconds: Annotated[float, Field(ge=1, le=86_400)] = Field(
        default=30, description="How long the job is the worker's without a heartbeat."
    )
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = Field(
        default=0, description="How long to wait for a job."
    )


class HandedJob(JobAnswer):
    """A job that is the worker's to run."""

    lease: str = Field(description="To be sent with every heartbeat, and with the end.")
    lease_expires_at: AwareDatetime


class ProgressReport(Request):
    """How far a job is."""

    fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    message: Annotated[str, Field(max_length=_MESSAGE_LIMIT)] | None = None


class LineReport(Request):
    """A line for the log of a job."""

    message: Annotated[str, Field(max_length=_LINE_LIMIT)]
    level: Literal["debug", "info", "warning", "error"] = "info"
    at: Instant | None = Field(default=None, description="Now, if it is left out.")


class HeartbeatRequest(Request):
    """A sign of life."""

    lease: Lease
    progress: Annotated[
        ProgressReport | None,
        BeforeValidator(_progress_given, json_schema_input_type=ProgressReport | float | None),
    ] = None
    logs: Annotated[
        list[
            Annotated[
                LineReport, BeforeValidator(_line_given, json_schema_input_type=LineReport | str)
            ]
        ],
        Field(max_length=_LINES_LIMIT),
    ] = []  # noqa: RUF012 - pydantic copies it


class HeartbeatAnswer(Answer):
    """What the worker is to do."""

    cancel: bool = Field(description="The job is to stop; say so with its end.")
    lease_expires_at: AwareDatetime


class ErrorReport(Request):
    """Why a job failed. Errors of one type are put together with others like them."""

    type: Name = "Failed"
    message: Annotated[str, Field(max_length=_LINE_LIMIT)]
    traceback: Annotated[str, Field(max_length=_TRACEBACK_LIMIT)] | None = None


class CompleteRequest(Request):
    """How a job ended."""

    lease: Lease
    status: Literal[JobStatus.COMPLETED, JobStatus.FAILED]
    result: Any = Field(default=None, description="Of a completed job.")
    error: Annotated[
        ErrorReport | None,
        BeforeValidator(_line_given, json_schema_input_type=ErrorReport | str | None),
    ] = Field(default=None, description="Of a failed job.")
    retryable: bool = Field(default=True, description="Whether another attempt may help.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.status is JobStatus.COMPLETED and self.error is not None:
            raise ValueError("a completed job has no error")
        if self.status is JobStatus.FAILED and self.result is not None:
            raise ValueError("a failed job has no result")
        return self


# The simple queue protocol


class SimpleJob(Answer):
    """A job of the simple queue protocol."""

    jobId: str  # noqa: N815 - the protocol's name
    description: str | None
    state: Literal["submitted", JobStatus.RUNNING, JobStatus.FAILED, "succeeded"]
    data: Any


class SimpleJobList(RootModel[list[SimpleJob]]):
    """All jobs, in the order of their submission."""


class SimpleSubmission(Request):
    """A job to submit."""

    jobId: JobId  # noqa: N815 - the protocol's name
    description: Annotated[str, Field(max_length=10_000)] | None = None
    data: Any = None


class SimpleCompletion(Request):
    """How a job ended."""

    jobId: JobId  # noqa: N815 - the protocol's name
    status: Literal[JobStatus.FAILED, "succeeded"]


# People


class CapsRequest(Request):
    """Limits on what is held at a time; null lifts one."""

    cpu_units: CpuUnits | None = None
    memory_mb: MemoryMb | None = None
    running_jobs: Annotated[int, Field(ge=1, le=_COUNT_LIMIT)] | None = None
    backlog: Annotated[int, Field(ge=0, le=_COUNT_LIMIT)] | None = None


class UserRequest(Request):
    """A new account."""

    username: Username
    password: Password
    role: Role = Role.USER
    group: Name | None = None
    weight: Weight = 1.0
    caps: CapsRequest = CapsRequest()
    active: bool = True


def _tell_no_defaults(schema: dict[str, Any]) -> None:
    for field in schema["properties"].values():
        field.pop("default", None)


class Patch(Request):
    """What to change: only what was sent counts, so the defaults of the fields mean nothing."""

    model_config = ConfigDict(json_schema_extra=_tell_no_defaults)


class RequirementsPatch(Patch):
    """What a job is to take while it runs; what is left out stays."""

    cpu_units: CpuUnits = 1.0
    memory_mb: MemoryMb = 1


class JobPatch(Patch):
    """What to change about a job that waits; what is left out stays."""

    priority: Priority = DEFAULT_LEVEL[JobClass.NORMAL]
    tags: Annotated[list[Tag], Field(max_length=TAGS_LIMIT)] = Field(
        default_factory=list, description="All of them, in the place of those there are."
    )
    run_at: Instant | None = Field(
        default=None, description="Not before; null is as soon as may be."
    )
    resource_requirements: RequirementsPatch = RequirementsPatch()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"must change something: {', '.join(type(self).model_fields)}")
        return self


class UserPatch(Patch):
    """What to change about an account; what is left out stays."""

    password: Password = ""
    role: Role = Role.USER
    group: Name | None = None
    weight: Weight = 1.0
    caps: CapsRequest = CapsRequest()
    active: bool = True


class GroupRequest(Request):
    """A new group."""

    name: Name
    weight: Weight = 1.0
    caps: CapsRequest = CapsRequest()


class GroupPatch(Patch):
    """What to change about a group; what is left out stays."""

    weight: Weight = 1.0
    caps: CapsRequest = CapsRequest()


class Caps(Answer):
    """Limits on what is held at a time; null is none."""

    cpu_units: float | None
    memory_mb: int | None
    running_jobs: int | None
    backlog: int | None


class UserAnswer(Answer):
    """An account."""

    username: str
    role: Role
    group: str | None
    weight: float
    caps: Caps
    active: bool
    paused: bool = Field(description="No more of its jobs are admitted until it is resumed.")
    created_at: AwareDatetime


class UserList(Answer):
    """Every account."""

    users: list[UserAnswer]


class Me(UserAnswer):
    """The caller's own account."""

    scopes: list[Scope]
    unfinished_jobs: int


class Share(Answer):
    """What an account was due and received of the machine over a time that has passed."""

    since: AwareDatetime
    due: float = Field(
        description="Its part by weight among those who received something then or want it now."
    )
    received: float = Field(
        description="Its part of the machine, on average: the larger of CPU and memory."
    )
    machine_seconds: float = Field(description="The same, times seconds.")


class Shares(Answer):
    """Shares of the last hour and the last day, to five minutes."""

    hour: Share
    day: Share


class UsedLimit(Answer):
    """A limit, and what is used of it."""

    name: Literal["cpu_units", "memory_mb", "running_jobs", "backlog"]
    of: Literal["own", "group"]
    limit: float | None
    used: float = Field(description="A group's backlog is counted to one beyond its limit.")


class BacklogAnswer(Answer):
    """Jobs that have not finished."""

    unfinished: int
    jobs: dict[JobStatus, int]
    oldest_ready_seconds: float | None


class Usage(Answer):
    """What the caller is due, receives, may hold and holds."""

    at: AwareDatetime
    weight: float = Field(description="As the rules and the group make it now.")
    shares: Shares
    limits: list[UsedLimit] = Field(description="As the rules make them now; null is none.")
    backlog: BacklogAnswer


class GroupAnswer(Answer):
    """Users who share a weight and caps."""

    name: str
    weight: float
    caps: Caps
    members: list[str]
    created_at: AwareDatetime


class GroupList(Answer):
    """Every group."""

    groups: list[GroupAnswer]


def _tell_no_uniqueness(schema: dict[str, Any]) -> None:
    """A word that is given twice is taken once."""
    schema.pop("uniqueItems")


class TokenRequest(Request):
    """A new token."""

    name: Name
    scopes: Annotated[set[Scope], Field(min_length=1, json_schema_extra=_tell_no_uniqueness)]
    expires_at: Instant | None = None


class TokenAnswer(Answer):
    """A token without its secret."""

    id: int
    name: str
    scopes: list[Scope]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    last_used_at: AwareDatetime | None


class NewToken(TokenAnswer):
    """A new token with its secret, which is told this once."""

    token: str


class TokenList(Answer):
    """The caller's tokens."""

    tokens: list[TokenAnswer]


# Policy


class CapacityRequest(Request):
    """Upper bounds on what the live workers offer; null sets none."""

    cpu_units: CpuUnits | None = None
    memory_mb: MemoryMb | None = None


class TypeRule(Request):
    """Limits on one job type."""

    max_running: Annotated[int, Field(ge=0, le=_COUNT_LIMIT)] | None = None
    max_per_minute: Annotated[int, Field(ge=0, le=_COUNT_LIMIT)] | None = None
    paused: bool = False


class ClassRule(Request):
    """What holds for one priority class."""

    paused: bool = False


def _several(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


def _as_given(names: list[str]) -> str | list[str]:
    return names[0] if len(names) == 1 else names


def _time_zone(name: str) -> str:
    try:
        ticks.time_zone(name)
    except TimingInvalid as refusal:
        raise ValueError(str(refusal)) from refusal
    return name


def _time_of_day(clock: str) -> str:
    if _TIME_OF_DAY.fullmatch(clock) is None:
        raise ValueError("must be a time of day, such as 08:00, up to 24:00")
    return clock


_SomeNames = Field(min_length=1, max_length=_NAMES_LIMIT)
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
TimeZone = Annotated[
    str, Field(max_length=100, examples=["Europe/Berlin"]), AfterValidator(_time_zone)
]


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

    model_config = ConfigDict(json_schema_extra=_tell_no_defaults)


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


# Schedules


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


# Workers, types, figures


class RunningJob(Answer):
    """A job a worker runs."""

    job_id: str
    owner: str
    attempt: int
    started_at: AwareDatetime


class WorkerAnswer(Answer):
    """A Celery worker and what it offers."""

    name: str
    host: str
    pid: int
    state: str
    alive: bool
    processes: int
    processes_min: int
    processes_max: int
    processes_limit: int = Field(description="The most it may have now; see grow and shrink.")
    cpu_units: float
    memory_mb: int
    queues: list[str]
    started_at: AwareDatetime
    heartbeat_at: AwareDatetime
    drain_requested_at: AwareDatetime | None = Field(
        description="Since when an operator wants it to take no new work; outlives its restarts."
    )
    running: list[RunningJob]


class HeldJob(RunningJob):
    """A job a pull worker holds."""

    lease_expires_at: AwareDatetime


class PullWorkerAnswer(Answer):
    """A program that asks for jobs over HTTP, by the name it gives itself."""

    name: str
    asked_by: str | None = Field(
        description="Whose token it used; null if it has not asked in the last ten minutes."
    )
    asked_at: AwareDatetime | None
    running: list[HeldJob]


class ResizeQuery(Query):
    """By how many processes."""

    processes: Annotated[int, Field(ge=1, le=1_000)] = 1


class Offer(Answer):
    """What there is, or what is taken of it."""

    cpu_units: float
    memory_mb: int
    slots: int


class WorkerList(Answer):
    """Every worker, and what the live ones of Celery offer together."""

    workers: list[WorkerAnswer]
    pull_workers: list[PullWorkerAnswer] = Field(
        description="Those that asked in the last ten minutes, or hold a job."
    )
    capacity: Offer


class TypeAnswer(Answer):
    """A kind of job that can be submitted."""

    name: str
    description: str
    payload_schema: dict[str, Any] | None
    resource_requirements: Resources
    timeout_seconds: float
    max_timeout_seconds: float | None = Field(
        description="The most a submission, or a running job, may ask for."
    )
    retry_config: RetryConfig
    executor: Executor = Field(description="Who runs it unless a submission says otherwise.")
    executors: list[Executor]


class TypeList(Answer):
    """Every kind of job."""

    types: list[TypeAnswer]


class Spread(Answer):
    """How a measured time is spread; null where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


class Tally(Answer):
    """How many jobs started within, before and after the range they were told first."""

    scored: int
    within: int
    early: int
    late: int


class Estimates(Tally):
    """How estimated starts came true over the last seven days, for everybody's jobs."""

    by_method: dict[str, Tally]


class Stats(Answer):
    """Figures of now and of the last hour."""

    at: AwareDatetime
    of: Literal["own", "all"]
    jobs: dict[JobStatus, int] = Field(description="Unfinished jobs by status.")
    classes: dict[JobClass, int] = Field(description="Jobs that could start now, by class.")
    finished_last_hour: dict[JobStatus, int]
    finished_per_minute: float = Field(description="Over the last five minutes.")
    wait_seconds: Spread
    run_seconds: Spread
    oldest_ready_seconds: float | None
    capacity: Offer
    reserved: Offer
    workers: int
    estimates: Estimates


class Health(Answer):
    """The process answers."""

    status: Literal["ok"]


class Check(Answer):
    """One part that readiness looks at."""

    ok: bool
    detail: str
    age_seconds: float | None = None


class Readiness(Answer):
    """Whether jobs can be taken in and go on."""

    ready: bool
    checks: dict[str, Check]


# The audit log


class AuditQuery(Page):
    """Which entries of the audit log."""

    actor: Name | None = Field(
        default=None, description="A user name, or `command line`, however it is capitalised."
    )
    action: Name | None = Field(default=None, examples=["users.change", "policy.change"])
    target: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(
        default=None, examples=["users/ann", "queues/low", "jobs/ann/report-7"]
    )
    after: Instant | None = None
    before: Instant | None = None


class AuditAnswer(Answer):
    """One change."""

    at: AwareDatetime
    actor: str
    address: str | None = Field(description="Where the request came from.")
    request_id: str | None
    action: str
    target: str
    detail: dict[str, Any] = Field(description="What was, and what it became; never a secret.")


class AuditList(Answer):
    """One page of changes, newest first."""

    entries: list[AuditAnswer]
    next_cursor: str | None


class FieldProblem(Answer):
    """What is wrong with one field."""

    path: str
    message: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None
    errors: list[FieldProblem] = Field(default_factory=list)
