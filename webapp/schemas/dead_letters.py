"""Dead letters: listing failed jobs and groups of them, running them again, discarding them."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, AwareDatetime, Field, RootModel, model_validator

from scheduler.job_request import Instant, JobId, Name, Request, printable
from webapp.schemas.groundwork import BATCH_LIMIT, Answer, OwnerQuery, Page, SearchText
from webapp.schemas.jobs import JobAnswer, JobError

Fingerprint = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(printable)]

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
