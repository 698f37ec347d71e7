"""Many jobs at a time: which are meant, and what is done to them."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from scheduler.job_request import TAGS_LIMIT, Instant, JobId, Level, Name, Priority, Request, Tag
from scheduler.states import BulkAction, JobClass, JobStatus
from webapp.schemas.groundwork import BATCH_LIMIT, Answer, SearchText
from webapp.schemas.listing import PriorityWord, StatusWord, spelled_out


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

    status: Annotated[list[StatusWord], _Several] = Field(
        default_factory=list, description="Statuses and groups."
    )
    type: Annotated[list[Name], _Several] = Field(default_factory=list)
    priority: Annotated[list[PriorityWord], _Priorities] = Field(
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
        return spelled_out(self.status)


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
